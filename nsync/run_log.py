"""What a run leaves to be read: its configuration, a record per step, and a word when it drifts."""

import json
import logging
from collections import deque
from collections.abc import Mapping
from pathlib import Path

from .errors import InputError
from .files import write_atomic

logger = logging.getLogger(__name__)

NEAR, FAR = 0.60, 0.01
PATIENCE = 50


class RunLog:
    """`config.json` and `log.jsonl` (one JSON object per step) in a run's folder."""

    def __init__(self, folder: Path, config: Mapping[str, object]) -> None:
        self.path = folder / "log.jsonl"
        self.losses: list[float] = []
        write_atomic(folder / "config.json", json.dumps(config, indent=2) + "\n")
        write_atomic(self.path, "")

    def add(self, step: int, values: Mapping[str, float], warning: str = "") -> None:
        """Append a step's record (and remember its positive loss); on the disk when it returns."""
        record = {"step": step, **values, **({"warning": warning} if warning else {})}
        self.losses.append(values["loss_positive"])
        if warning:
            logger.warning("Step %d: %s", step, warning)
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
        except OSError as error:
            got = f"{type(error).__name__}: {error.strerror or error}"
            raise InputError("output", f"room to write {self.path}", got) from error


class ShareWatch:
    """Tells when the negatives remove next to nothing, or next to everything, for long."""

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=PATIENCE)

    def see(self, removed: float | None) -> str:
        """A sentence when the last `PATIENCE` shares all lie under 1 % or over 60 %, else "".

        After a sentence it waits for as many new steps before the next.
        """
        if removed is None:
            return ""
        self._recent.append(removed)
        if len(self._recent) < PATIENCE:
            return ""
        if max(self._recent) < FAR:
            return self._tell("under 1 %", "too far from the positives: they change nothing")
        if min(self._recent) > NEAR:
            return self._tell("over 60 %", "too near to the positives: they take the style away")
        return ""

    def _tell(self, share: str, meaning: str) -> str:
        self._recent.clear()
        return (
            f"The share of the positive gradient removed stayed {share} for {PATIENCE} steps: "
            f"the negatives are {meaning}."
        )
