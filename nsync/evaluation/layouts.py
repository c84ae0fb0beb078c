"""The names that weights go by in the files of different publishers, brought to one.

Every key of a file is accounted for: what is left over, or missing, is an error, for a loader
that shrugs at keys loads another network's file and scores with random weights.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import InputError

Tensors = dict[str, Tensor]

# OpenAI's names (clip/model.py) and those of transformers, for a tower's blocks.
_BLOCK = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}
_VISION = {
    "conv1.weight": "embeddings.patch_embedding.weight",
    "class_embedding": "embeddings.class_embedding",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_pre.weight": "pre_layrnorm.weight",  # the typing error is transformers' own
    "ln_pre.bias": "pre_layrnorm.bias",
    "ln_post.weight": "post_layernorm.weight",
    "ln_post.bias": "post_layernorm.bias",
}
_TEXT = {
    "token_embedding.weight": "embeddings.token_embedding.weight",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_final.weight": "final_layer_norm.weight",
    "ln_final.bias": "final_layer_norm.bias",
}
# Counters and settings that files carry along; no weights of a tower.
_IDLE = re.compile(
    r".*embeddings\.position_ids|logit_scale|input_resolution|context_length|vocab_size"
)
_DINO = {
    "cls_token": "embeddings.cls_token",
    "mask_token": "embeddings.mask_token",
    "pos_embed": "embeddings.position_embeddings",
    "patch_embed.proj.": "embeddings.patch_embeddings.projection.",
    "norm.": "layernorm.",
}
_DINO_BLOCK = {
    "norm1": "norm1",
    "norm2": "norm2",
    "attn.proj": "attention.output.dense",
    "ls1.gamma": "layer_scale1.lambda1",
    "ls2.gamma": "layer_scale2.lambda1",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
# transformers 5 renamed these in the network, not in the published files.
_DINO_5 = {
    "attention.attention.query": "attention.q_proj",
    "attention.attention.key": "attention.k_proj",
    "attention.attention.value": "attention.v_proj",
    "attention.output.dense": "attention.o_proj",
}


@dataclass(frozen=True)
class Towers:
    """CLIP's towers under transformers' names.

    Attributes:
        vision: `vision_model.*` and `visual_projection.weight`.
        text: `text_model.*` and `text_projection.weight`; empty if the file has none.
    """

    vision: Tensors
    text: Tensors


def clip_towers(tensors: Mapping[str, Tensor], name: str) -> Towers:
    """The towers of a CLIP file in the layout of transformers or of OpenAI.

    Raises:
        InputError: no tower at all, or a key that belongs to none; `name` is the file's.
    """
    left = {key: value for key, value in tensors.items() if not _IDLE.fullmatch(key)}
    if "visual.conv1.weight" in left or "token_embedding.weight" in left:
        towers = _openai_towers(left)
    else:
        towers = Towers(_taken(left, "vision_model."), _taken(left, "text_model."))
        for tower, key in (
            (towers.vision, "visual_projection.weight"),
            (towers.text, "text_projection.weight"),
        ):
            if key in left:
                tower[key] = left.pop(key)
    _refuse(left, name, "a CLIP file (names of transformers or of OpenAI)")
    if not towers.vision and not towers.text:
        raise InputError(name, "a CLIP file (names of transformers or of OpenAI)", "another file")
    return towers


def csd_tower(tensors: Mapping[str, Tensor], name: str) -> Tensors:
    """CSD's tower with the style head as its projection, under transformers' names.

    Layouts: the published checkpoint (`module.backbone.conv1.weight`, ...,
    `module.last_layer_style`), the same without `module.`, and ports whose `backbone.` has
    transformers' names. The content head is left out: its author calls it a leftover. A file
    without `last_layer_style` is refused even if it is a tower with a projection, since plain
    CLIP is just that.

    Source: `CSD_CLIP.forward` in `CSD/model.py` of learn2phoenix/CSD: `feature @ last_layer_style`.
    """
    left = {key.removeprefix("module."): value for key, value in tensors.items()}
    style = left.pop("last_layer_style", None)
    if style is None or style.ndim != 2:
        remedy = "A plain CLIP file is not one, and scores otherwise."
        raise InputError(name, "a CSD file, with `last_layer_style`", "one without", remedy)
    left.pop("last_layer_content", None)
    backbone = _taken(left, "backbone.", keep=False)
    backbone = {key: value for key, value in backbone.items() if not _IDLE.fullmatch(key)}
    if "conv1.weight" in backbone:
        tower = _openai_tower(backbone, _VISION, "vision_model.")
    else:
        stripped = {key.removeprefix("vision_model."): value for key, value in backbone.items()}
        tower, backbone = {f"vision_model.{key}": value for key, value in stripped.items()}, {}
    _refuse(left | backbone, name, "a CSD file")
    return tower | {"visual_projection.weight": style.T.contiguous()}


def dinov2(tensors: Mapping[str, Tensor], name: str) -> Tensors:
    """DINOv2 under transformers' names, as the files have them (version 4's).

    Layouts: the authors' (`blocks.0.attn.qkv.weight`) and transformers'.

    Raises:
        InputError: the authors' layout with other keys (of the variant with registers, say).
    """
    left = dict(tensors)
    if "pos_embed" not in left:
        return _renamed(left, {new: old for old, new in _DINO_5.items()})
    found = {}
    for key in list(left):
        found |= _dino_named(key, left)
    _refuse(left, name, "a DINOv2 file")
    return found


def dinov2_as_in(tensors: Tensors, own: Mapping[str, Tensor]) -> Tensors:
    """`dinov2`'s tensors under the names `own` of the network in memory, of version 4 or 5."""
    version_5 = any(".q_proj." in key for key in own)
    return _renamed(tensors, _DINO_5) if version_5 else tensors


