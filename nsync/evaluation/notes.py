"""What has to be known beside the numbers of an evaluation, in words."""

from collections.abc import Sequence

import numpy as np

from .arms import Arm
from .encoders import Encoder
from .measure import Measure
from .policy import advice
from .request import Request, all_equal
from .result import PAPER, ArmScores, Interval
from .roles import Roles
from .statistics import compare_scores, halves
from .units import LEAST
from .verdict import signed


def notes_on(
    request: Request, measure: Measure, scores: Sequence[ArmScores], encoders: Sequence[Encoder]
) -> tuple[str, ...]:
    """What has to be known beside the numbers, the weightiest first."""
    least = min(len(request.references), *(len(arm.pictures) for arm in request.arms))
    notes = [f"{arm.name}: all pictures are the same." for arm in request.arms if _dull(arm)]
    shown = {
        "style": True,
        "cmmd": True,
        "kid": measure.roles.inception is not None,
        "fid": measure.roles.inception is not None,
    }
    notes += [advice(metric, least).sentence for metric, known in shown.items() if known]
    if measure.roles.classes is not None:
        drawn = min(len(arm.pictures) for arm in request.arms)
        notes.append(advice("is", drawn).sentence)
    notes += _seed_notes(request)
    notes += _parity_notes(request, measure.roles)
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
    notes += [*_best_of_many(request, scores), *_encoder_notes(measure.roles)]
    notes += _idle(encoders, measure.roles)
    return tuple(filter(None, notes))


def _seed_notes(request: Request) -> list[str]:
    """What several pictures of a prompt mean for the intervals."""
    contents = request.ordered()[0].contents
    different = len(set(contents))
    if different == len(contents):
        return []
    if different < LEAST:
        return [
            f"Fewer than {LEAST} different prompts: intervals and p-values are about other seeds "
            "of these very prompts."
        ]
    return [f"All pictures of a prompt count as one draw: there are {different} prompts."]


def _parity_notes(request: Request, roles: Roles) -> list[str]:
    """With which published numbers these compare, where it is not the metrics' own."""
    if not request.paper:
        return []
    notes = [
        "As the NSYNC paper: similarity to the mean reference, biased CMMD, FID as a mean over "
        "resamples, KID over subsets."
    ]
    if roles.inception is None:
        return notes
    if roles.inception is roles.classes:
        return [
            *notes,
            "The paper's FID and KID come from another network, torchvision's Inception: load the "
            "encoder inception-imagenet to compare with them. Here they are on the 2015 network.",
        ]
    return [
        *notes,
        "FID and KID are on torchvision's Inception, as that paper's code (gan-metrics-pytorch) "
        "has them: they compare with its tables and with no other FID or KID.",
    ]


def _best_of_many(request: Request, scores: Sequence[ArmScores]) -> list[str]:
    """The best arm, chosen on one half of the prompts and reported on the other."""
    tuned = [arm for arm in request.arms if arm.name != request.baseline]
    contents = request.ordered()[0].contents
    if len(tuned) < 2 or len(set(contents)) < 2 * LEAST:
        return []
    chosen, rest = halves(contents, seed=request.seed)
    style = {arm.name: np.array([one.style for one in arm.pictures]) for arm in scores}
    best = max((arm.name for arm in tuned), key=lambda name: style[name][chosen].mean())
    told = f"Chosen on one half of the prompts, {best} is nearest to the style; on the other half "
    told += f"it has {style[best][rest].mean():.3f}"
    if request.base is not None:
        base = style[request.baseline][rest]
        held_out = {"prompts": [contents[i] for i in rest], "seed": request.seed}
        against = compare_scores(style[best][rest], base, **held_out).difference
        told += f", {signed(Interval.of(against))} over {request.base.name}"
    return [f"{told}. The best of several is otherwise optimistic."]


def _encoder_notes(roles: Roles) -> list[str]:
    encoders = {id(e): e for e in vars(roles).values() if e is not None}
    return [note for encoder in encoders.values() for note in encoder.notes]


def _idle(encoders: Sequence[Encoder], roles: Roles) -> list[str]:
    asked = {id(encoder) for encoder in vars(roles).values()}
    return [
        f"{encoder.name} was not asked anything here."
        + (f" It is for the parity {PAPER!r}." if encoder.name == "inception-imagenet" else "")
        for encoder in encoders
        if id(encoder) not in asked
    ]


def _dull(arm: Arm) -> bool:
    return len(arm.pictures) > 1 and all_equal(arm.pictures)
