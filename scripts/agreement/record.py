"""What the agreement of encoders with their references is made of: figures, inputs, imports."""

import contextlib
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from encoder_files import some_pictures, weights, write_pictures
from torch import Tensor, nn

from nsync.evaluation import preprocess
from nsync.evaluation.pictures import as_pictures

CLONED = {
    "CSD", "clip", "models", "dinov2", "embedding", "io_util", "distance", "fid_score", "kid_score",
}  # fmt: skip


class Record:
    """The figures, printed as they come, and the fixtures."""

    def __init__(self) -> None:
        self.figures: list[dict] = []
        self.fixtures: dict[str, dict] = {}

    def compare(
        self, check: str, ours: Tensor, theirs: Tensor, gate: float, relative: bool = False
    ) -> None:
        """Largest difference, by the largest value of theirs if `relative`.

        Random networks easily map everything to one point, where all implementations agree: the
        rows of theirs have to differ from each other by far more than the gate.
        """
        ours, theirs = ours.double(), theirs.double()
        scale = theirs.abs().max() if relative else torch.ones(())
        if theirs.ndim == 2:
            spread = (theirs - theirs.mean(0)).abs().amax(1).min() / scale
            if not spread > 20 * gate:
                sys.exit(f"{check}: the rows hardly differ ({float(spread):.3g})")
        self.add(check, float((ours - theirs).abs().max() / scale), gate)

    def add(self, check: str, difference: float, gate: float) -> None:
        print(f"{check:58} {difference:.3g} (gate {gate:g})", flush=True)
        self.figures.append({"check": check, "difference": difference, "gate": gate})

    def keep(self, name: str, model: nn.Module, **values: Tensor) -> None:
        """What the tests need: the names and shapes of the file, some columns of the results."""
        shapes = {key: list(value.shape) for key, value in model.state_dict().items()}
        results = {
            k: [[float(f"{x:.8g}") for x in row[:6]] for row in v] for k, v in values.items()
        }
        self.fixtures[name] = {"shapes": shapes} | results


def filled(model: nn.Module) -> nn.Module:
    """The model with the weights that its names give."""
    shapes = {key: value.shape for key, value in model.state_dict().items()}
    model.load_state_dict(weights(shapes))
    return model.eval()


def prepared(way: preprocess.Preprocessing) -> Tensor:
    return torch.stack([way.prepare(picture) for picture in some_pictures()])


def unit(features: Tensor) -> Tensor:
    return nn.functional.normalize(features, dim=1)


def same_pixels(
    record: Record, check: str, way: preprocess.Preprocessing, theirs: Callable, folder: Path
) -> None:
    """Bit for bit: ours from files, a reference's transform from pictures in RGB."""
    shown = write_pictures(folder)
    pairs = [
        (way.prepare(ours), theirs(image))
        for ours, image in zip(as_pictures(list(shown)), shown.values(), strict=True)
    ]
    if any(a.shape != b.shape for a, b in pairs):
        sys.exit(f"{check}: other shapes")
    record.add(f"{check}, bit for bit", max(float((a - b).abs().max()) for a, b in pairs), 0)


@contextlib.contextmanager
def importable(*folders: Path, **stubs: types.ModuleType) -> Iterator[None]:
    """The references import from their own folders, and name modules that are not needed here."""
    before = list(sys.path)
    sys.path[:0] = [str(folder) for folder in folders]
    sys.modules.update(stubs)
    try:
        yield
    finally:
        sys.path[:] = before
        for name in [name for name in sys.modules if name.split(".")[0] in CLONED]:
            del sys.modules[name]
