"""inpaint_check against a stand-in for IOPaint that inpaints well, badly, or not at all.

The stand-in serves real HTTP and decodes what it is sent as IOPaint does; the module runs as a process of its own.
"""

import base64
import http.client
import io
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.error import URLError

import pytest
from ansible_collections.iopaint.fleet.plugins.module_utils import inpaint
from PIL import Image, ImageChops

ROOT = Path(__file__).resolve().parents[2]
MODULE = ROOT / "plugins/modules/inpaint_check.py"

ORIENTATION, ROTATED = 0x0112, 6


def photo(size=(96, 64)):
    """An image in which no two neighbors are equal, as noise in each channel."""
    return Image.merge("RGB", [Image.effect_noise(size, 60) for _ in range(3)])


def png(image):
    data = io.BytesIO()
    image.save(data, "PNG")
    return data.getvalue()


def inverted(image, mask):
    return Image.composite(ImageChops.invert(image), image, mask)


def box_mask(size, box):
    mask = Image.new("L", size)
    mask.paste(255, box)
    return mask


# ---- what is sent ----------------------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path):
    def save(image, name="photo.png", **options):
        path = tmp_path / name
        image.save(path, **options)
        return str(path)

    return save


def test_a_photograph_is_scaled_down_to_max_side_and_never_up(saved):
    path = saved(photo((90, 60)))
    assert [inpaint.prepare(path, None, side)[0].size for side in (45, 512)] == [(45, 30), (90, 60)]


@pytest.mark.parametrize(("mode", "name"), [("L", "a.png"), ("RGBA", "a.png"), ("P", "a.png"), ("1", "a.png"), ("CMYK", "a.jpg")])
def test_photographs_of_any_mode_are_sent_as_rgb(saved, mode, name):
    assert inpaint.prepare(saved(photo().convert(mode), name), None, 512)[0].mode == "RGB"


def test_a_photograph_on_its_side_is_sent_upright_without_metadata(saved):
    exif = Image.Exif()
    exif[ORIENTATION] = ROTATED
    image, mask = inpaint.prepare(saved(photo((90, 60)), "a.jpg", exif=exif), None, 512)
    body = json.loads(inpaint.request_body(image, mask, {}))
    sent = Image.open(io.BytesIO(base64.b64decode(body["image"])))
    assert (sent.size, mask.size, dict(sent.getexif())) == ((60, 90), (60, 90), {})


@pytest.mark.parametrize("size", [(512, 341), (341, 512), (512, 512), (512, 60), (16, 16)])
def test_the_drawn_mask_is_black_and_white_and_covers_a_small_part(size):
    histogram = inpaint.draw_mask(size).histogram()
    assert sum(histogram[1:255]) == 0
    assert 0.04 < histogram[255] / (size[0] * size[1]) < 0.15


def test_a_given_mask_is_scaled_along_and_made_black_and_white(saved):
    soft = Image.linear_gradient("L").resize((90, 60))
    _, mask = inpaint.prepare(saved(photo((90, 60))), saved(soft, "mask.png"), 45)
    assert mask.size == (45, 30)
    assert sum(mask.histogram()[1:255]) == 0
    assert mask.histogram()[255] == pytest.approx(45 * 30 / 2, rel=0.1)


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (Image.new("L", (96, 63)), "is 96x63 and image"),
        (Image.new("L", (96, 64)), "covers nothing of the 96x64 image"),
        (Image.new("L", (96, 64), 255), "covers all of the 96x64 image"),
    ],
)
def test_masks_that_prove_nothing_are_refused(saved, mask, words):
    with pytest.raises(inpaint.CheckError, match=words):
        inpaint.prepare(saved(photo()), saved(mask, "mask.png"), 512)


