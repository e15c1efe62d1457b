"""Who may read and write what: the two folders however they were made, a client's proxies, and the modes of the source.

The reasons are in docs/decisions/0001-the-image-starts-as-root-and-drops.md.
"""

import json
import re

import pytest
from conftest import FOLDER

PLACE = "/root/folders"  # with the folders of a test
PORT = 9090
UNUSED = "http://127.0.0.1:9"  # a proxy that nothing reaches
CONFIG = "/root/client"  # a Docker client's folder that hands this proxy to builds and containers
PROXIES = [name for kind in ("http", "https", "ftp", "all", "no") for name in (f"{kind}_proxy", f"{kind.upper()}_PROXY")]
ADOPTED = "10001:10001 755"


@pytest.fixture(autouse=True)
def place(host):
    """An empty folder, and after the test no container."""
    host.check_output(f"rm -rf {PLACE} && mkdir {PLACE}")
    yield
    host.run("docker rm --force --volumes folders")


@pytest.fixture(scope="module")
def client(host):
    """A variable for docker: its client's configuration names a proxy."""
    keys = ("httpProxy", "httpsProxy", "ftpProxy", "allProxy", "noProxy")
    config = json.dumps({"proxies": {"default": dict.fromkeys(keys, UNUSED)}})
    host.run_expect([0], f"mkdir -p {CONFIG} && printf %s %s > {CONFIG}/config.json", "%s", config)
    host.check_output(f"ln -sfn /usr/libexec/docker/cli-plugins {CONFIG}/cli-plugins")
    yield f"DOCKER_CONFIG={CONFIG}"
    host.check_output(f"rm -r {CONFIG}")


@pytest.fixture
def start(host, variant):
    """Start a container with these options of `docker run`, before and after a variable of docker's; the GPU image on the CPU."""

    def run(options, environment=""):
        command = (
            f"docker run -d --name folders -p 127.0.0.1:{PORT}:8080 -e IOPAINT_DEVICE=cpu {options} iopaint:{variant}-latest"
        )
        host.check_output(f"cd {PLACE} && {environment} {command}")

    return run


@pytest.fixture
def serve(host, start):
    """Start a container and wait until it answers; return its log."""

    def run(options, environment=""):
        start(options, environment)
        answers = f"curl -sSf --noproxy '*' {url('model')}"
        running = "docker inspect --format '{{.State.Running}}' folders | grep -q true"
        done = host.run(f"for i in $(seq 600); do {answers} && exit; {running} || exit 1; sleep 0.2; done; exit 1")
        logs = host.run("docker logs folders 2>&1").stdout
        assert done.rc == 0, logs
        return logs

    return run


@pytest.fixture
def refusal(host, variant):
    """Run a container that refuses to start; return its only sentence."""

    def run(options):
        done = host.run(f"cd {PLACE} && docker run --rm -e IOPAINT_DEVICE=cpu {options} iopaint:{variant}-latest")
        text = done.stdout + done.stderr
        assert done.rc == 77, text
        assert "Traceback" not in text
        (line,) = [line for line in text.splitlines() if "can't be" in line or "starts as root" in line]
        return line

    return run


def url(path):
    return f"http://127.0.0.1:{PORT}/api/v1/{path}"


def owner(host, path, where=PLACE):
    return host.check_output(f"stat -c '%u:%g %a' {where}/{path}")


def save(host, name="picture.png"):
    """Save a picture by the API, over one that may be there."""
    host.check_output(
        f"cp /etc/os-release /root/{name} && curl -sSf -F file=@/root/{name} {url('save_image')} && rm /root/{name}"
    )


def process(host, container="folders"):
    """What the kernel says of the container's first process."""
    lines = host.check_output(f"docker exec {container} cat /proc/1/status").splitlines()
    return {name: text.split() for name, _colon, text in (line.partition(":") for line in lines)}


def is_without_rights(host, container="folders", user="10001"):
    """The first process is this user's, and can never be more again."""
    status = process(host, container)
    assert status["Uid"] == [user] * 4
    assert {name: status[name] for name in status if name.startswith("Cap") and name != "CapBnd"} == {
        f"Cap{name}": ["0" * 16] for name in ("Inh", "Prm", "Eff", "Amb")
    }
    return status


