"""One gradient per branch: of the mean denoising loss on positives, on negatives, on anchors.

All branches go through the network together. Each branch has a copy of the trained weights of its
own for that pass (see `nsync.flat`), so that one backward leaves their gradients apart: as one
would find them in three passes, with the work of one large batch. A pass may hold any part of a
step's pictures, down to one picture of one branch; gradients add up over the passes of a step.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext

import torch
from torch import Tensor

from . import overwritten
from .adapters import FusedError
from .branches import Batch, BranchResult
from .denoiser import Denoiser
from .errors import InputError
from .memory import OutOfMemoryError, free_memory, is_out_of_memory, release_memory
from .overwritten import OverwrittenError
from .prompts import Prompts, to
from .settings import AUTO, FUSED, SEQUENTIAL, TrainSettings
from .trained import Trained

logger = logging.getLogger(__name__)

Piece = dict[str, list[int]]
"""Rows of the batches, by branch: what goes through the network in one pass."""


class BranchPasses:
    """The gradient of each branch by itself.

    Nothing is left in `.grad`, so no branch can leak into another. Where memory runs out, the
    passes get smaller until one picture of one branch is left, then activations are computed again
    instead of kept: the same mathematics, however little room there is.

    Args:
        prompts: gives the conditioning of the batches' prompts.
        stack: takes what has to be undone when the run ends.
        form: how an earlier part of this run did it (see `form`).
        count: processes that share each batch.
    """

    def __init__(
        self,
        settings: TrainSettings,
        denoiser: Denoiser,
        trained: Trained,
        prompts: Prompts,
        stack: ExitStack,
        form: Mapping[str, object] | None = None,
        count: int = 1,
    ) -> None:
        self._settings, self._denoiser, self._trained = settings, denoiser, trained
        self._at_once = math.ceil(settings.batch / count)
        self._prompts, self._stack = prompts, stack
        self._checkpointing = False
        self._saving = overwritten.watched
        self._branches, self._most = settings.branches, 0
        if form is not None:
            self._most = int(form["most"])
            self._branches = form["branches"] if settings.branches == AUTO else settings.branches
        if settings.checkpointing or (form is not None and form["checkpointing"]):
            self._checkpoint()

    @property
    def form(self) -> dict[str, object]:
        """How the passes are made now: a run that is resumed goes on in the same way."""
        return {
            "branches": self._branches,
            "most": self._most,
            "checkpointing": self._checkpointing,
        }

    def __call__(self, batches: Mapping[str, Batch]) -> dict[str, BranchResult]:
        """Losses and gradients of the branches, by name.

        Raises:
            OutOfMemoryError: not even one picture of one branch fits.
            InputError: the network does not let its branches go together, and `branches` is
                "fused"; or an operation of it has no gradient.
        """
        if self._branches == AUTO:
            return self._choose(batches)
        while True:
            try:
                return self._step(batches)
            except FusedError as error:
                reason = self._apart(error)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                reason = self._smaller(batches, error)
            # Only here, with the exception gone, are the failed pass's activations free.
            release_memory(self._denoiser.device)
            logger.warning(reason)

    def _choose(self, batches: Mapping[str, Batch]) -> dict[str, BranchResult]:
        """Pass one branch after the other once, and see whether all would fit together."""
        device, self._branches = self._denoiser.device, SEQUENTIAL
        if device.type != "cuda" or len(batches) == 1:
            # On a CPU the room is main memory, and a pass that fails falls back by itself.
            self._branches = FUSED
            logger.info("Branches: fused")
            return self(batches)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        results = self(batches)
        needed = len(batches) * (torch.cuda.max_memory_allocated(device) - before)
        free = free_memory(device)
        self._branches = FUSED if needed < 0.9 * free else SEQUENTIAL
        gigabytes = f"{needed / 1e9:.1f} GB for all together, {free / 1e9:.1f} GB free"
        logger.info("Branches: %s (%s)", self._branches, gigabytes)
        return results

    def _apart(self, error: FusedError) -> str:
        if self._settings.branches == FUSED:
            remedy = "Set `branches` to auto or sequential."
            raise InputError("branches", "a network that allows 'fused'", str(error), remedy)
        self._branches = SEQUENTIAL
        return f"{error}: the branches go through the network one after the other from now on"

    def _smaller(self, batches: Mapping[str, Batch], error: Exception) -> str:
        largest = max(sum(map(len, piece.values())) for piece in self._pieces(batches))
        if largest > 1:
            self._most = (largest + 1) // 2
            return f"Out of memory: at most {self._most} pictures go through at once from now on"
        if not self._checkpointing:
            self._checkpoint()
            return "Out of memory with one picture: activations are computed again from now on"
        raise OutOfMemoryError(
            "One picture of one branch does not fit into memory, with checkpointing. Lower the "
            "style set's resolution, set precision to bf16, choose fewer layers or a lower rank, "
            "or close what else uses the device."
        ) from error

    def _checkpoint(self) -> None:
        self._stack.enter_context(self._denoiser.checkpointing())
        self._checkpointing = True

    def _step(self, batches: Mapping[str, Batch]) -> dict[str, BranchResult]:
        losses: dict[str, dict[int, Tensor]] = {name: {} for name in batches}
        gradients: dict[str, list[Tensor]] = {}
        for piece in self._pieces(batches):
            found, leaves = self._pass(batches, piece)
            for place, (name, rows) in enumerate(piece.items()):
                # Not into one tensor by the list of rows: with that a GPU would be waited for.
                losses[name] |= zip(rows, found[place], strict=True)
                new = [leaf[place] for leaf in leaves]
                old = gradients.get(name)
                gradients[name] = torch._foreach_add(old, new) if old else new
        in_order = {n: [each[row] for row in sorted(each)] for n, each in losses.items()}
        return {n: BranchResult(torch.stack(in_order[n]), gradients[n]) for n in batches}

    def _pieces(self, batches: Mapping[str, Batch]) -> list[Piece]:
        """The passes of a step: pictures of one size and prompts of one shape in each."""
        groups: dict[object, list[tuple[int, str]]] = {}
        for name, batch in batches.items():
            for row, latents in enumerate(batch.latents):
                key = [latents.shape, self._prompts.shape(batch.prompts[row])]
                key += [name] if self._branches == SEQUENTIAL else []
                groups.setdefault(tuple(key), []).append((row, name))
        together = 1 if self._branches == SEQUENTIAL else len(batches)
        most = min(self._most or len(batches) * 10**9, self._at_once * together)
        pieces = []
        for members in groups.values():
            members.sort(key=lambda member: member[0])  # the same rows of all branches together
            for start in range(0, len(members), most):
                part = members[start : start + most]
                names = [name for name in batches if any(name == other for _, other in part)]
                pieces.append({n: [row for row, other in part if other == n] for n in names})
        return pieces

    def _pass(
        self, batches: Mapping[str, Batch], piece: Piece
    ) -> tuple[list[Tensor], Sequence[Tensor]]:
        """Losses by branch, and the gradients `[branches, n]` of each kind of weights."""
        try:
            found = self._forward_and_backward(batches, piece)
        except OverwrittenError:
            logger.info("The network overwrites its activations: they are copied from now on")
            self._saving = overwritten.copied
        else:
            # Most networks need neither; but what text encoders save depends on the prompts.
            if self._saving is overwritten.watched and not self._prompts.live:
                self._saving = nullcontext
            return found
        # Only here, with the exception gone, are the failed pass's activations free.
        return self._forward_and_backward(batches, piece)

    def _forward_and_backward(
        self, batches: Mapping[str, Batch], piece: Piece
    ) -> tuple[list[Tensor], Sequence[Tensor]]:
        counts = [len(rows) for rows in piece.values()]
        pairs = [(batches[name], row) for name, rows in piece.items() for row in rows]
        device, times = self._denoiser.device, torch.stack([b.times[row] for b, row in pairs])
        shares = to(times.new_tensor([1 / len(batch.names) for batch, _ in pairs]), device)
        if self._settings.min_snr:
            shares = shares * to(self._denoiser.min_snr(times, self._settings.min_snr), device)
        with self._trained.copied(len(piece)) as leaves, self._arithmetic():
            latents = to(torch.stack([batch.latents[row] for batch, row in pairs]), device)
            noise = to(torch.stack([batch.noise[row] for batch, row in pairs]), device)
            with self._trained.rows.of(counts):
                with self._saving():
                    conditioning = self._conditioning(batches, piece)
                    losses = self._denoiser.loss(latents, conditioning, noise, times).float()
                found = _gradients((losses * shares).sum(), leaves)
        return losses.detach().split(counts), found

    def _conditioning(self, batches: Mapping[str, Batch], piece: Piece) -> list:
        conditioning = []
        for place, (name, rows) in enumerate(piece.items()):
            with self._trained.branch(place, len(piece)):
                conditioning += self._prompts([batches[name].prompts[row] for row in rows])
        return conditioning

    def _arithmetic(self) -> AbstractContextManager:
        if self._settings.precision == "bf16":
            return torch.amp.autocast(self._denoiser.device.type, torch.bfloat16)
        return nullcontext()


def _gradients(total: Tensor, leaves: Sequence[Tensor]) -> Sequence[Tensor]:
    if not total.requires_grad:  # an embedding, and the words dropped from every prompt
        return [torch.zeros_like(leaf) for leaf in leaves]
    try:
        return torch.autograd.grad(total, leaves, materialize_grads=True)
    except RuntimeError as error:
        if "no autograd formula" not in str(error):
            raise
        raise InputError(
            "model",
            "an architecture whose operations all have a gradient",
            f"one that was written for drawing alone ({str(error).partition('. ')[0]})",
            "Choose another base; a later ComfyUI may train this one.",
        ) from error
