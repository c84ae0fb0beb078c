"""The ablation's machinery as a whole: a small study in processes, killed and gone on with."""

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.studies.records import read
from benchmarks.supcon.encoders import make_encoders
from benchmarks.supcon.report import report
from benchmarks.supcon.run import run_study
from benchmarks.supcon.study import REAL
from benchmarks.supcon.study_file import read_study
from nsync.pictures.images import image_size
from nsync.supcon.encoder_file import encoders_metadata

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
FILE = ROOT / "benchmarks" / "supcon" / "studies" / "short.yaml"
ALONE = """
import sys
from pathlib import Path
from benchmarks.supcon.run import run_study
from benchmarks.supcon.study_file import read_study
run_study(read_study(Path(sys.argv[1])), Path(sys.argv[2]), 1,
          tell=lambda line: print(line, flush=True))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study run at once, by two processes."""
    place = tmp_path_factory.mktemp("whole")
    outcome = run_study(read_study(FILE), place, 2)
    assert (outcome.done, outcome.cells, outcome.failed) == (5, 5, {})
    return place


def test_there_is_a_record_of_every_cell(folder: Path) -> None:
    records = read(folder / "records.jsonl")
    keys = [(r["family"], r["arm"]) for r in records]
    assert sorted(keys) == sorted(
        [(REAL, REAL), *((f, a) for f in ("SSA-GAN", "GALIP") for a in ("none", "supcon, both"))]
    )
    for record in records:
        assert record["metrics"]["frechet"] > 0
        assert 0 <= record["metrics"]["precision"] <= 1
        if record["family"] != REAL:
            assert set(record["seconds"]) == {"pretraining", "training", "measuring"}
            assert record["metrics"]["own_precision"] >= 0
            assert -2 <= record["metrics"]["own_margin"] <= 2
    found = {key: r["metrics"]["frechet"] for key, r in zip(keys, records, strict=True)}
    assert found["SSA-GAN", "none"] != found["SSA-GAN", "supcon, both"]


def test_encoders_are_shared(folder: Path) -> None:
    names = {file.stem for file in (folder / "shared").glob("*.safetensors")}
    uses = {
        f"pretraining_{k}_{u}_shape_one_0" for k in ("small", "clip") for u in ("none", "supcon")
    }
    assert names == uses | {"judge_one"}


def test_encoders_by_other_settings_are_not_taken(folder: Path, tmp_path: Path) -> None:
    study = read_study(FILE)
    one = next(study.pretraining_of(cell) for cell in study.cells() if cell.family != REAL)
    kept = make_encoders(study, one, folder / "shared")
    copy = tmp_path / kept.name
    shutil.copy(kept, copy)
    other = replace(study, pretraining=replace(study.pretraining, steps=3))
    made = make_encoders(other, one, tmp_path)
    assert made == copy
    assert encoders_metadata(made)["training"]["settings"]["steps"] == 3


def test_no_sheet_of_some_arms_replaces_a_whole_one(folder: Path, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    shutil.copytree(folder, clone)
    next(clone.glob("pictures/*/*/GALIP/none.png")).unlink()
    report(clone, tmp_path / "docs")
    assert {path.name for path in (tmp_path / "docs").glob("sheet_*")} == {"sheet_SSA-GAN.png"}


def test_the_report_is_written(folder: Path, tmp_path: Path) -> None:
    table = report(folder, tmp_path)
    assert "| SSA-GAN | supcon, both |" in table.read_text()
    names = {file.name for file in tmp_path.iterdir()}
    sheets = {"sheet_SSA-GAN.png", "sheet_GALIP.png"}
    assert names == {"table.md", "table.csv", "result.json", *sheets}
    height = image_size(tmp_path / "sheet_GALIP.png")[1]
    assert height == 3 * (2 * 16 + 4)  # real pictures and two arms


def test_a_killed_study_goes_on_and_comes_to_the_same(folder: Path, tmp_path: Path) -> None:
    told = tmp_path / "told.txt"
    place = tmp_path / "out"
    with told.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-c", ALONE, str(FILE), str(place)], cwd=ROOT, stdout=out
        )
    while "[2/5]" not in told.read_text():
        assert process.poll() is None
        time.sleep(0.05)
    children = _children(process.pid)
    for pid in (process.pid, *children):
        os.kill(pid, signal.SIGKILL)
    process.wait(60)
    there = read(place / "records.jsonl")
    assert len(there) < 5
    with (place / "records.jsonl").open("a") as torn:
        torn.write('{"study": "short", "fam')
    encoders = {f: f.stat().st_mtime_ns for f in (place / "shared").iterdir()}
    outcome = run_study(read_study(FILE), place, 1)
    assert (outcome.done, outcome.failed) == (5, {})
    again = read(place / "records.jsonl")
    assert again[: len(there)] == there
    assert {f: f.stat().st_mtime_ns for f in encoders} == encoders
    assert _numbers(again) == _numbers(read(folder / "records.jsonl"))


def _numbers(records: list[dict]) -> dict[tuple, dict]:
    """Everything but the seconds, by cell."""
    return {
        (r["family"], r["arm"]): {k: v for k, v in r.items() if k != "seconds"} for r in records
    }


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    children = [int(child) for file in tasks for child in file.read_text().split()]
    return [pid for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
