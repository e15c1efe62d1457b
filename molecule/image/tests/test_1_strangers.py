"""Images that are not to be trusted, on a real engine: what is taken out of them, and what they may do when they are asked."""

import json

import pytest

PHOTO = "/usr/share/iopaint-fleet/photo.png"
FILES = {
    "program": "cp /bin/true photo.png && chmod 6777 photo.png",
    "link": "ln -s /etc/shadow photo.png",
    "folder": "mkdir photo.png && echo text > photo.png/file",
    "device": "mknod photo.png b 7 0",
    "fifo": "mkfifo photo.png",
    "large": "truncate -s 20M photo.png",
    "none": ":",
}


@pytest.fixture
def stranger(host):
    """Makes an image that holds such a file in the photograph's place, and nothing else."""

    def make(kind):
        folder = "mkdir -p usr/share/iopaint-fleet && cd usr/share/iopaint-fleet"
        host.check_output(f"rm -rf /root/stranger && mkdir /root/stranger && cd /root/stranger && {folder} && {FILES[kind]}")
        host.check_output("tar -C /root/stranger -c . | docker import - stranger:1")

    yield make
    host.check_output("docker rmi --force stranger:1; rm -rf /root/stranger /root/taken")


def module(host, name, **arguments):
    return host.ansible(f"iopaint.fleet.{name}", json.dumps(arguments), check=False)


@pytest.mark.parametrize("kind", FILES)
def test_an_image_decides_nothing_but_the_content_of_its_photograph(host, stranger, kind):
    stranger(kind)
    result = module(host, "image_file", image="stranger:1", path=PHOTO, dest="/root/taken/photo.png")
    if kind == "program":
        assert result["changed"], result
        assert host.check_output("stat -c '%F %u:%g %a' /root/taken/photo.png") == "regular file 0:0 644"
        host.check_output("cmp /root/taken/photo.png /bin/true")
    else:
        assert not result.get("changed"), result
        assert f"{PHOTO} of the image stranger:1 could not be copied to /root/taken/photo.png: it " in result["msg"]
        assert host.check_output("ls -A /root/taken") == ""
    assert host.check_output("docker ps -aq --filter ancestor=stranger:1; docker volume ls -q") == ""


ASKED = r"""
import os, re, sys
status = open("/proc/self/status").read()
rights = {name: re.search(rf"^{name}:\s+(.*)", status, re.M)[1].split() for name in ("Uid", "CapEff", "CapBnd", "NoNewPrivs")}
rights["networks"] = sorted(os.listdir("/sys/class/net"))
rights["writable"] = [path for path in ("/", "/opt", "/etc", "/tmp", "/app") if os.access(path, os.W_OK)]
sys.exit(f"entrypoint: {rights}")
"""


def test_an_image_that_is_asked_for_its_options_has_no_rights(host, variant):
    host.run_expect([0], "mkdir -p /root/asked && printf %s %s > /root/asked/asked.py", "%s", ASKED)
    recipe = f'FROM iopaint:{variant}-latest\nCOPY asked.py /\nENTRYPOINT ["/usr/bin/python3", "/asked.py"]\n'
    host.run_expect([0], "printf %s %s > /root/asked/Dockerfile", "%s", recipe)
    host.check_output("docker build -q -t asked:1 /root/asked")
    try:
        instance = {"name": "a", "image": "asked:1", "environment": {}}
        message = module(host, "options_check", instances=[instance], models="/var/lib/iopaint/models")["msg"]
    finally:
        host.check_output("docker rmi --force asked:1 && rm -r /root/asked")
    none = "0" * 16
    assert f"'Uid': {['10001'] * 4}, 'CapEff': {[none]}, 'CapBnd': {[none]}, 'NoNewPrivs': ['1']" in message
    assert "'networks': ['lo'], 'writable': []" in message
