"""Addresses and ports: IPv6, an address that the host lacks, and instances that take each other's ports."""

import pytest
from conftest import INSTANCES, NAMES, image
from play import deployed, play

HOST = 2
LIMIT = ("--limit", NAMES[HOST])
CPU = {"name": "cpu", "variant": "cpu", "port": 8080, "model": "cv2"}
MAIN = {**CPU, "name": "main"}
SECOND = {**CPU, "name": "second", "port": 8081}
BROKEN = {"options": {"stand_in": "broken"}}
STATE = "docker inspect --format '{{.State.Status}}' "


@pytest.fixture(scope="module")
def wanted(fleet):
    """The variables of a play that wants what serves on the host."""
    return image(fleet[HOST].serves())


@pytest.fixture
def deploy(wanted):
    def call(*instances, **options):
        return play(INSTANCES, *LIMIT, **{"iopaint_instances": list(instances), **wanted, **options})

    return call


def names(host):
    """The instances whose containers run."""
    return sorted(name.removeprefix("iopaint-").partition("-")[0] for name in deployed(host.shell))


def test_an_instance_on_ipv6_is_deployed_proven_and_seen(fleet, deploy, wanted, tmp_path):
    host = fleet[HOST]
    host("sysctl -w net.ipv6.conf.lo.disable_ipv6=0")
    run = deploy({**CPU, "bind_address": "::1"})
    assert run.rc == 0, run.output
    assert run.says("http://[::1]:8080 inpaints with cv2", "cpu serves on http://[::1]:8080"), run.output
    assert host("ss -ltnH 'sport = :8080'").split()[3] == "[::1]:8080"
    run = play("playbooks/status.yml", *LIMIT, iopaint_status_dir=str(tmp_path), **wanted)
    assert run.rc == 0, run.output
    assert '"http://[::1]:8080"' in next(tmp_path.glob("*.json")).read_text()
    run = play("playbooks/rollback.yml", *LIMIT)
    assert run.says("http://127.0.0.1:8080 inpaints with cv2"), run.output


@pytest.mark.parametrize(
    ("playbook", "strategy", "address"),
    [("deploy.yml", "replace", "192.0.2.1"), ("playbooks/upgrade.yml", "parallel", "2001:db8::1")],
)
def test_an_address_that_the_host_lacks_stops_nothing(fleet, wanted, playbook, strategy, address):
    host = fleet[HOST]
    before = deployed(host.shell)
    options = {"iopaint_bind_address": address, "iopaint_allow_anonymous": True, "iopaint_upgrade_strategy": strategy}
    run = play(playbook, *LIMIT, **options, **wanted)
    assert run.rc == 2, run.output
    assert run.says(f"The host has no address {address}, which", "iopaint_bind_address", "Nothing that runs was touched."), (
        run.output
    )
    assert run.changed(NAMES[HOST]) == 0
    assert deployed(host.shell) == before
    assert set(host.outcomes().values()) <= {"current", "previous", "failed", "superseded"}


def test_a_rename_that_fails_leaves_the_instance_serving(fleet, deploy):
    host = fleet[HOST]
    current = host.current()
    run = deploy({**MAIN, **BROKEN})
    assert run.rc == 2, run.output
    assert run.says(
        "cpu runs on the port that main is to have, and is stopped for it. If main fails, it is started again.",
        "the stand-in is broken",
        f"is recorded as failed; started again and proven in its place: cpu ({current}).",
    ), run.output
    assert "Nothing serves" not in run.output
    assert (names(host), host.current(), host.outcomes()[current]) == (["cpu"], current, "current")
    assert host.serves()


