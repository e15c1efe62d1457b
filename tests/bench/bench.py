#!/usr/bin/env python3
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Measure docker/ against the plain design next to this file, on the Docker engine of this host.

    bench.py --source TREE [--wheelhouse FOLDER] [--base IMAGE] [--ca FILE] [--runs 3] [--cold-runs 3] [--out FILE]

Each figure is the median of the runs, both designs in turn. Cold means: without any build cache, which is why the
engine's whole build cache is removed before the cold builds, and all of it but the downloads before those that keep these,
which run once. The design that begins changes from round to round. Before each cold build the machine's page cache is dropped,
which needs root and /proc/sys/vm: full of what the other design has written, it made a build a sixth slower.
In each run both are started three times, in turn.
The result is a table and one JSON object a line, which has the single runs as well, in their order.
"""

import argparse
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import tempfile
import time
import urllib.request
from datetime import datetime, timezone
from pathlib import Path

HERE = Path(__file__).resolve().parent
RECIPE = HERE.parents[1] / "docker"
PORT = 18080
DROP_CACHES = Path("/proc/sys/vm/drop_caches")
# The light dependency that is changed, and to what.
LIGHT = ("easydict", "1.13", "6b787daf4dcaf6377b4ad9403a5cee5a86adbc0ca9a5bcf5410e9902002aeac2")

# Starts of each design in a run: more than of the rest, as the machine's speed changes within seconds.
STARTS = 3

# A request to inpaint, made by the proof's own code with the Pillow of the image.
INPAINT = HERE.parents[1] / "plugins" / "module_utils" / "inpaint.py"
REQUEST = """
import inpaint
from PIL import Image, ImageDraw
mask = Image.new("L", (512, 512))
ImageDraw.Draw(mask).ellipse((200, 200, 260, 260), fill=255)
print(inpaint.request_body(Image.radial_gradient("L").resize(mask.size).convert("RGB"), mask, {}).decode())
"""


def run(*command, **options):
    """Run a command, show its output where it fails, give its standard output."""
    done = subprocess.run(command, check=False, capture_output=True, text=True, **options)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout[-3000:]}{done.stderr[-6000:]}")
    return done.stdout


def layers(image):
    """Return the layers of an image: digest and bytes, from the base up."""
    digests = json.loads(run("docker", "image", "inspect", "--format", "{{json .RootFS.Layers}}", image))
    rows = run("docker", "history", "--human=false", "--format", "{{.Size}}\t{{.CreatedBy}}", image).splitlines()
    made = [row.split("\t", 1) for row in reversed(rows)]
    # Steps that set a field of the configuration make no layer; the empty layers of a COPY do.
    sizes = [int(size) for size, step in made if not re.match(r"(ARG|ENV|USER|EXPOSE|VOLUME|ENTRYPOINT|CMD) ", step)]
    sizes = sizes if len(sizes) == len(digests) else [size for size in sizes if size][: len(digests)]
    return list(zip(digests, sizes))


class Design:
    """One way to build the image."""

    def __init__(self, name, options, work):
        self.name, self.options, self.image = name, options, f"iopaint-bench:{name}"
        self.source, self.recipe = work / f"{name}-source", work / f"{name}-recipe"
        shutil.copytree(options.source, self.source, ignore=shutil.ignore_patterns("node_modules", "dist", ".git"))
        shutil.copytree(RECIPE, self.recipe)
        if name == "plain":
            shutil.copy(HERE / "plain.Dockerfile", self.recipe / "Dockerfile")
            (self.recipe / "Dockerfile.dockerignore").unlink()

    def build(self, cold=False):
        """Build the image, cold with an empty page cache; return the seconds."""
        if self.name == "ours":
            command = ["docker", "buildx", "bake", "-f", str(self.recipe / "docker-bake.hcl"), "--load", "cpu"]
            command += ["--set", f"cpu.context={self.recipe}"]
            env = {"SOURCE": str(self.source), "BASE": self.options.base, "TAGS": self.image, "CA_BUNDLE": self.options.ca}
            env.update(WHEELHOUSE=self.options.wheelhouse, SOURCE_DATE_EPOCH="1577836800")
        else:
            pins = [(self.recipe / "constraints" / name).read_text() for name in ("torch-cpu.txt", "packages.txt")]
            # The wheels of a wheelhouse may be one's own builds, so without hashes, as in docker/build/install-packages.
            lines = [
                line.removesuffix(" \\")
                for line in "\n".join(pins).splitlines()
                if "==" in line and not line.startswith((" ", "#"))
            ]
            (self.recipe / "pins.txt").write_text("\n".join(lines) + "\n")
            command = ["docker", "buildx", "build", "--load", "-t", self.image, "--build-arg", f"BASE={self.options.base}"]
            command += ["--build-context", f"source={self.source}", str(self.recipe)]
            command += ["--secret", f"id=ca,src={self.options.ca}"] if self.options.ca else []
            command += ["--build-context", f"wheelhouse={self.options.wheelhouse}"] if self.options.wheelhouse else []
            env = {}
        os.sync()  # what the other has left to write is not this one's to wait for, and can't be dropped
        if cold:
            DROP_CACHES.write_text("3")
        start = time.monotonic()
        run(*command, env={**os.environ, **env})
        return time.monotonic() - start

    def rebuild(self, change):
        """Build after a change; return seconds, bytes of new layers and the old layers that stayed."""
        before = layers(self.image)
        change(self)
        seconds = self.build()
        known = {digest for digest, _size in before}
        after = layers(self.image)
        return seconds, sum(size for digest, size in after if digest not in known), [size for d, size in after if d in known]

    def start(self, body):
        """Return the seconds from `docker run` until the model is loaded, and those of inpainting `body` after that."""
        os.sync()  # the builds before it still write
        begin = time.monotonic()
        command = ["iopaint", "start", "--model", "cv2"] if self.name == "ours" else []
        container = run("docker", "run", "-d", "-p", f"127.0.0.1:{PORT}:8080", self.image, *command).strip()
        try:
            while not answers():
                if time.monotonic() - begin > 180:
                    raise SystemExit(f"{self.name} did not answer:\n" + run("docker", "logs", "--tail", "20", container))
                time.sleep(0.05)
            seconds = time.monotonic() - begin
            return seconds, picture(body)
        finally:
            run("docker", "rm", "-f", container)


def answers():
    """Return whether IOPaint has loaded its model."""
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{PORT}/api/v1/model", timeout=2).close()
    except OSError:
        return False
    return True


def picture(body):
    """Return seconds that a request to inpaint takes: the median of five after one."""
    headers, seconds = {"Content-Type": "application/json"}, []
    for _ in range(6):
        begin = time.monotonic()
        request = urllib.request.Request(f"http://127.0.0.1:{PORT}/api/v1/inpaint", body.encode(), headers)
        urllib.request.urlopen(request, timeout=60).read()
        seconds.append(time.monotonic() - begin)
    return statistics.median(seconds[1:])


def append(path, text):
    """Return a change that adds a line to a file of the source; another line each time."""

    def change(design):
        with (design.source / path).open("a") as stream:
            stream.write(text % time.time_ns())

    return change


def light_dependency(design):
    """Another version of one light package."""
    name, version, digest = LIGHT
    path = design.recipe / "constraints" / "packages.txt"
    pin = f"{name}=={version} \\\n    --hash=sha256:{digest}"
    path.write_text(re.sub(rf"^{name}==.*\n(?:    --hash.*\n)*", pin + "\n", path.read_text(), flags=re.MULTILINE))


def measure(designs, options):
    """Return all figures, as (figure, unit, {design: [values]})."""
    figures = {}

    def note(figure, unit, design, value):
        figures.setdefault((figure, unit), {}).setdefault(design.name, []).append(value)

    def cold(figure, in_turn, *kept):
        # Once for both: they have no step in common but the base, and the other figures need both caches.
        run("docker", "image", "prune", "--force")  # those that earlier rounds left without a name
        run("docker", "buildx", "prune", "--all", "--force", *kept)
        for design in in_turn:
            note(figure, "s", design, design.build(cold=True))

    for number in range(options.cold_runs):
        cold("cold build", designs[::-1] if number % 2 else designs)
    # As after a change of the base; the plain design has no caches of downloads. Not by --no-cache, which empties them too.
    cold("cold build, downloads kept", designs, "--filter", "type=regular")
    for design in designs:
        note("image size", "MB", design, int(run("docker", "image", "inspect", "--format", "{{.Size}}", design.image)) / 1e6)
    changes = {
        "one Python file": append("iopaint/cli.py", "\n# %s\n"),
        "one front-end file": append(options.frontend_file, "\nconsole.log(%s)\n"),
    }
    python = [
        "--user",
        "10001:10001",
        "--entrypoint",
        "python3",
        "--env",
        "PYTHONPATH=/request",
        "--volume",
        f"{INPAINT}:/request/{INPAINT.name}:ro",
    ]
    body = run("docker", "run", "--rm", *python, designs[-1].image, "-c", REQUEST)
    for _round in range(options.runs):
        for design in designs:
            note("nothing changed", "s", design, design.build())
        for name, change in changes.items():
            for design in designs:
                seconds, size, _kept = design.rebuild(change)
                note(name, "s", design, seconds)
                note(f"{name}, new layers", "MB", design, size / 1e6)
        for design in designs * STARTS:
            start, inpainted = design.start(body)
            note("start to first answer, cv2", "s", design, start)
            note("a picture by cv2, 512 x 512", "s", design, inpainted)
    for design in designs:
        seconds, size, kept = design.rebuild(light_dependency)
        note("one light dependency", "s", design, seconds)
        note("one light dependency, new layers", "MB", design, size / 1e6)
        note("one light dependency, largest layer kept", "MB", design, max(kept) / 1e6)
    return figures


def table(figures, options):
    """Return the result as Markdown and as JSON lines."""
    rows, lines = ["| figure | unit | ours | plain | ratio |", "| --- | --- | ---: | ---: | ---: |"], []
    for (figure, unit), values in figures.items():
        ours, plain = (round(statistics.median(values[name]), 3) for name in ("ours", "plain"))
        ratio = round(ours / plain, 3) if plain else None
        rows.append(f"| {figure} | {unit} | {ours:.2f} | {plain:.2f} | {'' if ratio is None else ratio} |")
        runs = {name: [round(value, 3) for value in each] for name, each in values.items()}
        lines.append(json.dumps({"figure": figure, "unit": unit, "ours": ours, "plain": plain, "ratio": ratio, "runs": runs}))
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    machine = f"{os.cpu_count()} cores ({cpu[1] if cpu else platform.machine()}), {memory:.0f} GB of memory"
    engine = run("docker", "version", "--format", "{{.Server.Version}}").strip()
    head = f"{datetime.now(timezone.utc):%Y-%m-%d}, {machine}, load {os.getloadavg()[2]:.1f} over 15 minutes, Docker {engine}; "
    head += f"medians of {options.runs} runs, cold build {options.cold_runs}, start {STARTS * options.runs}."
    return head, rows, lines


def main():
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--wheelhouse", default="")
    parser.add_argument("--base", default="debian:bookworm-slim")
    parser.add_argument("--ca", default="")
    parser.add_argument("--frontend-file", default="web_app/src/main.tsx")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--cold-runs", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("bench.jsonl"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        designs = [Design(name, options, Path(folder)) for name in ("plain", "ours")]
        head, rows, lines = table(measure(designs, options), options)
    options.out.write_text("\n".join(lines) + "\n")
    options.out.with_suffix(".md").write_text("\n".join([head, "", *rows]) + "\n")
    print("\n".join([head, "", *rows]))


if __name__ == "__main__":
    main()
