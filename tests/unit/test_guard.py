# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""docker/image/guard.py before a small application. The scenario image tries it before IOPaint's own."""

import asyncio
import base64
import importlib.util
import io
import json
import sys
import threading
import zlib
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from conftest import ROOT
from PIL import Image

sys.path.insert(0, str(ROOT / "docker/image"))  # where guard.py finds metrics.py


def load():
    spec = importlib.util.spec_from_file_location("guard", ROOT / "docker/image/guard.py")
    module = sys.modules["guard"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


guard = load()
MODELS = {"modelInfos": [{"name": "lama"}, {"name": "cv2"}]}


class App:
    """Takes IOPaint's place: says what it was asked, and computes for some time, counting how many do so at once."""

    def __init__(self):
        self.asked, self.at_once, self.most, self.seconds, self.model = [], 0, 0, 0.0, 200

    async def __call__(self, scope, receive, send):
        body = b""
        if scope["type"] == "http":
            body = (await receive()).get("body", b"")
        self.asked.append((scope["path"], body))
        self.headers = scope["headers"]
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        await asyncio.sleep(self.seconds)
        self.at_once -= 1
        status, answer = 200, body
        if scope["path"] == "/api/v1/server-config":
            answer = json.dumps(MODELS).encode()
        if scope["path"] == "/api/v1/model" and scope["method"] == "GET":
            status = self.model
        headers = [(b"access-control-allow-origin", b"*"), (b"x-seed", b"7")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": answer})


class Client:
    """One request to the guard; status, headers and body are the answer's."""

    def __init__(self, app, method, path, body=b"", query=b"", kind="http", client=None, more=(), **headers):
        self.status, self.headers, self.body, self.gone = None, {}, b"", asyncio.Event()
        given = {
            "host": "127.0.0.1:8080",
            "content-length": str(len(body)),
            **{k.replace("_", "-"): v for k, v in headers.items()},
        }
        encoded = [(name.encode(), value.encode("latin-1")) for name, value in given.items() if value is not None]
        self.scope = {"type": kind, "method": method, "path": path, "query_string": query, "headers": [*encoded, *more]}
        self.scope["client"] = client
        self.messages = [
            {"type": "http.request", "body": body[:10], "more_body": True},
            {"type": "http.request", "body": body[10:]},
        ]
        self.done = app(self.scope, self.receive, self.send)

    async def receive(self):
        if self.messages:
            return self.messages.pop(0)
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message):
        self.status = self.status or message.get("status") or message.get("code")
        self.headers.update({name.decode(): value.decode() for name, value in message.get("headers", [])})
        self.body += message.get("body", b"")

    @property
    def detail(self):
        return json.loads(self.body)["detail"]


@pytest.fixture
def app():
    return App()


@pytest.fixture
def ask(app, tmp_path):
    """Ask the guard once: ask(METHOD, PATH, body, limits={…}, header=…)."""

    def asking(method, path, body=b"", limits=None, **options):
        async def one():
            client = Client(guard.Guard(app, guard.Limits(**(limits or {})), tmp_path), method, path, body, **options)
            await client.done
            return client

        return asyncio.run(one())

    return asking


def picture(width=4, height=4, form="PNG"):
    stream = io.BytesIO()
    Image.new("L", (width, height)).save(stream, form)
    return stream.getvalue()


def bomb(width, height):
    """A PNG of few bytes that says that it has this size."""
    data = bytearray(picture(1, 1))
    data[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    crc = zlib.crc32(bytes(data[12:29]))
    data[29:33] = crc.to_bytes(4, "big")
    return bytes(data)


def fields(**given):
    pictures = {name: base64.b64encode(value).decode() if isinstance(value, bytes) else value for name, value in given.items()}
    return json.dumps(pictures).encode()


def form(name, data=b"x", field="file"):
    head = f'--b\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n\r\n'.encode()
    return head + data + b"\r\n--b--\r\n"


FORM = {"content_type": "multipart/form-data; boundary=b"}


@pytest.mark.parametrize("path", ["/api/v1/inpaint", "/api/v1/save_image", "/api/v1/model"])
def test_nothing_goes_on_once_a_request_is_over(app, tmp_path, path):
    """A task that is left is said in the log as destroyed."""

    async def reads_on(scope, receive, send):
        """As Starlette's streams do."""
        await app(scope, receive, send)
        waits = asyncio.ensure_future(receive())
        await asyncio.sleep(0)
        waits.cancel()

    async def one():
        client = Client(guard.Guard(reads_on, guard.Limits(), tmp_path), "POST", path, b"{}")
        await client.done
        await asyncio.sleep(0)  # so that what was cancelled ends
        await asyncio.sleep(0)
        return client.status, asyncio.all_tasks() - {asyncio.current_task()}

    status, left = asyncio.run(one())
    assert status
    assert left == set()


def test_the_limits_come_from_variables():
    given = {
        "IOPAINT_FLEET_ALLOWED_HOSTS": "Paint.example.com, b.example.com",
        "IOPAINT_FLEET_QUEUE": "0",
        "IOPAINT_FLEET_MINUTES": "",
        "IOPAINT_FLEET_TOKEN_FILE": "/run/token",
        "IOPAINT_FLEET_ALLOW_ANONYMOUS": "Yes",
    }
    limits = guard.Limits.of(given)
    assert (limits.allowed_hosts, limits.queue) == (("paint.example.com", "b.example.com"), 0)
    assert limits.minutes == guard.Limits().minutes
    assert (limits.token_file, limits.allow_anonymous) == ("/run/token", True)
    assert guard.Limits.of({"IOPAINT_FLEET_ALLOW_ANONYMOUS": "false"}).allow_anonymous is False


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1:8080", "localhost:9000", "LOCALHOST", "[::1]:8080", "192.0.2.7", "paint.example.com", "PAINT.example.com:8443"],
)
def test_own_names_are_answered(ask, host):
    assert ask("GET", "/", limits={"allowed_hosts": ("paint.example.com",)}, host=host).status == 200


@pytest.mark.parametrize(
    "host", ["evil.example.com", "localhost.evil.example.com", "127.0.0.1.evil.example.com", "", "[::1", "a:b:c", None]
)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_other_names_are_not(ask, app, host, method):
    answer = ask(method, "/api/v1/inpaint", host=host)
    assert answer.status == 421
    assert "allowed_hosts" in answer.detail
    assert app.asked == []


def test_a_star_allows_every_name(ask):
    assert ask("GET", "/", limits={"allowed_hosts": ("*",)}, host="any.example.com").status == 200


@pytest.fixture
def token(tmp_path):
    """The limits of an instance that asks for the gateway's token, of which a play may keep an older one."""
    (tmp_path / "token").write_text("right-one\nolder-one\n")
    return {"token_file": str(tmp_path / "token")}


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("given", [{}, {"x_iopaint_token": "right-on"}, {"x_iopaint_token": ""}, {"x_iopaint_token": "r\xe9"}])
def test_who_lacks_the_gateway_s_token_is_refused(ask, app, token, method, given):
    for client in (("192.0.2.7", 1), ("172.17.0.1", 1), None, ("unix", None)):
        assert ask(method, "/api/v1/model", limits=token, client=client, **given).status == 401
    assert app.asked == []


@pytest.mark.parametrize("right", ["right-one", "older-one"])
def test_the_gateway_s_token_is_let_in_under_any_name_and_goes_no_further(ask, app, token, right):
    assert ask("GET", "/", limits=token, host="paint.example.com", x_iopaint_token=right).status == 200
    assert not any(b"token" in name for name, _value in app.headers)
    assert (
        ask("POST", "/x", limits=token, host="a.example.com", origin="https://b.example.com", x_iopaint_token=right).status == 403
    )


def test_two_tokens_are_none(ask, token):
    headers = [(b"x-iopaint-token", b"wrong"), (b"x-iopaint-token", b"right-one")]
    assert ask("GET", "/", limits=token, more=headers).status == 401


def test_a_token_that_can_t_be_read_lets_nobody_in(ask, tmp_path):
    assert ask("GET", "/", limits={"token_file": str(tmp_path / "nowhere")}, x_iopaint_token="").status == 401


@pytest.mark.parametrize("client", [("127.0.0.1", 1), ("::1", 1)])
def test_the_container_s_own_health_check_needs_no_token(ask, token, client):
    assert ask("GET", "/api/v1/model", limits=token, client=client).status == 200


def test_everybody_may_be_let_in(ask, token):
    assert ask("GET", "/", limits={**token, "allow_anonymous": True}).status == 200
    assert ask("GET", "/", limits={**token, "allow_anonymous": True}, host="evil.example.com").status == 421


def test_no_websocket_without_the_token(ask, token):
    assert ask("GET", "/ws", limits=token, kind="websocket").status == 1008


SITE = {"allowed_hosts": ("paint.example.com",)}


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("paint.example.com", "https://paint.example.com"),
        ("paint.example.com:443", "https://paint.example.com"),
        ("paint.example.com", "https://PAINT.example.com:443"),
    ],
)
def test_the_instance_s_own_page_may_change_things(ask, host, origin):
    assert ask("POST", "/api/v1/gen-info", limits=SITE, host=host, origin=origin).status == 200


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example.com",
        "http://127.0.0.1:8081",
        "https://127.0.0.1:80",
        "null",
        "",
        "http://[",
        "file://",
        "127.0.0.1:8080",
    ],
)
@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/api/v1/inpaint"), ("GET", "/socket.io/"), ("GET", "/ws/socket.io/"), ("DELETE", "/")]
)
def test_another_site_s_page_may_not(ask, app, method, path, origin):
    answer = ask(method, path, origin=origin)
    assert (answer.status, answer.detail) == (403, "The request comes from the page of another site.")
    assert app.asked == []


