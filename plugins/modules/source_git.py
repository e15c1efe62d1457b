#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: a git repository at a ref, exactly as the repository has it now."""

from __future__ import annotations

DOCUMENTATION = r"""
module: source_git
short_description: Check out a ref of a git repository as it is now
version_added: 1.0.0
description:
  - Asks the repository which commit the ref is now, fetches that commit alone, and checks it out.
  - The repository is not asked for a commit that is given in full and is checked out already.
  - The checkout is the module's own. Edits, strange files and stale locks in it are removed. A checkout that is broken,
    unfinished or another user's is replaced by a fresh one, which is made first.
  - Of the submodules only those below C(iopaint/) and C(web_app/) are fetched.
  - It exists because M(ansible.builtin.git) prefers what an earlier run has fetched over what the repository has now, needs its
    checkout in good order, and fetches all submodules.
options:
  repo:
    description: Address of the repository, without user and password.
    type: str
    required: true
  dest:
    description: Folder of the checkout, on the host.
    type: path
    required: true
  ref:
    description:
      - A branch, a tag, a commit, or the full name of a ref such as V(refs/pull/638/head).
      - A name that several refs have is refused. A shortened commit is looked for in everything that the repository shows.
    type: str
    required: true
  user:
    description: User that goes with O(token).
    type: str
    default: git
  token:
    description: Token or password, where O(repo) begins with C(http).
    type: str
    default: ""
  proxy:
    description: Proxy of the repository, where O(repo) begins with C(http); it may hold a password.
    type: str
    default: ""
  no_proxy:
    description: Hosts and domains that are asked directly, separated by commas.
    type: str
    default: ""
  ca_bundle:
    description: PEM file on the host with the CAs to trust.
    type: str
    default: ""
  known_hosts:
    description:
      - Host keys of the repository's server, with O(repo) over ssh, as lines of a C(known_hosts) file.
      - Empty for the files of the user that the task becomes. An unknown key is refused in any case.
    type: str
    default: ""
extends_documentation_fragment: iopaint.fleet.names
attributes:
  check_mode:
    support: full
    description: Reports which commit would be checked out. The repository is asked for that, and the folder stays as it is.
requirements: [git, ssh (for a repository over ssh)]
seealso:
  - module: ansible.builtin.git
author: iopaint.fleet contributors (@iopaint)
"""

EXAMPLES = r"""
- name: Check out the branch
  iopaint.fleet.source_git:
    repo: https://github.com/Sanster/IOPaint.git
    dest: /opt/iopaint/image/git
    ref: main
"""

RETURN = r"""
commit:
  description: The commit that the ref is.
  type: str
  returned: success
  sample: 61a759fb3f332bacdce8b2813f4837495c9b86e0
before:
  description: The commit that was checked out before; empty where there was no sound checkout.
  type: str
  returned: success
name:
  description: Full name of the ref; empty for a commit.
  type: str
  returned: success
  sample: refs/heads/main
asked:
  description: Whether the repository was asked.
  type: bool
  returned: success
"""

import base64
import contextlib
import difflib
import fcntl
import os
import re
import tempfile

from ansible_collections.iopaint.fleet.plugins.module_utils.files import make_folder, remove, write
from ansible_collections.iopaint.fleet.plugins.module_utils.git_output import OPTIONS, explain, is_explained
from ansible_collections.iopaint.fleet.plugins.module_utils.names import named
from ansible_collections.iopaint.fleet.plugins.module_utils.network import keep_secret
from ansible_collections.iopaint.fleet.plugins.module_utils.quiet import QuietModule
from ansible_collections.iopaint.fleet.plugins.module_utils.source import FOLDERS, pointers
from ansible_collections.iopaint.fleet.plugins.module_utils.text import plain

MEMORY = "/run"  # secrets lie there while git runs
COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
SHORT = re.compile(r"[0-9a-f]{7,63}")
SITE = re.compile(r"https?://[^/]+")

# The host's and the user's git settings must not decide what a checkout holds.
SETTINGS = {
    "advice.detachedHead": "false",
    "core.autocrlf": "false",
    "core.eol": "lf",
    "core.fileMode": "true",
    "core.fsmonitor": "false",
    "core.hooksPath": "/dev/null",
    "core.sparseCheckout": "false",
    "core.symlinks": "true",
    "gc.autoDetach": "false",
    "http.lowSpeedLimit": "1",
    "http.lowSpeedTime": "120",
    "maintenance.autoDetach": "false",
    "submodule.recurse": "false",
}
# No line end or keyword is converted, so each file is as it was committed.
ATTRIBUTES = "* -text -ident\n"
# What is said where a server does not hand out a commit by itself.
REFUSED = re.compile("unadvertised object|not our ref|dumb http|want .* not valid")


class GitError(Exception):
    """A git command that failed, with what it said."""


