# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The gateway's configuration in a real HAProxy on loopback: who gets in, and what an instance behind it is told."""

import contextlib
import hashlib
import http.client
import json
import os
import queue
import re
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.iopaint.fleet.plugins.filter.gateway import candidates_served
from ansible_collections.iopaint.fleet.plugins.module_utils import haproxy
from ansible_collections.iopaint.fleet.plugins.modules import gateway_candidate
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

# HAPROXY names another version's program, to try the configuration with it.
PROGRAM = os.environ.get("HAPROXY") or shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/local/sbin:/usr/sbin:/sbin")
pytestmark = pytest.mark.skipif(
    not (PROGRAM and shutil.which("openssl") and shutil.which("socat")), reason="needs haproxy, openssl and socat"
)

VERSION = PROGRAM and subprocess.run([PROGRAM, "-v"], capture_output=True, text=True, check=True).stdout.split()[2]
AT_LEAST_2_5 = PROGRAM and not VERSION.startswith("2.4")

ROLE = Path(__file__).resolve().parents[2] / "roles" / "gateway"
NAME = "paint.example.com"
TOKEN = "t" * 43
# What only root, or a host with systemd, has.
OF_A_HOST = ("    chroot ", "    user haproxy", "    group haproxy", "    daemon")
USERS = ["alice", "mallory"]
PASSWORD = "long enough"  # of both
UPGRADE = [
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", b64encode(b"x" * 16).decode()),
]
RFC_6455 = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
# A line of the requests' log, as syslog has it: of facility local0 and level info.
LOGGED = re.compile(rb"<134>[^:]+:\d\d:\d\d " + haproxy.LOG_TAG.encode() + rb"\[\d+\]: (.*)\n", re.DOTALL)
TRUSTED, SSO, ELSEWHERE = "127.0.0.3", "127.0.0.4", "127.0.0.1"


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def trusted(value):
    """Let Ansible template what the role's own files say."""
    if isinstance(value, dict):
        return {key: trusted(each) for key, each in value.items()}
    if isinstance(value, list):
        return [trusted(each) for each in value]
    return trust_as_template(value) if isinstance(value, str) else value


def insecure():
    """Return the context of a client that takes any certificate."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


class Instance(BaseHTTPRequestHandler):
    """Answers with what it was asked, as JSON."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.headers["Upgrade"] == "websocket":
            return self.upgrade()
        headers = [[name.lower(), value] for name, value in self.headers.items()]
        port = self.server.server_port
        self.reply(json.dumps({"path": self.path, "headers": headers, "port": port}).encode(), self.server.status)
        return None

    def do_POST(self):
        """Stay with the client, as a computation does, until the instance is told to go on."""
        self.server.under_way.append("POST")
        self.server.go_on.wait(60)
        self.server.under_way.remove("POST")
        self.reply(b"computed")

    def reply(self, body, status=200):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Powered-By", "a version")
        self.end_headers()
        self.wfile.write(body)

    def upgrade(self):
        self.send_response(101)
        self.send_header("Connection", "Upgrade")
        self.send_header("Upgrade", "websocket")
        answer = hashlib.sha1(self.headers["Sec-WebSocket-Key"].encode() + RFC_6455, usedforsecurity=False)
        self.send_header("Sec-WebSocket-Accept", b64encode(answer.digest()).decode())
        self.end_headers()
        self.wfile.write(b"open")
        self.rfile.read(1)  # until the client takes its leave, or the gateway ends it
        self.close_connection = True

    def log_message(self, *_args):
        """Say nothing."""


@contextlib.contextmanager
def instance(status=200, host="127.0.0.1"):
    """Serve as an instance, and give the server; status: of its answers to GET."""
    server = ThreadingHTTPServer((host, 0), Instance)
    server.status, server.go_on, server.under_way = status, threading.Event(), []
    server.handle_error = lambda *_args: None  # of a health check that is not read to its end
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.go_on.set()
        server.shutdown()
        server.server_close()


