# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How an instance is proven: the filter that completes it."""

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.iopaint.fleet.plugins.filter.proof_options import FilterModule

COMPLETE = FilterModule().filters()["proof_options"]
DEFAULT = {
    "picture": "",
    "mask": "",
    "size": 512,
    "timeout": 300,
    "parameters": {"prompt": "", "sd_steps": 4, "sd_seed": 42},
}


@pytest.mark.parametrize(
    "entries", [[], [{"name": "cpu"}], [{"name": "cpu", "proof": None}], [{"name": "cpu", "proof": {"steps": None}}]]
)
def test_an_instance_that_says_nothing_is_proven_by_a_short_diffusion(entries):
    assert COMPLETE("cpu", entries, {}) == DEFAULT


def test_an_entry_comes_before_the_defaults():
    entries = [{"name": "cpu"}, {"name": "sd", "proof": {"prompt": "a bench", "seed": "7", "timeout": 900}}]
    assert COMPLETE("sd", entries, {"prompt": "a wall", "steps": 8, "size": 768}) == {
        "picture": "",
        "mask": "",
        "size": 768,
        "timeout": 900,
        "parameters": {"prompt": "a bench", "sd_steps": 8, "sd_seed": 7},
    }
    assert COMPLETE("cpu", entries, {"steps": 8})["parameters"]["sd_steps"] == 8


def test_an_entry_for_all_gpus_stands_for_the_instances_that_it_makes():
    entries = [
        {"name": "sd", "variant": "gpu", "proof": {"steps": 9}},
        {"name": "xl", "variant": "gpu", "devices": ["0"], "proof": {"steps": 9}},
    ]
    steps = {name: COMPLETE(name, entries, {})["parameters"]["sd_steps"] for name in ("sd-0", "sd-12", "sd-x", "xl", "xl-0")}
    assert steps == {"sd-0": 9, "sd-12": 9, "sd-x": 4, "xl": 9, "xl-0": 4}


def test_a_picture_of_an_entry_does_not_get_the_mask_of_another_one():
    common = {"picture": "/srv/street.png", "mask": "/srv/street-mask.png"}
    assert COMPLETE("a", [{"name": "a"}], common)["mask"] == "/srv/street-mask.png"
    own = COMPLETE("a", [{"name": "a", "proof": {"picture": "/srv/park.png"}}], common)
    assert (own["picture"], own["mask"]) == ("/srv/park.png", "")


@pytest.mark.parametrize(
    ("own", "common", "words"),
    [
        ({"steps": 0}, {}, "iopaint_instances[1].proof.steps is 0; a whole number from 1 to 1000 is wanted."),
        ({"steps": True}, {}, "iopaint_instances[1].proof.steps is True"),
        ({}, {"timeout": "long"}, "iopaint_proof.timeout is 'long'; a whole number from 1 to 86400 is wanted."),
        ({}, {"seed": -1}, "iopaint_proof.seed is -1"),
        ({"size": 8}, {}, "iopaint_instances[1].proof.size is 8; a whole number from 16 to 4096 is wanted."),
        ({"picture": "street.png"}, {}, "iopaint_instances[1].proof.picture is 'street.png'; a full path on the host is wanted."),
        ({"mask": "/srv/mask.png"}, {}, "iopaint_instances[1].proof has a mask and no picture"),
        ({"step": 4}, {}, "iopaint_instances[1].proof has step; it takes picture, mask, prompt, steps"),
    ],
)
def test_what_is_no_proof_is_refused_with_its_variable(own, common, words):
    with pytest.raises(AnsibleFilterError) as error:
        COMPLETE("b", [{"name": "a"}, {"name": "b", "proof": own}], common)
    assert words in str(error.value)
    assert str(error.value).endswith("Nothing was changed.")
