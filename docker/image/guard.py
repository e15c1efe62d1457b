# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What stands between the network and IOPaint: ASGI applications around IOPaint's own, which stays as it is.

IOPaint answers any host name and any origin, computes side by side on one GPU, and decodes whatever it is sent. `guard` puts
limits before it; Limits says which, and by which variables they are set. Each refusal is one sentence, as the page shows errors.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hmac
import io
import ipaddress
import json
import os
import re
import sys
import threading
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from metrics import PATH as METRICS
from metrics import Metrics, route_of
from PIL import Image
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

LOOPBACK = ("localhost", "localhost.localdomain", "ip6-localhost")
ON = ("true", "1", "yes", "on")  # as the entrypoint has it
READING = ("GET", "HEAD", "OPTIONS")
COMPUTES = re.compile(r"/api/v1/(inpaint|run_plugin_gen_(mask|image)|adjust_mask|model|switch_plugin_model)")
SWITCHES = "/api/v1/model"
SOCKET = "/socket.io/"
SAVES = "/api/v1/save_image"
READS = re.compile(r"/api/v1/media_(thumbnail_)?file")
PICTURES = ("image", "mask", "paint_by_example_example_image")  # fields of JSON bodies
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "AVIF")  # nothing that starts another program, as EPS does
GATEWAY = b"x-iopaint-token"  # the header of a gateway's token
UNSAFE = re.compile(r'[\x00-\x1f\x7f<>:"/\\|?*]|^[. ]|[. ]$|^(con|prn|aux|nul|com\d|lpt\d)(\.|$)', re.IGNORECASE)
UNENDED = os.EX_TEMPFAIL  # exit status of a process that can't go on; the engine starts it again
DRAINED = 8  # times the limit of a body
MEASURED_FOR = 60  # seconds for which the size of the outputs is taken as known


@dataclass
class Limits:
    """The limits. Each is set by a variable of the container, as queue by IOPAINT_FLEET_QUEUE; 0 switches one off.

    allowed_hosts: further host names of this instance, in the variable separated by commas; * for all.
    queue: requests that wait for the one that computes.
    body_mb: megabytes of a request. megapixels: of each picture, mask or result. outputs_gb: gigabytes of saved pictures.
    minutes: for one computation. unhealthy_minutes: without a healthy answer, until the process ends.
    token_file: a file with the gateway's tokens, one a line; empty for none. Others are refused, but for the container itself.
    allow_anonymous: whether they are let in all the same.
    """

    allowed_hosts: tuple[str, ...] = ()
    queue: int = 32
    body_mb: int = 64
    megapixels: int = 50
    outputs_gb: int = 20
    minutes: int = 30
    unhealthy_minutes: int = 5
    token_file: str = ""
    allow_anonymous: bool = False

    @classmethod
    def of(cls, environ):
        """Read the limits from variables, which the entrypoint has checked."""
        given = {name: environ.get(f"IOPAINT_FLEET_{name.upper()}", "") for name in cls.__dataclass_fields__}
        hosts = tuple(name.strip().lower() for name in given.pop("allowed_hosts").split(",") if name.strip())
        rest = {"token_file": given.pop("token_file"), "allow_anonymous": given.pop("allow_anonymous").lower() in ON}
        return cls(hosts, **rest, **{name: int(value) for name, value in given.items() if value})


def end(why):
    """End the process: a computation in a thread can't be stopped otherwise. The engine starts it again."""
    print(f"guard: {why} The process ends, so that the engine restarts it.", file=sys.stderr, flush=True)
    os._exit(UNENDED)


class RefusedError(Exception):
    """A request that IOPaint is not asked: HTTP status, the sentence for the user, further headers."""

    def __init__(self, status, sentence, **headers):
        super().__init__(sentence)
        self.status, self.sentence = status, sentence
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    def response(self):
        """Return the answer, in the form of IOPaint's own errors."""
        body = {"error": "Refused", "detail": self.sentence, "errors": self.sentence, "body": ""}
        return JSONResponse(body, self.status, headers=self.headers)