def test_files_that_are_no_images_are_refused_by_option_and_path(saved, tmp_path):
    text, cut = tmp_path / "text.png", tmp_path / "cut.png"
    text.write_text("no image")
    cut.write_bytes(png(photo())[:2000])
    with pytest.raises(inpaint.CheckError, match=f"image {tmp_path}/none.jpg can't be read as PNG or JPEG: No such file"):
        inpaint.prepare(str(tmp_path / "none.jpg"), None, 512)
    with pytest.raises(inpaint.CheckError, match=f"mask {text} can't be read as PNG or JPEG: .*cannot identify"):
        inpaint.prepare(saved(photo()), str(text), 512)
    with pytest.raises(inpaint.CheckError, match=f"image {cut} can't be read as PNG or JPEG: .*truncated"):
        inpaint.prepare(str(cut), None, 512)


def test_parameters_are_sent_along_and_win_over_the_module_s_own():
    body = inpaint.request_body(photo(), box_mask((96, 64), (0, 0, 9, 9)), {"sd_mask_blur": 5, "prompt": "a bench"})
    assert {key: value for key, value in json.loads(body).items() if key not in ("image", "mask")} == {
        "sd_mask_blur": 5,
        "prompt": "a bench",
    }


# ---- what came back --------------------------------------------------------------------------------------------------


def compared(change, tolerance=0, box=(10, 10, 30, 20)):
    before = Image.new("RGB", (40, 30), (100, 100, 100))
    after, mask = before.copy(), box_mask(before.size, box)
    change(after)
    return inpaint.compare(before, after, mask, tolerance)


def test_changes_are_counted_under_the_mask():
    pixels = compared(lambda after: after.paste((100, 100, 160), (10, 10, 30, 15)))
    assert pixels == {
        "total": 1200,
        "masked": 200,
        "changed_inside": 100,
        "changed_outside": 0,
        "max_difference_inside": 60,
        "max_difference_outside": 0,
        "outside_first": None,
        "outside_box": None,
    }
    inpaint.judge(pixels, 1, 0)


def test_changes_elsewhere_are_counted_and_found():
    def change(after):
        after.paste((0, 0, 0), (10, 10, 30, 20))
        after.putpixel((37, 3), (100, 107, 100))
        after.putpixel((2, 25), (100, 100, 99))

    pixels = compared(change)
    assert (pixels["changed_outside"], pixels["max_difference_outside"]) == (2, 7)
    assert (pixels["outside_first"], pixels["outside_box"]) == ([37, 3], [2, 3, 38, 26])
    with pytest.raises(inpaint.CheckError) as error:
        inpaint.judge(pixels, 1, 0)
    assert "2 pixels changed outside the mask: the first at x=37 y=3, all within x 2 to 37 and y 3 to 25" in str(error.value)


def test_a_pixel_that_differs_by_the_tolerance_is_unchanged_on_both_sides_of_the_edge():
    def change(after):
        after.paste((103, 100, 100), (0, 0, *after.size))

    assert compared(change, tolerance=2)["changed_outside"] == 1000
    pixels = compared(change, tolerance=3)
    assert (pixels["changed_inside"], pixels["changed_outside"], pixels["outside_box"]) == (0, 0, None)
    assert pixels["max_difference_outside"] == 3


@pytest.mark.parametrize(
    ("changed", "min_changed", "words"),
    [(0, 1, "nothing changed under the mask"), (1, 1, r"only 1 of 200 pixels .*0.50 %.* 1 %"), (2, 1, None)],
)
def test_enough_of_the_mask_has_to_change(changed, min_changed, words):
    pixels = compared(lambda after: after.paste((0, 0, 0), (10, 10, 10 + changed, 11)))
    if words is None:
        inpaint.judge(pixels, min_changed, 0)
    else:
        with pytest.raises(inpaint.CheckError, match=words):
            inpaint.judge(pixels, min_changed, 0)


def test_a_huge_answer_is_refused_by_its_header(monkeypatch):
    body = png(Image.new("RGB", (3000, 2000)))
    monkeypatch.setattr(Image.Image, "convert", lambda *_: pytest.fail("decoded"))
    with pytest.raises(inpaint.CheckError, match="an image of 3000x2000 to one of 96x64"):
        inpaint.read_answer(body, "image/png", photo())


