"""Asks a gateway as its users do, from a host of the scenario, until it is told to end: `load.py JSON` prints what came of it.

Keys: address, port, host (name in the certificate and in Host), ca (file; none: plain http), user (NAME:PASSWORD),
until (a file: the load ends once it is there), least (requests; until it has so many the load goes on, at three times the rate),
most (seconds after which it ends in any case), rate (requests for the page, the model and the configuration, a second),
pictures (inpaintings a second), connections (kept open by these requests), wait (seconds for an answer).

Half of the connections keep the gateway's cookie, as a browser does, and half are newcomers with each request.
A request that finds its kept connection closed, before a byte of an answer, is made once more on a new one, as RFC 9112 (9.3.1)
has it for GET; `again` counts those. An inpainting has a connection of its own, and is made once.

The answer: total, counts (by kind and status), failed (each request without a whole answer of 200, with the reason), again,
slowest (seconds), seconds, releases (how many answers of the model named each), last (the release that was named last).
"""

import asyncio
import base64
import collections
import contextlib
import json
import os
import ssl
import struct
import sys
import time
import zlib

DEFAULTS = {
    "port": 443,
    "host": "paint.example.com",
    "least": 2000,
    "most": 240,
    "rate": 70,
    "pictures": 1,
    "connections": 20,
    "wait": 150,
}
CHEAP = (("page", "/"), ("model", "/api/v1/model"), ("config", "/api/v1/server-config"))
PNG = b"\x89PNG\r\n\x1a\n"


