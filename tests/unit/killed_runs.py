"""Kill a training run at random moments until it is through, again and again; see test_killed.py.

Started with a folder, a number of kills and a seed. One process has torch loaded and does nothing
with it; its forked children train, slowed down where they write, and it kills them.
"""

import json
import os
import random
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TextIO

import torch

torch.set_num_threads(1)  # before anything is computed: a pool of threads does not survive a fork

from safetensors import safe_open  # noqa: E402
from safetensors.torch import save  # noqa: E402
from small_runs import EVERYTHING, QUICK, assert_equal, assert_same_end, run, tensors  # noqa: E402

from nsync.files import numbered, write_atomic  # noqa: E402
from nsync.learner import Learned  # noqa: E402
from nsync.runs.folder import RunFolder  # noqa: E402

SETTINGS = replace(
    QUICK, steps=6, save_every=1, validation=1, validate_every=3, preview_every=0, **EVERYTHING
)
PAUSE = 0.004


def main(folder: Path, kills: int, seed: int) -> Counter:
    """Make runs, killed on the way, until there have been so many kills."""
    whole, counts, chance = folder / "whole", Counter(), random.Random(seed)
    child = Child(whole)
    child.wait_for_training()
    begun = time.perf_counter()
    assert child.wait() == 0
    length = time.perf_counter() - begun
    while counts["kills"] < kills:
        night = folder / f"night_{counts['runs']}"
        while not is_through(night, 0.6 * length, chance, counts):
            pass
        assert_same_end(night, whole)
        assert_equal(*(exported(one) for one in (night, whole)))
        assert not parts(night / "run")
        counts["runs"] += 1
    return counts


def is_through(night: Path, longest: float, chance: random.Random, counts: Counter) -> bool:
    """Let the run go on for a random while; whether it came to its end by then."""
    resumed, old = bool(RunFolder(night / "run").steps()), parts(night)
    child = Child(night)
    child.wait_for_training()
    time.sleep(chance.uniform(0, longest))
    if chance.random() < 0.5:  # these shall hit what it writes next
        wait_for_writing(night, old)
        time.sleep(chance.uniform(0, 4 * PAUSE))
    os.kill(child.pid, signal.SIGKILL)  # one that is through is a zombie still: nobody else is hit
    status = child.wait()
    if status == 0:
        return True
    assert status == -signal.SIGKILL, f"a child failed with status {status}"
    place = where(night, old)
    counts.update(["kills", place, *["inside"] * (place != "elsewhere"), *["resumed"] * resumed])
    check_whole(night)
    return False


class Child:
    """A forked process that goes on with a run."""

    def __init__(self, night: Path) -> None:
        self._heard, told = os.pipe()
        self.pid = os.fork()
        if self.pid:
            os.close(told)
            return
        try:
            train(night, lambda done, count: done == count and os.write(told, b"."))
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)

    def wait_for_training(self) -> None:
        """Return when everything is encoded, and the run's first file is about to be written."""
        os.read(self._heard, 1)

    def wait(self) -> int:
        """The exit status, or minus the signal."""
        os.close(self._heard)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def parts(night: Path) -> set[Path]:
    return set(night.rglob("*.part"))


def wait_for_writing(night: Path, old: set[Path]) -> None:
    """Return when a file is being written, or after a second."""
    end = time.perf_counter() + 1
    while not parts(night) - old and time.perf_counter() < end:
        time.sleep(PAUSE / 8)


def where(night: Path, old: set[Path]) -> str:
    """The file that the child was writing when it was killed."""
    log, new = night / "run" / "log.jsonl", parts(night) - old
    if new:
        return new.pop().name.split(".")[1].split("_")[0]
    torn = log.exists() and not ("\n" + log.read_text()).endswith("\n")
    return "record" if torn else "elsewhere"


def check_whole(night: Path) -> None:
    """Every file can be read, but for what was being written under another name."""
    for path in night.rglob("*"):
        if path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".jsonl":
            *lines, _torn = path.read_text().split("\n")
            for line in lines:
                json.loads(line)
        elif path.suffix == ".safetensors":
            with safe_open(path, "pt") as opened:
                assert [opened.get_tensor(name) for name in opened.keys()]  # noqa: SIM118
        else:
            assert path.is_dir() or path.suffix in (".part", ".png"), path


def exported(night: Path) -> dict[str, torch.Tensor]:
    """What the file holds that the run says it has exported."""
    told = RunFolder(night / "run").finished(SETTINGS.steps, SETTINGS.steps)
    with safe_open(told["lora"], "pt") as opened:
        return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118


def train(night: Path, on_item: Callable[[int, int], None]) -> None:
    """In a child: go on with the run, and be long about writing."""
    write_slowly()

    def export(learned: Learned, steps: int) -> dict[str, Path]:
        path = numbered(night / "out" / "style.safetensors")
        write_atomic(path, save(tensors(learned)))
        return {"lora": path}

    run(night, SETTINGS, export=export, on_item=on_item)


def write_slowly() -> None:
    """Bytes come in two halves with time between them, and so do flushing and renaming."""
    rename, opened, whole = os.replace, Path.open, Path.write_bytes

    def slow_rename(old: Path, new: Path) -> None:
        time.sleep(PAUSE)
        rename(old, new)
        time.sleep(PAUSE)

    def slow_bytes(self: Path, data: bytes) -> None:
        whole(self, data[: len(data) // 2])
        time.sleep(PAUSE)
        whole(self, data)

    def slow_open(self: Path, mode: str = "r", *args: object, **kwargs: object) -> TextIO:
        file = opened(self, mode, *args, **kwargs)
        return Halves(file) if mode == "a" else file

    os.replace, Path.open, Path.write_bytes = slow_rename, slow_open, slow_bytes
    os.fsync = lambda handle: time.sleep(PAUSE)  # killing loses nothing that the system was given


class Halves:
    """A file that is long about writing."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def __enter__(self) -> "Halves":
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def write(self, text: str) -> None:
        for half in (text[: len(text) // 2], text[len(text) // 2 :]):
            self._file.write(half)
            self._file.flush()
            time.sleep(PAUSE)

    def fileno(self) -> int:
        return self._file.fileno()


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))