def exactly(tensors: Tensors, wanted: Iterable[str], name: str, rule: str) -> None:
    """Refuse tensors under other names than the network's.

    Raises:
        InputError: keys are missing or left over; it names some of them.
    """
    wanted = set(wanted)
    _refuse({key: value for key, value in tensors.items() if key not in wanted}, name, rule)
    missing = sorted(wanted - tensors.keys())
    if missing:
        raise InputError(name, rule, f"a file without {_some(missing)}")


def _openai_towers(left: Tensors) -> Towers:
    visual = _taken(left, "visual.", keep=False)
    vision = _openai_tower(visual, _VISION, "vision_model.")
    if "proj" in visual:
        vision["visual_projection.weight"] = visual.pop("proj").T.contiguous()
    text = _openai_tower(left, _TEXT, "text_model.")
    if "text_projection" in left:
        text["text_projection.weight"] = left.pop("text_projection").T.contiguous()
    left |= {f"visual.{key}": value for key, value in visual.items()}
    return Towers(vision, text)


def _openai_tower(left: Tensors, outer: Mapping[str, str], prefix: str) -> Tensors:
    """Take one tower out of `left`, under transformers' names."""
    found = {prefix + new: left.pop(old) for old, new in outer.items() if old in left}
    for key in list(left):
        match = re.fullmatch(r"transformer\.resblocks\.(\d+)\.(.+)\.?(weight|bias)", key)
        if not match:
            continue
        block, part, kind = f"{prefix}encoder.layers.{match[1]}.", match[2].rstrip("._"), match[3]
        if part == "attn.in_proj":
            for new, piece in zip("qkv", left.pop(key).chunk(3), strict=True):
                found[f"{block}self_attn.{new}_proj.{kind}"] = piece.contiguous()
        elif part in _BLOCK:
            found[f"{block}{_BLOCK[part]}.{kind}"] = left.pop(key)
    return found


def _dino_named(key: str, left: Tensors) -> Tensors:
    """Take one key of the authors' layout out of `left`, under transformers' names."""
    match = re.fullmatch(r"blocks\.(\d+)\.(.+?)(\.weight|\.bias|)", key)
    if not match:
        old = next((old for old in _DINO if key.startswith(old)), None)
        return {} if old is None else {_DINO[old] + key.removeprefix(old): left.pop(key)}
    block, part, kind = f"encoder.layer.{match[1]}.", match[2], match[3]
    if part == "attn.qkv":
        pieces = zip(("query", "key", "value"), left.pop(key).chunk(3), strict=True)
        return {f"{block}attention.attention.{new}{kind}": p.contiguous() for new, p in pieces}
    if part in _DINO_BLOCK:
        return {f"{block}{_DINO_BLOCK[part]}{kind}": left.pop(key)}
    return {}


def dino_positions(embeddings: Tensor, side: int) -> Tensor:
    """DINOv2's position embeddings `[1, 1 + n * n, d]` for a grid of `side` x `side` patches.

    Source: `interpolate_pos_encoding` in `vision_transformer.py` of facebookresearch/dinov2:
    bicubic by a scale factor that is 0.1 patches too large, "a historical kludge" that belongs to
    the published network. transformers leaves the 0.1 away, and its vectors differ.
    """
    first, grid = embeddings[:, :1].float(), embeddings[:, 1:].float()
    known = round(grid.shape[1] ** 0.5)
    if known == side:
        return embeddings
    grid = grid.unflatten(1, (known, known)).permute(0, 3, 1, 2)
    factor = (side + 0.1) / known
    grid = F.interpolate(grid, scale_factor=(factor, factor), mode="bicubic")
    return torch.cat([first, grid.permute(0, 2, 3, 1).flatten(1, 2)], 1).to(embeddings.dtype)


def _taken(left: Tensors, prefix: str, keep: bool = True) -> Tensors:
    """Take what begins with `prefix` out of `left`; without it unless it is to be kept."""
    keys = [key for key in left if key.startswith(prefix)]
    name: Callable[[str], str] = (lambda key: key) if keep else (lambda k: k.removeprefix(prefix))
    return {name(key): left.pop(key) for key in keys}


def _renamed(tensors: Tensors, table: Mapping[str, str]) -> Tensors:
    pattern = re.compile("|".join(map(re.escape, table)))
    return {pattern.sub(lambda m: table[m[0]], key): value for key, value in tensors.items()}


def _refuse(left: Mapping[str, Tensor], name: str, rule: str) -> None:
    if left:
        raise InputError(name, rule, f"a file that also has {_some(sorted(left))}")


def _some(keys: list[str]) -> str:
    shown = ", ".join(keys[:3])
    return shown if len(keys) <= 3 else f"{shown} and {len(keys) - 3} more"
