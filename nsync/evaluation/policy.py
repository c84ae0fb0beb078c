"""What a score is worth at a number of pictures, and the words for it.

Users have 5 to 200 pictures; the scores were made for tens of thousands. The bounds are our
judgement of simulations with two sets of one distribution, where the truth is 0: FID gave 299 at 10
pictures, 108 at 100 and 32 at 1,000; unbiased CMMD had a standard deviation of 0.018 at 20.
"""

from dataclasses import dataclass

from ..errors import InputError

LEVELS = ("no", "per picture", "test only", "wide", "warn", "ok")
"""From not to be shown at all to nothing to add.

`per picture`: values of pictures, no value of the set. `test only`: the value beside its bias, and
differences only with the p-value of swapped pairs. `wide`: a value with its wide interval. `warn`:
a value with a caution.
"""


@dataclass(frozen=True)
class Advice:
    """What a report may say of a score.

    Attributes:
        level: one of `LEVELS`.
        sentence: the reason, for the reader of the report; empty where there is nothing to add.
    """

    level: str
    sentence: str


_NOT_STYLE = "Inception Score is not a style metric: it never looks at the references."
_BIASED = "FID of so few pictures is mostly bias, which differs from model to model"

_TABLE: dict[str, tuple[tuple[int, str, str], ...]] = {
    "style": (
        (1, "per picture", "Fewer than 5 pictures: read the pictures one by one."),
        (5, "wide", "Fewer than 20 pictures: the interval is wide, read it with the value."),
        (20, "ok", ""),
    ),
    "cmmd": (
        (1, "no", "CMMD needs at least 5 pictures in each set."),
        (5, "test only", "CMMD of fewer than 20 pictures: trust the p-value, not the difference."),
        (20, "ok", ""),
    ),
    "kid": (
        (1, "no", "KID needs at least 5 pictures in each set."),
        (5, "warn", "KID of fewer than 100 pictures is unbiased but noisy; it may be below 0."),
        (100, "ok", ""),
    ),
    "fid": (
        (1, "no", "FID needs at least 20 pictures in each set, and means little under 1,000."),
        (20, "test only", f"{_BIASED}: compare by the p-value of swapped pairs only."),
        (100, "warn", f"{_BIASED}."),
        (1000, "warn", "FID under 2,048 pictures is biased: its covariance has no full rank."),
        (2048, "ok", "For publication FID takes 10,000 pictures or more."),
        (10_000, "ok", ""),
    ),
    "is": (
        (1, "no", f"{_NOT_STYLE} It needs at least 100 pictures."),
        (100, "warn", f"{_NOT_STYLE} Under 1,000 pictures it is bounded by their number."),
        (1000, "ok", f"{_NOT_STYLE} Under 5,000 pictures it is taken in one split."),
        (5000, "ok", _NOT_STYLE),
    ),
}

METRICS = tuple(_TABLE)
"""Names of the scores: `style` is any per-picture similarity, the rest are scores of sets."""


def advice(metric: str, pictures: int) -> Advice:
    """What a score is worth.

    Args:
        metric: one of `METRICS`.
        pictures: of the smaller set, at least 1.

    Raises:
        InputError: an unknown metric; no pictures.
    """
    if metric not in _TABLE:
        raise InputError("metric", f"one of {', '.join(METRICS)}", repr(metric))
    if pictures < 1:
        raise InputError("pictures", "at least 1", str(pictures))
    _, level, sentence = max(row for row in _TABLE[metric] if row[0] <= pictures)
    return Advice(level, sentence)
