"""What every arm of the benchmark of a step works on. Imported inside the host's process only."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from bases import Sockets, side, sockets
from nsync_style.nodes.host.adapter import HostDenoiser
from nsync_style.nsync.pictures.images import png, to_picture
from nsync_style.nsync.settings import TrainSettings
from nsync_style.nsync.style_set import StyleItem, StyleSet

Run = Callable[[int, Callable[[], None]], None]
"""Train so many steps, and call the function after each."""

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
_PICTURES = 8


@dataclass(frozen=True)
class Arm:
    """One way to train."""

    name: str
    run: Run


@dataclass(frozen=True)
class Workload:
    """A base, a style set and settings, the same for every arm.

    Attributes:
        side: of the pictures, in pixels.
        dtype: of the network's arithmetic.
    """

    base: str
    small: bool
    side: int
    sockets: Sockets
    denoiser: HostDenoiser
    style_set: StyleSet
    settings: TrainSettings

    @property
    def dtype(self) -> torch.dtype:
        return _DTYPES[self.settings.precision]

    @property
    def device(self) -> torch.device:
        return self.denoiser.device

    @property
    def pictures(self) -> int:
        """Pictures that a step learns from: those of all three branches."""
        return 3 * self.settings.batch

    def with_settings(self, **changes: object) -> "Workload":
        """The same with other settings."""
        return replace(self, settings=replace(self.settings, **changes))


def make_workload(
    base: str, small: bool, precision: str, stored: torch.dtype | None = None
) -> Workload:
    """Two pictures per branch, three branches, a LoRA of rank 16 on the attention layers.

    Args:
        stored: dtype of the base's weights; None takes that of the arithmetic.
    """
    made, pixels = sockets(base, small, stored or _DTYPES[precision]), side(base, small)
    denoiser = HostDenoiser(*made)
    settings = TrainSettings(
        batch=2, rank=16, precision=precision, preview_every=0, save_every=0, log_every=10
    )
    return Workload(
        base, small, pixels, made, denoiser, _pictures(pixels, denoiser.identity), settings
    )


def _pictures(pixels: int, identity: str) -> StyleSet:
    """Pictures of noise with negatives of noise: how fast a step is does not depend on them."""
    folder, source = Path(tempfile.mkdtemp(prefix="nsync-benchmark-")), torch.Generator()
    items = []
    for number in range(_PICTURES):
        negative = folder / f"{number}.png"
        negative.write_bytes(png(to_picture(torch.rand(3, pixels, pixels, generator=source))))
        picture = torch.rand(3, pixels, pixels, generator=source)
        caption = "a red circle on a blue square"
        item = StyleItem(f"{number}", caption, pixels=picture, negatives=(negative,))
        items.append(item)
    return StyleSet(tuple(items), token="ohwx", resolution=pixels, base=identity)
