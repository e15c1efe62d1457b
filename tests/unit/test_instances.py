# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""iopaint_instances completed and checked, and the files that are made of it."""

import itertools
import json
import subprocess
from pathlib import Path

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible_collections.iopaint.fleet.plugins.filter.instances import FilterModule, to_dotenv

ROOT = Path(__file__).resolve().parents[2]

FILTERS = FilterModule().filters()
DEFAULTS = {"variant": "cpu", "model": "lama", "bind_address": "127.0.0.1", "memory": "6g"}


OFFLINE = {"IOPAINT_LOCAL_FILES_ONLY": "true"}  # of an instance whose model the play has fetched
LAMA = {"name": "lama", "path": "torch/hub/checkpoints/big-lama.pt"}


def instances(*entries, images=None, gpus=None, models=(LAMA,), **defaults):
    return FILTERS["instances"](list(entries), {**DEFAULTS, **defaults}, images, gpus, models)


def entry(**keys):
    return {"name": "a", "port": 8080, **keys}


def to_release(instance):
    """Return what compose gets of a completed instance: its files by name."""
    layout = {
        "data": "/data",
        "compose": "",
        "unprivileged": "",
        "gpu_mode": "cdi",
        "token_dir": "/opt/x/.gateway",
        "revisions": {},
    }
    (done,) = FILTERS["instance_releases"]([instance], layout, {})
    return {file["name"]: file["content"] for file in done["files"]}


# ---- instances -------------------------------------------------------------------------------------------------------


def test_an_entry_is_completed():
    assert instances(entry()) == [
        {
            **DEFAULTS,
            "name": "a",
            "port": 8080,
            "auto": False,
            "cpu_allowed": False,
            "models_writable": False,
            "plugins": {},
            "extras": [],
            "url": "http://127.0.0.1:8080",
            "published": {"address": "127.0.0.1", "port": 8080, "project": "iopaint-a"},
            "token": False,
            "environment": {"IOPAINT_MODEL": "lama", **OFFLINE},
            "image": "iopaint:cpu-latest",
            "own_image": False,
        }
    ]


def test_no_entries_are_no_instances():
    assert instances() == []


def test_the_entry_goes_before_the_default_and_null_is_the_default():
    first, second = instances(entry(model="mat", memory="9g"), entry(name="b", port=1, model=None, options=None))
    assert (first["model"], first["memory"], first["environment"]) == ("mat", "9g", {"IOPAINT_MODEL": "mat"})
    assert (second["model"], second["environment"]) == ("lama", {"IOPAINT_MODEL": "lama", **OFFLINE})


def test_the_user_s_entries_stay_as_they_are():
    mine = entry(options={"low_mem": True})
    before = json.dumps(mine)
    instances(mine)
    assert json.dumps(mine) == before


def test_limits_become_variables():
    (one,) = instances(entry(guard={"allowed_hosts": ["paint.example.com", "b"], "queue": 0, "minutes": None}))
    assert one["environment"] == {
        "IOPAINT_MODEL": "lama",
        **OFFLINE,
        "IOPAINT_FLEET_ALLOWED_HOSTS": "paint.example.com,b",
        "IOPAINT_FLEET_QUEUE": "0",
    }


def test_where_the_page_saves_is_a_variable_unless_it_is_the_host():
    assert "IOPAINT_FLEET_SAVE_TO" not in instances(entry(save_to="host"))[0]["environment"]
    assert instances(entry(save_to="browser"))[0]["environment"]["IOPAINT_FLEET_SAVE_TO"] == "browser"
    with pytest.raises(AnsibleFilterError, match=r"instances\[0\]: save_to 'disk' must be host or browser\."):
        instances(entry(save_to="disk"))


@pytest.mark.parametrize("host", ["https://paint.example.com", "paint.example.com:8080", "a b", "", "a,b", "-a", "a..b"])
def test_a_name_that_is_no_host_s_is_refused(host):
    with pytest.raises(AnsibleFilterError, match=r"instances\[0\]: guard.allowed_hosts has .*; a host name is wanted"):
        instances(entry(guard={"allowed_hosts": ["*", "a.example.com", host]}))


