"""The test bed is such a site: without these, the tests that follow would show nothing."""

import socket

import pytest
from conftest import CONTAINER, NAME, as_root, ssh


def test_the_hosts_name_is_known_behind_the_bastion_only():
    with pytest.raises(socket.gaierror):
        socket.getaddrinfo(NAME, 22)
    code, output = ssh("-o", "ProxyJump=none", f"deploy@{NAME}", "true")
    assert code == 255
    assert f"Could not resolve hostname {NAME}" in output


def test_the_bastion_passes_connections_on_and_runs_nothing():
    assert ssh("-J", "bastion", f"deploy@{NAME}", "id", "-un") == (0, "deploy\n")
    code, output = ssh("bastion", "id")
    assert code != 0
    assert "uid=" not in output


@pytest.mark.parametrize("options", [["-J", "bastion", f"root@{NAME}"], ["root@bastion"]])
def test_root_is_refused(options):
    code, output = ssh(*options, "true")
    assert code == 255
    assert "Permission denied" in output


def test_an_unknown_host_key_is_refused(tmp_path):
    """The bastion's key is known by the operator's file; the host's is not in this one."""
    code, output = ssh("-o", f"UserKnownHostsFile={tmp_path}/none", "-J", "bastion", f"deploy@{NAME}", "true")
    assert code == 255
    assert "Host key verification failed" in output


def test_sudo_wants_a_password():
    code, output = ssh("-J", "bastion", f"deploy@{NAME}", "sudo", "-n", "true")
    assert code == 1
    assert "a password is required" in output


def test_modules_run_with_the_sites_umask():
    assert "0027" in as_root("umask").split()


def test_modules_run_in_the_sites_virtual_environment(host):
    if not host.file("/opt/ansible").exists:
        pytest.skip("site_venv is off")
    assert "/opt/ansible/bin/python" in as_root("tr '\\0' ' ' < /proc/$PPID/cmdline")
    assert host.run("/opt/ansible/bin/python -c 'import PIL'").rc == 1
    assert host.run("/usr/bin/python3 -c 'import PIL'").rc == 0  # the collection has installed it


def test_logins_have_the_sites_umask_and_proxies():
    code, output = ssh("-J", "bastion", f"deploy@{NAME}", "umask; env")
    assert code == 0
    assert {"0027", "https_proxy=http://127.0.0.1:9"} <= set(output.split())


def test_nobody_answers_for_the_proxy(host):
    assert host.run("curl -sS -m 5 --proxy http://127.0.0.1:9 http://iopaint.invalid/").rc == 7  # could not connect


@pytest.mark.parametrize("user", ["root", "deploy"])
def test_docker_gives_the_proxies_to_containers(host, user):
    """Of either user's own settings, as `docker run` by hand shows."""
    image = host.check_output(f"docker inspect --format '{{{{.Image}}}}' {CONTAINER}")
    settings = host.user(user).home + "/.docker"
    said = host.check_output(f"docker --config {settings} run --rm --network none --entrypoint env {image}")
    assert "HTTPS_PROXY=http://127.0.0.1:9" in said