class Git:
    """Runs git for the module, with what it needs to reach the repository."""

    def __init__(self, module, folder):
        """Take the module that runs, and a folder in memory for what must not be seen."""
        self.module, self.params = module, module.params
        self.path = module.get_bin_path("git", required=True)
        config = os.path.join(folder, "git.conf")
        write(config, self.settings(), 0o600)
        # By the environment, so that git's helpers for submodules and Git LFS have it too.
        self.environment = {
            "LC_ALL": "C",
            "LANGUAGE": "C",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "include.path",
            "GIT_CONFIG_VALUE_0": config,
            "GIT_SSH_COMMAND": self.ssh(folder),
        }
        if self.params["no_proxy"]:
            self.environment.update(NO_PROXY=self.params["no_proxy"], no_proxy=self.params["no_proxy"])

    def settings(self):
        """Return the git configuration by which the repository is reached."""
        site, values = SITE.match(self.params["repo"]), []
        if site and self.params["token"]:
            login = base64.b64encode(f"{self.params['user']}:{self.params['token']}".encode()).decode()
            self.module.no_log_values.add(login)
            values.append((f'http "{site[0]}/"', "extraHeader", f"Authorization: Basic {login}"))
        if site and self.params["proxy"]:
            values.append(("http", "proxy", self.params["proxy"]))
        if site and self.params["ca_bundle"]:
            values.append(("http", "sslCAInfo", self.params["ca_bundle"]))
        escape = str.maketrans({"\\": "\\\\", '"': '\\"'})
        return "".join(f'[{section}]\n{name} = "{value.translate(escape)}"\n' for section, name, value in values)

    def ssh(self, folder):
        """Return the ssh command, which never asks and refuses an unknown host key."""
        _rc, out, _err = self.module.run_command([self.path, "config", "core.sshCommand"], cwd="/")
        command = os.environ.get("GIT_SSH_COMMAND") or out.strip() or "ssh"
        options = ["BatchMode=yes", "StrictHostKeyChecking=yes", "ConnectTimeout=30", "ServerAliveInterval=30"]
        if self.params["known_hosts"]:
            known = os.path.join(folder, "known_hosts")
            write(known, self.params["known_hosts"].rstrip("\n") + "\n", 0o600)
            options += [f"UserKnownHostsFile={known}", "GlobalKnownHostsFile=/dev/null", "UpdateHostKeys=no"]
        return " ".join([command, *(f"-o {option}" for option in options)])

    def run(self, *arguments, cwd="/", **environment):
        """Run git and return its output; raise GitError where it fails."""
        settings = [word for name, value in SETTINGS.items() for word in ("-c", f"{name}={value}")]
        rc, out, err = self.module.run_command(
            [self.path, *settings, *arguments], cwd=cwd, environ_update={**self.environment, **environment}, umask=0o022
        )
        if rc != 0:
            raise GitError(plain(err or out).strip() or f"git ended with status {rc}")
        return out

    def shown(self, *patterns):
        """Return the refs that the repository has now, each with its object; of an annotated tag, `TAG^{}` has the commit."""
        lines = self.run("ls-remote", "--", self.params["repo"], *patterns).splitlines()
        return {name: oid for oid, _tab, name in (line.partition("\t") for line in lines)}


