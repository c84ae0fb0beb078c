"""Short runs of the trainer, and what is left of them."""

import gc
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_denoiser import TinyDenoiser, tiny_set
from torch import Tensor, nn

from nsync.learner import Learned, Learner
from nsync.runs.folder import RunFolder, State
from nsync.runs.session import Session, StepReport
from nsync.settings import BOTH, TrainSettings
from nsync.training import TrainResult, train

QUICK = TrainSettings(
    steps=6,
    rank=2,
    alpha=2.0,
    learning_rate=1e-2,
    embedding_rate=1e-2,
    warmup=2,
    preview_every=0,
    save_every=2,
)
EVERYTHING = {"trains": BOTH, "text_encoders": True, "ema": 0.9}


def with_optimizer(name: str) -> dict[str, object]:
    """Settings: the optimizer, and rates that it can take."""
    rates = {"learning_rate": 1.0, "embedding_rate": 1.0} if name == "prodigy" else {}
    return {"optimizer": name, **rates}


class Exports:
    """Stands for the writer of files: keeps what it was given, and leaves files with no content."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.kept = folder, []

    def __call__(self, learned: Learned, steps: int) -> dict[str, Path]:
        self.kept.append((learned, steps))
        kinds = {"lora": learned.lora, "embedding": learned.embedding}
        files = {k: self.folder / f"{k}_{steps}.safetensors" for k, found in kinds.items() if found}
        for file in files.values():
            file.touch()
        return files

    @property
    def last(self) -> Learned:
        return self.kept[-1][0]


class Stop(BaseException):
    """What a host raises when the user has had enough."""


def stop_at(*steps: int) -> Callable[[StepReport], None]:
    def told(report: StepReport) -> None:
        if report.step in steps:
            raise Stop

    return told


def run(folder: Path, settings: TrainSettings = QUICK, **given) -> TrainResult:
    """Train in `folder`/run; `given` replaces what a run is usually given."""
    usual = {"denoiser": TinyDenoiser(), "export": Exports(folder)}
    if "style_set" not in given:
        usual["style_set"] = tiny_set(folder / "set")
    return train(settings, folder=folder / "run", **(usual | given))


def as_if_on_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, numbers are not read after every step, and the device itself skips bad ones."""

    def without_knowing(made: Callable[..., None]) -> Callable[..., None]:
        def make(self: Session | Learner, *args: object) -> None:
            made(self, *args)
            self._on_cpu = False

        return make

    monkeypatch.setattr(Session, "__post_init__", without_knowing(Session.__post_init__))
    monkeypatch.setattr(Learner, "__init__", without_knowing(Learner.__init__))


def records(folder: Path) -> list[dict]:
    return RunFolder(folder / "run").records()


def timeless(folder: Path) -> list[dict]:
    """The log without what the clock says."""
    return [{k: v for k, v in one.items() if k != "seconds"} for one in records(folder)]


def state(folder: Path) -> State:
    return RunFolder(folder / "run").latest()


def tensors(learned: Learned) -> dict[str, Tensor]:
    return {**learned.lora, **{f"<{k}>": v for k, v in learned.embedding.items()}}


def assert_equal(these: dict[str, Tensor], those: dict[str, Tensor]) -> None:
    """To the last bit."""
    assert these.keys() == those.keys()
    assert [name for name in these if not torch.equal(these[name], those[name])] == []


def assert_same_end(folder: Path, other: Path) -> None:
    """Both runs ended with the same bits: weights, optimizer, average, log."""
    one, two = state(folder), state(other)
    assert (one.step, one.scalars, one.form) == (two.step, two.scalars, two.form)
    assert_equal(one.tensors, two.tensors)
    assert timeless(folder) == timeless(other)


def config(folder: Path) -> dict:
    return json.loads((folder / "run" / "config.json").read_text())


def files_of(folder: Path) -> dict[str, bytes]:
    """Everything that is there, by name."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def live_bytes() -> int:
    """What all living tensors hold."""
    gc.collect()
    storages = {}
    for value in gc.get_objects():
        # By type: isinstance would wake lazy modules up, and other tests leave fake tensors.
        if type(value) in (Tensor, nn.Parameter):
            storage = value.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())
