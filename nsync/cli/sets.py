"""The style set that a command is given, and its negatives."""

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from ..files import check_writable
from ..names import check_name
from ..negatives import NegativeSettings, make_negatives, plan
from ..processes import ONE, Processes
from ..sets.folder import read_folder
from ..sets.listing import read_set
from ..sets.negative_store import NegativeStore
from ..style_set import StyleSet
from .progress import items
from .sections import SKIP, Pictures

if TYPE_CHECKING:
    from ..pipelines.denoiser import DiffusersDenoiser


def read_pictures(pictures: Pictures) -> tuple[StyleSet, str]:
    """The set, and a report on its files.

    Raises:
        InputError: a listing that cannot be read; pictures with problems, unless they are skipped.
    """
    if pictures.listing:
        style_set = read_set(pictures.listing)
        return style_set, f"{len(style_set)} pictures listed in {pictures.listing}."
    empty = StyleSet((), pictures.token, pictures.template, pictures.resolution)
    skip = pictures.problem_files == SKIP
    with items("Reading pictures") as on_picture:
        style_set, report = read_folder(pictures.folder, empty, skip=skip, on_picture=on_picture)
    return style_set, report.text()


def negatives_folder(output: Path, name: str) -> Path:
    """`<output>/nsync/negatives/<name>`.

    Raises:
        InputError: the name is none.
    """
    return output / "nsync" / "negatives" / check_name(name, "negatives_name")


def painted(
    settings: NegativeSettings,
    denoiser: "DiffusersDenoiser",
    style_set: StyleSet,
    folder: Path,
    processes: Processes = ONE,
) -> StyleSet:
    """The set with its negatives, which are painted where they are not there yet.

    Raises:
        InputError: see `nsync.negatives.make_negatives`.
    """
    if missing(settings, denoiser, style_set, folder)[0]:
        check_writable(folder)
    with items("Painting negatives") as on_picture:
        return make_negatives(settings, denoiser, style_set, folder, on_picture, processes)


def missing(
    settings: NegativeSettings, denoiser: "DiffusersDenoiser", style_set: StyleSet, folder: Path
) -> tuple[int, int]:
    """(negatives that are still to be painted, negatives in all).

    Raises:
        InputError: see `nsync.negatives.plan`; a sampler or scheduler that there is none of here.
    """
    requests, store = plan(settings, denoiser, style_set), NegativeStore(folder)
    lacking = [request for request in requests if not store.has(request)]
    if lacking:  # those that are there may be of another door's samplers
        try:
            denoiser.check_drawing(lacking[0].size, settings.sampler)
        except InputError as error:
            key = f"negatives.sampler.{error.name}"
            raise InputError(key, error.expected, error.got, error.remedy) from error
    return len(lacking), len(requests)


def as_if_painted(style_set: StyleSet, base: str) -> StyleSet:
    """For checks before negatives are painted: each positive stands for its own negative."""
    stand_ins = {item.name: (item.path,) for item in style_set.items if item.path}
    return style_set.with_negatives(stand_ins, base)
