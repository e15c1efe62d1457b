# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is known of the weights that IOPaint 1.6.0 asks for by name: address, checksum, size, and which plugin loads them.

Addresses and MD5 sums are those of IOPaint (iopaint/model/*.py, iopaint/plugins/*.py) and, for the models of rembg, of rembg
2.0.69 (rembg/sessions/*.py). A SHA-256 sum stands where several public projects pin the same address with it. Sizes are megabytes
(10^6 bytes), rounded up, from the same places; 0 where none of them says it.
"""

from __future__ import annotations

from typing import NamedTuple

CHECKPOINTS = "torch/hub/checkpoints/"  # below the folder of models
SANSTER = "https://github.com/Sanster/models/releases/download/"
ESRGAN = "https://github.com/xinntao/Real-ESRGAN/releases/download/"
GFPGAN = "https://github.com/TencentARC/GFPGAN/releases/download/"
FACEXLIB = "https://github.com/xinntao/facexlib/releases/download/"
META = "https://dl.fbaipublicfiles.com/segment_anything"
HQ_SAM = "https://huggingface.co/lkeab/hq-sam/resolve/main/"
REMBG = "https://github.com/danielgatis/rembg/releases/download/v0.0.0/"


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


def _rembg(name, checksum, megabytes, file=""):
    """Return the weights of a model of rembg, which are called NAME.onnx on the host."""
    return Weights(f"{REMBG}{file or name}.onnx", checksum, megabytes, f"{name}.onnx")


# Models to start an instance with.
ERASE = {
    "lama": Weights(f"{SANSTER}add_big_lama/big-lama.pt", "md5:e3aa4aaa15225a33ec84f9f4bc47e500", 206),
    "anime-lama": Weights(f"{SANSTER}AnimeMangaInpainting/anime-manga-big-lama.pt", "md5:29f284f36a0a510bcacf39ecf4c4d54f", 207),
    "mat": Weights(f"{SANSTER}add_mat/Places_512_FullData_G.pth", "md5:8ca927835fa3f5e21d65ffcb165377ed"),
    "fcf": Weights(f"{SANSTER}add_fcf/places_512_G.pth", "md5:3323152bc01bf1c56fd8aba74435a211"),
    "migan": Weights(f"{SANSTER}migan/migan_traced.pt", "md5:76eb3b1a71c400ee3290524f7a11b89c", 29),
}

# By the names that IOPaint itself gives them, where it has one.
OF_PLUGINS = {
    "realesr-general-x4v3": Weights(
        f"{ESRGAN}v0.2.5.0/realesr-general-x4v3.pth",
        "sha256:8dc7edb9ac80ccdc30c3a5dca6616509367f05fbc184ad95b731f05bece96292",
        5,
    ),
    "RealESRGAN_x4plus": Weights(
        f"{ESRGAN}v0.1.0/RealESRGAN_x4plus.pth",
        "sha256:4fa0d38905f75ac06eb49a7951b426670021be3018265fd191d2125df9d682f1",
        68,
    ),
    "RealESRGAN_x4plus_anime_6B": Weights(
        f"{ESRGAN}v0.2.2.4/RealESRGAN_x4plus_anime_6B.pth",
        "sha256:f872d837d3c90ed2e05227bed711af5671a6fd1c9f7d7e91c911a61f155e99da",
        18,
    ),
    "GFPGANv1.4": Weights(
        f"{GFPGAN}v1.3.0/GFPGANv1.4.pth", "sha256:e2cd4703ab14f4d01fd1383a8a8b266f9a5833dacee8e6a79d3bf21a1b6be5ad", 349
    ),
    "RestoreFormer": Weights(f"{GFPGAN}v1.3.4/RestoreFormer.pth", "md5:eaeeff6c4a1caa1673977cb374e6f699"),
    # Those two are loaded by GFPGAN and RestoreFormer, without any checksum in IOPaint.
    "detection_Resnet50_Final": Weights(
        f"{FACEXLIB}v0.1.0/detection_Resnet50_Final.pth",
        "sha256:6d1de9c2944f2ccddca5f5e010ea5ae64a39845a86311af6fdf30841b0a5a16d",
        110,
    ),
    "parsing_parsenet": Weights(
        f"{FACEXLIB}v0.2.2/parsing_parsenet.pth",
        "sha256:3d558d8d0e42c20224f13cf5a29c79eba2d59913419f945545d8cf7b72920de2",
        86,
    ),
    "isnetis": Weights(f"{SANSTER}isnetis/isnetis.pth", "md5:5f25479076b73074730ab8de9e8f2051"),
    "vit_b": Weights(
        f"{META}/sam_vit_b_01ec64.pth", "sha256:ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912", 376
    ),
    "vit_l": Weights(
        f"{META}/sam_vit_l_0b3195.pth", "sha256:3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622", 1250
    ),
    "vit_h": Weights(
        f"{META}/sam_vit_h_4b8939.pth", "sha256:a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e", 2565
    ),
    "mobile_sam": Weights(f"{SANSTER}MobileSAM/mobile_sam.pt", "md5:f3c0d8cda613564d499310dab6c812cd", 41),
    "sam_hq_vit_b": Weights(f"{HQ_SAM}sam_hq_vit_b.pth", "md5:c6b8953247bcfdc8bb8ef91e36a6cacc", 380),
    "sam_hq_vit_l": Weights(f"{HQ_SAM}sam_hq_vit_l.pth", "md5:08947267966e4264fb39523eccc33f86", 1260),
    "sam_hq_vit_h": Weights(f"{HQ_SAM}sam_hq_vit_h.pth", "md5:3560f6b6a5a6edacd814a1325c39640a", 2580),
    "sam2_tiny": Weights(f"{META}_2/072824/sam2_hiera_tiny.pt", "md5:99eacccce4ada0b35153d4fd7af05297", 156),
    "sam2_small": Weights(f"{META}_2/072824/sam2_hiera_small.pt", "md5:7f320dbeb497330a2472da5a16c7324d", 185),
    "sam2_base": Weights(f"{META}_2/072824/sam2_hiera_base_plus.pt", "md5:09dc5a3d7719f64aaea1d37341ef26f2", 324),
    "sam2_large": Weights(f"{META}_2/072824/sam2_hiera_large.pt", "md5:08083462423be3260cd6a5eef94dc01c", 898),
    "sam2_1_tiny": Weights(
        f"{META}_2/092824/sam2.1_hiera_tiny.pt",
        "sha256:7402e0d864fa82708a20fbd15bc84245c2f26dff0eb43a4b5b93452deb34be69",
        157,
    ),
    "sam2_1_small": Weights(
        f"{META}_2/092824/sam2.1_hiera_small.pt",
        "sha256:6d1aa6f30de5c92224f8172114de081d104bbd23dd9dc5c58996f0cad5dc4d38",
        185,
    ),
    "sam2_1_base": Weights(
        f"{META}_2/092824/sam2.1_hiera_base_plus.pt",
        "sha256:a2345aede8715ab1d5d31b4a509fb160c5a4af1970f199d9054ccfb746c004c5",
        324,
    ),
    "sam2_1_large": Weights(
        f"{META}_2/092824/sam2.1_hiera_large.pt",
        "sha256:2647878d5dfa5098f2f8649825738a9345572bae2d4350a2468587ece47dd318",
        899,
    ),
    "u2net": _rembg("u2net", "sha256:8d10d2f3bb75ae3b6d527c77944fc5e7dcd94b29809d47a739a7a728a912b491", 176),
    "u2netp": _rembg("u2netp", "sha256:309c8469258dda742793dce0ebea8e6dd393174f89934733ecc8b14c76f4ddd8", 5),
    "u2net_human_seg": _rembg("u2net_human_seg", "sha256:01eb6a29a5c4d8edb30b56adad9bb3a2a0535338e480724a213e0acfd2d1c73c", 176),
    "u2net_cloth_seg": _rembg("u2net_cloth_seg", "md5:2434d1f3cb744e0e49386c906e5a08bb", 177),
    "silueta": _rembg("silueta", "md5:55e59e0d8062d2f5d013f4725ee84782", 45),
    "isnet-general-use": _rembg(
        "isnet-general-use", "sha256:60920e99c45464f2ba57bee2ad08c919a52bbf852739e96947fbb4358c0d964a", 179
    ),
    "birefnet-general": _rembg(
        "birefnet-general",
        "sha256:58f621f00f5d756097615970a88a791584600dcf7c45b18a0a6267535a1ebd3c",
        973,
        "BiRefNet-general-epoch_244",
    ),
    "birefnet-general-lite": _rembg(
        "birefnet-general-lite",
        "sha256:5600024376f572a557870a5eb0afb1e5961636bef4e1e22132025467d0f03333",
        225,
        "BiRefNet-general-bb_swin_v1_tiny-epoch_232",
    ),
    "birefnet-portrait": _rembg(
        "birefnet-portrait",
        "sha256:1ba1c8ff5a7bbfadc8d8d13fb11d7be793f91f23d9d466549e37a854f6668f99",
        973,
        "BiRefNet-portrait-epoch_150",
    ),
    "birefnet-dis": _rembg("birefnet-dis", "md5:2d4d44102b446f33a4ebb2e56c051f2b", 973, "BiRefNet-DIS-epoch_590"),
    "birefnet-hrsod": _rembg("birefnet-hrsod", "md5:c017ade5de8a50ff0fd74d790d268dda", 973, "BiRefNet-HRSOD_DHU-epoch_115"),
    "birefnet-cod": _rembg("birefnet-cod", "md5:f6d0d21ca89d287f17e7afe9f5fd3b45", 973, "BiRefNet-COD-epoch_125"),
    "birefnet-massive": _rembg(
        "birefnet-massive", "md5:33e726a2136a3d59eb0fdf613e31e3e9", 973, "BiRefNet-massive-TR_DIS5K_TR_TEs-epoch_420"
    ),
}
WEIGHTS = {**ERASE, **OF_PLUGINS}

# Models of plugins that are repositories of a hub, as entries of iopaint_models. The commit of RMBG-1.4 has the model.pth whose
# SHA-256 sum is 893c16c340b1ddafc93e78457a4d94190da9b7179149f8574284c83caebf5e8c (177 MB). RMBG-2.0 is gated.
REPOSITORIES = {
    "briaai/RMBG-1.4": {
        "hub": "briaai/RMBG-1.4",
        "revision": "2ceba5a5efaec153162aedea169f76caf9b46cf8",
        "files": ["model.pth"],
    },
    "briaai/RMBG-2.0": {"hub": "briaai/RMBG-2.0", "files": ["config.json", "model.safetensors"]},
}


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
OF_REMBG = tuple(name for name, weights in OF_PLUGINS.items() if weights.url.startswith(REMBG))
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


# Offloaded: as measured for 512 x 512 by the notes of IOPaint 0.33.0. Else the weights as the hub lists them (2.1 GB in float16)
# and 1 GB to compute in: docs/benchmarks.md has 0.1 GB beside the weights for the network, and decoding takes more.
SD15 = Need(3.0, 5.3, 2.0, 3.0)
# In one go: as diffusers measured for 1024 x 1024 (sayakpaul/sample-datasets on the hub, sdxl-fast, bfloat16 and float32).
# Offloaded: the largest part, the network (5.1 and 10.3 GB as the hub lists it), and 2 GB that computing took beyond the weights.
SDXL = Need(9.0, 16.9, 7.1, 12.3)
# docs/benchmarks.md, up to 2048 x 2048. An erase model knows neither float16 nor offloading.
LAMA = Need(0.9, 0.9)
GPU_MEMORY = {
    **dict.fromkeys(("lama", "anime-lama"), LAMA),
    **dict.fromkeys(
        (
            "stable-diffusion-v1-5/stable-diffusion-inpainting",
            "stable-diffusion-v1-5/stable-diffusion-v1-5",
            "Uminosachi/realisticVisionV51_v51VAE-inpainting",
            "redstonehero/dreamshaper-inpainting",
            "Sanster/anything-4.0-inpainting",
        ),
        SD15,
    ),
    **dict.fromkeys(
        (
            "diffusers/stable-diffusion-xl-1.0-inpainting-0.1",
            "stabilityai/stable-diffusion-xl-base-1.0",
            "RunDiffusion/Juggernaut-XI-v11",
            "SG161222/RealVisXL_V5.0",
            "eienmojiki/Anything-XL",
        ),
        SDXL,
    ),
}
