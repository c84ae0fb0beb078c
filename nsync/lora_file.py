"""An existing LoRA, read to be trained further: all that its file holds, or an error.

A layer's factors have one of these names, and its alpha, where the file tells one, `<name>.alpha`:

    kohya                  <name>.lora_down.weight                <name>.lora_up.weight
    PEFT, diffusers        <name>.lora_A[.default].weight         <name>.lora_B[.default].weight
    diffusers before PEFT  <name>.lora.down.weight                <name>.lora.up.weight
                           <name>_lora.down.weight                <name>_lora.up.weight
                           <name>.lora_linear_layer.down.weight   <name>.lora_linear_layer.up.weight
"""

import json
import math
import re
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from .errors import InputError

_FACTOR = re.compile(
    r"(.+?)(?:(?:\.lora_|[._]lora\.|\.lora_linear_layer\.)(down|up)|\.lora_(A|B)(?:\.default)?)"
    r"\.weight"
)
_HALVES = {"down": "down", "A": "down", "up": "up", "B": "up"}
_CONFIGS = "lora_adapter_metadata"  # diffusers' name (diffusers/loaders/lora_base.py)

# What else a file may hold for a layer, by the key names of LyCORIS, PEFT and ComfyUI.
_KINDS = {
    f"{kind} weights": re.compile(rf"(?:(.+)\.)?(?:{key})")
    for kind, key in {
        "LoHa": r"hada_(?:w[12]_[ab]|t[12])",
        "LoKr": r"lokr_(?:w[12](?:_[ab])?|t[12])",
        "OFT": r"oft_(?:blocks|diag|R\.weight)|rescale",
        "GLoRA": r"[ab][12]\.weight",
        "DoRA": r"dora_scale|lora_magnitude_vector(?:\.weight)?",
        "LoCon middle": r"lora_mid\.weight",
        "full difference": r"diff(?:_b)?|[wb]_norm|set_weight",
        "LoRA bias": r"lora_B\.bias",
        "reshaping": r"reshape_weight",
        "embedding": r"bundle_emb\..+",
    }.items()
}
_UNKNOWN = "layers that this model does not have"
_FUSED = "parts of fused layers"
_NOT_TRAINED = "layers that this run does not train"
_REMEDIES = {
    _UNKNOWN: "Is it a LoRA of another model?",
    _FUSED: "This model has them in one weight: use a LoRA that was trained on the fused layers.",
    _NOT_TRAINED: "Choose what is trained so that it includes them.",
} | dict.fromkeys(
    _KINDS,
    "Training continues pairs of down and up factors alone and would lose the rest: "
    "apply the file with Load LoRA and train a new LoRA on that model.",
)

_Problems = dict[str, list[str]]  # names by what is wrong with them


@dataclass(frozen=True, eq=False)
class LowRank:
    """One layer's low-rank weight, `alpha / rank * up @ down`.

    Attributes:
        down: `[rank, inputs, ...]`, float32.
        up: `[outputs, rank, ...]`, float32.
        alpha: finite, not 0.
    """

    down: Tensor
    up: Tensor
    alpha: float


@dataclass(frozen=True, eq=False)
class LoraFile:
    """What a LoRA file holds.

    Attributes:
        name: the file's name.
        layers: by the layer's name in the file, its prefix kept.
        metadata: the safetensors metadata.
    """

    name: str
    layers: dict[str, LowRank]
    metadata: dict[str, str]


