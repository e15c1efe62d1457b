"""Certificates by ACME, from Pebble, a real server for tests. It asks the second gateway for what either one has to answer."""

import json
import os
from pathlib import Path

import pytest
from conftest import ALICE, GATEWAYS, TRUSTED, VISITOR
from play import play

pytestmark = pytest.mark.usefixtures("forgotten")

ACME = {
    "gateway_tls": "acme",
    "gateway_acme_directory": f"https://{VISITOR}:14000/dir",
    "gateway_acme_ca": str(Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "acme.crt"),
}
SERIAL = "openssl x509 -in /etc/iopaint-gateway/tls/server.crt -noout -serial -issuer"


@pytest.fixture(scope="module")
def certified(visitor):
    """Both gateways have a certificate by ACME; gives the file with its authority on the visitor's host."""
    run = play("playbooks/gateway.yml", **ACME)
    assert run.rc == 0, run.output
    visitor(
        "python3 -c \"import ssl, urllib.request as r; c = ssl.create_default_context(cafile='/srv/acme/server.crt');"
        f" print(r.urlopen('https://{VISITOR}:15000/roots/0', context=c).read().decode())\" > /srv/client/acme-root.crt"
    )
    visitor(f"cat /srv/client/acme-root.crt >> {TRUSTED}")
    return "/srv/client/acme-root.crt"


def test_a_directory_that_is_not_reached_ends_the_play_before_anything(gateway):
    before = gateway(f"{SERIAL}; sha256sum /etc/haproxy/haproxy.cfg; systemctl show haproxy -p MainPID")
    run = play("playbooks/gateway.yml", "--limit", GATEWAYS[0], **{**ACME, "gateway_acme_directory": f"https://{VISITOR}:1/dir"})
    assert run.rc == 2, run.output
    assert run.says("gateway_acme_directory is", "opens no account", "Connection refused", "was not touched"), run.output
    assert gateway(f"{SERIAL}; sha256sum /etc/haproxy/haproxy.cfg; systemctl show haproxy -p MainPID") == before


def test_both_gateways_have_a_certificate_of_the_server(certified, ask):
    for name in GATEWAYS:
        assert ask(address=name, user=ALICE, ca=certified)["status"] == 200


def test_a_certificate_of_another_kind_is_replaced_and_nothing_else_changes(certified, gateway):
    """By the one that is there. The other gateway, which has its own, is as it was."""
    before = gateway(SERIAL)
    other = "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=other -keyout server.key -out server.crt"
    gateway(f"cd /etc/iopaint-gateway/tls && {other}")
    assert gateway(SERIAL) != before
    run = play("playbooks/gateway.yml", **ACME)
    assert run.rc == 0, run.output
    assert gateway(SERIAL) == before
    assert run.changed(GATEWAYS[1]) == 0, run.output


def test_a_renewal_loses_no_request(certified, gateway, event):
    before = gateway(SERIAL)
    assert "Pebble" in before
    again = "/usr/bin/certbot certonly -n -q -c /etc/iopaint-gateway/acme/certbot.ini --force-renewal"
    unit, changed = json.dumps(f"[Service]\nExecStart=\nExecStart={again}"), "/run/systemd/system/iopaint-gateway-acme.service.d"
    with event(rate=150):
        try:
            gateway(f"mkdir {changed} && printf {unit} > {changed}/now.conf && systemctl daemon-reload")
            gateway("systemctl start iopaint-gateway-acme.service")
        finally:
            gateway(f"rm -r {changed} && systemctl daemon-reload")
    assert gateway(SERIAL) != before
    gateway("systemctl start iopaint-gateway-acme.service")  # which finds nothing to do
    assert gateway("systemctl is-enabled iopaint-gateway-acme.timer") == "enabled"
