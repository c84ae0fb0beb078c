"""Several processes learn, paint and measure what one alone would; and stop when one is lost."""

import json
import os
import shutil
import signal
import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

import process_works as works
import pytest
import torch
from process_group import free_port, together
from process_works import FOUR, LOST
from safetensors.torch import load_file
from small_runs import (
    QUICK,
    Exports,
    Stop,
    assert_same_end,
    records,
    run,
    state,
    stop_at,
    timeless,
)
from tiny_denoiser import TinyDenoiser, tiny_set

from nsync.batches import draw_batches, encode_set
from nsync.errors import InputError
from nsync.evaluation.store import encode_stored
from nsync.launched import Launch, launch
from nsync.learner import Learned
from nsync.processes import ONE, Processes
from nsync.runs.folder import RunFolder
from nsync.settings import TrainSettings

HALFWAY = replace(FOUR, pause_every=3)


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one process that has paused after three steps of six: no weight is zero any more."""
    folder = tmp_path_factory.mktemp("begun")
    run(folder, HALFWAY)
    return folder


@pytest.fixture(scope="module")
def alone(begun: Path) -> tuple[Path, dict]:
    """The same run gone on with by one process, and its updates."""
    folder = copied(begun, begun.with_name("alone"))
    with works.kept_updates() as kept:
        run(folder, FOUR)
    return folder, kept


def copied(begun: Path, folder: Path) -> Path:
    shutil.copytree(begun, folder)
    return folder


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one.double() - other.double()).norm() / other.double().norm())


@pytest.mark.parametrize("count", [2, 3])
def test_a_group_makes_the_updates_of_one_process(
    begun: Path, alone: tuple[Path, dict], tmp_path: Path, count: int
) -> None:
    """Three processes share four pictures unevenly; both go on with what one began."""
    folder = copied(begun, tmp_path / "group")
    assert together(count, works.train, folder, FOUR) == [0] * count
    updates = [load_file(folder / f"updates_{rank}.safetensors") for rank in range(count)]
    assert updates[0].keys() == {"3", "4", "5"}
    for other in updates[1:]:
        assert all(torch.equal(update, updates[0][step]) for step, update in other.items())
    assert apart(updates[0]["3"], alone[1]["3"]) < 1e-6
    # Later ones are of weights that Adam has moved apart a little.
    assert all(apart(updates[0][step], alone[1][step]) < 1e-4 for step in updates[0])
    assert_same_run(folder, alone[0])
    told = [json.loads((folder / f"told_{rank}.json").read_text()) for rank in range(count)]
    assert [one["files"] for one in told] == [["embedding", "lora"], *[[]] * (count - 1)]
    assert all(one["losses"] == told[0]["losses"] for one in told)


def assert_same_run(folder: Path, other: Path) -> None:
    """Up to the order of sums: the state, and the log's numbers, which are of the whole batch."""
    one, two = state(folder), state(other)
    assert one.step == two.step
    for name, value in one.tensors.items():
        torch.testing.assert_close(value, two.tensors[name], rtol=1e-3, atol=1e-6)
    ours, theirs = timeless(folder), timeless(other)
    assert [one.keys() for one in ours] == [one.keys() for one in theirs]
    for mine, others in zip(ours, theirs, strict=True):
        assert mine == pytest.approx(others, rel=1e-3, abs=1e-6)


def test_a_run_goes_on_with_another_number_of_processes(
    alone: tuple[Path, dict], tmp_path: Path
) -> None:
    """Two make the first steps, three the next, one the last."""
    folder = tmp_path / "run"
    folder.mkdir()
    in_parts = replace(FOUR, pause_every=2)
    for count in (2, 3):
        assert together(count, works.train, folder, in_parts) == [0] * count
    assert state(folder).step == 4
    run(folder, FOUR)
    assert_same_run(folder, alone[0])


def test_with_the_same_number_it_goes_on_to_the_bit(tmp_path: Path) -> None:
    folders = tmp_path / "whole", tmp_path / "parts"
    for folder, settings in zip(folders, ([FOUR], [HALFWAY, FOUR]), strict=True):
        folder.mkdir()
        for one in settings:
            assert together(2, works.train, folder, one) == [0, 0]
    assert_same_end(*folders)


