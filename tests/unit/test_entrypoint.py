# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What docker/image/entrypoint makes of the environment, the command line and the application's source."""

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

ENTRYPOINT = Path(__file__).resolve().parents[2] / "docker" / "image" / "entrypoint"
# Root in a user namespace of its own, without root's rights; what root owns is this user's own there.
NOT_ROOT = () if os.geteuid() else ("unshare", "--user", "--map-user=1000")
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
STRANGER = 12345

TREE = {
    "__init__.py": 'raise ImportError("the entrypoint has to read the application, not to import it")\n',
    "cli.py": """
        from somewhere_slow import *

        @app.command(help="Batch")
        def run(image: Path = Option(...)):
            pass

        @app.command(help="Start")
        @use_json_config()
        def start(
            host: str = Option("127.0.0.1"),
            port: int = Option(8080),
            model: str = Option(DEFAULT_MODEL, help=f"one of {AVAILABLE_MODELS}"),
            model_dir: Path = Option(DEFAULT_MODEL_DIR, callback=setup_model_dir),
            low_mem: bool = Option(False),
            no_half: bool = Option(False),
            half: bool = Option(False),
            warm_up: bool = Option(default=True),
            device: Device = Option(Device.cpu),
            input: Optional[Path] = Option(None),
            output_dir: Path | None = typer.Option(None),
            quality: int = Option(100),
            workers: int = Option(...),
            api_key: Optional[str] = Option(None),
            internal=None,
        ):
            raise RuntimeError
        """,
    "schema.py": """
        class Device(Choices):
            cpu = "cpu"
            cuda = "cuda"
        """,
    "const.py": """
        DEFAULT_MODEL_DIR = os.path.expanduser("~/.cache")
        DEFAULT_MODEL = "lama"
        AVAILABLE_MODELS: List[str] = ["lama", "cv2"]
        """,
    "model/__init__.py": """
        from .lama import LaMa, AnimeLaMa
        from .sd import SD15

        models = {LaMa.name: LaMa, AnimeLaMa.name: AnimeLaMa, SD15.name: SD15, Computed.name: Computed}
        """,
    "model/lama.py": """
        class LaMa(InpaintModel):
            name = "lama"

        class AnimeLaMa(LaMa):
            name = "anime-lama"

        class Helper(InpaintModel):
            name = "helper"
        """,
    "model/deep/sd.py": """
        class SD15(SD):
            name = "owner/stable-diffusion"

        class Computed(SD):
            name = COMPUTED_NAME
        """,
}


@pytest.fixture(scope="module")
def entrypoint():
    """docker/image/entrypoint as a module."""
    loader = SourceFileLoader("entrypoint", str(ENTRYPOINT))
    module = module_from_spec(spec_from_loader(loader.name, loader))
    loader.exec_module(module)
    return module


@pytest.fixture
def source(tmp_path):
    """A folder with an application in the style of IOPaint."""
    folder = tmp_path / "source"
    for name, text in TREE.items():
        path = folder / "iopaint" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("\n        ", "\n").lstrip())
    return folder


@pytest.fixture
def app(tmp_path):
    """The folder that stands for /app of the image, with the folders of models and outputs."""
    for name in ("models", "outputs"):
        (tmp_path / "app" / name).mkdir(parents=True)
    return tmp_path / "app"


