#!/usr/bin/env python3
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Prove that a finished image still has all that IOPaint calls, after docker/build/remove-unneeded.

    docker run --rm -i --user 10001:10001 --network none --read-only --tmpfs /tmp --entrypoint python IMAGE - [cpu|cuda] \\
      < tests/image/proof.py

Nothing is downloaded: LaMa is a scripted stand-in, the diffusion networks have random weights. With `cuda` (add
`--gpus all` or `--device nvidia.com/gpu=all`) the models run on the GPU too, and a step of Stable Diffusion's network is timed
on both (5 GB of memory, a minute or two).
"""

import ast
import hashlib
import importlib
import importlib.metadata
import json
import os
import pkgutil
import re
import statistics
import sys
import tempfile
import time
import traceback
import urllib.request
from pathlib import Path

# The variables are read when iopaint is imported.
WORK = Path(tempfile.mkdtemp())
os.environ.update(LAMA_MODEL_URL="https://localhost/lama.pt", HF_HUB_OFFLINE="1", TORCH_HOME=str(WORK), XDG_CACHE_HOME=str(WORK))

# IOPaint sets variables of torch; what the container was given wins, as in docker/image/iopaint.
given = dict(os.environ)
import iopaint

os.environ.update(given)
import torch

# What upstream imports and its requirements.txt does not ask for: plugins (rembg and what they need), a GPU monitor, its tests.
NOT_ASKED_FOR = {"rembg", "onnxruntime", "nvidia_smi", "pytest", "segment_anything", "utils", "anytext_pipeline"}
OWN_NAMES = {
    "cv2": "opencv-python-headless",
    "PIL": "pillow",
    "socketio": "python-socketio",
    "skimage": "scikit-image",
    "yaml": "pyyaml",
}


def lama():
    """A stand-in for LaMa's weights, called as they are; traced, since a script from standard input has no source."""

    class Mean(torch.nn.Module):
        def forward(self, image, mask):
            return torch.where(mask > 0, image.mean(), image)

    path = Path(torch.hub.get_dir(), "checkpoints", "lama.pt")
    path.parent.mkdir(parents=True)
    torch.jit.trace(Mean(), (torch.rand(1, 3, 16, 16), torch.ones(1, 1, 16, 16))).save(str(path))
    os.environ["LAMA_MODEL_MD5"] = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def missing_package(error):
    """The package of no requirement whose absence an import stumbled over, or None."""
    name = (getattr(error, "name", None) or "").split(".")[0]
    return name if isinstance(error, ModuleNotFoundError) and name in NOT_ASKED_FOR else None


def imports_every_module():
    """Each module of iopaint, but its tests."""
    failed, count, without = [], 0, set()
    for module in pkgutil.walk_packages(iopaint.__path__, "iopaint.", onerror=lambda name: None):
        if module.name.startswith("iopaint.tests") or module.name == "iopaint.__main__":
            continue
        try:
            importlib.import_module(module.name)
            count += 1
        except (Exception, SystemExit) as error:
            if missing_package(error):
                without.add(f"{module.name} ({missing_package(error)})")
            else:
                failed.append(f"{module.name}: {error!r}")
    assert not failed, "\n".join(failed)
    return f"{count} modules, upstream's requirements lack a package of {', '.join(sorted(without)) or 'none'}"


