# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The models that IOPaint asks for by name, as models.json lists them, and which plugin loads which.

models.json has one entry for each name. `kind` is `erase` or `diffusion` (models to start an instance with), `addition` (what
IOPaint loads besides a diffusion model) or `plugin`. A file has `url` and `checksum`, and `file` where it has another name on the
host than at its address. A repository of a hub has a `revision` where public projects pin one, and `files` where IOPaint loads
only some. `megabytes` (10^6 bytes, rounded up) is the size of what is fetched, by variant where there are several. `gpu_memory`
is in GB (10^9 bytes). `replaced_by` names what takes the place of a repository that the public hub has no more. What is not known
is left out. `scripts/models` takes revisions and sizes of the repositories anew from the hub.

Addresses and MD5 sums are those of IOPaint (iopaint/model/*.py, iopaint/plugins/*.py) and, for the models of rembg, of rembg
2.0.69 (rembg/sessions/*.py). A SHA-256 sum stands where several public projects pin the same address with it. IOPaint itself
compares no checksum of detection_Resnet50_Final and parsing_parsenet, which GFPGAN and RestoreFormer load. The commit of RMBG-1.4
has the model.pth whose SHA-256 sum is 893c16c340b1ddafc93e78457a4d94190da9b7179149f8574284c83caebf5e8c.

Memory of Stable Diffusion 1.5: with cpu_offload as the notes of IOPaint 0.33.0 measured it for 512 x 512, else the weights as the
hub lists them (2.1 GB in float16) and 1 GB to compute in; docs/benchmarks.md has 0.1 GB beside the weights for the network, and
decoding takes more. Of SDXL: in one go as diffusers measured it for 1024 x 1024 (sayakpaul/sample-datasets on the hub, sdxl-fast,
bfloat16 and float32); with cpu_offload the largest part, the network (5.1 and 10.3 GB as the hub lists it), and 2 GB that
computing took beyond the weights. Of lama: docs/benchmarks.md, up to 2048 x 2048; an erase model knows neither float16 nor
offloading.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

CHECKPOINTS = "torch/hub/checkpoints/"  # below the folder of models
LISTED = json.loads(Path(__file__).with_name("models.json").read_text(encoding="utf-8"))["models"]


class Weights(NamedTuple):
    """One file of weights. `file` is its name on the host where that is not the end of the address."""

    url: str
    checksum: str
    megabytes: int = 0
    file: str = ""

    @property
    def path(self):
        """Return the path below the folder of models at which IOPaint looks for it."""
        return CHECKPOINTS + (self.file or self.url.rpartition("/")[2])


def _files(kind):
    """Return the listed files of a kind, by name."""
    chosen = {name: entry for name, entry in LISTED.items() if entry["kind"] == kind and "url" in entry}
    return {name: Weights(**{key: entry[key] for key in Weights._fields if key in entry}) for name, entry in chosen.items()}


ERASE = _files("erase")
OF_PLUGINS = _files("plugin")
WEIGHTS = {**ERASE, **OF_PLUGINS}
# What an entry of iopaint_models for a repository need not say, by the repository's name.
DEFAULTS = {
    name: {key: entry[key] for key in ("revision", "files") if key in entry} for name, entry in LISTED.items() if "/" in name
}
REPLACED = {name: entry["replaced_by"] for name, entry in LISTED.items() if "replaced_by" in entry}
# Models of plugins that are repositories of a hub, as entries of iopaint_models.
REPOSITORIES = {name: {"hub": name} for name, entry in LISTED.items() if entry["kind"] == "plugin" and "url" not in entry}


class Plugin(NamedTuple):
    """A plugin: what each of its models loads (the default one first), whether it has a device, and the extra of the image.

    A plugin without a choice of models has one, called "".
    """

    models: dict
    device: bool = True
    extra: str = ""


FACES = ["detection_Resnet50_Final", "parsing_parsenet"]
SEGMENT_ANYTHING = ("sam2_1_tiny", "sam2_1_small", "sam2_1_base", "sam2_1_large", "sam2_tiny", "sam2_small", "sam2_base")
SEGMENT_ANYTHING += ("sam2_large", "mobile_sam", "vit_b", "vit_l", "vit_h", "sam_hq_vit_b", "sam_hq_vit_l", "sam_hq_vit_h")
UPSCALERS = ("realesr-general-x4v3", "RealESRGAN_x4plus", "RealESRGAN_x4plus_anime_6B")
OF_REMBG = tuple(name for name, weights in OF_PLUGINS.items() if "/danielgatis/rembg/" in weights.url)
# By the word in IOPaint's options enable_WORD, WORD_model and WORD_device.
PLUGINS = {
    "remove_bg": Plugin({name: [name] for name in (*REPOSITORIES, *OF_REMBG)}, extra="plugins"),
    "interactive_seg": Plugin({name: [name] for name in SEGMENT_ANYTHING}),
    "realesrgan": Plugin({name: [name] for name in UPSCALERS}),
    "gfpgan": Plugin({"": ["GFPGANv1.4", *FACES]}),
    "restoreformer": Plugin({"": ["RestoreFormer", *FACES]}),
    "anime_seg": Plugin({"": ["isnetis"]}, device=False),
}


class Need(NamedTuple):
    """GPU memory of a model in GB (10^9 bytes), in float16 and in float32, and the same with `cpu_offload`; 0 where unknown."""

    half: float
    full: float
    half_offloaded: float = 0
    full_offloaded: float = 0


GPU_MEMORY = {name: Need(**entry["gpu_memory"]) for name, entry in LISTED.items() if "gpu_memory" in entry}