@pytest.fixture
def launch(source, tmp_path, app):
    """Run the entrypoint in a clean environment and not as root, with a stand-in for iopaint that shows what it was given."""
    bin_dir = tmp_path / "bin"
    bin_dir.mkdir()
    iopaint = bin_dir / "iopaint"
    iopaint.write_text('#!/bin/sh\necho "pid $$"\nfor word; do echo "$word"; done\nexit 7\n')
    iopaint.chmod(0o755)
    script = bin_dir / "entrypoint"
    script.write_text(ENTRYPOINT.read_text().replace('"/app/', f'"{app}/'))

    def run(*arguments, python_path=(), prefix=NOT_ROOT, **variables):
        environ = {
            "PATH": f"{bin_dir}:{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join(map(str, [source, *python_path])),
            "PYTHONDONTWRITEBYTECODE": "1",
            **variables,
        }
        command = [*prefix, sys.executable, "-IB", str(script), *arguments]
        with subprocess.Popen(
            command, env=environ, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as child:
            out, err = child.communicate(timeout=60)
            child.out, child.err = out.replace(f"{app}/", "/app/"), err.replace(f"{app}/", "/app/")
        return child

    return run


@pytest.fixture
def torch(tmp_path):
    """Make a stand-in for torch from the text of its one module; gives the folder for the module path."""

    def write(text):
        folder = tmp_path / "torch_stand_in"
        folder.mkdir()
        (folder / "torch.py").write_text(text)
        return [folder]

    return write


NO_CUDA = """
class cuda:
    is_available = staticmethod(lambda: False)
    @staticmethod
    def init():
        raise RuntimeError("Found no NVIDIA driver on your system")
"""


@pytest.fixture
def flags(entrypoint, source):
    """The flags that the environment (keywords without IOPAINT_) and these arguments make."""

    def make(*arguments, **variables):
        environ = {f"IOPAINT_{name}": value for name, value in variables.items()}
        command, _values = entrypoint.plan(list(arguments), source, environ)
        assert command[:2] == ["iopaint", "start"]
        return command[2:]

    return make


@pytest.fixture
def refusal(flags, capsys):
    """The lines that refuse this environment."""

    def make(*arguments, **variables):
        with pytest.raises(SystemExit) as stop:
            flags(*arguments, **variables)
        assert stop.value.code == 64
        lines = capsys.readouterr().err.splitlines()
        assert all(line.startswith("entrypoint: ") for line in lines)
        return [line[len("entrypoint: ") :] for line in lines]

    return make


def value_of(flag, words):
    """The word after a flag, which is there once."""
    assert words.count(flag) == 1, words
    return words[words.index(flag) + 1]


# What the source says


def test_options_are_those_of_the_source(entrypoint, source):
    options = {option.name: option for option in entrypoint.read_options(source)}
    assert list(options) == [
        *("host", "port", "model", "model_dir", "low_mem", "no_half", "half", "warm_up", "device"),
        *("input", "output_dir", "quality", "workers", "api_key", "config"),
    ]
    assert options["host"] == ("host", "str", "127.0.0.1", None)
    assert options["port"] == ("port", "int", 8080, None)
    assert options["model"].default == "lama"  # through const.DEFAULT_MODEL
    assert options["model_dir"] == ("model_dir", "Path", None, None)  # computed: not known without running it
    assert options["warm_up"] == ("warm_up", "bool", True, None)
    assert options["low_mem"].default is False
    assert options["device"] == ("device", "enum", "cpu", ["cpu", "cuda"])
    assert options["input"].type == "Path"
    assert options["workers"] == ("workers", "int", None, None)
    assert (options["model_dir"].flag, options["model_dir"].env) == ("--model-dir", "IOPAINT_MODEL_DIR")


@pytest.mark.parametrize("annotation", ["Optional[Path]", "Path | None", "Path"])
def test_optional_types_count_as_their_type(entrypoint, source, annotation):
    (source / "iopaint" / "cli.py").write_text(f"def start(ctx: Context, *, input: {annotation} = Option(None)): ...")
    assert entrypoint.read_options(source) == [("input", "Path", None, None)]


def test_config_is_an_option_only_where_the_decorator_is(entrypoint, source):
    cli = source / "iopaint" / "cli.py"
    cli.write_text(cli.read_text().replace("@use_json_config()\n", ""))
    assert "config" not in [option.name for option in entrypoint.read_options(source)]


def test_models_are_listed_or_registered(entrypoint, source):
    assert entrypoint.read_models(source) == ["anime-lama", "cv2", "lama"]


def test_models_need_no_list(entrypoint, source):
    (source / "iopaint" / "const.py").write_text("def AVAILABLE_MODELS():\n    return []\n")
    assert entrypoint.read_models(source) == ["anime-lama", "lama"]


@pytest.mark.parametrize("name", ["cli.py", "schema.py", "const.py", "model/__init__.py"])
@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_text("def (")])
def test_unreadable_source(launch, source, name, damage):
    damage(source / "iopaint" / name)
    done = launch("check", "--source", str(source), IOPAINT_MODEL="anime-lama")  # which is registered, not listed
    assert done.returncode == 70
    assert str(source / "iopaint" / name) in done.err
    assert len(done.err.splitlines()) == 1


def test_source_without_start(launch, source):
    (source / "iopaint" / "cli.py").write_text("")
    done = launch("check")
    assert done.returncode == 70
    assert "cli.py has no function start" in done.err


def test_not_installed(launch):
    done = launch(PYTHONPATH="")
    assert done.returncode == 70
    assert "iopaint is not installed" in done.err


# From variables to flags


def test_image_defaults(flags):
    expected = "--host 0.0.0.0 --port 8080 --model-dir /app/models --device cpu --output-dir /app/outputs"
    assert flags() == expected.split()


def test_image_defaults_only_where_the_option_exists(entrypoint, source):
    (source / "iopaint" / "cli.py").write_text("def start(port: int = Option(80)): ...")
    assert entrypoint.plan([], source, {})[0] == ["iopaint", "start", "--port", "8080"]


@pytest.mark.parametrize(("variant", "device"), [("gpu", "cuda"), ("cpu", "cpu")])
def test_device_follows_the_variant(flags, variant, device):
    assert value_of("--device", flags(FLEET_VARIANT=variant)) == device
    assert value_of("--device", flags(FLEET_VARIANT=variant, DEVICE="cpu")) == "cpu"


def test_values_become_flags(flags):
    words = flags(MODEL="cv2", PORT="9000", MODEL_DIR="/m m", QUALITY="1", WORKERS="-1", INPUT="", HOST="::")
    assert value_of("--model", words) == "cv2"
    assert value_of("--port", words) == "9000"
    assert value_of("--model-dir", words) == "/m m"
    assert value_of("--quality", words) == "1"
    assert value_of("--workers", words) == "-1"
    assert value_of("--host", words) == "::"
    assert "--input" not in words


