"""Refs of a repository that changes, a checkout that somebody harms, and servers that are not to be had."""

import json

import pytest
from play import deployed, play

REPOSITORY = "/srv/git/refs.git"
URL = "git://127.0.0.1/refs.git"
CHECKOUT = "/opt/iopaint/image/git"
INSTANCE = {"name": "cpu", "variant": "cpu", "port": 8080, "model": "cv2"}


@pytest.fixture(scope="module")
def git(request):
    """Runs git in a copy of the repository: git(command) gives what it prints."""
    host = request.getfixturevalue("host")
    host.check_output(f"rm -rf {REPOSITORY} && git -c safe.directory='*' clone -q --mirror /srv/git/iopaint.git {REPOSITORY}")
    yield lambda command: host.check_output(f"git -C {REPOSITORY} {command}")
    host.check_output(f"rm -rf {REPOSITORY}")


@pytest.fixture(scope="module")
def commits(git):
    """The commits of the two versions."""
    return [git(f"rev-parse {tag}^{{commit}}") for tag in ("v1.6.0", "v1.6.1-test")]


@pytest.fixture
def fetch(host):
    """Runs the module source_git on the host: fetch(repo, ref) gives its result."""

    def call(repo, ref, **options):
        arguments = {"repo": repo, "dest": "/root/refs/git", "ref": ref, **options}
        return host.ansible("iopaint.fleet.source_git", json.dumps(arguments), check=False)

    yield call
    host.check_output("rm -rf /root/refs")


def build(ref, **variables):
    return play("playbooks/build.yml", iopaint_image_git_url=URL, iopaint_image_ref=ref, **variables)


def test_a_branch_is_what_the_repository_has_now(host, git, commits):
    for commit, ref in zip(commits, ("moving", "refs/heads/moving")):
        git(f"update-ref refs/heads/moving {commit}")
        run = build(ref)
        assert run.rc == 0, run.output
        assert run.says(f"iopaint_image_ref {ref} is refs/heads/moving, commit {commit} of {URL}"), run.output
        assert run.output.index(commit) < run.output.index("Build the images]"), run.output
        image = host.check_output(f"docker image inspect --format '{{{{.RepoTags}}}}' iopaint:cpu-{ref.replace('/', '-')}")
        assert f"iopaint:cpu-{commit[:12]}-" in image
    git("update-ref -d refs/heads/moving")
    before = deployed(host)
    run = build("moving")
    assert run.rc == 2, run.output
    assert run.says("the repository has no such branch, tag or other ref", "was deleted there"), run.output
    assert deployed(host) == before


def test_a_name_of_two_refs_is_refused(git, commits):
    git(f"update-ref refs/heads/twice {commits[0]}")
    git(f"update-ref refs/tags/twice {commits[1]}")
    run = build("twice")
    assert run.rc == 2, run.output
    assert run.says("Set iopaint_image_ref to one of refs/heads/twice, refs/tags/twice."), run.output


def test_a_harmed_checkout_is_in_nobodys_way(host, git, commits):
    git(f"update-ref refs/heads/df {commits[0]}")
    assert build("df").rc == 0
    git("update-ref -d refs/heads/df")
    git(f"update-ref refs/heads/df/x {commits[1]}")
    host.check_output(f"touch {CHECKOUT}/.git/index.lock {CHECKOUT}/.git/shallow.lock {CHECKOUT}/iopaint/strange.py")
    run = build("df/x")
    assert run.rc == 0, run.output
    assert "was replaced" not in run.output
    assert host.check_output(f"git -C {CHECKOUT} status --porcelain --ignored") == ""

    host.check_output(f"chown -R nobody {CHECKOUT}")
    run = build("df/x")
    assert run.rc == 0, run.output
    assert run.says(f"The checkout {CHECKOUT} was replaced by a fresh one: {CHECKOUT} belongs to user 65534."), run.output
    assert host.file(CHECKOUT).user == "root"
    again = build("df/x")
    assert (again.rc, again.changed("iopaint-default")) == (0, 0), again.output


def test_what_is_there_needs_nobody(host, commits):
    """The host has no way out, its servers are stopped and its base image was pruned; a port is changed."""
    url = {"iopaint_image_git_url": URL, "iopaint_image_ref": commits[1]}
    run = play("deploy.yml", **url)
    assert run.rc == 0, run.output
    route = host.check_output("ip route show default")
    base = host.check_output(
        "docker image inspect --format '{{index .Config.Labels \"io.iopaint.fleet.base\"}}' iopaint:cpu-latest"
    )
    base = base.partition("@sha256:")[0]
    host.check_output(f"docker tag {base} kept:base && docker image rm {base}")
    host.check_output("systemctl stop fixture-git fixture-www && ip route del default")
    try:
        run = play("deploy.yml", **url, iopaint_instances=[{**INSTANCE, "port": 8090}])
        assert run.rc == 0, run.output
        assert run.says("there already, not asked", " was there ", "http://127.0.0.1:8090 inpaints with cv2"), run.output
        assert "127.0.0.1:8090" in host.check_output("ss -H -ltn")
        unreachable = play("playbooks/build.yml", **{**url, "iopaint_image_ref": "main"})
        assert unreachable.rc == 2, unreachable.output
        assert unreachable.says("the host does not reach the server"), unreachable.output
    finally:
        host.check_output(f"systemctl start fixture-git fixture-www && ip route add {route}")
        host.check_output(f"docker tag kept:base {base} && docker image rm kept:base")


