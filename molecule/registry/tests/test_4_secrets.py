"""A secret of its own in every option that may hold one, and then a search for them in all that the plays leave and show.

The options come from the roles' specifications (molecule/shared/canaries.py), so that new ones join by themselves.
"""

import json
import os
import re
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from canaries import Canaries, secret_options
from conftest import NAMES
from play import ROOT, play

SERVER, (BUILDER, OTHER) = "iopaint-registry", NAMES
HOSTS = [SERVER, BUILDER, OTHER]
FIND = ROOT / "molecule" / "shared" / "find_on_host.py"
IMAGE_USER = 10001
IMAGES = "docker image inspect $(docker images -q | sort -u)"

# Options that roles hand to each other: an operator sets others, whose secrets arrive there.
INNER = {
    "apt_packages_repository": "the name of a repository",
    "apt_repository_uris": "docker_upstream_url and its like",
    "apt_repository_vendor_urls": "fixed in the roles",
    "apt_repository_key_url": "docker_upstream_url and its like",
    "apt_repository_proxy": "docker_apt_proxy and its like",
    "iopaint_image_repository": "made from iopaint_registry",
}

# Files that may hold a secret: path, options whose secrets these are, who besides root may read it, and why.
INSTANCE = (
    "iopaint_instances.hub_endpoint",
    "iopaint_instances.model_urls",
    "iopaint_instances.options",
    "iopaint_instances.options: an address",
    "iopaint_model_urls",
)
REGISTRY = ("registry_settings", "registry_settings: an address")
PROXIES = ("docker_http_proxy", "docker_https_proxy")
TOKEN = ("iopaint_gateway_token",)
REGISTRY_GROUP = 101  # docker-registry, in the image of the test hosts
ALLOWED = [
    ("/opt/iopaint/instances/cpu/releases/[^/]+/options.env", INSTANCE, (), "compose reads it"),
    ("/var/lib/docker/containers/[0-9a-f]{64}/config.v2.json", INSTANCE, (), "the engine's description of the container"),
    ("/var/lib/containerd/io.containerd.metadata.v1.bolt/meta.db", INSTANCE, (), "the same"),
    ("/run/containerd/io.containerd.runtime.v2.task/moby/[0-9a-f]{64}/config.json", INSTANCE, (), "the same, for runc"),
    ("/etc/docker/daemon.json([.].*~)?", PROXIES, (), "the engine uses these proxies"),
    ("/etc/apt/auth.conf.d/90docker.conf", ("docker_upstream_url",), (), "apt logs in with it"),
    ("/etc/apt/apt.conf.d/90docker-proxy", ("docker_apt_proxy",), (), "apt uses this proxy"),
    ("/opt/iopaint/instances/[.]gateway/token", TOKEN, (f"group {IMAGE_USER}",), "the instances compare it"),
    ("/etc/iopaint-gateway/token([.]map)?", TOKEN, (), "the gateway sends it"),
    ("/etc/haproxy/haproxy.cfg", ("gateway_users.hash",), (), "the gateway compares passwords with hashes"),
    ("/etc/docker/registry/(config|read-only).yml", REGISTRY, (f"group {REGISTRY_GROUP}",), "the registry reads its settings"),
]


# The role's entry points, as a playbook of an operator's own has them.
MODELS = [
    {"ansible.builtin.include_role": {"name": "iopaint.fleet.iopaint", "tasks_from": entry}} for entry in ("check", "models")
]


class Finding(NamedTuple):
    """A file or a process with secrets."""

    host: str
    where: str
    names: frozenset
    readers: tuple


@pytest.fixture(scope="module")
def canaries():
    """The secrets, the one included that shows that they are found."""
    return Canaries()