class Gateway:
    """HAProxy with the role's configuration, before one instance."""

    def __init__(self, folder, **variables):
        self.folder, self.port, self.stats_port, self.redirect_port = folder, free_port(), free_port(), free_port()
        self.socket = folder / "admin.sock"
        self.variables = variables

    def render(self, instance_port):
        """Return the text of the configuration."""
        own = {file: yaml.safe_load((ROLE / file / "main.yml").read_text()) for file in ("defaults", "vars")}
        pools = self.variables.pop("pools", [("paint", NAME)])
        server = {"address": "127.0.0.1", "port": instance_port, "cookie": "c00c1e"}
        given = {
            "inventory_hostname": "gw",
            "groups": {"gateways": ["gw"]},
            "gateway_bind_addresses": ["127.0.0.1"],
            "gateway_port": self.port,
            "gateway_redirect_port": self.redirect_port,
            "gateway_stats_port": self.stats_port,
            "gateway_name": NAME,
            "gateway_resolved": [{"name": name, "host": host, "servers": [{"name": "gw:cpu", **server}]} for name, host in pools],
            "__gateway_dir": str(self.folder),
            "__gateway_socket": str(self.socket),
            "__gateway_hashes": {"results": []},
            **self.variables,
        }
        templar = Templar(loader=DataLoader(), variables=trusted({**own["defaults"], **own["vars"], **given}))
        path = ROLE / "templates" / "haproxy.cfg.j2"
        return templar.template(trust_as_template(f"{{{{ lookup('ansible.builtin.template', '{path}') }}}}"))

    @contextlib.contextmanager
    def run(self, certificate):
        """Run it."""
        (self.folder / "tls").mkdir(exist_ok=True)
        shutil.copy(certificate, self.folder / "tls")
        (self.folder / "token.map").write_text(f"iopaint {TOKEN}\n")
        (self.folder / "servers.state").write_text("1\n")
        for program in ("hold.lua", "servers-state"):
            shutil.copy(ROLE / "files" / program, self.folder)
        with instance() as server, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as log:
            self.instance, self.go_on = server, server.go_on
            text = self.render(server.server_port)
            text = "\n".join(line for line in text.splitlines() if not line.startswith(OF_A_HOST)) + "\n"
            log.bind(("127.0.0.1", 0))
            assert "log /dev/log len" in text
            text = text.replace("log /dev/log", f"log 127.0.0.1:{log.getsockname()[1]}")
            self.log, self.broken = queue.Queue(), []
            (self.folder / "haproxy.cfg").write_text(text)
            command = [PROGRAM, "-db", "-f", self.folder / "haproxy.cfg"]
            check = subprocess.run([*command, "-c"], capture_output=True, text=True, check=False)
            assert check.returncode == 0, check.stdout + check.stderr
            self.warnings = [line for line in check.stderr.splitlines() if "WARNING" in line]
            self.command = command
            reading = threading.Thread(target=self.read, args=[log])
            reading.start()
            try:
                self.start()
                self.wait()
                yield self
            finally:
                self.stop()
                log.sendto(b"", log.getsockname())
                reading.join()
            assert self.broken == []

    def read(self, log):
        """Take the lines of the requests' log until an empty one comes, and keep those that are no JSON by themselves."""
        while text := log.recv(70000):
            if found := LOGGED.fullmatch(text):
                try:
                    self.log.put(json.loads(found[1]))
                except ValueError:
                    self.broken.append(found[1])

    def start(self):
        """Start the program."""
        self.process = subprocess.Popen(self.command, stderr=subprocess.DEVNULL)

    def stop(self):
        """End the program."""
        self.process.kill()
        self.process.wait()

    def save(self, socket=None):
        """Save the states of the servers, as the role's unit and tasks do; return the exit status."""
        files = [socket or self.socket, self.folder / "haproxy.cfg", self.folder / "servers.state"]
        return subprocess.run(["sh", self.folder / "servers-state", *files], check=False, capture_output=True).returncode

    def restart(self):
        """Start it anew with the states that the servers have, as a reload or a restart does with the role's unit."""
        assert self.save() == 0
        self.kill()

    def kill(self):
        """Start it anew after it was killed."""
        self.stop()
        self.start()
        self.answers()

    def answers(self):
        """Wait until the runtime interface answers."""
        for _attempt in range(100):
            with contextlib.suppress(OSError):
                self.runtime("show info")
                return
            time.sleep(0.05)

    def wait(self):
        """Wait until the gateway serves from the instance."""
        for _attempt in range(200):
            with contextlib.suppress(OSError):
                if ",UP," in self.runtime("show stat") or ",L7OK," in self.runtime("show stat"):
                    return
            time.sleep(0.05)
        raise AssertionError("HAProxy does not serve from the instance")

    def runtime(self, command):
        """Return the answer of the runtime interface."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self.socket))
            connection.sendall(command.encode() + b"\n")
            return connection.makefile().read()

    def forgotten(self, table, key):
        """Wait until nothing of a key is under way."""
        for _attempt in range(100):
            if "conn_cur=0" in self.runtime(f"show table {table} key {key}"):
                return
            time.sleep(0.05)
        raise AssertionError(self.runtime(f"show table {table}"))

    def servers(self):
        """Return HAProxy's word for the state of each server, without those of pages, and candidates that are out of service."""
        found = [line.split(",") for line in self.runtime("show stat").splitlines() if line.startswith("paint,gw:")]
        return {line[1]: line[17].partition(" ")[0] for line in found if line[1:18:16] != ["gw:cpu:candidate", "MAINT"]}

    def metrics(self):
        """Return the measures for Prometheus."""
        return self.ask("/metrics", port=self.stats_port, host="localhost")[2]

    def ask(self, path="/", *headers, source=ELSEWHERE, port=None, host=NAME, method="GET", certificate=None):
        """Return status, headers and body of the answer; headers are pairs, and one may come twice."""
        if port is None:
            context = insecure()
            if certificate:
                context.load_cert_chain(certificate)
            connection = http.client.HTTPSConnection(
                "127.0.0.1", self.port, timeout=30, source_address=(source, 0), context=context
            )
        else:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30, source_address=(source, 0))
        with contextlib.closing(connection):
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in ([("Host", host)] if host else []) + list(headers):
                connection.putheader(name, value)
            connection.endheaders()
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read().decode()

    def told(self, *args, **options):
        """Return the headers that the instance was told, as pairs."""
        status, _headers, body = self.ask(*args, **options)
        assert status == 200, body
        return [tuple(header) for header in json.loads(body)["headers"]]

    def config(self, frontend):
        """Return what the configuration says of a frontend."""
        return (self.folder / "haproxy.cfg").read_text().partition(f"frontend {frontend}\n")[2].partition("\n\n")[0]

    def logged(self, path):
        """Return the line of the log about a path."""
        while True:
            line = self.log.get(timeout=5)
            if line["path"] == path:
                return line


def login(user, password=PASSWORD):
    return "Authorization", "Basic " + b64encode(f"{user}:{password}".encode()).decode()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A file with a certificate and its key."""
    folder, now = tmp_path_factory.mktemp("tls"), datetime.now(timezone.utc)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, NAME)])
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(1), now + timedelta(1))
    public = made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "server.pem").write_bytes(public + private)
    return folder / "server.pem"


@pytest.fixture(scope="module")
def users():
    """The users with their hashes."""
    made = subprocess.run(["openssl", "passwd", "-6", PASSWORD], capture_output=True, text=True, check=True).stdout.strip()
    return [{"name": name, "hash": made} for name in USERS]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory, certificate, users):
    """A gateway with users, a sign-on proxy, and networks without a login that the proxy's address is in."""
    made = Gateway(
        tmp_path_factory.mktemp("gateway"),
        gateway_users=users,
        gateway_sso_header="X-Remote-User",
        gateway_sso_addresses=[SSO],
        gateway_trusted_networks=[TRUSTED, SSO],
        gateway_login_failures=1000,
    )
    with made.run(certificate):
        yield made