class Checkout:
    """A folder with a checkout."""

    def __init__(self, git, path):
        """Take the Git that runs, and the folder."""
        self.git, self.path, self.repo = git, path, git.params["repo"]

    def run(self, *arguments, **environment):
        """Run git in this repository, and in none above it."""
        own = (f"--git-dir={self.path}/.git", f"--work-tree={self.path}")
        return self.git.run(*own, *arguments, cwd=self.path, **environment)

    def commit_of(self, name):
        """Return the commit that a name is here; None where there is none."""
        try:
            return self.run("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}").strip()
        except (GitError, FileNotFoundError):
            return None

    def fault(self):
        """Return why the folder can't be worked in; None where it can."""
        for path in (self.path, os.path.join(self.path, ".git")):
            if os.path.islink(path) or not os.path.isdir(path):
                return f"{path} is no folder"
            if os.stat(path).st_uid != os.geteuid():
                return f"{path} belongs to user {os.stat(path).st_uid}"
        return None if self.commit_of("HEAD") else "git finds no sound commit in it"

    def submodules(self, commit):
        """Return the paths of the submodules that an image is built from."""
        entries = self.run("ls-tree", "-r", "-z", commit, "--", *FOLDERS).split("\0")
        return [path for words, _tab, path in (entry.partition("\t") for entry in entries) if words.startswith("160000 ")]

    def is_exact(self, commit):
        """Return whether the folder holds this commit and nothing else. Each file is read, as an index can be wrong."""
        every = ("--ignored", "--untracked-files=all", "--ignore-submodules=none")
        with tempfile.TemporaryDirectory(dir=self.git.module.tmpdir) as folder:
            index = os.path.join(folder, "index")
            self.run("read-tree", commit, GIT_INDEX_FILE=index)
            strange = self.run("status", "--porcelain", *every, GIT_INDEX_FILE=index)
        return not strange and all(os.path.exists(os.path.join(self.path, name, ".git")) for name in self.submodules(commit))

    def lacks_files(self):
        """Return whether files are pointers of Git LFS, from before it was installed on the host."""
        return bool(self.git.module.get_bin_path("git-lfs") and pointers(self.path))

    def begin(self):
        """Make the folder, with an empty repository."""
        remove(self.path, ignore_errors=True)
        make_folder(self.path)
        self.run("init", "--quiet", "--template=")

    def fetch(self, *what):
        """Fetch what is named, with the options that go before."""
        self.unlock()
        self.run("fetch", "--quiet", "--force", "--no-tags", "--no-recurse-submodules", *what)

    def fetch_all(self):
        """Begin anew with every ref that the repository shows, and its history."""
        self.begin()
        self.fetch("--", self.repo, "+refs/*:refs/fetched/*")

    def unlock(self):
        """Remove the locks that a killed git has left. Nobody else works here, as the module holds the folder."""
        for folder, _names, files in os.walk(os.path.join(self.path, ".git")):
            for name in files:
                if name.endswith(".lock"):
                    os.unlink(os.path.join(folder, name))

    def check_out(self, commit):
        """Let the folder hold this commit and nothing else."""
        self.unlock()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(self.path, ".git", "index"))
        make_folder(os.path.join(self.path, ".git", "info"))
        write(os.path.join(self.path, ".git", "info", "attributes"), ATTRIBUTES)
        self.run("config", "remote.origin.url", self.repo)  # for submodules with a relative address, and for Git LFS
        self.run("checkout", "--quiet", "--force", "--detach", commit)
        self.run("clean", "-ffdxq")
        needed = self.submodules(commit)
        for path in needed:
            remove(os.path.join(self.path, path))
        if needed:
            # Without --git-dir, which the submodules' own git would take for theirs.
            self.git.run("submodule", "--quiet", "update", "--init", "--recursive", "--force", "--", *needed, cwd=self.path)
        if not self.is_exact(commit):
            raise GitError(f"the files in {self.path} are not those of {commit}")


