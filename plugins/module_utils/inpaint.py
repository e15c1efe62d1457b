# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The proof that IOPaint inpaints: what to send, what came back, and what the difference between the two means."""

from __future__ import annotations

import base64
import io
import json
import re
import socket
import ssl
import traceback

from ansible_collections.iopaint.fleet.plugins.module_utils import foreign
from ansible_collections.iopaint.fleet.plugins.module_utils.text import plain

try:
    from PIL import Image, ImageChops, ImageDraw, ImageOps

    PILLOW_ERROR = None
except ImportError:  # the module tells the user
    PILLOW_ERROR = traceback.format_exc()

# Pillow reads forty formats, some by starting programs. An image may come out of a container.
FORMATS = ("PNG", "JPEG")
LARGEST_FILE, MOST_PIXELS = 128 * foreign.MIB, 100_000_000
MODEL_LIMIT = foreign.MIB  # bytes of the answer that describes the model
DIFFUSION = "diffusers"  # begins IOPaint's types of models that take steps
STEPS = 50  # of a diffusion, by IOPaint's default
PEAK = re.compile(
    r'^iopaint_gpu_memory_bytes\{(?=[^}]*kind="peak")[^}]*\} ([0-9]{1,18}(?:\.[0-9]{1,18})?(?:e\+?[0-9]{1,2})?)$', re.MULTILINE
)
LOG = "The container's log says why: `docker logs CONTAINER`."

# What to look at next, by the status of the answer.
ADVICE = {
    301: "Set url to the address it redirects to.",
    302: "Set url to the address it redirects to.",
    307: "Set url to the address it redirects to.",
    308: "Set url to the address it redirects to.",
    400: "Look at parameters.",
    401: "The gateway wants url_username and url_password, or token.",
    403: "The gateway refuses this request: look at its rules and its log.",
    404: "Is this IOPaint's own address? Its API is at /api/v1, below the root of the host name.",
    413: "The gateway limits the size of requests: raise its limit, or lower max_side.",
    422: "Look at parameters.",
    502: "The gateway has no answer from IOPaint. Look at its backends, then at the container's log.",
    503: "The gateway has no instance to send this to. Look at its backends, then at the container's log.",
    504: "The gateway stopped waiting for IOPaint: raise its timeout, and look at the container's log.",
}


def gateway_headers(path: str | None) -> dict:
    """Return the header with the gateway's token out of a file; none where there is no such file."""
    try:
        return {"X-IOPaint-Token": foreign.read_text(path).split()[0]} if path else {}
    except (FileNotFoundError, IndexError):
        return {}


class CheckError(Exception):
    """What failed and what to look at next; facts are results known despite the failure."""

    def __init__(self, message: str, **facts):
        super().__init__(message)
        self.facts = facts


# ---- what is sent ----------------------------------------------------------------------------------------------------


def prepare(image: str, mask: str | None, max_side: int) -> tuple:
    """Return the photograph, and its mask in black and white, as they are sent."""
    photo = _read("image", image, "RGB")
    drawn = _read("mask", mask, "L") if mask else None
    if drawn and drawn.size != photo.size:
        raise CheckError(
            f"mask {mask} is {_size(drawn)} and image {image} is {_size(photo)}, and they have to be of the same size"
        )
    photo.thumbnail((max_side, max_side))
    area = _white_above(127, drawn.resize(photo.size)) if drawn else draw_mask(photo.size)
    if not 0 < area.histogram()[255] < area.width * area.height:
        extent = "all" if area.getbbox() else "nothing"
        raise CheckError(f"the mask covers {extent} of the {_size(photo)} image, and has to cover a part of it")
    return photo, area