def test_nobody_gets_in_without_a_login(gateway):
    assert gateway.ask()[0] == 401
    assert gateway.ask("/", login("alice", "wrong"))[0] == 401
    assert ("x-forwarded-user", "alice") in gateway.told("/", login("alice"))


def test_haproxy_has_nothing_to_warn_of(gateway):
    assert gateway.warnings == []


def test_a_login_is_not_remembered_for_what_came_beside_it(gateway):
    """A user of the team who sends two logins must not open the door to any name with any password."""
    other = login("alice", "never right")
    for pair in ([login("mallory"), other], [other, login("mallory")]):
        assert gateway.ask("/", *pair)[0] in (400, 401)
        assert gateway.ask("/", other)[0] == 401
    mixed = ("Authorization", f"{login('mallory')[1]}, {other[1]}")
    gateway.ask("/", mixed)
    assert gateway.ask("/", other)[0] == 401


def test_an_instance_is_told_the_gateway_s_word_alone(gateway):
    forged = [(name, "forged") for name in ("X-IOPaint-Token", "x-iopaint-TOKEN", "X-Forwarded-For", "X-Forwarded-User")]
    forged += [("X-Forwarded-Proto", "forged"), ("X-Remote-User", "forged")]
    told = gateway.told("/", login("alice"), *forged, ("Connection", "keep-alive, X-IOPaint-Token, X-Forwarded-For"))
    assert "forged" not in [value for _name, value in told]
    assert [value for name, value in told if name == "x-iopaint-token"] == [TOKEN]
    assert [value for name, value in told if name == "x-forwarded-for"] == [ELSEWHERE]
    assert "authorization" not in dict(told)
    told = gateway.told("/", *forged, source=TRUSTED)
    assert "x-forwarded-user" not in dict(told)


def test_the_sign_on_proxy_names_the_user(gateway):
    user = ("X-Remote-User", "carol")
    assert gateway.ask("/", user)[0] == 401
    told = gateway.told("/sso", user, source=SSO)
    assert ("x-forwarded-user", "carol") in told
    assert "x-remote-user" not in dict(told)
    line = gateway.logged("/sso")
    assert (line["user"], line["by"]) == ("carol", "sso")


@pytest.mark.parametrize("values", [[], [""], [" "], ["carol", "alice"]], ids=repr)
def test_the_sign_on_proxy_has_to_name_one_user(gateway, values):
    """Also where its address is in a network without a login: whoever asks it comes from its address."""
    headers = [("X-Remote-User", value) for value in values]
    assert gateway.ask("/", *headers, source=SSO)[0] in (400, 401)


def test_a_name_with_commas_is_one_name(gateway):
    assert ("x-forwarded-user", "CN=carol,O=example") in gateway.told("/", ("X-Remote-User", "CN=carol,O=example"), source=SSO)


def test_a_network_without_a_login(gateway):
    gateway.told("/network", ("X-Remote-User", "carol"), source=TRUSTED)
    line = gateway.logged("/network")
    assert (line["user"], line["by"]) == ("-", "network")


@pytest.mark.parametrize(
    "path",
    [
        "/metrics",
        "/metrics/",
        "/metrics?x",
        "/ws/metrics",
        "/ws/ws/metrics",
        "/%6detrics",
        "/%77s/metrics",
        "/ws/%6Detrics/",
        "/metrics#x",
        f"https://{NAME}/metrics",
    ],
)
def test_the_measures_of_an_instance_are_not_for_users(gateway, path):
    """An instance would give them to the gateway, whose token goes with each request."""
    assert gateway.ask(path, login("alice"))[0] in (400, 404)


def test_other_paths_pass(gateway):
    for path in ("/metrics.css", "/api/v1/metrics", "/a%20b?c=%2e"):
        assert json.loads(gateway.ask(path, login("alice"))[2])["path"] == path


@pytest.mark.parametrize("host", [NAME, NAME.upper(), f"{NAME}:443", f"{NAME}.", f"{NAME}.:8443"])
def test_the_gateway_s_name_is_known_however_it_is_written(gateway, host):
    assert gateway.ask("/", login("alice"), host=host)[0] == 200
    status, headers, _body = gateway.ask("/x?y", host=host, port=gateway.redirect_port)
    assert (status, headers["location"]) == (308, f"https://{NAME}:{gateway.port}/x?y")


@pytest.mark.parametrize(
    "host", [None, "", "evil.example.com", f"{NAME}.evil", f"x{NAME}", "127.0.0.1", "[::1]", "[::1]:443", f"{NAME}@evil"]
)
def test_other_names_are_refused(gateway, host):
    for port in (None, gateway.redirect_port):
        assert gateway.ask("/", login("alice"), host=host, port=port)[0] in (400, 421)


def test_a_redirect_stays_on_the_gateway_s_name(gateway):
    status, headers, _body = gateway.ask(f"http://{NAME}/x", port=gateway.redirect_port)
    assert (status, headers["location"]) == (308, f"https://{NAME}:{gateway.port}/x")


def test_an_upgrade_needs_a_login_as_well(gateway):
    assert gateway.ask("/ws/socket.io/?transport=websocket", *UPGRADE)[0] == 401
    assert gateway.ask("/ws/socket.io/?transport=websocket", ("Connection", "Upgrade"), ("Upgrade", "h2c"))[0] == 401


def test_statistics_are_for_loopback(gateway):
    for path in ("/", "/metrics"):
        assert gateway.ask(path, port=gateway.stats_port, host="127.0.0.1:8404")[0] == 200
        assert gateway.ask(path, port=gateway.stats_port, host="evil.example.com")[0] == 421
    assert "bind 127.0.0.1:" in gateway.config("_stats")
    assert gateway.config("_stats").count("bind ") == 1


