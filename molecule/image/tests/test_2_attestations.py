"""Provenance and SBOM on an engine that can keep them, on one that can't; with a small recipe, as the store begins empty.

The last tests, as an engine loses its build cache when it gets another image store.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "shared"))

from play import ROOT

FOLDER = "/root/attested"
FILES = {
    "Dockerfile": 'ARG BASE\nFROM ${BASE}\nLABEL test="attested"\n',
    "docker-bake.hcl": 'variable "BASE" {}\nvariable "TAGS" {}\ntarget "cpu" {\n  args = { BASE = BASE }\n  tags = [TAGS]\n}\n',
    # A stand-in for a scanner, by BuildKit's protocol: it lists the packages of Debian's own list.
    "scanner/Dockerfile": 'ARG BASE\nFROM ${BASE}\nCOPY scan /scan\nENTRYPOINT ["sh", "/scan"]\n',
    "scanner/scan": """{
  printf '{"_type": "https://in-toto.io/Statement/v0.1", "predicateType": "https://spdx.dev/Document", "predicate": '
  printf '{"spdxVersion": "SPDX-2.3", "packages": ['
  sed -n 's/^Package: /{"name": "/p' "$BUILDKIT_SCAN_SOURCE/var/lib/dpkg/status" | sed 's/$/"},/' | tr -d '\\n' | sed 's/,$//'
  printf ']}}'
} > "$BUILDKIT_SCAN_DESTINATION/packages.spdx.json"
""",
}


@pytest.fixture(scope="module")
def recipe(host):
    for name, text in FILES.items():
        path = f"{FOLDER}/recipe/{name}"
        host.run_expect([0], f"mkdir -p $(dirname {path}) && printf %s %s > {path}", "%s", text)
    return f"{FOLDER}/recipe"


def build(host, recipe, base, **options):
    """The module's result on the scenario's host."""
    name = host.backend.get_pytest_id().rpartition("//")[2]
    wanted = {
        "recipe": recipe,
        "source": recipe,
        "variant": "cpu",
        "ref": "attested",
        "revision": "1",
        "base": base,
        "base_id": "1",
        "log": f"{FOLDER}/log",
        "sbom_generator": "scanner:1",
        **options,
    }
    command = ["ansible", name, "-i", os.environ["MOLECULE_INVENTORY_FILE"], "-m", "iopaint.fleet.image_build"]
    environment = {**os.environ, "ANSIBLE_LOAD_CALLBACK_PLUGINS": "1", "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json"}
    done = subprocess.run(
        [*command, "-a", json.dumps(wanted)], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    document, _end = json.JSONDecoder().raw_decode(done.stdout, done.stdout.index("{"))  # other callbacks say something after it
    return document["plays"][0]["tasks"][0]["hosts"][name]


@pytest.fixture
def containerd_store(host, recipe):
    """The engine with the containerd image store, which has the base image and the stand-in for a scanner."""
    (base,) = host.check_output("docker image ls --filter reference='iopaint-base:*' --format '{{.Repository}}:{{.Tag}}'").split()
    settings = json.loads(host.file("/etc/docker/daemon.json").content_string)
    host.check_output(f"docker save -o {FOLDER}/base.tar {base} && cp /etc/docker/daemon.json {FOLDER}/daemon.json")
    changed = json.dumps({**settings, "features": {"containerd-snapshotter": True}})
    host.run_expect([0], "printf %s %s > /etc/docker/daemon.json && systemctl restart docker", "%s", changed)
    host.check_output(
        f"docker load -i {FOLDER}/base.tar && docker build -q -t scanner:1 --build-arg BASE={base} {recipe}/scanner"
    )
    yield base
    host.check_output(f"cp {FOLDER}/daemon.json /etc/docker/daemon.json && systemctl restart docker && rm -r {FOLDER}")


def test_an_engine_that_can_not_keep_them_says_so(host, recipe):
    result = build(host, recipe, "iopaint-base:bookworm", attestations=["provenance"])
    assert "attestations is provenance" in result["msg"]
    assert "containerd-snapshotter" in result["msg"]


def test_provenance_and_sbom_are_attached(host, recipe, containerd_store):
    result = build(host, recipe, containerd_store, attestations=["provenance", "sbom"])
    assert result["built"], result
    host.check_output(f"mkdir {FOLDER}/image && docker save {result['image']} | tar -x -C {FOLDER}/image")

    def blob(digest):
        return json.loads(host.file(f"{FOLDER}/image/blobs/{digest.replace(':', '/')}").content_string)

    index = blob(json.loads(host.file(f"{FOLDER}/image/index.json").content_string)["manifests"][0]["digest"])
    (attestation,) = [entry for entry in index["manifests"] if "vnd.docker.reference.type" in entry.get("annotations", {})]
    statements = [blob(layer["digest"]) for layer in blob(attestation["digest"])["layers"]]
    kinds = {statement["predicateType"]: statement["predicate"] for statement in statements}
    (provenance,) = [predicate for kind, predicate in kinds.items() if "slsa.dev/provenance" in kind]
    assert "buildType" in provenance
    assert "dpkg" in [package["name"] for package in kinds["https://spdx.dev/Document"]["packages"]]