def test_a_process_holds_no_more_at_once_than_its_share_of_a_batch(tmp_path: Path) -> None:
    """Two passes of two pictures, by two processes: each makes two passes of one."""
    settings = replace(QUICK, rule="plain", batch=2, accumulate=2, steps=1)
    assert together(2, works.train, tmp_path, settings) == [0, 0]
    told = [json.loads((tmp_path / f"told_{rank}.json").read_text()) for rank in (0, 1)]
    assert [one["most"] for one in told] == [1, 1]


@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_stops_the_others_and_the_run_goes_on(
    alone: tuple[Path, dict], tmp_path: Path, victim: int
) -> None:
    """The lead keeps what was learned, unless it is the one that was killed."""
    codes = together(3, works.train_until_killed, tmp_path, FOUR, victim, 3)
    assert codes == [-signal.SIGKILL if rank == victim else LOST for rank in range(3)]
    for rank in {0, 1, 2} - {victim}:
        word = (tmp_path / f"word_{rank}.txt").read_text()
        assert f"Process {rank} of 3: another process of this work has stopped" in word
        assert "Stopped after 3 steps" in word
    made = state(tmp_path).step
    assert made == (2 if victim == 0 else 3)  # a state was saved after every second step
    assert len(RunFolder(tmp_path / "run").records()) == 3
    run(tmp_path, FOUR)
    assert_same_run(tmp_path, alone[0])


def test_a_stop_is_not_stopped_while_it_saves(tmp_path: Path) -> None:
    """A launcher sends its signal to the lead just then."""
    export = Exports(tmp_path)

    def signalled(learned: Learned, steps: int) -> dict[str, Path]:
        os.kill(os.getpid(), signal.SIGTERM)
        return export(learned, steps)

    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with pytest.raises(BaseException) as caught:  # noqa: PT011 - a KeyboardInterrupt would end pytest
            run(tmp_path, QUICK, on_step=stop_at(3), export=signalled)
        assert caught.type is Stop
        assert signal.getsignal(signal.SIGTERM) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGTERM, before)
    assert [steps for _, steps in export.kept] == [3]
    assert state(tmp_path).step == 3


def test_what_is_not_finite_in_one_process_is_skipped_and_named_by_all(tmp_path: Path) -> None:
    settings = replace(QUICK, batch=4, rule="plain", steps=3, branches="fused")
    assert together(2, works.train_with_nan, tmp_path, settings, 1) == [0, 0]
    faults = [record.get("warning", "") for record in records(tmp_path)]
    assert [bool(fault) for fault in faults] == [False, True, False]
    named = faults[1].partition("step 2 for: ")[2].partition(".")[0]
    assert named == f"positive {second_of(tmp_path, settings)}"


def second_of(folder: Path, settings: TrainSettings) -> str:
    """Who is second in the batch of the second step: the first of process 1."""
    encoded = encode_set(settings, TinyDenoiser(), tiny_set(folder / "again"))
    return draw_batches(encoded, settings, 1)["positive"].names[1]


@pytest.mark.parametrize(
    ("work", "text"),
    [
        (works.train_unlike, "expected the same in all 3 processes; got another in process 1, 2"),
        (works.train_too_few, "`batch`: expected 3 pictures or more in an update"),
    ],
)
def test_what_cannot_be_shared_is_refused_by_all(tmp_path: Path, work: Callable, text: str) -> None:
    assert together(3, work, tmp_path) == [2, 2, 2]
    for rank in range(3):
        assert text in (tmp_path / f"word_{rank}.txt").read_text()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("who", "codes"), [([0, 1, 2], [2, 2, 2]), ([1], [LOST, 3, LOST]), ([0], [2, LOST, LOST])]
)
def test_bad_input_of_one_process_is_told_by_itself(
    tmp_path: Path, who: Sequence[int], codes: list[int]
) -> None:
    """And what all meet is told by the first."""
    assert together(3, works.meet_bad_input, tmp_path, who) == codes


def test_a_port_in_use_is_one_clear_word(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("", free_port()))
        taken.listen()
        port = taken.getsockname()[1]
        assert together(2, works.meet, tmp_path, port=port, come=1) == [2]
    word = (tmp_path / "word_0.txt").read_text()
    assert f"to meet at 127.0.0.1:{port}; got " in word
    assert "the port is in use by another program" in word
    assert "--master-port" in word
    assert "\n" not in word


