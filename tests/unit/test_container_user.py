# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which user of the host the image's user is, by what the engine says of itself."""

import json

import pytest
from ansible_collections.iopaint.fleet.plugins.modules import container_user

MAPPED = {"SecurityOptions": ["name=seccomp,profile=builtin", "name=userns"], "DockerRootDir": "/srv/docker/100000.100000"}


@pytest.fixture
def look(run_module, engine, tmp_path):
    """Run the module against an engine that answers so, with these ranges in both files."""

    def run(info, ranges="dockremap:100000:65536\n", **options):
        for name in ("subuid", "subgid"):
            (tmp_path / name).write_text(ranges)
        engine.set(info=json.dumps(info))
        files = {name: str(tmp_path / name) for name in ("subuid", "subgid")}
        return run_module(container_user, user=10001, **files, **options)

    return run


@pytest.mark.parametrize("check", [False, True])
def test_without_a_mapping_the_numbers_are_the_same(look, check):
    result = look({"SecurityOptions": ["name=seccomp,profile=builtin"], "DockerRootDir": "/var/lib/docker"}, check=check)
    assert (result["id"], result["remapped"], result["changed"]) == (10001, False, False)


@pytest.mark.parametrize("ranges", ["dockremap:100000:65536\n", "ann:100000:65536\nbob:165536:10\n", ""])
def test_with_a_mapping_it_is_the_mapped_user(look, ranges):
    result = look(MAPPED, ranges)
    assert (result["id"], result["remapped"]) == (110001, True)


def test_a_data_root_of_such_a_name_is_no_mapping(look):
    assert look({**MAPPED, "SecurityOptions": []})["id"] == 10001


def test_a_range_that_is_too_small_is_refused(look):
    message = look(MAPPED, "dockremap:100000:10001\n", failed=True)["msg"]
    assert message.startswith("The engine maps 10001 users (userns-remap), and the image runs as user 10001.")
    assert message.endswith("Nothing was changed.")


def test_users_and_groups_of_two_beginnings_are_refused(look):
    message = look({**MAPPED, "DockerRootDir": "/var/lib/docker/100000.165536"}, failed=True)["msg"]
    assert "maps users from 100000 on and groups from 165536 on" in message


@pytest.mark.parametrize("state", ["down", "absent"])
def test_without_an_engine_the_numbers_are_the_same(run_module, request, state):
    request.getfixturevalue("no_programs" if state == "absent" else "engine")
    if state == "down":
        request.getfixturevalue("engine").set(down=True)
    assert run_module(container_user, user=10001)["id"] == 10001
