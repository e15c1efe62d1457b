# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ports that are free, taken, or taken by the instance that wants them: real sockets, a stand-in for the engine."""

import errno
import socket
from contextlib import closing

import pytest
from ansible_collections.iopaint.fleet.plugins.modules import port_check

TOP = "/opt/iopaint/instances"


@pytest.fixture
def listening():
    """Listens on an address and gives the port."""
    sockets = []

    def listen(address="127.0.0.1"):
        held = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
        sockets.append(held)
        held.bind((address, 0))
        held.listen()
        return held.getsockname()[1]

    yield listen
    for held in sockets:
        held.close()


def free_port(address="127.0.0.1"):
    """A port that nobody listens on."""
    with closing(socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)) as probe:
        probe.bind((address, 0))
        return probe.getsockname()[1]


@pytest.fixture
def run(run_module):
    def run(*wanted, **options):
        ports = [{"address": address, "port": port, "project": project} for address, port, project in wanted]
        return run_module(port_check, ports=ports, dir=TOP, **options)

    return run


@pytest.mark.parametrize("check", [False, True])
def test_free_ports_pass(run, engine, check):
    result = run(("127.0.0.1", free_port(), "iopaint-a"), ("0.0.0.0", free_port(), "iopaint-b"), check=check)
    assert (result["changed"], result["taken"]) == (False, [])


@pytest.mark.parametrize("port", [-1, 0, 65536, 10**30])
def test_a_port_that_is_none_is_named(run, engine, port):
    assert f"ports: port {port} is not from 1 to 65535" in run(("127.0.0.1", port, "a"), failed=True)["msg"]


@pytest.mark.parametrize("address", ["nonsense", "a:b", "127.0.0.1\0", "x" * 300])
def test_an_address_that_is_none_is_left_to_compose(run, engine, address):
    assert run((address, free_port(), "a"))["taken"] == []


def test_nothing_wanted_passes(run, engine):
    assert run()["taken"] == []


@pytest.mark.parametrize(
    ("held", "wanted", "check"),
    [("127.0.0.1", "127.0.0.1", False), ("127.0.0.1", "0.0.0.0", False), ("0.0.0.0", "127.0.0.1", True)],
)
def test_a_port_of_another_process_fails_and_names_it(run, engine, listening, held, wanted, check):
    port = listening(held)
    result = run((wanted, port, "iopaint-a"), ("127.0.0.1", free_port(), "iopaint-b"), failed=True, check=check)
    assert result["taken"] == [f"{wanted}:{port}"]
    message = result["msg"]
    assert message.startswith(f"Taken by another process: {wanted}:{port}. `ss -ltnp` on the host names it")
    assert message.endswith("choose another port in ports. Nothing that runs was touched.")


def test_the_container_that_holds_a_port_is_named(run, engine, listening):
    port, other = listening(), listening()
    engine.set(containers=[{"name": "web", "project": "shop", "port": port}])
    message = run(("127.0.0.1", port, "iopaint-a"), ("127.0.0.1", other, "iopaint-b"), failed=True)["msg"]
    assert message == (
        f"Taken by the container web: 127.0.0.1:{port}. Stop it (`docker stop web` on the host), or choose another port in "
        "ports. "
        f"Taken by another process: 127.0.0.1:{other}. `ss -ltnp` on the host names it; stop it, or choose another port in "
        "ports. Nothing that runs was touched."
    )


def test_every_taken_port_is_named(run, engine, listening):
    ports = [listening(), listening()]
    result = run(*(("127.0.0.1", port, f"iopaint-{port}") for port in ports), failed=True)
    assert result["taken"] == [f"127.0.0.1:{port}" for port in ports]


def test_ipv6_is_known(run, engine, listening):
    try:
        port = listening("::1")
    except OSError:
        pytest.skip("this machine has no IPv6")
    assert run(("::1", port, "iopaint-a"), failed=True)["taken"] == [f"[::1]:{port}"]
    assert run(("::1", free_port("::1"), "iopaint-a"))["taken"] == []


