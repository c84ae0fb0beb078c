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

from ..nsync.denoiser import Conditioning

Row = dict[str, Tensor]
HostConditioning = list[list[object]]

_TEXT = "cross_attn"
_SIZES = ".sizes"


def encode_prompt(clip: CLIP, text: str) -> Row:
    """The tensors that the host's text encoder makes of a prompt, by the host's own names."""
    states, others = clip.encode_from_tokens_scheduled(clip.tokenize(text))[0]
    row = {_TEXT: states, **others}
    return {name: value for name, value in row.items() if isinstance(value, Tensor)}


def pack(rows: Sequence[Row]) -> dict[str, Tensor]:
    """Rows as tensors `[n, ...]`; where sizes differ, padded, with the true ones beside them."""
    packed = {}
    for name in rows[0]:
        values = [row[name] for row in rows]
        sizes = torch.tensor([value.shape for value in values])
        most = sizes.max(dim=0).values.tolist()
        packed[name] = torch.stack([_padded(value, most) for value in values])
        if (sizes != sizes[0]).any():
            packed[name + _SIZES] = sizes
    return packed


def unpack(conditioning: Conditioning) -> list[Row]:
    """The rows again, each tensor as the host gave it."""
    names = [name for name in conditioning if not name.endswith(_SIZES)]
    return [
        {name: _row(conditioning, name, i) for name in names}
        for i in range(len(conditioning[_TEXT]))
    ]


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


def _padded(value: Tensor, shape: Sequence[int]) -> Tensor:
    if list(value.shape) == list(shape):
        return value
    padded = value.new_zeros(shape)
    padded[tuple(map(slice, value.shape))] = value
    return padded


def _row(conditioning: Conditioning, name: str, i: int) -> Tensor:
    value, sizes = conditioning[name][i], conditioning.get(name + _SIZES)
    return value if sizes is None else value[tuple(map(slice, sizes[i].tolist()))]
