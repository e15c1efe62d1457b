# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Secrets in variables: which options may hold one, and that neither messages nor modules show it."""

import base64
import importlib
import sys
from pathlib import Path

import pytest
import yaml
from ansible.errors import AnsibleError
from ansible.module_utils.testing import patch_module_args
from ansible_collections.iopaint.fleet.plugins.action import variables_check
from ansible_collections.iopaint.fleet.plugins.filter import instances, model_files
from ansible_collections.iopaint.fleet.plugins.module_utils import quiet

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "molecule" / "shared"))

import canaries

SECRET = "s3cr3t-of-the-vault"
ADDRESS = f"http://ann:{SECRET}@mirror.example.com/path"


@pytest.fixture
def on_a_host():
    """Nothing here runs on a host."""


def test_options_join_by_specification_and_by_name():
    options = canaries.secret_options()
    assert {"registry_users.password", "iopaint_registry_password", "iopaint_image_git_token"} <= set(options)
    assert {"iopaint_models.url", "iopaint_hub_endpoint", "docker_registry_mirrors", "docker_daemon_settings"} <= set(options)
    assert not {"docker_no_proxy", "iopaint_memory", "registry_name"} & set(options)
    specification = {
        "new": {"type": "dict", "options": {"any": {"no_log": True}, "webhook": {"type": "str"}, "count": {"type": "int"}}}
    }
    found = canaries.options(specification)
    assert [name for name, option in found.items() if canaries.may_be_secret(name, option)] == ["new.any", "new.webhook"]


@pytest.mark.parametrize("before", ["", "a", "ab", "robot:", "any user:"])
def test_a_canary_is_found_in_base64(before):
    known = canaries.Canaries()
    encoded = base64.b64encode(f"{before}{known('x')}".encode()).decode()
    assert known.found_in(f"Authorization: Basic {encoded}") == {"one in base64"}
    assert known.found_in(f"x{known('y')}x") == {"y"}
    assert known.found_in("nothing") == set()


def kinds(option):
    """Return values with the secret that the option does not take."""
    text = SECRET if option.get("no_log") else ADDRESS
    values = [text, [text], {"a": text}, [[text]], [{"a": text}], {"a": {"b": text}}, f"{text}\n"]
    kind = {"str": str, "list": list, "dict": dict}[option.get("type", "str")]
    return [value for value in values if not isinstance(value, kind)] + [f"{text}\n"]


def top_options():
    """Return each option of a role that may hold a secret, or that has an option which may."""
    for path in sorted(ROOT.glob("roles/*/meta/argument_specs.yml")):
        for name, option in yaml.safe_load(path.read_text())["argument_specs"]["main"]["options"].items():
            if any(canaries.may_be_secret(*each) for each in canaries.options({name: option}).items()):
                yield pytest.param(name, option, id=name)


@pytest.mark.parametrize(("name", "option"), list(top_options()))
def test_no_message_about_the_kind_of_a_value_shows_a_secret(name, option):
    for value in kinds(option):
        problems = variables_check.problems(name, value, option)
        assert problems or name in variables_check.OF_MANY_LINES, value
        assert SECRET not in str(problems)


@pytest.mark.parametrize(("name", "option"), [each for each in top_options() if each.values[1].get("options")])
def test_no_message_about_the_kind_of_a_key_shows_a_secret(name, option):
    for key, inner in option["options"].items():
        if canaries.may_be_secret(key, inner):
            required = {
                other: 1 if wanted.get("type") == "int" else "x"
                for other, wanted in option["options"].items()
                if wanted.get("required")
            }
            for value in kinds(inner):
                problems = variables_check.problems(name, [{**required, key: value}], option)
                assert problems, value
                assert SECRET not in str(problems)


@pytest.mark.parametrize(
    "models",
    [
        [ADDRESS],
        [{"url": ADDRESS}],
        [{"name": "a", "url": [ADDRESS]}],
        [{"name": "a", "url": ADDRESS}],
        [{"name": "a", "uri": ADDRESS}],
    ],
)
def test_no_message_about_a_model_shows_a_secret(models):
    with pytest.raises(AnsibleError) as error:
        model_files.model_files(models)
    assert SECRET not in str(error.value)


@pytest.mark.parametrize(
    "entry",
    [
        ADDRESS,
        {"hub_endpoint": [ADDRESS]},
        {"model_urls": ADDRESS},
        {"model_urls": {"url": ADDRESS}},
        {"options": [ADDRESS]},
        {"options": {"a b": ADDRESS}},
        {"options": {"host": ADDRESS}},
    ],
)
def test_no_message_about_an_instance_shows_a_secret(entry):
    whole = {"name": "a", "variant": "cpu", "port": 8080, **entry} if isinstance(entry, dict) else entry
    with pytest.raises(AnsibleError) as error:
        instances.instances([whole], {"model": "cv2", "bind_address": "127.0.0.1", "memory": "1g"})
    assert SECRET not in str(error.value)


# Parameters that take what a variable with a secret holds, besides those with the name of an address.
TAKES = {"environment", "instances", "models", "network", "proxies", "settings"}
# Modules whose parameters of these names hold none, or that their tasks keep secret.
OTHERS = {
    "gateway_candidate": "socket is a path on the gateway",
    "inpaint_check": "url is the instance's own address, made by the filter instances",
    "instance_probe": "url is the instance's own address",
    "instance_remove": "instances are names",
    "instance_status": "its action keeps instances on the control node",
    "registry_image": "repository is a name",
    "weights": "the task needs the addresses in the answer, and has no_log",
}


def modules():
    """Return each module that takes what may hold a secret."""
    for path in sorted(ROOT.glob("plugins/modules/*.py")):
        module = importlib.import_module(f"ansible_collections.iopaint.fleet.plugins.modules.{path.stem}")
        known = yaml.safe_load(module.DOCUMENTATION).get("options") or {}
        if any(name in TAKES or canaries.may_be_secret(name, {"type": "str"}) for name in known):
            yield path


def test_a_quiet_module_tells_the_journal_no_parameter(monkeypatch):
    """As a play runs it, which says that the task has no no_log."""
    logged = []
    monkeypatch.setattr(quiet.QuietModule, "_log_to_syslog", lambda _self, text: logged.append(text))
    with patch_module_args({"settings": {"any": SECRET}, "_ansible_no_log": False, "_ansible_syslog_facility": "LOG_USER"}):
        quiet.QuietModule(argument_spec={"settings": {"type": "dict"}})
    assert logged == ["Invoked; its parameters are not logged, as they may hold secrets"]


def test_a_module_keeps_secrets_out_of_its_answer_and_of_the_journal():
    """What a module was asked is in its answer, which -vvv shows, and in the host's journal, unless the module says otherwise."""
    found = {path.stem: path.read_text() for path in modules()}
    assert {"daemon_json", "image_build", "options_check", "release"} <= set(found)
    lacking = [name for name, text in found.items() if not ("= QuietModule(" in text and "keep_secret(" in text)]
    assert sorted(set(lacking) - set(OTHERS)) == []


def test_each_exception_is_a_module():
    assert set(OTHERS) <= {path.stem for path in modules()}