def test_a_limit_below_nothing_is_refused():
    with pytest.raises(AnsibleFilterError, match=r"guard.minutes, guard.queue must be a whole number"):
        instances(entry(guard={"queue": -1, "minutes": -5, "body_mb": 3}))


def test_options_become_variables():
    (one,) = instances(entry(options={"low_mem": True, "no_half": False, "quality": 95, "device": "cpu", "config": None}))
    assert one["environment"] == {
        "IOPAINT_MODEL": "lama",
        **OFFLINE,
        "IOPAINT_LOW_MEM": "true",
        "IOPAINT_NO_HALF": "false",
        "IOPAINT_QUALITY": "95",
        "IOPAINT_DEVICE": "cpu",
    }


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8080"),
        ("0.0.0.0", "http://127.0.0.1:8080"),
        ("192.0.2.7", "http://192.0.2.7:8080"),
        ("::", "http://[::1]:8080"),
        ("2001:db8::1", "http://[2001:db8::1]:8080"),
    ],
)
def test_the_host_reaches_an_instance_where_it_is_published(address, url):
    (one,) = instances(entry(bind_address=address))
    assert (one["url"], one["published"]["address"]) == (url, address)


@pytest.mark.parametrize(
    ("images", "built", "image"),
    [
        (None, None, "iopaint:cpu-latest"),
        ({}, {"cpu": {"image": "iopaint:cpu-1-2"}}, "iopaint:cpu-1-2"),
        ({"cpu": "registry.example.com/mine:1"}, {"cpu": {"image": "iopaint:cpu-1-2"}}, "registry.example.com/mine:1"),
        ({"gpu": "registry.example.com/mine:1"}, {"gpu": {"image": "iopaint:gpu-1-2"}}, "iopaint:cpu-latest"),
    ],
)
def test_the_image_is_the_user_s_else_the_built_else_the_latest(images, built, image):
    (one,) = FILTERS["built_instances"](instances(entry(), images=images), built or {})
    assert (one["image"], one["own_image"]) == (image, bool((images or {}).get("cpu")))


def test_a_built_image_brings_the_ref_that_was_asked_for():
    built = {"cpu": {"image": "iopaint:cpu-1234-abcd", "ref": "feature/x"}}
    assert [one.get("ref") for one in FILTERS["built_instances"](instances(entry()), built)] == ["feature/x"]
    own = FILTERS["built_instances"](instances(entry(), images={"cpu": "mine:1"}), built)
    assert [(one["image"], one.get("ref")) for one in own] == [("mine:1", None)]


@pytest.mark.parametrize("name", ["a", "0", "a_b-c", "a" * 41, 7])
def test_a_name_that_compose_takes_passes(name):
    (one,) = instances(entry(name=name))
    assert (one["name"], one["published"]["project"]) == (str(name), f"iopaint-{name}")


@pytest.mark.parametrize("name", ["", "A", "-a", "_a", "a b", "a/b", "a.b", "ä", "a\n", "a" * 42, None, "../a"])
def test_a_name_that_compose_refuses_is_refused(name):
    with pytest.raises(AnsibleFilterError) as error:
        instances(entry(name="ok"), entry(name=name, port=1))
    assert str(error.value).startswith(f"iopaint_instances[1]: name {name!r} must begin with a lower-case letter or digit")
    assert "41 characters" in str(error.value)


@pytest.mark.parametrize("port", [1, 65535, "8080"])
def test_a_port_passes(port):
    (one,) = instances(entry(port=port))
    assert (one["port"], one["published"]["port"]) == (int(port), int(port))


@pytest.mark.parametrize("port", [0, 65536, -1, None, "", "http", "8080:80", 80.5, True, [8080]])
def test_what_is_no_port_is_refused(port):
    with pytest.raises(AnsibleFilterError) as error:
        instances(entry(port=port))
    assert str(error.value) == f"iopaint_instances[0]: port {port!r} must be a whole number from 1 to 65535."