def test_another_site_s_page_opens_no_websocket(ask, app):
    assert ask("GET", "/socket.io/", kind="websocket", origin="http://evil.example.com").status == 1008
    assert app.asked == []


def test_no_answer_lets_another_site_read_it(ask):
    assert ask("GET", "/", origin="http://evil.example.com").headers == {"x-seed": "7"}


def test_a_body_reaches_iopaint_as_it_is(ask, app):
    body = fields(image=picture(), mask=picture())
    assert ask("POST", "/api/v1/inpaint", body).status == 200
    assert app.asked == [("/api/v1/inpaint", body)]


@pytest.mark.parametrize("length", ["2000000", None, "nonsense"])
def test_a_large_body_is_refused(ask, app, length):
    answer = ask("POST", "/api/v1/inpaint", b"x" * 1_000_001, limits={"body_mb": 1}, content_length=length)
    assert (answer.status, app.asked) == (413, [])
    assert "1 MB" in answer.detail


def test_limits_that_are_off(ask, app):
    off = dict.fromkeys(("queue", "body_mb", "megapixels", "outputs_gb", "minutes", "unhealthy_minutes"), 0)
    assert ask("POST", "/api/v1/adjust_mask", fields(mask=bomb(60_000, 1_000), kernel_size=9999), limits=off).status == 200
    assert ask("POST", "/api/v1/save_image", form("a.png"), limits=off, **FORM).status == 200


