# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a ref is, and that a checkout has exactly that. The repositories are real, and so are the servers where they count."""

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from ansible_collections.iopaint.fleet.plugins.module_utils.git_output import OPTIONS, explain, is_explained
from ansible_collections.iopaint.fleet.plugins.modules import source_git

ELSEWHERE = "0123456789" * 4


@pytest.fixture(autouse=True)
def settings(tmp_path, monkeypatch):
    """Git's own settings are the tests', and secrets lie in a folder of theirs."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    config = tmp_path / "gitconfig"
    config.write_text(
        '[user]\nname = t\nemail = t@example.com\n[init]\ndefaultBranch = main\n[protocol "file"]\nallow = always\n'
    )
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    (tmp_path / "run").mkdir()
    monkeypatch.setattr(source_git, "MEMORY", str(tmp_path / "run"))
    return config


class Repository:
    """A repository that a test writes to."""

    def __init__(self, path):
        self.path = path
        path.mkdir()
        self.git("init", "-q")
        self.first = self.commit("first")

    def git(self, *arguments):
        done = subprocess.run(["git", *arguments], cwd=self.path, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def commit(self, text, name="iopaint/cli.py"):
        """Commit a file with this text; return the commit."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
        self.git("add", "-A")
        self.git("commit", "-q", "-m", text)
        return self.git("rev-parse", "HEAD")

    def commit_for_a_pull_request(self, number):
        """Return a commit that one ref reaches, which is neither branch nor tag."""
        self.git("checkout", "-q", "--detach")
        commit = self.commit(f"pull request {number}")
        self.git("update-ref", f"refs/pull/{number}/head", commit)
        self.git("checkout", "-q", "main")
        return commit


@pytest.fixture
def repository(tmp_path):
    return Repository(tmp_path / "repository")


@pytest.fixture
def dest(tmp_path):
    return tmp_path / "host" / "git"


@pytest.fixture
def run(run_module, repository, dest):
    def run(ref="main", repo=None, **options):
        return run_module(source_git, repo=repo or f"file://{repository.path}", dest=str(dest), ref=ref, **options)

    return run


@pytest.fixture
def text(dest):
    return lambda: (dest / "iopaint/cli.py").read_text().strip()


def replacements(result):
    """What a result says of a checkout that was replaced."""
    return [text for text in map(str, result.get("warnings", [])) if "was replaced" in text]


def unreachable(repository):
    """Take the repository away."""
    repository.path.rename(repository.path.with_name("away"))


# What a ref is.


def test_a_branch_a_tag_and_a_commit(run, repository, text, dest):
    repository.git("tag", "-a", "-m", "x", "v1")
    second = repository.commit("second")
    result = run("main")
    assert (result["commit"], result["name"], result["before"]) == (second, "refs/heads/main", "")
    assert text() == "second"
    result = run("v1")
    assert (result["commit"], result["name"], result["before"]) == (repository.first, "refs/tags/v1", second)
    assert text() == "first"
    assert run(second)["name"] == ""
    assert text() == "second"
    assert run("HEAD")["commit"] == second
    assert os.listdir(dest.parent) == ["git"]


@pytest.mark.parametrize("ref", ["main", "refs/heads/main", "heads/main", "HEAD"])
def test_a_branch_that_moved_is_followed(run, repository, text, ref):
    run(ref)
    second = repository.commit("second")
    result = run(ref)
    assert (result["commit"], result["changed"], text()) == (second, True, "second")
    assert run(ref)["changed"] is False


@pytest.mark.parametrize("ref", ["topic", "refs/heads/topic", "heads/topic"])
def test_a_branch_that_was_deleted_fails(run, repository, dest, ref):
    repository.git("branch", "topic")
    run(ref)
    repository.git("branch", "-D", "topic")
    repository.git("branch", "topics")
    message = run(ref, failed=True)["msg"]
    assert f"ref {ref} of repo file://" in message
    assert "no such branch, tag or other ref" in message
    assert "was deleted there" in message
    assert "Nothing that runs was touched." in message
    assert (dest / "iopaint/cli.py").exists()
    if ref == "topic":
        assert "(nearest: topics)" in message


def test_a_branch_gives_way_to_one_below_its_name(run, repository, text):
    repository.git("branch", "df")
    run("df")
    repository.git("branch", "-D", "df")
    repository.git("checkout", "-q", "-b", "df/x")
    repository.commit("below")
    run("df/x")
    assert text() == "below"


