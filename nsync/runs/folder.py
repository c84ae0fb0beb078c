"""A run on disk: configuration, log, states to resume from, and what came of it.

    config.json                    what the run was asked for
    log.jsonl                      one record per step
    state/step_00000100.safetensors   everything that the steps after 100 depend on
    result.json                    the files that the last call exported

Every file but the log is whole or not there. A record of the log that a power cut tore, or that was
written after the state from which the run goes on, is cut off when it does.
"""

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..errors import InputError
from ..files import remove_leftovers, write_atomic

logger = logging.getLogger(__name__)

Config = Mapping[str, object]

_STATE = "nsync.state"
_STATE_NAME = re.compile(r"step_(\d+)\.safetensors")


@dataclass(frozen=True)
class State:
    """Where a run stands.

    Attributes:
        step: updates made.
        tensors, scalars: of the learner.
        form: how its passes were made.
    """

    step: int
    tensors: dict[str, Tensor]
    scalars: dict[str, float | int | str]
    form: dict[str, object]


class RunFolder:
    """The folder of one run.

    Args:
        writes: False where another process of the run does it: then nothing here is changed.
    """

    def __init__(self, path: Path, writes: bool = True) -> None:
        self.path, self._writes = path, writes
        self.log = path / "log.jsonl"
        self._states = path / "state"

    def config(self) -> dict | None:
        """The configuration of the run that is here, or None.

        Raises:
            InputError: the file cannot be read.
        """
        file = self.path / "config.json"
        if not file.exists():
            return None
        try:
            return json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(
                "name",
                f"a run whose configuration can be read in {file}",
                f"{type(error).__name__}: {error}",
                "Choose another name, or move that folder away.",
            ) from error

    def steps(self) -> list[int]:
        """The steps of the states that are here, ascending."""
        names = [file.name for file in self._states.glob("step_*.safetensors")]
        found = filter(None, map(_STATE_NAME.fullmatch, names))  # a user may keep copies beside
        return sorted(int(name[1]) for name in found)

    def pending(self) -> str:
        """The step after which a run that was stopped or paused goes on; "" if there is none."""
        steps, config = self.steps(), self.config()
        if not steps or config is None:
            return ""
        whole = self.finished(steps[-1], config["settings"]["steps"])
        return "" if whole else str(steps[-1])

    def latest(self) -> State | None:
        """The newest state that can be read; None where there is none at all.

        Raises:
            InputError: there are states, and none of them can be read.
        """
        steps = self.steps()
        for step in reversed(steps):
            try:
                return _read(self._file(step))
            except (OSError, SafetensorError, ValueError, KeyError) as error:
                told = "The state %s cannot be read, one before it is looked for: %s"
                logger.warning(told, self._file(step), error)
        if steps:
            raise InputError(
                "name",
                f"a state that can be read in {self._states}",
                f"{len(steps)} damaged",
                "Choose another name, or move that folder away.",
            )
        return None

    def begin(self, config: Config, step: int) -> list[dict]:
        """Write the configuration, cut log and states after `step`; the records that are left.

        Raises:
            InputError: the place cannot be written.
        """
        records = [record for record in self.records() if record["step"] <= step]
        if not self._writes:
            return records
        for folder in (self.path, self._states):
            remove_leftovers(folder)
        write_atomic(self.path / "config.json", json.dumps(config, indent=2) + "\n")
        write_atomic(self.log, "".join(json.dumps(record) + "\n" for record in records))
        (self.path / "result.json").unlink(missing_ok=True)
        # Left alone, a damaged state would count among the newest that are kept.
        for later in self.steps():
            if later > step:
                self._file(later).unlink(missing_ok=True)
        return records

    def records(self) -> list[dict]:
        """The records of the log, as far as they are whole."""
        records: list[dict] = []
        lines = self.log.read_text(encoding="utf-8").splitlines() if self.log.exists() else []
        for line in lines:
            try:
                records.append(json.loads(line))
            except ValueError:  # torn by a power cut; nothing after it is of the same run
                break
        return records

    def save(self, state: State, keep: int) -> None:
        """Write a state; the newest `keep` stay.

        Raises:
            InputError: the disk is full; the states before are still there.
        """
        if not self._writes:
            return
        told = {"step": state.step, "scalars": state.scalars, "form": state.form}
        data = save(state.tensors, metadata={_STATE: json.dumps(told)})
        write_atomic(self._file(state.step), data)
        for step in self.steps()[:-keep]:
            self._file(step).unlink(missing_ok=True)

    def finish(self, step: int, files: Mapping[str, Path], of: int) -> None:
        """Remember which files the weights after `step` updates were exported to.

        Args:
            of: the updates that were asked for, if the run is over with these; 0 at a pause.
        """
        if not self._writes:
            return
        # Another process may ask from another working folder; and paths come with `..` and links.
        names = {kind: str(file.parent.resolve() / file.name) for kind, file in files.items()}
        told = {"step": step, "of": of, "files": names}
        write_atomic(self.path / "result.json", json.dumps(told, indent=2) + "\n")

    def finished(self, step: int, steps: int) -> dict[str, Path] | None:
        """The exported files of a run of `steps` that is over with `step`, if all are there."""
        file = self.path / "result.json"
        try:
            told = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        files = {kind: Path(name) for kind, name in told["files"].items()}
        over = (told["step"], told["of"]) == (step, steps)
        whole = over and all(name.exists() for name in files.values())
        return files if whole else None

    def _file(self, step: int) -> Path:
        return self._states / f"step_{step:08}.safetensors"


def _read(file: Path) -> State:
    with safe_open(file, "pt") as opened:
        told = json.loads((opened.metadata() or {})[_STATE])
        # Copies: Windows would not let go of a file of which a tensor is still a map.
        tensors = {name: opened.get_tensor(name).clone() for name in opened.keys()}  # noqa: SIM118
    return State(told["step"], tensors, told["scalars"], told["form"])