@pytest.mark.parametrize(
    "body",
    [
        fields(image=bomb(8_000, 8_000)),
        fields(image=picture(), mask="data:image/png;base64," + base64.b64encode(bomb(8_000, 8_000)).decode()),
        fields(mask=bomb(2**31 - 1, 2**31 - 1)),
        fields(paint_by_example_example_image=bomb(50_001, 1_000)),
        fields(image=picture(), use_extender=True, extender_width=100_000, extender_height=1_000),
        fields(mask=picture(), kernel_size=10_000),
    ],
)
@pytest.mark.parametrize("route", ["inpaint", "adjust_mask", "run_plugin_gen_mask"])
def test_too_many_pixels_are_refused_before_they_are_decoded(ask, app, body, route):
    answer = ask("POST", f"/api/v1/{route}", body)
    assert (answer.status, app.asked) == (413, [])
    assert "50 megapixels" in answer.detail


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (fields(image="bm8gcGljdHVyZQ=="), 415),
        (fields(image="%!PS-Adobe-3.0 EPSF-3.0"), 415),
        (fields(image=b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n"), 415),
        (b"{", 400),
        (b"\xff\xfe", 400),
        (b"[" * 200_000, 400),
    ],
)
def test_what_is_no_picture_is_refused(ask, app, body, status):
    assert ask("POST", "/api/v1/inpaint", body).status == status
    assert app.asked == []


