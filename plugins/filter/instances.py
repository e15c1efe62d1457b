# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter: what iopaint_instances describes, completed and checked."""

from __future__ import annotations

import ipaddress
import re
from pathlib import PurePosixPath

from ansible.errors import AnsibleFilterError
from ansible_collections.iopaint.fleet.plugins.module_utils.network import reached_at
from ansible_collections.iopaint.fleet.plugins.module_utils.text import is_one_line
from ansible_collections.iopaint.fleet.plugins.plugin_utils import devices, instance_plugins
from ansible_collections.iopaint.fleet.plugins.plugin_utils.known_models import ERASE

PORT = re.compile("[0-9]{1,5}")
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,40}")
OWN_OPTIONS = {
    "host": "bind_address",
    "port": "port",
    "model": "model",
    "model_dir": "iopaint_data_dir",
    "output_dir": "iopaint_data_dir",
}
HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(\.(?!-)[A-Za-z0-9_-]{1,63})*")
SAVE_TO = ("host", "browser")
OFF = ("false", "0", "no", "off")
PLUGIN = "IOPAINT_ENABLE_"  # begins the options that switch on plugins, which then download their own weights
INDEXED = ("stable_diffusion/", "stable_diffusion_xl/")
CHECKPOINTS = "torch/hub/checkpoints"  # which IOPaint makes where it is missing, whatever its model is
OPTION = re.compile("[A-Za-z_][A-Za-z0-9_]*")
SCALARS = (str, int, float, bool)
KINDS = {"options": dict, "model_urls": dict, "guard": dict, "proof": dict, "devices": list, "plugins": list, "labels": list}
WORDS = {dict: "a dictionary", list: "a list", SCALARS: "a single value"}
SECRETS = "/run/iopaint-fleet"  # in a container; the folder with the gateway's token
MODEL_MIRROR = re.compile(r"[A-Z][A-Z0-9_]*_MODEL_(URL|MD5)")


def text(value):
    """Return an option's value as the entrypoint reads it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def number(value):
    """Return the whole number that a value stands for, or 0."""
    return int(value) if isinstance(value, (int, str)) and not isinstance(value, bool) and PORT.fullmatch(str(value)) else 0


def is_address(value):
    """Return whether the engine takes the value as an address to publish on, which one with a zone (fe80::1%eth0) is not."""
    try:
        return isinstance(value, str) and "%" not in value and bool(ipaddress.ip_address(value))
    except ValueError:
        return False


def mirrors(instance, defaults, where):
    """Return what an instance is told of the sites of models; raise AnsibleFilterError on names that are none."""
    urls = {**(defaults.get("model_urls") or {}), **(instance.get("model_urls") or {})}
    wrong = sorted(str(name) for name in urls if not MODEL_MIRROR.fullmatch(str(name)))
    if wrong:
        raise AnsibleFilterError(
            f"{where}: model_urls (iopaint_model_urls) has {', '.join(wrong)}; names are IOPaint's own, "
            "as LAMA_MODEL_URL and LAMA_MODEL_MD5."
        )
    hub = {"HF_ENDPOINT": instance["hub_endpoint"]} if instance.get("hub_endpoint") else {}
    return {**hub, **{name: text(value) for name, value in urls.items()}}


def guard(limits, where):
    """Return the variables of an instance's limits; raise AnsibleFilterError on a host name that is none."""
    given = {name: value for name, value in (limits or {}).items() if value is not None}
    hosts = given.get("allowed_hosts", [])
    wrong = [host for host in hosts if not (host == "*" or HOST_NAME.fullmatch(str(host)))]
    if wrong:
        raise AnsibleFilterError(
            f"{where}: guard.allowed_hosts has {', '.join(map(repr, wrong))}; a host name is wanted, as paint.example.com, "
            "without scheme and port."
        )
    negative = sorted(name for name, value in given.items() if name != "allowed_hosts" and number(value) != value)
    if negative:
        raise AnsibleFilterError(
            f"{where}: {', '.join(f'guard.{name}' for name in negative)} must be a whole number, 0 for no limit."
        )
    return {
        f"IOPAINT_FLEET_{name.upper()}": ",".join(value) if name == "allowed_hosts" else text(value)
        for name, value in given.items()
    }


