"""An evaluation: arms of pictures against the references of a style, from pixels to a verdict."""

import importlib.metadata
import itertools
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from .. import __version__
from ..processes import ONE, Processes
from .arms import Arm
from .encoders import Encoder
from .measure import Measure
from .notes import notes_on
from .permutation import Swappable, holm, significance
from .policy import advice
from .request import Request, check
from .result import Comparison, Evaluation, Interval, Validity
from .roles import Roles, Vectors
from .similarity import self_similarity
from .statistics import compare_scores, compare_similarity
from .swaps import cmmd_swaps, frechet_swaps, kernel_swaps
from .units import LEAST, Units
from .validity import READOUTS, style_gap
from .verdict import verdict


def evaluate(
    request: Request,
    encoders: Sequence[Encoder],
    store: Path,
    on_item: Callable[[int, int], None] | None = None,
    processes: Processes = ONE,
) -> Evaluation:
    """Judge the arms.

    Args:
        store: a folder in which the pictures' vectors are kept; see `nsync.evaluation.store`.
        on_item: called before each picture that is encoded, with (done, all); may raise to stop.
        processes: that make this call together: each encodes a share of the pictures, and all find
            the same.

    Raises:
        InputError: fewer than 2 references, references that are all the same, arms that do not
            answer to each other, no encoder that knows styles.
    """
    check(request)
    roles = Roles.of(encoders, request.paper)
    vectors = Vectors(store, on_item, processes)
    measure = Measure(request.references, request.base, roles, vectors, request.paper, request.seed)
    scores = [measure.scores(arm) for arm in request.ordered()]
    gaps = tuple(_gaps(request, measure))
    comparisons = tuple(_comparisons(request, measure))
    references = measure.references
    floor = next((arm.style.value for arm in scores if arm.name == request.baseline), None)
    return Evaluation(
        verdict=verdict(gaps, scores, comparisons),
        notes=notes_on(request, measure, scores, encoders),
        encoders=roles.told(),
        references=len(references),
        ceiling=Interval(float(self_similarity(references).mean())),
        floor=floor,
        validity=gaps,
        arms=tuple(scores),
        comparisons=comparisons,
        settings={"parity": request.parity, "seed": request.seed, "baseline": request.baseline},
        versions=_versions(),
    )


def _gaps(request: Request, measure: Measure) -> list[Validity]:
    """Whether each style encoder tells the references from other pictures, cosines first."""
    base = request.base
    others = request.distractors or (base.pictures if base else ())
    if min(len(others), len(request.references)) < LEAST:
        return []
    found = []
    encoders = [measure.roles.style, measure.roles.control]
    for readout, encoder in itertools.product(READOUTS, filter(None, encoders)):
        sets = (measure.vectors(encoder, pictures) for pictures in (request.references, others))
        gap = style_gap(*sets, readout, seed=request.seed)
        found.append(Validity(encoder.name, readout, Interval.of(gap.gap), gap.told_apart))
    return found


def _comparisons(request: Request, measure: Measure) -> list[Comparison]:
    """The candidate against every other arm, score by score."""
    candidate, *others = request.ordered()
    if min(len(candidate.pictures), len(request.references)) < LEAST:
        return []
    found = []
    for score, better, compare in _scores(request, measure, candidate):
        made = [(other, told) for other in others if (told := compare(other))]
        corrected = holm([p for _, (_, p) in made]) if made else []
        found += [
            Comparison(score, candidate.name, other.name, difference, p, float(p_holm), better)
            for (other, (difference, p)), p_holm in zip(made, corrected, strict=True)
        ]
    return found


_Compare = Callable[[Arm], tuple[Interval, float] | None]


def _scores(request: Request, measure: Measure, candidate: Arm) -> list[tuple[str, str, _Compare]]:
    """(score, which way is better, the candidate's difference to an arm and its p-value, or None
    where the arm has no such score)."""
    form, options = "nsync" if request.paper else "pairwise", _options(request, candidate)
    references, least = measure.references, min(len(candidate.pictures), len(request.references))

    def style(other: Arm) -> tuple[Interval, float]:
        pair = measure.style(candidate), measure.style(other)
        return _told(compare_similarity(references, *pair, form, **options))

    def adherence(other: Arm) -> tuple[Interval, float] | None:
        pair = measure.adherence(candidate), measure.adherence(other)
        return None if pair[1] is None else _told(compare_scores(*pair, **options))

    def swapped(swaps: Callable[..., Swappable], read: Callable, other: Arm) -> tuple:
        sets = (read(p) for p in (request.references, candidate.pictures, other.pictures))
        made = swaps(*sets)
        observed = float(made.difference(np.zeros((1, made.pairs), bool))[0])
        together = Units.of(made.pairs, candidate.contents).swapped(made)
        return Interval(observed), significance(together, seed=request.seed).p

    scores: list[tuple[str, str, _Compare]] = [("style", "higher", style)]
    if measure.adherence(candidate) is not None:
        scores.append(("adherence", "higher", adherence))
    near = partial(swapped, partial(cmmd_swaps, unbiased=not request.paper), measure.distance)
    scores.append(("CMMD", "lower", near))
    if measure.roles.inception is not None:
        scores.append(("KID", "lower", partial(swapped, kernel_swaps, measure.inception)))
        if advice("fid", least).level != "no":
            scores.append(("FID", "lower", partial(swapped, frechet_swaps, measure.inception)))
    return scores


def _options(request: Request, arm: Arm) -> dict[str, object]:
    return {"prompts": arm.contents, "seed": request.seed}


def _told(comparison: object) -> tuple[Interval, float]:
    return Interval.of(comparison.difference), comparison.significance.p


def _versions() -> dict[str, str]:
    packages = ("torch", "torchvision", "transformers", "numpy")
    versions = {name: importlib.metadata.version(name) for name in packages}
    return {"nsync": __version__, **versions}