def picture(size, grey):
    """Return a grey picture as PNG."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + bytes([grey]) * size) * size
    return PNG + b"".join(
        [
            chunk(b"IHDR", struct.pack(">IIBBBBB", size, size, 8, 0, 0, 0, 0)),
            chunk(b"IDAT", zlib.compress(rows)),
            chunk(b"IEND", b""),
        ]
    )


class ClosedError(Exception):
    """A kept connection was closed before an answer began."""


FAILURES = (OSError, EOFError, ValueError, LookupError, ClosedError, asyncio.TimeoutError, asyncio.LimitOverrunError)


class Load:
    """What is asked, and what came of it."""

    def __init__(self, wanted):
        """Take the keys."""
        self.wanted = wanted
        self.context = ssl.create_default_context(cafile=wanted["ca"]) if wanted.get("ca") else None
        lines = [f"Host: {wanted['host']}"]
        if wanted.get("user"):
            lines.append("Authorization: Basic " + base64.b64encode(wanted["user"].encode()).decode())
        self.head = "\r\n".join(lines)
        image, mask = (base64.b64encode(picture(64, grey)).decode() for grey in (90, 255))
        self.body = json.dumps({"image": image, "mask": mask}).encode()
        self.counts, self.failed, self.releases, self.last = collections.Counter(), [], collections.Counter(), None
        self.again, self.begun, self.slowest = 0, 0, 0.0
        self.began = time.monotonic()
        self.over, self.rate = False, wanted["rate"]

    async def connect(self):
        """Return a new connection."""
        tls = {"ssl": self.context, "server_hostname": self.wanted["host"]} if self.context else {}
        return await asyncio.open_connection(self.wanted["address"], self.wanted["port"], **tls)

    async def exchange(self, connection, method, path, cookie, body=b""):
        """Return status, headers and body of one exchange."""
        reader, writer = connection
        lines = [f"{method} {path} HTTP/1.1", self.head, *([f"Cookie: {cookie}"] if cookie else [])]
        lines += [f"Content-Length: {len(body)}", "Content-Type: application/json"] if body else []
        try:
            writer.write("\r\n".join([*lines, "", ""]).encode() + body)
            head = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError) as error:
            if getattr(error, "partial", b""):
                raise
            raise ClosedError(repr(error)) from None
        first, *fields = head.decode().rstrip().split("\r\n")
        headers = {name.lower(): value for name, value in (field.split(": ", 1) for field in fields)}
        return int(first.split()[1]), headers, await reader.readexactly(int(headers["content-length"]))

    async def timed(self, kind, asked):
        """Count the answer that is asked for."""
        self.begun += 1
        at, began, reason = time.time(), time.monotonic(), ""
        try:
            status, headers, body = await asyncio.wait_for(asked, self.wanted["wait"])
            if status == 200 and kind == "picture" and not body.startswith(PNG):
                status, reason = 0, f"no picture: {body[:80]!r}"
            elif status != 200:
                reason = body[:200].decode(errors="replace")
            elif kind.startswith("model"):
                self.last = json.loads(body)["release"]
                self.releases[self.last] += 1
        except FAILURES as error:
            status, headers, body, reason = 0, {}, b"", repr(error)
        seconds = time.monotonic() - began
        self.slowest = max(self.slowest, seconds)
        self.counts[f"{kind} {status}"] += 1
        if status != 200:
            self.failed.append({"kind": kind, "status": status, "reason": reason, "at": at, "seconds": round(seconds, 3)})
        return status, headers

    async def visitor(self, ticks, sticky):
        """Keep a connection, and make a request on it for each tick."""
        connection, cookie, number = None, "", 0

        async def ask(path):
            nonlocal connection
            if connection and not (connection[0].at_eof() or connection[1].is_closing()):
                with contextlib.suppress(ClosedError):
                    return await self.exchange(connection, "GET", path, cookie)
                connection[1].close()
                self.again += 1
            connection = await self.connect()
            return await self.exchange(connection, "GET", path, cookie)

        while await ticks.get():
            name, path = CHEAP[number % len(CHEAP)]
            number += 1
            status, headers = await self.timed(f"{name}, sticky" if sticky else name, ask(path))
            if sticky and "set-cookie" in headers:
                cookie = headers["set-cookie"].partition(";")[0]
            if connection and (status == 0 or headers.get("connection", "").lower() == "close"):
                connection[1].close()
                connection = None
        if connection:
            connection[1].close()

    async def paint(self):
        """Inpaint a picture, on a connection of its own."""
        connection = await self.connect()
        try:
            return await self.exchange(connection, "POST", "/api/v1/inpaint", "", self.body)
        finally:
            connection[1].close()

    async def watch(self):
        """Find out when the load is over."""
        while time.monotonic() < self.began + self.wanted["most"]:
            if not self.wanted.get("until") or os.path.exists(self.wanted["until"]):
                if self.begun >= self.wanted["least"]:
                    break
                self.rate = 3 * self.wanted["rate"]
            await asyncio.sleep(0.2)
        self.over = True

    async def ticking(self, each, rate):
        """Call each so many times a second. What is late is left out, and not made up for."""
        due = time.monotonic()
        while not self.over:
            each()
            due = max(due + 1 / rate(), time.monotonic() - 0.5)
            await asyncio.sleep(max(0, due - time.monotonic()))

    async def run(self):
        """Ask until the end; return what came of it."""
        ticks, paintings, painting = asyncio.Queue(maxsize=1), [], 4
        visitors = [asyncio.ensure_future(self.visitor(ticks, bool(each % 2))) for each in range(self.wanted["connections"])]

        def tick():
            with contextlib.suppress(asyncio.QueueFull):  # all wait for an answer
                ticks.put_nowait(True)

        def paint():
            if sum(not each.done() for each in paintings) < painting:
                paintings.append(asyncio.ensure_future(self.timed("picture", self.paint())))

        jobs = [self.watch(), self.ticking(tick, lambda: self.rate)]
        if self.wanted["pictures"]:
            jobs.append(self.ticking(paint, lambda: self.wanted["pictures"]))
        await asyncio.gather(*jobs)
        await asyncio.gather(*visitors, *paintings, *(ticks.put(False) for _visitor in visitors))
        return {
            "total": sum(self.counts.values()),
            "failed": self.failed,
            "counts": dict(sorted(self.counts.items())),
            "again": self.again,
            "slowest": round(self.slowest, 3),
            "seconds": round(time.monotonic() - self.began, 3),
            "releases": self.releases,
            "last": self.last,
        }


print(json.dumps(asyncio.run(Load({**DEFAULTS, **json.loads(sys.argv[1])}).run())))
