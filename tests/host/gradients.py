"""The gradient of each branch: by the trainer's passes, and by hand.

Imported inside the host's process only.
"""

from contextlib import ExitStack, contextmanager

import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional

BRANCHES = ("positive", "negative", "anchor")


def batches(host, channels, side=16):
    """Two pictures for each of three branches."""
    make = host.module("nsync.branches").Batch
    source, made = torch.Generator().manual_seed(0), {}
    for i, name in enumerate(BRANCHES):
        latents, noise = torch.randn(2, 2, channels, side, side, generator=source)
        words = f"a fox number {i} in the style of sks", f"sks, a boat number {i}"
        times = torch.tensor([0.2 + 0.1 * i, 0.7])
        made[name] = make(("fox", "boat"), tuple(latents), words, tuple(noise), times)
    return made


def well_conditioned(network):
    """Norms over several channels each: over one, they would take out what other layers add."""
    for module in network.modules():
        if isinstance(module, torch.nn.GroupNorm):
            module.num_groups = 8


def disturbed(host, settings, denoiser):
    """Adapters whose both factors say something; those of a new run leave one gradient zero."""
    first = host.module("nsync.trained").first_adapters(settings, denoiser)
    make, source = host.module("nsync.lora_file").LowRank, torch.Generator().manual_seed(1)
    return {
        key: make(one.down, 0.1 * torch.randn(one.up.shape, generator=source), one.alpha)
        for key, one in first.items()
    }


def by_passes(host, denoiser, settings, given, start=None):
    """What `BranchPasses` finds: gradients by branch and name of the weight, and the losses."""
    modules = {name: host.module(f"nsync.{name}") for name in ("trained", "passes", "prompts")}
    texts = [text for batch in given.values() for text in batch.prompts]
    with ExitStack() as stack:
        stack.enter_context(denoiser.trainable(text=settings.trains_text))
        entered = modules["trained"].trained(settings, denoiser, "sks", start)
        made = stack.enter_context(entered)
        prompts = modules["prompts"].Prompts(denoiser, texts, settings.trains_text)
        passes = modules["passes"].BranchPasses(settings, denoiser, made, prompts, stack)
        found = passes(given)
        gradients = {name: _named(made, branch.gradients) for name, branch in found.items()}
    return gradients, {name: branch.losses.tolist() for name, branch in found.items()}


def _named(made, vectors):
    pairs = zip(made.stores.items(), vectors, strict=True)
    return {f"{kind} {n}": v for (kind, s), flat in pairs for n, v in s.named(flat).items()}


def plainly(denoiser, given, start, vectors=None):
    """The same by hand: one pass per branch, the adapters added by hooks on the host's layers.

    Args:
        vectors: of the word "sks", by text encoder; the text encoders are then trained with.
    """
    found = {}
    for name, batch in given.items():
        with (
            denoiser.trainable(text=vectors is not None),
            copies_saved(),
            _hooked(denoiser, start) as leaves,
        ):
            if vectors is not None:
                word = {encoder: v.clone().requires_grad_() for encoder, v in vectors.items()}
                leaves |= {f"embedding {encoder}": leaf for encoder, leaf in word.items()}
                denoiser.words["sks"] = word
            inputs = torch.stack(batch.latents), denoiser.encode_prompts(batch.prompts)
            loss = denoiser.loss(*inputs, torch.stack(batch.noise), batch.times).mean()
            # The last layer of SDXL's text encoders is not read.
            gradients = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)
        denoiser.words.clear()
        found[name] = dict(zip(leaves, gradients, strict=True))
    return found


def copies_saved():
    """Whatever backward needs is copied when it is saved: the host's networks overwrite some."""
    return saved_tensors_hooks(torch.clone, lambda value: value)


@contextmanager
def _hooked(denoiser, start):
    leaves, hooks = {}, []
    networks = {"": denoiser.network, **denoiser.text_encoders}
    for key, one in start.items():
        down, up = one.down.clone().requires_grad_(), one.up.clone().requires_grad_()
        leaves |= {f"lora {key}.lora_A": down, f"lora {key}.lora_B": up}
        name, _, path = key.rpartition(":")
        layer, scale = networks[name].get_submodule(path), one.alpha / len(one.down)
        hooks.append(layer.register_forward_hook(_adding(down, up, scale)))
    try:
        yield leaves
    finally:
        for hook in hooks:
            hook.remove()


def _adding(down, up, scale):
    def add(layer, inputs, output):
        if isinstance(layer, torch.nn.Conv2d):
            low = functional.conv2d(inputs[0], down, None, layer.stride, layer.padding)
            return output + scale * functional.conv2d(low, up)
        return output + scale * functional.linear(functional.linear(inputs[0], down), up)

    return add


def gap(ours, theirs):
    """The largest difference of a tensor, relative to its size, over branches and names.

    Tensors smaller than a hundredth of the largest count as that large: what is left of a gradient
    where almost all cancels out (of queries and keys, of what a norm takes away again) is rounding,
    and how much of it there is, the processor and its threads decide.
    """
    assert {k: list(v) for k, v in ours.items()} == {k: list(v) for k, v in theirs.items()}
    found = []
    for branch, expected in theirs.items():
        least = 1e-2 * max(value.norm() for value in expected.values())
        for name, value in expected.items():
            found.append(float((ours[branch][name] - value).norm() / value.norm().clamp(min=least)))
    return max(found)


def peak_bytes(action):
    """The most bytes that tensors took at a time while the action ran."""
    with torch.profiler.profile(profile_memory=True) as profile:
        action()
    events = profile.profiler.kineto_results.events()
    steps = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    now = most = 0
    for _, change in steps:
        now += change
        most = max(most, now)
    return most
