"""The last test, which leaves two instances."""

import pytest
from conftest import ALICE, GATEWAYS
from play import play

pytestmark = pytest.mark.usefixtures("forgotten")


def test_the_removal_of_an_instance_loses_nothing(second, event, ask):
    with event(rate=150):
        run = play("playbooks/remove.yml", "--limit", GATEWAYS[1])
        assert run.rc == 0, run.output
    assert second("docker ps -q") == ""
    assert ask(user=ALICE)["status"] == 200
