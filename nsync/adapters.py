"""LoRA (arXiv 2106.09685): low-rank adapters put into networks for a while.

PEFT builds the layers; this module draws their start from a seed of their own, keeps their
weights in one vector (see `nsync.flat`) and takes them out again, so that the network is afterwards
the very same object tree.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import Linear, LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from torch.nn import functional

from .draws import generator
from .errors import InputError
from .flat import FlatWeights
from .lora_file import LowRank

_NAME = "nsync"  # the adapter's name inside PEFT's layers


@dataclass
class Rows:
    """Which rows of a batch belong to which copy of the weights, while a pass runs.

    Attributes:
        counts: rows of each copy, in the order of the batch; those of one copy lie together.
    """

    counts: Sequence[int] = field(default_factory=tuple)

    @contextmanager
    def of(self, counts: Sequence[int]) -> Iterator[None]:
        """Set the counts for the block."""
        before, self.counts = self.counts, tuple(counts)
        try:
            yield
        finally:
            self.counts = before


class FusedError(RuntimeError):
    """A layer saw a batch from which its rows' branches cannot be told."""


class Factor(nn.Module):
    """One factor of an adapter, in the place of PEFT's linear or convolution layer.

    Outside a pass it applies its weight; inside, to each row the copy of the row's branch.

    Args:
        layer: the layer that it moves over its input like, if that is a convolution.
    """

    def __init__(self, name: str, store: FlatWeights, rows: Rows, layer: nn.Module) -> None:
        super().__init__()
        self._name, self._store, self._rows = name, store, rows
        self._convolve = layer._conv_forward if isinstance(layer, nn.Conv2d) else None

    @property
    def weight(self) -> Tensor:
        """The weight itself; PEFT asks for its dtype."""
        return self._store.weights[self._name]

    def forward(self, x: Tensor) -> Tensor:
        if not torch.is_autocast_enabled(x.device.type):
            x = x.to(self.weight.dtype)
        if self._store.copies is None:
            return self._apply_to(x, self.weight)
        return self._by_branch(x, self._store.copies[self._name])

    def _by_branch(self, x: Tensor, copies: Tensor) -> Tensor:
        used = [(place, count) for place, count in enumerate(self._rows.counts) if count]
        if len(used) == 1:
            return self._apply_to(x, copies[used[0][0]])
        total = sum(self._rows.counts)
        times, rest = divmod(len(x), total)
        if rest or not times:
            raise FusedError(f"A layer got a batch of {len(x)} for {total} pictures")
        counts = {count for _, count in used}
        if len(counts) == 1 and len(used) == len(copies) and self._convolve is None:
            product = torch.bmm(x.reshape(len(copies), -1, x.shape[-1]), copies.transpose(1, 2))
            return product.view(*x.shape[:-1], -1)
        parts = x.split([count * times for _, count in used])
        pairs = zip(used, parts, strict=True)
        return torch.cat([self._apply_to(part, copies[place]) for (place, _), part in pairs])

    def _apply_to(self, x: Tensor, weight: Tensor) -> Tensor:
        if self._convolve is None:
            return functional.linear(x, weight)
        return self._convolve(x, weight, None)


@contextmanager
def adapters(
    networks: Mapping[str, nn.Module],
    start: Mapping[str, LowRank],
    device: torch.device,
) -> Iterator[tuple[FlatWeights, Rows]]:
    """Put adapters into the networks for the block, then take every trace of them out again.

    The base keeps its dtype, the adapters are float32 on `device`. Each adds
    `alpha / rank * B(A(x))`.

    Args:
        networks: by name; see `layer_key`.
        start: the first values of the adapters by the key of their layer.

    Yields:
        The weights, `<key>.lora_A` and `<key>.lora_B`, and what says which rows are whose.

    Raises:
        InputError: as `check_bare`.
    """
    check_bare(networks)
    values = {}
    for key, one in start.items():
        values |= {f"{key}.lora_A": one.down, f"{key}.lora_B": one.up}
    store, rows = FlatWeights(values, device), Rows()
    flags = [(p, p.requires_grad) for network in networks.values() for p in network.parameters()]
    originals: dict[str, dict[str, nn.Module]] = {}
    try:
        for name, network in networks.items():
            keys = [split_key(key) for key in start]
            here = {path: start[layer_key(owner, path)] for owner, path in keys if owner == name}
            originals[name] = {path: network.get_submodule(path) for path in here}
            for path, layer in _inject(network, originals[name]).items():
                _fill(layer, layer_key(name, path), here[path], store, rows)
        yield store, rows
    finally:
        for name, layers in originals.items():
            _remove(networks[name], layers)
        for value, flag in flags:
            value.requires_grad_(flag)