def read_lora(path: Path) -> LoraFile:
    """Read a LoRA in any of the namings above.

    A layer's alpha is `<name>.alpha`; where there is none, that of the adapter configuration that
    diffusers writes into the metadata; without one, the rank, as every loader takes it.

    Raises:
        InputError: no safetensors file, or it holds anything but whole pairs of finite factors;
            every kind of problem is told, with the first names.
    """
    tensors, metadata = _load(path)
    factors, alphas, problems = _sort(tensors)
    configs = _configs(metadata)
    layers = {}
    for name, halves in factors.items():
        if flaw := _flaw(halves):
            problems[flaw].append(name)
            continue
        down, up = halves["down"][0].float(), halves["up"][0].float()
        alpha = _alpha(name, alphas.get(name), configs, len(down))
        if not alpha or not math.isfinite(alpha):
            problems["layers whose alpha is unreadable, not finite or 0"].append(name)
        layers[name] = LowRank(down, up, alpha)
    if not factors:
        problems["no low-rank layer"] = []
    _refuse(path.name, "a LoRA of whole, finite low-rank factors", problems)
    return LoraFile(path.name, layers, metadata)


def match_layers(
    file: LoraFile,
    names: Mapping[str, str],
    layers: Mapping[str, nn.Module],
    fused: Collection[str] = frozenset(),
) -> dict[str, LowRank]:
    """The file's factors by layer, in the order of `layers`; a layer that it lacks is left out.

    Factors of a 1x1 convolution may be those of a linear layer and the other way round; those of
    any convolution may be flattened, as ComfyUI's trainer writes them. They come back in the
    layer's own form: `[rank, inputs]` and `[outputs, rank]`, or `[rank, inputs, height, width]` and
    `[outputs, rank, 1, 1]`.

    Args:
        names: the layer that each name in a file stands for.
        layers: those to be trained: linear (`in_features`, `out_features`) or `nn.Conv2d`.
        fused: names in a file that stand for a part of a layer only.

    Raises:
        InputError: a layer of the file is none of `layers`, is there twice or has another shape.
    """
    problems: _Problems = defaultdict(list)
    found = defaultdict(list)
    for name in file.layers:
        path = names.get(name)
        if path in layers:
            found[path].append(name)
        else:
            problems[_FUSED if name in fused else _NOT_TRAINED if path else _UNKNOWN].append(name)
    problems |= {f"names of one layer, {k}": v for k, v in found.items() if len(v) > 1}
    matched = {}
    for path in filter(found.get, layers):
        given, wanted = file.layers[found[path][0]], _weight_shape(layers[path])
        if _fits(given, wanted):
            matched[path] = _formed(given, wanted)
        else:
            problems["layers of another shape"].append(_shapes(found[path][0], given, wanted))
    _refuse(file.name, "a LoRA of this model and of the layers that are trained", problems)
    return matched


def _load(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, "pt") as file:
            keys = file.keys()
            return {key: file.get_tensor(key) for key in keys}, file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise InputError(
            "start_from",
            "a LoRA in a whole safetensors file",
            f"{path.name}, which cannot be read ({error})",
        ) from error


def _sort(
    tensors: Mapping[str, Tensor],
) -> tuple[dict[str, dict[str, list[Tensor]]], dict[str, Tensor], _Problems]:
    """Each layer's halves, the alphas, and the keys that are neither, by their kind."""
    factors: dict[str, dict[str, list[Tensor]]] = {}
    alphas, problems, owners = {}, defaultdict(list), set()
    for key, value in tensors.items():
        if found := _FACTOR.fullmatch(key):
            halves = factors.setdefault(found[1], {"down": [], "up": []})
            halves[_HALVES[found[2] or found[3]]].append(value)
        elif key.endswith(".alpha"):
            alphas[key.removesuffix(".alpha")] = value
        else:
            kind, owner = _kind(key)
            problems[kind].append(key)
            owners.add(owner)
    if lonely := [name for name in alphas if name not in factors and name not in owners]:
        problems["an alpha without factors"] = lonely
    return factors, alphas, problems


def _kind(key: str) -> tuple[str, str | None]:
    for kind, pattern in _KINDS.items():
        if found := pattern.fullmatch(key):
            return kind, found[1]
    return "keys of no known kind", None


