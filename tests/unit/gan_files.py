"""Networks and inputs for GANs, made from names, so that everybody has the same ones.

`scripts/agreement/gans.py` gives the published networks the same weights, and writes what those
made of the inputs into `agreement/gans.json`; the tests give them to ours.
"""

import zlib
from pathlib import Path

import torch
from encoder_files import weights
from torch.nn.utils import parametrize
from transformers import CLIPVisionConfig, CLIPVisionModel

from nsync.supcon.gan.galip import Galip
from nsync.supcon.gan.ssa_gan import SsaGan

FIXTURES = Path(__file__).parent / "agreement" / "gans.json"

COUNT = 3
SSA_GAN = SsaGan(width=4)
GALIP = Galip(width=4)
"""At the pictures' published sizes, for which the published networks are written."""


def normal(name, *shape):
    """Float64, from the name."""
    source = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    return torch.randn(shape, generator=source, dtype=torch.float64)


def noise_and_text(family):
    return normal("noise", COUNT, family.noise), normal("text", COUNT, family.text_width)


def images(size):
    """Waves of different lengths, in -1..1."""
    places = torch.arange(size, dtype=torch.float64) * 224 / size
    lengths = 5 + 3.5 * torch.arange(COUNT * 3, dtype=torch.float64).view(COUNT, 3, 1, 1)
    waves = (places[:, None] / lengths).sin() + (places / (1.7 * lengths) + lengths).cos()
    return waves / 2


def fill(module):
    """The module in float64 with the weights that its names give."""
    made = weights({name: value.shape for name, value in module.state_dict().items()})
    for name in made:
        # As large as what the tower makes of it, or that would be lost in the sum of both.
        if name.startswith("bridge.enter"):
            made[name] /= 1000
    module.double().load_state_dict(made)
    for part in module.modules():
        if parametrize.is_parametrized(part):
            _settle(part.parametrizations.weight)
    return module


def _settle(held):
    """A spectral norm whose power iteration has come to its end."""
    left, _, right = torch.linalg.svd(held.original.detach().flatten(1), full_matrices=False)
    held[0]._u.copy_(left[:, 0])
    held[0]._v.copy_(right[0])


def tower(width=32, layers=12, heads=2, side=224, patch=32):
    """A CLIP vision tower, of the shape of ViT-B/32 but for its width."""
    config = CLIPVisionConfig(
        hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers,
        num_attention_heads=heads, image_size=side, patch_size=patch,
    )  # fmt: skip
    vision = CLIPVisionModel(config)
    # By the inner names, which do not depend on the version of transformers.
    fill(getattr(vision, "vision_model", vision))
    return vision


def columns(values):
    """Some numbers of each row, from all over it."""
    rows = values.detach().double().flatten(1)
    picked = torch.linspace(0, rows.shape[1] - 1, min(12, rows.shape[1])).long()
    return [[float(f"{x:.9g}") for x in row] for row in rows[:, picked].tolist()]
