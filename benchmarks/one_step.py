"""A training step by itself: the pieces of `nsync.training.train` without the loop around them.

Imported inside the host's process only.
"""

from contextlib import ExitStack

import torch
from nsync_style.nsync.branches import Batch
from nsync_style.nsync.denoiser import Denoiser
from nsync_style.nsync.learner import Learner
from nsync_style.nsync.optimizers import clip
from nsync_style.nsync.passes import BranchPasses
from nsync_style.nsync.prompts import Prompts
from nsync_style.nsync.rules import needs_anchor, needs_negative, refine_and_read
from nsync_style.nsync.settings import TrainSettings
from nsync_style.nsync.trained import Trained
from torch import Tensor

TOKEN = "ohwx"
_PROMPT = f"a red circle on a blue square in the style of {TOKEN}"


class OneStep:
    """Makes an update at every call, always of the same pictures, with an optimizer that has its
    state already.

    Args:
        latents: of every picture, `[c, h, w]`.
        stack: takes what has to be undone at the end.
    """

    def __init__(
        self,
        settings: TrainSettings,
        denoiser: Denoiser,
        made: Trained,
        latents: Tensor,
        stack: ExitStack,
    ) -> None:
        self._settings, self._made = settings, made
        self._batches = _batches(settings, latents)
        self._learner = Learner(settings, made)
        prompts = Prompts(denoiser, [_PROMPT], settings.trains_text)
        self._passes = BranchPasses(settings, denoiser, made, prompts, stack)
        nothing = [torch.zeros_like(vector) for vector in self._learner.vectors]
        self._learner.step(nothing, 0, torch.tensor(True))

    def __call__(self) -> None:
        settings = self._settings
        branches = self._passes(self._batches)
        gradients = {
            name: self._made.parts(branch.gradients, settings.scope)
            for name, branch in branches.items()
        }
        update, _ = refine_and_read(settings.rule, **gradients, scope=settings.scope)
        clip(update, settings.clip_norm)
        self._learner.step(update, 1, torch.tensor(True))


def branch_names(settings: TrainSettings) -> list[str]:
    """The branches that the rule needs."""
    names = ["positive"]
    names += ["negative"] if needs_negative(settings.rule) else []
    return names + (["anchor"] if needs_anchor(settings.rule) else [])


def _batches(settings: TrainSettings, latents: Tensor) -> dict[str, Batch]:
    count = settings.batch * settings.accumulate
    batch = Batch(
        names=tuple(map(str, range(count))),
        latents=(latents,) * count,
        prompts=(_PROMPT,) * count,
        noise=(torch.randn_like(latents),) * count,
        times=torch.rand(count),
    )
    return dict.fromkeys(branch_names(settings), batch)