@pytest.fixture(scope="module")
def site(canaries, builder):
    """Make a private site and a proxy on the builder, which know the secrets as passwords; return addresses and checksums."""
    builder("apt-get install -qq --no-install-recommends gpg gpg-agent gpgconf")
    for name in ("make_small_site.py", "private_site.py", "forward_proxy.py"):
        subprocess.run(["docker", "cp", "-q", ROOT / "molecule" / "fixtures" / name, f"{BUILDER}:/srv/{name}"], check=True)
    builder("python3 /srv/make_small_site.py /srv/site trixie && git -C /srv/source update-server-info")
    builder("ln -sfn /srv/source/.git /srv/site/source.git")
    site_users = ["docker_upstream_url", "iopaint_models.url", "nvidia_container_toolkit_url"]
    proxy_users = [name for name in secret_options() if name.endswith("_proxy")]
    users = {
        "private_site.py /srv/site 8001": [
            f"git:{canaries('iopaint_image_git_token')}",
            *(f"robot:{canaries(n)}" for n in site_users),
        ],
        "forward_proxy.py 3128": [f"robot:{canaries(name)}" for name in proxy_users],
    }
    for number, (program, known) in enumerate(users.items()):
        start = f"kill $(cat /run/canary{number}) 2>/dev/null; echo $$ > /run/canary{number}; exec python3 /srv/{program}"
        command = ["docker", "exec", "-d", "--env", "USERS", BUILDER, "sh", "-c", start]
        subprocess.run(command, check=True, env={**os.environ, "USERS": " ".join(known)})
    return {name: builder(f"cat /srv/site/{name}") for name in ("fingerprint", "model.pt.sha256")}


@pytest.fixture(scope="module")
def values(canaries, site):
    """Return the variables of all hosts: a secret in each option that may hold one, in addresses that work where one is used."""
    address = canaries.address
    known = {name: option for name, option in secret_options().items() if name not in INNER}
    found = {}
    for name, option in known.items():
        if "." not in name:
            value = canaries(name) if option.get("no_log") else address(name)
            found[name] = {"str": value, "list": [value], "dict": {"LAMA_MODEL_URL": value}}[option.get("type", "str")]
    sites, proxy = f"{BUILDER}:8001", f"{BUILDER}:3128"
    # Refused as a whole, and so in a run of its own each.
    for name in ("iopaint_http_proxy", "iopaint_https_proxy", "docker_registry_mirrors", "docker_log_options"):
        del found[name]
    found |= {name: address(name, proxy) for name in found if name.endswith("_proxy")}
    found |= {
        "docker_upstream_url": address("docker_upstream_url", f"{sites}/apt"),
        "docker_upstream_fingerprints": [site["fingerprint"]],
        "docker_daemon_settings": {},
        "iopaint_registry": "iopaint-registry:5443/team",
        "iopaint_registry_username": "canary",
        "iopaint_image_git_url": f"http://{sites}/source.git",
        "iopaint_image_git_user": "git",
        "registry_users": [
            {"name": "canary", "password": canaries("iopaint_registry_password")},
            {"name": "other", "password": canaries("registry_users.password")},
        ],
        "registry_settings": {
            "notifications": {
                "endpoints": [
                    {
                        "name": "canary",
                        "disabled": True,
                        "url": address("registry_settings: an address"),
                        "headers": {"Authorization": [f"Bearer {canaries('registry_settings')}"]},
                    }
                ]
            }
        },
        "gateway_name": "paint.example.com",
        "gateway_users": [
            {"name": "canary", "password": canaries("gateway_users.password")},
            {"name": "other", "hash": f"$6${canaries('gateway_users.hash')}${'a' * 86}"},
        ],
        "iopaint_models": [
            {
                "name": "canary",
                "url": address("iopaint_models.url", f"{sites}/model.pt"),
                "checksum": f"sha256:{site['model.pt.sha256']}",
                "path": "torch/hub/checkpoints/canary.pt",
            }
        ],
        "iopaint_instances": [
            {
                "name": "cpu",
                "variant": "cpu",
                "port": 8080,
                "model": "cv2",
                "hub_endpoint": address("iopaint_instances.hub_endpoint"),
                "model_urls": {"MAT_MODEL_URL": address("iopaint_instances.model_urls")},
                "options": {
                    "hf_token": canaries("iopaint_instances.options"),
                    "site": address("iopaint_instances.options: an address"),
                },
            }
        ],
    }
    return found


