"""The transformers behind the encoders, built from a file's tensors: CLIP's towers and DINOv2.

Every builder takes its sizes from the tensors and refuses what is not the network it was asked
for. The weights are the file's own tensors: nothing is initialised first and nothing is copied.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    Dinov2Config,
    Dinov2Model,
)

from ..errors import InputError
from .layouts import Tensors, dino_positions, dinov2_as_in, exactly

HEAD = 64
"""Width of one attention head in all of these transformers."""


@dataclass(frozen=True)
class Sizes:
    """What tells one vision transformer from another; `side` is the picture's, in pixels."""

    width: int
    layers: int
    patch: int
    side: int

    def __str__(self) -> str:
        return (
            f"{self.layers} layers of width {self.width}, {self.patch} px patches, {self.side} px"
        )


_FIRST_LAYER = "encoder.layers.0.mlp.fc1.weight"

VIT_L_14, VIT_L_14_336 = Sizes(1024, 24, 14, 224), Sizes(1024, 24, 14, 336)
DINO_B, DINO_L = Sizes(768, 12, 14, 518), Sizes(1024, 24, 14, 518)
DINO_SIDE = 224


class ClipVision(nn.Module):
    """A CLIP vision tower: pixels `[n, 3, s, s]` to projected features `[n, d]`, not normalised."""

    def __init__(self, tensors: Tensors, known: Sequence[Sizes], name: str) -> None:
        super().__init__()
        sizes = _clip_sizes(tensors, name)
        _want(sizes, known, name)
        self.width = _shape(tensors, "visual_projection.weight", name)[0]
        config = CLIPVisionConfig(
            hidden_size=sizes.width,
            intermediate_size=_shape(tensors, f"vision_model.{_FIRST_LAYER}", name)[0],
            num_hidden_layers=sizes.layers,
            num_attention_heads=sizes.width // HEAD,
            image_size=sizes.side,
            patch_size=sizes.patch,
            projection_dim=self.width,
            hidden_act="quick_gelu",
        )
        with torch.device("meta"):
            self.model = CLIPVisionModelWithProjection(config)
        fill(self.model, tensors, name, "a CLIP vision tower with its projection")
        _positions(self.model)
        assert_quick_gelu(self.model)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.model(pixel_values=pixels).image_embeds


class ClipText(nn.Module):
    """A CLIP text tower: tokens `[n, 77]` and their mask to projected features `[n, d]`."""

    def __init__(self, tensors: Tensors, name: str) -> None:
        super().__init__()
        self.words, width = _shape(tensors, "text_model.embeddings.token_embedding.weight", name)
        self.width = _shape(tensors, "text_projection.weight", name)[0]
        self.tokens = _shape(tensors, "text_model.embeddings.position_embedding.weight", name)[0]
        config = CLIPTextConfig(
            vocab_size=self.words,
            hidden_size=width,
            intermediate_size=_shape(tensors, f"text_model.{_FIRST_LAYER}", name)[0],
            num_hidden_layers=_count(tensors, "text_model.encoder.layers."),
            num_attention_heads=width // HEAD,
            max_position_embeddings=self.tokens,
            projection_dim=self.width,
            hidden_act="quick_gelu",
            bos_token_id=self.words - 2,  # the last two words of CLIP's vocabulary
            eos_token_id=self.words - 1,
        )
        with torch.device("meta"):
            self.model = CLIPTextModelWithProjection(config)
        fill(self.model, tensors, name, "a CLIP text tower with its projection")
        _positions(self.model)
        assert_quick_gelu(self.model)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return self.model(input_ids=tokens, attention_mask=mask).text_embeds


