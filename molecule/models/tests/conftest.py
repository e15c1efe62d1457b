"""What the tests of this scenario share: the hub, and the instance that has its models from there."""

import json
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "shared"))

CONTAINER = "iopaint-sd-iopaint-cpu-1"
INSTANCE = "/opt/iopaint/instances/sd"
HUB = "http://10.99.0.1:8100"
CACHE = "/var/lib/iopaint/models/huggingface/hub"


def wait(condition, seconds):
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not so after {seconds} s"
        time.sleep(0.3)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """A failure shows what the engine and the container said."""
    report = yield
    if report.when == "call" and report.failed:
        host = item.funcargs["host"]
        for command in (
            "docker ps -a",
            f"docker logs --tail 30 {CONTAINER} 2>&1",
            f"find {CACHE} | head -60",
            "systemctl status fixture-hub",
        ):
            report.sections.append((command, host.run(command).stdout))
    return report


@pytest.fixture
def hub(host):
    """Let the hub do something wrong: hub(tampered=[path]); until the end of the test, or hub()."""

    def tell(**faults):
        host.check_output(f"curl -sSf -X PUT -d %s {HUB}/faults", json.dumps(faults))

    yield tell
    tell()


@pytest.fixture
def asked(host):
    """Return the requests that the hub had since it was told what to do."""
    return lambda: json.loads(host.check_output(f"curl -sSf {HUB}/asked"))


@pytest.fixture
def commit(host):
    """Return the commit that main of the cache names: commit("tests/tiny-inpainting")."""
    return lambda name: host.file(f"{CACHE}/models--{name.replace('/', '--')}/refs/main").content_string


@pytest.fixture
def release(host):
    """Return the record of the current release, and the checksum of the picture of its proof."""

    def read():
        picture = host.check_output(f"sha256sum {INSTANCE}/proof.png").split()[0]
        return json.loads(host.file(f"{INSTANCE}/current/release.json").content_string), picture

    return read


@pytest.fixture
def api(host):
    """Calls IOPaint's API from the host itself: api(path, data=None) gives the answer."""

    def call(path, data=None):
        post = f"-H 'Content-Type: application/json' -d '{json.dumps(data)}'" if data is not None else ""
        return json.loads(host.check_output(f"curl -sSf -m 120 {post} http://127.0.0.1:8080{path}"))

    return call


@pytest.fixture
def healthy(host):
    """Waits until the instance is healthy."""
    state = f"docker inspect --format '{{{{.State.Health.Status}}}}' {CONTAINER}"
    return lambda: wait(lambda: host.check_output(state) == "healthy", 120)


@pytest.fixture
def inpaints(host):
    """Runs the module inpaint_check on the host, with a diffusion of four steps; gives its result."""

    def check(**options):
        arguments = {"url": "http://127.0.0.1:8080", "image": "/opt/iopaint/instances/photo.png", "parameters": {"sd_steps": 4}}
        return host.ansible("iopaint.fleet.inpaint_check", json.dumps({**arguments, **options}), check=False)

    return check