def imports_every_name():
    """Each name that any statement of iopaint imports from another package, those inside functions included."""
    root, failed, names = Path(iopaint.__file__).parent, [], set()
    for path in root.rglob("*.py"):
        if "tests" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names.update((alias.name, None) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names.update((node.module, alias.name) for alias in node.names if alias.name != "*")
    names = {pair for pair in names if pair[0].split(".")[0] not in {"iopaint", *NOT_ASKED_FOR}}
    for module, name in sorted(names, key=str):
        try:
            loaded = importlib.import_module(module)
            if name and not hasattr(loaded, name):
                importlib.import_module(f"{module}.{name}")
        except Exception as error:
            failed.append(f"{module} {name or ''}: {error!r}")
    assert not failed, "\n".join(failed)
    return f"{len(names)} names"


def has_the_packages_it_lists():
    """The list in the image is what is installed, in the versions that it says."""
    lines = Path("/usr/share/iopaint-fleet/python-packages.txt").read_text().split()
    listed = dict(line.split("==") for line in lines)
    found = {re.sub("[-_.]+", "-", d.metadata["Name"]).lower(): d.version for d in importlib.metadata.distributions()}
    assert found == listed, sorted(set(found.items()) ^ set(listed.items()))
    for name, package in OWN_NAMES.items():
        assert package in listed, package
        importlib.import_module(name)
    debian = Path("/usr/share/iopaint-fleet/debian-packages.txt").read_text().split()
    assert any(line.startswith("python3.11=") for line in debian)
    return f"{len(listed)} Python and {len(debian)} Debian packages"


def inpaints(name, device):
    """One request to one model, through iopaint's own manager: pixels change inside the mask only."""
    import numpy
    from iopaint.model_manager import ModelManager
    from iopaint.schema import HDStrategy, InpaintRequest
    from PIL import Image

    image = numpy.array(Image.open("/usr/share/iopaint-fleet/photo.png").convert("RGB"))
    mask = numpy.zeros(image.shape[:2], dtype=numpy.uint8)
    mask[100:160, 200:280] = 255
    manager = ModelManager(name=name, device=torch.device(device))
    result = manager(image, mask, InpaintRequest(hd_strategy=HDStrategy.ORIGINAL))[:, :, ::-1]
    changed = numpy.abs(result.astype(int) - image).max(axis=2) > 0
    assert changed[mask > 0].mean() > 0.9, changed[mask > 0].mean()
    assert not changed[mask == 0].any()
    return f"{image.shape[1]} x {image.shape[0]}"


def tiny_pipeline():
    """A diffusion pipeline for inpainting as diffusers builds it, small and with random weights."""
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionInpaintPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    (WORK / "vocab.json").write_text(json.dumps({"a</w>": 0, "b</w>": 1, "<|startoftext|>": 2, "<|endoftext|>": 3}))
    (WORK / "merges.txt").write_text("#version: 0.2\n")
    torch.manual_seed(0)
    blocks = {"block_out_channels": (32, 64), "norm_num_groups": 8}
    unet = UNet2DConditionModel(
        sample_size=16, in_channels=9, out_channels=4, layers_per_block=1, cross_attention_dim=32, attention_head_dim=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), **blocks,
    )  # fmt: skip
    vae = AutoencoderKL(down_block_types=["DownEncoderBlock2D"] * 2, up_block_types=["UpDecoderBlock2D"] * 2, **blocks)
    text = CLIPTextConfig(
        vocab_size=4,
        hidden_size=32,
        intermediate_size=37,
        num_attention_heads=4,
        num_hidden_layers=2,
        bos_token_id=2,
        eos_token_id=3,
    )
    return StableDiffusionInpaintPipeline(
        vae=vae, text_encoder=CLIPTextModel(text).eval(), unet=unet, scheduler=DDIMScheduler(), safety_checker=None,
        tokenizer=CLIPTokenizer(str(WORK / "vocab.json"), str(WORK / "merges.txt"), model_max_length=77), feature_extractor=None,
        requires_safety_checker=False,
    )  # fmt: skip


def diffuses(device):
    """The small pipeline saved, loaded from its folder and run."""
    import numpy
    from diffusers import StableDiffusionInpaintPipeline
    from PIL import Image

    folder = WORK / "pipeline"
    if not folder.exists():
        tiny_pipeline().save_pretrained(folder)
    pipeline = StableDiffusionInpaintPipeline.from_pretrained(folder, safety_checker=None).to(device)
    pipeline.set_progress_bar_config(disable=True)
    image = Image.open("/usr/share/iopaint-fleet/photo.png").convert("RGB").resize((128, 128))
    mask = Image.fromarray(numpy.pad(numpy.full((32, 32), 255, numpy.uint8), 48))
    result = pipeline("a", image=image, mask_image=mask, num_inference_steps=4, height=128, width=128).images[0]
    assert numpy.array(result).std() > 0
    return f"{result.size[0]} x {result.size[1]}, 4 steps"