def test_a_pull_request(run, repository, text):
    commit = repository.commit_for_a_pull_request(638)
    for ref in ("refs/pull/638/head", "pull/638/head", commit):
        run("main")
        assert run(ref)["commit"] == commit
        assert text() == "pull request 638"


def test_a_branch_and_a_tag_of_one_name_are_refused(run, repository):
    repository.git("tag", "same")
    repository.commit("second")
    repository.git("branch", "same")
    message = run("same", failed=True)["msg"]
    assert "Set ref to one of refs/heads/same, refs/tags/same." in message
    assert run("refs/tags/same")["commit"] == repository.first
    assert run("refs/heads/same")["commit"] != repository.first


def test_a_shortened_commit(run, repository, text):
    repository.commit("second")
    assert run(repository.first[:7])["commit"] == repository.first
    assert text() == "first"
    again = run(repository.first[:10])
    assert (again["changed"], again["asked"]) == (False, True)
    message = run("0123abc", failed=True)["msg"]
    assert "not the beginning of exactly one commit" in message


def test_a_branch_wins_over_a_commit_that_begins_like_it(run, repository):
    name = repository.first[:8]
    second = repository.commit("second")
    repository.git("branch", name)
    assert run(name)["commit"] == second


def test_a_commit_that_is_not_there(run):
    assert "the repository has no such commit" in run(ELSEWHERE, failed=True)["msg"]


def test_a_tag_of_no_commit(run, repository):
    repository.git("tag", "file", repository.git("rev-parse", "HEAD:iopaint/cli.py"))
    run()
    assert "refs/tags/file is no commit" in run("file", failed=True)["msg"]


@pytest.mark.parametrize("ref", ["--upload-pack=touch /tmp/x", "-main", "a b", "ma*", "../main", "", "main^{}", "refs/heads/"])
def test_what_is_no_name_is_no_ref(run, ref):
    assert "no such branch, tag or other ref" in run(ref, failed=True)["msg"]


# What is there needs nobody.


def test_a_full_commit_that_is_there_asks_nobody(run, repository):
    run(repository.first)
    unreachable(repository)
    result = run(repository.first.upper())
    assert (result["changed"], result["asked"], result["commit"]) == (False, False, repository.first)


def test_an_earlier_commit_is_still_there(run, repository, text):
    run(repository.first)
    run(repository.commit("second"))
    unreachable(repository)
    result = run(repository.first)
    assert (result["changed"], result["asked"], text()) == (True, False, "first")


def test_a_branch_that_has_not_moved_is_only_asked_for(run, repository, tmp_path):
    run()
    (repository.path / ".git/objects").rename(tmp_path / "objects")  # nothing can be fetched
    (repository.path / ".git/objects").mkdir()
    commit = (repository.path / ".git/refs/heads/main").read_text().strip()
    served = tmp_path / "served"
    served.mkdir()
    (served / "HEAD").write_text("ref: refs/heads/main\n")
    (served / "info").mkdir()
    (served / "info/refs").write_text(f"{commit}\trefs/heads/main\n")
    with serving(SimpleHTTPRequestHandler, tmp_path) as address:
        result = run(repo=f"{address}/served")
    assert (result["changed"], result["asked"]) == (False, True)


def test_check_mode_says_the_commit_and_changes_nothing(run, repository, text, dest):
    result = run(check=True)
    assert (result["changed"], result["commit"]) == (True, repository.first)
    assert not dest.exists()
    run()
    second = repository.commit("second")
    before = sorted(path.stat().st_mtime_ns for path in dest.rglob("*"))
    assert run(check=True)["commit"] == second
    assert sorted(path.stat().st_mtime_ns for path in dest.rglob("*")) == before
    run()
    assert run(check=True)["changed"] is False


# A checkout that heals itself.


def edit(dest):
    (dest / "iopaint/cli.py").write_text("edited\n")


def edit_in_secret(dest):
    subprocess.run(["git", "-C", dest, "update-index", "--assume-unchanged", "iopaint/cli.py"], check=True)
    edit(dest)


def remove(dest):
    (dest / "iopaint/cli.py").unlink()


def make_executable(dest):
    (dest / "iopaint/cli.py").chmod(0o755)


def add(dest):
    (dest / "iopaint/new.py").touch()


def add_ignored(dest):
    (dest / ".git/info/exclude").write_text("*.pyc\n")
    (dest / "iopaint/cli.pyc").touch()


