# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Plugins of instances: the weights that they load, their options, and what the image needs for them."""

import re
from pathlib import PurePosixPath

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.iopaint.fleet.plugins.filter.hub_models import hub_models
from ansible_collections.iopaint.fleet.plugins.filter.instances import FilterModule as Instances
from ansible_collections.iopaint.fleet.plugins.filter.model_files import model_files
from ansible_collections.iopaint.fleet.plugins.filter.plugin_models import FilterModule
from ansible_collections.iopaint.fleet.plugins.plugin_utils.known_models import ERASE, OF_PLUGINS, PLUGINS, WEIGHTS

COMPLETE = FilterModule().filters()["plugin_models"]
DEFAULTS = {"variant": "cpu", "model": "lama", "bind_address": "127.0.0.1", "memory": "6g"}
LAMA = {"name": "lama"}


def entry(*plugins, **keys):
    return {"name": "a", "port": 8080, "plugins": list(plugins), **keys}


def complete(one, models=(LAMA,), **defaults):
    wanted = COMPLETE(list(models), [one])
    (done,) = Instances().filters()["instances"]([one], {**DEFAULTS, **defaults}, models=model_files(wanted) + hub_models(wanted))
    return done


def refusal(*plugins, **keys):
    with pytest.raises(AnsibleFilterError) as error:
        complete(entry(*plugins, **keys))
    return str(error.value)


def plugin_variables(instance):
    return {
        name: value for name, value in instance["environment"].items() if "ENABLE" in name or name.endswith(("_MODEL", "_DEVICE"))
    }


# ---- the known weights -----------------------------------------------------------------------------------------------


def test_every_known_file_is_one_of_its_own_with_a_checksum():
    assert set(ERASE).isdisjoint(OF_PLUGINS)
    for name, weights in WEIGHTS.items():
        assert weights.url.startswith("https://"), name
        assert re.fullmatch("md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}", weights.checksum), name
        assert str(PurePosixPath(weights.path).parent) == "torch/hub/checkpoints", name
    for key in ("url", "path", "checksum"):
        assert len({getattr(weights, key) for weights in WEIGHTS.values()}) == len(WEIGHTS)


def test_every_model_of_a_plugin_is_a_known_file_or_a_repository():
    for plugin in PLUGINS.values():
        for model in plugin.models:
            for wanted in COMPLETE([], [{"plugins": [{name: model or None for name, one in PLUGINS.items() if one is plugin}]}]):
                assert model_files([wanted]) or hub_models([wanted])
    loaded = {name for plugin in PLUGINS.values() for names in plugin.models.values() for name in names}
    assert set(OF_PLUGINS) <= loaded


def test_rembg_finds_its_models_by_their_names():
    (file,) = model_files([{"name": "birefnet-general"}])
    assert file["url"].endswith("/BiRefNet-general-epoch_244.onnx")
    assert file["path"] == "torch/hub/checkpoints/birefnet-general.onnx"


# ---- the weights of instances ----------------------------------------------------------------------------------------


def test_what_plugins_load_is_added_once():
    found = COMPLETE([LAMA], [entry("gfpgan", "restoreformer"), entry({"remove_bg": "u2net"}, "realesrgan"), entry("gfpgan"), {}])
    assert [model["name"] for model in found] == [
        "lama",
        "GFPGANv1.4",
        "detection_Resnet50_Final",
        "parsing_parsenet",
        "RestoreFormer",
        "u2net",
        "realesr-general-x4v3",
    ]


def test_the_operator_s_entry_goes_first():
    mirror = {"name": "u2net", "url": "https://mirror.example.com/u2net.onnx"}
    repository = {"hub": "briaai/RMBG-1.4", "revision": "main"}
    assert COMPLETE([mirror, repository], [entry({"remove_bg": "u2net"}), entry("remove_bg")]) == [mirror, repository]