def token_variables(address, defaults, where):
    """Return the variables by which an instance asks for the gateway's token.

    defaults: token (whether the host has one; None where that is not judged) and allow_anonymous. Raise AnsibleFilterError where
    an instance would answer the network without a login.
    """
    exposed = not ipaddress.ip_address(address).is_loopback
    anonymous = bool(defaults.get("allow_anonymous"))
    if defaults.get("token"):
        file = {"IOPAINT_FLEET_TOKEN_FILE": f"{SECRETS}/token"}
        return file if exposed and not anonymous else {**file, "IOPAINT_FLEET_ALLOW_ANONYMOUS": "true"}
    if defaults.get("token") is False and exposed and not anonymous:
        raise AnsibleFilterError(
            f"{where}: whoever reaches {address} (bind_address or iopaint_bind_address) could use the instance, as it has no "
            "login. Put a gateway before it (group gateways of the inventory), set iopaint_gateway_token for one of your own, or "
            "set iopaint_allow_anonymous: true. Nothing was changed."
        )
    return {}


def writes_models(instance, environment, models):
    """Return whether IOPaint writes to the folder of models with these options.

    models: as the filters model_files and hub_models give them.
    """
    plugins = [text for name, text in environment.items() if name.startswith(PLUGIN) and text.lower() not in OFF]
    names, repositories = ({model[key] for model in models if key in model} for key in ("name", "hub"))
    loaded = instance_plugins.wanted(instance_plugins.chosen(instance, "plugins"))
    lacking = [model for model in loaded if not {model.get("name"), model.get("hub")} & (names | repositories)]
    own = instance["model"] not in {"cv2", *(names & set(ERASE)), *repositories}  # others may have more files than one
    return bool(own or plugins or lacking or any(model.get("path", "").startswith(INDEXED) for model in models))


def check_port(entry, where):
    """Raise AnsibleFilterError where the port of an entry is none."""
    if not 1 <= number(entry.get("port")) <= 65535:
        raise AnsibleFilterError(f"{where}: port {entry.get('port')!r} must be a whole number from 1 to 65535.")


def check_kinds(entry, where):
    """Raise AnsibleFilterError where an entry is no dictionary, or a value of it is of another kind than the rest works with."""
    if not isinstance(entry, dict):
        raise AnsibleFilterError(f"{where} is no dictionary of name, variant, port and further keys.")
    if (entry.get("variant") or "cpu") not in ("cpu", "gpu"):
        raise AnsibleFilterError(f"{where}: variant {entry['variant']!r} must be cpu or gpu.")
    check_port(entry, where)  # as [auto] counts on from it
    for key, value in entry.items():
        kind = KINDS.get(key, SCALARS)
        if value is not None and not isinstance(value, kind):  # what it holds may be a secret
            raise AnsibleFilterError(f"{where}: {key} must be {WORDS[kind]}.")


