"""What the tests of this scenario share: the hosts, and requests from a visitor's host to a gateway."""

import contextlib
import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "shared"))

from hosts import NAMES, Host, pytest_runtest_makereport

__all__ = ["pytest_runtest_makereport"]

GATEWAYS, VISITOR = NAMES[:2], NAMES[2]

CA = "/etc/iopaint-gateway/tls/ca.crt"
TRUSTED = "/srv/client/ca.crt"  # on the visitor's host
PROGRAMS = [Path(__file__).with_name(name) for name in ("client.py", "load.py")]
LEAST = 2000  # requests during an event, of which none may fail
ALICE = "alice:a password of $alice's"
BOB = "bob:bobs-password"


def lost(answers):
    """The answers that are none, or of another status than 200."""
    return [answer for answer in answers if answer["status"] != 200]


def out_of_service(runtime):
    """Return the servers of the pool and of its pages that are out of service; a candidate always is, but in a switch."""
    found = [line.split(",") for line in runtime("show stat").splitlines() if ",MAINT" in line]
    return [row[1] for row in found if ":candidate" not in row[1]]


def serves(host):
    """The release that the instance of a host answers with, as the gateway asks it."""
    program = (
        "import json, urllib.request as r; token = open('/opt/iopaint/instances/.gateway/token').read().split()[0]; "
        "q = r.Request('http://127.0.0.1:8080/api/v1/model', headers={'X-IOPaint-Token': token}); "
        "print(json.load(r.urlopen(q))['release'])"
    )
    return host(f'python3 -c "{program}"')


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
def hosts(gateway, second):
    """All hosts; each has an instance."""
    return [gateway, second, Host(VISITOR)]


@pytest.fixture(scope="session")
def visitor(gateway):
    """The host that requests come from."""
    host = Host(VISITOR)
    host(f"mkdir -p /srv/client && cat > {TRUSTED} <<'E'\n{gateway(f'cat {CA}')}\nE")
    for program in PROGRAMS:
        host(f"cat > /srv/client/{program.name} <<'E'\n{program.read_text()}\nE")
    return host


@pytest.fixture
def command(visitor):
    """Return the command that asks the gateway as client.py documents, and trusts the authorities that it has had by now."""

    def command(**wanted):
        wanted = {"address": GATEWAYS[0], "ca": TRUSTED, **wanted}
        return f"python3 /srv/client/client.py {shlex.quote(json.dumps(wanted))}"

    return command


@pytest.fixture
def asks(visitor, command):
    """Ask the gateway from the visitor's host; return all answers, in order."""

    def asks(**wanted):
        return json.loads(visitor(command(**wanted)))

    return asks


@pytest.fixture
def ask(asks):
    """Ask the gateway from the visitor's host; return the only answer."""

    def ask(**wanted):
        (answer,) = asks(**wanted)
        return answer

    return ask


@pytest.fixture
def runtime(gateway):
    """Send a command to HAProxy's runtime interface; return its answer."""

    def runtime(command):
        return gateway(f"echo {shlex.quote(command)} | socat -t 10 - /run/haproxy/admin.sock")

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
def forgotten(gateway):
    """The gateway knows no failed and no right login yet. An entry of a table stays while a connection of it is open."""
    ask = "echo {} table $table | socat - /run/haproxy/admin.sock"
    clear, empty = ask.format("clear"), f"{ask.format('show')} | grep -q used:0"
    gateway(
        f"for table in _addresses _users _logins; do for each in $(seq 20); do {clear}; {empty} && break; sleep 0.25; done; done"
    )


@pytest.fixture
def event(visitor):
    """Ask the gateway as load.py documents while something happens, and give what came of it: of 2,000 requests none may fail."""

    @contextlib.contextmanager
    def event(**options):
        wanted = {**options, "address": GATEWAYS[0], "ca": TRUSTED, "user": ALICE, "until": "/srv/client/enough", "least": LEAST}
        visitor("rm -f /srv/client/enough")
        line = ["docker", "exec", visitor.name, "python3", "/srv/client/load.py", json.dumps(wanted)]
        process, found = subprocess.Popen(line, stdout=subprocess.PIPE, text=True), {}
        try:
            yield found
        finally:
            visitor("touch /srv/client/enough")
            found.update(json.loads(process.communicate(timeout=400)[0]))
            print(json.dumps({**found, "failed": len(found["failed"])}))
        assert found["failed"] == []
        assert found["total"] >= LEAST, found

    return event


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