@pytest.mark.parametrize("text", ["true", "True", "1", "yes", "YES", "on"])
def test_true(flags, text):
    words = flags(LOW_MEM=text, NO_HALF=text, WARM_UP=text)
    assert [word for word in words if word in ("--low-mem", "--no-half", "--warm-up")] == [
        *("--low-mem", "--no-half", "--warm-up"),
    ]


@pytest.mark.parametrize("text", ["false", "False", "0", "no", "NO", "off"])
def test_false_is_said_only_where_the_default_is_true(flags, text):
    words = flags(LOW_MEM=text, NO_HALF=text, WARM_UP=text)
    assert words == [*flags()[:6], "--no-warm-up", *flags()[6:]]


def test_empty_is_not_set(flags):
    assert flags(MODEL="", PORT="", LOW_MEM="", DEVICE="", NO_SUCH_OPTION="") == flags()


def test_other_variables_are_nobody_s_business(entrypoint, source):
    environ = {"HF_TOKEN": "secret", "MODEL": "x", "IOPAINT_FLEET_VARIANT": "cpu"}
    assert entrypoint.plan([], source, environ) == entrypoint.plan([], source, {})


def test_limits_are_checked_and_no_option_of_iopaint_s(entrypoint, source, refusal):
    environ = {"IOPAINT_FLEET_QUEUE": "8", "IOPAINT_FLEET_ALLOWED_HOSTS": "paint.example.com", "IOPAINT_FLEET_OUTPUTS_GB": "0"}
    assert entrypoint.plan([], source, environ)[0] == entrypoint.plan([], source, {})[0]
    (wrong,) = refusal(FLEET_QUEUE="-1")
    assert "IOPAINT_FLEET_QUEUE='-1' is wrong, accepted: a whole number from 0" in wrong
    typo, _known = refusal(FLEET_QUEU="1")
    assert "IOPAINT_FLEET_QUEU is no option of this IOPaint (nearest: IOPAINT_FLEET_QUEUE)" in typo


@pytest.mark.parametrize("given", [["--model", "lama"], ["--model=lama"]])
def test_arguments_win(flags, given):
    words = flags(*given, "--port", "1", MODEL="cv2", PORT="2")
    assert words[-len(given) - 2 :] == [*given, "--port", "1"]
    assert "cv2" not in words
    assert words.count("--port") == 1


@pytest.mark.parametrize(
    ("given", "variable", "gone"),
    [
        ("--low-mem", "LOW_MEM", "--low-mem"),
        ("--no-low-mem", "LOW_MEM", "--low-mem"),
        ("--no-half", "NO_HALF", "--no-half"),
        ("--no-no-half", "NO_HALF", "--no-half"),
        ("--no-warm-up", "WARM_UP", "--warm-up"),
    ],
)
def test_switches_given_win(flags, given, variable, gone):
    words = flags(given, **{variable: "true"})
    assert words.count(given) == 1
    assert gone == given or gone not in words


def test_no_half_is_not_the_negation_of_half(flags):
    words = flags("--no-half", HALF="true")
    assert "--half" in words


def test_the_value_of_a_flag_is_no_flag(flags):
    assert "--low-mem" in flags("--api-key", "--low-mem", LOW_MEM="true")[:-2]


# Config files


@pytest.fixture
def config(tmp_path):
    """A config file as IOPaint's own page writes it."""
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"host": "127.0.0.1", "low_mem": True, "device": "cuda", "output_dir": None}))
    return str(path)


def test_config_wins_over_image_defaults(flags, config):
    expected = f"--port 8080 --model-dir /app/models --output-dir /app/outputs --config {config}".split()
    assert flags(CONFIG=config) == expected
    assert flags("--config", config) == [*expected[:-2], "--config", config]
    assert flags(f"--config={config}") == [*expected[:-2], f"--config={config}"]


def test_environment_wins_over_config(flags, config):
    words = flags(CONFIG=config, HOST="1.2.3.4", LOW_MEM="false")
    assert value_of("--host", words) == "1.2.3.4"
    assert "--no-low-mem" in words


def test_without_a_folder_for_outputs_the_page_downloads(flags, refusal):
    assert "--output-dir" not in flags(FLEET_SAVE_TO="browser")
    assert value_of("--output-dir", flags(FLEET_SAVE_TO="host")) == "/app/outputs"
    assert value_of("--output-dir", flags(FLEET_SAVE_TO="browser", OUTPUT_DIR="/app/outputs/a")) == "/app/outputs/a"
    assert refusal(FLEET_SAVE_TO="disk") == ["IOPAINT_FLEET_SAVE_TO='disk' is wrong, accepted: host, browser"]


def test_values_include_the_config(entrypoint, source, config):
    _command, values = entrypoint.plan([], source, {"IOPAINT_CONFIG": config})
    assert (values["device"], values["host"], values["port"]) == ("cuda", "127.0.0.1", 8080)


@pytest.mark.parametrize("text", [None, "{", "[]", "\udcff"])
def test_unreadable_config(refusal, tmp_path, text):
    path = tmp_path / "broken.json"
    if text is not None:
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
    (line,) = refusal(CONFIG=str(path))
    assert f"the config file {path} is not a readable JSON object" in line