def test_folders_that_the_engine_makes(host, serve):
    logs = serve("-e IOPAINT_MODEL=cv2 -v $PWD/test_models:/app/models -v $PWD/test_outputs:/app/outputs")
    assert "entrypoint: adopted 1 entry in /app/models for user 10001\n" in logs
    assert "entrypoint: adopted 1 entry in /app/outputs for user 10001\n" in logs
    save(host)
    save(host)
    assert owner(host, "test_models") == owner(host, "test_outputs") == ADOPTED
    assert owner(host, "test_outputs/picture.png") == "10001:10001 644"
    status = is_without_rights(host)
    assert (status["Gid"], status["Groups"]) == (["10001"] * 4, [])
    assert (status["CapBnd"], status["NoNewPrivs"]) == (["0" * 16], ["1"])


def test_weights_and_pictures_of_root(host, serve):
    """The command of README.md and no variable: LaMa from what root downloaded."""
    host.check_output(
        f"cd {PLACE} && umask 077 && mkdir -p test_models/torch/hub/checkpoints test_outputs"
        " && cp /srv/www/big-lama.pt test_models/torch/hub/checkpoints/ && chmod 600 test_models/torch/hub/checkpoints/*"
        " && echo old > test_outputs/picture.png && chmod 644 test_outputs/picture.png"
    )
    assert "adopted 5 entries in /app/models" in serve("-v $PWD/test_models:/app/models -v $PWD/test_outputs:/app/outputs")
    assert json.loads(host.check_output(f"curl -sSf {url('model')}"))["name"] == "lama"
    save(host)
    assert "old" not in host.check_output(f"cat {PLACE}/test_outputs/picture.png")
    host.check_output("docker restart folders")
    assert host.check_output("docker logs folders 2>&1 | grep -c adopted") == "2"


def test_folders_of_a_user(host, serve):
    host.check_output(f"cd {PLACE} && install -d -o 1234 -g 1234 -m 0700 models outputs")
    logs = serve("-e IOPAINT_MODEL=cv2 --user 1234:1234 -v $PWD/models:/app/models -v $PWD/outputs:/app/outputs")
    assert "adopted" not in logs
    save(host)
    assert owner(host, "outputs/picture.png") == "1234:1234 644"
    assert owner(host, "models") == "1234:1234 700"
    is_without_rights(host, user="1234")


def test_named_volumes_without_any_right(host, serve):
    volumes = "-v folders-models:/app/models -v folders-outputs:/app/outputs"
    serve(f"-e IOPAINT_MODEL=cv2 --user 10001:10001 --read-only --cap-drop ALL --tmpfs /tmp {volumes}")
    save(host)
    assert is_without_rights(host)["CapBnd"] == ["0" * 16]
    host.check_output("docker rm --force folders && docker volume rm folders-models folders-outputs")


def test_a_models_folder_that_is_read_only(host, serve, refusal):
    host.check_output(f"mkdir {PLACE}/models")
    line = refusal("-v $PWD/models:/app/models:ro")
    assert line.startswith("iopaint: the folder /app/models can't be used (/app/models/torch: Read-only file system); mount it")
    host.check_output(f"mkdir -p {PLACE}/models/torch/hub/checkpoints")  # IOPaint looks there for each model
    serve("-e IOPAINT_MODEL=cv2 -v $PWD/models:/app/models:ro")
    save(host)
    assert owner(host, "models") == "0:0 755"


def test_folders_that_can_not_be_used(host, refusal):
    host.check_output(f"cd {PLACE} && mkdir open && mkdir -m 0700 closed")
    for options in ("--user 10001:10001", "--user 10001:10001 --read-only --cap-drop ALL --tmpfs /tmp"):
        line = refusal(f"{options} -v $PWD/open:/app/outputs")
        assert line.startswith(
            "entrypoint: the folder /app/outputs can't be written by user 10001; on the host run `chown -R 10001:10001`"
        )
    assert "the folder /app/models can't be read by user 1234" in refusal(
        "--user 1234 --tmpfs /app/outputs:mode=1777 -v $PWD/closed:/app/models"
    )
    assert "/app/outputs can't be written on a read-only mount; mount it" in refusal("-v $PWD/open:/app/outputs:ro")
    assert "start it with --user 10001:10001" in refusal("--cap-drop ALL -v $PWD/open:/app/outputs")
    assert owner(host, "open") == "0:0 755"


