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
    if argv[2] not in images:
        end(1, "[]\n", f"Error response from daemon: No such image: {argv[2]}\n")
    end(0, '[{{"Id": "{Id}", "Size": {Size}}}]'.format(**images[argv[2]]))
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
    images[argv[-1]] = {"Id": f"sha256:pulled-{argv[-1]}", "Size": 2000}
    end(0, argv[-1] + "\n")
if argv[0] == "import":
    if state.get("import_error"):
        end(1, "", state["import_error"])
    made = f"sha256:imported-{os.path.getsize(argv[-2])}"
    images[argv[-1]] = {"Id": made, "Size": 3000}
    end(0, made + "\n")
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
    for name in () if state.get("release") else os.environ["TAGS"].split(","):
        images[name] = {"Id": f"sha256:built-{name}", "Size": 4000}
    end(0, "", "#1 building\n#2 done\n")
if argv[0] == "run" and argv[-1] == "check":
    if state.get("run_error"):
        end(125, "", state["run_error"])
    passed = {name: os.environ[name] for name in values("-e")}
    models = {"IOPAINT_MODEL_DIR": values("-v")[0].split(":")[0]} if "-v" in argv else {}
    command = ["/usr/bin/python3", state["entrypoint"], "check", "--source", state["source"]]
    os.execve(command[0], command, {**models, **passed})  # noqa: S606
if argv[:1] == ["load"] and "--input" in argv:
    with open(argv[-1]) as stream:
        name = stream.read()
    images[name] = {"Id": f"sha256:loaded-{name}", "Size": 2000}
    end(0, f"Loaded image: {name}\n")
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
