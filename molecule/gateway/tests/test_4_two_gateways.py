"""Two gateways with one authority and one address, of which one dies."""

import subprocess
import time

import pytest
from conftest import ALICE, GATEWAYS, lost
from play import ROOT

pytestmark = pytest.mark.usefixtures("forgotten")


@pytest.fixture(scope="module")
def address():
    """The address that the gateways share, without its network."""
    return subprocess.check_output([ROOT / "molecule/gateway/virtual-address"], text=True).partition("/")[0]


def holders(address, *hosts):
    """The hosts that have the address."""
    return [host.name for host in hosts if f"inet {address}/" in host("ip address")]


def test_both_have_certificates_of_one_authority(ask):
    for name in GATEWAYS:
        assert ask(address=name, user=ALICE)["status"] == 200


def test_one_of_them_has_the_address(ask, address, gateway, second):
    assert len(holders(address, gateway, second)) == 1
    assert ask(address=address, user=ALICE)["status"] == 200


def test_a_gateway_that_dies_costs_what_it_held_and_nothing_after_three_seconds(load, address, gateway, second):
    (holder,) = holders(address, gateway, second)
    answers = load(address=address, count=200, parallel=200, pause=0.05, wait=10)  # those that are lost keep no other one back
    time.sleep(2)
    subprocess.run(["docker", "kill", holder], check=True, capture_output=True)
    killed = time.time()
    found = answers()
    subprocess.run(["docker", "start", holder], check=True, capture_output=True)
    assert len(found) == 200
    late = [answer for answer in lost(found) if answer["began"] > killed + 3]
    assert late == []
    assert any(answer["began"] > killed + 3 for answer in found)
    print(f"{len(lost(found))} of {len(found)} requests were lost with the gateway")
    back = next(host for host in (gateway, second) if host.name == holder)
    back("systemctl is-system-running --wait || true; until docker ps --filter health=healthy -q | grep -q .; do sleep 0.5; done")
    assert holders(address, gateway, second) == [host.name for host in (gateway, second) if host.name != holder], "it went back"


def test_the_end_of_haproxy_moves_the_address(address, gateway, second):
    (holder,) = holders(address, gateway, second)
    host, other = (gateway, second) if gateway.name == holder else (second, gateway)
    host("systemctl stop haproxy")
    try:
        within = time.monotonic() + 3
        while (found := holders(address, gateway, second)) != [other.name] and time.monotonic() < within:
            time.sleep(0.2)
        assert found == [other.name]
    finally:
        host("systemctl start haproxy")
