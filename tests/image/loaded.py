"""Print how many bytes of source IOPaint has loaded when it answers, and which of these modules have no byte code, as JSON.

It imports what an erase model and a diffusion model need. An image's Python runs it:

    docker run --rm -i --user 10001:10001 --entrypoint python iopaint:cpu-latest - < tests/image/loaded.py
"""
# ruff: noqa: E401, F401, I001

import importlib.util
import json
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

loaded = {getattr(module, "__file__", None) or "" for module in list(sys.modules.values())}
sizes = {file: Path(file).stat().st_size for file in sorted(loaded) if file.startswith(SITE) and file.endswith(".py")}
uncompiled = {file: size for file, size in sizes.items() if not Path(importlib.util.cache_from_source(file)).exists()}
print(json.dumps({"loaded": sum(sizes.values()), "uncompiled": uncompiled}))
