# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The filters of the role gateway."""

from pathlib import Path

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible_collections.iopaint.fleet.plugins.filter.gateway import (
    candidates_served,
    certificate_faults,
    gateway_pools,
    in_network,
    limit_faults,
    network_faults,
    sso_faults,
    user_faults,
    virtual_address_fault,
)
from ansible_collections.iopaint.fleet.plugins.module_utils import haproxy

ROLE = Path(__file__).resolve().parents[2] / "roles" / "gateway"
GROUPS = {"gpu_hosts": ["gpu-1"], "cpu_hosts": ["cpu-1", "gw"], "gateways": ["gw"], "fast": ["gpu-1"]}
EVERYWHERE = {"iopaint_bind_address": "0.0.0.0"}
GPU = {**EVERYWHERE, "iopaint_instances": [{"name": "gpu", "variant": "gpu", "port": 8081, "labels": ["large", "design"]}]}
HOSTS = {
    "gpu-1": {**GPU, "ansible_host": "192.0.2.7", "nvidia_container_toolkit_result": {"devices": ["a", "b"]}},
    "cpu-1": {**EVERYWHERE, "iopaint_address": "10.0.0.9", "ansible_host": "192.0.2.8"},
    "gw": {},
}


def pools(*wanted, hosts=None, **options):
    """Resolve pools, and return host, address and port of each server, by pool."""
    done = gateway_pools(wanted, {**HOSTS, **(hosts or {})}, GROUPS, "gw", "paint.example.com", **options)
    return {pool["name"]: [(each["name"], each["address"], each["port"]) for each in pool["servers"]] for pool in done}


def test_every_instance_is_in_the_only_pool():
    assert pools() == {
        "paint": [
            ("gpu-1:gpu-0", "192.0.2.7", 8081),
            ("gpu-1:gpu-1", "192.0.2.7", 8082),
            ("cpu-1:cpu", "10.0.0.9", 8080),
            ("gw:cpu", "127.0.0.1", 8080),
        ]
    }


def test_the_only_pool_has_the_gateway_s_name():
    (pool,) = gateway_pools([], HOSTS, GROUPS, "gw", "Paint.example.com")
    assert pool["host"] == "paint.example.com"
    assert len({server["cookie"] for server in pool["servers"]}) == 4
    assert not any(server["host"] in server["cookie"] for server in pool["servers"])


@pytest.mark.parametrize(
    ("keys", "names"),
    [
        ({"groups": ["fast"]}, ["gpu-1:gpu-0", "gpu-1:gpu-1"]),
        ({"variant": "cpu"}, ["cpu-1:cpu", "gw:cpu"]),
        ({"instances": ["gpu-1"]}, ["gpu-1:gpu-1"]),
        ({"labels": ["design"]}, ["gpu-1:gpu-0", "gpu-1:gpu-1"]),
        ({"labels": ["large", "design"], "instances": ["gpu-0"]}, ["gpu-1:gpu-0"]),
        ({"labels": [], "groups": ["fast"]}, ["gpu-1:gpu-0", "gpu-1:gpu-1"]),
        ({"groups": ["cpu_hosts"], "instances": ["cpu"], "variant": "cpu"}, ["cpu-1:cpu", "gw:cpu"]),
    ],
)
def test_a_pool_has_the_instances_that_it_names(keys, names):
    found = pools({"name": "one", "host": "one.example.com", **keys})
    assert [name for name, _address, _port in found["one"]] == names


@pytest.mark.parametrize(
    ("address", "reached"),
    [("::", "cpu-1"), ("192.0.2.3", "192.0.2.3"), ("2001:db8::1", "2001:db8::1")],
)
def test_an_instance_is_reached_where_it_is_published(address, reached):
    found = pools(
        {"name": "a", "host": "a.example.com", "groups": ["cpu_hosts"]}, hosts={"cpu-1": {"iopaint_bind_address": address}}
    )
    assert ("cpu-1:cpu", reached, 8080) in found["a"]


def test_the_gateway_s_own_instance_is_reached_by_loopback_of_its_family():
    found = pools(hosts={"gw": {"iopaint_bind_address": "::"}})
    assert ("gw:cpu", "::1", 8080) in found["paint"]


def test_gpus_that_are_not_known_yet_are_one_instance():
    hosts = {"gpu-1": {**GPU, "ansible_host": "192.0.2.7"}}
    assert ("gpu-1:gpu", "192.0.2.7", 8081) in pools(hosts=hosts, early=True)["paint"]
    with pytest.raises(AnsibleFilterError, match=r"^gpu-1 has an instance for each of its GPUs.* Run the playbook without -l"):
        pools(hosts=hosts)


ONE = {"name": "a", "host": "a.example.com"}


