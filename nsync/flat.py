"""Trained weights side by side in one vector, with a copy of them per branch while a pass runs."""

import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class FlatWeights:
    """Named float32 weights that lie one after the other in one vector.

    The vector is what is optimised, averaged and saved: one tensor, a few large kernels a step. The
    weights are views of it, so that they always hold its latest values.

    Args:
        values: the first values by name; they are copied.
        device: where the vector lives.
    """

    def __init__(self, values: Mapping[str, Tensor], device: torch.device) -> None:
        self.shapes = {name: value.shape for name, value in values.items()}
        flat = torch.cat([value.detach().reshape(-1).float() for value in values.values()])
        self.vector = nn.Parameter(flat.to(device))
        self.weights = self._views(self.vector.detach())
        self.copies: dict[str, Tensor] | None = None

    @property
    def sizes(self) -> list[int]:
        """Lengths of the weights in the vector."""
        return [shape.numel() for shape in self.shapes.values()]

    def read(self, name: str) -> Tensor:
        """The weight, or while a pass runs its copies `[branches, ...]`."""
        return (self.weights if self.copies is None else self.copies)[name]

    @contextmanager
    def copied(self, count: int) -> Iterator[Tensor]:
        """For the block, `count` copies of every weight; yields the leaf that they are views of.

        No memory is taken for them: the leaf `[count, length]` repeats the vector with stride 0.
        Its gradient holds that of each copy apart, in one row each.
        """
        leaf = self.vector.detach().expand(count, -1).requires_grad_()
        parts = leaf.split(self.sizes, dim=1)  # one split, so that backward is one concatenation
        pairs = zip(self.shapes.items(), parts, strict=True)
        self.copies = {name: part.view(count, *shape) for (name, shape), part in pairs}
        try:
            yield leaf
        finally:
            self.copies = None

    def named(self, vector: Tensor) -> dict[str, Tensor]:
        """A vector of this length as weights by name, copied to main memory."""
        return {name: part.to("cpu", copy=True) for name, part in self._views(vector).items()}

    def _views(self, vector: Tensor) -> dict[str, Tensor]:
        ends = list(itertools.accumulate(self.sizes, initial=0))
        return {
            name: vector[start:end].view(shape)
            for (name, shape), (start, end) in zip(
                self.shapes.items(), itertools.pairwise(ends), strict=True
            )
        }