def test_a_rename_goes_through_and_can_be_rolled_back(fleet, deploy, wanted, tmp_path):
    host = fleet[HOST]
    before, pictures = deployed(host.shell), host("ls /var/lib/iopaint/outputs/cpu")
    dry = play(INSTANCES, *LIMIT, "--check", iopaint_instances=[MAIN], **wanted)
    assert dry.rc == 0, dry.output
    assert dry.says("cpu runs on the port that main is to have, and is stopped for it in the deploy."), dry.output
    assert deployed(host.shell) == before
    run = deploy(MAIN)
    assert run.rc == 0, run.output
    assert run.says("main serves on http://127.0.0.1:8080", "cpu had this port and is stopped"), run.output
    assert names(host) == ["main"]
    again = deploy(MAIN)
    assert (again.rc, again.changed(NAMES[HOST])) == (0, 0), again.output
    status = {"iopaint_instances": [MAIN], "iopaint_status_strict": True, "iopaint_status_dir": str(tmp_path)}
    run = play("playbooks/status.yml", *LIMIT, **status)
    assert run.rc == 0, run.output
    assert "displaced" in run.output, run.output

    run = play("playbooks/rollback.yml", *LIMIT)
    assert run.rc == 0, run.output
    assert run.says("cpu serves on http://127.0.0.1:8080", "main had this port and is stopped"), run.output
    assert names(host) == ["cpu"]
    assert host("ls /var/lib/iopaint/outputs/cpu") == pictures
    run = play("playbooks/remove.yml", *LIMIT, iopaint_remove_instances=["main"])
    assert run.rc == 0, run.output
    assert deploy(CPU).rc == 0


def test_two_instances_exchange_their_ports(fleet, deploy):
    host = fleet[HOST]
    assert deploy(CPU, SECOND).rc == 0
    swapped = [{**CPU, "port": 8081}, {**SECOND, "port": 8080}]
    run = deploy(swapped[0], {**swapped[1], **BROKEN})
    assert run.rc == 2, run.output
    assert run.says("cpu: reverted to the previous release", "second: reverted to the previous release"), run.output
    port = "docker port iopaint-{0}-iopaint-cpu-1 8080/tcp"
    assert [host(port.format(name)) for name in ("cpu", "second")] == ["127.0.0.1:8080", "127.0.0.1:8081"]
    assert (host.serves(8080), host.serves(8081)) == (host.serves(8081), host.serves(8080))
    run = deploy(*swapped)
    assert run.rc == 0, run.output
    assert [host(port.format(name)) for name in ("cpu", "second")] == ["127.0.0.1:8081", "127.0.0.1:8080"]
    run = play("playbooks/rollback.yml", *LIMIT)
    assert run.rc == 0, run.output
    assert [host(port.format(name)) for name in ("cpu", "second")] == ["127.0.0.1:8080", "127.0.0.1:8081"]
    assert play("playbooks/remove.yml", *LIMIT, iopaint_remove_instances=["second"]).rc == 0
    assert deploy(CPU).rc == 0


def test_a_failure_before_the_switch_starts_nothing_that_an_operator_stopped(fleet):
    host = fleet[HOST]
    current = host.current()
    host("docker stop iopaint-cpu-iopaint-cpu-1")
    run = play(INSTANCES, *LIMIT, **image("broken"), iopaint_upgrade_strategy="parallel")
    assert run.rc == 2, run.output
    assert run.says(
        f"failed before the switch and is recorded as failed; the release {current} was not touched.",
        "Nothing serves on http://127.0.0.1:8080",
    ), run.output
    assert host(f"{STATE} iopaint-cpu-iopaint-cpu-1") == "exited"
    host("docker start iopaint-cpu-iopaint-cpu-1")
    host("for try in $(seq 30); do curl -sf http://127.0.0.1:8080/api/v1/model && break; sleep 1; done")


def test_a_check_that_fails_itself_restarts_nothing(fleet, wanted):
    """The photograph of the proof is damaged, and the instance serves."""
    host = fleet[HOST]
    before = deployed(host.shell)
    host("cp /opt/iopaint/instances/photo.png /root/photo.png && echo damaged > /opt/iopaint/instances/photo.png")
    run = play(INSTANCES, *LIMIT, **wanted)
    host("mv /root/photo.png /opt/iopaint/instances/photo.png")
    assert run.rc == 2, run.output
    assert run.says("cpu: the check itself failed", "was neither restarted nor changed", "http://127.0.0.1:8080 answers."), (
        run.output
    )
    assert deployed(host.shell) == before