def check_bare(networks: Mapping[str, nn.Module]) -> None:
    """Refuse networks with PEFT's layers in them: an adapter beside theirs would switch theirs off.

    Raises:
        InputError: there are some.
    """
    for name, network in networks.items():
        if any(isinstance(layer, BaseTunerLayer) for layer in network.modules()):
            raise InputError(
                name,
                "a network without adapters of PEFT or diffusers in it",
                "one with some",
                "Make them a part of the weights (`fuse_lora`, then `unload_lora_weights`) or "
                "unload them; to train a LoRA further, give its file as `start_from`.",
            )


NETWORK = "network"
"""The name of the denoising network among the networks that adapters go into."""


def layer_key(name: str, path: str) -> str:
    """The key of a layer: its path, and for a text encoder `<encoder>:<path>`."""
    return path if name == NETWORK else f"{name}:{path}"


def split_key(key: str) -> tuple[str, str]:
    """The name of the network and the path of the layer inside it."""
    name, found, path = key.rpartition(":")
    return (name, path) if found else (NETWORK, key)


def fresh(
    layers: Mapping[str, nn.Module], rank: int, alpha: float, seed: int
) -> dict[str, LowRank]:
    """Adapters that change nothing yet, for layers by key.

    `down` uniform in +-1/sqrt(inputs) (PEFT's own start, kaiming_uniform_ with a = sqrt(5)) from a
    generator per layer, `up` zero.
    """
    return {
        key: LowRank(*_start(layer, rank, generator(seed, "adapter", key)), alpha)
        for key, layer in layers.items()
    }


def _start(layer: nn.Module, rank: int, source: torch.Generator) -> tuple[Tensor, Tensor]:
    if isinstance(layer, nn.Conv2d):
        down = (rank, layer.in_channels, *layer.kernel_size)
        up = (layer.out_channels, rank, 1, 1)
    else:
        down, up = (rank, layer.in_features), (layer.out_features, rank)
    bound = torch.Size(down[1:]).numel() ** -0.5
    return (torch.rand(down, generator=source) * 2 - 1) * bound, torch.zeros(up)


def _inject(network: nn.Module, originals: Mapping[str, nn.Module]) -> dict[str, LoraLayer]:
    if not originals:
        return {}
    config = LoraConfig(r=1, target_modules="|".join(re.escape(path) for path in originals))
    _serve_other_linears(config, originals)
    # On the meta device: PEFT then draws nothing from the process's own generator.
    inject_adapter_in_model(config, network, _NAME, low_cpu_mem_usage=True)
    return {path: network.get_submodule(path) for path in originals}


def _fill(layer: LoraLayer, key: str, one: LowRank, store: FlatWeights, rows: Rows) -> None:
    # PEFT's own lora_A knows neither the dilation nor the padding mode of a convolution.
    layer.lora_A[_NAME] = Factor(f"{key}.lora_A", store, rows, layer.get_base_layer())
    layer.lora_B[_NAME] = Factor(f"{key}.lora_B", store, rows, layer.lora_B[_NAME])
    layer.scaling[_NAME] = one.alpha / len(one.down)
    layer.cast_input_dtype_enabled = False  # the factors do it, and not under autocast


def _serve_other_linears(config: LoraConfig, layers: Mapping[str, nn.Module]) -> None:
    known = (nn.Linear, nn.Conv2d)
    others = {type(layer) for layer in layers.values() if not isinstance(layer, known)}
    if others:
        config._register_custom_module(dict.fromkeys(others, Linear))


def _remove(network: nn.Module, originals: Mapping[str, nn.Module]) -> None:
    for path, layer in originals.items():
        parent, _, child = path.rpartition(".")
        setattr(network.get_submodule(parent), child, layer)
    if hasattr(network, "peft_config"):
        del network.peft_config
