"""An evaluation: arms of pictures against the references of a style, from pixels to a verdict."""

import importlib.metadata
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .. import __version__
from ..errors import InputError
from .arms import Arm, check_arms, check_paired
from .encoders import Encoder
from .measure import Measure
from .permutation import Swappable, holm, significance
from .policy import advice
from .result import ArmScores, Comparison, Evaluation, Interval, Validity
from .roles import Roles, Vectors
from .similarity import self_similarity
from .statistics import LEAST, compare_scores, compare_similarity, halves
from .swaps import cmmd_swaps, frechet_swaps, kernel_swaps
from .validity import READOUTS, style_gap
from .verdict import signed, verdict

_STANDARD, _PAPER = "standard", "as the NSYNC paper"
PARITIES = (_STANDARD, _PAPER)


@dataclass(frozen=True, eq=False)
class Request:
    """What is to be judged.

    Attributes:
        references: pictures of the style, uint8 `[3, h, w]`, of any sizes; 5 or more for intervals.
        arms: what was drawn, in the order in which it is told.
        candidate: the arm that the verdict is about.
        baseline: the arm of the untuned model, or "".
        distractors: pictures of other styles; the baseline's where there are none.
        parity: one of `PARITIES`.
        seed: of all resamples.
    """

    references: tuple[Tensor, ...]
    arms: tuple[Arm, ...]
    candidate: str
    baseline: str = ""
    distractors: tuple[Tensor, ...] = ()
    parity: str = _STANDARD
    seed: int = 0

    @property
    def paper(self) -> bool:
        """Whether scores are to be those of the paper's tables."""
        return self.parity == _PAPER

    @property
    def base(self) -> Arm | None:
        """The arm of the untuned model."""
        return next((arm for arm in self.arms if arm.name == self.baseline), None)

    def ordered(self) -> list[Arm]:
        """The arms, the candidate first."""
        return sorted(self.arms, key=lambda arm: arm.name != self.candidate)


