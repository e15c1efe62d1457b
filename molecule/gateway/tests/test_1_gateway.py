"""Who is let in, what is refused, and what the log says of it."""

import json

import pytest
from conftest import ALICE, BOB, GATEWAYS, NAMES

pytestmark = pytest.mark.usefixtures("forgotten")


def logged(gateway, path):
    """The log's lines about a path. Each line of the log has to be JSON."""
    lines = gateway("journalctl --sync; journalctl -t iopaint-gateway -p info..info -o cat --no-pager").splitlines()
    return [line for line in map(json.loads, lines) if line["path"] == path]


def test_nobody_gets_in_without_a_login(ask):
    """TLS is verified by each request of these tests, with the authority of the role."""
    answer = ask()
    assert answer["status"] == 401
    assert "Basic" in answer["headers"]["www-authenticate"]
    assert ask(user="alice:wrong password")["status"] == 401
    assert ask(user="nobody:a password of $alice's")["status"] == 401


@pytest.mark.parametrize("user", [ALICE, BOB])
def test_users_get_in(ask, user):
    answer = ask(user=user)
    assert answer["status"] == 200, answer
    assert json.loads(answer["body"])["release"] == "v1"
    assert "server" not in answer["headers"]
    assert answer["headers"]["strict-transport-security"].startswith("max-age=")


def test_a_login_of_another_password_is_not_remembered(ask):
    assert ask(user=ALICE)["status"] == 200
    assert ask(user=ALICE + "x")["status"] == 401
    assert ask(user=ALICE)["status"] == 200


def test_failed_logins_are_slowed_down(ask, asks):
    tried = asks(user="alice:wrong password", count=11, parallel=1)
    assert [answer["status"] for answer in tried] == [401] * 10 + [429]
    assert ask(user=ALICE)["status"] == 429  # so an attacker does not learn it
    assert ask()["status"] == 401


def test_a_user_who_is_in_stays_in_while_others_guess(ask, asks):
    assert ask(user=ALICE)["status"] == 200
    assert asks(user="alice:wrong password", count=12, parallel=1)[-1]["status"] == 429
    assert ask(user=ALICE)["status"] == 200


def test_other_host_names_are_refused(ask):
    assert ask(user=ALICE, headers={"Host": "evil.example.com"})["status"] == 421
    assert ask(user=ALICE, headers={"Host": "paint.example.com:443"})["status"] == 200


def test_plain_http_is_redirected(ask):
    answer = ask(port=80, ca=None, path="/x?y=1")
    assert (answer["status"], answer["headers"]["location"]) == (308, "https://paint.example.com/x?y=1")
    assert ask(port=80, ca=None, headers={"Host": "evil.example.com"})["status"] == 421


def test_a_large_request_is_refused(ask):
    assert ask(user=ALICE, method="POST", length=64_000_001)["status"] == 413


def test_the_cookie_keeps_a_user_on_an_instance(ask, asks, gateway):
    answer = ask(user=ALICE, path="/api/v1/model?first")
    cookie = answer["headers"]["set-cookie"]
    assert "; HttpOnly; Secure; SameSite=Lax" in cookie
    assert not any(name in cookie for name in NAMES)
    asks(user=ALICE, path="/api/v1/sticky", headers={"Cookie": cookie.partition(";")[0]}, count=4, parallel=1)
    seen = [line["instance"] for line in logged(gateway, "/api/v1/sticky")]
    assert (len(seen), len(set(seen))) == (4, 1)
    without = {each["headers"]["set-cookie"].partition(";")[0] for each in asks(user=ALICE, count=6, parallel=1)}
    assert len(without) == len(NAMES), without


def test_the_log_has_a_json_line_for_each_request(ask, gateway):
    path = '/api/v1/model"\\logged'
    ask(user=ALICE, path=path)
    line = logged(gateway, path)[-1]
    assert (line["user"], line["by"], line["status"], line["pool"]) == (
        "alice",
        "password",
        500,
        "paint",
    )
    assert line["instance"].removesuffix(":cpu") in NAMES
    assert all(isinstance(line[key], int) for key in ("held_ms", "waited_ms", "served_ms", "total_ms", "bytes"))


def test_the_log_has_a_json_line_for_what_is_no_request(visitor, gateway):
    """Text in place of TLS, and no HTTP in TLS."""
    address = f"{GATEWAYS[0]}/443"
    visitor(f"bash -c 'exec 3<>/dev/tcp/{address} && printf \"GET / HTTP/1.0\\r\\n\\r\\n\" >&3 && cat <&3 >/dev/null'; true")
    program = (
        "import socket, ssl; c = ssl.create_default_context(); c.check_hostname = False; c.verify_mode = ssl.CERT_NONE; "
        f"s = c.wrap_socket(socket.create_connection(('{GATEWAYS[0]}', 443))); s.sendall(b'no' + bytes(range(9)) * 9); s.recv(9)"
    )
    visitor(f'python3 -c "{program}"')
    assert {line["status"] for line in logged(gateway, "-")} >= {0, 400}


def test_statistics_and_metrics_are_for_loopback_and_the_operators(gateway, ask):
    answer = gateway(
        "python3 -c \"import urllib.request as r; print(r.urlopen('http://127.0.0.1:8404/metrics').read().decode())\""
    )
    assert 'haproxy_server_check_status{proxy="paint",server="iopaint-gateway-2:cpu",state="L7OK"} 1' in answer
    assert ask(port=8404, ca=None)["status"] == 403
    assert ask(user=ALICE, path="/metrics")["status"] == 404


def test_no_password_is_on_the_host(gateway):
    assert gateway("grep -rl 'password of' /etc /root/.ansible /var/lib/haproxy 2>/dev/null || true") == ""
    assert gateway("journalctl --no-pager | grep -c 'password of' || true") == "0"
    assert gateway("stat -c '%U %a' /etc/haproxy/haproxy.cfg /etc/iopaint-gateway /etc/iopaint-gateway/tls/ca.key") == (
        "root 600\nroot 700\nroot 600"
    )


def test_an_instance_on_the_network_asks_for_the_gateway_s_token(gateway, second, ask):
    token = gateway("cat /etc/iopaint-gateway/token")
    assert len(token) == 43
    for name in GATEWAYS:
        assert ask(address=name, port=8080, ca=None)["status"] == 401
        assert ask(address=name, port=8080, ca=None, headers={"X-IOPaint-Token": token[:-1]})["status"] == 401
        assert ask(address=name, port=8080, ca=None, headers={"X-IOPaint-Token": token})["status"] == 200
    assert gateway("stat -c %a /etc/iopaint-gateway/token") == "600"
    assert second("stat -c '%U %G %a' /opt/iopaint/instances/.gateway/token") == "root UNKNOWN 440"
    for host in (gateway, second):
        assert token not in host("docker inspect $(docker ps -q)")
        assert token not in host("journalctl --no-pager; ps axeww; cat /opt/iopaint/instances/cpu/current/*")
