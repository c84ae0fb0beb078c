"""Building a style set from a folder or from lists, with a report on every file, by name.

A folder holds pictures and, beside each `x.png`, its caption `x.txt`. Pictures may also lie one
folder down; the name of that folder is then their label. Nothing here writes a file.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from ..errors import InputError
from ..pictures.buckets import MAX_ASPECT, bucket_size
from ..pictures.captions import as_caption, caption_path, read_caption
from ..pictures.folder import OnPicture, is_within, pictures_in, visible
from ..pictures.images import SUFFIXES, Reading, examine, to_uint8
from ..style_set import StyleItem, StyleSet
from ..words import contains_word

MAX_ENLARGEMENT = 2.0
"""A picture that must be enlarged more than this to fill its bucket counts as tiny."""


@dataclass
class Report:
    """What was found while a style set was built.

    Attributes:
        source: where the pictures came from.
        found: number of pictures that were looked at.
        problems: (name, what is wrong) of each picture that was left out.
        notes: (name, what a user may want to know) of pictures that are used, and of other files.
    """

    source: str
    found: int = 0
    problems: list[tuple[str, str]] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)

    def text(self) -> str:
        """The report to read: one line per finding, with the file's name."""
        used = self.found - len(self.problems)
        head = f"{used} of {self.found} pictures used from {self.source}."
        parts = (("Skipped:", self.problems), ("Notes:", self.notes))
        return "\n".join([head, *(_listed(title, rows) for title, rows in parts if rows)])


@dataclass(frozen=True)
class _Candidate:
    """A picture that may enter the set; `fault` is what is known to be wrong before reading it."""

    shown: str
    item: StyleItem
    read: Callable[[], Reading]
    fault: str = ""


def read_folder(
    folder: Path,
    empty: StyleSet,
    *,
    skip: bool,
    captions: Sequence[str] = (),
    labels: Sequence[str] = (),
    on_picture: OnPicture | None = None,
) -> tuple[StyleSet, Report]:
    """The pictures and captions of a folder, and of the folders directly in it, as a style set.

    Args:
        folder: the folder; whether it may be read is the caller's to know.
        empty: a set without items: the token, template and resolution of the new one.
        skip: leave pictures with problems out; otherwise all problems are raised at once.
        captions: in place of the caption files, one per picture of `pictures_in(folder)`, or none.
        labels: in place of the names of inner folders, likewise.
        on_picture: progress, and a place to interrupt from.

    Raises:
        InputError: no such folder, no usable picture, or problems while `skip` is off.
    """
    if not folder.is_dir():
        raise InputError("folder", "a folder that exists", f"{folder.name!r}, which does not")
    pictures = pictures_in(folder)
    report = Report(f"folder {folder.name}", notes=list(_other_files(folder, pictures)))
    taken: set[str] = set()
    files = [_from_file(path, folder, taken) for path in pictures]
    return _build(_with_words(files, captions, labels), empty, report, skip, on_picture)


def read_lists(
    images: Sequence[Tensor],
    captions: Sequence[str],
    labels: Sequence[str],
    empty: StyleSet,
    *,
    skip: bool,
    on_picture: OnPicture | None = None,
) -> tuple[StyleSet, Report]:
    """Pictures from memory, with one caption (and one label, if any) each, as a style set.

    Args:
        images: tensors `[h, w, c]` in 0..1 with 1, 3 or 4 channels; alpha is put on white.
        captions: one per picture.
        labels: one per picture, or none at all.
        empty, skip, on_picture: as for `read_folder`; pictures are named `image_0001`, ...

    Raises:
        InputError: lists of different lengths, no usable picture, or problems while not `skip`.
    """
    _check_count("captions", len(captions), len(images))
    names = [f"image_{count:04}" for count in range(1, len(images) + 1)]
    candidates = [
        _Candidate(name, StyleItem(name, ""), partial(_planes, image, name))
        for name, image in zip(names, images, strict=True)
    ]
    candidates = _with_words(candidates, captions, labels)
    return _build(candidates, empty, Report("the sockets"), skip, on_picture)


def _build(
    candidates: Sequence[_Candidate],
    empty: StyleSet,
    report: Report,
    skip: bool,
    on_picture: OnPicture | None,
) -> tuple[StyleSet, Report]:
    items: list[StyleItem] = []
    seen: dict[str, str] = {}
    report.found = len(candidates)
    for done, candidate in enumerate(candidates):
        if on_picture:
            on_picture(done, len(candidates))
        item, faults = _judge(candidate, empty, seen, report)
        if faults:
            report.problems.append((candidate.shown, "; ".join(faults)))
        else:
            items.append(item)
    _check_usable(items, report, skip)
    return replace(empty, items=tuple(items)), report


def _judge(
    candidate: _Candidate, empty: StyleSet, seen: dict[str, str], report: Report
) -> tuple[StyleItem, list[str]]:
    """The finished item and what is wrong with it; remembers the picture and notes oddities."""
    item, faults = candidate.item, [candidate.fault] if candidate.fault else []
    try:
        reading = candidate.read()
    except InputError as error:
        return item, [f"{error.got}, expected {error.expected}", *faults]
    height, width = reading.pixels.shape[-2:]
    faults += _size_faults(width, height, empty.resolution)
    first = seen.setdefault(_digest(reading.pixels), candidate.shown)
    if first != candidate.shown:
        faults.append(f"duplicate: the same picture as {first}")
    if not faults:
        notes = (*reading.notes, *_notes(item.caption, empty.token, width, height))
        report.notes += [(candidate.shown, note) for note in notes]
    return (item if item.path else replace(item, pixels=reading.pixels)), faults


