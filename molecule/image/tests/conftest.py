"""The image that this host has built, and builds without Ansible."""

import pytest

FOLDER = "/opt/iopaint/image"


@pytest.fixture(scope="module")
def variant(host):
    return "gpu" if host.run("docker image inspect iopaint:gpu-latest").rc == 0 else "cpu"


@pytest.fixture
def tree(host):
    """Copies the source, runs a command in the copy and gives its folder."""

    def copy(name, command):
        host.check_output(f"rm -rf /root/{name} && cp -r {FOLDER}/git /root/{name} && cd /root/{name} && {command}")
        return f"/root/{name}"

    return copy


@pytest.fixture(scope="module")
def bake(host, variant):
    """Builds the image without Ansible: bake(tag, *arguments, **variables) gives the command's result."""

    def build(tag, *arguments, folder=FOLDER, **variables):
        settings = {"SOURCE": f"{FOLDER}/git", "BASE": base(host), "TAGS": tag, "BUILDX_BAKE_ENTITLEMENTS_FS": "0", **variables}
        for name, path in {"CA_BUNDLE": f"{FOLDER}/ca.pem", "WHEELHOUSE": f"{FOLDER}/wheelhouse"}.items():
            if host.file(path).exists:
                settings.setdefault(name, path)
        env = " ".join(f"{name}={value}" for name, value in settings.items())
        options = f"-f docker/docker-bake.hcl --progress plain {' '.join(arguments)}"
        return host.run(f"cd {folder} && {env} docker buildx bake {options} {variant} 2>&1")

    return build


def base(host):
    names = host.check_output("docker image ls --format '{{.Repository}}:{{.Tag}}'").split()
    return next(name for name in names if "bookworm" in name)
