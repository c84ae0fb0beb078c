"""A run on disk: what is written can be read, what is torn is told from what is whole."""

import errno
import json
from pathlib import Path

import pytest
import torch
from small_runs import assert_equal, files_of

from nsync import files
from nsync.errors import InputError
from nsync.runs.folder import RunFolder, State

TENSORS = {
    "weights.lora": torch.tensor([1.0, -0.0, float("inf"), 1e-45]),
    "optimizer.lora.step": torch.tensor(3.0),
    "ema.updates": torch.tensor(2),
    "codes": torch.arange(5, dtype=torch.uint8),
}
SCALARS = {"optimizer.lora.d": 1 / 3, "optimizer.lora.k": 12345678901234567890}
FORM = {"branches": "fused", "most": 0, "checkpointing": False}
CONFIG = {"settings": {"steps": 10}, "base": "b"}


def state(step: int) -> State:
    return State(step, TENSORS, SCALARS, FORM)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "run")


def test_an_empty_place_holds_nothing_and_asking_makes_nothing(run: RunFolder) -> None:
    assert run.config() is None
    assert run.latest() is None
    assert run.steps() == []
    assert run.records() == []
    assert run.finished(0, 3) is None
    assert not run.path.exists()


def test_a_state_comes_back_to_the_bit(run: RunFolder) -> None:
    run.save(state(7), 2)
    found = run.latest()
    assert (found.step, found.scalars, found.form) == (7, SCALARS, FORM)
    assert_equal(found.tensors, TENSORS)
    assert [found.tensors[k].dtype for k in TENSORS] == [v.dtype for v in TENSORS.values()]
    assert found.tensors["weights.lora"][1].signbit()


def test_a_state_that_was_read_does_not_hold_its_file(run: RunFolder) -> None:
    """A map of the file would change with it, and on Windows keep it from being removed."""
    run.save(state(7), 2)
    found = run.latest()
    maps = Path("/proc/self/maps")
    if maps.exists():
        assert str(run.path) not in maps.read_text()
    [file] = (run.path / "state").iterdir()
    with file.open("r+b") as opened:  # in place, as no writer of ours does
        opened.write(b"\xff" * file.stat().st_size)
    assert_equal(found.tensors, TENSORS)


def test_the_newest_states_are_kept_by_number_not_by_name(run: RunFolder) -> None:
    for step in (5, 90, 100_000_000, 7):
        run.save(state(step), 3)
    assert run.steps() == [7, 90, 100_000_000]
    run.save(state(100_000_001), 1)
    assert run.steps() == [100_000_001]
    assert run.latest().step == 100_000_001
    (run.path / "state" / "step_00000100 - Copy.safetensors").touch()  # by the user
    assert run.steps() == [100_000_001]