def test_adoption_follows_no_link(host, variant):
    """The image's user can make links, and a start of the container is root's."""
    host.check_output(
        f"cd {PLACE} && mkdir -m 0700 secret && umask 077 && echo secret > secret/file && install -d -o 10001 outputs"
        " && ln -s /secret/file outputs/file && ln -s /secret outputs/folder && ln -s ../../etc/shadow outputs/shadow"
        " && mkfifo outputs/pipe && touch outputs/old"
    )
    command = "sh -c 'stat -c %u /etc/shadow; id -u'"
    mounts = "-v $PWD/secret:/secret -v $PWD/outputs:/app/outputs"
    assert host.check_output(f"cd {PLACE} && docker run --rm {mounts} iopaint:{variant}-latest {command}").split() == [
        "0",
        "10001",
    ]
    assert [owner(host, path) for path in ("secret", "secret/file")] == ["0:0 700", "0:0 600"]
    assert owner(host, "outputs/pipe") == "0:0 600"
    assert owner(host, "outputs/old") == "10001:10001 600"


def test_a_question_adopts_nothing(host, variant):
    host.check_output(f"cd {PLACE} && docker run --rm -v $PWD/models:/app/models iopaint:{variant}-latest check")
    assert owner(host, "models") == "0:0 755"


def test_stops_at_once_while_it_starts(host, start):
    """It is the first process, which the kernel sends no signal that it does not handle."""
    start("-e IOPAINT_MODEL=cv2")
    seen = host.check_output(
        "timeout 60 sh -c 'until docker logs folders 2>&1 | grep -q \"entrypoint: iopaint start\"; do sleep 0.1; done'"
        " && sleep 0.5 && date +%s%3N"
        " && docker stop --time 20 folders > /dev/null && date +%s%3N && docker inspect --format '{{.State.ExitCode}}' folders"
    )
    before, after, status = seen.split()
    assert int(after) - int(before) < 3000
    assert status == "143"


def compose(host, command, settings="", files="-f docker/compose.yaml"):
    """Run Compose without Ansible, with the CPU's service whatever the image is."""
    return host.check_output(f"cd {FOLDER} && {settings} PROJECT=folders docker compose {files} --profile cpu {command} 2>&1")


@pytest.fixture
def settings(host, variant, client):
    """Variables for Compose: the image, folders that are still to be made, and proxies in the environment and for the client."""
    host.check_output(f"printf 'IOPAINT_MODEL=cv2\\nIOPAINT_DEVICE=cpu\\n' > {FOLDER}/docker/options.env")
    proxies = f"{client} HTTPS_PROXY={UNUSED} http_proxy={UNUSED}"
    yield f"{proxies} CPU_IMAGE=iopaint:{variant}-latest MODELS={PLACE}/m OUTPUTS={PLACE}/o"
    compose(host, "down -v")
    host.check_output(f"rm {FOLDER}/docker/options.env")


def environment(host):
    words = json.loads(host.check_output("docker inspect --format '{{json .Config.Env}}' folders-iopaint-cpu-1"))
    return dict(word.split("=", 1) for word in words)


def test_compose_with_folders_that_the_engine_makes_and_no_proxy(host, settings):
    compose(host, "up -d --wait", settings)
    assert owner(host, "m") == owner(host, "o") == ADOPTED
    status = is_without_rights(host, "folders-iopaint-cpu-1")
    assert (status["CapBnd"], status["NoNewPrivs"]) == (["0" * 16], ["1"])
    local = dict.fromkeys(("no_proxy", "NO_PROXY"), "127.0.0.1,localhost")
    assert {name: text for name, text in environment(host).items() if name in PROXIES} == {**dict.fromkeys(PROXIES, ""), **local}


def test_compose_with_a_proxy_of_its_own_and_never_root(host, settings):
    """The form in which the plays deploy it. The health check passes by the proxy."""
    host.check_output(f"install -d -o 10001 -g 10001 {PLACE}/m {PLACE}/o")
    proxy = f"INSTANCE_HTTP_PROXY={UNUSED} INSTANCE_HTTPS_PROXY={UNUSED} INSTANCE_NO_PROXY=internal"
    compose(host, "up -d --wait", f"{settings} {proxy}", "-f docker/compose.yaml -f docker/unprivileged.yaml")
    found = environment(host)
    assert {name for name in PROXIES if found[name] == UNUSED} == {"http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY"}
    assert found["NO_PROXY"] == found["no_proxy"] == "127.0.0.1,localhost,internal"
    given = host.check_output(
        "docker inspect --format '{{.Config.User}} {{json .HostConfig.CapAdd}} {{.HostConfig.Init}}' folders-iopaint-cpu-1"
    )
    assert given == "10001:10001 null true"
    assert is_without_rights(host, "folders-iopaint-cpu-1")["CapBnd"] == ["0" * 16]