@pytest.mark.parametrize("kind", ["EPS", "GIF", "TIFF", "WEBP", "PDF"])
def test_other_formats_are_neither_sent_nor_taken(tmp_path, kind, monkeypatch):
    """Pillow starts Ghostscript, as root, for an EPS file; the photograph of the proof comes out of an image."""
    monkeypatch.setattr(subprocess, "Popen", lambda *_arguments, **_options: pytest.fail("a program was started"))
    monkeypatch.setenv("PATH", str(tmp_path))
    path = tmp_path / "photo.png"
    photo().save(path, kind)
    with pytest.raises(inpaint.CheckError, match="no PNG or JPEG that can be read"):
        inpaint.read_answer(path.read_bytes(), "image/png", photo())
    with pytest.raises(inpaint.CheckError, match="can't be read as PNG or JPEG"):
        inpaint.prepare(str(path), None, 512)


def test_a_photograph_of_too_many_pixels_is_refused_by_its_header(saved, monkeypatch):
    monkeypatch.setattr(inpaint, "MOST_PIXELS", 96 * 64 - 1)
    monkeypatch.setattr(Image.Image, "convert", lambda *_: pytest.fail("decoded"))
    with pytest.raises(inpaint.CheckError, match="it is 96x64, and may have up to 6143 pixels"):
        inpaint.prepare(saved(photo()), None, 512)


def test_a_photograph_that_is_a_fifo_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "photo.png")
    with pytest.raises(inpaint.CheckError, match="it is not a regular file"):
        inpaint.prepare(str(tmp_path / "photo.png"), None, 512)


def test_an_answer_of_any_png_of_its_size_is_within_the_limit():
    image = Image.merge("RGBA", [Image.effect_noise((96, 64), 60) for _ in range(4)])
    assert len(png(image)) < inpaint.answer_limit(image)


def test_an_answer_that_is_cut_off_is_no_image():
    image = photo()
    with pytest.raises(inpaint.CheckError, match=r"no PNG or JPEG that can be read .2000 bytes of image/png.: .*truncated"):
        inpaint.read_answer(png(image)[:2000], "image/png", image)


# ---- what went wrong on the way --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"error": "KeyError", "detail": "", "body": "x" * 900, "errors": "'lama'"}, "KeyError: 'lama'"),
        ({"error": "HTTPException", "detail": "sizes differ", "errors": "400"}, "HTTPException: sizes differ"),
        (
            {"detail": [{"loc": ["body", "mask"], "msg": "not a string", "input": "x" * 900}]},
            "body.mask: not a string",
        ),
        ({"detail": ["odd"]}, "odd"),
        ({"detail": "Not Found"}, "Not Found"),
        ({}, "{}"),
        ([1], "[1]"),
        ({"detail": "\x1b[31mred\x07"}, "red"),
    ],
)
def test_the_server_s_own_words_are_found_in_its_json(body, text):
    assert inpaint.server_text(json.dumps(body).encode()) == text


def test_the_server_s_own_words_are_found_in_a_page_and_kept_short():
    page = b"<html><body><h1>503 Service Unavailable</h1>\nNo server is available.</body></html>"
    assert inpaint.server_text(page) == "503 Service Unavailable No server is available."
    assert len(inpaint.server_text(b"x" * 10**6)) == 301
    assert inpaint.server_text(b"") == "(empty)"
    assert inpaint.server_text(b"[" * 10**5) == "[" * 300 + "…"
    assert inpaint.server_text(b"\xff\xfe") == "\ufffd\ufffd"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (URLError(ConnectionRefusedError(111, "Connection refused")), "nothing listens there"),
        (URLError(socket.timeout("timed out")), "no complete answer within 7 s"),  # the connection
        (socket.timeout("timed out"), "no complete answer within 7 s"),  # the answer
        (URLError(socket.gaierror(-2, "Name or service not known")), "can't be resolved (Name or service not known)"),
        (URLError(ssl.SSLCertVerificationError("self-signed certificate")), "Set ca_path"),
        (http.client.RemoteDisconnected("closed without response"), "broke: closed without response"),
        (http.client.IncompleteRead(b"x" * 10**6, 5), "more expected"),
        (ConnectionResetError(), "broke: ConnectionResetError"),
        (ValueError("Invalid IPv6 URL"), "Invalid IPv6 URL. Look at url, and at the proxy"),
    ],
)
def test_a_request_without_an_answer_is_explained(error, words):
    message = inpaint.explain_failure("POST http://host/api/v1/inpaint", error, 7)
    assert message.startswith("POST http://host/api/v1/inpaint: ")
    assert words in message
    assert len(message) < 600