def computes_the_same(device):
    """A step of Stable Diffusion's network at 512 x 512, on the CPU and on the device: the same result, and both times."""
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    # diffusers' defaults with these three are the network of Stable Diffusion 1.5 for inpainting: 860 million parameters.
    unet = UNet2DConditionModel(sample_size=64, in_channels=9, cross_attention_dim=768).eval()
    inputs = torch.randn(2, 9, 64, 64), torch.randn(2, 77, 768)  # two, as for guidance: with the prompt and without
    seconds, results = {}, {}
    for where, kind in (("cpu", torch.float32), (device, torch.float16)):  # as IOPaint runs it, without --no-half
        unet.to(where, kind)
        latents, prompt = (value.to(where, kind) for value in inputs)
        times = []
        for _ in range(6):
            start = time.monotonic()
            with torch.inference_mode():
                results[where] = unet(latents, 500, prompt).sample.cpu().float()  # the copy waits for the GPU
            times.append(time.monotonic() - start)
        seconds[where] = statistics.median(times[1:])  # the first one loads kernels
    difference = ((results[device] - results["cpu"]).norm() / results["cpu"].norm()).item()
    assert difference < 0.02, f"the results differ by {difference:.2%}"
    count = sum(parameter.numel() for parameter in unet.parameters())
    return (
        f"{count / 1e6:.0f} million parameters, CPU with {torch.get_num_threads()} threads {seconds['cpu']:.3f} s, "
        f"{torch.cuda.get_device_name()} {seconds[device]:.3f} s, {seconds['cpu'] / seconds[device]:.0f} times as fast, "
        f"difference {difference:.2%}"
    )


def builds_the_config_page():
    """`iopaint start-web-config`: its page, what the page is made of, and one script."""
    import gradio
    from iopaint import web_config

    opened, original = [], gradio.Blocks.launch

    def launch(blocks, **options):
        opened.append(original(blocks, **{**options, "inbrowser": False, "prevent_thread_lock": True, "quiet": True}))

    gradio.Blocks.launch = launch
    web_config.main(WORK / "config.json")
    url = opened[0][1]
    page = urllib.request.urlopen(url, timeout=20).read().decode()
    config = json.loads(urllib.request.urlopen(url + "config", timeout=20).read())
    script = re.search(r'src="\./(assets/[^"]+\.js)"', page)[1]
    assert len(urllib.request.urlopen(url + script, timeout=20).read()) > 1000
    assert len(config["components"]) > 20
    return f"{len(config['components'])} components"


def main(device="cpu"):
    """Run all proofs, name those that failed."""
    lama()
    proofs = [imports_every_module, imports_every_name, has_the_packages_it_lists, builds_the_config_page]
    proofs = [(proof.__name__, proof, ()) for proof in proofs]
    for where in dict.fromkeys(["cpu", device]):
        proofs += [(f"inpaints with {name} on {where}", inpaints, (name, where)) for name in ("cv2", "lama")]
        proofs += [(f"diffuses on {where}", diffuses, (where,))]
    if device != "cpu":
        proofs += [(f"computes the same on cpu and {device}", computes_the_same, (device,))]
    failed = 0
    for name, proof, arguments in proofs:
        start = time.monotonic()
        try:
            said = f"ok ({proof(*arguments)})"
        except Exception:
            failed += 1
            said = "FAILED\n" + traceback.format_exc()
        print(f"{name.replace('_', ' ')}: {said}, {time.monotonic() - start:.1f} s", flush=True)
    print(f"torch {torch.__version__}, CUDA {torch.version.cuda}")
    print(f"{len(proofs) - failed} passed, {failed} failed")
    sys.stdout.flush()
    os._exit(1 if failed else 0)  # gradio's server thread would hold the process


if __name__ == "__main__":
    main(*sys.argv[1:])
