"""By which ways the build of the bundle (test_1_bundle.py) had what it is made of, and that no password of these is left."""

import pytest

PASSWORD = "s3cret-"  # what all of them begin with
CODED = ("Z2l0OnMzY3JldC10b2tlbg", "cm9ib3Q6czNjcmV0L")  # in base64: git:s3cret-token, robot:s3cret-


def journal(host, unit):
    return host.check_output(f"journalctl --unit {unit} --no-pager --output cat")


def held(host, command):
    """Gives what a command's output holds of a password, with what stands around it; the command has to work."""
    # in brackets, so that the search is not what it finds in the process list
    words = "|".join(f"{word[:-1]}[{word[-1]}]" for word in (PASSWORD, *CODED))
    search = f"grep -aoE '.{{0,80}}({words}).{{0,20}}'"
    done = host.run(
        "bash -c %s", f"set -o pipefail; {{ {command}; }} > /root/searched && test -s /root/searched && ! {search} /root/searched"
    )
    return done.stdout if done.rc == 0 or done.stdout else f"{command} ended with {done.rc}: {done.stderr}"


def test_debian_packages_came_by_the_mirror_and_the_proxy(builder):
    assert 'GET /debian/dists/bookworm/InRelease HTTP/1.1" 302' in journal(builder, "private-site")
    assert "/pool/main/p/python3" in journal(builder, "forward-proxy")


def test_python_packages_came_by_the_index_and_the_proxy_s_tunnel(builder):
    site = journal(builder, "private-site")
    assert 'GET /index/diffusers/ HTTP/1.1" 302' in site
    assert 'GET /extra/diffusers/ HTTP/1.1" 404' in site
    assert '"CONNECT ' in journal(builder, "forward-proxy")


def test_the_front_end_s_packages_came_by_the_npm_registry(builder):
    site = journal(builder, "private-npm")
    assert 'GET /vite HTTP/1.1" 302' in site
    assert "GET /vite/-/vite-" in site


def test_the_source_came_with_the_token(builder):
    site = journal(builder, "private-site")
    assert 'GET /git/iopaint.git/info/refs?service=git-upload-pack HTTP/1.1" 200' in site
    assert builder.check_output("git -c safe.directory=* -C /opt/iopaint/image/git config remote.origin.url") == (
        "http://10.99.0.1:8001/git/iopaint.git"
    )


@pytest.mark.parametrize(
    "command",
    [
        "docker history --no-trunc iopaint:cpu-latest && docker history --no-trunc iopaint-base:bookworm",
        "docker image inspect $(docker images -q)",
        "docker save iopaint:cpu-latest iopaint-base:bookworm",
        "cat /opt/iopaint/image/cpu.log",
        "tar -c /opt/iopaint /tmp /var/tmp /home $(find /root -mindepth 1 -maxdepth 1 -name '.*')",
        "tar -c /var/lib/docker/buildkit",  # what the builder remembers of each build
        "journalctl --no-pager",
        "cat /root/process-list",
    ],
)
def test_no_password_is_left(builder, command):
    assert held(builder, command) == ""


def test_the_search_finds_what_is_there(builder):
    assert "s3cret-proxy" in held(builder, "cat /etc/systemd/system/forward-proxy.service")
    assert "ended with" in held(builder, "cat /nowhere")
    assert builder.run("grep -aq mmdebstrap /root/process-list").rc == 0


def test_ansible_says_no_password(said):
    (output,) = said
    assert "iopaint_image" in output
    hits = [line for line in output.splitlines() if any(word in line for word in (PASSWORD, *CODED))]
    assert not hits, hits[:5]
