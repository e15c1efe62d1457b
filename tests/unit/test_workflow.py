# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""CI, the Makefile and CONTRIBUTING.md name the same scenarios."""

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
NO_TESTS = {"bench", "demo"}  # hosts for other make targets
SCENARIOS = {path.parent.name for path in (ROOT / "molecule").glob("*/molecule.yml")} - NO_TESTS
BY_DEFAULT = re.search(r"^SCENARIO \?= (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1].split()
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()


def test_ci_runs_the_scenarios_of_make_test():
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]
    matrix = jobs["scenario"]["strategy"]["matrix"]
    assert sorted(matrix["scenario"]) == sorted(BY_DEFAULT)
    assert {entry["scenario"] for entry in matrix["include"]} <= SCENARIOS
    # An entry without a suite of its own would be merged into another one.
    assert all(entry["suite"] for entry in matrix["include"])


def test_every_scenario_is_run_by_default_or_said_to_run_by_its_name():
    (sentence,) = re.findall(r"^(.*) run by their names only\.$", CONTRIBUTING, re.MULTILINE)
    by_name = set(re.findall(r"`([a-z-]+)`", sentence))
    assert by_name | set(BY_DEFAULT) == SCENARIOS
    assert not by_name & set(BY_DEFAULT)


def test_contributing_says_what_each_scenario_shows():
    table = CONTRIBUTING[CONTRIBUTING.index("| scenario | shows |") :].partition("\n\n")[0]
    assert set(re.findall(r"`([a-z-]+)`", table)) == SCENARIOS