# ---- the module ------------------------------------------------------------------------------------------------------


class StandIn(ThreadingHTTPServer):
    """IOPaint as far as the module sees it. A test sets what it answers."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.models = ["lama"]  # one for each question, the last one for all that follow
        self.kind, self.measures = "inpaint", None  # of each model; the answer to GET /metrics
        self.inpaint = lambda image, mask: (200, "image/png", png(inverted(image, mask)))
        self.requests, self.body, self.seed = [], None, "42"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.requests.append(("GET", self.path, self.headers))
        if self.path == "/metrics":
            measures = self.server.measures
            return self.answer(404 if measures is None else 200, "text/plain", (measures or "no such page").encode())
        models = self.server.models
        model = models.pop(0) if len(models) > 1 else models[0]
        if isinstance(model, tuple):
            return self.answer(*model)
        return self.answer(200, "application/json", json.dumps({"name": model, "model_type": self.server.kind}).encode())

    def do_POST(self):
        self.server.requests.append(("POST", self.path, self.headers))
        body = self.server.body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        image, mask = (Image.open(io.BytesIO(base64.b64decode(body[key]))) for key in ("image", "mask"))
        assert (image.format, image.mode, mask.format, mask.mode) == ("PNG", "RGB", "PNG", "L")
        self.answer(*self.server.inpaint(image, mask))

    def answer(self, status, content_type, body, location=None):
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Seed", self.server.seed)
        self.send_header("Set-Cookie", "backend=one")
        if location:
            self.send_header("Location", location)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with StandIn() as standing_in:
        threading.Thread(target=standing_in.serve_forever, args=(0.01,), daemon=True).start()
        yield standing_in
        standing_in.shutdown()


@pytest.fixture
def run(server, saved):
    """Runs the module as a process, against the stand-in unless told otherwise, and returns its result."""
    image = saved(photo((300, 200)))

    def run_module(failed=False, environment=None, program=(MODULE,), **options):
        arguments = {"url": server.url, "image": image, "timeout": 10, **options}
        done = subprocess.run(
            [sys.executable, *program],
            input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}),
            env={**os.environ, "PYTHONPATH": str(ROOT / "build" / "collections"), **(environment or {})},
            capture_output=True,
            text=True,
            check=False,
        )
        result = json.loads(done.stdout)
        assert result.get("failed", False) is failed, result
        assert result.get("changed", False) is False
        assert len(result.get("msg", "")) < 1000
        return result

    return run_module


def test_a_service_that_inpaints_passes(run, server):
    result = run(model="lama", max_side=150)
    pixels = result["pixels"]
    assert (result["model"], result["status"], result["seed"]) == ("lama", 200, 42)
    assert 0 < result["latency_ms"] < 10000
    assert (pixels["total"], pixels["changed_outside"]) == (150 * 100, 0)
    assert 0 < pixels["changed_inside"] <= pixels["masked"] < pixels["total"] / 5
    assert [request[:2] for request in server.requests] == [
        ("GET", "/api/v1/model"),
        ("POST", "/api/v1/inpaint"),
        ("GET", "/api/v1/model"),
        ("GET", "/metrics"),
    ]
    assert (server.body["sd_mask_blur"], "picture" in result) == (0, False)
    assert (result["seconds_per_step"], result["gpu_memory_bytes"]) == (None, None)


@pytest.mark.parametrize(("parameters", "steps"), [({"sd_steps": 4}, 4), ({"sd_steps": "2"}, 2), ({}, 50)])
def test_a_diffusion_is_timed_by_its_steps(run, server, parameters, steps):
    server.kind = "diffusers_sd_inpaint"
    result = run(parameters=parameters)
    assert result["seconds_per_step"] == pytest.approx(result["latency_ms"] / 1000 / steps, abs=0.001)


def test_the_peak_of_gpu_memory_is_the_largest_that_the_instance_names(run, server):
    server.measures = """# TYPE iopaint_gpu_memory_bytes gauge
