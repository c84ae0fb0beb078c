"""CLIP's vision tower, frozen, as GALIP uses it: looked into, and thought with.

By `CLIP_IMG_ENCODER` and `CLIP_Mapper` of `code/models/GALIP.py` in
github.com/tobran/GALIP (35d0c2f).
Where ours is not theirs:

- Theirs maps pictures to 0..1 twice on their way into CLIP (`transf_to_CLIP_input`), so that CLIP
  sees them pale, in 0.5..1. Here once.
- Theirs brings pictures to CLIP's size by the nearest pixel. Real ones come at 256 px and lose
  every eighth row, painted ones are 224 px and lose none: a mark of what is real. Here bilinearly,
  smoothed where it shrinks; nothing happens at CLIP's own size.
- Theirs calls `train()` on the tower. Here it stays in eval mode whatever its owner does.
- Theirs counts the tower among the generator's weights and saves it with them.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...errors import InputError
from ..clip_encoders import DEVIATION, MEAN


class ClipTower(nn.Module):
    """A frozen tower that goes along with its owner's device, but not into its weights.

    It is in no `state_dict`, and copies of the owner share it. Moving or casting one owner moves it
    for all that share it.

    Args:
        vision: a transformers `CLIPVisionModel` or `CLIPVisionModelWithProjection`; gets frozen.

    Attributes:
        width: of its features.
        grid: patches along a side.
        count: of its layers.

    Raises:
        InputError: no such model.
    """

    def __init__(self, vision: nn.Module | None) -> None:
        super().__init__()
        inner = getattr(vision, "vision_model", vision)
        if not all(hasattr(inner, part) for part in ("embeddings", "pre_layrnorm", "encoder")):
            expected = "a CLIP vision tower (transformers' CLIPVisionModel)"
            raise InputError("vision", expected, type(vision).__name__)
        self._held = (vision.eval().requires_grad_(False),)  # in a tuple: no submodule
        shapes = inner.embeddings
        self.width, self.side = shapes.embed_dim, shapes.image_size
        self.grid, self.count = shapes.image_size // shapes.patch_size, len(inner.encoder.layers)

    @property
    def _tower(self) -> nn.Module:
        return getattr(self._held[0], "vision_model", self._held[0])

    def _apply(self, change: Any, *args: Any, **kwargs: Any) -> nn.Module:
        self._held[0]._apply(change, *args, **kwargs)
        return super()._apply(change, *args, **kwargs)

    def __deepcopy__(self, memo: dict) -> "ClipTower":
        return ClipTower(self._held[0])

    def look(self, images: Tensor, layers: Sequence[int]) -> Tensor:
        """What the layers see in pictures.

        Args:
            images: float `[n, 3, s, s]` in -1..1.
            layers: from 0, ascending.

        Returns:
            `[n, layers, width, grid, grid]`, of the images' dtype.
        """
        tokens = self._enter(self._tower.embeddings.patch_embedding(self._prepared(images)))
        seen = []
        for k, layer in enumerate(self._tower.encoder.layers[: layers[-1] + 1]):
            tokens = _through(layer, tokens)
            if k in layers:
                seen.append(self._places(tokens))
        return torch.stack(seen, 1).to(images.dtype)

    def think(self, maps: Tensor, prompts: Tensor, layers: Sequence[int]) -> Tensor:
        """Patches of nobody's picture, through all layers.

        Args:
            maps: float `[n, width, grid, grid]`, in place of embedded patches.
            prompts: float `[n, layers, width]`: one more token for each of these layers.
            layers: from 0, ascending.

        Returns:
            As `maps`.
        """
        tokens, extra = self._enter(maps), iter(prompts.to(self._dtype).unbind(1))
        for k, layer in enumerate(self._tower.encoder.layers):
            if k in layers:
                tokens = _through(layer, torch.cat([tokens, next(extra)[:, None]], 1))[:, :-1]
            else:
                tokens = _through(layer, tokens)
        return self._places(tokens).to(maps.dtype)

    @property
    def _dtype(self) -> torch.dtype:
        return self._tower.embeddings.patch_embedding.weight.dtype

    def _prepared(self, images: Tensor) -> Tensor:
        size = (self.side, self.side)
        if images.shape[2:] != size:
            images = F.interpolate(images, size=size, mode="bilinear", antialias=True)
        mean, deviation = (images.new_tensor(v)[:, None, None] for v in (MEAN, DEVIATION))
        return ((images / 2 + 0.5 - mean) / deviation).to(self._dtype)

    def _enter(self, maps: Tensor) -> Tensor:
        """Patches `[n, width, grid, grid]` as the first layer takes them, `[n, tokens, width]`."""
        parts = self._tower.embeddings
        patches = maps.to(self._dtype).flatten(2).transpose(1, 2)
        first = parts.class_embedding.expand(len(maps), 1, -1)
        places = parts.position_embedding.weight
        return self._tower.pre_layrnorm(torch.cat([first, patches], 1) + places)

    def _places(self, tokens: Tensor) -> Tensor:
        """The patches of `[n, tokens, width]` as a map, without the class token."""
        return tokens[:, 1:].transpose(1, 2).unflatten(2, (self.grid, self.grid))


def _through(layer: nn.Module, tokens: Tensor) -> Tensor:
    """One layer; by its parts, for its own `forward` changed between versions of transformers."""
    inner, attention = layer.layer_norm1(tokens), layer.self_attn
    heads = (attention.num_heads, attention.head_dim)
    parts = (attention.q_proj, attention.k_proj, attention.v_proj)
    query, key, value = (part(inner).unflatten(2, heads).transpose(1, 2) for part in parts)
    mixed = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
    tokens = tokens + attention.out_proj(mixed)
    return tokens + layer.mlp(layer.layer_norm2(tokens))
