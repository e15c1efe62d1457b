"""The registry by itself: who is let in, what it keeps, and what its garbage collection does."""

import json

URL = "https://iopaint-registry:5443/v2/"


def test_passwords_are_kept_as_bcrypt_hashes(registry):
    assert registry("cut -d: -f1 /etc/docker/registry/htpasswd") == "fleet"
    assert registry("cut -d: -f2 /etc/docker/registry/htpasswd").startswith("$2")


def test_keys_are_nobody_else_s(registry):
    assert registry("stat -c '%U %G %a' /etc/docker/registry/tls/ca.key") == "root root 600"
    assert registry("stat -c '%U %G %a' /etc/docker/registry/tls/server.key") == "root docker-registry 640"


def test_no_plain_http(registry):
    assert "HTTP request to an HTTPS server" in registry(
        "python3 -c \"import socket as s; c = s.create_connection(('localhost', 5443));"
        " c.send(b'GET /v2/ HTTP/1.0\\r\\n\\r\\n'); print(c.recv(999).decode())\""
    )


def test_the_garbage_collection_runs_read_only_and_the_registry_is_back(registry):
    registry("systemctl start docker-registry-gc.service")
    assert registry("systemctl is-active docker-registry.service") == "active"
    assert registry.shell.run("systemctl is-active docker-registry-read-only.service").stdout.strip() == "inactive"
    started = registry("journalctl --no-pager -o json -u docker-registry-read-only.service")
    assert any("listening on" in json.loads(line)["MESSAGE"] for line in started.splitlines())
    assert "docker-registry-gc.timer" in registry("systemctl list-timers --no-pager")
