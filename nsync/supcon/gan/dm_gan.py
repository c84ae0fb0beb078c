"""DM-GAN: pictures in stages, refined through a memory of the words (arXiv 1904.01310).

Structure by `code/model.py` of github.com/MinfengZhu/DM-GAN (d515995), at any width, picture size
and number of stages; with the defaults it is the network for birds of `cfg/bird_DMGAN.yml`, weight
by weight (`scripts/agreement/staged_gans.py`). Where ours is not theirs, beside what `stages` says:

- Their spectral norm goes on with its power iteration when pictures are only judged, in eval mode
  too. Ours is torch's, whose iteration rests in eval mode. Each begins an iteration with the other
  half of it, so they agree where the iteration has come to its end.

Kept, for the published weights have it so: the answer of the memory is given to the refinement
twice, where AttnGAN gives map and words, and what the memory is told of the map (its mean) has no
gradient.

For their COCO: 3 residual blocks. The published loss is AttnGAN's; see there.
"""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from .contract import Networks
from .stages import Staged, StagedGenerator, StageDiscriminator, attend, begin


@dataclass(frozen=True)
class DmGan(Staged):
    """Settings; the defaults are the published ones for birds. See `stages.Staged`."""

    width: int = 64
    discriminator_width: int = 32

    judges_alone: ClassVar[bool] = True

    def build(self, vision: nn.Module | None = None) -> Networks:
        """Untrained networks; see `contract.Family`."""
        self.check()
        generator = StagedGenerator(self, partial(_DynamicMemory, self.text_width, self.width))
        judges = nn.ModuleList(StageDiscriminator(self, side, _layer) for side in self.sides)
        return Networks(generator.apply(begin), judges.apply(begin))


class _DynamicMemory(nn.Module):
    """`NEXT_STAGE_G`'s memory: written word by word, read place by place, through gates."""

    def __init__(self, text: int, width: int) -> None:
        super().__init__()
        self.gate_words = nn.Linear(text, 1, bias=False)
        self.gate_map = nn.Linear(width, 1, bias=False)
        self.write_words = nn.Sequential(nn.Linear(text, 2 * width), nn.ReLU())
        self.write_map = nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU())
        self.key = nn.Sequential(nn.Linear(2 * width, width), nn.ReLU())
        self.value = nn.Sequential(nn.Linear(2 * width, width), nn.ReLU())
        self.response = nn.Sequential(nn.Conv2d(2 * width, 1, 1), nn.Sigmoid())

    def forward(self, maps: Tensor, words: Tensor, mask: Tensor | None) -> Tensor:
        seen = maps.mean((2, 3)).detach()[:, None]
        gate = (self.gate_words(words) + self.gate_map(seen)).sigmoid()
        memory = gate * self.write_words(words) + (1 - gate) * self.write_map(seen)
        read = attend(maps, self.key(memory), self.value(memory), mask)
        response = self.response(torch.cat([maps, read], 1))
        answer = (1 - response) * maps + response * read
        return torch.cat([answer, answer], 1)


def _layer(width: int, out: int, *, halve: bool = False, first: bool = False) -> nn.Sequential:
    """`downBlock` and `Block3x3_leakRelu`, the first one like all."""
    kernel, stride = (4, 2) if halve else (3, 1)
    conv = nn.Conv2d(width, out, kernel, stride, padding=1)
    begin(conv)
    return nn.Sequential(spectral_norm(conv), nn.LeakyReLU(0.2))