def test_model_of_the_config_is_checked(refusal, tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{"model": "lamma"}')
    (line,) = refusal(CONFIG=str(path))
    assert line.startswith("model='lamma' is no model of this IOPaint (nearest: lama), accepted: ")


# Wrong variables and values


def test_unknown_variable(refusal):
    line, known = refusal(MODLE="hf_secret")
    assert line == "IOPAINT_MODLE is no option of this IOPaint (nearest: IOPAINT_MODEL)"
    assert known.startswith("accepted variables: IOPAINT_API_KEY, IOPAINT_CONFIG, IOPAINT_DEVICE, ")
    assert "IOPAINT_LOW_MEM" in known


@pytest.mark.parametrize(
    ("name", "text", "accepted"),
    [
        ("PORT", "http", "a whole number from 1 to 65535"),
        ("PORT", "0", "a whole number from 1 to 65535"),
        ("PORT", "65536", "a whole number from 1 to 65535"),
        ("PORT", "80.5", "a whole number from 1 to 65535"),
        ("PORT", " 80", "a whole number from 1 to 65535"),
        ("QUALITY", "0", "a whole number from 1 to 100"),
        ("QUALITY", "101", "a whole number from 1 to 100"),
        ("WORKERS", "²", "a whole number"),
        ("LOW_MEM", "maybe", "true, false, 1, 0, yes, no, on, off"),
        ("DEVICE", "gpu", "cpu, cuda"),
        ("DEVICE", "CUDA", "cpu, cuda"),
        ("FLEET_REQUIRE_GPU", "never", "true, false, 1, 0, yes, no, on, off"),
    ],
)
def test_wrong_value(refusal, name, text, accepted):
    assert refusal(**{name: text}) == [f"IOPAINT_{name}={text!r} is wrong, accepted: {accepted}"]


def test_all_problems_at_once(refusal, tmp_path):
    lines = refusal(MODLE="x", PRT="1", PORT="x\ny", LOW_MEM="2", MODEL="lamaa", CONFIG=str(tmp_path / "none"))
    assert [line.split("=")[0].split(" ")[0] for line in lines] == [
        *("IOPAINT_LOW_MEM", "IOPAINT_PORT", "IOPAINT_MODLE", "IOPAINT_PRT"),
        *("accepted", "the", "IOPAINT_MODEL"),
    ]


# Models


@pytest.mark.parametrize("model", ["lama", "anime-lama", "cv2", "owner/stable-diffusion", "any-one/any.thing_1"])
def test_known_models(flags, model):
    assert value_of("--model", flags(MODEL=model)) == model


@pytest.mark.parametrize(
    ("model", "hint"),
    [
        ("LaMa", " (nearest: lama)"),
        ("anime_lama", " (nearest: anime-lama)"),
        ("helper", ""),
        ("a/b/c", ""),
        ("/lama", " (nearest: lama)"),
        ("https://host/x", ""),
    ],
)
def test_unknown_models(refusal, model, hint):
    (line,) = refusal(MODEL=model)
    start = f"IOPAINT_MODEL={model!r} is no model of this IOPaint{hint}, accepted: anime-lama, cv2, lama, a Hugging Face id"
    assert line.startswith(start)


def test_model_given_as_argument_is_checked(refusal):
    (line,) = refusal("--model", "lamma", MODEL="lama")
    assert line.startswith("--model='lamma' is no model")


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("stable_diffusion/v1.safetensors", "v1.safetensors"),
        ("stable_diffusion/converted/model_index.json", "converted"),
        ("stable_diffusion_xl/xl.ckpt", "xl.ckpt"),
        ("huggingface/hub/models--bare/refs/main", "bare"),
    ],
)
def test_models_of_the_model_directory(flags, refusal, tmp_path, path, model):
    file = tmp_path / "models" / path
    file.parent.mkdir(parents=True)
    file.touch()
    assert value_of("--model", flags(MODEL=model, MODEL_DIR=str(tmp_path / "models"))) == model
    assert "--model" in flags(f"--model-dir={tmp_path}/models", "--model", model)
    (line,) = refusal(MODEL=model)  # not in the image's own directory
    assert line.startswith("IOPAINT_MODEL=")


# As a process


@pytest.mark.parametrize("arguments", [[], ["iopaint", "start"]])
def test_starts_iopaint(launch, arguments):
    done = launch(*arguments, IOPAINT_MODEL="cv2")
    words = "start --host 0.0.0.0 --port 8080 --model cv2 --model-dir /app/models --device cpu --output-dir /app/outputs"
    assert done.out.split("\n") == [f"pid {done.pid}", *words.split(), ""]  # the same process: signals reach it
    assert done.err == f"entrypoint: iopaint {words}\n"
    assert done.returncode == 7


def test_leading_flag_means_start(launch):
    done = launch("--model", "lama", "--port=81", IOPAINT_PORT="82")
    words = "start --host 0.0.0.0 --model-dir /app/models --device cpu --output-dir /app/outputs --model lama --port=81"
    assert done.out.splitlines()[1:] == words.split()


def test_help_is_not_stopped_by_the_environment(launch):
    done = launch("--help", IOPAINT_NOPE="1")
    assert done.out.splitlines()[1:] == ["start", "--help"]


