"""Whatever happens to a run: nothing half is kept, and nothing stays behind in the model."""

import errno
import gc
import logging
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_runs import (
    EVERYTHING,
    QUICK,
    Exports,
    Stop,
    assert_equal,
    assert_same_end,
    live_bytes,
    records,
    run,
    state,
    stop_at,
    with_optimizer,
)
from test_faults import BadDenoiser, at
from tiny_denoiser import TinyDenoiser, tiny_set
from torch import Tensor

from nsync.errors import InputError
from nsync.runs.folder import RunFolder
from nsync.runs.log import NonFiniteError, RunLog
from nsync.runs.session import Session
from nsync.settings import BOTH, TrainSettings

SCHEDULE_FREE = {"trains": BOTH, **with_optimizer("schedule-free adamw")}


@pytest.mark.parametrize("changed", [{}, EVERYTHING, SCHEDULE_FREE], ids=["", "ema", "averaged"])
@pytest.mark.parametrize("failure", [torch.OutOfMemoryError, OSError, InputError])
def test_a_failing_preview_never_ends_a_run(
    tmp_path: Path, failure: type, changed: dict, caplog: pytest.LogCaptureFixture
) -> None:
    """And leaves the weights as they are trained, not as they were shown."""
    seen = []

    def preview(done: int) -> None:
        seen.append((done, torch.is_grad_enabled()))
        raise failure(*["no room for a picture"] * (3 if failure is InputError else 1))

    settings = replace(QUICK, preview_every=2, steps=5, **changed)
    run(tmp_path, settings, preview=preview)
    assert seen == [(0, False), (2, False), (4, False), (5, False)]
    assert "no room for a picture" in caplog.text
    assert "The preview after 4 steps failed" in caplog.text
    run(tmp_path / "without", replace(settings, preview_every=0))
    assert_same_end(tmp_path, tmp_path / "without")


class NeverValidated(TinyDenoiser):
    def loss(self, *given: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            raise RuntimeError("no loss for you")
        return super().loss(*given)


def test_a_failing_validation_never_ends_a_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = replace(QUICK, validation=1, validate_every=3, **EVERYTHING)
    run(tmp_path, settings, denoiser=NeverValidated())
    assert caplog.text.count("RuntimeError: no loss for you") == 2
    assert "The validation after 3 steps failed" in caplog.text
    run(tmp_path / "whole", settings)
    assert_equal(state(tmp_path).tensors, state(tmp_path / "whole").tensors)
    assert not any("loss_validation" in one for one in records(tmp_path))


def full_after(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """From the flush `count` on the disk has no room."""
    left, flush = [count], os.fsync

    def fsync(handle: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        flush(handle)

    monkeypatch.setattr(os, "fsync", fsync)


def flushes_until(folder: Path, steps: int) -> int:
    """How often is flushed until a state after so many steps is safe."""
    seen, flush = [], os.fsync

    def fsync(handle: int) -> None:
        seen.append(RunFolder(folder / "run").steps())
        flush(handle)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "fsync", fsync)
        run(folder)
    return next(place for place, there in enumerate(seen) if steps in there) + 1


@pytest.mark.parametrize("further", [0, 1, 2])
def test_a_full_disk_ends_the_run_and_loses_no_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, further: int
) -> None:
    """It is met when the log is flushed, or the next state is, or the folder that holds it."""
    count = flushes_until(tmp_path / "whole", 2) + further
    full_after(monkeypatch, count)
    with pytest.raises(InputError, match=r"`output`: expected room .*No space left on device"):
        run(tmp_path)
    monkeypatch.undo()
    assert state(tmp_path).step == (4 if further == 2 else 2)
    assert list((tmp_path / "run").rglob("*.part")) == []
    run(tmp_path)
    assert_same_end(tmp_path, tmp_path / "whole")


def test_a_disk_without_room_for_a_record_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Path.open

    def full(self: Path, mode: str = "r", *args: object, **kwargs: object) -> object:
        if mode == "a" and len(records(tmp_path)) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return opened(self, mode, *args, **kwargs)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(InputError, match=r"`output`: expected room to write .*log\.jsonl"):
        run(tmp_path)
    monkeypatch.undo()
    # No state is saved without its record: what comes of it is whole.
    assert RunFolder(tmp_path / "run").steps() == [2]
    run(tmp_path)
    run(tmp_path / "whole")
    assert_same_end(tmp_path, tmp_path / "whole")


def test_a_failing_export_loses_nothing(tmp_path: Path) -> None:
    def full(*_: object) -> dict[str, Path]:
        raise InputError("output", "room", "none")

    with pytest.raises(InputError, match="room"):
        run(tmp_path, export=full)
    export = Exports(tmp_path)
    steps = []
    run(tmp_path, export=export, on_step=steps.append)
    assert steps == []
    assert [count for _, count in export.kept] == [6]
    run(tmp_path / "whole")
    assert_same_end(tmp_path, tmp_path / "whole")


def interrupted(
    monkeypatch: pytest.MonkeyPatch, owner: type, method: str, call: int, after: bool
) -> None:
    """Ctrl+C in a call of a method: at its beginning, or at its very end."""
    left, plain = [call], getattr(owner, method)

    def hit(self: object, *args: object, **kwargs: object) -> object:
        left[0] -= 1
        if left[0] == 0 and not after:
            raise KeyboardInterrupt
        result = plain(self, *args, **kwargs)
        if left[0] == 0:
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(owner, method, hit)


@pytest.mark.parametrize(
    ("owner", "method", "call", "after", "saved"),
    [
        (torch.optim.AdamW, "step", 4, True, 2),  # the weights are changed, the rest is not
        (torch.optim.AdamW, "step", 4, False, 2),
        (Session, "after_step", 4, False, 2),  # the step is made, and nobody knows of it yet
        (TinyDenoiser, "loss", 4, False, 3),  # nothing of the step has been done
        (TinyDenoiser, "loss", 4, True, 3),
        (RunLog, "add", 4, False, 2),  # the step is made, but not in the log
        (RunFolder, "save", 2, False, 4),  # tried again
    ],
)
def test_a_state_is_of_whole_steps_wherever_a_run_is_interrupted(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    owner: type,
    method: str,
    call: int,
    after: bool,
    saved: int,
) -> None:
    settings = replace(QUICK, **EVERYTHING)
    interrupted(monkeypatch, owner, method, call, after)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, settings)
    monkeypatch.undo()
    assert state(tmp_path).step == saved
    run(tmp_path, settings)
    run(tmp_path / "whole", settings)
    assert_same_end(tmp_path, tmp_path / "whole")