def complete(entry, where, defaults, models):
    """Return one entry with all its keys but image; raise AnsibleFilterError on what it can't be."""
    if not NAME.fullmatch(str(entry.get("name", ""))):
        raise AnsibleFilterError(
            f"{where}: name {entry.get('name')!r} must begin with a lower-case letter or digit and go on with these, - and _ "
            "(41 characters at most)."
        )
    check_port(entry, where)
    instance = {"models_online": False, **defaults, **{key: value for key, value in entry.items() if value is not None}}
    if instance.get("save_to", "host") not in SAVE_TO:
        raise AnsibleFilterError(f"{where}: save_to {instance['save_to']!r} must be {' or '.join(SAVE_TO)}.")
    if not is_address(instance["bind_address"]):
        raise AnsibleFilterError(
            f"{where}: bind_address {instance['bind_address']!r} (iopaint_bind_address where the entry has none) must be an "
            "IP address, as 127.0.0.1 or ::1 (no brackets, no zone), or 0.0.0.0 for all."
        )
    options = instance.get("options") or {}
    for option, instead in OWN_OPTIONS.items():
        if option in options:
            raise AnsibleFilterError(f"{where}: options.{option} is set by the role; use {instead}.")
    broken = sorted(f"options.{name!s}" for name, value in options.items() if not is_one_line(f"{name}{text(value)}"))
    if broken:  # what they hold may be a secret
        raise AnsibleFilterError(f"{where}: {', '.join(broken)} must be of one line, without control characters.")
    odd = sorted(repr(name) for name in options if not OPTION.fullmatch(str(name)))
    if odd:
        raise AnsibleFilterError(f"{where}: options has {', '.join(odd)}; names have letters, digits and underscores.")
    environment = {f"IOPAINT_{name.upper()}": text(value) for name, value in options.items() if value is not None}
    plugins = instance_plugins.chosen(instance, where)
    instance_plugins.check_options(plugins, options, where)
    cpu_allowed = environment.get("IOPAINT_FLEET_REQUIRE_GPU", "true").lower() in OFF
    online, writable = instance.pop("models_online"), instance.get("models_writable")
    if writable is None:
        writable = online or writes_models(instance, environment, models)
    offline = {} if writable else {"IOPAINT_LOCAL_FILES_ONLY": "true"}  # a start depends on nobody's site
    on_gpu = instance["variant"] == "gpu" and not cpu_allowed and environment.get("IOPAINT_DEVICE", "cuda") == "cuda"
    name, port, address = str(instance["name"]), int(instance["port"]), instance["bind_address"]
    return {
        **instance,
        "name": name,
        "port": port,
        "auto": instance.get("devices") == devices.AUTO,
        "cpu_allowed": cpu_allowed,
        "models_writable": writable,
        "plugins": plugins,
        "extras": instance_plugins.extras(plugins),
        "url": f"http://{reached_at(address)}:{port}",
        "published": {"address": address, "port": port, "project": f"iopaint-{name}"},
        "token": bool(defaults.get("token")),
        "environment": {
            "IOPAINT_MODEL": instance["model"],
            **mirrors(instance, defaults, where),
            **({"IOPAINT_FLEET_SAVE_TO": "browser"} if instance.get("save_to") == "browser" else {}),
            **guard(instance.get("guard"), where),
            **offline,
            **token_variables(instance["bind_address"], defaults, where),
            **instance_plugins.settings(plugins, on_gpu),
            **environment,
        },
    }


def instances(wanted, defaults, images=None, gpus=None, models=()):
    """Return the completed entries; raise AnsibleFilterError with the entry's place on what is wrong."""
    for index, entry in enumerate(wanted):
        check_kinds(entry, f"iopaint_instances[{index}]")
    done = [complete(entry, where, defaults, models) for where, entry in devices.expand(wanted, gpus)]
    for key in ("name", "port"):
        values = [instance[key] for instance in done]
        twice = sorted({str(value) for value in values if values.count(value) > 1})
        if twice:
            raise AnsibleFilterError(
                f"iopaint_instances: {key} {', '.join(twice)} is used by more than one instance. Give each its own. "
                "Nothing was changed."
            )
    devices.check(done, gpus)
    for instance in done:
        own = (images or {}).get(instance["variant"])
        instance.update(image=own or f"iopaint:{instance['variant']}-latest", own_image=bool(own))
    return done


def built_instances(wanted, built):
    """Return completed instances with the images that they get, and the ref that these were asked for by.

    built: by variant, C(image) and C(ref), as the fact iopaint_image_built has them. Instances with an own image keep it.
    """
    made = [{} if instance["own_image"] else built.get(instance["variant"], {}) for instance in wanted]
    return [
        {**instance, **{key: image[key] for key in ("image", "ref") if image.get(key)}} for instance, image in zip(wanted, made)
    ]


def to_dotenv(values):
    """Return a dictionary as the lines of an env file that compose reads back to the same values.

    Raise AnsibleFilterError for a value that would begin a line of its own; what it holds may be a secret.
    """
    lines = []
    for name, value in values.items():
        shown = text(value)
        if not is_one_line(shown) or not OPTION.fullmatch(name):
            raise AnsibleFilterError(
                f"The value for {name!r} of an instance (iopaint_instances or a default of it) has more than one line or a "
                "control character. Correct it. Nothing was changed."
            )
        if "'" in shown or shown.endswith("\\"):  # in single quotes nothing can be escaped
            lines.append(name + '="' + re.sub(r'([\\"$])', r"\\\1", shown) + '"')
        else:
            lines.append(f"{name}='{shown}'")
    return "\n".join(lines) + "\n"