@pytest.mark.parametrize("command", ["iopaint list --model-dir /m", "iopaint start-web-config", "iopaint run -x"])
def test_other_iopaint_commands_pass_unchanged(launch, command):
    done = launch(*command.split(), IOPAINT_NOPE="1", IOPAINT_FLEET_VARIANT="gpu")
    assert done.out.splitlines()[1:] == command.split()[1:]
    assert (done.err, done.returncode) == ("", 7)


def test_other_commands_pass_unchanged(launch):
    done = launch("sh", "-c", "echo $0 $1; trap; yes | head -n 1; exit 3", "a b", "$x", PYTHONPATH="")
    assert (done.out, done.err, done.returncode) == ("a b $x\ny\n", "", 3)  # no "broken pipe": SIGPIPE is as it was


def test_commands_that_can_t_run(launch, tmp_path):
    done = launch("no-such-command")
    assert (done.returncode, done.err) == (127, "entrypoint: no-such-command: No such file or directory\n")
    done = launch(str(tmp_path))
    assert done.returncode == 126


def test_wrong_environment_starts_nothing(launch):
    done = launch(IOPAINT_PORT="x")
    assert (done.returncode, done.out) == (64, "")
    assert done.err.startswith("entrypoint: IOPAINT_PORT='x' is wrong")


@pytest.mark.parametrize(
    ("arguments", "variables"),
    [
        ([], {"IOPAINT_API_KEY": "hunter 2"}),
        (["--api-key", "hunter 2"], {}),
        (["--api-key=hunter 2"], {}),
    ],
)
def test_secrets_stay_out_of_the_log(launch, arguments, variables):
    done = launch(*arguments, **variables, IOPAINT_MODEL="key/model")
    assert "hunter 2" in done.out
    assert "hunter" not in done.err
    assert "***" in done.err
    assert "key/model" in done.err


def test_check(launch, source):
    done = launch("check", "--source", str(source), PYTHONPATH="", IOPAINT_LOW_MEM="on", IOPAINT_FLEET_VARIANT="gpu")
    assert (done.returncode, done.err) == (0, "")  # and no look for a GPU: it may run on another machine
    assert done.out == (
        "iopaint start --host 0.0.0.0 --port 8080 --model-dir /app/models --low-mem --device cuda --output-dir /app/outputs\n"
    )


def test_check_finds_the_installed_source(launch):
    assert launch("check").out.startswith("iopaint start --host 0.0.0.0 ")


def test_check_refuses(launch):
    done = launch("check", IOPAINT_MODEL="lamma", IOPAINT_PROT="1")
    assert (done.returncode, done.out) == (64, "")
    assert len(done.err.splitlines()) == 3


def test_options(launch, source):
    done = launch("options", "--source", str(source), IOPAINT_NOPE="1")
    options = {option["name"]: option for option in json.loads(done.out)}
    assert options["device"] == {
        "name": "device",
        "type": "enum",
        "default": "cpu",
        "choices": ["cpu", "cuda"],
        "env": "IOPAINT_DEVICE",
        "flag": "--device",
    }
    assert options["config"]["env"] == "IOPAINT_CONFIG"


# Folders that can't be used


@pytest.fixture
def locked(app):
    """Take permissions from one of the folders, of which the test's user is the owner."""

    def lock(name, mode):
        (app / name).chmod(mode)

    yield lock
    for folder in app.iterdir():
        folder.chmod(0o700)


@pytest.mark.parametrize(
    ("name", "mode", "verb"), [("outputs", 0o555, "written"), ("outputs", 0o600, "written"), ("models", 0o300, "read")]
)
def test_an_unusable_folder_is_one_sentence(launch, locked, name, mode, verb):
    locked(name, mode)
    done = launch()
    assert (done.returncode, done.out) == (77, "")
    (line,) = done.err.splitlines()
    assert re.match(rf"entrypoint: the folder /app/{name} can't be {verb} by user \d+; on the host run `chown -R \d+:\d+` ", line)
    assert "--user UID:GID" in line
    assert "without --user" in line


def test_a_models_folder_that_is_only_readable_will_do(launch, locked):
    locked("models", 0o500)
    assert launch().returncode == 7


def test_a_missing_folder_is_judged_by_its_parent(launch, app, locked):
    assert launch(IOPAINT_OUTPUT_DIR=str(app / "outputs/a/b")).returncode == 7
    locked("outputs", 0o500)
    done = launch(IOPAINT_OUTPUT_DIR=str(app / "outputs/a/b"))
    assert done.returncode == 77
    assert "the folder /app/outputs/a/b can't be created in /app/outputs by user" in done.err


def test_a_folder_that_is_never_adopted_is_not_said_to_be(launch, tmp_path):
    (tmp_path / "elsewhere").mkdir(mode=0o500)
    done = launch(IOPAINT_OUTPUT_DIR=str(tmp_path / "elsewhere"))
    assert done.returncode == 77
    assert "without --user" not in done.err


def test_a_folder_that_nothing_is_mounted_on(launch, tmp_path):
    (tmp_path / "elsewhere").mkdir(mode=0o500)
    done = launch(IOPAINT_OUTPUT_DIR=str(tmp_path / "elsewhere/outputs"))
    assert done.returncode == 77
    assert re.search(r"elsewhere/outputs is missing and user \d+ can't create it in /", done.err)
    assert "; mount a folder there that user" in done.err