def _cancel(folder: Path, settings: TrainSettings, given: dict, _: pytest.MonkeyPatch) -> None:
    with pytest.raises(Stop):
        run(folder, settings, on_step=stop_at(3), **given)


def _go_bad(folder: Path, settings: TrainSettings, given: dict, _: pytest.MonkeyPatch) -> None:
    given["denoiser"].bad = at(2, 3, 4)
    with pytest.raises(NonFiniteError):
        run(folder, settings, **given)


def _fill(folder: Path, settings: TrainSettings, given: dict, patch: pytest.MonkeyPatch) -> None:
    full_after(patch, 9)
    with pytest.raises(InputError):
        run(folder, settings, **given)


def _tear(folder: Path, settings: TrainSettings, given: dict, patch: pytest.MonkeyPatch) -> None:
    interrupted(patch, torch.optim.AdamW, "step", 4, True)
    with pytest.raises(KeyboardInterrupt):
        run(folder, settings, **given)


def _finish(folder: Path, settings: TrainSettings, given: dict, _: pytest.MonkeyPatch) -> None:
    run(folder, settings, **given)


@pytest.mark.parametrize("end", [_finish, _cancel, _go_bad, _fill, _tear])
@pytest.mark.parametrize("changed", [{}, EVERYTHING], ids=["lora", "everything"])
def test_nothing_stays_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: Callable, changed: dict
) -> None:
    settings = replace(QUICK, preview_every=2, validation=1, **changed)
    denoiser = BadDenoiser({})
    given = {"denoiser": denoiser, "style_set": tiny_set(tmp_path / "set")}
    given |= {"export": lambda learned, steps: {}, "preview": lambda done: None}
    run(tmp_path / "first", settings, **given)  # what is made once and for all is made now
    denoiser.step = 0
    before, held = traces(denoiser), live_bytes()
    logging.disable()  # else pytest keeps the errors that are logged, and what they hold
    try:
        end(tmp_path, settings, given, monkeypatch)
    finally:
        logging.disable(logging.NOTSET)
    gc.collect()
    assert traces(denoiser) == before
    assert denoiser.words == {}
    model = sum(p.nbytes for m in (denoiser.network, denoiser.encoder) for p in m.parameters())
    assert abs(live_bytes() - held) < 0.01 * model


def traces(denoiser: TinyDenoiser) -> list[tuple]:
    """All that a run may leave in a model: layers, hooks, gradients, other values."""
    found = []
    for network in (denoiser.network, denoiser.encoder):
        for path, module in network.named_modules():
            own = sorted(vars(module))
            hooks = [len(v) for k, v in vars(module).items() if k.endswith("_hooks")]
            found.append((path, id(module), type(module), module.training, *own, *hooks))
        for name, value in network.named_parameters():
            marks = (value.requires_grad, value.grad is None, value.is_leaf)
            found.append((name, id(value), *marks, value.detach().numpy().tobytes()))
    return found
