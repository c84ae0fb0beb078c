"""ComfyUI's own Train LoRA: the node's code as it is, driven on as many pictures per step.

Two things around it differ from a press of its button. Its progress bar is replaced by one that
tells of every step. And where the layers shall be ours, the function that makes its adapters is
shown these layers alone, each without its bias.

With `batch_size` n the host's sampler evaluates every one of the n captions on every one of the n
pictures and averages (n * n evaluations, `comfy.samplers._calc_cond_batch`). The arm "one caption
per picture" puts that right by the host's own hook for it, and is the one to be compared with: as
fast as the host's training can be on n pictures.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace

import comfy.utils
import comfy_extras.nodes_train as nodes_train
import torch
from bases import model
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from nsync_style.nsync.layers import select_layers
from torch import Tensor
from workload import Arm, Workload

BATCHED = "ComfyUI's Train LoRA, one caption per picture"
_LAYERS = "diffusion_model."


def same_layers(work: Workload, bypass: bool) -> Arm:
    """One evaluation per picture, our layers, our rank."""
    how = "bypass mode" if bypass else "weight mode"
    run = partial(_train, work, bypass=bypass, ours_only=True, batched=True)
    return Arm(f"{BATCHED}, {how}", run)


def accumulated(work: Workload) -> Arm:
    """The node's own way to one caption per picture: batch size 1, accumulated."""
    run = partial(_train, work, ours_only=True, accumulate=work.pictures)
    return Arm("ComfyUI's Train LoRA, batch 1, accumulated", run)


def as_it_is(work: Workload) -> Arm:
    """The node with its first settings but for rank and batch: all layers, checkpointing."""
    run = partial(_train, work, checkpointing=True)
    return Arm("ComfyUI's Train LoRA as it is", run)


def _train(
    work: Workload,
    steps: int,
    after_step: Callable[[], None],
    *,
    bypass: bool = False,
    ours_only: bool = False,
    batched: bool = False,
    accumulate: int = 1,
    checkpointing: bool = False,
) -> None:
    patcher = work.sockets[0].clone()
    patcher.cached_patcher_init = (partial(_again, work), ())  # as from one of the host's loaders
    if batched:
        patcher.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, "benchmark", _one_caption_each)
    settings = {
        "batch_size": work.pictures // accumulate,
        "grad_accumulation_steps": accumulate,
        "steps": steps,
        "learning_rate": work.settings.learning_rate,
        "rank": work.settings.rank,
        "optimizer": "AdamW",
        "loss_function": "MSE",
        "seed": 0,
        "training_dtype": work.settings.precision,
        "lora_dtype": "fp32",
        "quantized_backward": False,
        "algorithm": "LoRA",
        "gradient_checkpointing": checkpointing,
        "checkpoint_depth": 1,
        "offloading": False,
        "existing_lora": "[None]",
        "bucket_mode": False,
        "bypass_mode": bypass,
    }
    listed = {name: [value] for name, value in settings.items()}
    layers = set(select_layers(work.denoiser.network, work.settings.layers)) if ours_only else None
    with _told(after_step, accumulate), _only(layers):
        nodes_train.TrainLoraNode.execute(model=[patcher], **_data(work), **listed)


def _again(work: Workload, disable_dynamic: bool) -> ModelPatcher:
    return model(work.base, work.small, work.dtype)


@torch.no_grad()
def _data(work: Workload) -> dict[str, list]:
    """As many pictures as a step sees, and a caption for each, as on the node's sockets."""
    (_, clip, vae), items = work.sockets, work.style_set.items[: work.pictures]
    latents = vae.encode(torch.stack([item.pixels for item in items]).movedim(1, -1))
    tokens = [clip.tokenize(work.style_set.prompt(item)) for item in items]
    captions = [clip.encode_from_tokens_scheduled(prompt) for prompt in tokens]
    return {"latents": [{"samples": latents}], "positive": captions}


@contextmanager
def _told(after_step: Callable[[], None], accumulate: int) -> Iterator[None]:
    """For the block, the node's progress bar tells of every optimizer step."""

    class Bar:
        def __init__(self, total: int) -> None:
            self.done = 0

        def update(self, count: int) -> None:
            self.done += count
            if self.done % accumulate == 0:
                after_step()

    before, shown = nodes_train.ProgressBar, comfy.utils.PROGRESS_BAR_ENABLED
    nodes_train.ProgressBar, comfy.utils.PROGRESS_BAR_ENABLED = Bar, False
    try:
        yield
    finally:
        nodes_train.ProgressBar, comfy.utils.PROGRESS_BAR_ENABLED = before, shown


@contextmanager
def _only(layers: set[str] | None) -> Iterator[None]:
    """For the block, the node puts adapters into these layers of the network only."""
    names = ("_setup_lora_adapters", "_setup_lora_adapters_bypass")
    before = {name: getattr(nodes_train, name) for name in names}
    if layers is not None:
        for name, function in before.items():
            setattr(nodes_train, name, partial(_set_up, function, layers))
    try:
        yield
    finally:
        for name, function in before.items():
            setattr(nodes_train, name, function)


def _set_up(function: Callable, layers: set[str], patcher: ModelPatcher, *rest: object) -> tuple:
    def weights() -> Iterable[tuple[str, object]]:
        for path in layers:
            module = patcher.model.get_submodule(_LAYERS + path)
            told = {"weight": module.weight, "bias": None, "weight_function": ()}
            yield _LAYERS + path, SimpleNamespace(**told)

    shown = SimpleNamespace(
        model=SimpleNamespace(named_modules=weights),
        add_weight_wrapper=patcher.add_weight_wrapper,
    )
    return function(shown, *rest)


def _one_caption_each(
    execute: Callable,
    model: object,
    conds: list[list[dict]],
    noisy: Tensor,
    times: Tensor,
    options: dict,
) -> list[Tensor]:
    """Caption i for picture i: the captions' tensors as one batch, instead of one after another."""
    first, *others = conds[0]
    joined = {
        name: type(value)(value.concat([other["model_conds"][name] for other in others]))
        for name, value in first["model_conds"].items()
    }
    together = [{**first, "model_conds": joined}]
    return execute(model, [together, *conds[1:]], noisy, times, options)
