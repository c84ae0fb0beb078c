"""Modules are trained by the same mechanism as a LoRA: whole steps, exact resume, equal words."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from module_runs import Duel, Duellists, held, modules_as_if_on_a_device, run_duel
from small_runs import Stop, assert_equal, assert_same_end, records, run, state, stop_at

from nsync.errors import InputError
from nsync.runs.log import DivergedError, NonFiniteError


@pytest.mark.parametrize("step", [1, 3, 4, 5])
def test_modules_stopped_and_gone_on_with_were_never_stopped(tmp_path: Path, step: int) -> None:
    """Weights, running statistics, both optimizers, the average, and the log."""
    with pytest.raises(Stop):
        run_duel(tmp_path / "stopped", on_step=stop_at(step))
    assert state(tmp_path / "stopped").step == step
    kept: list = []
    result = run_duel(tmp_path / "stopped", kept=kept)
    whole = run_duel(tmp_path / "whole", kept=kept)
    assert_same_end(tmp_path / "stopped", tmp_path / "whole")
    assert result.losses == whole.losses
    assert len(result.losses) == 6
    assert {n.split(".")[0] for n in state(tmp_path / "whole").tensors} == {
        "painter",
        "judge",
        "optimizer",
        "average",
    }
    for module in ("painter", "judge", "average"):
        assert_equal(kept[0][module], kept[1][module])
    assert not torch.equal(kept[0]["painter"]["0.weight"], kept[0]["average"]["0.weight"])
    assert [r["step"] for r in records(tmp_path / "stopped") if "loss_validation" in r] == [3, 6]


@pytest.mark.parametrize("device", [False, True], ids=["", "as if on a device"])
@pytest.mark.parametrize("bad", [0, 3])
@pytest.mark.parametrize("where", ["noise", "painted"])
def test_a_bad_step_of_modules_was_never_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: bool, bad: int, where: str
) -> None:
    """Also where the judge's half of it was good, and where running statistics became NaN."""
    if device:
        modules_as_if_on_a_device(monkeypatch)
    seen = []
    duellists = Duellists({bad: where})

    def remember(report: object) -> None:
        seen.append(held(duellists))

    run_duel(tmp_path, duellists=duellists, on_step=remember)
    before = held(Duellists()) if bad == 0 else seen[bad - 1]
    after = seen[bad]
    if bad == 0:
        assert not any(name.startswith("optimizer") for name in after)
    assert_equal({k: v for k, v in after.items() if "updates" not in k}, _without(before))
    assert not torch.equal(seen[-1]["painter.0.weight"], after["painter.0.weight"])
    assert all(value.isfinite().all() for value in seen[-1].values())
    [told] = [one for one in records(tmp_path) if "warning" in one]
    assert told["step"] == bad + 1
    names = "norm_painter" if where == "painted" else "norm_judge, norm_painter"
    losses = "loss_painter" if where == "painted" else "loss_painter, loss_judge"
    text = f"NaN or infinite at step {bad + 1}: {losses}, {names}. The step was skipped."
    assert told["warning"] == text


def _without(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value for name, value in tensors.items() if "updates" not in name}


def test_on_a_cpu_a_bad_step_does_not_count_in_the_average(tmp_path: Path) -> None:
    run_duel(tmp_path, duellists=Duellists({1: "painted"}))
    assert int(state(tmp_path).tensors["average.updates"]) == 5


def test_what_is_raised_in_the_midst_of_a_step_undoes_it(tmp_path: Path) -> None:
    """The judge has been updated by then; the state that is saved is that of whole steps."""

    def interrupt(step: int) -> None:
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_duel(tmp_path / "torn", duellists=Duellists(told=interrupt))
    assert state(tmp_path / "torn").step == 3
    run_duel(tmp_path / "torn")
    run_duel(tmp_path / "whole")
    assert_same_end(tmp_path / "torn", tmp_path / "whole")


def test_three_bad_steps_running_stop_the_modules_run(tmp_path: Path) -> None:
    spoil = dict.fromkeys((2, 3, 4), "painted")
    with pytest.raises(NonFiniteError, match=r"It is the 3rd such step running.*painter_5"):
        run_duel(tmp_path, duellists=Duellists(spoil))
    assert len([one for one in records(tmp_path) if "warning" in one]) == 3


def test_numbers_are_read_in_blocks_on_a_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modules_as_if_on_a_device(monkeypatch)
    read = []
    settings = replace(Duel(), save_every=0, validate_every=100)
    run_duel(tmp_path, settings, on_step=lambda report: read.append(len(records(tmp_path))))
    assert read == [0, 0, 0, 4, 4, 6]


def test_the_divergence_watch_can_be_off(tmp_path: Path) -> None:
    """The painter's loss is a difference of scores and rises by far."""
    settings = replace(Duel(), steps=60, seed=5)
    loss = {0: 1e-3}

    class Rising(Duellists):
        def step(self, session, settings, step):
            with self.learner.attempt() as attempt:
                loss[0] *= 1.3
                numbers = {"loss_painter": torch.tensor(loss[0])}
                attempt.good = session.readings.add(step + 1, numbers, {})

    assert run_duel(tmp_path / "off", settings, Rising()).over
    with pytest.raises(DivergedError, match="exploded"):
        run_duel(tmp_path / "on", settings, Rising(), watched=True)


def test_modules_are_shown_in_evaluation_mode_and_trained_in_training_mode(tmp_path: Path) -> None:
    duellists, modes = Duellists(), []
    run_duel(
        tmp_path,
        replace(Duel(), preview_every=3),
        duellists,
        preview=lambda done: modes.append((done, duellists.painter.training)),
    )
    assert modes == [(0, False), (3, False), (6, False)]
    assert duellists.painter.training


def test_a_folder_with_another_run_is_refused_in_the_same_words(tmp_path: Path) -> None:
    with pytest.raises(Stop):
        run_duel(tmp_path, on_step=stop_at(3))
    text = (
        r"(?s)`name`: expected the settings of the run run, which has made 3 steps; got other "
        r"ones:\n  `rate` was 0\.05, is 0\.1\n"
        r"  the pictures, captions or labels of the set: was 'aaaa', is 'bbbb'\. "
        r"\nSet them back .*`if_run_exists` to 'start anew'"
    )
    with pytest.raises(InputError, match=text):
        run_duel(tmp_path, replace(Duel(), rate=0.1), config={"labelled": "bbbb"})
    with pytest.raises(InputError, match="`steps`: expected at least 3, which the run run has"):
        run_duel(tmp_path, replace(Duel(), steps=2))
    with pytest.raises(InputError, match=r"what is taught: was 'a duel', is 'a style'"):
        run(tmp_path)


def test_a_state_of_other_modules_is_refused() -> None:
    duellists = Duellists()
    tensors = held(duellists)
    tensors["judge.0.weight"] = torch.zeros(2, 2)
    with pytest.raises(InputError, match=r"judge\.0\.weight of shape \(8, 3\); got one of shape"):
        duellists.learner.load(tensors, {})
