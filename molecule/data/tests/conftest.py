"""What the tests of this scenario share: the host that serves, its data, and the places where its backups are."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import testinfra

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "shared"))

import hosts
from play import deployed, process

NAME = "iopaint-data-1"
FOLDER = "/var/backups/iopaint"
SSH = {"iopaint_backup_repository": "sftp:keeper@iopaint-data-2:/srv/ssh/iopaint"}
REST = {
    "iopaint_backup_repository": "rest:http://iopaint-data-2:8000/iopaint",
    "iopaint_backup_environment": {"RESTIC_REST_USERNAME": "iopaint", "RESTIC_REST_PASSWORD": "a pass'word"},
}
DATA = "/var/lib/iopaint"
OUTPUTS = f"{DATA}/outputs/cpu"
MODEL = "models/torch/hub/checkpoints/big-lama.pt"
SUMS = "cd {} && find . -type f -not -path '*/.*' -exec sha256sum {{}} + | sort -k2"
KEY = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "backup.key"
NEST = "import os; os.mkdir('deep'); os.chdir('deep'); [(os.mkdir('d'), os.chdir('d')) for _ in range(2500)]"
HOSTILE = {
    "#1.png": "r",
    ";x": "s",
    "new\nline.png": "t",
    " a $HOME *.png ": "u",
    "-rf": "w",
}


class Host(hosts.Host):
    """A host with data, or with a repository."""

    def sums(self, folder=DATA):
        """The sum of each file of models and outputs, by path."""
        return {line[66:]: line[:64] for line in self(SUMS.format(folder)).splitlines()}

    def state(self):
        """Data and containers: equal before and after means that nothing was touched."""
        return self.sums(), self(f"find {DATA} -printf '%p %i %m %U:%G\n' | sort"), deployed(self.shell)

    def snapshots(self):
        """The snapshots in the repository that the last play has named, oldest first."""
        return json.loads(self("iopaint-restic snapshots --json"))

    def latest(self, tree="outputs/cpu"):
        """ID of the newest snapshot of a tree."""
        return [snapshot["id"] for snapshot in self.snapshots() if tree in snapshot["tags"]][-1]

    def unpacked(self):
        """The sums of what the newest snapshots hold, restored as an operator may do it by hand."""
        trees = "".join(f"iopaint-restic restore {self.latest(tree)} --target $d; " for tree in ("models", "outputs/cpu"))
        return self.sums(self(f"d=$(mktemp -d) && chown iopaint-backup $d && {{ {trees} }} >/dev/null && echo $d"))

    def backup(self, prefix="", right=0):
        """Run the program as the timer does; return its result. prefix: what comes before the command."""
        done = self.shell.run(f"{prefix} iopaint-backup")
        assert done.rc == right, done.stdout + done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    def as_container(self, script):
        """Run a shell script in the outputs as the containers' user does."""
        self.shell.check_output("cd %s && setpriv --reuid=10001 --regid=10001 --clear-groups sh -ec %s", OUTPUTS, script)


@pytest.fixture(scope="session")
def host():
    return Host(NAME)


@pytest.fixture(scope="session")
def store():
    """The host that keeps repositories."""
    return Host("iopaint-data-2")


@pytest.fixture(scope="session", autouse=True)
def data(host):
    """A model of some size, a link as the hub libraries make it, and pictures, all of the image's user."""
    host(
        f"cd {DATA} && mkdir -p $(dirname {MODEL}) outputs/cpu/folder"
        f" && {{ test -e {MODEL} || head -c 40000000 /dev/urandom > {MODEL}; }}"
        " && ln -sf torch/hub/checkpoints/big-lama.pt models/lama.pt"
        " && for i in 1 2 3; do echo picture $i > outputs/cpu/$i.png; done && echo nested > 'outputs/cpu/folder/ü [x].png'"
        " && chmod 600 outputs/cpu/1.png && chown -hR 10001:10001 models outputs/cpu"
    )


def is_proven(run):
    """The play ended with a real inpainting."""
    assert run.rc == 0, run.output
    assert run.says("http://127.0.0.1:8080 inpaints with cv2", "pixels under the mask changed, 0 elsewhere"), run.output
    return True


class Killed:
    """A play whose control node is lost once it begins a task."""

    def __init__(self, playbook, task, **variables):
        with subprocess.Popen(**process(playbook, **variables), start_new_session=True) as running:
            self.output = ""
            for line in running.stdout:
                self.output += line
                if line.startswith("TASK [") and task in line:
                    os.killpg(running.pid, signal.SIGKILL)
                    return
        raise AssertionError(f"the play ended before {task}:\n{self.output}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """A failure shows what the hosts say of themselves."""
    report = yield
    if report.when == "call" and report.failed:
        command = f"docker ps -a; ls -laRb {DATA} | head -n 200; cat /var/lib/iopaint-backup/last.json /var/log/iopaint/audit.log"
        report.sections.append((NAME, testinfra.get_host(f"docker://{NAME}").run(command).stdout))
        report.sections.append(("store", testinfra.get_host("docker://iopaint-data-2").run("ls -la /srv/*/*").stdout))
    return report
