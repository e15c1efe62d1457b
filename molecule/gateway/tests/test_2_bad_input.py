"""What is wrong ends the play before the running gateway is touched, with the variable and what to do."""

import datetime
import json

import pytest
from conftest import GATEWAYS
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from play import play

POOL = {"name": "a", "host": "a.example.com"}
HIDDEN = "iopaint_bind_address={{ '127.0.0.1' if inventory_hostname == 'iopaint-gateway-2' else '0.0.0.0' }}"
# What serves: equal before and after means that nothing was touched.
FILES = "find /etc/haproxy /etc/iopaint-gateway -type f | sort | xargs sha256sum"
STATE = f"systemctl show haproxy -p MainPID,ActiveEnterTimestamp; {FILES}"


@pytest.fixture
def state(gateway):
    """What serves."""
    return lambda: gateway(STATE)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """Certificates and keys: a pair for paint.example.com, and one for another name."""
    folder = tmp_path_factory.mktemp("tls")
    now = datetime.datetime.now(datetime.timezone.utc)
    for name, host in [("good", "paint.example.com"), ("other", "x.example.com")]:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)])
        made = x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        made = made.not_valid_before(now - datetime.timedelta(days=20)).not_valid_after(now + datetime.timedelta(days=9))
        made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False).sign(key, hashes.SHA256())
        pem, form, none = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        (folder / f"{name}.crt").write_bytes(made.public_bytes(pem))
        (folder / f"{name}.key").write_bytes(key.private_bytes(pem, form, none))
    return folder


CASES = [
    ({"gateway_users": []}, ["would let nobody in", "Set gateway_users"]),
    (
        {"gateway_users": [{"name": "carol"}], "gateway_login_failures": 0, "gateway_stats_networks": ["here"]},
        [
            "gateway_users[0] (carol) has neither password nor hash",
            "gateway_login_failures is 0",
            "gateway_stats_networks[0] is no",
        ],
    ),
    ({"gateway_stats_port": 8080}, ["Port 8080 is taken by docker-proxy", "gateway_stats_port"]),
    ({"gateway_bind_addresses": ["192.0.2.1"]}, ["gateway_bind_addresses is 192.0.2.1, and the host has 127.0.0.1"]),
    ({"gateway_pools": [{**POOL, "variant": "gpu"}]}, ["gateway_pools[0] (a) has no instance"]),
    ({"gateway_tls": "files"}, ["gateway_tls is files, gateway_certificate ''"]),
    ({"gateway_frontend_lines": ["http-request nonsense"]}, ["HAProxy does not accept the configuration", "nonsense"]),
]


@pytest.fixture(scope="module")
def refused(certificates, gateway, tmp_path_factory):
    """What the role says of each case, and what serves after it; in one play, as the start of Ansible takes longer than most."""
    folder = tmp_path_factory.mktemp("refused")
    own = {"gateway_tls": "files", "gateway_ca_fetch": ""}
    wrong = [
        {
            **own,
            "gateway_certificate": str(certificates / f"{certificate}.crt"),
            "gateway_certificate_key": str(certificates / f"{key}.key"),
        }
        for certificate, key in (("good", "other"), ("other", "other"))
    ]
    note = "{{ noted | default([]) + [{'says': ansible_failed_result.msg, 'state': after.stdout}] }}"
    tasks = [
        {
            "block": [{"ansible.builtin.include_role": {"name": "iopaint.fleet.gateway"}, "vars": variables}],
            "rescue": [
                {"ansible.builtin.shell": STATE, "register": "after", "changed_when": False},
                {"ansible.builtin.set_fact": {"noted": note}},
            ],
        }
        for variables in [*(variables for variables, _words in CASES), *wrong]
    ]
    last = {"content": "{{ noted | to_json }}", "dest": str(folder / "noted.json")}
    tasks.append({"ansible.builtin.copy": last, "delegate_to": "localhost"})
    (folder / "play.yml").write_text(json.dumps([{"hosts": GATEWAYS[0], "gather_facts": False, "tasks": tasks}]))
    before = gateway(STATE)
    run = play(str(folder / "play.yml"))
    assert run.rc == 0, run.output
    assert "PRIVATE KEY" not in run.output
    noted = json.loads((folder / "noted.json").read_text())
    assert len(noted) == len(tasks) - 1, "a case was not refused"
    return before, noted


@pytest.mark.parametrize("number", range(len(CASES)))
def test_a_wrong_variable_is_refused(refused, number):
    before, noted = refused
    said = " ".join(noted[number]["says"].split())
    assert all(word in said for word in CASES[number][1]), said
    assert noted[number]["state"] == before


@pytest.mark.parametrize(
    ("place", "words"),
    [(-2, "It does not fit the key."), (-1, "It is not for paint.example.com; it is for DNS:x.example.com.")],
)
def test_a_wrong_certificate_is_refused(refused, place, words):
    before, noted = refused
    assert "gateway_certificate is" in noted[place]["says"]
    assert words in noted[place]["says"]
    assert noted[place]["state"] == before


def test_an_instance_out_of_reach_ends_the_play(state):
    before = state()
    run = play("playbooks/gateway.yml", "--limit", GATEWAYS[0], "-e", HIDDEN)
    assert run.rc == 2, run.output
    assert run.says(f"the gateway {GATEWAYS[0]} can't reach {GATEWAYS[1]}:cpu, published on 127.0.0.1 of another host"), (
        run.output
    )
    assert state() == before


def test_a_configuration_of_somebody_else_is_left_alone(gateway, state):
    gateway("cp -a /etc/haproxy/haproxy.cfg /srv/kept && sed -i 1d /etc/haproxy/haproxy.cfg")
    try:
        before = state()
        run = play("playbooks/gateway.yml", "--limit", GATEWAYS[0])
        assert run.rc == 2, run.output
        assert run.says("/etc/haproxy/haproxy.cfg is somebody else's"), run.output
        assert state() == before
    finally:
        gateway("mv /srv/kept /etc/haproxy/haproxy.cfg")