def test_statistics_are_for_the_operators_networks(tmp_path, certificate, users):
    made = Gateway(tmp_path, gateway_users=users, gateway_stats_networks=["127.1.0.0/24"], gateway_bind_addresses=["127.5.0.1"])
    with made.run(certificate):
        assert made.ask("/metrics", port=made.stats_port, host="127.0.0.1")[0] == 200
        for source, status in (("127.1.0.9", 200), ("127.1.1.9", 403)):
            assert made.ask("/metrics", port=made.stats_port, source=source, host="gw")[0] == status
        assert made.config("_stats").count("bind ") == 2
        assert f"bind 127.5.0.1:{made.stats_port}" in made.config("_stats")


def test_no_header_tells_versions(gateway):
    headers = {name.lower() for name in gateway.ask("/", login("alice"))[1]}
    assert not headers & {"server", "x-powered-by"}
    assert "strict-transport-security" in headers
    refused = {name.lower() for name in gateway.ask()[1]}
    assert "strict-transport-security" in refused
    assert "server" not in refused


# ---- each line of the log is JSON ------------------------------------------------------------------------------------

NO_REQUESTS = {
    "no HTTP": b"garbage\r\n\r\n",
    "a method with a quote": b'G"ET / HTTP/1.1\r\nHost: x\r\n\r\n',
    "a path with a control character": b"GET /\x01 HTTP/1.1\r\nHost: x\r\n\r\n",
    "a path of any bytes": b"GET /" + bytes(range(128, 256)) + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "a header with a space before its colon": b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
    "a request that is too long": b"GET /" + b"x" * 30000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "a request that is cut": b'GET / HTTP/1.1\r\nHo"',
}


def says(gateway, text, secure=True):
    """Send bytes that need be no request, and wait for what comes of it."""
    raw = socket.create_connection(("127.0.0.1", gateway.port), 20)
    with contextlib.closing(insecure().wrap_socket(raw) if secure else raw) as connection, contextlib.suppress(OSError):
        connection.sendall(text)
        connection.shutdown(socket.SHUT_WR) if not secure else connection.unwrap()
        while connection.recv(9000):
            pass


def without_request(gateway, *statuses):
    """Return the next line of a connection that came to no request, with one of these statuses."""
    while True:
        line = gateway.log.get(timeout=20)
        if line["path"] == "-" and line["status"] in statuses:
            return line


@pytest.mark.parametrize("text", NO_REQUESTS.values(), ids=NO_REQUESTS)
def test_what_is_no_request_is_logged_as_json(gateway, text):
    says(gateway, text)
    line = without_request(gateway, 400, 408)
    assert line["client"] == ELSEWHERE
    assert (line["user"], line["by"], line["method"], line["instance"], line["held_ms"]) == ("-", "-", "-", "<NOSRV>", 0)
    if AT_LEAST_2_5:
        assert line["connection"] == "Success"


@pytest.mark.skipif(not AT_LEAST_2_5, reason="needs error-log-format of HAProxy 2.5")
def test_a_failed_handshake_is_logged_as_json(gateway):
    says(gateway, b"GET / HTTP/1.1\r\n\r\n", secure=False)
    line = without_request(gateway, 0)
    assert line["connection"] == "SSL handshake failure"
    assert "http request" in line["tls"]


FORGED = 'x","user":"root","status":200,"x":"\\'


def test_nothing_that_a_client_sends_forges_a_field(gateway):
    gateway.ask(f"/forged/{FORGED}", ("Authorization", "Basic " + b64encode(FORGED.encode()).decode()), host=NAME)
    line = gateway.logged(f"/forged/{FORGED}")
    assert (line["user"], line["by"], line["status"], line["host"], line["method"]) == ("-", "-", 401, NAME, "GET")
    gateway.ask("/host", host=FORGED)
    line = gateway.logged("/host")
    assert (line["user"], line["status"]) == ("-", 421)
    assert line["host"] == FORGED.partition(":")[0]
    gateway.told("/sso", ("X-Remote-User", FORGED), source=SSO)
    line = gateway.logged("/sso")
    assert (line["user"], line["by"], line["status"]) == (FORGED, "sso", 200)


def test_bytes_that_are_no_text_break_no_line(gateway):
    """Control characters, and bytes that are no UTF-8: HAProxy takes them in headers."""
    gateway.told("/bytes", ("X-Remote-User", "Zoë".encode() + b"\x01\xff\t\x7f!"), source=SSO)
    assert gateway.logged("/bytes")["user"] == "Zoë\x01\t\x7f!"


def test_a_long_request_has_a_whole_line(gateway):
    path, user, host = "/" + '"' * 9000, "\x01" * 400, '"' * 3000
    gateway.told(path, ("X-Remote-User", user), source=SSO)
    line = gateway.log.get(timeout=5)
    while not line["path"].startswith('/"'):
        line = gateway.log.get(timeout=5)
    assert (line["path"], line["user"], line["status"]) == (path[:2048], user[:256], 200)
    gateway.ask("/long", host=host, method="A" * 3000)
    line = gateway.logged("/long")
    assert (line["host"], line["method"], line["status"]) == (host[:255], "A" * 32, 421)


def test_port_80_is_in_the_log_as_well(gateway):
    gateway.ask("/plain", port=gateway.redirect_port)
    line = gateway.logged("/plain")
    assert (line["status"], line["pool"], line["held_ms"]) == (308, "_redirect", 0)
    assert haproxy.count(json.dumps(line), {NAME: "paint"}, ["paint"])[0]["paint"]["requests"] == 0


FLIGHTS = yaml.safe_load((ROLE / "tasks" / "flights.yml").read_text())[-1]


@contextlib.contextmanager
def page(gateway, path="/ws/socket.io/?transport=websocket"):
    """Open what an open page keeps, and give its stream."""
    raw = socket.create_connection(("127.0.0.1", gateway.port), 5)
    with contextlib.ExitStack() as opened:
        connection = opened.enter_context(contextlib.closing(insecure().wrap_socket(raw)))
        lines = [f"GET {path} HTTP/1.1", f"Host: {NAME}", *(": ".join(pair) for pair in [login("alice"), *UPGRADE]), "", ""]
        connection.sendall("\r\n".join(lines).encode())
        stream = opened.enter_context(connection.makefile("rb"))
        assert stream.readline().split()[1] == b"101"
        while stream.readline().strip():
            pass
        assert stream.read(4) == b"open"
        yield stream
        with contextlib.suppress(OSError):
            connection.sendall(b"x")  # for the frame that closes a websocket


