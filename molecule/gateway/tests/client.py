"""Asks a gateway, from a host of the scenario: `client.py JSON` prints a JSON list with an answer for each request.

Keys: address, port, host (name in the certificate and in Host), ca (file; none: plain http), path, method, headers, body (text),
length (what Content-Length says, where it isn't the body's), user (NAME:PASSWORD), count, parallel,
pause (seconds between requests), wait (seconds for an answer).
until names a file: once it is there no more requests are made.
Each request has a connection of its own. status is 0, and error has the reason, where no answer came.
"""

import asyncio
import base64
import json
import os
import ssl
import sys
import time

DEFAULTS = {
    "port": 443,
    "host": "paint.example.com",
    "path": "/api/v1/model",
    "method": "GET",
    "count": 1,
    "parallel": 8,
    "pause": 0,
    "wait": 150,
}


async def answer(reader, writer, text):
    """Return status, headers and body of one exchange."""
    writer.write(text)
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().rstrip().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return {"status": int(first.split()[1]), "headers": headers, "body": body.decode()}


async def ask(wanted, text, context):
    """Return the answer to one request, with how long it took."""
    began, at = time.monotonic(), time.time()
    tls = {"ssl": context, "server_hostname": wanted["host"]} if context else {}

    async def exchange():
        reader, writer = await asyncio.open_connection(wanted["address"], wanted["port"], **tls)
        try:
            return await answer(reader, writer, text)
        finally:
            writer.close()

    try:
        found = await asyncio.wait_for(exchange(), wanted["wait"])
    except (OSError, EOFError, ValueError, IndexError, asyncio.TimeoutError) as error:
        found = {"status": 0, "error": repr(error)}
    return {**found, "began": at, "seconds": time.monotonic() - began}


async def main(wanted):
    """Ask as often as is wanted, not more than `parallel` at once."""
    body = wanted.get("body", "").encode()
    headers = {"Host": wanted["host"], "Connection": "close", **wanted.get("headers", {})}
    if body or wanted.get("length"):
        headers["Content-Length"] = wanted.get("length") or len(body)
    if wanted.get("user"):
        headers["Authorization"] = "Basic " + base64.b64encode(wanted["user"].encode()).decode()
    lines = [f"{wanted['method']} {wanted['path']} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    text = "\r\n".join([*lines, "", ""]).encode() + body
    context = ssl.create_default_context(cafile=wanted["ca"]) if wanted.get("ca") else None
    places = asyncio.Semaphore(wanted["parallel"])

    async def one():
        async with places:
            return await ask(wanted, text, context)

    asked = []
    while len(asked) < wanted["count"] and not (wanted.get("until") and os.path.exists(wanted["until"])):
        asked.append(asyncio.ensure_future(one()))
        await asyncio.sleep(wanted["pause"])
    return await asyncio.gather(*asked)


print(json.dumps(asyncio.run(main({**DEFAULTS, **json.loads(sys.argv[1])}))))