def pinned(instance, revisions):
    """Return the variable that holds an instance to the commits that its release was made with.

    Only of one that starts with a repository of the hub, and downloads nothing itself: another one goes by the hub's main.
    """
    if instance["models_writable"] or instance["model"] not in revisions:
        return {}
    return {"IOPAINT_FLEET_REVISIONS": ",".join(f"{name}={commit}" for name, commit in sorted(revisions.items()))}


def token_override(instance, folder):
    """Return the text of a compose file that mounts the folder with the gateway's token."""
    return f"services:\n  iopaint-{instance['variant']}:\n    volumes:\n      - {folder}:{SECRETS}:ro\n"


def instance_releases(wanted, layout, common):
    """Return what each completed instance wants to run as the module release takes it.

    layout: revisions (commits of the hub's repositories on the host), data (where outputs lie), compose and unprivileged (the
    texts of the compose file and of its override), gpu_mode
    (how the engine hands out GPUs, cdi or legacy) and token_dir (the folder with the gateway's token). common: settings of the
    compose file that all instances share.
    """
    done = []
    for instance in wanted:
        variant, published = instance["variant"].upper(), instance["published"]
        environment = {**pinned(instance, layout["revisions"]), **instance["environment"]}
        settings = {
            "PROJECT": published["project"],
            f"{variant}_PORT": published["port"],
            "BIND_ADDRESS": published["address"],
            "OUTPUTS": f"{layout['data']}/outputs/{instance['name']}",
            "MODELS_ACCESS": "rw" if instance["models_writable"] else "ro",
            "MEMORY": instance["memory"],
            # So that an operator's own `docker compose` there means the same.
            "COMPOSE_FILE": ":".join(
                ["compose.yaml", "unprivileged.yaml"] + ["devices.yaml"] * (variant == "GPU") + ["token.yaml"] * instance["token"]
            ),
            **common,
        }
        files = [
            {"name": "compose.yaml", "content": layout["compose"], "mode": "0644"},
            {"name": ".env", "content": to_dotenv(settings), "mode": "0644"},  # the module adds the image
            {"name": "options.env", "content": to_dotenv(environment), "mode": "0600", "secret": True},
            {"name": "unprivileged.yaml", "content": layout["unprivileged"], "mode": "0644"},
        ]
        if instance["variant"] == "gpu":
            override = devices.compose_override(instance, layout["gpu_mode"])
            files.append({"name": "devices.yaml", "content": override, "mode": "0644"})
        if instance["token"]:
            files.append({"name": "token.yaml", "content": token_override(instance, layout["token_dir"]), "mode": "0644"})
        release = {key: instance[key] for key in ("name", "variant", "image", "url", "cpu_allowed", "memory")}
        release.update(
            environment=environment,
            ref=instance.get("ref"),
            project=published["project"],
            image_variable=f"{variant}_IMAGE",
            devices=instance.get("devices") or [],
        )
        done.append({**release, "files": files})
    return done


def data_folders(wanted, models, data, owner, mode):
    """Return the folders of models and outputs below data, each for the owner, as the module instance_files takes them.

    wanted: completed instances. models: files as the filter model_files gives them. owner: number of user and group. mode: of the
    folders of outputs, in octal.
    """
    paths = [f"{CHECKPOINTS}/any", *(model["path"] for model in models)]
    parents = [str(parent) for path in paths for parent in reversed(PurePosixPath(path).parents)]
    names = ["models", *(f"models/{parent}" for parent in parents if parent != ".")]
    outputs = [f"outputs/{instance['name']}" for instance in wanted]
    folders = [{"path": f"{data}/{name}", "owner": int(owner)} for name in dict.fromkeys(names)]
    return folders + [{"path": f"{data}/{name}", "owner": int(owner), "mode": mode} for name in outputs]


class FilterModule:
    """The filters of this file."""

    def filters(self):
        """Return name and function."""
        return {
            "instances": instances,
            "built_instances": built_instances,
            "data_folders": data_folders,
            "instance_releases": instance_releases,
        }
