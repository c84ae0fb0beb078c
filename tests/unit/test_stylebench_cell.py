"""One cell: looked at at the right steps, by looks that change nothing."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from test_stylebench_study import GOOD, written
from tiny_denoiser import TinyDenoiser, tiny_set

from benchmarks.stylebench.cell import Looked, records, train_cell
from benchmarks.stylebench.study import Cell
from benchmarks.stylebench.study_file import read_study
from nsync.settings import TrainSettings

SETTINGS = TrainSettings(
    rule="projection", steps=30, rank=2, alpha=2.0, learning_rate=1e-2, preview_every=10,
    save_every=0, warmup=0,
)  # fmt: skip


def weights(denoiser: TinyDenoiser) -> list[torch.Tensor]:
    """What the adapters do now: a prediction, since the layers are the host's to name."""
    noisy, times = torch.ones(1, 4, 4, 4), torch.full((1,), 0.5)
    return denoiser.network(noisy, times, torch.ones(1, 10, 8))


def test_looks_come_at_their_steps_and_see_what_was_learned(tmp_path: Path) -> None:
    denoiser, seen = TinyDenoiser(), []
    before = weights(denoiser)
    log = train_cell(
        SETTINGS, denoiser, tiny_set(tmp_path), (20, 30),
        lambda done, seconds: seen.append((done, seconds, weights(denoiser))),
    )  # fmt: skip
    assert [done for done, *_ in seen] == [20, 30]
    assert 0 < seen[0][1] < seen[1][1]
    assert not torch.equal(seen[0][2], before)
    assert not torch.equal(seen[0][2], seen[1][2])
    assert torch.equal(weights(denoiser), before)
    assert [entry["step"] for entry in log] == list(range(1, 31))


def test_a_look_changes_nothing(tmp_path: Path) -> None:
    def busy(_: int, __: float) -> None:
        torch.manual_seed(7)
        torch.rand(1000).sort()
        with torch.amp.autocast("cpu", torch.bfloat16):
            weights(denoiser)

    denoiser, style_set = TinyDenoiser(), tiny_set(tmp_path)
    often = train_cell(replace(SETTINGS, preview_every=1), denoiser, style_set, range(31), busy)
    never = train_cell(SETTINGS, denoiser, style_set, (30,), lambda *_: None)
    drop = [[{k: v for k, v in one.items() if k != "seconds"} for one in log]
            for log in (often, never)]  # fmt: skip
    assert drop[0] == drop[1]


def test_time_spent_in_looks_does_not_count(tmp_path: Path) -> None:
    import time

    seen = []

    def slow(_: int, seconds: float) -> None:
        seen.append(seconds)
        time.sleep(1.0)

    train_cell(SETTINGS, TinyDenoiser(), tiny_set(tmp_path), (10, 20, 30), slow)
    assert seen[2] - seen[0] < 1.0


def test_a_failed_look_ends_the_cell(tmp_path: Path) -> None:
    looked = []

    def fail(done: int, _: float) -> None:
        looked.append(done)
        raise OSError("the disk is full")

    for measure_at in ((10, 30), (30,)):
        with pytest.raises(OSError, match="the disk is full"):
            train_cell(SETTINGS, TinyDenoiser(), tiny_set(tmp_path), measure_at, fail)
    assert looked[0] == 10


class Exploding(TinyDenoiser):
    """Its loss grows by a tenth every step from the 41st on."""

    calls = 0

    def loss(self, *given: object) -> torch.Tensor:
        self.calls += 1
        return super().loss(*given) * 1.1 ** max(0, self.calls - 40)


def test_a_run_that_falls_apart_is_looked_at_once_more(tmp_path: Path) -> None:
    settings = replace(SETTINGS, steps=400, preview_every=20)
    looked = []
    log = train_cell(
        settings, Exploding(), tiny_set(tmp_path), (20, 300), lambda n, _: looked.append(n)
    )
    assert looked[0] == 20
    assert len(looked) == 2
    assert 40 < looked[1] < 300
    assert log[-1]["step"] == looked[1]


def test_records_hold_what_came_between(tmp_path: Path) -> None:
    study = read_study(written(tmp_path, GOOD))
    log = [{"step": step, "cos_negative": step / 100, "removed": 0.5} for step in range(1, 31)]
    found = {20: Looked(2.0, {"style_hit": 0.25}), 30: Looked(3.0, {"style_hit": 0.5})}
    first, second = records(study, Cell("neon", "LoRA", "nsync", 3), found, log)
    assert first | {"metrics": None} == {
        "study": "good", "style": "neon", "adapter": "LoRA", "arm": "nsync", "seed": 3, "step": 20,
        "positives_seen": 80, "pictures_seen": 240, "passes": 240, "seconds": 2.0,
        "cores": torch.get_num_threads(), "metrics": None,
    }  # fmt: skip
    assert first["metrics"] == pytest.approx(
        {"style_hit": 0.25, "cos_negative": sum(range(1, 21)) / 2000, "removed": 0.5}
    )
    assert second["metrics"]["cos_negative"] == pytest.approx(sum(range(21, 31)) / 1000)


def test_without_negatives_there_is_no_cosine(tmp_path: Path) -> None:
    study = read_study(written(tmp_path, GOOD))
    found = {step: Looked(1.0, {}) for step in (20, 30)}
    log = [{"step": step, "loss_positive": 1.0} for step in range(1, 31)]
    for record in records(study, Cell("neon", "LoRA", "plain 3", 3), found, log):
        assert record["metrics"] == {"cos_negative": None, "removed": None}
        assert record["positives_seen"] == record["pictures_seen"] == 12 * record["step"]


def test_the_last_look_stands_for_what_would_have_come(tmp_path: Path) -> None:
    study = read_study(written(tmp_path, GOOD))
    log = [{"step": step, "cos_negative": 0.5, "removed": 0.5} for step in range(1, 13)]
    found = {12: Looked(1.2, {"style_hit": 0.1})}
    made = records(study, Cell("neon", "LoRA", "nsync", 3), found, log)
    assert [(one["step"], one["fell_apart"], one["positives_seen"]) for one in made] == [
        (20, 12, 48), (30, 12, 48),
    ]  # fmt: skip
    assert made[0]["metrics"] == made[1]["metrics"] == {
        "style_hit": 0.1, "cos_negative": 0.5, "removed": 0.5,
    }  # fmt: skip


def test_a_longer_run_has_its_records_at_the_studys_steps(tmp_path: Path) -> None:
    data = yaml.safe_load(yaml.safe_dump(GOOD))
    data["arms"]["longer"] = {"settings": {"rule": "plain", "batch": 4}, "longer": 3}
    study = read_study(written(tmp_path, data))
    cell = Cell("neon", "LoRA", "longer", 3)
    assert study.looks(study.arm("longer")) == (60, 90)
    assert (study.settings(cell).steps, study.settings(cell).preview_every) == (90, 30)
    found = {60: Looked(2.0, {"style_hit": 0.25}), 90: Looked(3.0, {"style_hit": 0.5})}
    first, second = records(study, cell, found, [])
    assert (first["step"], second["step"]) == (20, 30)
    assert (first["pictures_seen"], second["pictures_seen"]) == (240, 360)
    assert "fell_apart" not in first | second
    _, apart = records(study, cell, {60: found[60], 75: found[90]}, [])
    assert (apart["step"], apart["pictures_seen"], apart["fell_apart"]) == (30, 300, 75)
