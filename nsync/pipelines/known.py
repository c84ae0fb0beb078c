"""Bases whose single file says all that their configuration does: SD1 and SDXL, as published.

Their configurations are in `bases/`, without the tokenizer, which both have from CLIP (ViT-L/14).
Stable Diffusion 2 is not among them: its keys do not say whether it predicts v.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from torch import Tensor
from transformers import CLIPTokenizer, PreTrainedTokenizerBase

_BASES = Path(__file__).parent / "bases"
_NETWORK = "model.diffusion_model.input_blocks"
_CONTEXT = "1.transformer_blocks.0.attn2.to_k.weight"
_KNOWN = {
    "stable_diffusion_1": {
        f"{_NETWORK}.0.0.weight": (320, 4, 3, 3),
        f"{_NETWORK}.1.{_CONTEXT}": (320, 768),
        "first_stage_model.decoder.conv_in.weight": (512, 4, 3, 3),
        "cond_stage_model.transformer.text_model.final_layer_norm.weight": (768,),
    },
    "stable_diffusion_xl": {
        f"{_NETWORK}.0.0.weight": (320, 4, 3, 3),
        f"{_NETWORK}.4.{_CONTEXT}": (640, 2048),
        "first_stage_model.decoder.conv_in.weight": (512, 4, 3, 3),
        "conditioner.embedders.0.transformer.text_model.final_layer_norm.weight": (768,),
        "conditioner.embedders.1.model.ln_final.weight": (1280,),
    },
}
"""Shapes by which a file is told, one of each part: a file that lacks a part is not known."""
_OTHERWISE = ("v_pred", "edm_mean")  # SDXL that predicts v; Playground, whose noise is another

_WORDS = ("vocab.json", "merges.txt")
_END, _SECOND = "<|endoftext|>", "tokenizer_2"


def known_base(shapes: Mapping[str, Tensor]) -> Path | None:
    """The configuration's folder of the base that a single file holds; None of any other."""
    shape = {key: tuple(value.shape) for key, value in shapes.items()}
    if any(key in shape for key in _OTHERWISE):
        return None
    for name, wanted in _KNOWN.items():
        if all(shape.get(key) == one for key, one in wanted.items()):
            return _BASES / name
    return None


def clip_words(given: Path | None) -> Path | None:
    """The folder with CLIP's vocabulary: the user's, or that of the ComfyUI around this pack.

    Args:
        given: the folder that the user names; it may hold the files or a folder `tokenizer`.
    """
    return next((place for place in _places(given) if _has_words(place)), None)


def clip_tokenizer(words: Path, part: str) -> PreTrainedTokenizerBase:
    """A pipeline's tokenizer by the part's name.

    SDXL's second encoder was trained with "!" behind the end of a text, CLIP's own with the end.
    """
    padding = "!" if part == _SECOND else _END
    told = {"model_max_length": 77, "pad_token": padding}
    return CLIPTokenizer.from_pretrained(words, local_files_only=True, **told)


def _places(given: Path | None) -> Iterator[Path]:
    if given:
        yield from (given / "tokenizer", given)
    pack = Path(__file__).absolute().parents[2]
    around = pack.parent.parent  # ComfyUI/custom_nodes/<pack>; of a pack in the root the root again
    for comfyui in filter(None, (os.environ.get("COMFYUI_PATH"), around)):
        yield Path(comfyui) / "comfy" / "sd1_tokenizer"


def _has_words(place: Path) -> bool:
    return all((place / name).is_file() for name in _WORDS)