@pytest.mark.parametrize("address", ["localhost", "[::1]", "fe80::1%eth0", "127.0.0.1:8080", "", 127, "10.0.0.0/8"])
@pytest.mark.parametrize("place", ["entry", "default"])
def test_what_is_no_address_is_refused(address, place):
    keys, defaults = ({"bind_address": address}, {}) if place == "entry" else ({}, {"bind_address": address})
    with pytest.raises(AnsibleFilterError) as error:
        instances(entry(**keys), **defaults)
    assert str(error.value).startswith(f"iopaint_instances[0]: bind_address {address!r} (iopaint_bind_address where")
    assert "must be an IP address, as 127.0.0.1" in str(error.value)


@pytest.mark.parametrize(
    ("option", "instead"),
    [
        ("host", "bind_address"),
        ("port", "port"),
        ("model", "model"),
        ("model_dir", "iopaint_data_dir"),
        ("output_dir", "iopaint_data_dir"),
    ],
)
def test_an_option_of_the_role_is_refused_with_what_to_use(option, instead):
    with pytest.raises(AnsibleFilterError) as error:
        instances(entry(options={option: "x"}))
    assert str(error.value) == f"iopaint_instances[0]: options.{option} is set by the role; use {instead}."


def test_an_option_of_many_lines_is_refused_and_its_value_unsaid():
    with pytest.raises(AnsibleFilterError) as error:
        instances(entry(options={"api_key": "s3cr3t\nx", "device": "cpu"}))
    assert str(error.value) == "iopaint_instances[0]: options.api_key must be of one line, without control characters."


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([entry(), entry(port=1)], "name a"),
        ([entry(), entry(name="b")], "port 8080"),
        ([entry(), entry(name="b", port="8080")], "port 8080"),
        ([entry(name=1), entry(name="1", port=1)], "name 1"),
        ([entry(), entry(name="b", bind_address="0.0.0.0")], "port 8080"),
        ([entry(name=name, port=port) for name, port in zip("aabb", range(1, 5))], "name a, b"),
    ],
)
def test_what_two_instances_share_is_refused(entries, words):
    with pytest.raises(AnsibleFilterError) as error:
        instances(*entries)
    assert (
        str(error.value)
        == f"iopaint_instances: {words} is used by more than one instance. Give each its own. Nothing was changed."
    )


# ---- dotenv ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ("plain", "A='plain'"),
        ("", "A=''"),
        (True, "A='true'"),
        (8080, "A='8080'"),
        (" a b # c ", "A=' a b # c '"),
        ("$HOME ${HOME} `id`", "A='$HOME ${HOME} `id`'"),
        (r"a\nb", r"A='a\nb'"),
        ("it's", 'A="it\'s"'),
        ("it's $HOME", 'A="it\'s \\$HOME"'),
        ('it\'s "so"', 'A="it\'s \\"so\\""'),
        ("C:\\models\\", r'A="C:\\models\\"'),  # compose takes \' for a quote that goes on
    ],
)
def test_a_value_is_quoted_for_compose(value, line):
    assert to_dotenv({"A": value}) == line + "\n"


def compose(*words, cwd):
    """Compose, as plugin or by itself; config needs no engine."""
    for command in (["docker", "compose"], ["docker-compose"]):
        try:
            done = subprocess.run([*command, *words], cwd=cwd, capture_output=True, text=True, check=False)
        except OSError:
            continue
        if done.returncode == 0:
            return done.stdout
    return None