def add_repository(dest):
    (dest / "iopaint/inner").mkdir()
    subprocess.run(["git", "init", "-q", dest / "iopaint/inner"], check=True)
    (dest / "iopaint/inner/x").touch()


def put_a_folder_in_the_way(dest):
    remove(dest)
    (dest / "iopaint/cli.py").mkdir()
    (dest / "iopaint/cli.py/x").touch()


def lock(dest):
    for name in ("index.lock", "shallow.lock", "HEAD.lock", "config.lock"):
        (dest / ".git" / name).touch()


def damage_index(dest):
    (dest / ".git/index").write_bytes(b"damaged")


@pytest.mark.parametrize(
    "harm",
    [edit, edit_in_secret, remove, make_executable, add, add_ignored, add_repository, put_a_folder_in_the_way],
    ids=lambda f: f.__name__,
)
def test_what_does_not_belong_to_the_commit_goes(run, repository, dest, text, harm):
    run(repository.first)
    harm(dest)
    unreachable(repository)
    assert run(repository.first)["changed"] is True
    assert text() == "first"
    assert not os.access(dest / "iopaint/cli.py", os.X_OK)
    assert os.listdir(dest / "iopaint") == ["cli.py"]
    assert run(repository.first)["changed"] is False


@pytest.mark.parametrize("harm", [lock, damage_index], ids=lambda f: f.__name__)
def test_what_a_killed_git_leaves_is_in_nobodys_way(run, repository, dest, text, harm):
    run()
    harm(dest)
    result = run(repository.commit("second"))
    assert text() == "second"
    assert not replacements(result)


def lose_head(dest):
    (dest / ".git/HEAD").write_text("")


def lose_objects(dest):
    shutil.rmtree(dest / ".git/objects")


def lose_files(dest):
    for path in (dest / ".git/objects").rglob("*"):
        if path.is_file():
            path.chmod(0o644)
            path.write_bytes(b"")


def half_made(dest):
    shutil.rmtree(dest / ".git")
    subprocess.run(["git", "init", "-q", dest], check=True)


def no_repository(dest):
    shutil.rmtree(dest / ".git")


def no_folder(dest):
    shutil.rmtree(dest)
    dest.write_text("")


def repository_elsewhere(dest):
    (dest / ".git").rename(dest.with_name("real"))
    (dest / ".git").write_text(f"gitdir: {dest.with_name('real')}\n")


@pytest.mark.parametrize(
    "harm",
    [lose_head, lose_objects, lose_files, half_made, no_repository, no_folder, repository_elsewhere],
    ids=lambda f: f.__name__,
)
@pytest.mark.parametrize("ref", ["main", "commit"])
def test_a_broken_checkout_is_replaced(run, repository, dest, text, harm, ref):
    ref = {"main": "main", "commit": repository.first}[ref]
    run(ref)
    harm(dest)
    (warning,) = replacements(run(ref))
    assert f"The checkout {dest} was replaced by a fresh one: " in warning
    assert text() == "first"
    assert [name for name in os.listdir(dest.parent) if name != "real"] == ["git"]
    assert run(ref)["changed"] is False


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("name", ["", ".git"])
def test_a_checkout_of_another_user_is_replaced_and_not_run(run, repository, dest, tmp_path, name):
    run()
    ran = tmp_path / "ran"
    (dest / ".git/config").write_text(f"[core]\nfsmonitor = touch {ran}\nsshCommand = touch {ran}\n")
    os.chown(dest / name, 65534, 65534)
    (warning,) = replacements(run(repository.commit("second")))
    assert f"{dest / name} belongs to user 65534" in warning
    assert not ran.exists()
    assert dest.stat().st_uid == (dest / ".git").stat().st_uid == 0


def test_a_broken_checkout_stays_until_a_fresh_one_is_there(run, repository, dest):
    run()
    lose_head(dest)
    unreachable(repository)
    assert "the server has no such repository" in run(failed=True)["msg"]
    assert (dest / "iopaint/cli.py").exists()
    assert os.listdir(dest.parent) == ["git"]


def test_what_a_killed_run_has_left_beside_goes(run, dest):
    for name in ("git.new", "git.old"):
        (dest.with_name(name) / ".git").mkdir(parents=True)
    (dest.with_name("git.new") / ".git/HEAD").write_text("x")
    run()
    lose_head(dest)
    run()
    assert os.listdir(dest.parent) == ["git"]


