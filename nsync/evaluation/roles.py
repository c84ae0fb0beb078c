"""Which encoder answers which question, of those that the user has loaded."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from ..errors import InputError
from ..processes import ONE, Processes
from .encoders import ClipEncoder, Encoder, InceptionEncoder
from .store import encode_stored

_STYLE = ("csd", "ruler", "clip-l-14", "clip-l-14-336", "dinov2")
_CONTROL = ("clip-l-14", "dinov2", "clip-l-14-336")
_ADHERENCE = ("clip-l-14", "clip-l-14-336")


@dataclass(frozen=True)
class Roles:
    """Encoders by what they are asked; None where there is none for it.

    Attributes:
        style: how near a picture is to the style.
        control: another one asked the same beside it; it decides nothing.
        adherence: whether a picture shows its caption.
        content: what a picture shows, however it is drawn.
        copies: whether a picture is a copy of another.
        distance: CMMD's.
        inception: FID's and KID's.
        classes: the Inception Score's.
    """

    style: Encoder
    control: Encoder | None
    adherence: ClipEncoder | None
    content: Encoder | None
    copies: Encoder | None
    distance: Encoder | None
    inception: Encoder | None
    classes: InceptionEncoder | None

    @classmethod
    def of(cls, encoders: Sequence[Encoder], paper: bool = False) -> "Roles":
        """Give each its part, by its name.

        Args:
            paper: FID and KID on torchvision's Inception, the NSYNC paper's, where it is there.

        Raises:
            InputError: none of them knows styles, or one is there twice.
        """
        known = {encoder.name: encoder for encoder in encoders}
        names = [encoder.name for encoder in encoders]
        if len(known) < len(names):
            raise InputError("encoders", "each encoder once", ", ".join(names))
        style = _first(known, _STYLE)
        if style is None:
            expected = f"at least one of {', '.join(_STYLE)}"
            raise InputError("encoders", expected, ", ".join(names) or "none")
        others = {name: encoder for name, encoder in known.items() if encoder is not style}
        readers = [known[n] for n in _ADHERENCE if n in known and known[n].reads_texts]
        return cls(
            style,
            _first(others, _CONTROL),
            readers[0] if readers else None,
            others.get("dinov2") or others.get("ruler-content"),
            known.get("sscd"),
            known.get("clip-l-14-336"),
            (known.get("inception-imagenet") if paper else None) or known.get("inception"),
            known.get("inception"),
        )

    def told(self) -> dict[str, dict[str, object]]:
        """Name, preprocessing and weights of each encoder, by what it is asked."""
        return {
            part: {
                "name": encoder.name,
                "preprocessing": encoder.preprocessing,
                "precision": encoder.precision,
                "identity": encoder.identity,
            }
            for part, encoder in vars(self).items()
            if encoder is not None
        }


class Vectors:
    """Pictures as vectors, each picture once: the store of `nsync.evaluation.store`.

    Args:
        folder: of the store.
        on_item: called before each picture with (done, all), as often as an encoder is asked.
        processes: that share the encoding; all have to ask for the same.
    """

    def __init__(
        self,
        folder: Path,
        on_item: Callable[[int, int], None] | None = None,
        processes: Processes = ONE,
    ) -> None:
        self._folder, self._on_item, self._processes = folder, on_item, processes
        self._found: dict[tuple[str, int], tuple[Sequence[Tensor], np.ndarray]] = {}

    def __call__(self, encoder: Encoder, pictures: Sequence[Tensor]) -> np.ndarray:
        """float64 `[n, width]`; the same sequence of pictures is looked up once."""
        key = (encoder.name, id(pictures))
        if key not in self._found:
            given = self._folder, self._on_item, self._processes
            found = encode_stored(encoder, pictures, *given)
            # With the pictures, so that no other sequence can come to have this id.
            self._found[key] = pictures, found.double().numpy()
        return self._found[key][1]


def _first(known: dict[str, Encoder], names: Sequence[str]) -> Encoder | None:
    return next((known[name] for name in names if name in known), None)