def draw_mask(size: tuple) -> Image.Image:
    """Return a spot in the middle with a brush stroke through it: some 9 % of the image, in one piece."""
    width, height = size
    mask = Image.new("L", size)
    draw = ImageDraw.Draw(mask)
    draw.ellipse([width * 0.35, height * 0.35, width * 0.65, height * 0.65], fill=255)
    stroke = [width * 0.2, height * 0.7, width * 0.8, height * 0.3]
    draw.line(stroke, fill=255, width=max(1, min(size) // 24))
    return mask


def request_body(photo: Image.Image, mask: Image.Image, parameters: dict) -> bytes:
    """Return IOPaint's InpaintRequest, as JSON. The answer is in the format of the image, so PNG loses nothing either way."""
    # Diffusion models blend beyond the edge of the mask unless told not to.
    body = {"sd_mask_blur": 0, **parameters, "image": _png_base64(photo), "mask": _png_base64(mask)}
    return json.dumps(body).encode()


def _read(option: str, path: str, mode: str) -> Image.Image:
    try:
        with Image.open(io.BytesIO(foreign.read_file(path, LARGEST_FILE)), formats=FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:  # known before the image is decoded
                raise CheckError(f"it is {_size(image)}, and may have up to {MOST_PIXELS} pixels")
            upright = ImageOps.exif_transpose(image).convert(mode)
    except Exception as error:  # Pillow lets through whatever a broken file makes it raise
        ours = isinstance(error, (CheckError, foreign.ForeignError))
        reason = getattr(error, "strerror", None) or (str(error) if ours else f"{type(error).__name__}: {error}")
        raise CheckError(f"{option} {path} can't be read as PNG or JPEG: {reason}") from error
    upright.info = {}  # the orientation would be sent along, and applied a second time
    return upright


def _white_above(level: int, image: Image.Image) -> Image.Image:
    return image.point([0] * (level + 1) + [255] * (255 - level))


def _png_base64(image: Image.Image) -> str:
    png = io.BytesIO()
    image.save(png, "PNG")
    return base64.b64encode(png.getvalue()).decode()


def _size(image: Image.Image) -> str:
    return f"{image.width}x{image.height}"


# ---- what came back --------------------------------------------------------------------------------------------------


def read_model(body: bytes) -> tuple:
    """Return from the answer to GET /api/v1/model the model's name, and whether it is a diffusion model."""
    try:
        model = foreign.parse_json(foreign.decode(body), dict)
    except foreign.ForeignError:
        model = {}
    name = model.get("name")
    if not isinstance(name, str) or not name:
        raise CheckError(f"the answer to GET /api/v1/model names no model, so this is not IOPaint: {server_text(body)}")
    return _short(name), str(model.get("model_type")).startswith(DIFFUSION)


def peak_memory(body: bytes) -> int | None:
    """Return the largest peak of memory on a GPU, in bytes, from an instance's measures; None where it names none."""
    return max((int(float(value)) for value in PEAK.findall(body.decode(errors="replace"))), default=None)


def answer_limit(photo: Image.Image) -> int:
    """Return the most bytes of an answer: those of a PNG of this size that nothing compresses, with room for its headers."""
    return 8 * photo.width * photo.height + 65536


def read_answer(body: bytes, content_type: str, photo: Image.Image) -> Image.Image:
    """Return the image in the answer to POST /api/v1/inpaint."""
    try:
        with Image.open(io.BytesIO(body), formats=FORMATS) as image:
            if image.size == photo.size:
                return image.convert("RGB")
            size = _size(image)  # known before the image is decoded, so a huge one costs nothing
    except Exception as error:  # Pillow lets through whatever broken data makes it raise
        text = server_text(body) if content_type.startswith(("text/", "application/json")) else str(error)
        raise CheckError(
            f"IOPaint's answer is no PNG or JPEG that can be read ({len(body)} bytes of {_short(content_type)}): {_short(text)}. "
            "Is something other than IOPaint at this address?"
        ) from error
    raise CheckError(f"IOPaint answered with an image of {size} to one of {_size(photo)}. {LOG}")


def compare(before: Image.Image, after: Image.Image, mask: Image.Image, tolerance: int) -> dict:
    """Return how many pixels differ by more than the tolerance in any channel, under the mask and elsewhere."""
    red, green, blue = ImageChops.difference(before, after).split()
    difference = ImageChops.lighter(ImageChops.lighter(red, green), blue)
    elsewhere = ImageChops.invert(mask)
    inside, outside = difference.histogram(mask), difference.histogram(elsewhere)
    strays = ImageChops.darker(_white_above(tolerance, difference), elsewhere)
    box = strays.getbbox()
    return {
        "total": mask.width * mask.height,
        "masked": sum(inside),
        "changed_inside": sum(inside[tolerance + 1 :]),
        "changed_outside": sum(outside[tolerance + 1 :]),
        "max_difference_inside": _highest(inside),
        "max_difference_outside": _highest(outside),
        "outside_first": _first(strays, box) if box else None,
        "outside_box": list(box) if box else None,
    }


def judge(pixels: dict, min_changed: float, tolerance: int) -> None:
    """Raise CheckError unless pixels changed under the mask and nowhere else."""
    changed, masked, strays = pixels["changed_inside"], pixels["masked"], pixels["changed_outside"]
    if not changed:
        raise CheckError(
            f"nothing changed under the mask ({masked} pixels): the image came back as it was sent. {LOG} "
            "If the image is of one colour there, inpainting changes nothing: take another one."
        )
    if changed * 100 < min_changed * masked:
        raise CheckError(
            f"only {changed} of {masked} pixels changed under the mask ({changed * 100 / masked:.2f} %), "
            f"and min_changed is {min_changed:g} %. {LOG}"
        )
    if strays:
        (x, y), (left, top, right, bottom) = pixels["outside_first"], pixels["outside_box"]
        raise CheckError(
            f"{strays} pixels changed outside the mask: the first at x={x} y={y}, all within x {left} to {right - 1} "
            f"and y {top} to {bottom - 1}, by up to {pixels['max_difference_outside']} of 255 (tolerance {tolerance}). "
            f"IOPaint can mix up the images of simultaneous requests, so run the check again. {LOG}"
        )


def side_by_side(before: Image.Image, mask: Image.Image, after: Image.Image) -> Image.Image:
    """Return before | mask | after, each under its caption."""
    gap, caption = 8, 20
    width, height = before.size
    picture = Image.new("RGB", (3 * width + 4 * gap, height + caption + gap), "white")
    draw = ImageDraw.Draw(picture)
    for index, (text, panel) in enumerate((("before", before), ("mask", mask), ("after", after))):
        left = gap + index * (width + gap)
        draw.text((left, 4), text, fill="black")
        picture.paste(panel, (left, caption))
    return picture


def _highest(histogram: list) -> int:
    return max((level for level, count in enumerate(histogram) if count), default=0)


def _first(strays: Image.Image, box: tuple) -> list:
    """Return column and row of the topmost white pixel, the leftmost of its row."""
    top = box[1]
    row = strays.crop((0, top, strays.width, top + 1))
    return [row.getbbox()[0], top]


# ---- what went wrong on the way --------------------------------------------------------------------------------------


def explain_status(request: str, status: int, reason: str, body: bytes, location: str | None) -> str:
    """Return the message for an answer other than 200."""
    said = f"to {_short(location)}" if location else server_text(body)
    return f"{request}: HTTP {status} {_short(reason)}: {said}. {ADVICE.get(status, LOG)}"


def explain_failure(request: str, error: Exception, timeout: int) -> str:  # noqa: PLR0911 - a cause each
    """Return the message for a request that got no answer."""
    cause = getattr(error, "reason", error)  # what URLError wraps
    if isinstance(cause, foreign.ForeignError):
        return f"{request}: the answer was not read, as {cause}. Is something other than IOPaint at this address?"
    if isinstance(cause, (socket.timeout, TimeoutError)):
        return (
            f"{request}: no complete answer within {timeout} s. The model may still be loading, or be slow on this host: raise "
            f"timeout if it only needs longer. {LOG}"
        )
    if isinstance(cause, ConnectionRefusedError):
        return (
            f"{request}: connection refused, so nothing listens there. Look for the container in `docker ps -a`: is it "
            f"running, and is this its published port? {LOG}"
        )
    if isinstance(cause, socket.gaierror):
        return f"{request}: the host name can't be resolved ({cause.strerror}). Look at url and at the host's DNS."
    if isinstance(cause, ssl.SSLError):
        return f"{request}: TLS failed: {cause}. Set ca_path to the CA of the gateway's certificate, and look at url."
    if isinstance(cause, ValueError):
        return f"{request}: {_short(cause)}. Look at url, and at the proxy that the host's environment names (http_proxy)."
    return (
        f"{request}: the connection broke: {_short(cause) or type(cause).__name__}. A process killed for its memory "
        f"looks like this. {LOG}"
    )


def server_text(body: bytes) -> str:
    """Return the server's own words, from IOPaint's JSON, FastAPI's JSON or an HTML page, and never the payload."""
    text = body.decode(errors="replace")
    try:
        said = foreign.parse_json(text)
    except foreign.ForeignError:
        return _short(re.sub(r"<[^>]*>", " ", text)) or "(empty)"
    if not isinstance(said, dict):
        return _short(text)
    detail = said.get("detail") or said.get("errors") or ""
    if isinstance(detail, list):
        detail = "; ".join(_validation_error(item) for item in detail)
    return _short(": ".join(str(part) for part in (said.get("error"), detail) if part) or text)


def _validation_error(item: object) -> str:
    if (
        isinstance(item, dict) and isinstance(item.get("loc"), list) and "msg" in item
    ):  # FastAPI's, which repeats the input it refuses
        return f"{'.'.join(map(str, item['loc']))}: {item['msg']}"
    return str(item)


def _short(text: object) -> str:
    text = " ".join(plain(str(text)).split())
    return text if len(text) <= 300 else f"{text[:300]}…"
