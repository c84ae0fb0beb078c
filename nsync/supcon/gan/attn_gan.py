"""AttnGAN: pictures in stages, each place of which reads at the words (arXiv 1711.10485).

Structure by `code/model.py` of github.com/taoxugit/AttnGAN (0d000e6), at any width, picture size
and number of stages; with the defaults it is the network for birds of `cfg/bird_attn2.yml`, weight
by weight (`scripts/agreement/staged_gans.py`). Where ours is not theirs, `stages` says.

For their COCO: width 48, discriminator width 96, 3 residual blocks.

The published loss is `cross_entropy`'s, the divergence, and DAMSM of the last stage
(`nsync.supcon.words.word_matching` and, of sentences, `nsync.supcon.losses.matching`).
"""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from .contract import Networks
from .stages import Staged, StagedGenerator, StageDiscriminator, attend, begin


@dataclass(frozen=True)
class AttnGan(Staged):
    """Settings; the defaults are the published ones for birds. See `stages.Staged`."""

    judges_alone: ClassVar[bool] = False

    def build(self, vision: nn.Module | None = None) -> Networks:
        """Untrained networks; see `contract.Family`."""
        self.check()
        generator = StagedGenerator(self, partial(_Attention, self.text_width, self.width))
        judges = nn.ModuleList(StageDiscriminator(self, side, _layer) for side in self.sides)
        return Networks(generator.apply(begin), judges.apply(begin))


class _Attention(nn.Module):
    """`GlobalAttentionGeneral`: beside each place what it reads at the words."""

    def __init__(self, text: int, width: int) -> None:
        super().__init__()
        self.words = nn.Linear(text, width, bias=False)

    def forward(self, maps: Tensor, words: Tensor, mask: Tensor | None) -> Tensor:
        known = self.words(words)
        return torch.cat([maps, attend(maps, known, known, mask)], 1)


def _layer(width: int, out: int, *, halve: bool = False, first: bool = False) -> nn.Sequential:
    """`downBlock` and `Block3x3_leakRelu`; the first one is not normalised."""
    kernel, stride = (4, 2) if halve else (3, 1)
    conv = nn.Conv2d(width, out, kernel, stride, padding=1, bias=False)
    norm = [] if first else [nn.BatchNorm2d(out)]
    return nn.Sequential(conv, *norm, nn.LeakyReLU(0.2))
