"""What a container's user does to the folder of models, and how it is seen that nothing of the host was touched."""

VICTIM = "/srv/victim"
MODELS = "/var/lib/iopaint/models"
REFUSED = "a link that somebody other than root can have put there, so it is not followed; remove it"
# Exchanges two names for ever, as fast as the kernel does it.
EXCHANGE = """
import ctypes, sys
names = -100, sys.argv[1].encode(), -100, sys.argv[2].encode(), 2
while True:
    ctypes.CDLL(None).renameat2(*names)
"""


def prepare(host):
    """Make a folder of root's with a file."""
    host.check_output(f"rm -rf {VICTIM} && install -d {VICTIM} && echo secret > {VICTIM}/big-lama.pt && chmod 0600 {VICTIM}/*")


def state(host):
    """Return what stat and cat say of that folder."""
    return host.check_output(f"cd {VICTIM} && stat -c '%n %u:%g %a' . * && cat *")


def victim(host):
    """Make that folder, give what it is like, and remove it in the end: the body of a fixture."""
    prepare(host)
    yield state(host)
    host.check_output(f"rm -rf {VICTIM}")


def in_container(host, container, command):
    """Run a command in torch's folder of weights as a container sees it, as the container's user."""
    return host.check_output(f"docker exec {container} sh -c %s", f"cd /app/models/torch/hub && {command}")
