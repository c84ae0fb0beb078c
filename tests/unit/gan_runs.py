"""Short runs of the trainer of GANs, on pictures of 16 px, and what is left of them."""

from dataclasses import replace
from pathlib import Path

import torch
from gan_files import tower
from torch import nn

from nsync.draws import generator
from nsync.runs.parts import TrainResult
from nsync.supcon.gan.adversarial import CROSS_ENTROPY
from nsync.supcon.gan.attn_gan import AttnGan
from nsync.supcon.gan.contract import Family
from nsync.supcon.gan.dm_gan import DmGan
from nsync.supcon.gan.galip import Galip
from nsync.supcon.gan.settings import GanSettings
from nsync.supcon.gan.ssa_gan import SsaGan
from nsync.supcon.gan.training import train
from nsync.supcon.labels import Labels
from nsync.supcon.learner import ModulesLearned
from nsync.supcon.pairs import LabelledPairs
from nsync.supcon.small_encoders import SmallEncoders

SSA_GAN = SsaGan(16, width=2, noise=5, text_width=32, mask_width=3)
GALIP = Galip(
    16, width=2, noise=5, text_width=32, code_width=4, bridge_width=3, seen_width=5, joint_width=4,
    watched=(0, 2), prompted=(1, 2),
)  # fmt: skip
_STAGED = {
    "stages": 2, "width": 2, "discriminator_width": 2, "noise": 5, "text_width": 32,
    "condition_width": 3,
}  # fmt: skip
ATTN_GAN, DM_GAN = AttnGan(16, **_STAGED), DmGan(16, **_STAGED)
QUICK = GanSettings(
    steps=6, batch=4, generator_rate=1e-3, discriminator_rate=2e-3, ema=0.9, warmup=2,
    augmentation="translation and cutout", penalty_every=2, r1_gamma=0.1, match_weight=0.5,
    preview_every=0, save_every=2,
)  # fmt: skip
QUICK_STAGED = replace(QUICK, adversarial=CROSS_ENTROPY, penalty_weight=0.0, r1_gamma=0.0)
"""Of a family with batch normalisation in its discriminators."""
CAPTIONS = ("a red dot", "a blue dot", "one green line", "two lines", "a line of dots", "a red dot")
LABELS = ("dots", "dots", "lines", "lines", "lines", "dots")


def vision() -> nn.Module:
    """A CLIP vision tower of three layers, always the same."""
    return tower(width=8, layers=3, heads=2, side=16, patch=4).float()


def small_encoders() -> SmallEncoders:
    """Untrained, of pictures of 16 px, always the same."""
    return SmallEncoders.fresh(CAPTIONS, 3, image_size=16, width=32).eval().requires_grad_(False)


def small_pairs(labels: tuple[str, ...] = LABELS) -> LabelledPairs:
    """Six pictures of noise with their captions."""
    shape = (len(CAPTIONS), 3, 16, 16)
    pictures = torch.randint(256, shape, generator=generator(0, "pictures"), dtype=torch.uint8)
    names = sorted(set(labels))
    numbers = torch.tensor([names.index(label) for label in labels])
    items = tuple(f"item_{k}" for k in range(len(CAPTIONS)))
    return LabelledPairs(items, CAPTIONS, pictures, Labels(tuple(names), numbers))


def painter(family: Family, tower: nn.Module | None = None) -> nn.Module:
    """A generator that looks at texts, as an untrained one does not; always the same."""
    spread = 0.1 if family.needs_vision else 0.3
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        generator = family.build(tower or vision()).generator
        with torch.no_grad():
            for value in generator.parameters():
                value.add_(spread * torch.randn_like(value))
    return generator.eval()


class Exports:
    """Stands for the writer of files: keeps what it was given, and leaves a file of no content."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.kept = folder, []

    def __call__(self, learned: ModulesLearned, steps: int) -> dict[str, Path]:
        self.kept.append((learned, steps))
        file = self.folder / f"model_{steps}.safetensors"
        file.touch()
        return {"model": file}


def run_gan(
    folder: Path, settings: GanSettings = QUICK, family: Family = SSA_GAN, **given
) -> TrainResult:
    """Train in `folder`/run; `given` replaces what a run is usually given."""
    usual = {"encoders": small_encoders(), "pairs": small_pairs(), "export": Exports(folder)}
    if family.needs_vision:
        usual["vision"] = vision()
    return train(settings, family, folder=folder / "run", **(usual | given))
