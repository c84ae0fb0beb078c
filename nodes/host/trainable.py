"""A model of the host made ready to be trained, for a while.

The host runs every prompt under `torch.inference_mode()`, in which autograd cannot work: the
tensors that were made there cannot be saved for a backward pass, even frozen ones.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import comfy.model_management as management
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn

from ...nsync.errors import InputError


def whole_model(patcher: ModelPatcher) -> ModelPatcher:
    """A clone whose weights lie in the device's memory as long as it is loaded.

    The host's dynamic VRAM moves weights in and out below autograd's sight; such a model is loaded
    once more, by the loader that loaded it first.

    Raises:
        InputError: the loader did not leave word of how to load the model again.
    """
    if not patcher.is_dynamic():
        return patcher.clone()
    if patcher.cached_patcher_init is None:
        raise InputError(
            "model",
            "a model from one of ComfyUI's own loaders, since training loads it once more",
            "a model that cannot be loaded again",
            "Use Load Checkpoint or Load Diffusion Model, or start ComfyUI with "
            "--disable-dynamic-vram.",
        )
    return patcher.clone(disable_dynamic=True)


@contextmanager
def trainable(patchers: Sequence[ModelPatcher]) -> Iterator[None]:
    """Load models on their device, fit for autograd, and put everything back afterwards.

    Their tensors become normal ones, swapped one by one, so that no second copy of a model is
    needed; their values stay, bit by bit.
    """
    with torch.inference_mode(False), torch.enable_grad(), ExitStack() as stack:
        load_whole(patchers)
        for patcher in patchers:
            _leave_inference_mode(patcher.model)
            stack.enter_context(_patches_as_weights(patcher))
        stack.enter_context(training_flag(True))
        yield


def load_whole(patchers: Sequence[ModelPatcher]) -> None:
    """Load all weights to the device; other models make room."""
    management.load_models_gpu(list(patchers), memory_required=1e20, force_full_load=True)


@contextmanager
def training_flag(value: bool) -> Iterator[None]:
    """The host's own sign, by which some models choose operations that have a gradient."""
    before = management.in_training
    management.in_training = value
    try:
        yield
    finally:
        management.in_training = before


@contextmanager
def _patches_as_weights(patcher: ModelPatcher) -> Iterator[None]:
    """Treat patched weights (a LoRA on the socket) as the model's own.

    Else the host, when it unloads the model for a while to make room, would put the original
    weights back by name, and adapters stand at those names.
    """
    patches, backup = patcher.patches, patcher.backup
    patcher.patches, patcher.backup = {}, {}
    try:
        yield
    finally:
        patcher.patches, patcher.backup = patches, backup
        if patches:
            patcher.unpatch_model(patcher.offload_device)


def _leave_inference_mode(model: nn.Module) -> None:
    places: dict[int, list[tuple[dict[str, Tensor | None], str]]] = {}
    for module in model.modules():
        for store in (module._parameters, module._buffers):
            for name, value in store.items():
                if value is not None and value.is_inference():
                    places.setdefault(id(value), []).append((store, name))  # tied ones stay tied
    for same in places.values():
        store, name = same[0]
        value = store[name].clone()
        if isinstance(store[name], nn.Parameter):
            value = nn.Parameter(value, requires_grad=False)
        for store, name in same:
            store[name] = value