class Dino(nn.Module):
    """DINOv2: pixels `[n, 3, 224, 224]` to the normalised class token `[n, d]`."""

    def __init__(self, tensors: Tensors, known: Sequence[Sizes], name: str) -> None:
        super().__init__()
        sizes = _dino_sizes(tensors, name)
        _want(sizes, known, name)
        self.width = sizes.width
        config = Dinov2Config(
            hidden_size=sizes.width,
            num_hidden_layers=sizes.layers,
            num_attention_heads=sizes.width // HEAD,
            image_size=DINO_SIDE,
            patch_size=sizes.patch,
        )
        with torch.device("meta"):
            self.model = Dinov2Model(config)
        key = "embeddings.position_embeddings"
        here = tensors | {key: dino_positions(tensors[key], DINO_SIDE // sizes.patch)}
        fill(self.model, dinov2_as_in(here, self.model.state_dict()), name, "a DINOv2 file")

    def forward(self, pixels: Tensor) -> Tensor:
        return self.model(pixel_values=pixels).pooler_output


def assert_quick_gelu(model: nn.Module) -> None:
    """Make sure of `x * sigmoid(1.702 x)`: with plain GELU all keys fit, and all scores are off.

    Raises:
        RuntimeError: transformers gave the tower another activation.
    """
    probe = torch.linspace(-4, 4, 33)
    wanted = probe * torch.sigmoid(1.702 * probe)
    for module in model.modules():
        activation = getattr(module, "activation_fn", None)
        if activation is not None and not torch.allclose(activation(probe), wanted, atol=1e-6):
            raise RuntimeError(f"a CLIP tower needs QuickGELU, and has {activation}")


def fill(model: nn.Module, tensors: Tensors, name: str, rule: str) -> None:
    """Put a file's tensors in the place of a network's, of equal names and shapes, in float32.

    Raises:
        InputError: keys are missing or left over, or a shape is another one.
    """
    own = model.state_dict()
    exactly(tensors, own, name, rule)
    for key, value in tensors.items():
        if value.shape != own[key].shape:
            shapes = f"{tuple(value.shape)} where {tuple(own[key].shape)} is due"
            raise InputError(name, rule, f"a file with {key} of shape {shapes}")
    single = {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}
    model.load_state_dict(single, assign=True)
    model.eval().requires_grad_(False)


def _positions(model: nn.Module) -> None:
    """Make the one buffer that is in no file: 0, 1, 2, ..."""
    for module in model.modules():
        if hasattr(module, "position_ids"):
            count = module.position_embedding.num_embeddings
            module.position_ids = torch.arange(count).expand(1, -1)


def _clip_sizes(tensors: Tensors, name: str) -> Sizes:
    width, _, patch, _ = _shape(tensors, "vision_model.embeddings.patch_embedding.weight", name, 4)
    key = "vision_model.embeddings.position_embedding.weight"
    side = patch * round((_shape(tensors, key, name)[0] - 1) ** 0.5)
    return Sizes(width, _count(tensors, "vision_model.encoder.layers."), patch, side)


def _dino_sizes(tensors: Tensors, name: str) -> Sizes:
    key = "embeddings.patch_embeddings.projection.weight"
    width, _, patch, _ = _shape(tensors, key, name, 4)
    positions = _shape(tensors, "embeddings.position_embeddings", name, 3)[1] - 1
    layers = _count(tensors, "encoder.layer.")
    return Sizes(width, layers, patch, patch * round(positions**0.5))


def _shape(tensors: Tensors, key: str, name: str, dimensions: int = 2) -> torch.Size:
    if key not in tensors or tensors[key].ndim != dimensions:
        raise InputError(name, f"a file with {key} in {dimensions} dimensions", "one without")
    return tensors[key].shape


def _count(tensors: Tensors, prefix: str) -> int:
    """How many numbered blocks there are."""
    return len(
        {key.removeprefix(prefix).split(".")[0] for key in tensors if key.startswith(prefix)}
    )


def _want(found: Sizes, known: Sequence[Sizes], name: str) -> None:
    if found not in known:
        raise InputError(name, " or ".join(map(str, known)), f"another network: {found}")