def _flaw(halves: Mapping[str, list[Tensor]]) -> str:
    """What keeps these from being one pair of factors; empty if nothing does."""
    count = len(halves["down"]), len(halves["up"])
    if min(count) == 0:
        return "layers with one factor of the two"
    if max(count) > 1:
        return "layers with factors in two namings"
    down, up = halves["down"][0], halves["up"][0]
    if not (down.is_floating_point() and up.is_floating_point()):
        return "factors that are not floating-point"
    if min(down.dim(), up.dim()) < 2 or up.shape[1:].numel() != len(down) or not down.numel():
        return "factors whose ranks or shapes contradict each other"
    if not (down.float().isfinite().all() and up.float().isfinite().all()):
        return "factors with NaN or infinite values"
    return ""


def _configs(metadata: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """PEFT's configurations in the metadata, by the prefix of the layers that each is for.

    diffusers writes them as one flat JSON object, `{"unet.lora_alpha": 8, ...}`, or without
    prefixes for a model saved by itself.
    """
    configs: dict[str, dict[str, Any]] = {}
    try:
        for key, value in json.loads(metadata.get(_CONFIGS, "{}")).items():
            prefix, dot, field = key.rpartition(".")
            configs.setdefault(prefix + dot, {})[field] = value
    except (AttributeError, ValueError, RecursionError):
        return {"": {}}  # for every layer, and with no alpha: an error where one is needed
    return configs


def _alpha(
    name: str, given: Tensor | None, configs: Mapping[str, Mapping[str, Any]], rank: int
) -> float:
    """The layer's alpha; NaN if what tells it cannot be read."""
    try:
        if given is not None:
            return float(given)
        for prefix, config in configs.items():
            if name.startswith(prefix):
                return _configured_alpha(name.removeprefix(prefix), config, rank)
        return float(rank)
    except (KeyError, TypeError, ValueError, RuntimeError, OverflowError, re.error):
        return math.nan


def _configured_alpha(path: str, config: Mapping[str, Any], rank: int) -> float:
    patterns = config.get("alpha_pattern") or {}
    fitting = (patterns[key] for key in patterns if _path_pattern(key).match(path))
    alpha = float(next(fitting, config["lora_alpha"]))
    # Rank-stabilised LoRA divides by the root of the rank (arXiv 2312.03732).
    return alpha * math.sqrt(rank) if config.get("use_rslora") else alpha


@lru_cache(maxsize=4096)  # there may be one for every layer, each tried on every layer
def _path_pattern(key: str) -> re.Pattern[str]:
    return re.compile(rf"(.*\.)?({key})$")  # as in peft.utils.other.get_pattern_key


def _weight_shape(layer: nn.Module) -> tuple[int, ...]:
    # A host's quantised linear layer may store its weight in another shape.
    is_conv = isinstance(layer, nn.Conv2d)
    return tuple(layer.weight.shape) if is_conv else (layer.out_features, layer.in_features)


def _fits(given: LowRank, wanted: tuple[int, ...]) -> bool:
    flat = math.prod(wanted[1:])
    forms = wanted[1:], (flat,), (flat, 1, 1)
    return len(given.up) == wanted[0] and tuple(given.down.shape[1:]) in forms


def _formed(given: LowRank, wanted: tuple[int, ...]) -> LowRank:
    rank, ones = len(given.down), [1] * len(wanted[2:])
    down, up = given.down.reshape(rank, *wanted[1:]), given.up.reshape(wanted[0], rank, *ones)
    return LowRank(down, up, given.alpha)


def _shapes(name: str, given: LowRank, wanted: tuple[int, ...]) -> str:
    return f"{name} with {list(given.down.shape)} and {list(given.up.shape)} for {list(wanted)}"


def _refuse(file: str, expected: str, problems: _Problems) -> None:
    """Raise `InputError` if there is a problem."""
    if problems:
        told = "; ".join(_told(what, names) for what, names in problems.items())
        remedies = dict.fromkeys(_REMEDIES[what] for what in problems if what in _REMEDIES)
        raise InputError("start_from", expected, f"{file} with {told}", " ".join(remedies))


def _told(what: str, names: list[str]) -> str:
    first = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return f"{what}: {len(names)} ({first})" if names else what
