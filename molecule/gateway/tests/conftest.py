"""What the tests of this scenario share: the hosts, and requests from a visitor's host to a gateway."""

import json
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "shared"))

from hosts import NAMES, Host, pytest_runtest_makereport

__all__ = ["pytest_runtest_makereport"]

GATEWAYS, VISITOR = NAMES[:2], NAMES[2]

CA = "/etc/iopaint-gateway/tls/ca.crt"
CLIENT = Path(__file__).with_name("client.py").read_text()
ALICE = "alice:a password of $alice's"
BOB = "bob:bobs-password"


def lost(answers):
    """The answers that are none, or of another status than 200."""
    return [answer for answer in answers if answer["status"] != 200]


def out_of_service(runtime):
    """Return the servers of the pool and of its pages that are out of service; a candidate always is, but in a switch."""
    found = [line.split(",") for line in runtime("show stat").splitlines() if ",MAINT" in line]
    return [row[1] for row in found if ":candidate" not in row[1]]


def candidates(runtime):
    """Return the candidates that are in service."""
    found = [line.split(",") for line in runtime("show stat").splitlines() if line.startswith("paint,")]
    return [row[1] for row in found if row[1].endswith(":candidate") and "MAINT" not in row]


@pytest.fixture(scope="session")
def gateway():
    """The host with the gateway, and an instance."""
    return Host(GATEWAYS[0])


@pytest.fixture(scope="session")
def second():
    """The host with the other gateway, and an instance."""
    return Host(GATEWAYS[1])


@pytest.fixture(scope="session")
def visitor(gateway):
    """The host that requests come from."""
    host = Host(VISITOR)
    host(f"mkdir -p /srv/client && cat > /srv/client/ca.crt <<'E'\n{gateway(f'cat {CA}')}\nE")
    host(f"cat > /srv/client/client.py <<'E'\n{CLIENT}\nE")
    return host


@pytest.fixture
def ca(gateway):
    """The authority of the certificate that the gateway has by now, as a file on the visitor's host."""
    issuer = gateway("openssl x509 -in /etc/iopaint-gateway/tls/server.crt -noout -issuer")
    return "/srv/client/acme-root.crt" if "Pebble" in issuer else "/srv/client/ca.crt"


@pytest.fixture
def command(visitor, ca):
    """Return the command that asks the gateway as client.py documents."""

    def command(**wanted):
        wanted = {"address": GATEWAYS[0], "ca": ca, **wanted}
        return f"python3 /srv/client/client.py {shlex.quote(json.dumps(wanted))}"

    return command


@pytest.fixture
def ask(visitor, command):
    """Ask the gateway from the visitor's host; return the only answer."""

    def ask(**wanted):
        (answer,) = json.loads(visitor(command(**wanted)))
        return answer

    return ask


@pytest.fixture
def runtime(gateway):
    """Send a command to HAProxy's runtime interface; return its answer."""

    def runtime(command):
        program = (
            "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect('/run/haproxy/admin.sock'); "
            "s.sendall(sys.argv[1].encode() + b'\\n'); print(s.makefile().read())"
        )
        return gateway(f"python3 -c {shlex.quote(program)} {shlex.quote(command)}")

    return runtime


@pytest.fixture
def renew(gateway):
    """Let systemd reload, restart or kill HAProxy, and wait for its new process."""
    process = "echo show info | socat - /run/haproxy/admin.sock 2>/dev/null | grep ^Pid:"

    def renew(command):
        wait = f'for each in $(seq 150); do new=$({process}) && [ "$new" != "$old" ] && exit 0; sleep 0.1; done; exit 1'
        gateway(f"old=$({process}); systemctl {command} haproxy; {wait}")

    return renew


@pytest.fixture
def forgotten(runtime):
    """The gateway knows no failed and no right login, before and after."""

    def forget():
        for table in ("_addresses", "_users", "_logins"):
            for _attempt in range(20):  # an entry stays while a connection of it is open
                runtime(f"clear table {table}")
                if "used:0" in runtime(f"show table {table}"):
                    break
                time.sleep(0.25)

    forget()
    yield
    forget()


@pytest.fixture
def load(visitor, command):
    """Begin to ask the gateway, and return what waits for all the answers."""

    def load(**wanted):
        visitor("rm -f /srv/client/enough")
        line = command(user=ALICE, until="/srv/client/enough", **wanted)
        process = subprocess.Popen(["docker", "exec", visitor.name, "sh", "-c", line], stdout=subprocess.PIPE, text=True)

        def answers(enough=False):
            if enough:
                visitor("touch /srv/client/enough")
            return json.loads(process.communicate(timeout=300)[0])

        return answers

    return load
