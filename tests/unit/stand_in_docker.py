# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A stand-in for docker, as far as the modules use it: the file state is the engine, the file calls takes every call.

The fixture `engine` (conftest.py) puts it on PATH with STAND_IN, the folder of both, set at its top. `run IMAGE check` is
the real docker/image/entrypoint over the source tree that the state names. It imports little, as tests start it often.
"""

import marshal
import os
import sys

folder = globals()["STAND_IN"]
sys.path.append(globals()["TESTS"])
with open(f"{folder}/state", "rb") as stream:
    state = marshal.load(stream)  # noqa: S302 - the fixture's own file
images, argv = state["images"], sys.argv[1:]
with open(f"{folder}/calls", "ab") as stream:
    marshal.dump({"argv": argv, "env": dict(os.environ), "cwd": os.getcwd()}, stream)
if "--attended" in argv:
    sys.stdin.readline()  # the rest comes when the module ends
elif "--interactive" in argv:
    sys.stdin.read()  # the module that writes it would see a broken pipe


def end(status=0, out="", err=""):
    """Save the state and end."""
    with open(f"{folder}/state", "wb") as stream:
        marshal.dump(state, stream)
    print(out, end="")
    print(err, end="", file=sys.stderr)
    raise SystemExit(status)


def values(option):
    """What is given to each occurrence of an option."""
    return [argv[place + 1] for place, word in enumerate(argv[:-1]) if word == option]


if state["down"]:
    # As with clients before 23.0, `info --format` exits 0 without an engine.
    status = 0 if argv[0] == "info" else 1
    end(status, "\n" if argv[0] == "info" else "[]\n", "Cannot connect to the Docker daemon at unix:///var/run/docker.sock.\n")
if argv[:2] == ["image", "inspect"]:
    named = {**{image["Id"]: image for image in images.values()}, **images}
    if argv[2] not in named:
        end(1, "[]\n", f"Error response from daemon: No such image: {argv[2]}\n")
    form = '[{{"Id": "{Id}", "Size": {Size}}}]'
    if "Labels" in named[argv[2]]:
        form = '[{{"Id": "{Id}", "Size": {Size}, "Created": "{Created}", "Config": {{"Labels": {Labels}}}}}]'
    end(0, form.format(**named[argv[2]]))
if argv[0] == "images":
    end(0, "".join(f"{image['Id']}\n" for image in images.values() if "Labels" in image and "label=" in argv[-1]))
if argv[:2] == ["context", "show"]:
    end(0, "default\n")
if argv[0] == "info":
    known = {
        "{{.DockerRootDir}}": state["root"],
        "{{.ServerVersion}}": "28.2.2",
        "{{json .DriverStatus}}": state.get("store", "[]"),
        "{{json .}}": state.get("info", "{}"),
    }
    end(0, known[argv[2]] + "\n")
if argv[0] == "pull":
    if argv[-1] not in state["registry"]:
        end(1, "", f"Error response from daemon: manifest for {argv[-1]} not found: manifest unknown\n")
    images[argv[-1]] = {"Id": f"sha256:pulled-{argv[-1]}{state.get('edition', '')}", "Size": 2000}
    end(0, argv[-1] + "\n")
if argv[0] == "import":
    if state.get("import_error"):
        end(1, "", state["import_error"])
    imports = state["imports"] = state.get("imports", 0) + 1
    ((key, value),) = [word.removeprefix("LABEL ").split("=") for word in values("--change") if word.startswith("LABEL ")]
    images[argv[-1]] = {"Id": f"sha256:imported-{imports}", "Size": 3000, "Created": "", "Labels": f'{{"{key}": "{value}"}}'}
    end(0, images[argv[-1]]["Id"] + "\n")
if argv[0] == "tag":
    images[argv[2]] = images[argv[1]]
    end()
if argv[:2] == ["ps", "--quiet"]:
    end(0, "".join(f"{container['name']}\n" for container in state["containers"]))
if argv[:3] == ["inspect", "--type", "container"]:
    import json

    found = [container for container in state["containers"] if container["name"] in argv[3:]]
    label = "com.docker.compose."
    documents = [
        {
            "Name": f"/{each['name']}",
            "Config": {
                "Labels": {
                    f"{label}project": each["project"],
                    f"{label}service": "iopaint-cpu",
                    f"{label}project.working_dir": each.get("folder", "/srv"),
                }
            },
            "NetworkSettings": {
                "Ports": {
                    "8080/tcp": [{"HostIp": each.get("address", "127.0.0.1"), "HostPort": str(each["port"])}],
                    "9/tcp": None,
                }
            },
        }
        for each in found
    ]
    end(0, json.dumps(documents))
if argv[0] == "ps":
    end()
if argv[:2] == ["buildx", "bake"]:
    if state.get("build_error"):
        end(1, "", state["build_error"])
    (target,) = [word.partition("dest=")[2] for word in argv if "type=local,dest=" in word] or [None]
    for path, mode in (state.get("release") or {}).items():
        os.makedirs(os.path.dirname(f"{target}/{path}"), exist_ok=True)
        with open(f"{target}/{path}", "w") as file:
            os.fchmod(file.fileno(), mode)
    if target and "packages" in state:
        with open(f"{target}/debian-packages.txt", "w") as file:
            file.write(state["packages"])
    for name in () if target else os.environ["TAGS"].split(","):
        images[name] = {"Id": f"sha256:built-{name}", "Size": 4000}
    end(0, "", "#1 building\n#2 done\n")
if argv[0] == "create":
    if state.get("create_error"):
        end(1, "", state["create_error"])
    state["created"] = [*state.get("created", []), "c1"]
    end(0, "c1\n")
if argv[0] == "cp":
    with open(1, "wb") as out:
        out.write(state["copied"])  # the archive that the engine would send
    raise SystemExit  # it may be killed, so it writes no state
if argv[0] == "rm":
    state["created"] = [name for name in state.get("created", []) if name != argv[-1]]
    end()
if argv[0] == "run" and argv[-1] == "check":
    if state.get("run_error"):
        end(125, "", state["run_error"])
    passed = {name: os.environ[name] for name in values("-e")}
    models = {"IOPAINT_MODEL_DIR": values("-v")[0].split(":")[0]} if "-v" in argv else {}
    command = ["/usr/bin/python3", state["entrypoint"], "check", "--source", state["source"]]
    os.execve(command[0], command, {**models, **passed})  # noqa: S606
if argv[0] == "run" and "fetch-models" in argv:
    end(*state["fetched"])
if argv[:1] == ["load"] and "--input" in argv:
    import json
    import tarfile

    with tarfile.open(argv[-1]) as tar:
        names = [name for image in json.load(tar.extractfile("manifest.json")) for name in image["RepoTags"]]
    images.update({name: {"Id": f"sha256:loaded-{name}", "Size": 2000} for name in names})
    end(0, "".join(f"Loaded image: {name}\n" for name in names))
if argv[0] in ("save", "load"):
    import stand_in_archive

    if state.get(f"{argv[0]}_error"):
        end(1, "", state[f"{argv[0]}_error"])
    if argv[0] == "save":
        stand_in_archive.save(images, argv[1:])
    else:
        images.update(stand_in_archive.load())
    end()
end(64, "", f"the stand-in knows no docker {' '.join(argv)}\n")
