#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: inpaint_check
short_description: Prove that a deployed IOPaint inpaints
version_added: 1.0.0
author: iopaint.fleet contributors (@iopaint)
description:
  - Sends a photograph and a mask to IOPaint, and compares the answer with the photograph, pixel by pixel.
  - Succeeds only if the answer is an image of the same size, in which pixels changed under the mask and none did
    elsewhere. A health check that answers proves less, since it can be green while the model is not loaded.
  - When it fails, the message tells what IOPaint or the gateway said and what to look at next.
options:
  url:
    description:
      - Base address of IOPaint or of the gateway in front of it, as in V(http://127.0.0.1:8080).
      - Redirects are errors, so that credentials go to no other host. Credentials in the address are refused.
    type: str
    required: true
  image:
    description:
      - Photograph on the managed host, PNG or JPEG. It is never changed.
      - It is sent upright, as RGB, without metadata, no larger than O(max_side), and as PNG, so that nothing is lost on
        the way there and back.
    type: path
    required: true
  mask:
    description:
      - Mask on the managed host, PNG or JPEG, of the same size as O(image). What is brighter than middle gray is inpainted.
      - By default the module draws a spot with a brush stroke through it, in the middle, over 9 % of the image.
    type: path
  max_side:
    description:
      - Longest side, in pixels, of what is sent. A larger O(image) is scaled down, a smaller one is sent as it is.
      - IOPaint works on crops around the mask from 801 pixels on, and diffusion models need time and memory in
        proportion to the area.
    type: int
    default: 512
  model:
    description:
      - Name of the model that has to answer, as in V(lama). The check fails when it is another one, before or after.
      - By default any model will do, as long as it is the same one before and after.
    type: str
  parameters:
    description:
      - More fields of IOPaint's C(InpaintRequest), such as C(prompt) and C(sd_steps).
      - The module sends C(sd_mask_blur=0), see O(tolerance), and leaves the rest at IOPaint's defaults.
    type: dict
    default: {}
  tolerance:
    description:
      - Largest difference in a color channel, of 255, up to which a pixel counts as unchanged, under the mask or not.
      - V(0) is right for all models of IOPaint 1.6.0, which puts the original pixels back where the mask is black.
      - With its default C(sd_mask_blur=11), diffusion models alter pixels up to 11 beyond the mask by up to half of the
        range, and no tolerance fits. Hence the module sends C(sd_mask_blur=0). With C(sd_keep_unmasked_area=false) in
        O(parameters) models give out their whole picture, and fail the check.
    type: int
    default: 0
  min_changed:
    description:
      - How much of the mask has to have changed, in percent of its pixels.
      - Low, because a good model leaves a clear sky as it is, and above nothing, because a few changed pixels are no
        inpainting.
    type: float
    default: 1.0
  timeout:
    description:
      - How long, in seconds, a request may take until its answer is there in full. There are four.
      - The first inpainting after a start takes longest.
    type: int
    default: 120
  picture:
    description:
      - Where to put a PNG with the photograph, the mask and the answer side by side, on the managed host.
      - The directory has to exist. The file is replaced in one step, also when the pixels fail the check, and not at
        all when no image of the right size came back.
    type: path
  headers:
    description:
      - More headers for the requests, for what a gateway asks. They show up in logs, so no secrets here.
    type: dict
    default: {}
  url_username:
    description: User for the basic authentication of a gateway.
    type: str
  url_password:
    description: Password of O(url_username).
    type: str
  token:
    description: Bearer token for a gateway.
    type: str
  gateway_token_file:
    description:
      - File on the managed host with the token that an instance asks its gateway for. Nothing is sent where it is missing.
    type: path
  validate_certs:
    description: Whether the certificate of an V(https) address has to be valid.
    type: bool
    default: true
  ca_path:
    description: PEM file, on the managed host, with the CA that signed the gateway's certificate.
    type: path
  use_proxy:
    description:
      - Whether to go through the proxy that the host's environment names.
      - Off, as the service is on the host or in its network, and a proxy would take V(127.0.0.1) for itself.
    type: bool
    default: false
requirements:
  - Pillow 8.1 or newer on the managed host (package C(python3-pil) or C(python3-pillow)), for Ansible's Python or the system's
attributes:
  check_mode:
    support: full
    description: Skips the requests, since in check mode nothing may be running yet. Options are checked.
  diff_mode:
    support: none
    description: There is never a difference to show.
notes:
  - Never reports a change, not even when it writes O(picture).
  - It sends one request for inpainting and repeats none. Wait for the health check first.
  - The answer is not trusted. It has to be a PNG or a JPEG of the size that was sent, and is read up to the bytes that such
    an image can have.
  - Cookies are kept during the check, so that a gateway with sticky balancing has one instance answer all of it.
seealso:
  - module: ansible.builtin.uri
"""

EXAMPLES = r"""
- name: Prove that the instance inpaints
  iopaint.fleet.inpaint_check:
    url: http://127.0.0.1:8080
    image: /usr/share/iopaint/check.jpg

- name: Prove that lama answers within ten seconds, and keep the picture
  iopaint.fleet.inpaint_check:
    url: http://127.0.0.1:8081
    image: /usr/share/iopaint/check.jpg
    model: lama
    timeout: 10
    picture: /var/lib/iopaint/check.png
  register: proof

- name: Say how fast it was
  ansible.builtin.debug:
    msg: "{{ proof.model }}: {{ proof.pixels.changed_inside }} pixels inpainted in {{ proof.latency_ms }} ms"
  when: proof is not skipped

- name: Prove it through the gateway, from the control node, with a short diffusion
  iopaint.fleet.inpaint_check:
    url: https://iopaint.example.org
    image: "{{ playbook_dir }}/files/street.jpg"
    mask: "{{ playbook_dir }}/files/street-mask.png"
    parameters:
      prompt: empty street
      sd_steps: 10
    url_username: check
    url_password: "{{ vault_iopaint_check_password }}"
    ca_path: /etc/ssl/certs/company-ca.pem
  delegate_to: localhost
"""

RETURN = r"""
asked:
  description: Whether IOPaint was asked at all. If not, the failure is of the check itself, and says nothing about IOPaint.
  returned: always
  type: bool
model:
  description: Name of the model that answered. Absent if the check failed before that was known.
  returned: when the request was sent
  type: str
  sample: lama
status:
  description: HTTP status of the answer to the request for inpainting, or of the answer that failed the check.
  returned: when IOPaint or the gateway answered
  type: int
  sample: 200
latency_ms:
  description: Time, in milliseconds, from sending the request for inpainting until its answer was there in full.
  returned: when the request for inpainting was answered with status 200
  type: float
  sample: 412.7
seconds_per_step:
  description:
    - RV(latency_ms) divided by the steps of a diffusion, in seconds. So reading the prompt and the picture are part of it.
    - Null for models without steps.
  returned: when the request for inpainting was answered with status 200
  type: float
  sample: 0.412
gpu_memory_bytes:
  description:
    - Largest amount of memory that torch held on a GPU since the instance started, in bytes, as its page C(/metrics) says.
    - Null without a GPU, for images without that page, and where a gateway keeps it to itself.
  returned: when the request for inpainting was answered as expected
  type: int
  sample: 3221225472
seed:
  description: Seed that the model used, from the header C(X-Seed). Null without that header.
  returned: when the request for inpainting was answered with status 200
  type: int
  sample: 42
pixels:
  description: What changed, in pixels of the image as it was sent. Also there when the check failed over it.
  returned: when an image of the right size came back
  type: dict
  sample:
    total: 174592
    masked: 15904
    changed_inside: 15721
    changed_outside: 0
    max_difference_inside: 187
    max_difference_outside: 0
    outside_first:
    outside_box:
  contains:
    total:
      description: Pixels of the image.
      type: int
      sample: 174592
    masked:
      description: Pixels under the mask.
      type: int
      sample: 15904
    changed_inside:
      description: Pixels under the mask that differ by more than O(tolerance).
      type: int
      sample: 15721
    changed_outside:
      description: Pixels elsewhere that differ by more than O(tolerance).
      type: int
      sample: 0
    max_difference_inside:
      description: Largest difference in a color channel under the mask, from 0 to 255.
      type: int
      sample: 187
    max_difference_outside:
      description: Largest difference in a color channel elsewhere, from 0 to 255.
      type: int
      sample: 0
    outside_first:
      description: Column and row, in pixels from the top left, of the first that changed elsewhere. Null if none did.
      type: list
      elements: int
      sample: [12, 0]
    outside_box:
      description: Left, top, right and bottom of the area in which pixels changed elsewhere, right and bottom being
        the first column and row beyond it. Null if none did.
      type: list
      elements: int
      sample: [12, 0, 96, 48]
picture:
  description: Path of the PNG that was written.
  returned: when O(picture) is set and an image of the right size came back
  type: str
  sample: /var/lib/iopaint/check.png
"""

import http.client
import os
import re
import tempfile
import time
from urllib.parse import urlsplit

from ansible.module_utils import urls
from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible.module_utils.common import respawn
from ansible_collections.iopaint.fleet.plugins.module_utils import foreign, inpaint

SYSTEM_PYTHONS = ["/usr/bin/python3", "/usr/libexec/platform-python"]


class Service:
    """IOPaint's API. One Request for all calls keeps the cookie of a balancer."""

    def __init__(self, params: dict):
        self.url = params["url"].rstrip("/")
        self.timeout = params["timeout"]
        headers = {"Content-Type": "application/json"}
        headers.update((name, str(value)) for name, value in params["headers"].items())
        headers.update(inpaint.gateway_headers(params["gateway_token_file"]))
        if params["token"]:
            headers["Authorization"] = f"Bearer {params['token']}"
        self.session = urls.Request(
            headers=headers,
            url_username=params["url_username"],
            url_password=params["url_password"],
            force_basic_auth=True,
            validate_certs=params["validate_certs"],
            ca_path=params["ca_path"],
            use_proxy=params["use_proxy"],
            timeout=self.timeout,
            follow_redirects="none",
            use_netrc=False,
            http_agent="iopaint.fleet",
        )

    def call(self, method: str, path: str, limit: int, data: bytes | None = None) -> tuple:
        """Return status, headers and body of the answer, which may have up to limit bytes."""
        request = f"{method} {self.url}{path}"
        try:
            status, reason, headers, body = foreign.ask(
                self.session, method, self.url + path, seconds=self.timeout, limit=limit, data=data
            )
        except (OSError, ValueError, http.client.HTTPException, urls.ConnectionError) as error:
            raise inpaint.CheckError(inpaint.explain_failure(request, error, self.timeout)) from error
        if status != http.client.OK:
            message = inpaint.explain_status(request, status, reason, body, headers.get("Location"))
            raise inpaint.CheckError(message, status=status)
        return status, headers, body

    def model(self) -> tuple:
        body = self.call("GET", "/api/v1/model", inpaint.MODEL_LIMIT)[2]
        return inpaint.read_model(body)

    def peak_memory(self) -> int | None:
        """Return the peak of the GPU memory, if whoever answers measures it and tells it to this client."""
        try:
            body = self.call("GET", "/metrics", inpaint.MODEL_LIMIT)[2]
        except inpaint.CheckError:
            return None
        return inpaint.peak_memory(body)

    def inpaint(self, data: bytes, limit: int) -> tuple:
        return self.call("POST", "/api/v1/inpaint", limit, data)


def complaint(params: dict) -> str | None:
    """Return what is wrong with the options themselves."""
    if not is_base_url(params["url"]):
        return (  # and not what it is, as that may hold a password
            "url has to be http://HOST:PORT or https://HOST:PORT, with any credentials in url_username and url_password"
        )
    if own := {"image", "mask"} & set(params["parameters"]):
        return f"parameters has {' and '.join(sorted(own))}, which the module sends itself"
    limits = {"max_side": (16, 4096), "timeout": (1, 86400), "tolerance": (0, 254), "min_changed": (0.01, 100)}
    for option, (low, high) in limits.items():
        if not low <= params[option] <= high:
            return f"{option} is {params[option]:g}, and has to be from {low:g} to {high:g}"
    return None


def is_base_url(url: str) -> bool:
    try:
        address = urlsplit(url)
        return bool(
            address.scheme in ("http", "https")
            and address.hostname
            and address.port != 0
            and not (set("@?#") & set(url) or re.search(r"\s", url))
        )
    except ValueError:  # a port that is none, or half an IPv6 address
        return False


def expect_paths(params: dict) -> None:
    """Fail before the request over what would fail after it."""
    picture, ca_path = params["picture"], params["ca_path"]
    if picture and (os.path.isdir(picture) or not os.path.isdir(os.path.dirname(os.path.abspath(picture)))):
        raise inpaint.CheckError(f"picture is {picture}, and has to be a file in a directory that exists")
    if ca_path and not os.path.isfile(ca_path):
        raise inpaint.CheckError(f"ca_path is {ca_path}, and no file is there")


def check(module: AnsibleModule, result: dict) -> None:
    """Fill the result step by step, so that what is known is there when a step fails."""
    params = module.params
    expect_paths(params)
    photo, mask = inpaint.prepare(params["image"], params["mask"], params["max_side"])
    data = inpaint.request_body(photo, mask, params["parameters"])
    service = Service(params)

    result["asked"] = True
    result["model"], diffuses = service.model()
    expect_model(result["model"], params["model"], "before")

    start = time.monotonic()
    status, headers, body = service.inpaint(data, inpaint.answer_limit(photo))
    seconds = time.monotonic() - start
    seed = headers.get("X-Seed") or ""
    result.update(
        status=status,
        latency_ms=round(seconds * 1000, 1),
        seconds_per_step=round(seconds / steps_of(params), 3) if diffuses else None,
        seed=int(seed) if re.fullmatch("[0-9]{1,20}", seed) else None,
    )
    answer = inpaint.read_answer(body, headers.get("Content-Type") or "unknown type", photo)
    result["pixels"] = inpaint.compare(photo, answer, mask, params["tolerance"])
    if params["picture"]:
        save(module, inpaint.side_by_side(photo, mask, answer), params["picture"])
        result["picture"] = params["picture"]

    expect_model(service.model()[0], params["model"] or result["model"], "after")
    result["gpu_memory_bytes"] = service.peak_memory()
    inpaint.judge(result["pixels"], params["min_changed"], params["tolerance"])


def steps_of(params: dict) -> int:
    """Return the steps that a diffusion takes with the parameters, at least 1."""
    try:
        return max(1, int(params["parameters"].get("sd_steps", inpaint.STEPS)))
    except (TypeError, ValueError):  # which IOPaint refuses
        return inpaint.STEPS


def expect_model(found: str, wanted: str | None, moment: str) -> None:
    if wanted not in (None, found):
        raise inpaint.CheckError(
            f"the model is {found} {moment} the inpainting, and should be {wanted}. IOPaint lets every user switch it, "
            f"and returns to the previous one when a model fails to load. {inpaint.LOG}"
        )


def save(module: AnsibleModule, picture, path: str) -> None:
    handle, temporary = tempfile.mkstemp(suffix=".png", dir=module.tmpdir)
    os.close(handle)
    picture.save(temporary, "PNG")
    module.atomic_move(temporary, path)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "required": True},
            "image": {"type": "path", "required": True},
            "mask": {"type": "path"},
            "max_side": {"type": "int", "default": 512},
            "model": {"type": "str"},
            "parameters": {"type": "dict", "default": {}},
            "tolerance": {"type": "int", "default": 0},
            "min_changed": {"type": "float", "default": 1.0},
            "timeout": {"type": "int", "default": 120},
            "picture": {"type": "path"},
            "headers": {"type": "dict", "default": {}},
            "url_username": {"type": "str"},
            "url_password": {"type": "str", "no_log": True},
            "token": {"type": "str", "no_log": True},
            "gateway_token_file": {"type": "path", "no_log": False},
            "validate_certs": {"type": "bool", "default": True},
            "ca_path": {"type": "path"},
            "use_proxy": {"type": "bool", "default": False},
        },
        required_together=[("url_username", "url_password")],
        mutually_exclusive=[("token", "url_username")],
        supports_check_mode=True,
    )
    if message := complaint(module.params):
        module.fail_json(msg=message, asked=False)
    if module.check_mode:
        module.exit_json(changed=False, skipped=True, msg="No request was sent: in check mode nothing may be running.")
    if inpaint.PILLOW_ERROR and not respawn.has_respawned():
        # Ansible's interpreter may be a virtual environment's; the package is there for the system's.
        interpreter = respawn.probe_interpreters_for_module(SYSTEM_PYTHONS, "PIL.Image")
        if interpreter:
            respawn.respawn_module(interpreter)
    if inpaint.PILLOW_ERROR:
        module.fail_json(msg=missing_required_lib("Pillow"), exception=inpaint.PILLOW_ERROR, asked=False)

    result = {"changed": False, "asked": False}
    try:
        check(module, result)
    except inpaint.CheckError as error:
        result.update(error.facts)
        picture = f" See {result['picture']}." if "picture" in result else ""
        module.fail_json(msg=f"{error}{picture}", **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
