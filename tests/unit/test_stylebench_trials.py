"""Every kind of trial as an arm of a study: two steps of the tiny base, measured as any other."""

import math
from pathlib import Path

import pytest
from test_stylebench_study import written

from benchmarks.stylebench.study import Cell, Study
from benchmarks.stylebench.study_file import read_study
from benchmarks.stylebench.workshop import Workshop

pytestmark = pytest.mark.slow

TWO = {"per_positive": 2}
AWAY = {"rule": "overlap"}
ARMS = {
    "plain": {"settings": {"rule": "plain"}},
    "plain 3x": {"settings": {"rule": "plain", "batch": 6}, "equal": "pictures"},
    "mean": {"settings": AWAY, "negatives": TWO, "trial": {"several": "mean"}},
    "span": {"settings": {"rule": "projection"}, "negatives": TWO, "trial": {"several": "span"}},
    "average": {"settings": AWAY, "trial": {"average": 0.9}},
    "adam": {"settings": AWAY, "trial": {"metric": "adam"}},
    "low": {"settings": AWAY, "trial": {"times": "low noise"}},
    "start": {"settings": AWAY, "trial": {"negatives_at": "start"}},
    "bounded": {"settings": {"rule": "contrast"}, "trial": {"beta": 100}},
    "prior": {"settings": {"rule": "plain"}, "trial": {"prior": 1.0}},
    "near": {"settings": AWAY, "trial": {"negatives": "same style"}},
    "far": {"settings": AWAY, "trial": {"negatives": "other captions"}},
    "no style": {"settings": AWAY, "negatives": {"words": [""], "template": "{caption}{word}"}},
}
STUDY = {
    "name": "trials", "kind": "tuning", "styles": ["basket"], "seeds": [0], "adapters": ["LoRA"],
    "positives": 4, "pictures": 4, "plain_pictures": 2, "measure_at": [2],
    "settings": {"batch": 2, "rank": 4, "alpha": 4.0, "learning_rate": 5.0e-4, "precision": "bf16"},
    "negatives": {"sampler": {"steps": 2, "guidance": 3.0}},
    "sampler": {"steps": 2, "guidance": 3.0},
    "arms": ARMS,
}  # fmt: skip


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return read_study(written(tmp_path_factory.mktemp("file"), STUDY))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("study")


@pytest.fixture(scope="module")
def workshop(study: Study, folder: Path) -> Workshop:
    made = Workshop(study, folder)
    made.prepare(0)
    return made


@pytest.mark.parametrize("name", ARMS)
def test_an_arm_is_trained_and_measured(
    study: Study, folder: Path, workshop: Workshop, name: str
) -> None:
    cell, before = Cell("basket", "LoRA", name, 0), sorted(folder.glob("shared/*/*"))
    [record] = workshop.run(cell)
    assert sorted(folder.glob("shared/*/*")) == before  # all was painted before
    branches = study.arm(name).branches
    assert record["step"] == 2
    assert record["pictures_seen"] == 2 * branches * (6 if name == "plain 3x" else 2)
    assert record["metrics"]["drift"] > 0
    values = [value for value in record["metrics"].values() if value is not None]
    assert all(map(math.isfinite, values))
    assert (folder / "pictures/basket/0/LoRA" / f"{name}.png").is_file()
