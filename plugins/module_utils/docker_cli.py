# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The docker command line, as the modules of this collection use it."""

from __future__ import annotations

import os
import re
import subprocess

from ansible_collections.iopaint.fleet.plugins.module_utils import foreign

VARIABLE = re.compile(r'^variable "(\w+)" \{ default = "(.*?)" \}', re.MULTILINE)
# Of every container that a module makes to ask something: an image is not trusted.
NO_RIGHTS = ("--pull=never", "--network=none", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges")
FROM_THE_PLAY = ("CACHE_FROM", "CACHE_TO")  # a task's own environment sets these two


def bake_environment(recipe, given):
    """Return the value of every variable of the recipe's bake file, so that none is taken from the host's environment.

    recipe: the folder with docker-bake.hcl. given: variables that have another value than their default.
    """
    with open(os.path.join(recipe, "docker-bake.hcl"), encoding="utf-8") as stream:
        defaults = dict(VARIABLE.findall(stream.read()))
    asked = {name: os.environ[name] for name in FROM_THE_PLAY if name in os.environ}
    return {**defaults, **asked, **{name: str(value) for name, value in given.items()}}


def network_secret(network):
    """Return the build secret "network" (docker/build/with-network) of these settings, a line NAME=value each."""
    return "\n".join(f"{name}={value}" for name, value in sorted(network.items()))


def parse_documents(module, text, asked):
    """Return the documents (a list of objects, at least one) that docker gave; fail the module where they are none.

    asked: the command, for the message.
    """
    try:
        found = foreign.parse_json(text, list)
        if not found or not all(isinstance(document, dict) for document in found):
            raise foreign.ForeignError("it is no list of objects")
    except foreign.ForeignError as error:
        module.fail_json(
            msg=f"The answer of `docker {asked}` can't be used: {error}. See that the host's docker command is Docker's own."
        )
    return found


class Docker:
    """Runs docker for a module; an engine that does not answer fails the module."""

    def __init__(self, module):
        """Take the AnsibleModule that runs; fail it where docker is not installed."""
        self.module = module
        self.path = module.get_bin_path("docker", required=True)

    def run(self, *args, **kwargs):
        """Run docker with args; return (rc, stdout, stderr). Keywords go to AnsibleModule.run_command."""
        return self.module.run_command([self.path, *args], **kwargs)

    def log(self, stream, *args, cwd, env):
        """Run docker with args, its output going to an open file; return the exit status. env: further variables."""
        done = subprocess.run(  # pylint: disable=ansible-bad-function # run_command would hold a build's whole log
            [self.path, *args],
            cwd=cwd,
            env={**os.environ, **env},
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            check=False,
        )
        return done.returncode

    def start(self, *args, fed=False, env=None):
        """Start docker with args; return the process, its output in pipes: what a module should not hold in memory streams by.

        fed: whether the caller writes to its standard input, which otherwise is empty. env: further variables.
        """
        source = subprocess.PIPE if fed else subprocess.DEVNULL
        return subprocess.Popen(  # pylint: disable=ansible-bad-function # run_command would hold gigabytes
            [self.path, *args], stdin=source, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, **(env or {})}
        )

    def image(self, name):
        """Return the image's `docker image inspect` document, or None where the engine has no such image."""
        rc, out, err = self.run("image", "inspect", name)
        if rc != 0:
            if "no such image" not in err.lower():
                self.info("{{.ServerVersion}}")
            return None
        return parse_documents(self.module, out, "image inspect")[0]

    def info(self, field):
        """Return one field of `docker info` in Go template form, for example {{.DockerRootDir}}."""
        rc, out, err = self.run("info", "--format", field)
        if rc != 0 or not out.strip():  # older clients exit 0 without an engine
            self.module.fail_json(
                msg=f"The Docker engine does not answer: {err.strip() or out.strip()} "
                "See that it runs on the host (systemctl status docker); the role docker installs and starts it."
            )
        return out.strip()

    def builder(self):
        """Return the name of the builder that is the engine's own, whichever the user has selected."""
        rc, out, _err = self.run("context", "show")
        return out.strip() if rc == 0 and out.strip() else "default"

    def room(self):
        """Return the folder where the engine keeps its data, and the bytes that are free there."""
        root = self.info("{{.DockerRootDir}}")
        stat = os.statvfs(root)
        return root, stat.f_bavail * stat.f_frsize