def test_a_token_that_can_t_be_read_is_said_before_the_start(launch, tmp_path):
    done = launch(IOPAINT_FLEET_TOKEN_FILE=str(tmp_path / "nowhere"))
    assert done.returncode == 77
    assert f"IOPAINT_FLEET_TOKEN_FILE: {tmp_path}/nowhere can't be read by user" in done.err


def test_folders_that_no_option_names_are_not_judged(launch, source, locked):
    cli = source / "iopaint/cli.py"
    cli.write_text(re.sub(".*output_dir.*\n", "", cli.read_text()))
    locked("outputs", 0o500)
    assert launch().returncode == 7


@pytest.mark.parametrize("command", [["check"], ["options"], ["sh", "-c", "exit 0"], ["iopaint", "start", "--help"]])
def test_other_commands_need_no_folder(launch, locked, command):
    locked("outputs", 0o500)
    assert launch(*command).returncode in (0, 7)


# As root


@pytest.mark.parametrize(
    ("mode", "owner", "group", "bits"),
    [
        (0o100600, 10001, 0, 0),
        (0o100400, 10001, 10001, 0o2),
        (0o100660, 0, 10001, 0),
        (0o100646, 0, 10001, 0o2),  # the group's bits count, although the others' would do
        (0o100666, 0, 0, 0),
        (0o100644, 0, 0, 0o2),
        (0o100600, 0, 0, 0o6),
        (0o040755, 10001, 0, 0),
        (0o040600, 10001, 0, 0o1),
        (0o040755, 0, 0, 0o2),
        (0o041777, 0, 0, 0),
    ],
)
def test_permissions_that_the_user_lacks(entrypoint, mode, owner, group, bits):
    assert entrypoint.lacking(os.stat_result((mode, 1, 1, 1, owner, group, 0, 0, 0, 0))) == bits


def state(path):
    """Owner, group and mode."""
    status = path.lstat()
    return status.st_uid, status.st_gid, status.st_mode & 0o7777


@AS_ROOT
def test_adopts_what_its_user_can_not_write(entrypoint, app):
    models = app / "models"
    (models / "deep").mkdir(mode=0o700)
    for name, mode in {"deep/weights.pt": 0o600, "read-only": 0o444, "shared": 0o666, "suid": 0o4755}.items():
        (models / name).touch()
        (models / name).chmod(mode)
    (models / "own").touch()
    os.chown(models / "own", 10001, 10001)
    (models / "own").chmod(0o400)
    (models / "theirs").mkdir()
    os.chown(models / "theirs", STRANGER, STRANGER)
    assert entrypoint.adopt(str(models)) == 7
    assert state(models) == (10001, 10001, 0o755)
    assert state(models / "deep") == (10001, 10001, 0o700)
    assert state(models / "deep/weights.pt") == (10001, 10001, 0o600)
    assert state(models / "read-only") == (10001, 10001, 0o644)
    assert state(models / "suid") == (10001, 10001, 0o755)
    assert state(models / "own") == (10001, 10001, 0o600)
    assert state(models / "theirs") == (10001, 10001, 0o755)
    assert state(models / "shared") == (0, 0, 0o666)
    assert entrypoint.adopt(str(models)) == 0


@AS_ROOT
def test_adoption_never_leaves_the_folder(entrypoint, app):
    outputs, outside = app / "outputs", app / "outside"
    outside.mkdir()
    (outside / "secret").touch()
    (outside / "twice").touch()
    (outputs / "file").symlink_to(outside / "secret")
    (outputs / "folder").symlink_to(outside)
    (outputs / "up").symlink_to("..")
    (outputs / "loop").symlink_to("loop")
    os.link(outside / "twice", outputs / "twice")
    before = {path: state(path) for path in (outside, outside / "secret", outside / "twice")}
    assert entrypoint.adopt(str(outputs)) == 1  # the folder itself
    assert {path: state(path) for path in before} == before
    (app / "link").symlink_to(outside)
    assert entrypoint.adopt(str(app / "link")) == 0
    assert {path: state(path) for path in before} == before


@AS_ROOT
def test_pipes_and_devices_are_left_alone(entrypoint, app):
    os.mkfifo(app / "outputs/pipe")
    os.mknod(app / "outputs/null", 0o020600, os.makedev(1, 3))
    assert entrypoint.adopt(str(app / "outputs")) == 1
    assert [state(app / "outputs" / name)[0] for name in ("pipe", "null")] == [0, 0]


@AS_ROOT
def test_a_folder_too_deep_to_walk_ends_the_adoption_only(entrypoint, app, nest):
    nest(app / "outputs", 1500)
    assert entrypoint.adopt(str(app / "outputs")) > 100


def test_nothing_to_adopt_where_there_is_no_folder(entrypoint, tmp_path):
    assert entrypoint.adopt(str(tmp_path / "none")) == 0


