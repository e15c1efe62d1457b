"""Two gateways with one authority and one address, of which one dies."""

import subprocess
import time

import pytest
from conftest import ALICE, GATEWAYS, lost
from play import ROOT, play

pytestmark = pytest.mark.usefixtures("forgotten")


@pytest.fixture(scope="module")
def address():
    """The address that the gateways share, without its network."""
    return subprocess.check_output([ROOT / "molecule/gateway/virtual-address"], text=True).partition("/")[0]


def holders(address, *hosts):
    """The hosts that have the address."""
    return [host.name for host in hosts if f"inet {address}/" in host("ip address")]


def serves(host):
    """The release that the instance of a host answers with, as the gateway asks it."""
    program = (
        "import json, urllib.request as r; token = open('/opt/iopaint/instances/.gateway/token').read().split()[0]; "
        "q = r.Request('http://127.0.0.1:8080/api/v1/model', headers={'X-IOPaint-Token': token}); "
        "print(json.load(r.urlopen(q))['release'])"
    )
    return host(f'python3 -c "{program}"')


def test_both_have_certificates_of_one_authority(ask):
    for name in GATEWAYS:
        assert ask(address=name, user=ALICE)["status"] == 200


def test_one_of_them_has_the_address(ask, address, gateway, second):
    assert len(holders(address, gateway, second)) == 1
    assert ask(address=address, user=ALICE)["status"] == 200


def test_a_gateway_that_dies_costs_what_it_held_and_nothing_after_three_seconds(load, address, gateway, second):
    (holder,) = holders(address, gateway, second)
    answers = load(address=address, count=300, parallel=300, pause=0.05, wait=10)  # those that are lost keep no other one back
    time.sleep(4)
    subprocess.run(["docker", "kill", holder], check=True, capture_output=True)
    killed = time.time()
    found = answers()
    subprocess.run(["docker", "start", holder], check=True, capture_output=True)
    assert len(found) == 300
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
        time.sleep(3)
        assert holders(address, gateway, second) == [other.name]
    finally:
        host("systemctl start haproxy")


def test_a_gateway_that_is_down_is_named_and_stops_nothing(gateway, second):
    second("systemctl stop haproxy")
    try:
        run = play("playbooks/upgrade.yml", iopaint_images={"cpu": "iopaint:cpu-v2-standin"}, iopaint_upgrade_batches=["100%"])
        assert run.rc == 0, run.output
        assert [serves(host) for host in (gateway, second)] == ["v2", "v2"]
    finally:
        second("systemctl start haproxy")