@pytest.mark.parametrize(
    ("wanted", "hosts", "words"),
    [
        ([], {"cpu-1": {}}, r"can't reach cpu-1:cpu, published on 127.0.0.1 of another host. Set iopaint_bind_address"),
        ([{**ONE, "variant": "gpu", "groups": ["cpu_hosts"]}], {}, r"gateway_pools\[0\] \(a\) has no instance"),
        (
            [{**ONE, "labels": ["large", "tiny"]}],
            {},
            r"gateway_pools\[0\] \(a\): no instance has the label tiny; there are design, large",
        ),
        ([{**ONE, "labels": ["large"], "variant": "cpu"}], {}, r"gateway_pools\[0\] \(a\) has no instance"),
        ([{**ONE, "groups": ["nowhere"]}], {}, r"gateway_pools\[0\] \(a\): the inventory has no group nowhere"),
        ([ONE, {**ONE, "host": "b.example.com"}], {}, "name a is used by more than one pool"),
        ([ONE, {**ONE, "name": "b", "host": "A.example.com"}], {}, "host a.example.com is used by more than one pool"),
        ([{**ONE, "name": "_stats"}], {}, r"gateway_pools\[0\]: name '_stats' must begin with a lower-case letter"),
        ([{**ONE, "host": "https://a"}], {}, r"gateway_pools\[0\]: host 'https://a' must be a host name"),
        ([], {"cpu-1": {"iopaint_instances": [{"name": "a", "port": 0}]}}, r"^cpu-1: iopaint_instances\[0\]: port 0"),
    ],
)
def test_a_wrong_pool_is_refused_with_its_place(wanted, hosts, words):
    with pytest.raises(AnsibleFilterError, match=words) as error:
        pools(*wanted, hosts=hosts)
    assert str(error.value).endswith("The running gateway was not touched.")


CERTIFICATE = {
    "public_key_fingerprints": {"sha256": "aa"},
    "expired": False,
    "not_after": "20260101000000Z",
    "subject_alt_name": ["DNS:*.example.com", "IP Address:192.0.2.1"],
}


@pytest.mark.parametrize(
    ("certificate", "names", "faults"),
    [
        ({}, ["paint.example.com", "192.0.2.1"], []),
        ({"public_key_fingerprints": {"sha256": "bb"}}, ["paint.example.com"], ["It does not fit the key."]),
        ({"expired": True}, ["paint.example.com"], ["It ended at 20260101000000Z."]),
        ({}, ["a.b.example.com"], ["It is not for a.b.example.com; it is for DNS:*.example.com, IP Address:192.0.2.1."]),
        ({"subject_alt_name": None}, ["paint.example.com"], ["It is not for paint.example.com; it is for no name."]),
    ],
)
def test_what_is_wrong_with_a_certificate_is_said(certificate, names, faults):
    assert certificate_faults({**CERTIFICATE, **certificate}, {"public_key_fingerprints": {"sha256": "aa"}}, names) == faults


@pytest.mark.parametrize(
    ("users", "words"),
    [
        ([{"name": "alice", "password": "long enough"}, {"name": "bob", "hash": "$6$salt$" + "a" * 86}], []),
        ([{"name": "alice"}], ["gateway_users[0] (alice) has neither password nor hash; give one of the two."]),
        (
            [{"name": "a", "password": "secret", "hash": "$6$"}],
            ["gateway_users[0] (a) has password and hash; give one of the two."],
        ),
        ([{"name": "a", "password": "secret"}], ["gateway_users[0] (a): password has fewer than 8 characters."]),
        (
            [{"name": "a", "hash": "secret"}],
            ["gateway_users[0] (a): hash is none of crypt(3) that HAProxy reads; `openssl passwd -6` makes one."],
        ),
        (
            [{"name": "a b", "password": "secret"}],
            ["gateway_users[0]: name 'a b' must be of letters, digits and @ . _ + - (64 at most)."],
        ),
        ([{"name": "a", "password": "long enough"}] * 2, ["gateway_users has a more than once."]),
    ],
)
def test_what_is_wrong_with_users_is_said_without_their_secrets(users, words):
    assert user_faults(users) == words
    assert "secret" not in " ".join(words)


def test_what_is_wrong_with_networks_is_said():
    assert network_faults(["192.0.2.0/24", "2001:db8::/64", "192.0.2.1"], "nets") == []
    assert network_faults(["192.0.2.1/24", "office"], "nets") == [
        "nets[0] is no network as 192.0.2.0/24 or 2001:db8::/64: 192.0.2.1/24 has host bits set.",
        "nets[1] is no network as 192.0.2.0/24 or 2001:db8::/64: 'office' does not appear to be an IPv4 or IPv6 network.",
    ]


