"""Records on the disk: whole cells or none, and never two studies in one file."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from test_stylebench_study import GOOD, written

from benchmarks.studies.records import read
from benchmarks.stylebench.store import Records
from benchmarks.stylebench.study import Arm, Cell, Study
from benchmarks.stylebench.study_file import read_study
from nsync.errors import InputError


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return read_study(written(tmp_path, GOOD))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "out"


def records(cell: Cell, steps: tuple[int, ...]) -> list[dict]:
    return [{**vars(cell), "step": step, "metrics": {"style_hit": 0.5}} for step in steps]


def test_records_are_there_again(study: Study, folder: Path) -> None:
    base, _, plain, *_ = study.cells()
    first = Records(study, folder)
    assert first.done == set()
    first.add(records(base, (0,)))
    first.add(records(plain, (20, 30)))
    assert first.done == Records(study, folder).done == {base, plain}
    assert read(folder / "records.jsonl") == records(base, (0,)) + records(plain, (20, 30))


@pytest.mark.parametrize("cut", range(1, 140, 7))
def test_what_was_torn_is_run_again(study: Study, folder: Path, cut: int) -> None:
    """Wherever the last write was cut off: a cell is there with all its steps or not at all."""
    base, _, plain, *_ = study.cells()
    written_so_far = Records(study, folder)
    written_so_far.add(records(base, (0,)))
    written_so_far.add(records(plain, (20, 30)))
    file = folder / "records.jsonl"
    file.write_bytes(file.read_bytes()[:-cut])
    again = Records(study, folder)
    assert again.done == {base}
    again.add(records(plain, (20, 30)))
    assert read(file) == records(base, (0,)) + records(plain, (20, 30))


def test_a_damaged_line_is_told(study: Study, folder: Path) -> None:
    Records(study, folder).add(records(next(study.cells()), (0,)))
    file = folder / "records.jsonl"
    file.write_text("{half\n" + file.read_text())
    with pytest.raises(InputError, match=r"`records.jsonl`: expected a JSON object a line"):
        Records(study, folder)


def test_a_changed_study_is_told(study: Study, folder: Path) -> None:
    Records(study, folder)
    nsync = study.arm("nsync")
    slower = replace(nsync, settings=replace(nsync.settings, learning_rate=1e-5))
    other = replace(study, pictures=8, arms=(study.arms[0], slower, study.arms[2]))
    with pytest.raises(InputError) as caught:
        Records(other, folder)
    lines = [line.strip(" .") for line in str(caught.value).splitlines()[1:-1]]
    assert lines == [
        "`arms.nsync.settings.learning_rate` was 0.0005, is 1e-05",
        "`pictures` was 256, is 8",
    ]
    assert Records(study, folder).done == set()


def test_cells_may_be_added(study: Study, folder: Path) -> None:
    base = next(study.cells())
    Records(study, folder).add(records(base, (0,)))
    nsync = study.arm("nsync")
    overlap = Arm("overlap", replace(nsync.settings, rule="overlap"), nsync.negatives)
    more = replace(study, seeds=(3, 1, 7), arms=(*study.arms, overlap))
    assert Records(more, folder).done == {base}
    # What was added counts from now on, for the smaller study too.
    Records(study, folder)
    changed = replace(overlap, settings=replace(overlap.settings, batch=2))
    with pytest.raises(InputError, match=r"arms\.overlap\.settings\.batch"):
        Records(replace(more, arms=(*study.arms, changed)), folder)
    facts = json.loads((folder / "study.json").read_text())
    assert set(facts["arms"]) == {"plain", "plain 3", "nsync", "overlap"}


def test_a_setting_that_came_later_had_its_default(study: Study, folder: Path) -> None:
    Records(study, folder)
    file = folder / "study.json"
    facts = json.loads(file.read_text())
    for arm in facts["arms"].values():
        del arm["settings"]["negatives_from"]
    file.write_text(json.dumps(facts))
    Records(study, folder)
    assert all(
        "negatives_from" in a["settings"] for a in json.loads(file.read_text())["arms"].values()
    )
    file.write_text(json.dumps(facts))
    first, *rest = study.arms
    other = replace(first, settings=replace(first.settings, negatives_from="both"))
    with pytest.raises(InputError, match="negatives_from` was 'painted', is 'both'"):
        Records(replace(study, arms=(other, *rest)), folder)