class Source:
    """The steps from a ref to its checkout."""

    def __init__(self, module, git):
        """Take the module that runs, and its Git."""
        self.module, self.git = module, git
        self.ref, self.repo = module.params["ref"].strip(), module.params["repo"]
        self.dest = os.path.realpath(module.params["dest"])
        self.checkout, self.fresh = Checkout(git, self.dest), Checkout(git, f"{self.dest}.new")
        remove(self.fresh.path, ignore_errors=True)  # of a run that was killed
        self.absent = not os.path.lexists(self.dest)
        self.fault = "it is absent" if self.absent else self.checkout.fault()
        self.asked = False

    def fail(self, what):
        """Fail the module; nothing that runs was touched."""
        self.module.fail_json(
            msg=f"The source could not be checked out: {named(self.module, 'ref')} {self.ref} of {named(self.module, 'repo')} "
            f"{self.repo}: {what} Nothing that runs was touched."
        )

    def refuse(self, error):
        """Fail the module with the cause of git's failure."""
        said = str(error)[-1500:].rstrip(".")
        why = explain(said, self.repo, {option: named(self.module, option) for option in OPTIONS})
        self.fail(f"{why or 'git failed.'} git on the host says: {said}.")

    def resolve(self):
        """Return the commit, the object to fetch and the full name of the ref, as the repository has them now."""
        ref = self.ref
        if COMMIT.fullmatch(ref.lower()):
            return ref.lower(), ref.lower(), ""
        names = [ref] if re.match("refs/|HEAD$", ref) else [f"refs/heads/{ref}", f"refs/tags/{ref}", f"refs/{ref}"]
        self.asked = True
        shown = self.git.shown(*names, *(f"{name}^{{}}" for name in names))
        found = [name for name in names if name in shown]
        if len(found) > 1:
            self.fail(f"several refs have this name. Set {named(self.module, 'ref')} to one of {', '.join(found)}.")
        if found:
            return shown.get(f"{found[0]}^{{}}", shown[found[0]]), shown[found[0]], found[0]
        if SHORT.fullmatch(ref.lower()):
            commit = self.complete(ref.lower())
            return commit, commit, ""
        return self.refuse_unknown()

    def complete(self, short):
        """Return the one commit that begins so."""
        commit = None if self.fault else self.checkout.commit_of(short)
        if not commit:
            self.fresh.fetch_all()
            commit = self.fresh.commit_of(short)
        if not commit:
            self.fail("it is no branch or tag, and not the beginning of exactly one commit. Give the commit in full.")
        return commit

    def refuse_unknown(self):
        """Fail the module for a ref that the repository does not have."""
        names = [name for name in self.git.shown() if re.match("refs/(heads|tags)/", name) and not name.endswith("^{}")]
        known = names if self.ref.startswith("refs/") else [name.split("/", 2)[2] for name in names]
        close = difflib.get_close_matches(self.ref.removeprefix("origin/"), known, n=1)
        self.fail(
            f"the repository has no such branch, tag or other ref{f' (nearest: {close[0]})' if close else ''}. "
            "It is misspelt, or was deleted there. What an earlier run has fetched is not used in its place."
        )

    def get(self, commit, wanted, name):
        """Have the commit checked out; return what was wrong with a checkout that a fresh one has replaced, else None."""
        if not self.fault and not self.fresh.commit_of(commit):
            try:
                if not self.checkout.commit_of(commit):
                    self.fetch(self.checkout, wanted)
                self.checkout.check_out(commit)
                return None
            except GitError as error:
                self.fault = None if REFUSED.search(str(error)) else str(error)
        if not self.fresh.commit_of(commit):
            self.fetch_fresh(commit, wanted, name)
        self.fresh.check_out(commit)
        self.exchange()
        return self.fault

    def fetch(self, checkout, wanted):
        """Fetch one object without its history; fail the module where another checkout would fare no better."""
        self.asked = True
        try:
            checkout.fetch("--depth=1", "--", self.repo, wanted)
        except GitError as error:
            if is_explained(str(error)):
                self.refuse(error)
            raise

    def fetch_fresh(self, commit, wanted, name):
        """Fetch the commit by itself if the server hands it out so, else with all that the server shows."""
        self.fresh.begin()
        try:
            self.fetch(self.fresh, wanted)
        except GitError as error:
            if "not our ref" in str(error) and not name:
                self.fail(f"the repository has no such commit. git on the host says: {error}.")
            if not REFUSED.search(str(error)):
                raise
            self.fresh.fetch_all()
        if self.fresh.commit_of(commit):
            return
        if name:
            self.fail(f"{name} is no commit.")
        self.fail(
            "the repository has no such commit in the branches, tags and other refs that the server shows, and the server hands "
            "out no other."
        )

    def exchange(self):
        """Put the fresh checkout in the place of the present one."""
        old = f"{self.dest}.old"
        remove(old, ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):
            os.rename(self.dest, old)
        os.rename(self.fresh.path, self.dest)
        remove(old)

    def is_there(self, commit):
        """Return whether the commit is checked out, and nothing else."""
        try:
            return self.checkout.is_exact(commit) and not self.checkout.lacks_files()
        except GitError:
            return False

    def run(self):
        """Run the steps; return the module's result."""
        commit, wanted, name = self.resolve()
        before = "" if self.fault else self.checkout.commit_of("HEAD")
        changed = before != commit or not self.is_there(commit)
        if changed and not self.module.check_mode:
            fault = self.get(commit, wanted, name)
            if fault and not self.absent:
                self.module.warn(f"The checkout {self.dest} was replaced by a fresh one: {fault.rstrip('.')}.")
        return {"changed": changed, "commit": commit, "before": before, "name": name, "asked": self.asked}


@contextlib.contextmanager
def held(path):
    """Hold a folder, so that one play at a time works in it."""
    if not os.path.isdir(path):  # check mode on a fresh host
        yield
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def secret_folder(dest):
    """Yield a folder in memory. It goes at the end, or at the next start if the end never came."""
    path = os.path.join(MEMORY, "iopaint-git" + dest.replace("/", "-"))
    remove(path, ignore_errors=True)
    os.mkdir(path, 0o700)
    try:
        yield path
    finally:
        remove(path, ignore_errors=True)


def main():
    """Run the module."""
    module = QuietModule(
        argument_spec={
            "repo": {"type": "str", "required": True},
            "dest": {"type": "path", "required": True},
            "ref": {"type": "str", "required": True},
            "user": {"type": "str", "default": "git"},
            "token": {"type": "str", "default": "", "no_log": True},
            "proxy": {"type": "str", "default": ""},
            "no_proxy": {"type": "str", "default": ""},
            "ca_bundle": {"type": "str", "default": ""},
            "known_hosts": {"type": "str", "default": ""},
            "names": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    keep_secret(module, [module.params["proxy"]])
    above = os.path.dirname(os.path.realpath(module.params["dest"]))
    if not module.check_mode:
        make_folder(above)
    with held(above), secret_folder(module.params["dest"]) as folder:
        source = Source(module, Git(module, folder))
        try:
            result = source.run()
        except GitError as error:
            source.refuse(error)
        except OSError as error:
            source.fail(f"{error}.")
        finally:
            remove(source.fresh.path, ignore_errors=True)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
