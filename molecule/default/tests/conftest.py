"""What the tests of this scenario share."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "shared"))

CONTAINER = "iopaint-cpu-iopaint-cpu-1"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """A failure shows what the engine and the container said."""
    report = yield
    if report.when == "call" and report.failed and "host" in item.fixturenames:
        host = item.funcargs["host"]
        for command in (f"docker logs --tail 30 {CONTAINER} 2>&1", "journalctl --unit docker --no-pager --lines 15"):
            report.sections.append((command, host.run(command).stdout))
    return report


@pytest.fixture
def container(host):
    """The container's `docker inspect` document."""
    return json.loads(host.check_output(f"docker inspect {CONTAINER}"))[0]


@pytest.fixture
def api(host):
    """Calls IOPaint's API from the host itself: api(path, data=None) gives status and body."""

    def call(path, data=None):
        post = f"-H 'Content-Type: application/json' -d '{json.dumps(data)}'" if data is not None else ""
        answer = host.check_output(f"curl -sS -m 60 -w '\\n%{{http_code}}' {post} http://127.0.0.1:8080{path}")
        body, _, status = answer.rpartition("\n")
        return int(status), body

    return call


@pytest.fixture
def inpaints(host):
    """Runs the module inpaint_check on the host: inpaints(model=None) gives its result."""

    def check(**options):
        arguments = {"url": "http://127.0.0.1:8080", "image": "/opt/iopaint/instances/photo.png", **options}
        return host.ansible("iopaint.fleet.inpaint_check", json.dumps(arguments), check=False)

    return check
