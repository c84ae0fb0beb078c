"""Gradients of branches: as the trainer finds them, and as plain autograd does."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from nsync.branches import Batch
from nsync.lora_file import LowRank
from nsync.passes import BranchPasses
from nsync.prompts import Prompts
from nsync.settings import TrainSettings
from nsync.trained import chosen_layers, trained

TOKEN = "sks"
BRANCHES = ("positive", "negative", "anchor")
SMALL, TALL = (4, 6, 6), (4, 8, 6)


class LittleDenoiser:
    """A denoiser around any network from pictures to numbers per picture; words say nothing.

    With positive weights no number is negative and nothing cancels: what is off is wrong.
    """

    device = torch.device("cpu")

    def __init__(self, network: nn.Module) -> None:
        self.network, self.text_encoders, self.words = network.requires_grad_(False), {}, {}

    def encode_prompts(self, texts: Sequence[str]) -> list[dict[str, Tensor]]:
        return [{} for _ in texts]

    def loss(self, latents: Tensor, conditioning: list, noise: Tensor, times: Tensor) -> Tensor:
        output = self.network((latents + times.view(-1, 1, 1, 1) * noise).abs())
        return output.square().flatten(1).mean(1)


def batches_of(rows: Sequence[int], sizes: Sequence[tuple] = (SMALL,)) -> dict[str, Batch]:
    """A branch per number of rows; the pictures have the sizes in turn."""
    return {name: _batch(name, n, sizes) for name, n in zip(BRANCHES, rows, strict=False)}


def _batch(name: str, rows: int, sizes: Sequence[tuple]) -> Batch:
    source = torch.Generator().manual_seed(BRANCHES.index(name))
    shapes = [sizes[row % len(sizes)] for row in range(rows)]
    return Batch(
        names=tuple(f"picture_{row}" for row in range(rows)),
        latents=tuple(torch.randn(shape, generator=source) for shape in shapes),
        prompts=tuple(f"a {name} number {row} like {TOKEN}" for row in range(rows)),
        noise=tuple(torch.randn(shape, generator=source) for shape in shapes),
        times=torch.rand(rows, generator=source) * 0.8 + 0.1,
    )


def random_adapters(
    layers: Mapping[str, nn.Module], rank: int, alpha: float, seed: int = 0
) -> dict[str, LowRank]:
    """Adapters that already do something: from a zero `up`, every `down` has a gradient of 0."""
    source = torch.Generator().manual_seed(seed)
    found = {}
    for key, layer in layers.items():
        outputs, *inputs = layer.weight.shape
        down = torch.randn(rank, *inputs, generator=source) * layer.weight[0].numel() ** -0.5
        up = torch.randn(outputs, rank, *[1] * len(inputs[1:]), generator=source) * 0.5
        found[key] = LowRank(down, up, alpha)
    return found


def chosen(settings: TrainSettings, denoiser: object, seed: int = 0) -> dict[str, LowRank]:
    """Random adapters for the layers that the settings choose; none where none are trained."""
    layers = chosen_layers(settings, denoiser) if settings.trains_lora else {}
    return random_adapters(layers, settings.rank, settings.alpha, seed)


@dataclass(frozen=True)
class Found:
    """Losses by branch, and gradients by branch and weight: a text encoder's vectors by its name,
    a factor as `<layer>.lora_A` or `<layer>.lora_B`."""

    losses: dict[str, Tensor]
    gradients: dict[str, dict[str, Tensor]]


@contextmanager
def passes_of(
    settings: TrainSettings,
    denoiser: object,
    start: Mapping[str, LowRank],
    texts: Sequence[str],
    form: Mapping[str, object] | None = None,
) -> Iterator:
    """For the block, what computes `Found` of batches; its `form` is that of the passes."""
    with ExitStack() as stack:
        made = stack.enter_context(trained(settings, denoiser, TOKEN, start))
        prompts = Prompts(denoiser, texts, settings.trains_text)
        passes = BranchPasses(settings, denoiser, made, prompts, stack, form)

        def find(batches: Mapping[str, Batch]) -> Found:
            results = passes(batches)
            return Found(
                {name: result.losses for name, result in results.items()},
                {name: named(made.stores.values(), r.gradients) for name, r in results.items()},
            )

        yield find, passes


def named(stores, vectors: Sequence[Tensor]) -> dict[str, Tensor]:
    pairs = zip(stores, vectors, strict=True)
    return {name: part for store, v in pairs for name, part in store.named(v).items()}


def found_by(settings, denoiser, batches, start, form=None) -> Found:
    """What the trainer finds."""
    texts = [text for batch in batches.values() for text in batch.prompts]
    with passes_of(settings, denoiser, start, texts, form) as (find, _):
        return find(batches)


class Added(nn.Module):
    """A weight with a low-rank one added to it: what a LoRA means."""

    def __init__(self, one: LowRank) -> None:
        super().__init__()
        self.down, self.up = nn.Parameter(one.down.double()), nn.Parameter(one.up.double())
        self.scale = one.alpha / len(one.down)

    def forward(self, weight: Tensor) -> Tensor:
        added = self.up.flatten(1) @ self.down.flatten(1)
        return weight + self.scale * added.view(weight.shape)


def expected_of(settings, denoiser, batches, start, vectors=None, *, at_once=False) -> Found:
    """What plain autograd finds, in float64, branch by branch.

    The adapters are added to the weights themselves; none of what the trainer is made of is used.

    Args:
        vectors: of the embedding, by text encoder.
        at_once: all pictures of a branch together; else one by one.
    """
    denoiser = copy.deepcopy(denoiser)
    weights = _with_parameters(denoiser, start)
    for name, value in (vectors or {}).items():
        weights[name] = nn.Parameter(value.clone())
    if vectors:
        denoiser.words[TOKEN] = {name: weights[name] for name in vectors}
    losses, gradients = {}, {}
    for branch, batch in batches.items():
        rows = list(range(len(batch.names)))
        parts = [rows] if at_once else [[row] for row in rows]
        each = torch.cat([_loss(denoiser, batch, part) for part in parts])
        shares = 1.0
        if settings.min_snr:
            t = batch.times.double()
            shares = ((1 - t) / t).square().clamp(max=settings.min_snr) * t.square()
        (each * shares).mean().backward()
        losses[branch] = each.detach()
        gradients[branch] = {name: w.grad for name, w in weights.items()}
        for weight in weights.values():
            weight.grad = None
    return Found(losses, gradients)


def _with_parameters(denoiser, start) -> dict[str, nn.Parameter]:
    exact(denoiser)
    networks = {"": denoiser.network, **denoiser.text_encoders}
    weights = {}
    for key, one in start.items():
        owner, _, path = key.rpartition(":")
        added = Added(one)
        parametrize.register_parametrization(networks[owner].get_submodule(path), "weight", added)
        weights |= {f"{key}.lora_A": added.down, f"{key}.lora_B": added.up}
    return weights


def exact(denoiser):
    """The same denoiser, with all that it computes by itself in float64.

    What is left of an error is that of the trained float32 weights and their products.
    """
    for network in (denoiser.network, *denoiser.text_encoders.values()):
        network.double().register_forward_pre_hook(_in_double)
    return denoiser


def _in_double(network: nn.Module, inputs: tuple) -> tuple:
    return tuple(value.double() for value in inputs)


def _loss(denoiser, batch: Batch, rows: list[int]) -> Tensor:
    latents, noise = (
        torch.stack([values[row] for row in rows]).double()
        for values in (batch.latents, batch.noise)
    )
    conditioning = denoiser.encode_prompts([batch.prompts[row] for row in rows])
    return denoiser.loss(latents, conditioning, noise, batch.times[rows])


def errors(found: Found, expected: Found) -> dict[str, float]:
    """Of every tensor: how far from what is expected, as a share of it (Frobenius norms).

    A tensor below a hundredth of its branch's gradient is what large numbers have left of each
    other, and so of their rounding; it is measured by that hundredth.
    """
    result = {}
    for branch, tensors in expected.gradients.items():
        assert found.gradients[branch].keys() == tensors.keys()
        whole = torch.cat([value.flatten() for value in tensors.values()]).norm()
        for name, value in tensors.items():
            scale = max(value.norm(), whole / 100)
            result[f"{branch} {name}"] = float(
                (found.gradients[branch][name] - value).norm() / scale
            )
        one, other = found.losses[branch], expected.losses[branch]
        result[f"{branch} loss"] = float((one - other).norm() / other.norm())
    return result


def assert_near(found: Found, expected: Found, bound: float) -> None:
    """Every single tensor is as near as that; NaN is not near."""
    far = {name: error for name, error in errors(found, expected).items() if not error <= bound}
    assert not far, f"{len(far)} of them, the worst: {max(far.items(), key=lambda pair: pair[1])}"