def evaluate(
    request: Request,
    encoders: Sequence[Encoder],
    store: Path,
    on_item: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Judge the arms.

    Args:
        store: a folder in which the pictures' vectors are kept; see `nsync.evaluation.store`.
        on_item: called before each picture that is encoded, with (done, all); may raise to stop.

    Raises:
        InputError: fewer than 2 references, references that are all the same, arms that do not
            answer to each other, no encoder that knows styles.
    """
    _check(request)
    roles = Roles.of(encoders)
    vectors = Vectors(store, on_item)
    measure = Measure(request.references, request.base, roles, vectors, request.paper, request.seed)
    scores = [measure.scores(arm) for arm in request.ordered()]
    gaps = tuple(_gaps(request, measure))
    comparisons = tuple(_comparisons(request, measure))
    references = measure.references
    floor = next((arm.style.value for arm in scores if arm.name == request.baseline), None)
    return Evaluation(
        verdict=verdict(gaps, scores, comparisons),
        notes=tuple(_notes(request, measure, scores)),
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


def _check(request: Request) -> None:
    if len(request.references) < 2:
        remedy = "Five or more are needed for intervals and p-values."
        got = str(len(request.references))
        raise InputError("references", "at least two pictures of the style", got, remedy)
    if _all_equal(request.references):
        got = f"{len(request.references)} times the same picture"
        raise InputError("references", "different pictures of the style", got)
    check_arms(request.arms)
    names = [arm.name for arm in request.arms]
    for what in ("candidate", "baseline"):
        name = getattr(request, what)
        if name not in names and (name or what == "candidate"):
            raise InputError(what, f"one of the arms, {', '.join(names)}", repr(name))
    candidate = request.ordered()[0]
    for arm in request.arms:
        check_paired(arm, candidate)


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
        made = [(other, compare(other)) for other in others]
        corrected = holm([p for _, (_, p) in made]) if made else []
        found += [
            Comparison(score, candidate.name, other.name, difference, p, float(p_holm), better)
            for (other, (difference, p)), p_holm in zip(made, corrected, strict=True)
        ]
    return found


_Compare = Callable[[Arm], tuple[Interval, float]]


def _scores(request: Request, measure: Measure, candidate: Arm) -> list[tuple[str, str, _Compare]]:
    """(score, which way is better, the candidate's difference to an arm and its p-value)."""
    seed, form = request.seed, "nsync" if request.paper else "pairwise"
    references, least = measure.references, min(len(candidate.pictures), len(request.references))

    def style(other: Arm) -> tuple[Interval, float]:
        pair = measure.style(candidate), measure.style(other)
        return _told(compare_similarity(references, *pair, form, seed=seed))

    def adherence(other: Arm) -> tuple[Interval, float]:
        pair = measure.adherence(candidate), measure.adherence(other)
        return _told(compare_scores(*pair, seed=seed))

    def swapped(swaps: Callable[..., Swappable], read: Callable, other: Arm) -> tuple:
        sets = (read(p) for p in (request.references, candidate.pictures, other.pictures))
        made = swaps(*sets)
        observed = float(made.difference(np.zeros((1, made.pairs), bool))[0])
        return Interval(observed), significance(made, seed=seed).p

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


def _told(comparison: object) -> tuple[Interval, float]:
    return Interval.of(comparison.difference), comparison.significance.p


def _notes(request: Request, measure: Measure, scores: Sequence[ArmScores]) -> list[str]:
    """What has to be known beside the numbers, the weightiest first."""
    least = min(len(request.references), *(len(arm.pictures) for arm in request.arms))
    notes = [f"{arm.name}: all pictures are the same." for arm in request.arms if _dull(arm)]
    shown = {"style": True, "cmmd": True} | dict.fromkeys(
        ("kid", "fid", "is"), measure.roles.inception is not None
    )
    notes += [advice(metric, least).sentence for metric in shown if shown[metric]]
    if measure.roles.distance is None:
        name = measure.roles.style.name
        notes.append(
            f"CMMD is taken on the features of {name}, for want of CLIP ViT-L/14 at 336 px: "
            "compare it within this table only."
        )
    if measure.roles.copies is None:
        notes.append("Copies were not looked for: that takes the encoder sscd.")
    if request.base is not None and all(arm.normalised is None for arm in scores):
        notes.append("The baseline is as near to the references as they are to each other.")
    if request.paper:
        notes.append(
            "As the NSYNC paper: similarity to the mean reference, biased CMMD, FID as a "
            "mean over resamples, KID over subsets. The paper's FID and KID come from another "
            "Inception network, torchvision's."
        )
    return [*filter(None, notes), *_best_of_many(request, scores), *_encoder_notes(measure)]


def _best_of_many(request: Request, scores: Sequence[ArmScores]) -> list[str]:
    """The best arm, chosen on one half of the prompts and reported on the other."""
    tuned = [arm for arm in request.arms if arm.name != request.baseline]
    contents = tuned[0].captions or tuned[0].prompts
    if len(tuned) < 2 or len(set(contents)) < 2 * LEAST:
        return []
    chosen, rest = halves(contents, seed=request.seed)
    style = {arm.name: np.array([one.style for one in arm.pictures]) for arm in scores}
    best = max((arm.name for arm in tuned), key=lambda name: style[name][chosen].mean())
    told = f"Chosen on one half of the prompts, {best} is nearest to the style; on the other half "
    told += f"it has {style[best][rest].mean():.3f}"
    if request.base is not None:
        base = style[request.baseline][rest]
        against = compare_scores(style[best][rest], base, seed=request.seed).difference
        told += f", {signed(Interval.of(against))} over {request.base.name}"
    return [f"{told}. The best of several is otherwise optimistic."]


def _encoder_notes(measure: Measure) -> list[str]:
    encoders = {id(e): e for e in vars(measure.roles).values() if e is not None}
    return [note for encoder in encoders.values() for note in encoder.notes]


def _dull(arm: Arm) -> bool:
    return len(arm.pictures) > 1 and _all_equal(arm.pictures)


def _all_equal(pictures: Sequence[Tensor]) -> bool:
    first = pictures[0]
    return all(one.shape == first.shape and torch.equal(one, first) for one in pictures[1:])


def _versions() -> dict[str, str]:
    packages = ("torch", "torchvision", "transformers", "numpy")
    versions = {name: importlib.metadata.version(name) for name in packages}
    return {"nsync": __version__, **versions}
