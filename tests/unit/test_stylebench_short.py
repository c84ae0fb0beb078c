"""The machinery as a whole: a small study in processes, stopped, gone on with, and run again."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.studies.records import read
from benchmarks.stylebench.run import run_study
from benchmarks.stylebench.study import BASE, Study
from benchmarks.stylebench.study_file import read_study
from nsync.pictures.images import image_size

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
FILE = ROOT / "benchmarks" / "stylebench" / "studies" / "short.yaml"
SHARES = (
    "style_hit", "style_probability", "shape", "colour", "place", "count", "content",
    "plain_content", "copies",
)  # fmt: skip
MEASURES = (
    *SHARES, "frechet", "kernel", "cmmd", "similarity", "drift", "diversity", "cos_negative",
    "removed",
)  # fmt: skip
ALONE = """
import sys
from pathlib import Path
from benchmarks.stylebench.run import run_study
from benchmarks.stylebench.study_file import read_study
import signal
signal.signal(signal.SIGTERM, signal.default_int_handler)
try:
    run_study(read_study(Path(sys.argv[1])), Path(sys.argv[2]), 2,
              tell=lambda line: print(line, flush=True))
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.fixture(scope="module")
def study() -> Study:
    return read_study(FILE)


@pytest.fixture(scope="module")
def folder(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study run at once, by two processes."""
    place = tmp_path_factory.mktemp("whole")
    outcome = run_study(study, place, 2)
    assert (outcome.done, outcome.cells, outcome.failed) == (16, 16, {})
    return place


@pytest.fixture(scope="module")
def records(folder: Path) -> list[dict]:
    return read(folder / "records.jsonl")


def test_there_is_a_record_of_every_cell_and_step(study: Study, records: list[dict]) -> None:
    keys = [(r["style"], r["adapter"], r["arm"], r["seed"], r["step"]) for r in records]
    expected = {
        (style, "LoRA", arm, seed, step)
        for style in ("neon", "basket")
        for seed in (0, 1)
        for arm in (BASE, "plain", "nsync", "overlap shared")
        for step in ((0,) if arm == BASE else (4, 8))
    }
    assert len(keys) == len(set(keys)) == 4 * (1 + 3 * 2)
    assert set(keys) == expected
    assert {r["study"] for r in records} == {"short"}


def test_measures_are_numbers_in_their_range(records: list[dict]) -> None:
    for record in records:
        metrics = record["metrics"]
        assert set(metrics) == set(MEASURES)
        with_negatives = record["arm"] in ("nsync", "overlap shared")
        for name, value in metrics.items():
            if name in ("cos_negative", "removed") and not with_negatives:
                assert value is None
                continue
            assert math.isfinite(value), (record, name)
        for name in SHARES:
            assert 0 <= metrics[name] <= 1, (record, name)
        assert metrics["frechet"] > 0
        assert -1 <= metrics["similarity"] <= 1
        assert 0 <= metrics["drift"] <= 2
        assert metrics["diversity"] > 0
        if with_negatives:
            assert -1 <= metrics["cos_negative"] <= 1


def test_the_base_is_where_all_start(records: list[dict]) -> None:
    base = [r for r in records if r["arm"] == BASE]
    assert len(base) == 4
    for record in base:
        assert record["step"] == record["passes"] == record["seconds"] == 0
        assert record["metrics"]["drift"] == pytest.approx(0, abs=1e-9)
        assert record["metrics"]["style_hit"] < 0.15
        assert record["metrics"]["plain_content"] > 0.7
    trained = [r for r in records if r["arm"] != BASE]
    assert all(r["metrics"]["drift"] > 0 and r["seconds"] > 0 for r in trained)


def test_pictures_are_counted(records: list[dict]) -> None:
    branches = {"plain": 1, "nsync": 3, "overlap shared": 2}
    for record in (r for r in records if r["arm"] != BASE):
        assert record["positives_seen"] == 2 * record["step"]
        assert record["pictures_seen"] == 2 * record["step"] * branches[record["arm"]]


def test_arms_are_given_the_same(folder: Path) -> None:
    """Before anything is learned all arms of a style and seed have the same positive loss."""
    for place in sorted((folder / "logs").glob("*/*/LoRA")):
        logs = {file.stem: read(file) for file in place.glob("*.jsonl")}
        assert set(logs) == {"plain", "nsync", "overlap shared"}
        assert all(len(log) == 8 for log in logs.values())
        first = [log[0]["loss_positive"] for log in logs.values()]
        assert first == pytest.approx([first[0]] * 3, rel=1e-3)
        later = {name: log[7]["loss_positive"] for name, log in logs.items()}
        assert later["nsync"] != later["plain"]
    # 4 positives, 2 seeds, and the styles share them.
    assert len(list((folder / "shared").glob("*/*.png"))) == 8


def test_pictures_are_kept_to_be_shown(study: Study, folder: Path) -> None:
    for style in study.styles:
        for seed in study.seeds:
            place = folder / "pictures" / style / str(seed)
            files = [place / "reference.png", *sorted((place / "LoRA").glob("*.png"))]
            assert len(files) == 5
            assert {image_size(file) for file in files} == {(8 * 64, 64)}


def test_a_stopped_study_goes_on_and_comes_to_the_same(records: list[dict], tmp_path: Path) -> None:
    """Stopped by SIGTERM, then killed, then run to its end: as if it had been run at once."""
    file, folder = tmp_path / "half.yaml", tmp_path / "out"
    file.write_text(FILE.read_text().replace("seeds: [0, 1]", "seeds: [1]"))
    found = folder / "records.jsonl"

    stopped = _started(file, folder)
    _wait_for(stopped, folder, "[2/8]")
    workers = _workers(stopped.pid)
    assert len(workers) == 2
    stopped.send_signal(signal.SIGTERM)
    assert stopped.wait(60) == 130
    assert not [pid for pid in workers if _is_alive(pid)]
    there = read(found)
    assert len(there) < 2 * (1 + 3 * 2)

    killed = _started(file, folder)
    _wait_for(killed, folder, "Seed 1")
    for pid in (killed.pid, *_workers(killed.pid)):
        os.kill(pid, signal.SIGKILL)
    killed.wait(60)
    with found.open("a") as torn:
        torn.write(json.dumps(records[-1])[:100])

    study = read_study(file)
    outcome = run_study(study, folder, 2)
    assert (outcome.done, outcome.failed) == (8, {})
    again = read(found)
    assert again[: len(there)] == there
    assert _numbers(again) == _numbers([r for r in records if r["seed"] == 1])
    before = found.read_bytes()
    run_study(study, folder, 2)
    assert found.read_bytes() == before


def test_time_that_is_over_is_told(study: Study, tmp_path: Path) -> None:
    begun = time.monotonic()
    outcome = run_study(study, tmp_path, 2, minutes=0.02)
    assert time.monotonic() - begun < 60
    assert outcome.done < outcome.cells
    assert outcome.failed == {}


def _numbers(records: list[dict]) -> dict[tuple, dict]:
    """Everything but the seconds, by cell and step."""
    names = ("style", "arm", "seed", "step")
    return {
        tuple(r[name] for name in names): {k: v for k, v in r.items() if k != "seconds"}
        for r in records
    }


def _started(file: Path, folder: Path) -> subprocess.Popen:
    command = [sys.executable, "-c", ALONE, str(file), str(folder)]
    with _told(folder).open("w") as told:
        return subprocess.Popen(command, cwd=ROOT, stdout=told)


def _wait_for(process: subprocess.Popen, folder: Path, mark: str) -> None:
    while mark not in _told(folder).read_text():
        assert process.poll() is None, f"it ended without {mark}"
        time.sleep(0.1)


def _told(folder: Path) -> Path:
    return folder.with_name("told.txt")


def _workers(pid: int) -> list[int]:
    """Its workers; multiprocessing's own helper, which outlives them by a moment, is none."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    children = [int(child) for file in tasks for child in file.read_text().split()]
    return [pid for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"