async def for_ever():
    """Wait: what a receiving side without a client does."""
    await asyncio.Event().wait()


def tokens_of(path):
    """Return the tokens of a file, which a play may change; none where it can't be read, so that nobody has one."""
    try:
        return Path(path).read_bytes().split()
    except OSError:
        return []


def is_loopback(scope):
    """Return whether a request comes from the container itself, as that of its health check."""
    try:
        return ipaddress.ip_address((scope.get("client") or ("",))[0]).is_loopback
    except ValueError:
        return False


class Replay:
    """The receiving side of a request whose body has been read; afterwards it tells when the client has gone."""

    def __init__(self, body, receive=for_ever):
        self.body, self.receive, self.gone = body, receive, None

    def __enter__(self):
        return self

    def __exit__(self, *_reason):
        """Wait no longer for the client, as the request is over."""
        if self.gone is not None:
            self.gone.cancel()

    def leaving(self):
        """Return the task that ends once the client has gone."""
        if self.gone is None:
            self.gone = asyncio.ensure_future(self.receive())
        return self.gone

    async def __call__(self):
        if self.body is not None:
            body, self.body = self.body, None
            return {"type": "http.request", "body": body, "more_body": False}
        return await asyncio.shield(self.leaving())


async def whole_body(receive, limit):
    """Return the body of a request; refuse one that is longer than limit bytes (0: any).

    The rest of it is read and forgotten, up to DRAINED times the limit: a client that still sends would not see the answer.
    """
    parts, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise asyncio.CancelledError
        part, more = message.get("body", b""), message.get("more_body", False)
        size += len(part)
        if not limit or size <= limit:
            parts.append(part)
        else:
            parts.clear()
            more = more and size <= DRAINED * limit
    if limit and size > limit:
        raise RefusedError(
            413, f"The request is larger than the {limit / 1e6:g} MB that this instance takes.", Connection="close"
        )
    return b"".join(parts)


