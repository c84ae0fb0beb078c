"""The arms: what labels are used for, and in which of the two phases."""

from dataclasses import dataclass

from nsync.supcon import contrast
from nsync.supcon.contrast import Weights

NOTHING, SUPCON, INTER, INNER = contrast.NONE, contrast.SUPCON, "supcon inter", "supcon inner"
CONTRASTS = (contrast.CLASSIFIER, contrast.UNICL, contrast.NT_XENT, INTER, INNER, SUPCON)
"""What an arm may use labels for: a classifier (cross-entropy), what the paper and its predecessor
compare with, and the method with its terms between modalities only, within them only, and both."""

PRETRAINING, GAN, BOTH = PHASES = ("pretraining only", "GAN only", "both")


@dataclass(frozen=True)
class Arm:
    """A use of labels in each phase; each is "none" or one of `CONTRASTS`."""

    pretraining: str
    gan: str

    @property
    def name(self) -> str:
        """`none`, `supcon, both`, `unicl, GAN only`."""
        if self.pretraining == self.gan:
            return self.gan if self.gan == NOTHING else f"{self.gan}, {BOTH}"
        if self.gan == NOTHING:
            return f"{self.pretraining}, {PRETRAINING}"
        return f"{self.gan}, {GAN}"


BASELINE = Arm(NOTHING, NOTHING)


def arm_of(use: str, phase: str) -> Arm:
    """The arm that uses labels so in a phase."""
    return Arm(NOTHING if phase == GAN else use, NOTHING if phase == PRETRAINING else use)


def kind_of(use: str) -> str:
    """One of `nsync.supcon.contrast.CONTRASTS`."""
    return SUPCON if use in (INTER, INNER) else use


def pretraining_weights(use: str, total: float) -> Weights:
    """Of the four terms, which sum up to the same in every arm."""
    if use == INTER:
        return Weights(0.0, 0.0, total / 2, total / 2)
    if use == INNER:
        return Weights(total / 2, total / 2, 0.0, 0.0)
    return Weights(*[total / 4] * 4)


def gan_weights(use: str, total: float) -> Weights:
    """Likewise; texts among themselves say nothing to a generator."""
    if use == INTER:
        return Weights(0.0, 0.0, total / 2, total / 2)
    if use == INNER:
        return Weights(total, 0.0, 0.0, 0.0)
    return Weights(total / 2, 0.0, total / 4, total / 4)