def test_compose_reads_every_value_back(tmp_path):
    if compose("version", cwd=tmp_path) is None:
        pytest.skip("this machine has no Compose v2")
    texts = ["".join(signs) for signs in itertools.product("'\\$\"n", repeat=3)] + ["", " a # b ", "ä€", "a=b", "${HOME}"]
    values = {f"V{index}": text for index, text in enumerate(texts)}
    (tmp_path / "options.env").write_text(to_dotenv(values))
    (tmp_path / ".env").write_text(to_dotenv(values))
    labels = {name: f"${{{name}}}" for name in values}
    service = {"image": "x", "env_file": ["options.env"], "labels": labels}
    (tmp_path / "compose.yaml").write_text(json.dumps({"services": {"a": service}}))
    read = json.loads(compose("config", "--format", "json", cwd=tmp_path))["services"]["a"]
    for kind in ("environment", "labels"):
        assert {name: text.replace("$$", "$") for name, text in read[kind].items()} == values


# ---- instance_releases -----------------------------------------------------------------------------------------------


def folders(wanted, gpu_mode="cdi", revisions=()):
    compose = "name: text of the compose file\n"
    layout = {"data": "/var/lib/iopaint", "compose": compose, "unprivileged": "services: {}\n", "gpu_mode": gpu_mode}
    layout["revisions"] = dict(revisions)
    common = {"MODELS": "/var/lib/iopaint/models", "OPTIONS_FILE": "options.env", "PIDS": 512}
    return FILTERS["instance_releases"](wanted, layout, common)


def test_a_release_holds_an_instance_to_the_commits_of_its_models():
    repositories = [{"hub": "a/sdxl"}, {"hub": "b/vae"}]
    revisions = {"b/vae": "2" * 40, "a/sdxl": "1" * 40}
    wanted = instances(entry(model="a/sdxl"), entry(name="b", port=8081), models=[LAMA, *repositories])
    first, second = folders(wanted, revisions=revisions)
    held = f"a/sdxl={'1' * 40},b/vae={'2' * 40}"
    assert first["environment"]["IOPAINT_FLEET_REVISIONS"] == held
    assert f"IOPAINT_FLEET_REVISIONS='{held}'\n" in {file["name"]: file["content"] for file in first["files"]}["options.env"]
    assert "IOPAINT_FLEET_REVISIONS" not in second["environment"]  # lama
    online = instances(entry(model="a/sdxl"), models=repositories, models_online=True)
    assert "IOPAINT_FLEET_REVISIONS" not in folders(online, revisions=revisions)[0]["environment"]


def test_each_instance_gets_its_release():
    first, second = folders(instances(entry(options={"api_key": "it's"}), entry(name="b", port=8081, memory="8g")))
    assert [(one["name"], one["project"]) for one in (first, second)] == [("a", "iopaint-a"), ("b", "iopaint-b")]
    assert (first["image"], first["image_variable"]) == ("iopaint:cpu-latest", "CPU_IMAGE")  # the module adds it to .env
    assert (first["url"], first["devices"], first["cpu_allowed"]) == ("http://127.0.0.1:8080", [], False)
    files = {file["name"]: file for file in first["files"]}
    assert files["compose.yaml"] == {"name": "compose.yaml", "content": "name: text of the compose file\n", "mode": "0644"}
    assert files[".env"]["content"].splitlines() == [
        "PROJECT='iopaint-a'",
        "CPU_PORT='8080'",
        "BIND_ADDRESS='127.0.0.1'",
        "OUTPUTS='/var/lib/iopaint/outputs/a'",
        "MODELS_ACCESS='ro'",
        "MEMORY='6g'",
        "COMPOSE_FILE='compose.yaml:unprivileged.yaml'",
        "MODELS='/var/lib/iopaint/models'",
        "OPTIONS_FILE='options.env'",
        "PIDS='512'",
    ]
    assert "MEMORY='8g'\n" in second["files"][1]["content"]


