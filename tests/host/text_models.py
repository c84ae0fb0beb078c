"""The families' own text encoders with small dimensions, on sockets that fit them; what a graph
trains with them.

Imported inside the host's process only.
"""

from pathlib import Path

import architectures
import comfy.sd
import comfy.sd1_clip
import comfy.sdxl_clip
import comfy.supported_models
import folder_paths
import small_models
import torch
import trainer_graph
from comfy.supported_models_base import ClipTarget
from comfy.text_encoders import flux, sd3_clip
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

FAMILIES = ("SD15", "SDXL", "SD3", "Flux")
_CLIP = {**small_models.TEXT, "num_hidden_layers": 3}  # the last but one is read, not the first
_T5 = {"d_ff": 64, "d_kv": 8, "d_model": 32, "num_heads": 4, "num_layers": 2}
_SIZES = {
    "clip_l_model_config": _CLIP,
    "clip_g_model_config": _CLIP,
    "t5xxl_model_config": _T5,
}


def clip(family):
    """The CLIP of a family, in float32; `embedding:name` in a prompt finds the host's embeddings.

    SD3's is without its T5, as Dual CLIP Loader makes it: the tokenizer has three kinds of tokens,
    and two are read. The width of its T5 cannot be chosen.
    """
    tokenizer, model = {
        "SD15": (comfy.sd1_clip.SD1Tokenizer, comfy.sd1_clip.SD1ClipModel),
        "SDXL": (comfy.sdxl_clip.SDXLTokenizer, comfy.sdxl_clip.SDXLClipModel),
        "SD3": (sd3_clip.SD3Tokenizer, sd3_clip.sd3_clip(t5=False)),
        "Flux": (flux.FluxTokenizer, flux.flux_clip(torch.float32)),
    }[family]
    made = comfy.sd.CLIP(
        ClipTarget(tokenizer, model),
        embedding_directory=folder_paths.get_folder_paths("embeddings"),
        model_options=_SIZES | {"dtype": torch.float32},
    )
    small_models.fill(made.cond_stage_model, 1)
    return made


def sockets(host, family):
    """What a graph has on the trainer's sockets, the text encoders being the family's own.

    Not for SD3: what they say is wider than its small network.
    """
    config = dict(architectures.CONFIGS[family])
    if family == "SDXL":
        config["context_dim"] = 2 * architectures.TEXT
    made = getattr(comfy.supported_models, family)(config)
    made.set_inference_dtype(torch.float32, None)
    model = small_models.patcher(made.get_model({}, "").eval())
    given = {"model": model, "clip": clip(family), "vae": architectures.vae(family)}
    base = host.module("nodes.host.adapter").HostDenoiser(**given).identity
    return given | {"style_set": trainer_graph.style_set(host, base)}


def pipeline(family, clip):
    """diffusers' pipeline of SD15 or SDXL with text encoders alone, of the same weights."""
    words = str(Path(comfy.sd1_clip.__file__).parent / "sd1_tokenizer")
    config = CLIPTextConfig(**_CLIP, projection_dim=architectures.TEXT)
    tokenizer = CLIPTokenizer.from_pretrained(words, model_max_length=77)
    first = _weighted(CLIPTextModel(config), clip.cond_stage_model.clip_l)
    if family == "SD15":
        return StableDiffusionPipeline(
            None, first, tokenizer, None, None, None, None, requires_safety_checker=False
        )
    second = _weighted(CLIPTextModelWithProjection(config), clip.cond_stage_model.clip_g)
    other = CLIPTokenizer.from_pretrained(words, model_max_length=77, pad_token="!")
    return StableDiffusionXLPipeline(
        None, first, second, tokenizer, other, None, None, add_watermarker=False
    )


def _weighted(theirs, ours):
    weights = ours.transformer.state_dict()
    named = {k: weights.get(k, weights.get(f"text_model.{k}")) for k in theirs.state_dict()}
    theirs.load_state_dict(named)
    return theirs.eval()
