#!/usr/bin/env python3
"""What a gateway costs a request against the instance itself, and the guard against none, in one run on hosts that are up.

Requests come from a third host, one after the other over a kept connection, by turns in blocks, so that what else the machine
does meets both alike. The load is wrk's. The instance is the scenario's stand-in, which answers at once: the figures are the
gateway's own.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import importlib.util
import io
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
VISITOR, GATEWAY, INSTANCE = "iopaint-gateway-3", "iopaint-gateway-1", "iopaint-gateway-2"
USER = "alice:a password of $alice's"
# Runs on the visitor's host: prints milliseconds of each request, by name.
CLIENT = """
import base64, http.client, json, ssl, sys, time
wanted = json.loads(sys.argv[1])
context = ssl.create_default_context(cafile="/srv/bench/ca.crt")
context.check_hostname = False  # it is reached by the host's name here
ways = {
    "instance": (http.client.HTTPConnection(wanted["instance"], 8080), {"Host": "127.0.0.1", "X-IOPaint-Token": wanted["token"]}),
    "gateway": (
        http.client.HTTPSConnection(wanted["gateway"], 443, context=context),
        {"Host": "paint.example.com", "Authorization": "Basic " + base64.b64encode(wanted["user"].encode()).decode()},
    ),
}
found = {name: [] for name in ways}
for _block in range(wanted["blocks"]):
    for name, (connection, headers) in ways.items():
        for _request in range(wanted["requests"]):
            began = time.perf_counter()
            connection.request("GET", "/api/v1/model", headers=headers)
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 200, (name, answer.status)
            found[name].append((time.perf_counter() - began) * 1000)
print(json.dumps(found))
"""


def on(host, *command, **options):
    """Return what a command prints on a test host."""
    done = subprocess.run(["docker", "exec", "-i", host, *command], capture_output=True, text=True, check=False, **options)
    if done.returncode:
        sys.exit(f"{host}: {' '.join(command)}: {done.stdout}{done.stderr}")
    return done.stdout


def put(host, path, text):
    """Write a file on a test host."""
    on(host, "sh", "-c", f"mkdir -p $(dirname {path}) && cat > {path}", input=text)


def load(seconds, address, *headers):
    """Return the requests a second that wrk counts over 16 connections."""
    options = [word for header in headers for word in ("-H", header)]
    out = on(VISITOR, "wrk", "-t", "1", "-c", "16", "-d", f"{seconds}s", *options, f"{address}/api/v1/model")
    if "Non-2xx" in out:
        sys.exit(out)
    return float(next(line for line in out.splitlines() if line.startswith("Requests/sec")).split()[1])


def guard_milliseconds(requests):
    """Return the milliseconds that the guard adds to an inpainting of 512 x 512 pixels, in this process."""
    sys.path.insert(0, str(ROOT / "docker" / "image"))
    spec = importlib.util.spec_from_file_location("guard", ROOT / "docker/image/guard.py")
    guard = sys.modules["guard"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(guard)
    picture = io.BytesIO()
    Image.effect_noise((512, 512), 80).convert("RGB").save(picture, "PNG")
    text = base64.b64encode(picture.getvalue()).decode()
    body = json.dumps({"image": text, "mask": text}).encode()

    async def app(_scope, receive, send):
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x"})

    async def measure(asked):
        async def receive():
            return {"type": "http.request", "body": body}

        async def send(_message):
            pass

        scope = {"type": "http", "method": "POST", "path": "/api/v1/inpaint", "query_string": b"", "client": ("127.0.0.1", 1)}
        scope["headers"] = [(b"host", b"127.0.0.1"), (b"content-length", str(len(body)).encode())]
        began = time.perf_counter()
        for _request in range(requests):
            await asked(dict(scope), receive, send)
        return (time.perf_counter() - began) / requests * 1000

    return asyncio.run(measure(guard.Guard(app, guard.Limits(), "/tmp"))) - asyncio.run(measure(app))


def main():
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--blocks", type=int, default=20, help="of each way, by turns")
    parser.add_argument("--requests", type=int, default=100, help="in a block")
    parser.add_argument("--seconds", type=int, default=5, help="of each load")
    options = parser.parse_args()
    token = on(GATEWAY, "cat", "/etc/iopaint-gateway/token").strip()
    put(VISITOR, "/srv/bench/ca.crt", on(GATEWAY, "cat", "/etc/iopaint-gateway/tls/ca.crt"))
    put(VISITOR, "/srv/bench/client.py", CLIENT)
    on(VISITOR, "sh", "-c", "command -v wrk >/dev/null || apt-get install -qq -y --no-install-recommends wrk >/dev/null")
    wanted = {"instance": INSTANCE, "gateway": GATEWAY, "token": token, "user": USER}
    wanted.update(blocks=options.blocks, requests=options.requests)
    found = json.loads(on(VISITOR, "python3", "/srv/bench/client.py", json.dumps(wanted)))
    login = "Authorization: Basic " + base64.b64encode(USER.encode()).decode()
    rates = {
        "instance": load(options.seconds, f"http://{INSTANCE}:8080", "Host: 127.0.0.1", f"X-IOPaint-Token: {token}"),
        "gateway": load(options.seconds, f"https://{GATEWAY}", "Host: paint.example.com", login),
    }
    print("| way | p50 | p99 | requests a second, 16 at once |\n| --- | --- | --- | --- |")
    for name, times in found.items():
        cuts = statistics.quantiles(times, n=100)
        print(f"| {name} | {cuts[49]:.2f} ms | {cuts[98]:.2f} ms | {rates[name]:.0f} |")
    print(f"\nguard, for an inpainting of 512 x 512 pixels: {guard_milliseconds(100):.2f} ms")


main()