def test_the_default_of_remove_bg_is_a_repository_at_a_commit():
    (found,) = hub_models(COMPLETE([], [entry("remove_bg")]))
    assert (found["hub"], found["files"]) == ("briaai/RMBG-1.4", ["model.pth"])
    assert re.fullmatch("[0-9a-f]{40}", found["revision"])


# ---- the options -----------------------------------------------------------------------------------------------------


def test_a_plugin_is_switched_on_with_its_model_and_the_start_stays_offline():
    done = complete(entry({"remove_bg": "u2netp"}, "interactive_seg", "anime_seg"))
    assert done["plugins"] == {"remove_bg": "u2netp", "interactive_seg": "sam2_1_tiny", "anime_seg": ""}
    assert plugin_variables(done) == {
        "IOPAINT_MODEL": "lama",
        "IOPAINT_ENABLE_REMOVE_BG": "true",
        "IOPAINT_REMOVE_BG_MODEL": "u2netp",
        "IOPAINT_ENABLE_INTERACTIVE_SEG": "true",
        "IOPAINT_INTERACTIVE_SEG_MODEL": "sam2_1_tiny",
        "IOPAINT_ENABLE_ANIME_SEG": "true",
    }
    assert (done["models_writable"], done["environment"]["IOPAINT_LOCAL_FILES_ONLY"]) == (False, "true")
    assert done["extras"] == ["plugins"]


def test_weights_that_nothing_fetches_are_the_instance_s_own_affair():
    (done,) = Instances().filters()["instances"]([entry("realesrgan")], DEFAULTS, models=model_files([LAMA]))
    assert done["models_writable"] is True


@pytest.mark.parametrize(
    ("options", "devices"),
    [
        ({}, {"REALESRGAN": "cuda", "GFPGAN": "cuda"}),
        ({"realesrgan_device": "cpu"}, {"REALESRGAN": "cpu", "GFPGAN": "cuda"}),
        ({"device": "cpu"}, {}),
        ({"fleet_require_gpu": False}, {}),
    ],
)
def test_on_a_gpu_instance_plugins_use_the_gpu_unless_rembg_computes(options, devices):
    done = complete(entry("realesrgan", "gfpgan", {"remove_bg": "u2net"}, variant="gpu", options=options))
    found = {name: value for name, value in plugin_variables(done).items() if name.count("_") > 1 and name.endswith("_DEVICE")}
    assert found == {f"IOPAINT_{name}_DEVICE": value for name, value in devices.items()}


def test_briaai_s_model_uses_the_gpu():
    assert plugin_variables(complete(entry("remove_bg", variant="gpu")))["IOPAINT_REMOVE_BG_DEVICE"] == "cuda"


@pytest.mark.parametrize(
    ("plugins", "words"),
    [
        (["remove-bg"], "plugins has 'remove-bg'; known are remove_bg, interactive_seg"),
        ([7], "plugins has 7; known are"),
        ([{"remove_bg": "u2net", "gfpgan": None}], "known are"),
        ([{"remove_bg": "u3net"}], "asks for the model 'u3net' of remove_bg; its models are briaai/RMBG-1.4"),
        ([{"remove_bg": ["u2net"]}], "asks for the model ['u2net'] of remove_bg"),
        ([{"gfpgan": "1.3"}], "it has no choice of models"),
        (["gfpgan", "gfpgan"], "has gfpgan more than once"),
    ],
)
def test_what_is_no_plugin_is_refused_with_its_place(plugins, words):
    message = refusal(*plugins)
    assert message.startswith("iopaint_instances[0]: plugins ")
    assert words in message


def test_plugins_that_are_no_list_are_refused():
    assert "plugins must be a list" in refusal(plugins="remove_bg")


@pytest.mark.parametrize("option", ["enable_remove_bg", "remove_bg_model"])
def test_an_option_that_says_the_same_is_refused(option):
    assert f"options.{option} says what plugins says as well" in refusal("remove_bg", options={option: False})
