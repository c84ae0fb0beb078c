"""The command that runs studies: one or several, for so many minutes, and what it leaves behind."""

import argparse
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks.studies import commands
from benchmarks.studies.commands import add_run, run_command
from benchmarks.studies.records import FACTS, RECORDS
from benchmarks.studies.run import Group, Outcome, filled
from nsync.errors import InputError


def asked(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_run(parser.add_subparsers(required=True))
    return parser.parse_args(["run", *words])


def named(file: Path) -> SimpleNamespace:
    """A study that is nothing but its name."""
    if file.stem == "bad":
        raise InputError("study", "a study", "none", "Write one.")
    return SimpleNamespace(name=file.stem)


@pytest.fixture(autouse=True)
def sigterm() -> Iterator[None]:
    """The command takes SIGTERM for itself; the process of the tests does not end with it."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def calls() -> list[tuple]:
    return []


@pytest.fixture
def run(calls: list[tuple]) -> Callable[..., Outcome]:
    def noted(
        study: SimpleNamespace, folder: Path, processes: int | None, minutes: float | None
    ) -> Outcome:
        calls.append((study.name, folder, processes, minutes))
        return Outcome(1, 1)

    return noted


def test_studies_run_one_after_the_other(tmp_path: Path, calls: list, run: Callable) -> None:
    args = asked("b.yaml", "a.yaml", "--processes", "2")
    assert run_command(args, named, run, tmp_path, tmp_path) == 0
    assert calls == [("b", tmp_path / "b", 2, None), ("a", tmp_path / "a", 2, None)]


def test_all_are_read_before_the_first_is_run(tmp_path: Path, calls: list, run: Callable) -> None:
    with pytest.raises(InputError):
        run_command(asked("a.yaml", "bad.yaml"), named, run, tmp_path, tmp_path)
    assert calls == []


def test_minutes_are_those_of_all(
    tmp_path: Path,
    calls: list,
    run: Callable,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    times = iter((0.0, 0.0, 60.0, 240.0))
    monkeypatch.setattr(commands, "time", SimpleNamespace(monotonic=lambda: next(times)))
    args = asked("a.yaml", "b.yaml", "c.yaml", "--minutes", "3")
    run_command(args, named, run, tmp_path, tmp_path)
    assert [(name, minutes) for name, _, _, minutes in calls] == [("a", 3), ("b", 2)]
    assert "c: no time is left for it" in capsys.readouterr().out


def test_a_failed_cell_fails_the_command_and_the_next_study_runs(tmp_path: Path) -> None:
    seen = []

    def first_fails(study: SimpleNamespace, *_: object) -> Outcome:
        seen.append(study.name)
        return Outcome(0, 1, {"cell": "it broke"} if study.name == "a" else {})

    args = asked("a.yaml", "b.yaml")
    assert run_command(args, named, first_fails, tmp_path, tmp_path) == 1
    assert seen == ["a", "b"]


def test_a_study_that_cannot_be_run_is_told_and_the_next_one_runs(
    tmp_path: Path, run: Callable, calls: list, capsys: pytest.CaptureFixture
) -> None:
    def of_no_base(study: SimpleNamespace, *rest: object) -> Outcome:
        if study.name == "a":
            raise InputError("base_seed", "a tiny base", "none", "Train it.")
        return run(study, *rest)

    args = asked("a.yaml", "b.yaml")
    assert run_command(args, named, of_no_base, tmp_path, tmp_path) == 1
    assert [name for name, *_ in calls] == ["b"]
    assert capsys.readouterr().err.startswith("a: `base_seed`: expected a tiny base; got none.")


def test_a_stop_ends_all(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    def stopped(*_: object) -> Outcome:
        raise KeyboardInterrupt

    assert run_command(asked("a.yaml", "b.yaml"), named, stopped, tmp_path, tmp_path) == 130
    assert capsys.readouterr().out.count("the same command goes on") == 1


def test_a_fresh_clone_goes_on_after_the_committed_records(tmp_path: Path, run: Callable) -> None:
    output, reports = tmp_path / "output", tmp_path / "docs"
    for file in (FACTS, RECORDS):
        (reports / "a").mkdir(parents=True, exist_ok=True)
        (reports / "a" / file).write_text("committed")
    run_command(asked("a.yaml", "b.yaml"), named, run, output, reports)
    assert {file.name for file in (output / "a").iterdir()} == {FACTS, RECORDS}
    (output / "a" / RECORDS).write_text("more of them")
    run_command(asked("a.yaml"), named, run, output, reports)
    assert (output / "a" / RECORDS).read_text() == "more of them"


@pytest.mark.parametrize(
    ("sizes", "count", "expected"),
    [
        ([1, 1, 1, 1, 1], 2, [2, 2, 1]),
        ([4, 1, 1, 3], 2, [4, 2, 3]),
        ([1, 1, 1], 4, [3]),
        ([3, 2], 1, [3, 2]),
        ([], 2, []),
    ],
)
def test_small_groups_go_together_so_that_no_process_waits(
    sizes: list[int], count: int, expected: list[int]
) -> None:
    groups = [
        Group(("judge", n), [(n, i) for i in range(size)], "{}") for n, size in enumerate(sizes)
    ]
    found = filled(groups, count)
    assert [len(group.cells) for group in found] == expected
    assert [cell for group in found for cell in group.cells] == [c for g in groups for c in g.cells]
    for group in found:
        assert group.shared == ("judge", *dict.fromkeys(n for n, _ in group.cells))
