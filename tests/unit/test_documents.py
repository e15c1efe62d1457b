# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What documents say twice agrees, and the examples in them fit the collection."""

import re
import textwrap
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*sorted(ROOT.glob("README*.md")), *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs/zh").glob("*.md"))]
PATHS = {
    name
    for specification in (ROOT / "roles").glob("*/meta/argument_specs.yml")
    for entry in yaml.safe_load(specification.read_text())["argument_specs"].values()
    for name, option in entry.get("options", {}).items()
    if option.get("type") == "path"
}


def examples(page):
    """Return the YAML examples of a page, parsed."""
    found = re.findall(r"(?ms)^( *)```yaml\n(.*?)^ *```$", page.read_text())
    return [yaml.safe_load(textwrap.dedent(text)) for _, text in found]


def settings(page):
    """Return the variables that sentences and tables of a page give a value, parsed."""
    return [yaml.safe_load(text) for text in re.findall(r"`(\w+: [^`\n]+)`", page.read_text()) if text.partition(":")[0] in PATHS]


def variables(value):
    """Yield each name and text of nested variables."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield name, inner
            yield from variables(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from variables(inner)


def test_readme_and_quick_start_have_one_inventory():
    readme, quick_start = (examples(ROOT / name)[0] for name in ("README.md", "docs/quick-start.md"))
    assert readme == quick_start
    assert {"gpu_hosts", "cpu_hosts", "gateways"} <= readme.keys()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_of_examples_do_not_depend_on_the_folder_of_the_play(page):
    """A relative path is looked up in the playbook's folder, which lies in the installed collection."""
    relative = {
        name: value
        for example in examples(page) + settings(page)
        for name, value in variables(example)
        if name in PATHS and isinstance(value, str) and value and not value.startswith(("/", "{{", "~"))
    }
    assert relative == {}


def test_a_broken_link_fails_the_site():
    """With --quiet, mkdocs counts no warnings, so --strict lets them pass."""
    (command,) = re.findall(r"mkdocs build.*", (ROOT / "Makefile").read_text())
    assert command.split() == ["mkdocs", "build", "--strict"]


def test_readme_is_short_and_its_files_are_there():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 150
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", text)
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_readme_lists_every_playbook():
    names = {path.stem for path in (ROOT / "playbooks").glob("*.yml")}
    rows = re.findall(r"^\| `(\w+)` \|", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert set(rows) == names
    assert len(rows) == len(names)


def test_every_role_names_the_distributions_of_the_readme():
    """Each release of Debian and Ubuntu in the README's table is in the metadata of each role, and no other."""
    named = {
        path: yaml.safe_load(path.read_text())["galaxy_info"]["platforms"] for path in (ROOT / "roles").glob("*/meta/main.yml")
    }
    assert len({str(platforms) for platforms in named.values()}) == 1
    codenames = {"12": "bookworm", "13": "trixie", "22.04": "jammy", "24.04": "noble", "26.04": "resolute"}
    (row,) = re.findall(r"^\| managed hosts \| (.*) \|$", (ROOT / "README.md").read_text(), re.MULTILINE)
    wanted = {codenames[version] for version in re.findall(r"\b\d\d(?:\.\d\d)?\b", row)}
    assert {version for platform in next(iter(named.values())) for version in platform["versions"]} == wanted
