#!/usr/bin/env python3
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Attack an instance of the image with the model cv2, and see that the guard (docker/image/guard.py) holds.

    docker run --rm -i --network container:NAME --entrypoint python IMAGE - < tests/image/guard.py

NAME was started with IOPAINT_MODEL=cv2, IOPAINT_INPUT=/app/outputs, IOPAINT_FLEET_QUEUE=0, IOPAINT_FLEET_OUTPUTS_GB=1 and
IOPAINT_FLEET_ALLOWED_HOSTS=paint.example.com.
"""

import base64
import hashlib
import http.client
import io
import json
import sys
import traceback
import zlib
from concurrent.futures import ThreadPoolExecutor

from PIL import Image

OWN = "127.0.0.1:8080"


def ask(method, path, body=b"", host=OWN, **headers):
    """Return status, headers (names in lower case) and body."""
    connection = http.client.HTTPConnection("127.0.0.1", 8080, timeout=120)
    connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
    given = {"host": host, "content-length": str(len(body)), **{name.replace("_", "-"): value for name, value in headers.items()}}
    for name, value in given.items():
        connection.putheader(name, value)
    connection.endheaders(body)
    answer = connection.getresponse()
    done = answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    connection.close()
    return done


def png(image):
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def inpainting(number):
    """The body of a request for a picture of its own."""
    image = Image.new("RGB", (96, 64), (number, 255 - number, (number * 7) % 256))
    image.paste((255, 255, 255), (number % 60, 10, number % 60 + 20, 40))
    mask = Image.new("L", image.size)
    mask.paste(255, (number % 60 + 5, 15, number % 60 + 15, 30))
    return post(image=png(image), mask=png(mask))


def post(**fields):
    return json.dumps({k: base64.b64encode(v).decode() if isinstance(v, bytes) else v for k, v in fields.items()}).encode()


def bomb(width, height):
    """A PNG whose header says that it has this size: all black, so a few kilobytes."""
    data = bytearray(png(Image.new("L", (1, 1))))
    data[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    return bytes(data)


def save(name, data=b"x"):
    head = f'--b\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\nContent-Type: image/png\r\n\r\n'.encode()
    return ask("POST", "/api/v1/save_image", head + data + b"\r\n--b--\r\n", content_type="multipart/form-data; boundary=b")[0]


JSON = {"content_type": "application/json"}


def other_names_and_sites_get_nothing():
    assert ask("GET", "/api/v1/model")[0] == 200
    assert ask("GET", "/api/v1/model", host="paint.example.com")[0] == 200
    assert ask("GET", "/api/v1/model", host="evil.example.com")[0] == 421
    status, headers, _body = ask("GET", "/api/v1/model", origin="http://evil.example.com")
    assert status == 200
    assert not [name for name in headers if name.startswith("access-control-")], headers
    assert ask("POST", "/api/v1/inpaint", inpainting(1), origin="http://evil.example.com", **JSON)[0] == 403
    assert ask("POST", "/api/v1/inpaint", inpainting(1), origin=f"http://{OWN}", **JSON)[0] == 200


def socket_io_is_for_the_own_page():
    path = "/socket.io/?EIO=4&transport=polling"
    assert ask("GET", path)[0] == 200
    assert ask("GET", path, origin=f"http://{OWN}")[0] == 200
    assert ask("GET", path, origin="http://evil.example.com")[0] == 403


def two_hundred_at_once_get_what_one_alone_gets():
    def digest(number):
        status, _headers, body = ask("POST", "/api/v1/inpaint", inpainting(number), **JSON)
        return status, hashlib.sha256(body).hexdigest()

    alone = [digest(number) for number in range(200)]
    assert {status for status, _digest in alone} == {200}
    assert len(set(alone)) == 200
    with ThreadPoolExecutor(200) as pool:
        assert list(pool.map(digest, range(200))) == alone


def what_is_too_large_is_not_decoded():
    assert ask("POST", "/api/v1/adjust_mask", post(mask=bomb(60_000, 1_000), kernel_size=5, operate="expand"), **JSON)[0] == 413
    assert ask("POST", "/api/v1/inpaint", post(image=bomb(30_000, 30_000), mask=png(Image.new("L", (1, 1)))), **JSON)[0] == 413
    assert ask("POST", "/api/v1/inpaint", b"x" * 64_000_001, **JSON)[0] == 413
    assert (
        ask("POST", "/api/v1/adjust_mask", post(mask=png(Image.new("L", (9, 9))), kernel_size=9_999, operate="expand"), **JSON)[0]
        == 413
    )
    assert (
        ask("POST", "/api/v1/adjust_mask", post(mask=png(Image.new("L", (9, 9))), kernel_size=3, operate="expand"), **JSON)[0]
        == 200
    )


def pictures_stay_in_their_folders():
    assert save("first.png", png(Image.new("RGB", (8, 8)))) == 200
    assert ask("GET", "/api/v1/media_file?tab=output&filename=first.png")[0] == 200
    for name in ("../../etc/passwd", "/etc/passwd", "%2e%2e/%2e%2e/etc/passwd", "%2Fetc%2Fpasswd", "..%2F..%2Fetc%2Fpasswd"):
        for route in (
            f"media_file?tab=output&filename={name}",
            f"media_thumbnail_file?tab=output&width=9&height=9&filename={name}",
        ):
            assert ask("GET", f"/api/v1/{route}")[0] == 400, name
    for name in ("../a.png", "a:b.png", "nul.png", ".profile", "a.png "):
        assert save(name) == 400, name
    assert save("#1.png") == save(";x") == save("写真.png") == 200


def what_is_measured_is_there_for_prometheus():
    status, headers, body = ask("GET", "/metrics")
    assert (status, headers["content-type"].partition(";")[0]) == (200, "text/plain"), (status, headers)
    lines = body.decode().splitlines()
    assert 'iopaint_model_loaded{model="cv2"} 1.0' in lines, lines
    assert any(line.startswith('iopaint_computation_seconds_count{model="cv2",route="/api/v1/inpaint"}') for line in lines), lines
    assert any(line.startswith('iopaint_requests_total{route="/api/v1/model",status="421"}') for line in lines), lines


def a_model_that_is_not_there_costs_nothing():
    assert ask("POST", "/api/v1/model", post(name="nope"), **JSON)[0] == 422
    assert json.loads(ask("GET", "/api/v1/model")[2])["name"] == "cv2"
    assert ask("POST", "/api/v1/inpaint", inpainting(1), **JSON)[0] == 200


ATTACKS = (
    other_names_and_sites_get_nothing,
    socket_io_is_for_the_own_page,
    two_hundred_at_once_get_what_one_alone_gets,
    what_is_too_large_is_not_decoded,
    pictures_stay_in_their_folders,
    what_is_measured_is_there_for_prometheus,
    a_model_that_is_not_there_costs_nothing,
)


def main():
    """Run each attack; exit 1 if one went through."""
    failed = 0
    for attack in ATTACKS:
        try:
            attack()
            print("held:", attack.__name__)
        except Exception:
            failed += 1
            print("failed:", attack.__name__, traceback.format_exc())
    print(f"{len(ATTACKS) - failed} held, {failed} failed")
    sys.exit(bool(failed))


main()