def test_each_folder_of_models_and_outputs_is_named_once_from_the_top():
    models = [{"path": "torch/hub/checkpoints/a.pt"}, {"path": "torch/b/b.pt"}, {"path": "c.pt"}]
    wanted = instances(entry(), entry(name="b", port=8081))
    always = ["models", "models/torch", "models/torch/hub", "models/torch/hub/checkpoints"]  # IOPaint itself looks there
    for some, names in (([], []), (models, ["models/torch/b"])):
        made = FILTERS["data_folders"](wanted, some, "/data", "1000", "0750")
        outputs = [{"path": f"/data/outputs/{name}", "owner": 1000, "mode": "0750"} for name in ("a", "b")]
        assert made == [{"path": f"/data/{name}", "owner": 1000} for name in [*always, *names]] + outputs


@pytest.mark.parametrize(
    ("keys", "models", "access"),
    [
        ({}, [LAMA], "ro"),
        ({"model": "cv2"}, [], "ro"),
        ({"options": {"enable_realesrgan": False, "low_mem": True}}, [LAMA], "ro"),
        ({}, [], "rw"),
        ({"model": "mat"}, [LAMA], "rw"),
        ({"model": "zits"}, [{"name": "zits", "path": "torch/hub/checkpoints/one-of-four.pt"}], "rw"),
        ({"model": "owner/name"}, [LAMA], "rw"),
        ({"model": "owner/name"}, [LAMA, {"hub": "owner/name", "revision": "main"}], "ro"),
        ({"options": {"enable_realesrgan": True}}, [LAMA], "rw"),
        ({"options": {"enable_realesrgan": "1"}}, [LAMA], "rw"),
        ({}, [LAMA, {"name": "a.ckpt", "path": "stable_diffusion/a.ckpt"}], "rw"),
        ({"models_writable": True}, [LAMA], "rw"),
        ({"models_writable": False, "model": "mat"}, [LAMA], "ro"),
    ],
)
def test_models_are_mounted_writable_only_where_iopaint_has_to_write_there(keys, models, access):
    (folder,) = folders(instances(entry(**keys), models=models))
    assert f"MODELS_ACCESS='{access}'" in folder["files"][1]["content"].splitlines()


@pytest.mark.parametrize(
    ("keys", "online", "offline"),
    [
        ({}, False, True),
        ({}, True, False),
        ({"model": "mat"}, False, False),
        ({"options": {"local_files_only": False}}, False, False),
    ],
)
def test_an_instance_whose_model_is_there_asks_no_hub(keys, online, offline):
    (instance,) = instances(entry(**keys), models_online=online)
    assert (instance["environment"].get("IOPAINT_LOCAL_FILES_ONLY") == "true") is offline


def test_options_are_secret_and_for_root_alone():
    (folder,) = folders(instances(entry(options={"api_key": "it's"})))
    options = folder["files"][2]
    assert options == {
        "name": "options.env",
        "content": "IOPAINT_MODEL='lama'\nIOPAINT_LOCAL_FILES_ONLY='true'\nIOPAINT_API_KEY=\"it's\"\n",
        "mode": "0600",
        "secret": True,
    }
    assert not [file["name"] for file in folder["files"] if "it's" in file["content"] and not file.get("secret")]


def test_every_setting_is_one_that_the_compose_file_reads():
    text = (ROOT / "docker" / "compose.yaml").read_text()
    (folder,) = folders(instances(entry()))
    names = {line.partition("=")[0] for line in folder["files"][1]["content"].splitlines()}
    names.remove("COMPOSE_FILE")  # Compose itself reads it
    assert names
    assert not [name for name in names if f"${{{name}" not in text]
    assert f"iopaint-{DEFAULTS['variant']}" in yaml.safe_load(text)["services"]


# ---- GPU instances ---------------------------------------------------------------------------------------------------

GPUS = ["nvidia.com/gpu=0", "nvidia.com/gpu=1"]


def gpu(**keys):
    return {"name": "gpu", "variant": "gpu", "port": 8081, **keys}


def refused(*entries, gpus=None):
    with pytest.raises(AnsibleFilterError) as error:
        instances(*entries, gpus=gpus)
    return str(error.value)


