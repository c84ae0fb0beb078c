"""One cell: a GAN trained by the library's own loop, and what it paints in the end."""

import logging
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from nsync.draws import derive_seed, seeded
from nsync.runs.log import RunStoppedError
from nsync.supcon.encoders import Encoders
from nsync.supcon.gan.contract import Family
from nsync.supcon.gan.sampler import generate
from nsync.supcon.gan.settings import GanSettings
from nsync.supcon.gan.training import train
from nsync.supcon.learner import AVERAGE, ModulesLearned
from nsync.supcon.pairs import LabelledPairs

from .measure import painted
from .study import CLIP

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trained:
    """What came of a training.

    Attributes:
        weights: of the generator's average.
        steps: made.
        seconds: of CPU time.
    """

    weights: Mapping[str, Tensor]
    steps: int
    seconds: float


def train_gan(
    settings: GanSettings, family: Family, encoders: Encoders, pairs: LabelledPairs
) -> Trained:
    """Train a GAN; of one whose numbers went bad, what it had come to."""
    kept: list[tuple[Mapping[str, Tensor], int]] = []

    def export(learned: ModulesLearned, steps: int) -> dict[str, Path]:
        kept.append((learned[AVERAGE], steps))
        return {}

    begun = time.process_time()
    with tempfile.TemporaryDirectory() as place:
        try:
            vision = _vision(family, encoders)
            train(settings, family, encoders, pairs, Path(place), export, vision=vision)
        except RunStoppedError as error:
            if not kept:
                raise
            logger.warning("Fell apart: %s", error)
    weights, steps = kept[-1]
    return Trained(weights, steps, time.process_time() - begun)


def paint(
    family: Family,
    weights: Mapping[str, Tensor],
    encoders: Encoders,
    captions: list[str],
    seed: int,
) -> Tensor:
    """A picture per caption, uint8 `[n, 3, s, s]`; noise depends on the seed and the place only."""
    with seeded(0, "weights that are replaced"):
        generator = family.build(_vision(family, encoders)).generator
    generator.load_state_dict(weights)
    generator.eval()
    seeds = [derive_seed(seed, "painted", place) for place in range(len(captions))]
    return painted(generate(generator, encoders, captions, seeds, batch=32))


def _vision(family: Family, encoders: Encoders) -> object:
    """The tower that a family thinks with: that of its encoders, as the node has it."""
    if not family.needs_vision:
        return None
    if encoders.kind != CLIP:
        raise ValueError(f"{type(family).__name__} is built on CLIP encoders")
    return encoders.clip.vision_model