iopaint_gpu_memory_bytes{gpu="0",kind="allocated"} 9.9e+09
iopaint_gpu_memory_bytes{gpu="0",kind="peak"} 3.221225472e+09
iopaint_gpu_memory_bytes{gpu="1",kind="peak"} 512.0
"""
    assert run()["gpu_memory_bytes"] == 3221225472
    for odd in ("", "peak", 'iopaint_gpu_memory_bytes{kind="peak"} nan\n', 'iopaint_gpu_memory_bytes{kind="peak"} 1e999\n'):
        server.measures = odd
        assert run()["gpu_memory_bytes"] is None


def test_a_given_mask_and_parameters_reach_the_service(run, server, saved):
    mask = saved(box_mask((300, 200), (30, 40, 60, 50)), "mask.png")
    assert run(mask=mask, parameters={"sd_steps": 4})["pixels"]["masked"] == 300
    assert server.body["sd_steps"] == 4


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda image, mask: (200, "image/png", png(image)), ["nothing changed under the mask", "docker logs"]),
        (
            lambda image, mask: (200, "image/png", png(ImageChops.invert(image))),
            ["pixels changed outside the mask: the first at x=0 y=0, all within x 0 to 299 and y 0 to 199"],
        ),
        (
            lambda image, mask: (200, "image/png", png(image.resize((150, 100)))),
            ["an image of 150x100 to one of 300x200"],
        ),
        (
            lambda image, mask: (200, "text/html", b"<!doctype html><title>Welcome to nginx!</title>"),
            ["no PNG or JPEG", "bytes of text/html", "Welcome to nginx!"],
        ),
        (
            lambda image, mask: (
                500,
                "application/json",
                b'{"error": "OutOfMemoryError", "detail": "", "body": "", "errors": "CUDA out of memory"}',
            ),
            ["/api/v1/inpaint: HTTP 500 Internal Server Error: OutOfMemoryError: CUDA out of memory", "docker logs"],
        ),
        (lambda image, mask: (413, "text/html", b"<h1>too large</h1>"), ["HTTP 413", "too large", "lower max_side"]),
    ],
    ids=["unchanged", "changed elsewhere", "wrong size", "a page", "its error", "gateway's error"],
)
def test_a_bad_answer_fails_and_says_why(run, server, answer, words):
    server.inpaint = answer
    message = run(failed=True)["msg"]
    assert [word for word in words if word not in message] == [], message


def test_what_is_known_is_returned_on_failure(run, server):
    server.inpaint = lambda image, mask: (200, "image/png", png(ImageChops.invert(image)))
    result = run(failed=True)
    assert (result["model"], result["status"], result["pixels"]["outside_box"]) == ("lama", 200, [0, 0, 300, 200])


def test_the_status_of_a_refusal_is_returned(run, server):
    server.inpaint = lambda image, mask: (503, "text/html", b"<h1>No server is available</h1>")
    assert run(failed=True)["status"] == 503


@pytest.mark.parametrize(
    ("models", "wanted", "words"),
    [
        (["cv2"], "lama", "the model is cv2 before the inpainting, and should be lama"),
        (["lama", "cv2"], "lama", "the model is cv2 after the inpainting, and should be lama"),
        (["lama", "cv2"], None, "the model is cv2 after the inpainting, and should be lama"),
        ([(500, "application/json", b'{"error":"KeyError","errors":"\'lama\'"}')], None, "/model: HTTP 500"),
        ([(200, "text/html", b"<title>Welcome</title>")], None, "names no model, so this is not IOPaint: Welcome"),
        ([(200, "application/json", b"[]")], None, "names no model"),
        ([(200, "application/json", b'{"name": 7}')], None, "names no model"),
        ([(200, "application/json", b"[" * 10**5)], None, "names no model"),
        ([(200, "application/json", b'"' + b"x" * 2**20 + b'"')], None, "it has more than 1048576 bytes"),
    ],
)
def test_the_model_has_to_be_the_wanted_one_before_and_after(run, server, models, wanted, words):
    server.models = models
    assert words in run(failed=True, model=wanted)["msg"]


def test_a_model_that_is_not_wanted_is_not_asked_to_inpaint(run, server):
    run(failed=True, model="mat")
    assert server.body is None


def test_a_slow_service_times_out(run, server):
    def answer(image, mask):
        time.sleep(3)
        return 200, "image/png", png(inverted(image, mask))

    server.inpaint = answer
    assert "/api/v1/inpaint: no complete answer within 1 s" in run(failed=True, timeout=1)["msg"]


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: 3000000000\r\n\r\n"


@pytest.mark.parametrize(
    ("begin", "words"),
    [
        (HEAD, "no complete answer within 1 s"),
        (HEAD[:15], "no complete answer within 1 s"),  # in the middle of the headers
        (HEAD.replace(b"200 OK", b"503 Busy"), "HTTP 503 Busy: (empty)"),
    ],
    ids=["body", "headers", "error"],
)
def test_a_byte_at_a_time_does_not_outlive_the_time_limit(run, raw_server, begin, words):
    start = time.monotonic()
    assert words in run(failed=True, url=raw_server(begin, b"x", 0.2), timeout=1)["msg"]
    assert time.monotonic() - start < 30  # it took 3e9 times 0.2 s


def test_an_endless_answer_is_given_up_soon(run, raw_server):
    message = run(failed=True, url=raw_server(HEAD, b"x" * 2**20, 0))["msg"]
    assert "the answer was not read, as it has more than 1048576 bytes" in message


def test_an_endless_picture_is_given_up_by_the_size_of_what_was_sent(run, server):
    server.inpaint = lambda image, mask: (200, "image/png", b"x" * 10**6)
    assert "the answer was not read, as it has more than 545536 bytes" in run(failed=True)["msg"]


@pytest.mark.parametrize("seed", ["²", "9" * 5000, "-1", "x"])
def test_a_seed_that_is_no_number_is_none(run, server, seed):
    server.seed = seed
    assert run()["seed"] is None


def test_a_closed_port_is_refused(run):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        message = run(failed=True, url=url)["msg"]
    assert f"GET {url}/api/v1/model: connection refused" in message


def test_a_redirect_is_not_followed(run, server):
    server.models = [(301, "text/html", b"", "https://example.org/api/v1/model")]
    message = run(failed=True)["msg"]
    assert "HTTP 301 Moved Permanently: to https://example.org/api/v1/model. Set url" in message


def test_a_gateway_gets_credentials_headers_and_its_cookie_back(run, server):
    run(url_username="check", url_password="open:sesame", headers={"X-Team": 7})
    first, second, *_ = (headers for _, _, headers in server.requests)
    assert first["Authorization"] == "Basic " + base64.b64encode(b"check:open:sesame").decode()
    assert (first["X-Team"], first["Cookie"], second["Cookie"]) == ("7", None, "backend=one")


def test_a_token_is_sent_and_stays_out_of_the_result(run, server):
    server.inpaint = lambda image, mask: (403, "text/plain", b"token s3cr3t-t0ken is not known")
    result = run(failed=True, token="s3cr3t-t0ken")
    assert server.requests[0][2]["Authorization"] == "Bearer s3cr3t-t0ken"
    assert "s3cr3t-t0ken" not in json.dumps(result)


def test_a_proxy_of_the_environment_is_only_used_when_asked(run):
    environment = {"http_proxy": "http://127.0.0.1:9", "no_proxy": ""}
    run(environment=environment)
    assert "connection refused" in run(failed=True, environment=environment, use_proxy=True)["msg"]


@pytest.mark.parametrize("proxy", ["http://[", "http://[]:x", "http://127.0.0.1:x", "http:[", "//"])
def test_a_proxy_that_is_none_ends_in_a_sentence(run, proxy):
    message = run(failed=True, environment={"http_proxy": proxy, "no_proxy": ""}, use_proxy=True)["msg"]
    assert message.startswith("GET http://127.0.0.1:")


@pytest.fixture
def certificate(server, tmp_path):
    """Puts the stand-in behind TLS, with a certificate of its own that nobody else trusts."""
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate]
    name = ["-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*request, *name], capture_output=True, check=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.url = server.url.replace("http:", "https:")
    return str(certificate)


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl makes the certificate")
def test_a_certificate_has_to_be_trusted(run, certificate):
    message = run(failed=True)["msg"]
    assert "TLS failed" in message
    assert "Set ca_path" in message
    run(ca_path=certificate)
    run(validate_certs=False)


def test_the_picture_shows_before_mask_and_after(run, tmp_path):
    picture = tmp_path / "out.png"
    picture.write_text("an older one")
    result = run(picture=str(picture))
    with Image.open(picture) as image:
        panels = [image.convert("RGB").crop((8 + 308 * n, 20, 308 + 308 * n, 220)) for n in range(3)]
    with Image.open(tmp_path / "photo.png") as before:
        mask = panels[1].convert("L")
        assert panels[0].tobytes() == before.tobytes()
        assert panels[2].tobytes() == inverted(before, mask).tobytes()
    assert (result["picture"], mask.histogram()[255]) == (str(picture), result["pixels"]["masked"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.png", "photo.png"]


def test_the_picture_is_there_when_the_pixels_are_wrong(run, server, tmp_path):
    server.inpaint = lambda image, mask: (200, "image/png", png(image))
    picture = tmp_path / "out.png"
    assert run(failed=True, picture=str(picture))["msg"].endswith(f"See {picture}.")
    assert picture.exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"url": "localhost:8080"}, "url has to be http://HOST:PORT"),
        ({"url": "http://me:hidden@localhost"}, "url has to be"),
        ({"url": "http://localhost:port"}, "url has to be"),
        ({"url": "http://[::1"}, "url has to be"),
        ({"max_side": 8}, "max_side is 8, and has to be from 16 to 4096"),
        ({"timeout": 0}, "timeout is 0, and has to be from 1 to 86400"),
        ({"tolerance": 255}, "tolerance is 255, and has to be from 0 to 254"),
        ({"min_changed": 0}, "min_changed is 0, and has to be from 0.01 to 100"),
        ({"parameters": {"mask": "x"}}, "parameters has mask, which the module sends itself"),
        ({"picture": "/nonexistent/out.png"}, "picture is /nonexistent/out.png, and has to be a file in a directory"),
        ({"picture": "/tmp"}, "picture is /tmp, and has to be a file"),
        ({"ca_path": "/nonexistent/ca.pem"}, "ca_path is /nonexistent/ca.pem, and no file is there"),
        (
            {"image": "/nonexistent/photo.jpg"},
            "image /nonexistent/photo.jpg can't be read as PNG or JPEG: No such file",
        ),
        ({"url_username": "me"}, "required together: url_username, url_password"),
    ],
)
def test_wrong_options_fail_before_anything_is_sent(run, server, options, words):
    message = run(failed=True, **options)["msg"]
    assert words in message
    assert "hidden" not in message
    assert server.requests == []


def test_check_mode_sends_nothing_and_needs_nothing(run, server):
    result = run(
        _ansible_check_mode=True,
        image="/nonexistent/photo.jpg",
        picture="/nonexistent/out.png",
        url="http://127.0.0.1:9",
    )
    assert (result["skipped"], server.requests) == (True, [])


def test_a_host_without_pillow_is_told_what_to_install(run, tmp_path):
    (tmp_path / "PIL").mkdir()
    (tmp_path / "PIL" / "__init__.py").write_text("raise ImportError('hidden by the test')")
    path = f"{tmp_path}:{ROOT / 'build' / 'collections'}"
    alone = "from ansible_collections.iopaint.fleet.plugins.modules import inpaint_check as m; m.SYSTEM_PYTHONS = []; m.main()"
    message = run(failed=True, environment={"PYTHONPATH": path}, program=("-c", alone))["msg"]
    assert "Failed to import the required Python library (Pillow)" in message