@pytest.mark.parametrize("kind", ["short", "empty", "no state", "no header", "folder"])
def test_a_state_that_cannot_be_read_is_passed_over(
    run: RunFolder, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    run.save(state(1), 2)
    run.save(state(2), 2)
    file = run.path / "state" / "step_00000002.safetensors"
    damage(file, kind)
    assert run.latest().step == 1
    assert f"{file} cannot be read" in caplog.text
    damage(run.path / "state" / "step_00000001.safetensors", kind)
    with pytest.raises(InputError, match=r"`name`.*got 2 damaged.*Choose another name"):
        run.latest()


def damage(file: Path, kind: str) -> None:
    whole = file.read_bytes()
    file.unlink()
    if kind == "folder":
        file.mkdir()
        return
    file.write_bytes(
        {
            "short": whole[:-1],
            "empty": b"",
            "no state": whole.replace(b"nsync.state", b"other.thing"),
            "no header": b"\xff" * len(whole),
        }[kind]
    )


def test_to_begin_cuts_off_what_came_after(run: RunFolder) -> None:
    for step in (1, 2, 3):
        run.save(state(step), 9)
    lines = [{"step": 1, "loss": 0.1}, {"step": 2, "loss": 1 / 3}, {"step": 2, "note": None}]
    run.log.write_text("".join(json.dumps(one) + "\n" for one in [*lines, {"step": 3}]))
    run.finish(3, {}, 3)
    left = [run.path / ".config.json.x.part", run.path / "state" / ".step_4.x.part"]
    for file in left:
        file.touch()
    assert run.begin(CONFIG, 2) == lines
    assert run.records() == lines
    assert run.config() == CONFIG
    assert run.steps() == [1, 2]
    assert run.finished(3, 3) is None
    assert list(run.path.rglob("*.part")) == []
    assert set(files_of(run.path)) == {
        "config.json",
        "log.jsonl",
        "state/step_00000001.safetensors",
        "state/step_00000002.safetensors",
    }


@pytest.mark.parametrize("torn", ['{"step": 3, "lo', '{"step"', "\0\0\0\0", '{"step": 3'])
def test_a_torn_record_ends_the_log(run: RunFolder, torn: str) -> None:
    """What follows a torn record was not written after it, but over it."""
    run.begin(CONFIG, 0)
    run.log.write_text('{"step": 1}\n{"step": 2}\n' + torn + '\n{"step": 4}\n')
    assert run.records() == [{"step": 1}, {"step": 2}]
    assert run.begin(CONFIG, 2) == [{"step": 1}, {"step": 2}]
    assert run.log.read_text() == '{"step": 1}\n{"step": 2}\n'


def test_a_result_is_that_of_its_steps_and_of_files_that_are_there(
    run: RunFolder, tmp_path: Path
) -> None:
    made = {"lora": tmp_path / "a.safetensors", "embedding": tmp_path / "b.safetensors"}
    for file in made.values():
        file.touch()
    run.finish(4, made, 4)
    assert run.finished(4, 4) == made
    assert run.finished(5, 5) is None
    assert run.finished(4, 5) is None  # more is asked for
    made["embedding"].unlink()
    assert run.finished(4, 4) is None
    (run.path / "result.json").write_text('{"step"')
    assert run.finished(4, 4) is None


def test_a_result_is_found_from_another_working_folder(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.safetensors").touch()
    run.finish(4, {"lora": Path("a.safetensors")}, 4)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert run.finished(4, 4) == {"lora": tmp_path / "a.safetensors"}


def test_a_result_is_told_by_its_place_without_detours(run: RunFolder, tmp_path: Path) -> None:
    """A run's own file has its output folder as `../../..`; another door may go by a link."""
    for folder in ("runs", "output"):
        (tmp_path / folder).mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "output")
    made = tmp_path / "output" / "a.safetensors"
    made.touch()
    for way in (tmp_path / "runs" / ".." / "output", tmp_path / "link"):
        run.finish(4, {"lora": way / made.name}, 4)
        assert str(run.finished(4, 4)["lora"]) == str(made)


def test_a_configuration_that_cannot_be_read_is_told(run: RunFolder) -> None:
    run.begin(CONFIG, 0)
    (run.path / "config.json").write_text("{")
    with pytest.raises(InputError, match=r"`name`.*config\.json.*Choose another name"):
        run.config()


def test_where_a_run_goes_on_is_told(run: RunFolder) -> None:
    assert run.pending() == ""
    run.begin(CONFIG, 0)
    assert run.pending() == ""
    run.save(state(4), 2)
    assert run.pending() == "4"
    run.save(state(10), 2)
    assert run.pending() == "10"  # killed while it exported
    exported = run.path / "lora.safetensors"
    exported.touch()
    run.finish(10, {"lora": exported}, 0)
    assert run.pending() == "10"  # a pause
    run.finish(10, {"lora": exported}, 10)
    assert run.pending() == ""


def test_a_full_disk_leaves_the_states_before(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.save(state(1), 1)
    before = files_of(run.path)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    for write in (
        lambda: run.save(state(2), 1),
        lambda: run.begin(CONFIG, 1),
        lambda: run.finish(1, {}, 1),
    ):
        with pytest.raises(InputError, match="No space left on device"):
            write()
        assert files_of(run.path) == before