def _size_faults(width: int, height: int, resolution: int) -> list[str]:
    wide, high = bucket_size(width, height, resolution, 8)
    enlargement = max(wide / width, high / height)
    if enlargement <= MAX_ENLARGEMENT:
        return []
    return [
        f"tiny: {width} x {height} pixels would be enlarged {enlargement:.1f} times for resolution "
        f"{resolution} (at most {MAX_ENLARGEMENT:g})"
    ]


def _notes(caption: str, token: str, width: int, height: int) -> Iterator[str]:
    if max(width, height) > MAX_ASPECT * min(width, height):
        yield f"{width} x {height} is longer than {MAX_ASPECT:g} to 1; its ends are cropped away"
    if contains_word(caption, token):
        yield f"its caption already has the token {token!r}; the template adds it once more"


def _check_usable(items: list[StyleItem], report: Report, skip: bool) -> None:
    if report.problems and not skip:
        raise InputError(
            "problem_files",
            f"pictures without problems in {report.source}",
            _listed(f"{len(report.problems)} of {report.found} with problems:", report.problems),
            "\nRepair or remove them, or set `problem_files` to `skip` to go on without them.",
        )
    if not items:
        found = _listed("none", report.problems) if report.problems else "none"
        endings = ", ".join(sorted(SUFFIXES))
        raise InputError("folder", f"a usable picture ({endings}) in {report.source}", found)


def _check_count(name: str, got: int, wanted: int) -> None:
    if got != wanted:
        rule = f"one of the {name} for each of the {wanted} pictures"
        raise InputError(name, rule, str(got), f"Connect a list of {wanted}.")


def _listed(title: str, rows: Sequence[tuple[str, str]]) -> str:
    return "\n".join([title, *(f"  {name}: {text}" for name, text in rows)])


def _from_file(path: Path, folder: Path, taken: set[str]) -> _Candidate:
    inner = path.relative_to(folder)
    caption, fault = read_caption(caption_path(path), folder)
    label = inner.parts[0] if len(inner.parts) > 1 else ""
    item = StyleItem(_free_name(inner, taken), caption, label, path)
    return _Candidate(inner.as_posix(), item, partial(_examine_inside, path, folder), fault)


def _with_words(
    candidates: list[_Candidate], captions: Sequence[str], labels: Sequence[str]
) -> list[_Candidate]:
    """The candidates with these captions and labels, where there are any, for their own."""
    if captions:
        _check_count("captions", len(captions), len(candidates))
        read = [as_caption(text) for text in captions]
        candidates = [
            replace(candidate, item=replace(candidate.item, caption=caption), fault=fault)
            for candidate, (caption, fault) in zip(candidates, read, strict=True)
        ]
    if labels:
        _check_count("labels", len(labels), len(candidates))
        candidates = [
            replace(candidate, item=replace(candidate.item, label=label.strip()))
            for candidate, label in zip(candidates, labels, strict=True)
        ]
    return candidates


def _examine_inside(path: Path, folder: Path) -> Reading:
    if not is_within(folder, path):
        raise InputError(path.name, "a file in the folder itself", "a link that points out of it")
    return examine(path)


def _free_name(inner: Path, taken: set[str]) -> str:
    """A name for an item that can also be a file's: `sub__x`, and `x.jpg` beside an earlier `x`."""
    stem, whole = "__".join(inner.with_suffix("").parts), "__".join(inner.parts)
    names = (stem, whole, *(f"{whole}_{count}" for count in range(2, len(taken) + 3)))
    name = next(name for name in names if name not in taken)
    taken.add(name)
    return name


def _planes(image: Tensor, name: str) -> Reading:
    """A host's picture `[h, w, c]` as planes `[3, h, w]` in 0..1."""
    if image.dim() != 3 or image.shape[-1] not in (1, 3, 4) or 0 in image.shape:
        raise InputError(name, "a picture [h, w, 1, 3 or 4 channels]", f"shape {[*image.shape]}")
    planes = image.detach().float().cpu().movedim(-1, 0)
    if not bool(torch.isfinite(planes).all()):
        raise InputError(name, "numbers in 0..1", "NaN or infinity in the pixels")
    planes = planes.clamp(0, 1)
    if len(planes) == 4:
        planes = planes[:3] * planes[3] + (1 - planes[3])
    return Reading(planes.expand(3, -1, -1).contiguous())


def _digest(pixels: Tensor) -> str:
    data = hashlib.sha256(str(tuple(pixels.shape)).encode())
    data.update(to_uint8(pixels).contiguous().numpy().tobytes())
    return data.hexdigest()


def _other_files(folder: Path, pictures: Sequence[Path]) -> Iterator[tuple[str, str]]:
    """What else lies there, so that a picture in a format we do not read is not lost in silence."""
    captions = {caption_path(path) for path in pictures}
    for path in visible(folder):
        name = path.relative_to(folder).as_posix()
        if path in captions or path in pictures:
            continue
        if path.is_dir() and path.parent != folder:
            yield name, "a folder two levels down; not looked into"
        elif path.is_file():
            caption = path.suffix.lower() == ".txt"
            other = "not a picture that is read here; left alone"
            yield (
                name,
                "a caption without a picture" if caption else other,
            )
