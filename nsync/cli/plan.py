"""What a command would need, for `--dry-run`: of memory, and of the disk."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from ..denoiser import Denoiser
from ..lora_file import LowRank
from ..memory import free_memory
from ..rules import needs_anchor, needs_negative
from ..settings import TrainSettings
from ..style_set import StyleSet
from ..trained import networks, trained, trained_count
from .ready import ready

_MOMENTS = 2  # of AdamW, which needs most


def of_model(denoiser: Denoiser) -> str:
    """The model's parts that are trained through, and where they are."""
    sizes = {name: megabytes(held(module)) for name, module in networks(denoiser).items()}
    told = ", ".join(f"{name} {size}" for name, size in sizes.items())
    return f"Model {denoiser.identity[:12]} on {denoiser.device}: {told}."


def of_training(
    settings: TrainSettings,
    denoiser: Denoiser,
    style_set: StyleSet,
    start: Mapping[str, LowRank] | None,
) -> str:
    """Memory of a step. What a picture keeps for backward is measured, by one forward pass."""
    branches = 1 + needs_negative(settings.rule) + needs_anchor(settings.rule)
    numbers = trained_count(settings, denoiser, start)
    model = sum(map(held, networks(denoiser).values()))
    learner = 4 * numbers * (1 + _MOMENTS + bool(settings.ema) + branches)
    picture = kept_for_backward(settings, denoiser, style_set, start)
    most = model + learner + picture * settings.batch * branches
    least = model + learner + picture
    lines = [
        f"Trained: {numbers:,} numbers; with gradients and optimizer {megabytes(learner)}.",
        f"Kept for backward: {megabytes(picture)} for each picture; {branches} branches of "
        f"{settings.batch}.",
        f"A step: {megabytes(most)} in one pass, {megabytes(least)} where it has to be split.",
        f"There are {megabytes(free_memory(denoiser.device))}."
        if denoiser.device.type == "cuda"
        else "How much main memory is free is for the system to say.",
    ]
    return "\n".join(lines)


def kept_for_backward(
    settings: TrainSettings,
    denoiser: Denoiser,
    style_set: StyleSet,
    start: Mapping[str, LowRank] | None,
) -> int:
    """Bytes that autograd keeps of one picture's pass, weights not counted."""
    item = style_set.items[0]
    width, height = style_set.size(item, denoiser.size_multiple)
    latents = denoiser.encode_images(torch.full((1, 3, height, width), 0.5))
    with ExitStack() as stack:
        stack.enter_context(ready(settings, denoiser))
        made = stack.enter_context(trained(settings, denoiser, style_set.token, start))
        # As in a pass of one branch with one picture.
        stack.enter_context(made.copied(1))
        stack.enter_context(made.rows.of((1,)))
        if settings.checkpointing:
            stack.enter_context(denoiser.checkpointing())
        weights = [w for module in networks(denoiser).values() for w in module.parameters()]
        seen = stack.enter_context(_counted([*weights, *made.groups.values()]))
        rows = denoiser.encode_prompts([style_set.prompt(item)])
        denoiser.loss(latents, rows, torch.zeros_like(latents), torch.tensor([0.5]))
    return sum(seen.values())


def room(folder: Path) -> str:
    """The disk's free space where results go."""
    place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return f"Disk: {megabytes(shutil.disk_usage(place).free)} free for {folder}."


def held(module: nn.Module) -> int:
    """Bytes of a module's weights and buffers."""
    tensors = (*module.parameters(), *module.buffers())
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def megabytes(count: int) -> str:
    """Bytes to be read."""
    return f"{count / 1e6:,.1f} MB"


@contextmanager
def _counted(weights: list[Tensor]) -> Iterator[dict[int, int]]:
    """For the block, bytes by address of all that autograd saves but the weights."""
    known = {weight.untyped_storage().data_ptr() for weight in weights}
    seen: dict[int, int] = {}
    kept: list[Tensor] = []  # or an address would serve twice

    def count(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in known:
            seen[storage.data_ptr()] = storage.nbytes()
            kept.append(value)
        return value

    with saved_tensors_hooks(count, lambda value: value):
        yield seen
