"""Prints the modules that IOPaint has loaded when it answers, with an erase model and with a diffusion model.

One a line, below site-packages; with the argument "source", those of them that have no byte code. An image's Python runs it:

    docker run --rm -i --user 10001:10001 --entrypoint python iopaint:cpu-latest - source < tests/image/loaded.py
"""
# ruff: noqa: E401, F401, I001

import importlib.util
import sys
from pathlib import Path

import torch, torchvision, cv2, PIL.Image, PIL.ImageOps, PIL.PngImagePlugin, numpy, safetensors.torch
import fastapi, uvicorn, socketio, multipart, typer, typer_config, rich.progress, loguru, pydantic, piexif, yacs.config
import easydict, einops, omegaconf, psutil, huggingface_hub, accelerate, peft
import fastapi.middleware.cors, fastapi.staticfiles, starlette.staticfiles, starlette.responses
import uvicorn.loops.auto, uvicorn.protocols.http.auto, uvicorn.protocols.websockets.auto, uvicorn.lifespan.on
import engineio.async_drivers.asgi
import diffusers, transformers
from diffusers import StableDiffusionInpaintPipeline, StableDiffusionXLInpaintPipeline
from diffusers import ControlNetModel, AutoencoderKL, DDIMScheduler, LCMScheduler, UniPCMultistepScheduler
from diffusers import DPMSolverSinglestepScheduler, KDPM2DiscreteScheduler, KDPM2AncestralDiscreteScheduler
from transformers import CLIPTextModel, CLIPTokenizer, CLIPImageProcessor
from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker

SITE = "/opt/iopaint/lib/python3.11/site-packages/"


def main(wanted=""):
    """Print them, sorted."""
    files = {getattr(module, "__file__", None) or "" for module in list(sys.modules.values())}
    for file in sorted(file for file in files if file.startswith(SITE) and file.endswith(".py")):
        if wanted != "source" or not Path(importlib.util.cache_from_source(file)).exists():
            print(file.removeprefix(SITE))


main(*sys.argv[1:])