@pytest.fixture(scope="module")
def refused(canaries):
    """Return variables that the collection or the engine refuses, and what is said then, by the run that has them."""
    address = canaries.address
    return {
        "a password in a proxy of the instances": (
            "playbooks/check.yml",
            {name: address(name) for name in ("iopaint_http_proxy", "iopaint_https_proxy")},
            "Name a proxy that lets the hosts in without one",
        ),
        "a password in the repository's URL": (
            "playbooks/check.yml",
            {"iopaint_image_git_url": address("iopaint_image_git_url")},
            "Give iopaint_image_git_user and iopaint_image_git_token instead",
        ),
        "a password in the registry's name": (
            "playbooks/check.yml",
            {"iopaint_registry": address("iopaint_registry")},
            "It takes HOST, HOST:PORT or HOST:PORT/PATH",
        ),
        "a password in a registry's mirror": (
            "playbooks/provision.yml",
            {"docker_registry_mirrors": [address("docker_registry_mirrors")]},
            "docker_registry_mirrors has an address with a user or a password",
        ),
        "a setting that the engine refuses": (
            "playbooks/provision.yml",
            {
                "docker_log_options": {"splunk-token": canaries("docker_log_options")},
                "docker_daemon_settings": {"registry-mirrors": [address("docker_daemon_settings")]},
            },
            "daemon.json is as it was before, and the engine runs again",
        ),
    }


def wrong_kinds(values):
    """Return each value in another kind than its option has: a list for text, a dictionary for a list, text for a dictionary."""
    other = {str: lambda value: [value], list: lambda value: {"a": value}, dict: lambda value: [[value]]}
    return {name: other[type(value)](value) for name, value in values.items() if type(value) in other}


def found_in(canaries, finding):
    """Return the names of the secrets that a finding of find_on_host.py has."""
    return frozenset(canaries.found_in("\n".join(finding["texts"])))


