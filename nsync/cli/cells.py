"""The trainings of a study, one for each arm and seed: their sets, and what is judged first."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from ..runs.folder import RunFolder
from ..runs.recipe import run_place
from ..runs.standing import check_before_pictures
from ..settings import TrainSettings
from ..style_set import StyleSet
from .runs import HeadlessRun, prepare
from .sets import as_if_painted, missing, negatives_folder, painted

if TYPE_CHECKING:
    from ..pipelines.denoiser import DiffusersDenoiser
    from .study import StudyFile
    from .train import TrainFile

_SETTINGS = {field.name for field in fields(TrainSettings)}


class Cells:
    """The trainings.

    Args:
        style_set: as it was read, without the study's negatives.
    """

    def __init__(
        self, asked: "StudyFile", denoiser: "DiffusersDenoiser", style_set: StyleSet
    ) -> None:
        self._asked, self._denoiser, self._bare = asked, denoiser, style_set
        self._folder = negatives_folder(asked.output, asked.negatives_name)
        self._lacking, self._count = missing(asked.negatives, denoiser, style_set, self._folder)
        wanted = any(cell.settings.uses_painted for cell in asked.cells.values())
        self._paints = wanted and self._lacking > 0

    @property
    def told(self) -> str:
        """How many negatives there are, in words."""
        painted_now = self._lacking if self._paints else 0
        return f"{self._count} negatives, {painted_now} of them to be painted."

    def check(self) -> None:
        """Refuse before any work what a training would refuse after those before it.

        Raises:
            InputError: as `prepare`; a setting is told of as the arm's.
        """
        if self._paints:
            whole = as_if_painted(self._bare, self._denoiser.identity)
        else:
            whole = self._whole()
        for (arm, _), cell in self._asked.cells.items():
            with _told_of(arm):
                if self._paints and RunFolder(_place(cell)).steps():
                    self._check_begun(cell)  # the negatives that it was begun with are not there
                else:
                    self._prepare(cell, whole)

    def runs(self) -> dict[tuple[str, str], HeadlessRun]:
        """The runs by arm and seed, each ready to be trained; negatives are painted first.

        Raises:
            InputError: as `prepare`, of any of them.
        """
        whole = self._whole()
        return {key: self._prepare(cell, whole) for key, cell in self._asked.cells.items()}

    def _whole(self) -> StyleSet:
        """The set with its negatives, where they are there or some arm wants them."""
        if self._lacking and not self._paints:
            return self._bare
        return painted(self._asked.negatives, self._denoiser, self._bare, self._folder)

    def _prepare(self, cell: "TrainFile", whole: StyleSet) -> HeadlessRun:
        # One that was begun before any arm wanted negatives goes on without.
        config = RunFolder(_place(cell)).config() or {}
        own = self._bare if config.get("dataset") == self._bare.digest else whole
        return prepare(cell, cell.settings, self._denoiser, own)[0]

    def _check_begun(self, cell: "TrainFile") -> None:
        words = {"token": self._bare.token, "template": self._bare.template}
        known = {"base": self._denoiser.identity, **words}
        check_before_pictures(_place(cell), cell.settings, known)


def _place(cell: "TrainFile") -> Path:
    return run_place(cell.output, cell.name)


@contextmanager
def _told_of(arm: str) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        name = f"arms.{arm}.{error.name}" if error.name in _SETTINGS else error.name
        raise InputError(name, error.expected, error.got, error.remedy) from error
