"""The log, and the watch over it: alarms where there is cause, silence where there is none."""

import json
from pathlib import Path

import numpy as np
import pytest

from nsync.runs.log import DivergedError, LossWatch, NonFiniteError, RunLog, ShareWatch

BAD = {"loss_positive": float("nan"), "removed": 0.1}
FAULT = "The loss is NaN."


def noise_prediction(steps: int, batch: int, seed: int) -> np.ndarray:
    """Losses as Stable Diffusion has them: 0.7 at little noise, 0.002 at pure noise, and a spread
    from picture to picture; times uniform."""
    source = np.random.default_rng(seed)
    times = source.random((steps, batch))
    spread = np.exp(0.5 * source.standard_normal((steps, batch)))
    return (0.7 * np.exp(-6 * times) * spread).mean(1)


def velocity_prediction(steps: int, batch: int, seed: int) -> np.ndarray:
    """Losses of flow matching: highest at both ends."""
    source = np.random.default_rng(seed)
    times = source.random((steps, batch))
    spread = np.exp(0.5 * source.standard_normal((steps, batch)))
    return ((0.3 + 3 * (times - 0.5) ** 2) * spread).mean(1)


KINDS = (noise_prediction, velocity_prediction)


def alarm(losses: np.ndarray) -> int | None:
    """The step at which the watch says something."""
    watch = LossWatch()
    return next((step for step, loss in enumerate(losses) if watch.see(float(loss))), None)


@pytest.mark.parametrize("losses", KINDS)
@pytest.mark.parametrize("batch", [1, 2])
def test_a_noisy_loss_is_no_exploding_one(losses, batch: int) -> None:
    assert [alarm(losses(5000, batch, seed)) for seed in range(20)] == [None] * 20


@pytest.mark.parametrize("losses", KINDS)
def test_a_loss_that_training_lowers_or_an_outlier_is_no_exploding_one(losses) -> None:
    falling = losses(2000, 2, 0) * np.geomspace(1, 0.3, 2000)
    falling[::97] *= 1000
    assert alarm(falling) is None


@pytest.mark.parametrize("losses", KINDS)
@pytest.mark.parametrize("begin", [30, 300, 3000])
def test_an_exploding_loss_is_told_soon(losses, begin: int) -> None:
    """Wherever the network has come to predict noise of its own, at any time."""
    for seed in range(5):
        found = losses(begin + 200, 2, seed)
        found[begin:] += np.geomspace(1, 10, 200)
        assert begin < alarm(found) < begin + 150
        found[begin:] *= 1e30
        assert begin <= alarm(found) < begin + 5


def test_what_is_said_of_an_exploded_loss_names_figures_and_remedy() -> None:
    watch = LossWatch()
    said = [watch.see(0.5) for _ in range(100)] + [watch.see(0.5 * 5.02) for _ in range(100)]
    assert not any(said[:-1])
    assert said[-1] == (
        "The loss has exploded: 2.51 in the geometric mean of the last 100 steps, after 0.5. "
        "Lower the learning rate, or lengthen the warm-up."
    )
    assert not any(LossWatch().see(0.0) for _ in range(200))


@pytest.mark.parametrize(("share", "word"), [(0.005, "too far"), (0.7, "too near"), (0.3, "")])
def test_negatives_too_far_or_near_are_told(share: float, word: str) -> None:
    watch = ShareWatch()
    told = [watch.see(share) for _ in range(120)]
    assert word in told[49]
    assert [i for i, text in enumerate(told) if text] == ([49, 99] if word else [])
    assert not any(ShareWatch().see(None) for _ in range(60))
    assert not any(watch.see(0.7 if i % 10 else 0.5) for i in range(200))


def good(loss: float = 0.5, removed: float = 0.3) -> dict[str, float]:
    return {"loss_positive": loss, "removed": removed}


def test_records_are_lines_of_strict_json(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "log.jsonl")
    log.add(1, good(1 / 3))
    log.add(2, BAD | {"norm": float("inf"), "rate": 1e-4}, FAULT)
    log.note(2, {"loss_validation": 0.25})
    log.flush()

    def never(name: str) -> None:
        raise AssertionError(name)

    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert [json.loads(line, parse_constant=never) for line in lines] == [
        {"step": 1, "loss_positive": 1 / 3, "removed": 0.3},
        {
            "step": 2,
            "loss_positive": None,
            "removed": 0.1,
            "norm": None,
            "rate": 1e-4,
            "warning": "The loss is NaN. The step was skipped.",
        },
        {"step": 2, "loss_validation": 0.25},
    ]
    assert log.losses == [1 / 3]
    assert log.validated == 2


def story() -> list[tuple[dict[str, float], str]]:
    """Steps that a watch remembers: shares near an alarm, bad steps, a loss that rises."""
    steps = [(good(removed=0.7), "")] * 45
    steps += [(BAD, FAULT)] * 2
    steps += [(good(removed=0.7), "")] * 10
    steps += [({"loss_positive": 99.0, "removed": 0.0}, "The gradient is NaN.")] * 2
    return steps + [(good(0.5 * 1.1**i, 0.7), "") for i in range(100)]


@pytest.mark.parametrize("when", [1, 44, 46, 47, 49, 55, 58, 59, 60, 90])
def test_a_log_that_is_read_again_goes_on_watching_as_if_it_had_never_stopped(
    tmp_path: Path, when: int
) -> None:
    def tell(log: RunLog, begin: int, end: int) -> list[str]:
        said = []
        for step, (values, fault) in list(enumerate(story(), start=1))[begin:end]:
            try:
                said.append(log.add(step, values, fault))
            except DivergedError as error:
                return [*said, str(error)]
        return said

    path = tmp_path / "log.jsonl"
    whole = tell(RunLog(tmp_path / "whole.jsonl"), 0, 1000)
    assert "too near" in whole[51]
    assert "exploded" in whole[-1]
    assert len(whole) > 100
    first = tell(RunLog(path), 0, when)
    again = RunLog(path, [json.loads(line) for line in path.read_text().splitlines()])
    assert first + tell(again, when, 1000) == whole
    assert (tmp_path / "whole.jsonl").read_text() == path.read_text()


@pytest.mark.parametrize("before", [0, 1, 2])
def test_bad_steps_are_counted_across_a_stop(tmp_path: Path, before: int) -> None:
    path = tmp_path / "log.jsonl"
    log = RunLog(path)
    log.add(1, good())
    for step in range(2, 2 + before):
        log.add(step, BAD, FAULT)
    log = RunLog(path, [json.loads(line) for line in path.read_text().splitlines()])
    for step in range(2 + before, 4):
        log.add(step, BAD, FAULT)
    with pytest.raises(NonFiniteError, match="the 3rd such step running"):
        log.add(4, BAD, FAULT)
    # Whoever goes on after that gets three new ones.
    log = RunLog(path, [json.loads(line) for line in path.read_text().splitlines()])
    for step in (5, 6):
        log.add(step, BAD, FAULT)
    with pytest.raises(NonFiniteError):
        log.add(7, BAD, FAULT)
