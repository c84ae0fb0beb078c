"""Bad numbers: a step is skipped as if it had never been, a run that cannot go on is saved."""

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from small_runs import (
    QUICK,
    Exports,
    Stop,
    as_if_on_a_device,
    assert_equal,
    assert_same_end,
    records,
    run,
    state,
    stop_at,
    tensors,
    with_optimizer,
)
from tiny_denoiser import TinyDenoiser
from torch import Tensor

from nsync.adapters import fresh
from nsync.layers import ATTENTION, select_layers
from nsync.optimizers import OPTIMIZERS
from nsync.runs.folder import RunFolder
from nsync.runs.log import DivergedError, NonFiniteError
from nsync.runs.session import StepReport
from nsync.settings import BOTH, EMBEDDING, LORA, TrainSettings

NAN, INF = float("nan"), float("inf")
EACH = replace(QUICK, save_every=1, keep_last=99)


class BadDenoiser(TinyDenoiser):
    """Gives bad numbers in some steps: in a loss of the first row, or in a gradient of the third.

    A pass holds two positives, two negatives and two anchors.

    Args:
        bad: what is bad by step, "loss" or "gradient", and the number that comes of it.
        begun: steps made before this denoiser is used.
    """

    def __init__(self, bad: Mapping[int, tuple[str, float]], begun: int = 0) -> None:
        super().__init__()
        self.bad, self.step = bad, begun

    def loss(self, *given: Tensor) -> Tensor:
        losses = super().loss(*given)
        if not torch.is_grad_enabled():
            return losses
        self.step += 1
        where, number = self.bad.get(self.step, ("", 1.0))
        if where == "loss":
            losses = losses * torch.tensor([number] + [1.0] * (len(losses) - 1))
        elif where == "gradient":
            factors = torch.tensor([1.0, 1.0, number] + [1.0] * (len(losses) - 3))
            losses.register_hook(lambda gradient: gradient * factors)
        return losses


def at(*steps: int, where: str = "loss", number: float = NAN) -> dict[int, tuple[str, float]]:
    return dict.fromkeys(steps, (where, number))


def states(folder: Path) -> dict[int, tuple[dict[str, Tensor], dict]]:
    """Tensors and numbers by step, of a run that saved a state after each."""
    found = {}
    for file in sorted((folder / "run" / "state").iterdir()):
        with safe_open(file, "pt") as opened:
            told = json.loads(opened.metadata()["nsync.state"])
            names = list(opened.keys())
            found[told["step"]] = {k: opened.get_tensor(k) for k in names}, told["scalars"]
    return found


def first_weights(settings: TrainSettings) -> dict[str, Tensor]:
    denoiser, found = TinyDenoiser(), {}
    if settings.trains_lora:
        layers = select_layers(denoiser.network, ATTENTION)
        low = fresh(layers, settings.rank, settings.alpha, settings.seed).values()
        found["weights.lora"] = torch.cat([f.flatten() for one in low for f in (one.down, one.up)])
    if settings.trains_embedding:
        found["weights.embedding"] = denoiser.word_vectors(settings.initial_word)["words"].flatten()
    return found


CASES = [
    *((name, trains, "gradient", NAN) for name in OPTIMIZERS for trains in (LORA, EMBEDDING)),
    *((name, BOTH, "loss", INF) for name in OPTIMIZERS),
]


