"""Prompts between the host's form (a list of tensors and values) and rows of tensors.

A row keeps the tensors just as the host's text encoder gave them, and the model's own `extra_conds`
turns them into the network's inputs when the size of the picture is known: SDXL's size embedding,
Flux's guidance, and whatever the next family needs, arrive as in the host's sampler.
"""

from collections.abc import Iterator, Mapping, Sequence

import torch
from comfy.conds import CONDRegular
from comfy.model_base import BaseModel
from comfy.samplers import cond_cat, cond_equal_size
from comfy.sd import CLIP
from torch import Tensor

from ...nsync.denoiser import Row
from .words import Tokens

HostConditioning = list[list[object]]

_TEXT = "cross_attn"


def encode_tokens(clip: CLIP, tokens: Tokens) -> dict[str, Tensor]:
    """The tensors that the host's text encoder makes of a prompt, by the host's own names."""
    states, others = clip.encode_from_tokens_scheduled(tokens)[0]
    row = {_TEXT: states, **others}
    return {name: value for name, value in row.items() if isinstance(value, Tensor)}


def encode_loaded(clip: CLIP, tokens: Tokens) -> dict[str, Tensor]:
    """The same of text encoders that lie on their device already, as while they are trained.

    The host asks for room and loads them at every prompt, and might unload what is trained beside.
    """
    model = clip.cond_stage_model
    model.reset_clip_options()
    if clip.layer_idx is not None:
        model.set_clip_options({"layer": clip.layer_idx})
    model.set_clip_options({"execution_device": clip.patcher.load_device})
    states, pooled, *others = model.encode_token_weights(tokens)
    row = {_TEXT: states, "pooled_output": pooled, **(others[0] if others else {})}
    return {name: value for name, value in row.items() if isinstance(value, Tensor)}


def host_conditioning(rows: Sequence[Row]) -> HostConditioning:
    """Rows as the host's CONDITIONING for a batch: picture i is drawn from row i."""
    batch = {name: torch.cat([row[name] for row in rows]) for name in rows[0]}
    return [[batch.pop(_TEXT), {"pooled_output": None, **batch}]]


def can_share_batch(rows: Sequence[Row]) -> bool:
    """Whether one call of the host's sampler can draw a picture from each row.

    Other tensors than these may be read over the whole batch (the masks of Lumina are summed).
    """
    shapes = [{name: value.shape for name, value in row.items()} for row in rows]
    plain = set(rows[0]) <= {_TEXT, "pooled_output"}
    return plain and all(shape == shapes[0] for shape in shapes)


def network_inputs(
    model: BaseModel, rows: Sequence[Row], latents: Tensor
) -> Iterator[tuple[list[int], dict[str, object]]]:
    """What `model.apply_model` takes beside picture and sigma, in batches of rows that fit.

    Yields:
        (places of the rows in the batch, keyword arguments for them).
    """
    prepared = [_prepare(model, row, latents[i : i + 1]) for i, row in enumerate(rows)]
    left = list(range(len(rows)))
    while left:
        batch = [i for i in left if cond_equal_size(prepared[left[0]], prepared[i])]
        yield batch, cond_cat([prepared[i] for i in batch])
        left = [i for i in left if i not in batch]


def _prepare(model: BaseModel, row: Mapping[str, Tensor], latent: Tensor) -> dict[str, CONDRegular]:
    ratio = model.latent_format.spacial_downscale_ratio
    conds = model.extra_conds(
        pooled_output=row.get("pooled_output"),
        **{name: value for name, value in row.items() if name != "pooled_output"},
        noise=latent,
        latent_image=latent,
        device=latent.device,
        width=latent.shape[-1] * ratio,
        height=latent.shape[-2] * ratio,
        prompt_type="positive",
        seed=0,
    )
    return {name: cond.process_cond(batch_size=1, area=None) for name, cond in conds.items()}