@pytest.mark.parametrize("count", [2, 3])
def test_negatives_are_shared_into_one_manifest(tmp_path: Path, count: int) -> None:
    assert together(count, works.paint, tmp_path, 4) == [0] * count
    shares = drawn(tmp_path, count)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert_whole(tmp_path, joint(shares), 8)


def drawn(folder: Path, count: int) -> list[list[str]]:
    return [drawn_by(folder, rank) for rank in range(count)]


def drawn_by(folder: Path, rank: int) -> list[str]:
    return json.loads((folder / f"drawn_{rank}.json").read_text())


def joint(lists: Iterable[Sequence]) -> list:
    return [*chain.from_iterable(lists)]


def assert_whole(folder: Path, prompts: list[str], count: int) -> None:
    """So many pictures, none painted twice, all listed in the one manifest."""
    assert len(prompts) == len(set(prompts)) == count
    made = folder / "negatives"
    listed = json.loads((made / "manifest.json").read_text())["pictures"]
    assert {path.name for path in made.iterdir()} == {"manifest.json", *listed}
    assert {entry["prompt"] for entry in listed.values()} == set(prompts)


def test_what_a_killed_painter_owes_is_painted_by_the_next_run(tmp_path: Path) -> None:
    assert together(3, works.paint, tmp_path, 6, 1) == [LOST, -signal.SIGKILL, LOST]
    first = {path.name for path in (tmp_path / "negatives").glob("*.png")}
    assert len(first) == 4 + 1 + 4  # of twelve
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "negatives").glob("*.png")}
    kept = [drawn_by(tmp_path, rank) for rank in (0, 2)]
    assert together(2, works.paint, tmp_path, 6) == [0, 0]
    again = joint(drawn(tmp_path, 2))
    assert len(again) == 3
    assert not set(again) & set(joint(kept))
    assert all(path.stat().st_mtime_ns == when for path, when in before.items())
    listed = json.loads((tmp_path / "negatives" / "manifest.json").read_text())["pictures"]
    assert len(listed) == 12
    assert len(list((tmp_path / "negatives").iterdir())) == 13


def test_vectors_of_several_processes_are_those_of_one(tmp_path: Path) -> None:
    """To the bit, each picture encoded once, and stored."""
    seeds = [*range(70), 3, 5]
    alone = encode_stored(works.Counting(), works.many(seeds), tmp_path / "alone")
    encode_stored(works.Counting(), works.many(range(10, 20)), tmp_path / "store")
    assert together(3, works.encode, tmp_path, seeds) == [0, 0, 0]
    seen = [json.loads((tmp_path / f"seen_{rank}.json").read_text()) for rank in range(3)]
    assert sum(seen) == 60
    assert min(seen) >= 12
    for rank in range(3):
        assert torch.equal(load_file(tmp_path / f"rows_{rank}.safetensors")["rows"], alone)
    encoder = works.Counting()
    assert torch.equal(encode_stored(encoder, works.many(seeds), tmp_path / "store"), alone)
    assert encoder.seen == 0


def test_a_torch_without_distributed_is_enough_for_one() -> None:
    assert together(1, works.without_distributed) == [0]


def test_one_process_needs_no_group() -> None:
    parts = [torch.ones(2), torch.zeros(1)]
    assert all(one is other for one, other in zip(ONE.summed(parts), parts, strict=True))
    assert ONE.told([True, False]) == [True, False]
    ONE.check_same("anything", "text")
    ONE.wait()


def test_shares_are_everything_once() -> None:
    shares = [Processes(rank, 3).mine(range(10)) for rank in range(3)]
    assert sorted(joint(shares)) == [*range(10)]
    assert [len(share) for share in shares] == [4, 3, 3]


def test_the_launcher_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    assert launch() == Launch(0, 1, 0, 1)
    for name, value in zip(names, (5, 8, 1, 4), strict=True):
        monkeypatch.setenv(name, str(value))
    assert launch() == Launch(5, 8, 1, 4)
    for name, value in (("RANK", "8"), ("LOCAL_RANK", "4"), ("WORLD_SIZE", "many")):
        with monkeypatch.context() as changed:
            changed.setenv(name, value)
            with pytest.raises(InputError, match="WORLD_SIZE"):
                launch()