@contextmanager
def watched(canaries, host):
    """Look at the process lists of a host, or of this machine, while plays run; the list that this gives is filled at the end."""
    here = host == "localhost"
    command = [sys.executable, str(FIND)] if here else ["docker", "exec", "-i", host, "python3", "/root/find_on_host.py"]
    users = [0, os.getuid(), IMAGE_USER]  # the containers run below this machine's processes too
    found = []
    with subprocess.Popen([*command, "processes"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as watcher:
        watcher.stdin.write(json.dumps({"needles": canaries.needles(), "users": users, "since": 0}) + "\n")
        watcher.stdin.flush()
        assert "begun" in watcher.stdout.readline()
        yield found
        watcher.stdin.close()
        for line in watcher.stdout.read().splitlines():
            finding = json.loads(line)
            found.append(Finding(host, f"{finding['where']} of {finding['command']}", found_in(canaries, finding), ()))


def said(host, command):
    """Return what a command on a host says."""
    done = subprocess.run(
        ["docker", "exec", host, "sh", "-c", command], capture_output=True, text=True, errors="replace", check=True
    )
    return done.stdout


def files(canaries, host, since, *folders):
    """Return the files with secrets below folders of a host, or of this machine."""
    here = host == "localhost"
    command = [sys.executable, str(FIND)] if here else ["docker", "exec", "-i", host, "python3", "/root/find_on_host.py"]
    wanted = json.dumps({"needles": canaries.needles(), "users": [], "since": since}) + "\n"
    done = subprocess.run([*command, "files", *folders], input=wanted, capture_output=True, text=True, check=True)
    return [
        Finding(host, finding["path"], found_in(canaries, finding), tuple(finding["readers"]))
        for finding in map(json.loads, done.stdout.splitlines())
    ]


def fleet(variables, gateways):
    """Return the text of an inventory in which all hosts have the variables, and some are gateways."""
    groups = {"gateways": {"hosts": dict.fromkeys(gateways)}} if gateways else {}
    return yaml.safe_dump({"all": {"hosts": dict.fromkeys(HOSTS, variables), "children": groups}})


@pytest.fixture(scope="module")
def left(canaries, values, refused, stand_in, builder, tmp_path_factory):  # noqa: PLR0917 - fixtures
    """Run the plays and return what they showed and left: outputs by run, findings of files and processes, and texts by place."""
    folder = tmp_path_factory.mktemp("plays")
    since = time.time() - 1
    left = {"runs": {}, "files": [], "processes": [], "texts": {}}
    for host in HOSTS:
        subprocess.run(["docker", "cp", "-q", FIND, f"{host}:/root/find_on_host.py"], check=True)
    stand_in("v1")
    models = folder / "models.yml"
    models.write_text(yaml.safe_dump([{"hosts": "cpu_hosts", "gather_facts": False, "tasks": MODELS}]))
    common = {
        **values,
        "iopaint_bundle_file": str(folder / "bundle.tar.zst"),
        "iopaint_status_dir": str(folder / "status"),
        "iopaint_image_ref": "v1",
    }

    def run(name, playbook, *arguments, gateways=(), **changes):
        inventory = folder.with_name("inventory.yml")  # not the command line, and before the group's variables
        inventory.touch(0o600)
        inventory.write_text(fleet({**common, **changes}, gateways))
        done = play(playbook, "-vvv", "-i", str(inventory), *arguments)
        left["runs"][name] = done
        inventory.unlink()

    def look():
        for host in HOSTS:
            left["files"] += files(canaries, host, since, "/")

    with ExitStack() as stack:
        watches = [stack.enter_context(watched(canaries, host)) for host in [*HOSTS, "localhost"]]
        control = canaries("control")
        builder(f"sh -c 'sleep 0.3; : {control}'; logger {control}")
        builder(f"echo {control} > /srv/control; echo {control} | gzip > /root/control.gz")
        run("registry", "playbooks/registry.yml")
        run("wrong kinds", "playbooks/check.yml", "-l", BUILDER, **wrong_kinds(values))
        for server, gateways in ("registry", []), ("gateway", [BUILDER]):
            run(f"wrong kinds of the {server}", f"playbooks/{server}.yml", gateways=gateways, **wrong_kinds(values))
        for name, (playbook, changes, _said) in refused.items():
            run(name, playbook, "-l", BUILDER, **changes)
        run("Docker's repository", "playbooks/provision.yml", "-l", BUILDER, docker_package_source="upstream")
        look()
        run("bundle", "playbooks/bundle.yml", "-l", BUILDER)
        run("deploy", "deploy.yml")
        # The other host's instance would be out of its reach.
        run("gateway", "playbooks/gateway.yml", "-l", BUILDER, gateways=[BUILDER], iopaint_bind_address="0.0.0.0")
        run("status", "playbooks/status.yml")
        run(
            "wrong password",
            "playbooks/build.yml",
            "-l",
            BUILDER,
            iopaint_image_ref="v4",
            iopaint_registry_password=canaries("wrong"),
        )
        run("failed build", "playbooks/build.yml", "-l", BUILDER, iopaint_image_ref="v4")
        gone = [{**values["iopaint_models"][0], "name": "gone", "url": canaries.address("gone"), "path": "gone.pt"}]
        run("model that can't be downloaded", str(models), "-l", OTHER, iopaint_models=gone)
        run("rollback", "playbooks/rollback.yml", "-l", BUILDER)
        look()
        history = "for each in $(docker images -q | sort -u); do docker history --no-trunc $each || exit; done"
        left["texts"] |= {f"images of {host}": said(host, f"{IMAGES} && {history}") for host in NAMES}
        left["texts"] |= {f"engine of {host}": said(host, "docker info && docker system df -v") for host in NAMES}
        left["texts"] |= {f"containers of {host}": said(host, "docker inspect $(docker ps -aq)") for host in NAMES}
        run("remove", "playbooks/remove.yml", "-l", OTHER)
        look()
        journal = f"journalctl --no-pager -a -o cat --since=@{int(since)}"
        left["texts"] |= {f"journal of {host}": said(host, journal) for host in HOSTS}
        here = [
            folder,
            ROOT / "build",
            os.environ["MOLECULE_EPHEMERAL_DIRECTORY"],
            Path.home() / ".ansible",
            Path.home() / ".docker",
        ]
        left["files"] += files(canaries, "localhost", since, *map(str, here))
    left["processes"] = [finding for found in watches for finding in found]
    return left


def test_every_option_that_may_hold_a_secret_has_one(canaries, values, refused):
    """A new option fails here if its value in this test has no secret: give it an address that works, or one that is refused."""
    given = canaries.found_in(json.dumps([values, [changes for _playbook, changes, _said in refused.values()]]))
    wanted = set(secret_options())
    assert set(INNER) <= wanted
    assert wanted - set(INNER) - given == set()


def test_the_search_finds_what_is_there(left):
    """Else the tests below would find nothing, whatever there is."""
    found = {(finding.host, finding.where, finding.readers) for finding in left["files"] if finding.names == {"control"}}
    assert {(BUILDER, "/srv/control", ("everybody",)), (BUILDER, "/root/control.gz", ())} <= found
    assert any(finding.names == {"control"} for finding in left["processes"])
    assert "control" in left["texts"][f"journal of {BUILDER}"]


GOOD = ["registry", "bundle", "deploy", "gateway", "status", "rollback", "remove"]


def test_plays_do_their_work_with_secrets(left):
    assert {name: left["runs"][name].rc for name in GOOD} == dict.fromkeys(GOOD, 0), [
        left["runs"][name].output[-3000:] for name in GOOD if left["runs"][name].rc != 0
    ]


def test_plays_fail_for_the_reason_that_was_given_to_them(left, refused):
    words = {
        "wrong kinds": "Nothing was changed.",
        "wrong kinds of the registry": "Nothing was changed.",
        "wrong kinds of the gateway": "Nothing was changed.",
        "Docker's repository": "docker-ce",
        "wrong password": "The registry refuses the login.",
        "failed build": "The build of iopaint:cpu-",
        "model that can't be downloaded": "The model gone of iopaint_models could not be downloaded",
        **{name: said for name, (_playbook, _changes, said) in refused.items()},
    }
    assert set(words) | set(GOOD) == set(left["runs"])
    for name, said in words.items():
        assert left["runs"][name].rc != 0, name
        assert left["runs"][name].says(said), f"{name}: {left['runs'][name].output[-3000:]}"


def test_no_output_shows_a_secret(canaries, left):
    shown = {name: canaries.lines(done.output) for name, done in left["runs"].items()}
    assert not any(shown.values()), "\n".join(f"== {name}\n{lines}" for name, lines in shown.items() if lines)


def test_no_process_list_shows_a_secret(left):
    found = {f"{finding.host}: {', '.join(finding.names)} in the {finding.where}" for finding in left["processes"]}
    found = sorted(text for text in found if ": control in" not in text)
    assert not found, "\n".join(found)


@pytest.mark.parametrize("kind", ["journal", "images", "engine"])
def test_no_journal_no_image_and_no_engine_shows_a_secret(canaries, left, kind):
    control = re.compile(f"(?m)^{canaries('control')}$")
    shown = {name: canaries.lines(control.sub("", text)) for name, text in left["texts"].items() if name.startswith(kind)}
    assert len(shown) >= len(NAMES)
    assert not any(shown.values()), "\n".join(f"== {name}\n{lines}" for name, lines in shown.items() if lines)


def test_containers_have_the_secrets_of_their_instance_alone(canaries, left):
    found = [canaries.found_in(left["texts"][f"containers of {host}"]) for host in NAMES]
    assert set(INSTANCE) in found  # the builder was rolled back to a release without
    assert all(names <= set(INSTANCE) for names in found)


def test_files_with_a_secret_are_few_and_private(left):
    def allowed(finding):
        return any(
            re.fullmatch(path, finding.where) and finding.names <= set(names) and set(finding.readers) <= set(readers)
            for path, names, readers, _why in ALLOWED
        )

    found = {finding for finding in left["files"] if finding.names != {"control"} and not allowed(finding)}
    shown = sorted(f"{host}: {where}: {', '.join(sorted(names))}; read by {readers}" for host, where, names, readers in found)
    assert not shown, "\n".join(shown)
