"""Where a run that is on disk stands, and whether it may be gone on with."""

import logging
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Protocol, TypeVar

from ..errors import InputError
from ..identity import COMPANIONS, other_companions
from .folder import RunFolder
from .log import POSITIVE, RunLog
from .parts import Learns, TrainResult

logger = logging.getLogger(__name__)

STYLE = "a style"
"""What a run teaches whose configuration has no `kind`."""

_WORDS = {"token": "the style token", "template": "the template", "family": "the networks"}
_DIGESTS = {
    "base": "the base model",
    "dataset": "the pictures, captions or negatives of the set",
    "start_from": "the LoRA to start from",
    "labelled": "the pictures, captions or labels of the set",
    "encoders": "the encoders",
}

S = TypeVar("S")


class RunSettings(Protocol):
    """The settings of a run: a frozen dataclass of plain values."""

    @property
    def steps(self) -> int:
        """Updates in all."""
        ...

    def differs(self: S, other: S) -> dict[str, tuple[object, object]]:
        """What of `other` would make it another run: (value here, value there) by name."""
        ...


class Standing:
    """A run as it stands in its folder, from where it goes on.

    Args:
        config: what the run is made of, as JSON values: `settings`; what else tells one run from
            another, see the tables above; `kind`, where it teaches anything but a style.
        headline, watched: see `RunLog`.
        writes: False where another process of the run does it.

    Attributes:
        run: the folder.
        begun: updates made; 0 where there is no such run yet.
        form: how its passes were made, or None.

    Raises:
        InputError: the folder holds another run, or one that is further than what is asked for;
            nothing has been written.
    """

    def __init__(
        self,
        folder: Path,
        settings: RunSettings,
        config: Mapping[str, object],
        *,
        headline: str = POSITIVE,
        watched: bool = True,
        writes: bool = True,
    ) -> None:
        self.run, self._writes = RunFolder(folder, writes), writes
        self._settings, self._config = settings, config
        self._log_options = {"headline": headline, "watched": watched}
        self._state = self.run.latest()
        self.begun = self._state.step if self._state else 0
        self.form = self._state.form if self._state else None
        check_same_run(self.run, self.begun, config, settings)
        if self.begun:  # a door that does not know them does not forget them
            before = self.run.config() or {}
            self._config = {k: before[k] for k in COMPANIONS if k in before} | dict(config)

    def result(self) -> TrainResult | None:
        """What came of it, if it is over and its files are there."""
        files = self.run.finished(self.begun, self._settings.steps)
        if not files:
            return None
        logger.info("This run is there already: %s", ", ".join(map(str, files.values())))
        log = self._log(self.run.records())
        return TrainResult(files, log.losses, self.begun, over=True)

    def begin(self) -> tuple[RunLog, list[dict]]:
        """Make the folder ready for the next steps; the log, and the records that it holds."""
        records = self.run.begin(self._config, self.begun)
        return self._log(records), records

    def load(self, learner: Learns) -> None:
        """Give the learner the state, if there is one, and let go of it."""
        if self._state is None:
            return
        learner.load(self._state.tensors, self._state.scalars)
        self._state = None  # it is as large as the weights and the optimizer together
        logger.info("Going on after step %d of %d", self.begun, self._settings.steps)

    def _log(self, records: list[dict]) -> RunLog:
        return RunLog(self.run.log if self._writes else None, records, **self._log_options)


def check_same_run(
    run: RunFolder, step: int, config: Mapping[str, object], settings: RunSettings
) -> None:
    """Refuse to go on with `run`, which stands after `step`, by another configuration.

    Raises:
        InputError: the folder holds another run, or one that is further than what is asked for;
            every difference is named.
    """
    before = run.config()
    if before is None or not step:
        return
    found = differences(before, config, settings)
    if found:
        raise InputError(
            "name",
            f"the settings of the run {run.path.name}, which has made {step} steps",
            "other ones:\n" + "\n".join(f"  {line}" for line in found),
            "\nSet them back to go on with that run; set `if_run_exists` to 'start anew' to keep "
            "it and train under a numbered name; or choose another `name`.",
        )
    if step > settings.steps:
        raise InputError(
            "steps",
            f"at least {step}, which the run {run.path.name} has made already",
            str(settings.steps),
            "Ask for more, or set `if_run_exists` to 'start anew'.",
        )


def check_before_pictures(
    folder: Path, settings: RunSettings, config: Mapping[str, object]
) -> None:
    """Refuse another run's folder by what is known before any picture is read.

    Args:
        config: as far as it is known; see `Standing`.

    Raises:
        InputError: as `Standing`; a difference in the pictures it cannot tell yet.
    """
    run = RunFolder(folder)
    steps = run.steps()
    check_same_run(run, steps[-1] if steps else 0, config, settings)


def differences(
    before: Mapping[str, object], now: Mapping[str, object], settings: RunSettings
) -> list[str]:
    """What of two configurations makes them two runs, a line each; versions may differ.

    Args:
        settings: those of `now`.
    """
    was, asked = (config.get("kind", STYLE) for config in (before, now))
    if was != asked:  # then nothing else compares
        return [f"what is taught: was {was!r}, is {asked!r}"]
    known = {field.name for field in fields(settings)}
    old = type(settings)(**{k: v for k, v in before["settings"].items() if k in known})
    lines = [
        f"`{name}` was {was!r}, is {asked!r}"
        for name, (was, asked) in old.differs(settings).items()
    ]
    for part in filter(now.__contains__, _WORDS | _DIGESTS):
        was, asked = before.get(part, ""), now[part]
        if was != asked:
            lines.append(_line(part, was, asked))
    return lines + [_line(part, *pair) for part, pair in other_companions(before, now).items()]


def _line(part: str, was: object, asked: object) -> str:
    if part not in _WORDS:
        was, asked = was[:12] or "none", asked[:12] or "none"
    return f"{(_WORDS | _DIGESTS | COMPANIONS)[part]}: was {was!r}, is {asked!r}"
