# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The docker command line under the modules. The engine is a stand-in."""

import json

import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.testing import patch_module_args
from ansible_collections.iopaint.fleet.plugins.module_utils.docker_cli import Docker


@pytest.fixture
def module():
    with patch_module_args({}):
        yield AnsibleModule(argument_spec={})


@pytest.fixture
def failure(capsys):
    """Gives the message with which a call fails its module."""

    def message(call, *args):
        with pytest.raises(SystemExit):
            call(*args)
        return json.loads(capsys.readouterr().out)["msg"]

    return message


def test_an_image_is_described_or_none(engine, module):
    engine.have("iopaint:cpu-latest")
    docker = Docker(module)
    assert docker.image("iopaint:cpu-latest") == {"Id": "sha256:iopaint:cpu-latest", "Size": 1000}
    assert docker.image("iopaint:cpu-1.6.0") is None


def test_a_field_of_the_engine_is_read(engine, module):
    assert Docker(module).info("{{.DockerRootDir}}") == str(engine.root)


def test_a_command_runs_with_its_environment(engine, module, tmp_path):
    engine.have("a:1")
    assert Docker(module).run("tag", "a:1", "b:1", environ_update={"WORD": "x y"}, cwd=str(tmp_path)) == (0, "", "")
    (call,) = engine.calls("tag")
    assert (call["argv"], call["env"]["WORD"], call["cwd"]) == (["tag", "a:1", "b:1"], "x y", str(tmp_path))
    assert engine.ids["b:1"] == engine.ids["a:1"]


def test_an_engine_that_is_down_is_no_missing_image(engine, module, failure):
    docker = Docker(module)
    engine.set(down=True)
    for call, argument in ((docker.image, "a:1"), (docker.info, "{{.DockerRootDir}}")):
        message = failure(call, argument)
        assert message.startswith("The Docker engine does not answer: Cannot connect to the Docker daemon at unix:///var/run")
        assert "systemctl status docker" in message


def test_a_host_without_docker_says_so(no_programs, module, failure):
    assert 'Failed to find required executable "docker"' in failure(Docker, module)