@pytest.mark.parametrize("devices", [None, [], ["auto"]])
def test_auto_makes_one_for_each_gpu(devices):
    first, second = instances(gpu(devices=devices), gpus=GPUS)
    assert [first["name"], first["port"], first["devices"]] == ["gpu-0", 8081, ["nvidia.com/gpu=0"]]
    assert [second["name"], second["port"], second["devices"]] == ["gpu-1", 8082, ["nvidia.com/gpu=1"]]
    assert second["published"]["project"] == "iopaint-gpu-1"
    assert second["image"] == "iopaint:gpu-latest"


def test_auto_makes_one_for_each_mig_slice():
    done = instances(gpu(), gpus=["nvidia.com/gpu=0:0", "nvidia.com/gpu=0:1", "nvidia.com/gpu=1"])
    assert [one["name"] for one in done] == ["gpu-0", "gpu-1", "gpu-2"]
    assert done[1]["devices"] == ["nvidia.com/gpu=0:1"]


def test_auto_stays_where_the_gpus_are_not_known_yet():
    (one,) = instances(gpu())
    assert (one["name"], one["devices"], one["auto"]) == ("gpu", ["auto"], True)


def test_auto_without_a_gpu_is_an_error_and_no_cpu_instance():
    assert "this host has no GPU" in refused(gpu(), gpus=[])
    assert "cpu_hosts" in refused(gpu(), gpus=[])


@pytest.mark.parametrize(
    ("device", "name"),
    [
        (0, "nvidia.com/gpu=0"),
        ("0:1", "nvidia.com/gpu=0:1"),
        ("all", "nvidia.com/gpu=all"),
        ("GPU-11111111-2222-4333-8444-555555555555", "nvidia.com/gpu=GPU-11111111-2222-4333-8444-555555555555"),
        ("MIG-11111111-2222-4333-8444-555555555555", "nvidia.com/gpu=MIG-11111111-2222-4333-8444-555555555555"),
        ("nvidia.com/gpu=1", "nvidia.com/gpu=1"),
        ("example.com/card=a", "example.com/card=a"),
    ],
)
def test_devices_become_cdi_names(device, name):
    (one,) = instances(gpu(devices=[device]))
    assert one["devices"] == [name]


@pytest.mark.parametrize("device", ["first", "-1", "nvidia.com/gpu=", "auto,0"])
def test_no_device(device):
    message = refused(gpu(devices=[device]))
    assert f"iopaint_instances[0].devices has {device!r}, accepted: [auto]" in message


def test_a_device_that_the_host_has_not():
    message = refused(gpu(devices=[7]), gpus=GPUS)
    assert "gpu asks for nvidia.com/gpu=7, and this host has nvidia.com/gpu=0, nvidia.com/gpu=1" in message


def test_devices_are_not_for_the_cpu():
    assert "iopaint_instances[0]: devices are for the variant gpu" in refused(entry(devices=[0]))


@pytest.mark.parametrize("pair", [([0], [0]), ([0, 1], [1]), (["all"], [1]), ([0], ["all"])])
def test_two_on_one_gpu_only_when_both_ask(pair):
    def both(*shares):
        return [
            gpu(name=name, port=port, devices=devices, share=share)
            for name, port, devices, share in zip("ab", (1, 2), pair, shares)
        ]

    assert "a, b ask for the same GPU" in refused(*both(False, False))
    assert "share: true" in refused(*both(True, False))
    assert len(instances(*both(True, True))) == 2


def test_one_gpu_each_needs_no_share():
    assert len(instances(gpu(devices=[0]), gpu(name="b", port=1, devices=[1]), gpus=GPUS)) == 2


def reservation(devices, mode):
    (folder,) = folders(instances(gpu(devices=devices)), mode)
    (override,) = (file["content"] for file in folder["files"] if file["name"] == "devices.yaml")
    plain = yaml.safe_load(override.replace("!override", ""))
    return plain["services"]["iopaint-gpu"]["deploy"]["resources"]["reservations"]["devices"]