def check_picture(data, name, limit):
    """Refuse a picture by its header alone: one that is none of FORMATS, or has more pixels than limit (0: any)."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            width, height = picture.size
    except Image.DecompressionBombError:
        width = height = sys.maxsize
    except Exception:  # whatever it is: anybody may have made the file
        raise RefusedError(415, f"{name} is no picture that this instance reads ({', '.join(FORMATS)}).") from None
    check_pixels(width * height, name, limit)


def check_pixels(pixels, name, limit):
    """Refuse what has more pixels than limit (0: any)."""
    if limit and pixels > limit:
        raise RefusedError(413, f"{name} has more than the {limit / 1e6:g} megapixels that this instance takes. Make it smaller.")


def whole_number(fields, name):
    """Return a field that should be a whole number; 0 where it is none, which IOPaint refuses itself."""
    value = fields.get(name)
    return value if isinstance(value, int) and value > 0 else 0


def check_fields(body, limit):
    """Refuse a JSON body whose pictures, or what would be made of them, are too large, before anything of it is decoded."""
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        raise RefusedError(400, "The request is no JSON.") from None
    if not isinstance(fields, dict):
        return {}
    for name in PICTURES:
        if isinstance(fields.get(name), str) and fields[name]:
            try:
                data = base64.b64decode(fields[name].rpartition(",")[2], validate=False)
            except (binascii.Error, ValueError):
                raise RefusedError(415, f"{name} is no picture in base64.") from None
            check_picture(data, name, limit)
    check_pixels(whole_number(fields, "extender_width") * whole_number(fields, "extender_height"), "The extended picture", limit)
    check_pixels((2 * whole_number(fields, "kernel_size") + 1) ** 2, "kernel_size", limit)
    return fields


def size_of(folder):
    """Return the bytes of all files below a folder."""
    total = 0
    for top, _folders, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(top, name)).st_size
            except OSError:
                continue
    return total


def path_of(scope):
    """Return the path of a request without the prefix /ws, below which IOPaint answers as well."""
    return re.sub(r"^(/ws)+(?=/)", "", scope["path"])


def host_and_port(text):
    """Return name and port of a Host header or an origin; the name in lower case, the port "" where it is left out.

    Both are "" where the text is neither.
    """
    try:
        parts = urlsplit(f"//{text}")
        return (parts.hostname or "").lower(), str(parts.port or "")
    except ValueError:
        return "", ""


class Guard:
    """The ASGI application that IOPaint's own is wrapped in.

    app: IOPaint's. limits: a Limits. outputs: folder of saved pictures.
    """

    def __init__(self, app, limits, outputs):
        self.app, self.limits, self.outputs = app, limits, Path(outputs)
        self.turn, self.inside = asyncio.Lock(), 0
        self.metrics = Metrics()
        self.used, self.measured = 0, float("-inf")

    async def __call__(self, scope, receive, send):
        """Answer one request, or hand it on."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        began, status = time.monotonic(), None

        async def counted(message):
            nonlocal status
            status = status or message.get("status")
            await send(message)

        try:
            await self.answered(scope, receive, counted)
        finally:
            if status:
                self.metrics.count(path_of(scope), status, time.monotonic() - began)

    async def answered(self, scope, receive, send):
        """Answer one request, or hand it on, where it passes the limits."""
        try:
            scope, from_gateway = self.without_token(scope)
            if self.limits.token_file and not (from_gateway or self.limits.allow_anonymous or is_loopback(scope)):
                raise RefusedError(401, "This instance answers to its gateway only.")
            self.check_host_and_origin(scope, from_gateway)
            if path_of(scope) == METRICS:
                if self.limits.token_file and not (from_gateway or is_loopback(scope)):
                    raise RefusedError(401, "The measures of this instance are for its gateway.")
                await (await self.measured_page())(scope, receive, send)
                return
            await self.guarded(scope, receive, self.without_cors(send))
        except RefusedError as refusal:
            if scope["type"] == "websocket":
                await receive()
                await send({"type": "websocket.close", "code": 1008})
            else:
                await refusal.response()(scope, receive, send)
        except asyncio.CancelledError:  # the client has gone
            return

    async def measured_page(self):
        """Return the answer for Prometheus."""
        await self.healthy()
        body, kind = self.metrics.page()
        return Response(body, media_type=kind)

    def without_token(self, scope):
        """Return a request without its token, and whether it is one of the gateway's."""
        given = [value for name, value in scope["headers"] if name == GATEWAY]
        if not given:
            return scope, False
        others = [(name, value) for name, value in scope["headers"] if name != GATEWAY]
        known = tokens_of(self.limits.token_file) if self.limits.token_file else []
        right = [hmac.compare_digest(given[0], token) for token in known]  # all of them: time tells nothing
        return {**scope, "headers": others}, len(given) == 1 and any(right)

    def check_host_and_origin(self, scope, from_gateway):
        """Refuse names that this instance doesn't have, and other sites' pages that would change something.

        A gateway judges names itself.
        """
        headers = Headers(scope=scope)
        host, port = host_and_port(headers.get("host", ""))
        if not from_gateway and not self.is_own(host):
            raise RefusedError(
                421,
                f"This instance does not serve the host name '{host[:100]}'. "
                "Add the name to allowed_hosts of the instance (IOPAINT_FLEET_ALLOWED_HOSTS).",
            )
        origin = headers.get("origin")
        changes = scope["type"] == "websocket" or scope["method"] not in READING or path_of(scope).startswith(SOCKET)
        if origin is None or not changes:
            return
        scheme, place = origin.partition("://")[::2]
        its, its_port = host_and_port(place)
        usual = {"http": "80", "https": "443"}.get(scheme.lower(), "")
        if its != host or (its_port or usual) != (port or usual):
            raise RefusedError(403, "The request comes from the page of another site.")

    def is_own(self, host):
        """Return whether a request for this host name is for this instance."""
        if host in LOOPBACK or host in self.limits.allowed_hosts or "*" in self.limits.allowed_hosts:
            return True
        try:
            return bool(ipaddress.ip_address(host))
        except ValueError:
            return False

    @staticmethod
    def without_cors(send):
        """Return a sending side that leaves out the headers by which IOPaint lets any site read its answers."""

        async def sending(message):
            if message["type"] == "http.response.start":
                headers = MutableHeaders(raw=list(message.get("headers", [])))
                for name in [name for name in headers if name.lower().startswith("access-control-")]:
                    del headers[name]
                message = {**message, "headers": headers.raw}
            await send(message)

        return sending

    async def guarded(self, scope, receive, send):
        """Check a request as its route wants it, and hand it on."""
        path = path_of(scope)
        if scope["type"] == "websocket" or path.startswith(SOCKET):
            await self.app(scope, receive, send)
            return
        if READS.fullmatch(path):
            self.check_path(scope)
        if scope["method"] in READING:
            await self.app(scope, receive, send)
            return
        computes = COMPUTES.fullmatch(path) is not None
        if computes:
            self.check_queue()  # before its body takes memory
        with Replay(await whole_body(receive, self.limits.body_mb * 10**6), receive) as replay:
            if not computes:
                await self.check_form(scope, replay.body)
                await self.app(scope, replay, send)
                return
            fields = await asyncio.to_thread(check_fields, replay.body, self.limits.megapixels * 10**6)
            await self.compute(scope, replay, send, fields)

    def check_path(self, scope):
        """Refuse names of files that lead out of the folder of --input."""
        for name in parse_qs(scope["query_string"].decode("latin-1")).get("filename", []):
            if "\0" in name or "\\" in name or name.startswith("/") or ".." in name.split("/"):
                raise RefusedError(400, "filename leads out of the folder.")

    async def check_form(self, scope, body):
        """Refuse a picture that is saved or looked at: too many pixels, an unsafe name, no room."""
        if not Headers(scope=scope).get("content-type", "").startswith("multipart/form-data"):
            return
        try:
            form = await Request(scope, Replay(body)).form(max_files=4, max_fields=16)
        except Exception:  # whatever it is: anybody may have made the form
            raise RefusedError(400, "The request is no form that can be read.") from None
        try:
            files = [value for value in form.values() if not isinstance(value, str)]
            for file in files:
                if path_of(scope) == SAVES:
                    self.check_name(file.filename or "")
                else:
                    await asyncio.to_thread(check_picture, await file.read(), "The picture", self.limits.megapixels * 10**6)
            if path_of(scope) == SAVES and self.limits.outputs_gb:
                await self.check_room(sum(file.size or 0 for file in files))
        finally:
            await form.close()

    @staticmethod
    def check_name(name):
        """Refuse a name that is not safe on every file system."""
        if not name or len(os.fsencode(name)) > 200 or UNSAFE.search(name):
            raise RefusedError(
                400, "The picture's name has characters that a file system may not take. Rename it and save it again."
            )

    async def check_room(self, more):
        """Refuse what no longer fits into the outputs; their size is measured once a minute."""
        if time.monotonic() - self.measured > MEASURED_FOR:
            self.used, self.measured = await asyncio.to_thread(size_of, self.outputs), time.monotonic()
        if self.used + more > self.limits.outputs_gb * 10**9:
            raise RefusedError(
                507,
                f"The outputs of this instance have taken the {self.limits.outputs_gb} GB that they may. "
                "Remove some, or raise outputs_gb of the instance (IOPAINT_FLEET_OUTPUTS_GB).",
            )
        self.used += more

    def check_queue(self):
        """Refuse a request if the queue is full."""
        if self.limits.queue and self.inside > self.limits.queue:
            raise RefusedError(503, f"{self.limits.queue} requests wait already. Try again in a moment.", Retry_After="10")

    async def compute(self, scope, replay, send, fields):
        """Let a request compute once it is its turn; a client that goes while it waits loses its place."""
        self.check_queue()
        self.inside += 1
        self.metrics.queue.inc()
        began, mine = time.monotonic(), asyncio.ensure_future(self.turn.acquire())
        try:
            try:
                await asyncio.wait({mine, replay.leaving()}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                self.metrics.queue.dec()
                self.metrics.waited.observe(time.monotonic() - began)
            if not mine.done():
                mine.cancel()
                return
            try:
                with self.metrics.computed.labels(route_of(path_of(scope)), self.metrics.name).time():
                    await self.compute_now(scope, replay, send, fields)
            finally:
                self.turn.release()
        finally:
            self.inside -= 1

    async def compute_now(self, scope, replay, send, fields):
        """Hand a computation on; a switch of the model must leave one."""
        switches = path_of(scope) == SWITCHES
        if switches:
            await self.check_model(fields)
        await self.timed(scope, replay, send)
        if switches and not await self.healthy():
            end("A switch of the model failed, and no model is loaded.")

    async def timed(self, scope, replay, send):
        """Hand a computation on, and end the process where it takes too long."""
        task = asyncio.ensure_future(self.app(scope, replay, send))
        done, _pending = await asyncio.wait({task}, timeout=self.limits.minutes * 60 or None)
        if not done:
            refusal = RefusedError(504, f"The computation took longer than {self.limits.minutes} minutes, and was ended.")
            await refusal.response()(scope, replay, send)
            await asyncio.sleep(0.5)  # for the answer to leave
            end(refusal.sentence)
        await task

    async def asked(self, path):
        """Return status and body of IOPaint's own answer to a GET."""
        status, body = None, []

        async def send(message):
            nonlocal status
            status = message.get("status", status)
            body.append(message.get("body", b""))

        scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http"}
        scope.update(path=path, raw_path=path.encode(), query_string=b"", root_path="", headers=[(b"host", b"127.0.0.1")])
        with Replay(b"") as replay:
            await self.app({**scope, "client": ("127.0.0.1", 0), "server": ("127.0.0.1", 8080)}, replay, send)
        return status, b"".join(body)

    async def healthy(self):
        """Return whether IOPaint has a model, and note which."""
        status, body = await self.asked(SWITCHES)
        if status == 200:
            with contextlib.suppress(ValueError, AttributeError):
                self.metrics.loaded(json.loads(body).get("name"))
        return status == 200

    async def check_model(self, fields):
        """Refuse a model that is not there: IOPaint would give up the one it has."""
        status, body = await self.asked("/api/v1/server-config")
        names = [model.get("name") for model in json.loads(body).get("modelInfos", [])] if status == 200 else []
        if names and fields.get("name") not in names:
            raise RefusedError(422, f"There is no model of that name. There are: {', '.join(sorted(names))}.")


def watch(port, minutes, interval=15):
    """End the process once it has been healthy and then was not for some minutes: the engine restarts no unhealthy container."""
    ask = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    was_healthy, since = False, time.monotonic()
    while True:
        try:
            with ask.open(f"http://127.0.0.1:{port}{SWITCHES}", timeout=10):
                was_healthy, since = True, time.monotonic()
        except OSError:
            if was_healthy and time.monotonic() - since > minutes * 60:
                end(f"IOPaint gave no healthy answer for {minutes} minutes.")
        time.sleep(interval)


def guard(app, environ, outputs, port):
    """Return IOPaint's ASGI application with the limits before it, which the variables set; and watch over its health."""
    limits = Limits.of(environ)
    if limits.unhealthy_minutes:
        threading.Thread(target=watch, args=(port, limits.unhealthy_minutes), daemon=True).start()
    guarded = Guard(app, limits, outputs)
    guarded.metrics.loaded(environ.get("IOPAINT_MODEL"))  # until it is asked
    return guarded
