"""The last tests: they leave one instance."""

import pytest
from conftest import ALICE, GATEWAYS, lost
from play import play

pytestmark = pytest.mark.usefixtures("forgotten")


def test_the_removal_of_an_instance_loses_nothing(second, load, ask):
    answers = load(count=5000, pause=0.1)
    run = play("playbooks/remove.yml", "--limit", GATEWAYS[1])
    found = answers(enough=True)
    assert run.rc == 0, run.output
    assert second("docker ps -q") == ""
    assert len(found) > 20
    assert lost(found) == []
    assert ask(user=ALICE)["status"] == 200