def test_the_port_of_an_instance_itself_passes(run, engine, listening):
    port = listening()
    engine.set(containers=[{"name": "web", "project": "iopaint-a", "port": port}])
    assert run(("127.0.0.1", port, "iopaint-a"))["taken"] == []


def test_the_port_of_another_project_or_of_no_container_fails(run, engine, listening):
    ports = [listening(), listening()]
    engine.set(containers=[{"name": "web", "project": "iopaint-b", "port": ports[0]}])
    result = run(*(("127.0.0.1", port, "iopaint-a") for port in ports), failed=True)
    assert len(result["taken"]) == 2


def test_a_port_that_was_just_closed_is_free(run, engine):
    """An earlier connection lingers in TIME_WAIT; the engine binds all the same."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        server.accept()[0].close()  # the side that closes first lingers
        client.close()
    assert run(("127.0.0.1", port, "iopaint-a"))["taken"] == []


ABSENT = "The host has no address 192.0.2.1, which ports[].address asks for. "


def test_an_address_that_the_host_lacks_fails_before_anything_is_stopped(run, engine):
    wanted = [("192.0.2.1", port, f"iopaint-{port}") for port in (8080, 8081)]
    result = run(*wanted, failed=True)
    assert (result["absent"], result["taken"]) == (["192.0.2.1"], [])
    assert result["msg"].startswith(ABSENT)
    assert result["msg"].endswith("Nothing that runs was touched.")


def test_ipv6_on_a_host_without_it_is_an_address_that_it_lacks(run, engine, monkeypatch):
    def refused(*arguments):
        raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")

    monkeypatch.setattr(port_check.socket, "socket", refused)
    assert run(("::1", 8080, "iopaint-a"), failed=True)["absent"] == ["::1"]


@pytest.mark.parametrize("state", ["down", "absent"])
def test_before_there_is_an_engine_an_address_may_be_docker_s_own(run, state, request):
    """As 172.17.0.1 is, of the network that the engine makes at its first start."""
    request.getfixturevalue("no_programs" if state == "absent" else "engine")
    if state == "down":
        request.getfixturevalue("engine").set(down=True)
    assert run(("192.0.2.1", 8080, "iopaint-a"))["absent"] == []


def test_the_port_of_another_instance_of_ours_passes(run, engine, listening):
    """The switch stops that instance. A project of the same name in another folder is somebody else's."""
    port = listening()
    engine.set(containers=[{"name": "x", "project": "iopaint-old", "port": port, "folder": f"{TOP}/old/current"}])
    assert run(("127.0.0.1", port, "iopaint-new"))["taken"] == []
    engine.set(containers=[{"name": "x", "project": "iopaint-old", "port": port, "folder": "/home/ann/old"}])
    assert run(("127.0.0.1", port, "iopaint-new"), failed=True)["msg"].startswith("Taken by the container x:")


def test_a_process_next_to_the_instance_s_own_port_fails(run, engine, listening):
    """The instance is to serve on all addresses, and something else has its port on one of them."""
    port = listening("127.0.0.1")
    with socket.create_server(("127.0.0.2", port)):
        engine.set(containers=[{"name": "web", "project": "iopaint-a", "port": port}])
        message = run(("0.0.0.0", port, "iopaint-a"), failed=True)["msg"]
        assert message.startswith(f"Taken by another process: 0.0.0.0:{port}.")
    assert run(("0.0.0.0", port, "iopaint-a"))["taken"] == []


@pytest.mark.parametrize("state", ["down", "absent"])
def test_without_an_engine_a_taken_port_fails(run, listening, state, request):
    request.getfixturevalue("no_programs" if state == "absent" else "engine")
    if state == "down":
        request.getfixturevalue("engine").set(down=True)
    port = listening()
    assert run(("127.0.0.1", port, "iopaint-a"), failed=True)["taken"] == [f"127.0.0.1:{port}"]