@AS_ROOT
def test_root_is_dropped_for_good_and_arguments_are_kept():
    with TemporaryDirectory() as place:
        os.chmod(place, 0o755)  # noqa: S103 - the image's user has to find the script
        (Path(place) / "outputs").mkdir()
        script = Path(place) / "entrypoint"
        script.write_text(ENTRYPOINT.read_text().replace('"/app/', f'"{place}/'))
        words = ["sh", "-c", 'grep -E "^(Uid|Gid|Groups|Cap|NoNew)" /proc/self/status; echo "$0:$1"', "a  b", "--reuid=0"]
        done = subprocess.run(["/usr/bin/python3", script, *words], capture_output=True, text=True, check=False)
        assert (done.stderr, done.returncode) == (f"entrypoint: adopted 1 entry in {place}/outputs for user 10001\n", 0)
    *status, arguments = done.stdout.splitlines()
    assert arguments == "a  b:--reuid=0"
    values = {name: value.split() for name, _colon, value in (line.partition(":") for line in status)}
    assert values.pop("Uid") == values.pop("Gid") == ["10001"] * 4
    assert values.pop("Groups") == []
    assert values.pop("NoNewPrivs") == ["1"]
    assert values == {f"Cap{name}": ["0" * 16] for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")}


@AS_ROOT
@pytest.mark.parametrize("command", ["check", "options"])
def test_questions_adopt_nothing(launch, app, command):
    launch(command, prefix=())
    assert [state(app / name)[0] for name in ("models", "outputs")] == [0, 0]


@AS_ROOT
@pytest.mark.parametrize("arguments", [[], ["sh", "-c", "echo started"]])
def test_root_without_capabilities_starts_nothing(launch, app, arguments):
    done = launch(*arguments, prefix=["setpriv", "--bounding-set=-all", "--inh-caps=-all"])
    assert (done.returncode, done.out) == (77, "")
    (line,) = done.err.splitlines()
    assert "(SETGID, SETUID, SETPCAP); start it with --user 10001:10001" in line
    assert state(app / "models")[0] == 0


def test_python_of_the_image_starts_isolated():
    """A variable such as PYTHONPATH would have root import from a folder that the instance can write."""
    assert ENTRYPOINT.read_text().splitlines()[0] == "#!/opt/iopaint/bin/python -IB"
    recipe = (ENTRYPOINT.parents[1] / "Dockerfile").read_text()
    assert 'ENTRYPOINT ["/opt/iopaint/bin/entrypoint"]' in recipe


@AS_ROOT
def test_root_imports_nothing_that_a_variable_names(launch, app):
    trap = app / "outputs"
    for module in ("argparse", "sitecustomize", "usercustomize"):
        (trap / f"{module}.py").write_text(f"open({str(app / 'sprung')!r}, 'a').write(f'{{__import__(\"os\").geteuid()}} ')\n")
    variables = {"PYTHONSTARTUP": str(trap / "argparse.py"), "PYTHONUSERBASE": str(trap)}
    launch("true", prefix=(), python_path=[trap], **variables)
    assert not (app / "sprung").exists()


@pytest.fixture
def drop(source):
    """Run the entrypoint as root in a place that its user can look into: drop(prepare, prefix), prepare(outputs)."""

    def run(prepare, prefix=()):
        with TemporaryDirectory() as place:
            os.chmod(place, 0o755)  # noqa: S103 - the image's user has to find the script
            outputs = Path(place, "outputs")
            for folder in (outputs, Path(place, "models")):
                folder.mkdir(mode=0o755)
            shutil.copytree(source, Path(place, "source"))
            script = Path(place, "entrypoint")
            script.write_text(ENTRYPOINT.read_text().replace('"/app/', f'"{place}/'))
            environ = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{place}/source"}
            try:
                prepare(outputs)
                command = [*prefix, "/usr/bin/python3", "-IB", script]
                return subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
            finally:
                subprocess.run(["chattr", "-i", outputs], capture_output=True, check=False)

    return run


@AS_ROOT
@pytest.mark.parametrize(
    ("kept", "says"),
    [
        ("", "or grant the container the capabilities to adopt it, which it lacks (CHOWN, DAC_OVERRIDE, FOWNER)"),
        (",+dac_override,+fowner", "or grant the container the capabilities to adopt it, which it lacks (CHOWN)"),
    ],
)
def test_root_without_the_capabilities_to_adopt_names_them(drop, kept, says):
    bounding = f"-all,+setuid,+setgid,+setpcap{kept}"
    done = drop(lambda outputs: None, ["setpriv", f"--bounding-set={bounding}", "--inh-caps=-all"])
    assert done.returncode == 77, done.stderr
    assert "/outputs can't be written by user 10001; on the host run `chown -R 10001:10001` on the folder" in done.stderr
    assert says in done.stderr
    assert "without --user" not in done.stderr


@AS_ROOT
def test_a_file_system_that_refuses_root_is_named(drop):
    """As NFS with root_squash does; an immutable folder stands for it."""

    def prepare(outputs):
        if subprocess.run(["chattr", "+i", outputs], capture_output=True, check=False).returncode:
            pytest.skip("this file system knows no immutable files")

    done = drop(prepare)
    assert done.returncode == 77, done.stderr
    assert "the container started as root to adopt the folder, and its file system refused that" in done.stderr


@AS_ROOT
def test_root_in_a_namespace_without_the_image_s_user_starts_nothing(launch, app):
    done = launch(prefix=["unshare", "--user", "--map-root-user"])
    assert (done.returncode, done.out) == (77, "")
    assert done.err == "entrypoint: the container's user namespace has no user 10001; start it with --user and one that it has\n"


@AS_ROOT
def test_what_lies_too_deep_and_lost_found_are_left_alone(launch, app, nest):
    (app / "outputs/lost+found").mkdir(mode=0o700)
    (app / "outputs/z.png").touch(mode=0o600)
    nest(app / "outputs", 400)
    launch(prefix=())
    assert state(app / "outputs/z.png")[0] == 10001
    assert state(app / "outputs" / "/".join("d" * 300))[0] == 10001
    assert state(app / "outputs" / "/".join("d" * 302))[0] == 0
    assert state(app / "outputs/lost+found")[0] == 0


def test_sigterm_ends_it_at_once(launch, torch):
    """As the first process of a container it has to handle the signal: the kernel gives that process no other."""
    stand_in = torch("import os, time\nos.kill(os.getppid(), 15)\ntime.sleep(5)")
    assert launch(python_path=stand_in, IOPAINT_FLEET_VARIANT="gpu").returncode == 143


# The GPU


def test_gpu_image_without_gpu(launch, torch):
    done = launch(python_path=torch(NO_CUDA), IOPAINT_FLEET_VARIANT="gpu")
    assert (done.returncode, done.out) == (78, "")
    (line,) = done.err.splitlines()
    assert line.startswith("entrypoint: no usable GPU: ")
    assert line.endswith("(to run on the CPU: IOPAINT_FLEET_REQUIRE_GPU=false)")


def test_gpu_image_with_gpu(launch, torch):
    stand_in = torch("print('hello')\nclass cuda:\n    is_available = staticmethod(lambda: True)\n")
    done = launch(python_path=stand_in, IOPAINT_FLEET_VARIANT="gpu")
    assert done.returncode == 7
    assert value_of("--device", done.out.splitlines()) == "cuda"


@pytest.mark.parametrize(
    ("arguments", "variables"),
    [
        ([], {"IOPAINT_FLEET_VARIANT": "gpu", "IOPAINT_FLEET_REQUIRE_GPU": "false"}),
        ([], {"IOPAINT_FLEET_VARIANT": "gpu", "IOPAINT_DEVICE": "cpu"}),
        (["--device", "cpu"], {"IOPAINT_FLEET_VARIANT": "gpu", "IOPAINT_DEVICE": "cuda"}),
        ([], {"IOPAINT_FLEET_VARIANT": "cpu"}),
        ([], {}),
    ],
)
def test_no_gpu_needed(launch, torch, arguments, variables):
    assert launch(*arguments, python_path=torch("raise SystemExit('not to be asked')"), **variables).returncode == 7


@pytest.mark.parametrize("arguments", [["--device=cuda"], ["--device", "cuda"]])
def test_gpu_asked_for_by_argument(launch, torch, arguments):
    done = launch(*arguments, python_path=torch(NO_CUDA), IOPAINT_FLEET_VARIANT="gpu", IOPAINT_DEVICE="cpu")
    assert done.returncode == 78


def test_gpu_asked_for_by_config(launch, torch, config):
    done = launch(python_path=torch(NO_CUDA), IOPAINT_FLEET_VARIANT="gpu", IOPAINT_CONFIG=config)
    assert done.returncode == 78


@pytest.fixture
def gpu_problem(entrypoint, torch, tmp_path, monkeypatch):
    """What is wrong with the GPU where torch is this text and /dev holds these names."""

    def ask(text, *names, **settings):
        monkeypatch.setenv("PYTHONPATH", str(torch(text)[0]))
        devices = tmp_path / "dev"
        devices.mkdir()
        for name in names:
            (devices / name).touch()
        return entrypoint.gpu_problem(devices, **settings)

    return ask


def test_container_was_given_no_gpu(gpu_problem, tmp_path):
    assert gpu_problem(NO_CUDA, "null") == f"the container was given no GPU, there is no {tmp_path}/dev/nvidia*"


@pytest.mark.parametrize("device", ["nvidia0", "nvidiactl", "dxg"])
def test_torch_says_why(gpu_problem, device):
    assert gpu_problem(NO_CUDA, device) == "torch says: Found no NVIDIA driver on your system"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("raise ImportError('libcuda is broken')", "torch says: libcuda is broken"),
        ("raise RuntimeError('CUDA error: out of memory\\nFor debugging consider …')", "torch says: CUDA error: out of memory"),
        ("raise RuntimeError", "torch says: RuntimeError()"),
        ("import os; os._exit(9)", "torch says: exit status 9"),
        ("class cuda: is_available = init = staticmethod(bool)", "torch says: torch.cuda.is_available() is False"),
    ],
)
def test_broken_torch(gpu_problem, text, reason):
    assert gpu_problem(text, "nvidia0") == reason


def test_torch_hangs(gpu_problem):
    assert gpu_problem("import time; time.sleep(60)", timeout=0.5) == "torch gave no answer within 0.5 s"
