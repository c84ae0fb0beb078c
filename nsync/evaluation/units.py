"""What is drawn anew, or swapped, as one: a picture, or all pictures of a prompt.

Several seeds of one prompt are no further prompts. Taken as pictures of their own they make
intervals too narrow and p-values too small, for what goes well with one prompt goes well with all
its seeds.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from .bootstrap import Statistic
from .permutation import Swappable

LEAST = 5
"""Pictures, references, and different prompts from which an interval is given of them."""


@dataclass(frozen=True)
class Units:
    """Which unit each picture belongs to.

    Attributes:
        index: int `[pictures]`, 0 to `count - 1`.
        count: how many units there are.
    """

    index: np.ndarray
    count: int

    @classmethod
    def of(cls, pictures: int, prompts: Sequence[Hashable] = ()) -> "Units":
        """Prompts where at least 5 are different; otherwise pictures, and what is found holds for
        other seeds of these prompts, not for other prompts.

        Args:
            prompts: one per picture, or empty where they are not known.

        Raises:
            InputError: another number of prompts than of pictures.
        """
        if prompts and len(prompts) != pictures:
            raise InputError("prompts", f"one for each of {pictures} pictures", str(len(prompts)))
        places = {prompt: place for place, prompt in enumerate(dict.fromkeys(prompts))}
        if len(places) < LEAST:
            return cls(np.arange(pictures), pictures)
        return cls(np.array([places[prompt] for prompt in prompts]), len(places))

    def drawn(self, statistic: Statistic) -> Statistic:
        """The statistic as one of how often each unit was taken."""
        return lambda counts, columns: statistic(counts[:, self.index], columns)

    def swapped(self, swappable: Swappable) -> Swappable:
        """The difference with all pairs of a unit swapped together."""

        def difference(swaps: np.ndarray) -> np.ndarray:
            return swappable.difference(swaps[:, self.index])

        return Swappable(difference, self.count, swappable.resolution)