@pytest.mark.parametrize(("optimizer", "trains", "where", "number"), CASES)
def test_a_bad_step_leaves_everything_as_it_was(
    tmp_path: Path, optimizer: str, trains: str, where: str, number: float
) -> None:
    """Weights, optimizer and average; the very first step, later ones, two running."""
    settings = replace(EACH, trains=trains, ema=0.9, **with_optimizer(optimizer))
    bad = at(1, 3, 4, where=where, number=number)
    result = run(tmp_path, settings, denoiser=BadDenoiser(bad))
    assert result.step == 6
    assert len(result.losses) == 3
    assert all(map(math.isfinite, result.losses))
    found = states(tmp_path)
    for bad_step in (3, 4):
        assert_equal(found[bad_step][0], found[2][0])
        assert found[bad_step][1] == found[2][1]
    begun = first_weights(settings)
    assert_equal({k: v for k, v in found[1][0].items() if k in begun}, begun)
    assert not any("optimizer" in name for name in found[1][0])
    for kind in begun:  # and the run goes on
        for before, after in ((1, 2), (4, 5), (5, 6)):
            assert not torch.equal(found[before][0][kind], found[after][0][kind])
    if optimizer == "adamw":  # only steps that were made count
        assert {v.item() for k, v in found[6][0].items() if k.endswith("step")} == {3}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_device_skips_a_bad_step_without_being_asked(
    tmp_path: Path, optimizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything that it holds stays; numbers that the host counts by itself may run on."""
    as_if_on_a_device(monkeypatch)
    settings = replace(EACH, trains=BOTH, ema=0.9, **with_optimizer(optimizer))
    run(tmp_path, settings, denoiser=BadDenoiser(at(1, 3, 4, where="gradient")))
    kept = {step: held for step, (held, _) in states(tmp_path).items()}
    for one in kept.values():
        del one["ema.updates"]
    assert_equal(kept[3], kept[2])
    assert_equal(kept[4], kept[2])
    begun = first_weights(settings)
    assert_equal({k: kept[1][k] for k in begun}, begun)
    assert not any("optimizer" in name for name in kept[1])  # else the second were no first step
    for kind in begun:
        assert not torch.equal(kept[1][kind], kept[2][kind])
        assert not torch.equal(kept[4][kind], kept[5][kind])
        assert kept[6][kind].isfinite().all()


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_bad_step_is_named_with_its_items(
    tmp_path: Path, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    reports: list[StepReport] = []
    denoiser = BadDenoiser(at(2, where=where))
    run(tmp_path, QUICK, denoiser=denoiser, on_step=reports.append)
    said = reports[1].warning
    pattern = {
        "loss": "The loss is NaN or infinite at step 2 for: positive picture_",
        "gradient": "The gradient is NaN or infinite at step 2 for: negative picture_",
    }
    assert said.startswith(pattern[where])
    assert said.count("picture_") == {"loss": 1, "gradient": 2}[where]
    assert said.count("negative") == {"loss": 0, "gradient": 2}[where]
    assert said.endswith("The step was skipped.")
    assert [report.warning for report in reports] == ["", said, "", "", "", ""]
    assert [one.get("warning", "") for one in records(tmp_path)] == ["", said, "", "", "", ""]
    assert f"Step 2: {said}" in caplog.text
    bad = records(tmp_path)[1]
    assert bad["loss_positive" if where == "loss" else "norm_negative"] is None
    for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)


@pytest.mark.parametrize("first", [1, 3])
@pytest.mark.parametrize("on_a_device", [False, True])
def test_three_bad_steps_running_end_the_run_with_the_last_good_weights(
    tmp_path: Path, first: int, on_a_device: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if on_a_device:
        as_if_on_a_device(monkeypatch)
    settings, export = replace(QUICK, steps=9, log_every=6, save_every=0), Exports(tmp_path)
    bad = at(first, first + 1, first + 2, where="gradient")
    with pytest.raises(NonFiniteError) as caught:
        run(tmp_path, settings, denoiser=BadDenoiser(bad), export=export)
    done = 6 if on_a_device else first + 2  # a device tells when it is asked
    text = str(caught.value)
    assert f"at step {first + 2} for: negative picture_" in text
    assert "It is the 3rd such step running. " in text
    assert f"Stopped after {done} steps; the last good weights: saved as {tmp_path}" in text
    assert f"lora_{done}.safetensors" in text
    assert [one["step"] for one in records(tmp_path)] == list(range(1, done + 1))
    assert state(tmp_path).step == done
    if not on_a_device:
        assert_equal(tensors(export.last), _good(tmp_path / "good", first - 1))
        # What was wrong with the model is mended, and the run goes on.
        assert run(tmp_path, settings).step == 9


def _good(folder: Path, steps: int) -> dict[str, Tensor]:
    """The weights after so many good steps."""
    if not steps:
        low = fresh(select_layers(TinyDenoiser().network, ATTENTION), 2, 2.0, 0)
        downs = {f"{key}.lora_A": one.down for key, one in low.items()}
        return downs | {f"{key}.lora_B": one.up for key, one in low.items()}
    export = Exports(folder)
    run(folder, replace(QUICK, steps=steps), export=export)
    return tensors(export.last)


def test_two_bad_steps_and_a_good_one_are_no_reason_to_stop(tmp_path: Path) -> None:
    settings = replace(QUICK, steps=9)
    result = run(tmp_path, settings, denoiser=BadDenoiser(at(1, 2, 4, 5, 7, 8)))
    assert (result.step, len(result.losses)) == (9, 3)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("when", [1, 2, 4])
def test_a_run_stopped_at_a_bad_step_goes_on_as_if_it_were_not(
    tmp_path: Path, optimizer: str, when: int
) -> None:
    settings = replace(QUICK, trains=BOTH, ema=0.9, **with_optimizer(optimizer))
    bad = at(1, 2, 4, where="gradient")
    whole = run(tmp_path / "whole", settings, denoiser=BadDenoiser(bad))
    with pytest.raises(Stop):
        run(tmp_path, settings, denoiser=BadDenoiser(bad), on_step=stop_at(when))
    again = run(tmp_path, settings, denoiser=BadDenoiser(bad, when))
    assert again.losses == whole.losses
    assert_same_end(tmp_path, tmp_path / "whole")


class Exploding(TinyDenoiser):
    """Gets worse and worse from some step on, as if the weights had run away."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.left = after

    def loss(self, *given: Tensor) -> Tensor:
        self.left -= 1
        return super().loss(*given) * 1.1 ** max(0, -self.left)


@pytest.mark.parametrize("on_a_device", [False, True])
def test_an_exploding_loss_ends_the_run_before_the_night_is_over(
    tmp_path: Path, on_a_device: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if on_a_device:
        as_if_on_a_device(monkeypatch)
    settings = replace(QUICK, rule="plain", steps=10_000, save_every=30, log_every=10)
    with pytest.raises(DivergedError) as caught:
        run(tmp_path, settings, denoiser=Exploding(40))
    text = str(caught.value)
    assert "The loss has exploded" in text
    assert "Lower the learning rate, or lengthen the warm-up." in text
    assert "last good weights" not in text
    assert f"; the weights: saved as {tmp_path}" in text
    done = records(tmp_path)[-1]["step"]
    assert 45 < done <= 100
    assert RunFolder(tmp_path / "run").steps()[-1] == done // 30 * 30  # not the exploded ones