def test_a_checkout_of_the_module_of_ansible_is_taken_over(run, repository, dest, text):
    """It has branches of its own, among them one that is in the way of another."""
    repository.git("branch", "df")
    subprocess.run(["git", "clone", "-q", repository.path, dest], check=True)
    repository.git("branch", "-D", "df")
    repository.git("branch", "df/x")
    second = repository.commit("second")
    assert run()["commit"] == second
    assert text() == "second"
    assert not replacements(run("df/x"))


def test_a_link_to_another_disk_stays(run, dest, tmp_path, text):
    (tmp_path / "disk").mkdir()
    dest.parent.mkdir()
    dest.symlink_to(tmp_path / "disk" / "git")
    run()
    lose_head(dest)
    run()
    assert dest.is_symlink()
    assert text() == "first"


def test_the_umask_and_the_users_settings_have_no_say(run, repository, dest, settings):
    (repository.path / ".gitattributes").write_text("*.txt text eol=crlf\n*.py ident\n")
    (repository.path / "iopaint").mkdir(exist_ok=True)
    (repository.path / "iopaint/a.txt").write_bytes(b"a\r\n")
    (repository.path / "iopaint/b.md").write_bytes(b"b\n")
    repository.commit("$Id$")
    blobs = {name: repository.git("rev-parse", f"HEAD:iopaint/{name}") for name in ("a.txt", "b.md", "cli.py")}
    settings.write_text(settings.read_text() + "[core]\nautocrlf = true\nfileMode = false\n[submodule]\nrecurse = true\n")
    umask = os.umask(0o077)
    try:
        run()
        assert run()["changed"] is False
    finally:
        os.umask(umask)
    for name, blob in blobs.items():
        assert (
            subprocess.run(
                ["git", "hash-object", "--no-filters", dest / "iopaint" / name], capture_output=True, text=True, check=True
            ).stdout.strip()
            == blob
        )
        assert (dest / "iopaint" / name).stat().st_mode & 0o777 == 0o644


# Submodules and Git LFS.


@pytest.fixture
def library(tmp_path):
    return Repository(tmp_path / "library")


def test_a_submodule_that_no_image_needs_is_left(run, repository, library, dest):
    repository.git("-c", "protocol.file.allow=always", "submodule", "add", "-q", str(library.path), "docs/theme")
    repository.commit("with a submodule")
    unreachable(library)
    run()
    assert os.listdir(dest / "docs/theme") == []
    assert run()["changed"] is False


def test_a_submodule_of_the_sources_is_fetched_at_its_commit(run, repository, library, dest):
    repository.git("-c", "protocol.file.allow=always", "submodule", "add", "-q", str(library.path), "iopaint/library")
    with_first = repository.commit("with a submodule")
    library.commit("second")
    run()
    assert (dest / "iopaint/library/iopaint/cli.py").read_text() == "first\n"
    assert run()["changed"] is False

    (dest / "iopaint/library/iopaint/cli.py").write_text("edited\n")
    unreachable(library)
    assert run(with_first)["changed"] is True
    assert (dest / "iopaint/library/iopaint/cli.py").read_text() == "first\n"
    assert run(with_first)["changed"] is False


def test_a_submodule_of_the_sources_that_is_gone_fails(run, repository, library, dest):
    repository.git("-c", "protocol.file.allow=always", "submodule", "add", "-q", str(library.path), "iopaint/library")
    repository.commit("with a submodule")
    unreachable(library)
    message = run(failed=True)["msg"]
    assert "iopaint/library" in message
    assert not dest.exists()


LFS = """
import sys
text = sys.stdin.read()
if sys.argv[1] == "smudge":
    text = "the photograph"
elif sys.argv[1] == "clean":
    text = "version https://git-lfs.github.com/spec/v1\\noid sha256:0\\nsize 14\\n"
sys.stdout.write(text)
"""


def test_files_of_git_lfs_are_fetched_once_it_is_installed(run, repository, dest, tmp_path, settings, monkeypatch):
    (repository.path / ".gitattributes").write_text("*.png filter=lfs\n")
    repository.commit("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 14", "iopaint/photo.png")
    run()
    assert (dest / "iopaint/photo.png").read_text().startswith("version")
    assert run()["changed"] is False  # the module source_info says what is missing

    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/git-lfs").write_text(f"#!{sys.executable} -IS\n{LFS}")
    (tmp_path / "bin/git-lfs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    settings.write_text(
        settings.read_text() + '[filter "lfs"]\nsmudge = git-lfs smudge\nclean = git-lfs clean\nrequired = true\n'
    )
    assert run()["changed"] is True
    assert (dest / "iopaint/photo.png").read_text() == "the photograph"
    assert run()["changed"] is False