@pytest.fixture(scope="module")
def busy():
    """What a drain waits for: the pattern of the role's task."""
    (pattern,) = [value for name, value in FLIGHTS["vars"].items() if name == "busy"]
    return re.compile(re.sub(r"\{\{.*?\}\}", re.escape("gw:cpu"), pattern))


def test_an_open_page_delays_no_drain_and_is_closed(gateway, busy):
    with page(gateway) as stream:
        metrics = gateway.metrics()
        assert 'haproxy_server_current_sessions{proxy="_pages_paint",server="gw:cpu:page"} 1' in metrics
        assert not busy.search(metrics)
        gateway.runtime("set server paint/gw:cpu state maint")
        try:
            assert stream.read() == b""
        finally:
            gateway.runtime("set server paint/gw:cpu state ready")
    gateway.wait()
    with page(gateway):
        assert gateway.servers() == {"gw:cpu": "UP"}


def test_a_user_has_so_many_requests_at_once(tmp_path, certificate, users):
    made = Gateway(tmp_path, gateway_users=users, gateway_connections_per_user=3, gateway_connections_per_address=20)
    with made.run(certificate), contextlib.ExitStack() as pages:
        for _each in range(3):
            pages.enter_context(page(made))
        assert made.ask("/", login("alice"))[0] == 429
        assert made.ask("/", login("mallory"))[0] == 200
        made.runtime("set server paint/gw:cpu state maint")  # which closes them
        made.forgotten("_users", "alice")
        made.runtime("set server paint/gw:cpu state ready")
        assert made.ask("/", login("alice"))[0] == 200


def test_an_address_has_so_many_connections_at_once(tmp_path, certificate, users):
    made = Gateway(tmp_path, gateway_users=users, gateway_connections_per_address=2)
    with made.run(certificate), page(made), page(made):
        for port in (None, made.redirect_port):
            with pytest.raises((OSError, http.client.HTTPException)):
                made.ask("/", login("alice"), port=port)
        assert made.ask("/", login("alice"), source=TRUSTED)[0] == 200


def test_a_computation_is_waited_for_and_ends_well(gateway, busy):
    found = []
    asking = threading.Thread(target=lambda: found.append(gateway.ask("/api/v1/inpaint", login("alice"), method="POST")))
    gateway.go_on.clear()
    asking.start()
    try:
        for _attempt in range(100):
            if busy.search(gateway.metrics()):
                break
            time.sleep(0.05)
        gateway.runtime("set server paint/gw:cpu state maint")
        assert busy.search(gateway.metrics())
        gateway.go_on.set()
        asking.join()
    finally:
        gateway.runtime("set server paint/gw:cpu state ready")
    assert [answer[::2] for answer in found] == [(200, "computed")]
    assert not busy.search(gateway.metrics())
    gateway.wait()


def test_pages_and_requests_wait_while_nothing_serves(gateway):
    """And those of pages take no place of the others."""
    gateway.go_on.set()
    paths = ["/ws/socket.io/?transport=polling"] * 40 + ["/held"] * 5
    gateway.runtime("set server paint/gw:cpu state maint")
    try:
        with ThreadPoolExecutor(len(paths)) as pool:
            asked = [pool.submit(gateway.ask, path, login("alice")) for path in paths]
            time.sleep(1)
            assert not any(each.done() for each in asked)
            gateway.runtime("set server paint/gw:cpu state ready")
            assert [each.result()[0] for each in asked] == [200] * len(paths)
        assert max(gateway.logged("/held")["held_ms"] for _each in range(5)) > 0
    finally:
        gateway.runtime("set server paint/gw:cpu state ready")
    gateway.wait()


def test_a_request_that_comes_to_a_process_which_ends_is_answered_at_once(tmp_path, certificate, users):
    """As at a reload, on a kept connection. HAProxy counts no server there any more, and nothing may wait for one."""
    made = Gateway(tmp_path, gateway_users=users)
    with made.run(certificate):
        raw = socket.create_connection(("127.0.0.1", made.port), 10)
        with contextlib.closing(insecure().wrap_socket(raw)) as connection:
            connection.sendall(f"GET /late HTTP/1.1\r\nHost: {NAME}\r\n".encode())
            time.sleep(0.5)
            made.process.send_signal(signal.SIGUSR1)
            time.sleep(0.5)
            connection.sendall(f"{': '.join(login('alice'))}\r\n\r\n".encode())
            assert connection.recv(99).startswith(b"HTTP/1.1 200 ")
        assert made.logged("/late")["held_ms"] == 0


def test_an_instance_that_is_out_of_service_stays_out_and_comes_back_whole(gateway):
    """As after a reload, which reads the states of the servers anew."""
    gateway.runtime("disable server paint/gw:cpu")
    gateway.restart()
    try:
        assert gateway.servers() == {"gw:cpu": "MAINT"}
        assert ",gw:cpu:page" in gateway.runtime("show stat")
        assert re.search(r"gw:cpu:page,.*MAINT \(via paint/gw:cpu\)", gateway.runtime("show stat"))
    finally:
        gateway.runtime("enable server paint/gw:cpu")
    gateway.wait()
    with page(gateway):
        assert gateway.ask("/", login("alice"))[0] == 200