def test_serves_with_a_proxy_of_the_client(host, serve, client):
    serve("-e IOPAINT_MODEL=cv2", client)
    assert UNUSED in host.check_output("docker exec folders env")


PROBE = r"""ARG BASE
FROM ${BASE} AS cpu
RUN --mount=type=secret,id=network --mount=type=bind,source=build/with-network,target=/with-network \
    env; echo DOWNLOAD; sh /with-network env
FROM cpu AS gpu
"""


PROXIED = ["HTTP_PROXY", "NO_PROXY", "http_proxy", "no_proxy"]


@pytest.mark.usefixtures("client")
@pytest.mark.parametrize(
    ("given", "downloads"),
    [({}, []), ({"NETWORK": f"\"$(printf '%s\\n' HTTP_PROXY={UNUSED} NO_PROXY=internal)\""}, PROXIED)],
)
def test_builds_take_no_proxy_from_the_client(host, bake, given, downloads):
    files = "docker-bake.hcl build/with-network"
    host.check_output(f"mkdir {PLACE}/docker && cd {FOLDER}/docker && cp --parents {files} {PLACE}/docker/")
    host.run_expect([0], f"printf %s %s > {PLACE}/docker/Dockerfile", "%s", PROBE)
    of_the_shell = dict.fromkeys(("ALL_PROXY", "HTTP_PROXY", "http_proxy"), UNUSED)
    done = bake("folders:probe", "--no-cache", folder=PLACE, DOCKER_CONFIG=CONFIG, **of_the_shell, **given)
    assert done.rc == 0, done.stdout
    lines = re.findall(r"^#\d+ \d+\.\d+ (\S+)", done.stdout, re.MULTILINE)
    step, download = lines[: lines.index("DOWNLOAD")], lines[lines.index("DOWNLOAD") :]
    found = [sorted({line.split("=")[0] for line in part} & {*PROXIES}) for part in (step, download)]
    assert found == [[], downloads]
    host.check_output("docker rmi folders:probe")


ANYBODY_S = "find / -xdev ! -type l -perm /0002 ! -perm /1000"  # what everybody can write, but for folders as /tmp
WRONG = r"find /opt/iopaint /usr/share/iopaint-fleet ! -type l \( -perm /7022 -o ! -user root -o ! -group root -o ! -readable \)"


def layers(host, image):
    return json.loads(host.check_output(f"docker image inspect --format '{{{{json .RootFS.Layers}}}}' {image}"))


def test_modes_of_the_source_make_no_other_image(host, tree, bake):
    """A host's umask, a file that only its owner may read, and a checkout whose files are anybody's."""
    public = "install -D -m 0644 LICENSE web_app/public/licence"
    host.check_output(f"cp -r {FOLDER}/docker {PLACE}/docker && chmod 0600 {PLACE}/docker/image/*")
    usual = bake("folders:usual", SOURCE=tree("usual", f"{public} && chmod -R u=rwX,go=rX ."), SOURCE_DATE_EPOCH="1800000000")
    assert usual.rc == 0, usual.stdout[-3000:]
    private = tree("private", f"{public} && chmod -R go= .")
    done = bake("folders:private", SOURCE=private, SOURCE_DATE_EPOCH="1800000000", folder=PLACE)
    assert done.rc == 0, done.stdout[-3000:]
    assert layers(host, "folders:private") == layers(host, "folders:usual")
    shipped = "mkdir web_app/dist && cp LICENSE web_app/dist/index.html"
    anybody = tree("anybody", f"{public} && {shipped} && chown -R 1234:1234 . && chmod -R a=rwx,g+s,+t .")
    host.check_output(f"chmod -R a=rwx,g+s {PLACE}/docker")
    done = bake("folders:anybody", SOURCE=anybody, FRONTEND="shipped", folder=PLACE)
    assert done.rc == 0, done.stdout[-3000:]
    assert host.check_output(f"docker run --rm --user 10001:10001 folders:anybody {WRONG}") == ""
    everywhere = "docker run --rm --read-only --user 0:0 --cap-add DAC_READ_SEARCH --entrypoint sh folders:anybody -c"
    assert host.check_output(f"{everywhere} '{ANYBODY_S}'") == ""
    host.check_output("docker rmi folders:usual folders:private folders:anybody && rm -r /root/usual /root/private /root/anybody")