def test_a_repository_over_ssh(host, git, commits, fetch):
    host.check_output(
        "apt-get install -y --no-install-recommends openssh-server && systemctl start ssh"
        " && rm -rf /root/.ssh && mkdir -m 0700 /root/.ssh && ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519"
    )
    url = f"ssh://root@127.0.0.1{REPOSITORY}"
    key = host.check_output("cat /etc/ssh/ssh_host_ed25519_key.pub").split()
    known = f"127.0.0.1 {key[0]} {key[1]}\n"
    other = f"127.0.0.1 {host.check_output('cat /root/.ssh/id_ed25519.pub')}\n"
    refusals = [
        ({}, "the server's host key is unknown. Set known_hosts (`ssh-keyscan 127.0.0.1` prints it"),
        ({"known_hosts": other}, "the server shows another host key than the known one"),
        ({"known_hosts": known}, "the server accepts no ssh key of root on the host"),
    ]
    for options, cause in refusals:
        result = fetch(url, "main", **options)
        assert cause in result["msg"]
        assert not host.file("/root/.ssh/known_hosts").exists
    host.check_output("cp /root/.ssh/id_ed25519.pub /root/.ssh/authorized_keys")
    # Debian's sshd passes no protocol version on: a commit that is no tip is refused there, and found in the history.
    for ref in ("v1.6.1-test", commits[0], commits[1]):
        assert fetch(url, ref, known_hosts=known).get("commit") in commits
    run = play("playbooks/build.yml", iopaint_image_git_url=url, iopaint_image_ref="main", iopaint_image_git_known_hosts=known)
    assert run.rc == 0, run.output
    host.check_output("systemctl stop ssh.socket ssh && rm -rf /root/.ssh")


def test_files_of_git_lfs(host, fetch):
    """They are told as missing, and fetched once git-lfs is there."""
    host.check_output("apt-get purge -y git-lfs")
    host.check_output(
        "rm -rf /root/lfs /root/lfs.git && git init -q --bare /root/lfs.git && git init -q -b main /root/lfs && cd /root/lfs"
        " && mkdir -p iopaint web_app/dist && echo x > iopaint/cli.py && echo x > web_app/dist/index.html"
        " && head -c 5000 /dev/zero > iopaint/photo.png && echo '*.png filter=lfs diff=lfs merge=lfs -text' > .gitattributes"
    )
    commit = "cd /root/lfs && git add -A && git -c user.name=t -c user.email=t@example.com commit -qm lfs"
    push = "cd /root/lfs && git remote add origin file:///root/lfs.git && git push -q origin main"
    # The pointer that git-lfs would write.
    total = host.check_output("sha256sum /root/lfs/iopaint/photo.png").split()[0]
    host.check_output(
        f"mv /root/lfs/iopaint/photo.png /root/photo.png && mkdir -p /root/lfs.git/lfs/objects/{total[:2]}/{total[2:4]}"
    )
    host.check_output(f"cp /root/photo.png /root/lfs.git/lfs/objects/{total[:2]}/{total[2:4]}/{total}")
    pointer = f"version https://git-lfs.github.com/spec/v1\\noid sha256:{total}\\nsize 5000\\n"
    host.check_output(f"printf '{pointer}' > /root/lfs/iopaint/photo.png")
    host.check_output(f"{commit} && {push}")

    url = "file:///root/lfs.git"
    assert fetch(url, "main")["changed"] is True
    missing = host.ansible("iopaint.fleet.source_info", "path=/root/refs/git", check=False)
    assert "in place of files: iopaint/photo.png. " in missing["msg"]
    host.check_output("apt-get install -y --no-install-recommends git-lfs")
    for changed in (True, False):
        assert fetch(url, "main")["changed"] is changed
        assert host.check_output("sha256sum /root/refs/git/iopaint/photo.png").split()[0] == total
    assert host.ansible("iopaint.fleet.source_info", "path=/root/refs/git", check=False)["frontend"] == "shipped"
    host.check_output("rm -rf /root/lfs /root/lfs.git /root/photo.png && apt-get purge -y git-lfs")
