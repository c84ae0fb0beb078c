"""The branches' gradients of a step as vectors: what gradient rules are written in.

Checks what a host can know of them without asking the device, and then computes only on the device.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from .errors import InputError


class Mix(NamedTuple):
    """Coefficients of an update u = p g_p + n g_n + a g_a + q (g_p + g_n), numbers or `[groups]`.

    g_p + g_n has a coefficient of its own because its small differences would drown if the
    projection on it were expanded into dot products of g_p and g_n.
    """

    p: float | Tensor = 0.0
    n: float | Tensor = 0.0
    a: float | Tensor = 0.0
    q: float | Tensor = 0.0

    def on(self, branch: str, like: Tensor) -> Tensor:
        """The coefficient of g_p, g_n or g_a by name ("positive", ...), as a tensor."""
        total = {"positive": self.p + self.q, "negative": self.n + self.q, "anchor": self.a}[branch]
        return total if isinstance(total, Tensor) else like.new_full((1,), total)


@dataclass(frozen=True, eq=False)
class Gradients:
    """The branches as flat vectors, cut into the groups that get coefficients of their own."""

    positive: Sequence[Tensor]
    negative: Sequence[Tensor] | None
    anchor: Sequence[Tensor] | None
    scope: str

    @cached_property
    def sizes(self) -> list[int]:
        """Lengths of the groups in a flat vector."""
        sizes = [tensor.numel() for tensor in self.positive]
        return sizes if self.scope == "tensor" else [sum(sizes)]

    @cached_property
    def p(self) -> Tensor:
        return _flat(self.positive)

    @cached_property
    def n(self) -> Tensor:
        return _flat(self.negative)

    @cached_property
    def a(self) -> Tensor:
        return _flat(self.anchor)

    @cached_property
    def q(self) -> Tensor:
        return self.p + self.n

    @cached_property
    def _dots(self) -> dict[tuple[str, str], Tensor]:
        return {}

    def dot(self, x: str, y: str) -> Tensor:
        """Dot products of two of the vectors ("p", "n", "a", "q"), `[groups]`; made once."""
        if (x, y) not in self._dots:
            parts = (getattr(self, name).split(self.sizes) for name in (x, y))
            products = [torch.dot(*pair) for pair in zip(*parts, strict=True)]
            self._dots[x, y] = torch.stack(products)
        return self._dots[x, y]

    def onto(self, b: str) -> Tensor:
        """Coefficients of b in P_b(g_p), `[groups]`."""
        return ratio(self.dot("p", b), self.dot(b, b))

    def blend(self, mix: Mix) -> Tensor:
        """The flat update that these coefficients make."""
        terms = [
            self._scaled(coefficient, getattr(self, name))
            for name, coefficient in mix._asdict().items()
            if isinstance(coefficient, Tensor) or coefficient != 0
        ]
        return sum(terms[1:], start=terms[0])

    def _scaled(self, coefficient: float | Tensor, vector: Tensor) -> Tensor:
        if not isinstance(coefficient, Tensor):
            return coefficient * vector
        pairs = zip(coefficient.unbind(), vector.split(self.sizes), strict=True)
        return torch.cat([c * part for c, part in pairs])


def ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Their quotient for a denominator >= 0, and 0 for 0 / 0.

    The bound is the smallest normal number, not a customary 1e-8: squares of gradients as small as
    float32 can hold stay above it in float64, so that scale never decides what is projected.
    """
    return numerator / denominator.clamp(min=torch.finfo(denominator.dtype).tiny)


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    """The tensors as one vector in the dtype of accumulation.

    One vector, because thousands of small kernels per step cost more than its memory, which is
    needed only after backward has given back the activations'.
    """
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    return flat.to(_accumulation_dtype(flat.device))


def _accumulation_dtype(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64


def check_tensors(name: str, tensors: Sequence[Tensor]) -> None:
    if isinstance(tensors, Tensor):
        raise InputError(name, "a list of tensors", f"one tensor of shape {tuple(tensors.shape)}")
    if not tensors:
        raise InputError(name, "at least one tensor", "an empty list")
    for index, tensor in enumerate(tensors):
        if not isinstance(tensor, Tensor):
            got = f"{type(tensor).__name__}"
            raise InputError(f"{name}[{index}]", "a tensor", got)
        if not tensor.is_floating_point():
            raise InputError(f"{name}[{index}]", "a floating-point tensor", str(tensor.dtype))


def check_match(name: str, tensors: Sequence[Tensor], positive: Sequence[Tensor]) -> None:
    if len(tensors) != len(positive):
        expected = f"as many tensors as `positive`, {len(positive)}"
        raise InputError(name, expected, str(len(tensors)))
    for index, (tensor, like) in enumerate(zip(tensors, positive, strict=True)):
        if tensor.shape != like.shape:
            expected = f"the shape of `positive[{index}]`, {tuple(like.shape)}"
            raise InputError(f"{name}[{index}]", expected, str(tuple(tensor.shape)))
