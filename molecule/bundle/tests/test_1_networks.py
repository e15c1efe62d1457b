"""What the build of the bundle asked for, by which way, and that no password of these ways is left anywhere. Runs after test_1_bundle.py."""

import pytest

PASSWORD = "s3cret-"  # what all of them begin with
CODED = "Z2l0OnMzY3JldC10b2tlbg"  # git:s3cret-token in base64


def journal(host, unit):
    return host.check_output(f"journalctl --unit {unit} --no-pager --output cat")


def found(host, command):
    """Lines of a command's output that hold a password."""
    done = host.run(f"set -o pipefail; ({command}) | grep -aoE '.{{0,80}}({PASSWORD}|{CODED}).{{0,20}}' | head -n 5")
    assert done.rc == 1, (done.stdout, done.stderr)  # 1: grep has read it all and found none
    return done.stdout


def test_debian_packages_came_by_the_mirror_and_the_proxy(builder):
    assert 'GET /debian/dists/bookworm/InRelease HTTP/1.1" 302' in journal(builder, "private-site")
    assert "/pool/main/p/python3" in journal(builder, "forward-proxy")


def test_python_packages_came_by_the_index_and_the_proxy_s_tunnel(builder):
    site = journal(builder, "private-site")
    assert 'GET /index/diffusers/ HTTP/1.1" 302' in site
    assert 'GET /extra/diffusers/ HTTP/1.1" 404' in site
    assert '"CONNECT ' in journal(builder, "forward-proxy")


def test_the_source_came_with_the_token(builder):
    site = journal(builder, "private-site")
    assert 'GET /git/iopaint.git/info/refs?service=git-upload-pack HTTP/1.1" 200' in site
    assert builder.check_output("git -c safe.directory=* -C /opt/iopaint/image/git config remote.origin.url") == (
        "http://10.99.0.1:8001/git/iopaint.git"
    )


@pytest.mark.parametrize(
    "command",
    [
        "docker history --no-trunc iopaint:cpu-latest; docker history --no-trunc iopaint-base:bookworm",
        "docker image inspect $(docker images -q)",
        "docker save iopaint:cpu-latest iopaint-base:bookworm",
        "cat /opt/iopaint/image/cpu.log",
        "tar -C / -c opt/iopaint tmp run/iopaint* root/.ansible* root/.docker* home var/tmp etc/gitconfig root/.gitconfig",
        "journalctl --no-pager --identifier ansible-ansible.builtin.git --identifier ansible-iopaint.fleet.image_build; journalctl --no-pager -u docker",
        "cat /root/process-list",
    ],
)
def test_no_password_is_left(builder, command):
    found(builder, command)


def test_the_search_finds_what_is_there(builder):
    done = builder.run("cat /etc/systemd/system/private-site.service | grep -c s3cret-")
    assert done.stdout.strip() == "1"
    assert "mmdebstrap" in builder.check_output("tr '\\0' ' ' </root/process-list | grep -ao mmdebstrap | head -n 1")


def test_ansible_says_no_password(said):
    (output,) = said
    assert "iopaint_image" in output
    hits = [line for line in output.splitlines() if PASSWORD in line or CODED in line]
    assert not hits, hits[:5]