def test_a_state_is_saved_whole_or_not_at_all(gateway, tmp_path):
    state = gateway.folder / "servers.state"
    with ThreadPoolExecutor(6) as pool:
        assert set(pool.map(lambda _each: gateway.save(), range(12))) == {0}
    before = state.read_text()
    assert " gw:cpu 127.0.0.1 " in before
    assert "candidate" not in before
    assert before.endswith("\n\n")
    assert gateway.save(tmp_path / "nobody") != 0
    with socket.socket(socket.AF_UNIX) as listener:  # an answer that ends in its middle
        listener.bind(str(tmp_path / "half"))
        listener.listen()

        def answer():
            peer, _address = listener.accept()
            with peer:
                peer.recv(99)
                peer.sendall("\n".join(before.splitlines()[:3]).encode() + b"\n")

        threading.Thread(target=answer, daemon=True).start()
        assert gateway.save(tmp_path / "half") != 0
    assert state.read_text() == before
    assert state.stat().st_mode & 0o777 == 0o600


@pytest.fixture(scope="module")
def authority():
    """An authority of client certificates: its certificate, and what makes one for a name, with its key."""
    now, keys = datetime.now(timezone.utc), [ec.generate_private_key(ec.SECP256R1()) for _each in range(2)]

    def made(name, issuer, key, by):
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)] if name else [])
        issuer = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, issuer)])
        begun = x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
        begun = begun.not_valid_before(now - timedelta(1)).not_valid_after(now + timedelta(1))
        begun = begun.add_extension(x509.BasicConstraints(ca=key is by, path_length=None), critical=True)
        return begun.sign(by, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    own, client = keys
    private = client.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return made("authority", "authority", own, own), lambda name: made(name, "authority", client, own) + private


@pytest.fixture(scope="module")
def certified(tmp_path_factory, certificate, authority):
    """A gateway that knows its users by their certificates, and asks others for none."""
    folder = tmp_path_factory.mktemp("certified")
    (folder / "tls").mkdir()
    (folder / "tls" / "client-ca.crt").write_bytes(authority[0])
    made = Gateway(folder, gateway_client_ca="given")
    with made.run(certificate):
        yield made


@pytest.mark.parametrize("name", ["dave", "Dave O'Hara", "dave\r\nX-Forwarded-Proto: forged", ""])
def test_a_client_certificate_names_the_user(certified, authority, tmp_path, name):
    (tmp_path / "client.pem").write_bytes(authority[1](name))
    path = f"/by-certificate/{len(name)}"
    told = certified.told(path, certificate=tmp_path / "client.pem")
    assert [value for key, value in told if key == "x-forwarded-user"] == [quote(name, safe=" ':")] * bool(name)
    assert [value for key, value in told if key == "x-forwarded-proto"] == ["https"]
    line = certified.logged(path)
    assert (line["user"], line["by"]) == (name or "-", "certificate")
    assert certified.ask()[0] == 403


def has_http2():
    """Return whether there is a curl that speaks it."""
    return bool(shutil.which("curl")) and b"HTTP2" in subprocess.run(["curl", "-V"], capture_output=True, check=True).stdout


@pytest.mark.skipif(not has_http2(), reason="needs curl with HTTP/2")
def test_the_same_holds_for_http2(gateway):
    def ask(path, *headers, host=NAME):
        given = [part for pair in headers for part in ("-H", ": ".join(pair))]
        asked = ["curl", "-sk", "--http2", "-m", "20", "-w", "\n%{http_code} %{http_version}", "--connect-to"]
        done = subprocess.run(
            [*asked, f"::127.0.0.1:{gateway.port}", *given, f"https://{host}{path}"], capture_output=True, text=True, check=True
        )
        body, _newline, last = done.stdout.rpartition("\n")
        status, version = last.split()
        assert version == "2"
        return int(status), body

    alice, other = login("alice"), login("alice", "never right")
    status, body = ask("/two", alice, ("X-IOPaint-Token", "forged"), ("X-Forwarded-For", "forged"), ("X-Remote-User", "forged"))
    assert status == 200
    told = json.loads(body)["headers"]
    assert "forged" not in [value for _name, value in told]
    assert ["x-forwarded-user", "alice"] in told
    assert ask("/")[0] == 401
    assert ask("/", login("mallory"), other)[0] == 400
    assert ask("/", other)[0] == 401
    assert ask("/%6detrics", alice)[0] == 404
    assert ask("/", alice, host="evil.example.com")[0] == 421
    assert ask("/", alice, host=NAME.upper() + ".")[0] == 200
    assert ask("/", alice, ("Host", "evil.example.com"))[0] in (400, 421)
    assert ask('/"\udcff', alice)[0] in (200, 400)  # a byte that is no UTF-8, for the log


# ---- a candidate takes the place of its instance ---------------------------------------------------------------------


@pytest.fixture
def serve(gateway, run_module):
    """Let the gateway serve from a candidate, and take it out at the end as the role does."""

    def serve(port, **options):
        return run_module(gateway_candidate, **{"socket": str(gateway.socket), "server": "gw:cpu", "port": port, **options})

    yield serve
    gateway.runtime("enable server paint/gw:cpu")
    gateway.runtime("disable server paint/gw:cpu:candidate")
    gateway.wait()


def until(wanted):
    """Wait until something is so."""
    for _attempt in range(200):
        if wanted():
            return
        time.sleep(0.05)
    raise AssertionError("it is not so after 10 s")


def port_of(answer):
    """Return the port of the instance that answered."""
    assert answer[0] == 200, answer
    return json.loads(answer[2])["port"]


def served(gateway):
    """Return the candidates that the role finds in service, by the filter that its tasks ask."""
    metrics = gateway.ask("/metrics?scope=server", port=gateway.stats_port, host="localhost")[2]
    return candidates_served([{"item": "gateway", "content": metrics}], "gw:", ["cpu"])


def test_a_candidate_serves_nobody_before_a_play_says_so(gateway):
    assert gateway.servers() == {"gw:cpu": "UP"}
    assert served(gateway) == []
    assert port_of(gateway.ask("/", login("alice"))) == gateway.instance.server_port


def test_nobody_waits_while_an_instance_is_switched_with_a_candidate(gateway, serve, busy):
    """Users with the cookie and without, a page, and a computation that began before."""
    own, cookie = gateway.instance.server_port, ("Cookie", "IOPAINT_INSTANCE=c00c1e")
    found, answers, held, enough = [], [], [], threading.Event()
    gateway.go_on.clear()
    computing = threading.Thread(target=lambda: found.append(gateway.ask("/", login("alice"), method="POST")))

    def computes():
        return "POST" in gateway.instance.under_way and busy.search(gateway.metrics())

    def visit(*headers):
        while not enough.is_set():
            answers.append(port_of(gateway.ask("/visit", login("alice"), *headers)))
            held.append(gateway.logged("/visit")["held_ms"])

    with instance() as candidate, page(gateway) as stream, ThreadPoolExecutor(2) as pool:
        computing.start()
        visits = [pool.submit(visit, *headers) for headers in ([], [cookie])]
        try:
            until(computes)
            result = serve(candidate.server_port)
            assert (result["serving"], result["changed"], result["pools"]) == (True, True, ["paint"])
            assert port_of(gateway.ask("/", login("alice"), cookie)) == own  # until it is taken out
            gateway.runtime("disable server paint/gw:cpu")
            assert stream.read() == b""  # the page's connection ends, and the page opens another one
            assert served(gateway) == [["gateway", "cpu:candidate"]]
            assert computes()  # while the candidate serves
            assert port_of(gateway.ask("/", login("alice"), cookie)) == candidate.server_port
            with page(gateway):
                assert gateway.ask("/", login("alice"), cookie)[1].get("set-cookie") is None
            assert "c00c1e" in gateway.ask("/", login("alice"))[1]["set-cookie"]
            gateway.go_on.set()
            computing.join()
            assert found[0][::2] == (200, "computed")
            until(lambda: not busy.search(gateway.metrics()))
            time.sleep(1)  # of users at the candidate
            gateway.runtime("enable server paint/gw:cpu")
            gateway.runtime("disable server paint/gw:cpu:candidate")
            assert port_of(gateway.ask("/", login("alice"), cookie)) == own
        finally:
            enough.set()
            gateway.go_on.set()
        for each in visits:
            each.result()
    assert set(answers) == {own, candidate.server_port}
    assert set(held) == {0}
    assert served(gateway) == []


@pytest.mark.parametrize("status", [None, 401, 503])
def test_a_candidate_that_the_gateway_can_not_use_serves_nobody(gateway, serve, status):
    """Nobody listens, as behind a firewall, or its health check fails; requests go on to the instance all the while."""
    with ThreadPoolExecutor(1) as pool, instance(status) if status else contextlib.nullcontext() as candidate:
        enough = threading.Event()

        def visit():
            while not enough.is_set():
                assert port_of(gateway.ask("/", login("alice"))) == gateway.instance.server_port

        visits = pool.submit(visit)
        try:
            result = serve(candidate.server_port if candidate else free_port(), timeout=4)
        finally:
            enough.set()
        visits.result()
    assert (result["serving"], result["changed"]) == (False, False)
    assert (str(status) if status else "Connection refused") in result["reason"]
    assert served(gateway) == []


def test_a_candidate_that_passed_before_is_judged_anew(gateway, serve):
    with instance() as candidate:
        assert serve(candidate.server_port)["serving"]
        gateway.runtime("disable server paint/gw:cpu:candidate")
    assert not serve(free_port(), timeout=4)["serving"]


def test_a_gateway_with_an_earlier_configuration_is_told(gateway, serve):
    result = serve(1, server="gw:other")
    assert (result["serving"], result["reason"]) == (False, "it has no server gw:other")
    result = serve(1, server="gw:cpu:candidate")
    assert not result["serving"]
    assert "no server for a candidate in paint; iopaint.fleet.gateway adds it" in result["reason"]


def test_a_candidate_that_ends_leaves_requests_waiting(gateway, serve):
    """As where a play was killed, and its candidate with it."""
    with instance() as candidate:
        serve(candidate.server_port)
        gateway.runtime("disable server paint/gw:cpu")
    until(lambda: gateway.servers()["gw:cpu:candidate"] == "DOWN")
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(gateway.ask, "/", login("alice"))
        time.sleep(1)
        assert not asked.done()
        gateway.runtime("enable server paint/gw:cpu")
        assert port_of(asked.result()) == gateway.instance.server_port


def test_no_candidate_serves_after_a_reload(gateway, serve):
    """Its address is gone then; requests wait until the instance is back."""
    with instance() as candidate:
        serve(candidate.server_port)
        gateway.runtime("disable server paint/gw:cpu")
        assert gateway.servers() == {"gw:cpu": "MAINT", "gw:cpu:candidate": "UP"}
        gateway.restart()
        assert gateway.servers() == {"gw:cpu": "MAINT"}
        assert f":{candidate.server_port}," not in gateway.runtime("show stat")
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(gateway.ask, "/", login("alice"))
            time.sleep(1)
            assert not asked.done()
            gateway.runtime("enable server paint/gw:cpu")
            assert port_of(asked.result()) == gateway.instance.server_port
        result = serve(candidate.server_port)  # and it can serve again, pages included
        assert result["serving"]
        gateway.runtime("disable server paint/gw:cpu")
        with page(gateway):
            assert port_of(gateway.ask("/", login("alice"))) == candidate.server_port


@pytest.mark.parametrize("state", ["maint", "ready"])
def test_a_port_that_changes_is_taken_from_the_configuration(tmp_path, certificate, users, state):
    """HAProxy would go on with the port that it had before the reload."""
    made = Gateway(tmp_path, gateway_users=users)
    with made.run(certificate), instance() as moved:
        made.runtime(f"set server paint/gw:cpu state {state}")
        file = tmp_path / "haproxy.cfg"
        file.write_text(file.read_text().replace(f":{made.instance.server_port} ", f":{moved.server_port} "))
        made.restart()
        assert made.servers() == {"gw:cpu": {"maint": "MAINT", "ready": "UP"}[state]}
        made.runtime("enable server paint/gw:cpu")
        assert port_of(made.ask("/", login("alice"))) == moved.server_port
        with page(made):
            assert f"127.0.0.1:{made.instance.server_port}," not in made.runtime("show stat")


def test_the_proof_of_the_gateway_counts_instances_and_no_candidates(gateway, serve):
    with instance() as candidate:
        serve(candidate.server_port)
        own = yaml.safe_load((ROLE / "vars" / "main.yml").read_text())
        variables = trusted(own) | {"__gateway_metrics": {"content": gateway.metrics()}}
        templar = Templar(loader=DataLoader(), variables=variables)
        assert list(map(list, templar.template(trust_as_template("{{ __gateway_healthy }}")))) == [["paint", "gw:cpu"]]


def test_status_tells_that_a_candidate_serves(gateway, serve):
    (pool,) = haproxy.pools(gateway.runtime("show stat"), 120)
    assert [one["name"] for one in pool["servers"]] == ["gw:cpu"]
    with instance() as candidate:
        serve(candidate.server_port)
        gateway.runtime("disable server paint/gw:cpu")
        (pool,) = haproxy.pools(gateway.runtime("show stat"), 120)
    assert {one["name"]: one["state"] for one in pool["servers"]} == {"gw:cpu": "out of service", "gw:cpu:candidate": "up"}
    assert (pool["state"], pool["held"]) == ("serves", 0)


HOSTS = """
[all:vars]
ansible_connection=local
ansible_python_interpreter={{ ansible_playbook_python }}
[gateways]
gw
down gateway_stats_port=1
"""
STEPS = """
- hosts: gw
  gather_facts: false
  tasks:
    - ansible.builtin.include_role: {name: iopaint.fleet.gateway, tasks_from: "{{ item }}"}
      loop: "{{ steps }}"
      vars: {gateway_instance: cpu, gateway_instances: [cpu]}
"""


@pytest.fixture
def steps(gateway, serve, tmp_path):
    """Run entry points of the role, at a gateway that serves and one that is down; return what the play says."""
    (tmp_path / "hosts").write_text(HOSTS)
    (tmp_path / "play.yml").write_text(STEPS)
    (tmp_path / "host_vars").mkdir()
    (tmp_path / "host_vars" / "gw.json").write_text(json.dumps({"gateway_stats_port": gateway.stats_port}))

    def run(*names, **options):
        files = {"socket": "admin.sock", "dir": ".", "config": "haproxy.cfg", "state": "servers.state"}
        variables = {
            "steps": names,
            "gateway_drain_timeout": 20,
            **{f"__gateway_{key}": str(gateway.folder / name) for key, name in files.items()},
            **options,
        }
        (tmp_path / "variables.json").write_text(json.dumps(variables))
        command = ["ansible-playbook", "-i", tmp_path / "hosts", tmp_path / "play.yml", "-e", f"@{tmp_path}/variables.json"]
        done = subprocess.run(command, cwd=ROLE.parents[1], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return " ".join(done.stdout.split())

    return run


def test_the_role_s_tasks_serve_from_a_candidate_and_end_it(gateway, steps):
    own = gateway.instance.server_port
    with instance() as candidate:
        said = steps("candidate", "drain", gateway_candidate_port=candidate.server_port, gateway_candidates=["cpu"])
        assert "does not serve from the candidate" not in said
        assert gateway.servers() == {"gw:cpu": "MAINT", "gw:cpu:candidate": "UP"}
        assert port_of(gateway.ask("/", login("alice"))) == candidate.server_port
        assert "changed=2 " in steps("ready")
        assert gateway.servers() == {"gw:cpu": "UP"}
        assert port_of(gateway.ask("/", login("alice"))) == own
        assert "changed=0 " in steps("ready", "no_candidates")


def test_what_a_play_said_outlives_that_haproxy_is_killed(gateway, steps):
    said = steps("drain")
    assert "could not save" not in said
    gateway.kill()
    assert gateway.servers() == {"gw:cpu": "MAINT"}
    steps("ready")
    gateway.kill()
    gateway.wait()
    assert gateway.servers() == {"gw:cpu": "UP"}


def test_an_instance_comes_back_while_haproxy_is_down(gateway, steps):
    gateway.runtime("disable server paint/gw:cpu")
    assert gateway.save() == 0
    gateway.stop()
    try:
        steps("ready")
    finally:
        gateway.start()
    gateway.wait()
    assert gateway.servers() == {"gw:cpu": "UP"}
    with page(gateway):
        assert gateway.ask("/", login("alice"))[0] == 200


def test_a_gateway_that_can_not_save_its_state_is_named(gateway, steps):
    said = steps("drain", __gateway_state="/nowhere/servers.state")
    assert "gw could not save which instances are out of service:" in said
    assert gateway.servers() == {"gw:cpu": "MAINT"}


@pytest.mark.parametrize("ends", ["drain", "no_candidates"])
def test_a_candidate_that_a_killed_play_left_is_out_after_the_next_play(gateway, steps, ends):
    """Whatever that one does with the instance; a request that the candidate has begun is waited for."""
    found = []
    with instance() as candidate:
        steps("candidate", "drain", gateway_candidate_port=candidate.server_port, gateway_candidates=["cpu"])
        asking = threading.Thread(target=lambda: found.append(gateway.ask("/", login("alice"), method="POST")))
        asking.start()

        def go_on():
            while "gw:cpu:candidate" in gateway.servers():
                time.sleep(0.1)
            time.sleep(2)
            candidate.go_on.set()

        going = threading.Thread(target=go_on)
        going.start()
        steps(ends)
        assert candidate.go_on.is_set()
        assert gateway.servers() == {"gw:cpu": "MAINT"}
        asking.join()
        going.join()
        assert found[0][::2] == (200, "computed")
    steps("ready")
    gateway.wait()


def test_a_gateway_that_can_not_use_the_candidate_is_named(steps):
    said = steps("candidate", gateway_candidate_port=free_port())
    assert "gw does not serve from the candidate of cpu: its health check found: Layer4 connection problem" in said
    assert "Its requests wait while cpu is switched (gateway_hold)." in said