# Servers.


class serving:  # noqa: N801 - reads as a verb
    """A web server for a folder while the block lasts; gives its address."""

    def __init__(self, handler, folder):
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder)))

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self.server.server_port}"

    def __exit__(self, *_error):
        self.server.shutdown()
        self.server.server_close()


class Plain(SimpleHTTPRequestHandler):
    """Files, for whoever has the token if one is set."""

    login = None
    seen = []  # noqa: RUF012 - the requests of the test's one server

    def do_GET(self):
        self.seen.append(self.path)
        if self.login and self.headers.get("Authorization") != self.login:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="site"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        super().do_GET()

    def log_message(self, *_words):
        pass


@pytest.fixture
def dumb(repository, tmp_path, monkeypatch):
    """A server that only serves files, as private_site.py of the scenarios does."""
    monkeypatch.setattr(Plain, "login", None)

    def publish():
        repository.git("update-server-info")

    publish()
    with serving(Plain, repository.path) as address:
        yield f"{address}/.git", publish


def test_a_server_of_files(run, repository, text, dumb):
    repo, publish = dumb
    assert run(repo=repo)["commit"] == repository.first
    second = repository.commit("second")
    publish()
    result = run(repo=repo)
    assert (result["commit"], text()) == (second, "second")
    assert not replacements(result)
    assert run(repository.first, repo=repo)["asked"] is False


def test_a_token_is_shown_to_its_site_alone_and_nowhere_else(run, repository, tmp_path, dumb, monkeypatch):
    repo, _publish = dumb
    monkeypatch.setattr(Plain, "login", "Basic Z2l0OnMzY3JldC10b2tlbg==")
    refused = run(repo=repo, failed=True)["msg"]
    assert "the server wants a login, or refuses the one that was given. Check user" in refused
    refused = run(repo=repo, token="wrong", failed=True)["msg"]
    assert "wants a login" in refused
    result = run(repo=repo, token="s3cret-token")
    assert "s3cret" not in str(result).replace(str({"token": ""}), "")
    found = subprocess.run(
        ["grep", "-rlE", "s3cret-token|Z2l0OnMzY3JldC10b2tlbg", tmp_path / "host", tmp_path / "run"],
        check=False,
        capture_output=True,
    )
    assert (found.returncode, found.stdout) == (1, b"")


def test_an_unfinished_runs_secrets_go_at_the_next_start(run, tmp_path, dest):
    left = tmp_path / "run" / ("iopaint-git" + str(dest).replace("/", "-"))
    left.mkdir()
    (left / "git.conf").write_text("secret")
    run()
    assert os.listdir(tmp_path / "run") == []


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


@pytest.fixture
def daemon(repository, tmp_path):
    """`git daemon`, with the settings that a test gives: daemon(name=value) gives the address."""
    running = []

    def start(**config):
        for name, value in config.items():
            repository.git("config", f"uploadpack.{name}", value)
        port = free_port()
        command = [
            "git",
            "daemon",
            "--listen=127.0.0.1",
            f"--port={port}",
            "--export-all",
            f"--base-path={tmp_path}",
            "--reuseaddr",
        ]
        running.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))
        for _try in range(100):
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        return f"git://127.0.0.1:{port}/repository"

    yield start
    for process in running:
        process.terminate()
        process.wait()


@pytest.mark.parametrize("version", ["0", "2"])
def test_a_commit_that_is_no_tip(run, repository, text, daemon, settings, version):
    """Servers of the older protocol refuse it; then everything that they show is fetched."""
    settings.write_text(settings.read_text() + f"[protocol]\nversion = {version}\n")
    repo = daemon()
    pulled = repository.commit_for_a_pull_request(1)
    second = repository.commit("second")
    for commit, words in ((second, "second"), (repository.first, "first"), (pulled, "pull request 1")):
        result = run(commit, repo=repo)
        assert (result["commit"], text()) == (commit, words)
        assert not replacements(result)
    assert run("refs/pull/1/head", repo=repo)["asked"] is True
    message = run(ELSEWHERE, repo=repo, failed=True)["msg"]
    assert "the repository has no such commit" in message


def test_an_annotated_tag_where_only_tips_are_handed_out(run, repository, text, daemon, settings):
    settings.write_text(settings.read_text() + "[protocol]\nversion = 0\n")
    repository.git("tag", "-a", "-m", "x", "v1")
    repository.commit("second")
    run("v1", repo=daemon())
    assert text() == "first"


