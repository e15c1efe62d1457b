# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""scripts/pictures: what of a play's output is drawn, and that a picture is complete in itself."""

import importlib.machinery
import importlib.util
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

pytest.importorskip("rich")  # ansible-test's environment has neither rich
pytest.importorskip("PIL")  # nor Pillow

ROOT = Path(__file__).resolve().parents[2]
OUTPUT = """
PLAY [Deploy] ******************************************************************

TASK [iopaint.fleet.docker : Install Docker] ***********************************
\x1b[0;33mchanged: [gpu-01]\x1b[0m

TASK [iopaint.fleet.iopaint : Show what serves where] **************************
\x1b[0;32mok: [gpu-01] =>\x1b[0m
    cpu serves on http://127.0.0.1:8080 <&>

PLAY RECAP *********************************************************************
\x1b[0;33mgpu-01\x1b[0m : \x1b[0;32mok=2\x1b[0m changed=1
"""


@pytest.fixture(scope="module")
def script():
    loader = importlib.machinery.SourceFileLoader("pictures_script", str(ROOT / "scripts/pictures"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("pictures_script", loader))
    loader.exec_module(module)
    return module


def test_an_excerpt_has_the_named_tasks_in_their_order(script):
    lines = script.ESCAPES.sub("", script.excerpt(OUTPUT, script.DEPLOY)).splitlines()
    assert lines == [
        "TASK [iopaint.fleet.iopaint : Show what serves where]",
        "ok: [gpu-01] =>",
        "    cpu serves on http://127.0.0.1:8080 <&>",
        "",
        "PLAY RECAP",
        "gpu-01 : ok=2 changed=1",
    ]


def test_a_terminal_is_an_image_that_loads_nothing(script):
    picture = script.terminal("ansible-playbook -i hosts.yml iopaint.fleet.deploy", script.excerpt(OUTPUT, script.DEPLOY))
    tree = ET.fromstring(picture)  # noqa: S314, it was made here
    text = "".join(tree.itertext()).replace("\xa0", " ")
    assert "$ ansible-playbook -i hosts.yml iopaint.fleet.deploy" in text
    assert "cpu serves on http://127.0.0.1:8080 <&>" in text
    assert not re.search(r"url\((?!#)|@font-face|@import|<image|<script", picture)


def test_tasks_that_are_drawn_are_there(script):
    names = {name for path in (ROOT / "roles").rglob("tasks/*.yml") for name in re.findall(r"- name: (.*)", path.read_text())}
    names |= {name for path in (ROOT / "playbooks").rglob("*.yml") for name in re.findall(r"- name: (.*)", path.read_text())}
    assert {*script.DEPLOY, *script.UPGRADE} - {"RECAP"} <= names