@pytest.mark.parametrize("body", [b"[]", b"1", b"{}", fields(image=None), fields(image=5, kernel_size="x", extender_width=True)])
def test_odd_fields_are_iopaint_s_to_refuse(ask, body):
    assert ask("POST", "/api/v1/inpaint", body).status == 200


@pytest.mark.parametrize("path", ["/ws/api/v1/inpaint", "/ws/ws/api/v1/inpaint"])
def test_a_prefix_passes_by_no_limit(ask, app, path):
    assert ask("POST", path, fields(image=bomb(8_000, 8_000))).status == 413
    assert app.asked == []


@pytest.mark.parametrize("form_of", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
def test_usual_formats_pass(ask, form_of):
    assert ask("POST", "/api/v1/inpaint", fields(image=picture(form=form_of))).status == 200


@pytest.mark.parametrize("name", ["a.png", "Füße 2 (copy)_cleanup.png", "写真.jpg", "#1.png", ";x", "-rf", "console.png"])
def test_names_that_are_safe_are_saved(ask, name):
    assert ask("POST", "/api/v1/save_image", form(name).decode().encode("utf-8"), **FORM).status == 200


@pytest.mark.parametrize(
    "name", ["../a.png", "/etc/x", "a\\b.png", ".bashrc", "a.", " a", "CON", "nul.png", "lpt1.txt", "a:b", "a?b", "x" * 201]
)
def test_names_that_are_not_are_refused(ask, app, name):
    answer = ask("POST", "/api/v1/save_image", form(name.replace("\\", "\\\\")), **FORM)
    assert (answer.status, app.asked) == (400, [])


def test_a_form_that_is_none_is_refused(ask, app):
    assert ask("POST", "/api/v1/save_image", form("a.png"), content_type="multipart/form-data").status == 400
    assert ask("POST", "/api/v1/save_image", b"nonsense", **FORM).status == 400
    assert app.asked == []


def test_a_picture_that_is_looked_at_has_limits_too(ask):
    assert ask("POST", "/api/v1/gen-info", form("a.png", picture()), **FORM).status == 200
    assert ask("POST", "/api/v1/gen-info", form("a.png", bomb(8_000, 8_000)), **FORM).status == 413


def test_outputs_have_a_quota(ask, app, tmp_path):
    (tmp_path / "deep").mkdir()
    with (tmp_path / "deep/sparse").open("wb") as stream:
        stream.truncate(10**9 - 2)
    assert ask("POST", "/api/v1/save_image", form("a.png", b"xx"), limits={"outputs_gb": 1}, **FORM).status == 200
    answer = ask("POST", "/api/v1/save_image", form("a.png", b"xxx"), limits={"outputs_gb": 1}, **FORM)
    assert (answer.status, len(app.asked)) == (507, 1)
    assert "raise outputs_gb" in answer.detail


@pytest.mark.parametrize(
    "query",
    [b"filename=../x", b"filename=/etc/passwd", b"tab=input&filename=a/%2e%2e/%2e%2e/x", b"filename=a%00b", b"filename=..%5cx"],
)
@pytest.mark.parametrize("route", ["media_file", "media_thumbnail_file"])
def test_a_picture_outside_of_the_folder_is_not_given(ask, app, query, route):
    assert ask("GET", f"/api/v1/{route}", query=query).status == 400
    assert app.asked == []


def test_a_picture_of_the_folder_is_given(ask):
    assert ask("GET", "/api/v1/media_file", query=b"tab=input&filename=a..b%20%C3%BC.png").status == 200


def test_one_computes_at_a_time_in_the_order_of_arrival(app, tmp_path):
    app.seconds = 0.01

    async def many():
        one = guard.Guard(app, guard.Limits(), tmp_path)
        clients = [Client(one, "POST", "/api/v1/inpaint", fields(seed=number)) for number in range(20)]
        await asyncio.gather(*(client.done for client in clients))
        return clients

    clients = asyncio.run(many())
    assert [client.status for client in clients] == [200] * 20
    assert app.most == 1
    assert [json.loads(body)["seed"] for _path, body in app.asked] == [*range(20)]
    assert [json.loads(client.body)["seed"] for client in clients] == [*range(20)]


def test_the_page_never_waits(app, tmp_path):
    app.seconds = 0.2

    async def both():
        one = guard.Guard(app, guard.Limits(), tmp_path)
        slow = asyncio.ensure_future(Client(one, "POST", "/api/v1/inpaint", b"{}").done)
        await asyncio.sleep(0.05)
        app.seconds = 0
        page = Client(one, "GET", "/api/v1/model")
        await asyncio.wait_for(page.done, 0.1)
        await slow
        return page.status

    assert asyncio.run(both()) == 200


def test_a_full_line_is_told_so(app, tmp_path):
    app.seconds = 0.1

    async def many():
        one = guard.Guard(app, guard.Limits(queue=2), tmp_path)
        clients = [Client(one, "POST", "/api/v1/inpaint", b"{}") for _ in range(6)]
        await asyncio.gather(*(client.done for client in clients))
        return clients

    clients = asyncio.run(many())
    refused = [client for client in clients if client.status == 503]
    assert len(refused) == 3  # one computes, two wait
    assert {client.headers["retry-after"] for client in refused} == {"10"}


def test_who_leaves_the_line_computes_nothing(app, tmp_path):
    app.seconds = 0.1

    async def leaving():
        one = guard.Guard(app, guard.Limits(), tmp_path)
        clients = [Client(one, "POST", "/api/v1/inpaint", fields(seed=number)) for number in range(3)]
        tasks = [asyncio.ensure_future(client.done) for client in clients]
        await asyncio.sleep(0.05)
        clients[1].gone.set()
        await asyncio.gather(*tasks)
        return one.inside

    assert asyncio.run(leaving()) == 0
    assert [json.loads(body)["seed"] for _path, body in app.asked] == [0, 2]


def test_an_error_of_iopaint_frees_the_turn(app, tmp_path):
    async def fails(_scope, _receive, _send):
        raise ZeroDivisionError

    async def both():
        one = guard.Guard(fails, guard.Limits(), tmp_path)
        with pytest.raises(ZeroDivisionError):
            await Client(one, "POST", "/api/v1/inpaint", b"{}").done
        one.app = app
        last = Client(one, "POST", "/api/v1/inpaint", b"{}")
        await asyncio.wait_for(last.done, 1)
        return last.status

    assert asyncio.run(both()) == 200


@pytest.fixture
def ended(monkeypatch):
    """The statuses that the process would have ended with."""
    statuses = []
    monkeypatch.setattr(guard.os, "_exit", statuses.append)
    return statuses


def test_a_computation_without_end_ends_the_process(app, tmp_path, ended):
    app.seconds = 0.7

    async def one():
        client = Client(guard.Guard(app, guard.Limits(minutes=0.001), tmp_path), "POST", "/api/v1/inpaint", b"{}")
        await client.done
        return client

    assert asyncio.run(one()).status == 504
    assert ended == [75]


def test_a_model_that_is_not_there_costs_nothing(ask, app, ended):
    answer = ask("POST", "/api/v1/model", fields(name="nope"))
    assert (answer.status, answer.detail) == (422, "There is no model of that name. There are: cv2, lama.")
    assert [path for path, _body in app.asked] == ["/api/v1/server-config"]
    assert ended == []


def test_a_model_that_is_there_is_switched_to(ask, app, ended):
    assert ask("POST", "/api/v1/model", fields(name="cv2")).status == 200
    assert ended == []


def test_a_switch_that_leaves_no_model_ends_the_process(ask, app, ended):
    app.model = 500
    ask("POST", "/api/v1/model", fields(name="cv2"))
    assert ended == [75]


@pytest.fixture
def health():
    """A server whose answers have the next of these statuses, the last for ever; gives the list and the port."""
    statuses = [200]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(statuses.pop(0) if len(statuses) > 1 else statuses[0])
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield statuses, server.server_port
    server.shutdown()
    server.server_close()


class EndError(Exception):
    """Takes the place of the process's end."""


@pytest.fixture
def watched(monkeypatch, health):
    """Watch over these answers until the process would have ended; return how many were not asked for."""

    def fail(_status):
        raise EndError

    monkeypatch.setattr(guard.os, "_exit", fail)

    def watch(*given):
        statuses, port = health
        statuses[:] = given
        with pytest.raises(EndError):
            guard.watch(port, 0.001, interval=0.02)
        return statuses

    return watch


def test_what_is_unhealthy_for_good_ends(watched, capsys):
    assert watched(200, 500) == [500]
    assert "guard: IOPaint gave no healthy answer for 0.001 minutes. The process ends" in capsys.readouterr().err


def test_a_start_takes_its_time_and_one_bad_answer_ends_nothing(watched):
    assert watched(*[500] * 20, 200, 500, 200, 503, 200, 500) == [500]


# ---- what is measured ------------------------------------------------------------------------------------------------


def measures(app, **more):
    """The page for Prometheus, by name with labels."""

    async def ask():
        client = Client(app, "GET", "/metrics", **more)
        await client.done
        return client

    client = asyncio.run(ask())
    lines = [line for line in client.body.decode().splitlines() if line and not line.startswith("#")]
    return client, {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if client.status == 200}


def test_requests_and_computations_are_counted(tmp_path):
    app = guard.Guard(App(), guard.Limits(), tmp_path)

    async def ask():
        for method, path in (("GET", "/api/v1/model"), ("GET", "/x?1"), ("GET", "/assets/y.js"), ("POST", "/api/v1/inpaint")):
            await Client(app, method, path, b"{}" if method == "POST" else b"").done
        await Client(app, "GET", "/", host="evil.example.com").done

    asyncio.run(ask())
    client, found = measures(app)
    assert client.headers["content-type"].startswith("text/plain")
    assert found['iopaint_requests_total{route="/api/v1/model",status="200"}'] == 1
    assert found['iopaint_requests_total{route="page",status="200"}'] == 2
    assert found['iopaint_requests_total{route="page",status="421"}'] == 1
    assert found['iopaint_request_seconds_count{route="/api/v1/inpaint"}'] == 1
    assert found["iopaint_queue_seconds_count"] == 1
    assert found["iopaint_queue_length"] == 0
    assert [value for name, value in found.items() if name.startswith("iopaint_computation_seconds_count")] == [1]


def test_the_line_is_measured_while_it_is_there(tmp_path):
    stand_in = App()
    stand_in.seconds = 0.3
    app = guard.Guard(stand_in, guard.Limits(), tmp_path)

    async def ask():
        waiting = [asyncio.ensure_future(Client(app, "POST", "/api/v1/inpaint", b"{}").done) for _number in range(3)]
        await asyncio.sleep(0.15)
        length = app.metrics.queue._value.get()
        await asyncio.gather(*waiting)
        return length

    assert asyncio.run(ask()) == 2


def test_the_model_that_is_loaded_is_named_once(tmp_path):
    class Named(App):
        names = iter(["lama", "cv2"])

        async def __call__(self, scope, receive, send):
            if scope["path"] != "/api/v1/model":
                return await super().__call__(scope, receive, send)
            body = json.dumps({"name": next(self.names)}).encode()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            return await send({"type": "http.response.body", "body": body})

    app = guard.Guard(Named(), guard.Limits(), tmp_path)
    assert measures(app)[1]['iopaint_model_loaded{model="lama"}'] == 1
    found = measures(app)[1]
    assert [name for name in found if name.startswith("iopaint_model_loaded")] == ['iopaint_model_loaded{model="cv2"}']


def test_foreign_paths_make_no_series_of_their_own(tmp_path):
    app = guard.Guard(App(), guard.Limits(), tmp_path)

    async def ask():
        for number in range(50):
            await Client(app, "GET", f"/api/v1/{number}").done
            await Client(app, "GET", f"/{number}").done

    asyncio.run(ask())
    routes = {name for name in measures(app)[1] if name.startswith("iopaint_requests_total")}
    assert routes == {'iopaint_requests_total{route="other",status="200"}', 'iopaint_requests_total{route="page",status="200"}'}


@pytest.mark.parametrize(
    ("client", "header", "status"),
    [(("192.0.2.1", 1), "", 401), (("192.0.2.1", 1), "right", 200), (("127.0.0.1", 1), "", 200)],
)
def test_measures_are_for_loopback_and_the_gateway(tmp_path, client, header, status):
    (tmp_path / "token").write_text("right\n")
    limits = guard.Limits(token_file=str(tmp_path / "token"), allow_anonymous=True)
    more = [(guard.GATEWAY, header.encode())] if header else []
    answer, _found = measures(guard.Guard(App(), limits, tmp_path), client=client, more=more)
    assert answer.status == status
