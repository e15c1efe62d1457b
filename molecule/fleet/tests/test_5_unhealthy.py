"""An instance that stopped serving is started again by the same deploy; one that fails keeps no other from its release."""

import pytest
from conftest import INSTANCES, NAMES, image
from play import deployed, play

HOST = 2
LIMIT = ("--limit", NAMES[HOST])
CPU = {"name": "cpu", "variant": "cpu", "port": 8080, "model": "cv2"}
BROKEN = {"name": "broken", "variant": "cpu", "port": 8081, "model": "cv2", "options": {"stand_in": "broken"}}
MODEL = (
    "import urllib.request as r, urllib.error as e\ntry:\n r.urlopen(r.Request('http://127.0.0.1:8080/api/v1/model',"
    ' data=b\'{\\"name\\": \\"nope\\"}\'), timeout=10)\nexcept e.HTTPError as error:\n print(error.code)'
)


@pytest.fixture(scope="module")
def wanted(fleet):
    """The variables of a play that wants what serves on the host."""
    return image(fleet[HOST].serves())


def switch_to_a_model_that_is_not_there(host):
    assert host(f'python3 -c "{MODEL}"') == "500"


@pytest.mark.parametrize("health", ["healthy", "unhealthy"])
def test_the_same_deploy_starts_an_instance_that_answers_500(fleet, wanted, health):
    """The engine calls it healthy for a minute, unhealthy from then on."""
    host = fleet[HOST]
    before, release = host.container(), host.current()
    switch_to_a_model_that_is_not_there(host)
    state = "docker inspect --format '{{.State.Health.Status}}' iopaint-cpu-iopaint-cpu-1"
    if health == "unhealthy":
        host(f'for try in $(seq 90); do test "$({state})" = unhealthy && break; sleep 1; done')
    assert host(state) == health
    run = play(INSTANCES, *LIMIT, **wanted)
    assert run.rc == 0, run.output
    assert run.says("http://127.0.0.1:8080 inpaints with cv2"), run.output
    assert host.container() != before
    assert host.current() == release
    assert host.is_settled(wanted["iopaint_images"]["cpu"].split("-")[1])


def test_an_instance_that_fails_keeps_no_other_from_its_release(fleet, wanted):
    """The one that fails comes first, and has no previous release."""
    host = fleet[HOST]
    before = host.current()
    options = {"iopaint_instances": [BROKEN, {**CPU, "memory": "300m"}], **wanted}
    run = play(INSTANCES, *LIMIT, **options)
    assert run.rc == 2, run.output
    assert run.says(
        "the stand-in is broken",
        "broken: there is no previous release to revert to; 0001-",
        "http://127.0.0.1:8081 answers, but the release behind it is not proven.",
        "Current and proven: cpu (",
    ), run.output
    assert host.current() != before
    assert host.outcomes()[host.current()] == "current"


def test_an_instance_that_is_reverted_leaves_another_s_new_release_alone(fleet, wanted):
    host = fleet[HOST]
    second = {**BROKEN, "options": {}}
    assert play(INSTANCES, *LIMIT, iopaint_instances=[CPU, second], **wanted).rc == 0
    before = deployed(host.shell)
    run = play(INSTANCES, *LIMIT, iopaint_instances=[{**CPU, "memory": "301m"}, BROKEN], **wanted)
    assert run.rc == 2, run.output
    assert run.says("broken: reverted to the previous release", "which is proven", "Current and proven: cpu ("), run.output
    assert "Nothing serves" not in run.output
    assert host.serves(8081) == host.serves()
    after = deployed(host.shell)
    assert before.keys() == after.keys()
    assert host("docker inspect --format '{{.HostConfig.Memory}}' iopaint-cpu-iopaint-cpu-1") == str(301 * 1024**2)


def test_a_dry_run_on_an_instance_that_is_stopped_changes_nothing(fleet, wanted):
    host = fleet[HOST]
    host("docker stop iopaint-cpu-iopaint-cpu-1")
    run = play(INSTANCES, *LIMIT, "--check", iopaint_instances=[{**CPU, "memory": "301m"}, {**BROKEN, "options": {}}], **wanted)
    assert run.rc == 0, run.output
    assert "Nothing serves" not in run.output
    assert host("docker inspect --format '{{.State.Status}}' iopaint-cpu-iopaint-cpu-1") == "exited"
    run = play("playbooks/remove.yml", *LIMIT, iopaint_remove_instances=["broken"], **wanted)
    assert run.rc == 0, run.output
    assert play(INSTANCES, *LIMIT, **wanted).rc == 0


def test_files_of_an_older_image_are_named_and_adopted_by_the_variable(fleet, wanted):
    host = fleet[HOST]
    host("echo root > /var/lib/iopaint/outputs/cpu/older.png && chown 0:0 /var/lib/iopaint/outputs/cpu/older.png")
    before = deployed(host.shell)
    run = play(INSTANCES, *LIMIT, **wanted)
    assert run.rc == 2, run.output
    assert run.says("older.png (0:0 06", "iopaint_adopt_data", "chown -R 10001:10001 /var/lib/iopaint/outputs/cpu"), run.output
    assert run.changed(NAMES[HOST]) == 0
    assert deployed(host.shell) == before
    run = play(INSTANCES, *LIMIT, **wanted, iopaint_adopt_data=True)
    assert run.rc == 0, run.output
    assert host("stat -c %u:%g /var/lib/iopaint/outputs/cpu/older.png") == "10001:10001"
    assert host("stat -c %u:%g:%a /var/lib/iopaint/outputs/cpu") == "10001:10001:750"
    host("docker exec iopaint-cpu-iopaint-cpu-1 sh -c 'echo saved > /app/outputs/older.png'")
    host("rm /var/lib/iopaint/outputs/cpu/older.png")