@pytest.mark.parametrize(
    ("header", "addresses", "words"),
    [
        ("", [], ""),
        ("X-Remote-User", ["192.0.2.1"], ""),
        ("X-Remote-User", [], "Give the name of a header and the addresses that may send it, or neither."),
        ("", ["192.0.2.1"], "gateway_sso_header is '' and gateway_sso_addresses '192.0.2.1'."),
        ("X User", ["192.0.2.1"], "Give the name of a header"),
        ("HOST", ["192.0.2.1"], "gateway_sso_header is HOST, which has a meaning of its own."),
        ("X-Remote-User", ["proxy"], "gateway_sso_addresses[0] is no network"),
    ],
)
def test_a_sign_on_proxy_that_can_not_work_is_named(header, addresses, words):
    faults = sso_faults(header, addresses)
    assert words in " ".join(faults)
    assert len(faults) == bool(words)


def test_numbers_out_of_their_limits_are_named():
    limits = {"gateway_queue": [1, 100], "gateway_hold": [0, 10]}
    assert limit_faults(limits, [1, "10"]) == []
    assert limit_faults(limits, [0, "11"]) == [
        "gateway_queue is 0, which must be from 1 to 100.",
        "gateway_hold is 11, which must be from 0 to 10.",
    ]


def test_the_role_s_own_numbers_are_within_its_limits():
    defaults, own = (yaml.safe_load((ROLE / name / "main.yml").read_text()) for name in ("defaults", "vars"))
    limits = own["__gateway_limits"]
    assert limit_faults(limits, [defaults[name] for name in limits]) == []
    numbers = {name for name, value in defaults.items() if isinstance(value, int) and "port" not in name}
    assert numbers == set(limits)


@pytest.mark.parametrize("name", ["https://paint.example.com", "paint.example.com:443", "", "a b"])
def test_a_name_that_is_none_is_refused_by_its_variable(name):
    with pytest.raises(AnsibleFilterError, match=r"^gateway_name is '.*', and must be a host name"):
        gateway_pools([], HOSTS, GROUPS, "gw", name)


INTERFACES = [
    {"ifname": "lo", "addr_info": [{"local": "127.0.0.1"}, {"local": "::1"}]},
    {"ifname": "wlan0"},
    {"ifname": "eth0", "addr_info": [{"local": "192.0.2.10"}, {"local": "192.0.2.7"}, {"local": "2001:db8::7"}]},
]


def test_a_host_s_own_address_is_found_beside_the_virtual_one():
    assert in_network(INTERFACES, "192.0.2.10/24") == {"interface": "eth0", "address": "192.0.2.7"}
    assert in_network(INTERFACES, "2001:db8::10/64") == {"interface": "eth0", "address": "2001:db8::7"}
    assert in_network(INTERFACES, "198.51.100.10/24") is None


@pytest.mark.parametrize(
    ("network", "gateways", "fault"),
    [
        ("", ["a"], ""),
        ("192.0.2.10/24", ["a", "b"], ""),
        ("192.0.2.10/24", ["a"], "a is the only host of the group gateways"),
        ("192.0.2.10", ["a", "b"], "Give the length of its network as well"),
        ("192.0.2.10/32", ["a", "b"], "Give the length of its network as well"),
        ("paint.example.com", ["a", "b"], "which is no address with its network"),
        ("198.51.100.10/24", ["a", "b"], "the host has no address in that network; it has 127.0.0.1, ::1, 192.0.2.10"),
    ],
)
def test_a_virtual_address_that_can_not_work_is_named(network, gateways, fault):
    assert fault in virtual_address_fault(INTERFACES, network, gateways)
    assert bool(virtual_address_fault(INTERFACES, network, gateways)) == bool(fault)


def measured(**servers):
    """What a gateway says in its measures: by server, whether it is in maintenance."""
    row = 'haproxy_server_status{{proxy="{0}",server="{1}",state="MAINT"}} {2}\n'
    names = {name.replace("__", ":"): maintenance for name, maintenance in servers.items()}
    return "".join(row.format(pool, name, int(out)) for name, out in names.items() for pool in ("paint", "small"))


def test_candidates_that_gateways_serve_from():
    one = measured(a__cpu=False, a__cpu__candidate=False, a__gpu__candidate=True, b__cpu__candidate=False)
    asked = [
        {"item": "one", "content": one},
        {"item": "two", "content": measured(a__gpu__candidate=False, ab__cpu__candidate=False)},
        {"item": "lost", "unreachable": True},
        {"item": "down", "status": -1, "content": None},
    ]
    assert candidates_served(asked, "a:", ["cpu"]) == [["one", "cpu:candidate"]]
    assert candidates_served(asked, "a:") == [["one", "cpu:candidate"], ["two", "gpu:candidate"]]
    assert candidates_served(asked, "a:", []) == []


def test_the_role_and_the_modules_name_candidates_alike():
    variables = yaml.safe_load((ROLE / "vars" / "main.yml").read_text())
    assert variables["__gateway_candidate"] == haproxy.CANDIDATE


def test_the_role_and_the_modules_name_the_log_alike():
    variables = yaml.safe_load((ROLE / "vars" / "main.yml").read_text())
    assert variables["__gateway_log_tag"] == haproxy.LOG_TAG
