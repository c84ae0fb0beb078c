"""The trials' loop: the library's to the bit where nothing differs, and else not."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
from small_runs import assert_equal, tensors
from stylebench_trials import SETTINGS, run, two_negatives
from tiny_denoiser import TinyDenoiser

from benchmarks.stylebench.cell import train_cell
from benchmarks.stylebench.trials.choice import Trial
from benchmarks.stylebench.trials.loop import train_trial
from nsync.errors import InputError
from nsync.rules import RULES

TRIALS = {
    "several, mean": (Trial(several="mean"), {}),
    "several, span": (Trial(several="span"), {}),
    "average": (Trial(average=0.7), {"rule": "nsync"}),
    "metric": (Trial(metric="adam"), {"rule": "overlap", "precision": "bf16"}),
    "low noise": (Trial(times="low noise"), {"rule": "nsync"}),
    "high noise": (Trial(times="high noise"), {"scope": "tensor"}),
    "at the start": (Trial(negatives_at="start"), {}),
    "bounded": (Trial(beta=50.0), {"rule": "contrast", "precision": "bf16"}),
    "prior": (Trial(prior=0.5), {"rule": "plain"}),
    "prior and a rule": (Trial(prior=0.5), {"rule": "nsync"}),
}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("rule", RULES)
def test_a_trial_without_a_difference_is_the_librarys_run(
    tmp_path: Path, rule: str, precision: str
) -> None:
    settings = replace(SETTINGS, rule=rule, precision=precision)
    ours, log = run(tmp_path / "ours", settings, Trial())
    theirs, their_log = run(tmp_path / "theirs", settings, None)
    assert_equal(tensors(ours), tensors(theirs))
    assert log == their_log
    assert [one["step"] for one in log[:4]] == [1, 2, 3, 4]
    assert log[0]["norm_update"] > SETTINGS.clip_norm
    assert [one["drawn"] for one in log if "drawn" in one] == [0, 2, 4]


@pytest.mark.parametrize("name", TRIALS)
def test_every_trial_trains_and_is_another_run(tmp_path: Path, name: str) -> None:
    trial, changed = TRIALS[name]
    settings = replace(SETTINGS, **changed)
    found, log = run(tmp_path / "trial", settings, trial)
    again, log_again = run(tmp_path / "again", settings, trial)
    other, _ = run(tmp_path / "library", settings, None)
    assert_equal(tensors(found), tensors(again))
    assert log == log_again
    for step, one in enumerate(log[:4], 1):
        assert one["step"] == step
        assert all(math.isfinite(value) for value in one.values())
        assert {"loss_positive", "norm_update", "rate"} <= one.keys()
    assert max((found.lora[key] - other.lora[key]).abs().max() for key in found.lora) > 1e-5


def test_a_cell_is_trained_by_a_trial(tmp_path: Path) -> None:
    looked = []

    def loop(*given: object, **named: object) -> None:
        train_trial(*given, trial=Trial(average=0.5), **named)

    log = train_cell(
        SETTINGS, TinyDenoiser(), two_negatives(tmp_path), (2, 4),
        lambda done, seconds: looked.append((done, seconds > 0)), loop,
    )  # fmt: skip
    assert looked == [(2, True), (4, True)]
    assert [one["step"] for one in log] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("trial", "changed", "told"),
    [
        (Trial(several="all"), {}, "`several`: expected one of mean, span; got 'all'"),
        (Trial(several="span"), {"rule": "overlap"}, "`several`: expected rule `projection`"),
        (Trial(several="span"), {"scope": "tensor"}, "`several`: expected rule `projection`"),
        (Trial(average=1.0), {}, "`average`: expected a decay above 0 and below 1"),
        (Trial(average=-0.1), {}, "`average`: expected a decay above 0 and below 1"),
        (Trial(average=0.5), {"rule": "plain"}, "`average`: expected a rule that turns against"),
        (Trial(metric="adam"), {"rule": "mean"}, "`metric`: expected a rule that turns against"),
        (Trial(metric="adam"), {"optimizer": "lion"}, "`metric`: expected the optimizer `adamw`"),
        (Trial(times="low noise"), {"shared_noise": True}, "`times`: expected uniform `times`"),
        (Trial(times="low noise"), {"times": "early"}, "`times`: expected uniform `times`"),
        (Trial(beta=3.0), {}, "`beta`: expected the rule `contrast`"),
        (Trial(beta=-3.0), {"rule": "contrast"}, "`beta`: expected a number above 0; got -3.0"),
        (Trial(prior=-1.0), {}, "`prior`: expected a number above 0"),
        (Trial(negatives="same style"), {"rule": "plain"}, "`negatives`: expected a rule with"),
        (Trial(prior=1.0, average=0.5), {}, "`trial`: expected one thing that differs"),
        (Trial(prior=1.0), {"trains": "embedding"}, "`trial`: expected an arm whose adapter"),
        (Trial(prior=1.0), {"caption_dropout": 0.1}, "`trial`: expected no `caption_dropout`"),
    ],
)
def test_what_cannot_be_tried_is_told(trial: Trial, changed: dict, told: str) -> None:
    with pytest.raises(InputError, match=told):
        trial.check(replace(SETTINGS, **changed), per_positive=2)


def test_several_negatives_have_to_be_painted() -> None:
    with pytest.raises(InputError, match="`several`: expected an arm with `per_positive` of 2"):
        Trial(several="mean").check(SETTINGS, per_positive=1)
    Trial(several="mean").check(SETTINGS, per_positive=2)
    Trial().check(replace(SETTINGS, trains="embedding"), per_positive=1)