@pytest.mark.parametrize(
    ("repo", "cause"),
    [
        ("git://127.0.0.1:1/x.git", "the host does not reach the server"),
        ("https://127.0.0.1:1/x.git", "the host does not reach the server"),
        ("https://nowhere.invalid/x.git", "the host can't resolve the server's name"),
        ("/nonexistent", "the server has no such repository"),
    ],
)
def test_a_repository_out_of_reach(run, repo, cause):
    message = run(repo=repo, failed=True)["msg"]
    assert cause in message
    assert "git on the host says: " in message
    assert "Nothing that runs was touched." in message


def test_a_proxy_that_refuses(run):
    class Refuses(SimpleHTTPRequestHandler):
        def do_CONNECT(self):
            self.send_error(407)

    with serving(Refuses, "/") as address:
        message = run(repo="https://example.com/x.git", proxy=address.replace("//", "//robot:hunter2@"), failed=True)["msg"]
    assert "the proxy refuses or does not answer. Check proxy" in message
    assert "hunter2" not in message


def test_the_ssh_command_is_strict_and_knows_the_given_keys(run, tmp_path, settings):
    (tmp_path / "ssh").write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/asked\n'
        f'for word; do case $word in UserKnownHostsFile=*) cat "${{word#*=}}" > {tmp_path}/known; esac; done\n'
        'echo "No ED25519 host key is known for [git.example.com]:2222 and you have requested strict checking." >&2\n'
        'echo "Host key verification failed." >&2\nexit 255\n'
    )
    (tmp_path / "ssh").chmod(0o755)
    settings.write_text(settings.read_text() + f"[core]\nsshCommand = {tmp_path}/ssh -i key\n")
    repo = "ssh://git@git.example.com:2222/team/IOPaint.git"
    message = run(repo=repo, failed=True)["msg"]
    assert "the server's host key is unknown. Set known_hosts (`ssh-keyscan -p 2222 git.example.com` prints it" in message
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked[:2] == ["-i", "key"]
    assert "StrictHostKeyChecking=yes" in asked
    assert "BatchMode=yes" in asked
    assert not (tmp_path / "known").exists()
    run(repo=repo, known_hosts="[git.example.com]:2222 ssh-ed25519 AAAA", failed=True)
    assert (tmp_path / "known").read_text() == "[git.example.com]:2222 ssh-ed25519 AAAA\n"


NAMES = {option: f"iopaint_image_{option}" for option in OPTIONS}


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        ("@@@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @@@\nHost key verification failed.", "another host key"),
        ("Host key verification failed.\nfatal: Could not read from remote repository.", "host key is unknown"),
        ("git@github.com: Permission denied (publickey).", "accepts no ssh key of root"),
        ("ssh: Could not resolve hostname git: Name or service not known", "can't resolve the server's name"),
        ("ssh: connect to host git port 22: Connection refused", "does not reach the server"),
        ("ERROR: Repository not found.\nfatal: Could not read from remote repository.", "has no such repository"),
        ("fatal: could not read Username for 'https://github.com': terminal prompts disabled", "wants a login"),
        ("fatal: unable to access 'https://x/': The requested URL returned error: 403", "wants a login"),
        ("remote: Not Found\nfatal: repository 'https://x/y.git/' not found", "has no such repository"),
        ("server certificate verification failed. CAfile: none CRLfile: none", "iopaint_image_ca_bundle names the authorities"),
        ("Received HTTP code 407 from proxy after CONNECT", "the proxy refuses"),
        ("fatal: write error: No space left on device", "the disk of the host is full"),
        ("error: cannot run ssh: No such file or directory", "openssh-client"),
    ],
)
def test_the_cause_is_named(said, cause):
    assert cause in explain(said, "git@git:team/x.git", NAMES)
    assert is_explained(said)


@pytest.mark.parametrize("said", ["fatal: bad object HEAD", "error: Server does not allow request for unadvertised object 0123"])
def test_what_tells_nothing_of_the_way_to_the_repository_is_left(said):
    assert explain(said, "https://example.com/x.git", NAMES) is None
    assert not is_explained(said)


def test_an_address_without_ssh_names_no_keyscan():
    assert "ssh-keyscan" not in explain("Host key verification failed", "https://example.com/x.git", NAMES)
    assert "`ssh-keyscan git` prints" in explain("Host key verification failed", "git@git:x.git", NAMES)