def test_devices_in_compose():
    names = ["nvidia.com/gpu=0", "nvidia.com/gpu=1"]
    assert reservation([0, 1], "cdi") == [{"driver": "cdi", "device_ids": names, "capabilities": ["gpu"]}]
    assert reservation([0, 1], "legacy") == [{"driver": "nvidia", "device_ids": ["0", "1"], "capabilities": ["gpu"]}]
    assert reservation(["all"], "legacy") == [{"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}]


def test_a_cpu_instance_reserves_nothing():
    (folder,) = folders(instances(entry()))
    assert "devices.yaml" not in [file["name"] for file in folder["files"]]


@pytest.mark.parametrize(("value", "allowed"), [(False, True), ("no", True), (True, False), (None, False)])
def test_a_gpu_instance_may_be_let_go_without_a_gpu(value, allowed):
    (one,) = instances(gpu(devices=[0], options={"fleet_require_gpu": value}))
    assert one["cpu_allowed"] is allowed


def test_mirrors_of_models_are_the_role_s_and_the_instance_s_own():
    urls = {"LAMA_MODEL_URL": "http://a/lama.pt", "MAT_MODEL_URL": "http://a/mat"}
    other = entry(name="b", port=2, hub_endpoint="https://b", model_urls={"LAMA_MODEL_URL": "http://b/lama.pt"})
    first, second = instances(entry(), other, hub_endpoint="https://hub.example.com", model_urls=urls)
    assert first["environment"] == {"IOPAINT_MODEL": "lama", **OFFLINE, "HF_ENDPOINT": "https://hub.example.com", **urls}
    assert second["environment"] == {
        "IOPAINT_MODEL": "lama",
        **OFFLINE,
        "HF_ENDPOINT": "https://b",
        "LAMA_MODEL_URL": "http://b/lama.pt",
        "MAT_MODEL_URL": "http://a/mat",
    }


def test_a_name_that_is_no_model_s_is_refused():
    with pytest.raises(AnsibleFilterError, match=r"model_urls \(iopaint_model_urls\) has lama; names are IOPaint's own"):
        instances(entry(model_urls={"lama": "http://a/lama.pt"}))


# ---- the gateway's token ---------------------------------------------------------------------------------------------

FILE = {"IOPAINT_FLEET_TOKEN_FILE": "/run/iopaint-fleet/token"}
LET_IN = {**FILE, "IOPAINT_FLEET_ALLOW_ANONYMOUS": "true"}


@pytest.mark.parametrize(
    ("address", "defaults", "variables"),
    [
        ("0.0.0.0", {"token": True}, FILE),
        ("192.0.2.1", {"token": True, "allow_anonymous": False}, FILE),
        ("::", {"token": True, "allow_anonymous": True}, LET_IN),
        ("127.0.0.1", {"token": True}, LET_IN),
        ("::1", {"token": False}, {}),
        ("0.0.0.0", {"token": False, "allow_anonymous": True}, {}),
    ],
)
def test_who_is_reached_from_the_network_asks_for_the_token(address, defaults, variables):
    (one,) = instances(entry(bind_address=address), **defaults)
    assert {name: value for name, value in one["environment"].items() if name.startswith("IOPAINT_FLEET")} == variables


def test_an_instance_that_would_answer_everybody_is_refused():
    with pytest.raises(
        AnsibleFilterError, match=r"iopaint_instances\[0\]: whoever reaches 0.0.0.0 .* iopaint_allow_anonymous: true"
    ):
        instances(entry(bind_address="0.0.0.0"), token=False)


def test_the_token_is_mounted_and_in_no_file_of_a_release():
    with_token, without = (to_release(instances(entry(), token=token)[0]) for token in (True, False))
    assert with_token["token.yaml"].splitlines()[-1].strip() == "- /opt/x/.gateway:/run/iopaint-fleet:ro"
    assert "COMPOSE_FILE='compose.yaml:unprivileged.yaml:token.yaml'" in with_token[".env"]
    assert "token.yaml" not in without
    assert "token" not in without[".env"]
