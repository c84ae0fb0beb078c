"""From records to results: what each arm has over the same GAN without contrast.

Fixed before any study was run. Within a family every arm is held against `none` in the same world
(what labels name, how many objects) with the same seed: equal pictures, captions, first weights and
noise. Such a pair is a unit; nothing is drawn alike in two of them. The estimate is the mean of the
units' differences; a resample draws units with replacement, p-values flip the signs of units, and
both are corrected and widened as `studies.inference` says. The method in both phases is the
question, and is asked first, of its own p-value; those of all other arms of a family are corrected
(Holm) among themselves, metric by metric. So what is said of the method does not depend on how many
others have been run: with six units the least p is 2 / 64, and twelve arms would hide it. The
worlds are all that there are and not drawn from more: intervals say what other seeds would give,
and are rather too wide, for differences between worlds count as noise.

One metric decides, the Frechet distance, of which the paper claims a lower one. It is compared by
its logarithm, since worlds have scales of their own, and told as a change in per cent. All others
are looked at.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import exp, log

from nsync.errors import InputError
from nsync.evaluation.permutation import holm
from nsync.evaluation.result import Interval

from ..studies.inference import LEVEL, detectable, mean_interval, p_value, style_means
from ..studies.records import Record
from .arms import BASELINE, SUPCON, Arm
from .study import REAL

PRIMARY = "frechet"
METHOD = Arm(SUPCON, SUPCON).name
CLAIMED = {"AttnGAN": -30.1, "DM-GAN": -27.3, "SSA-GAN": -16.2, "GALIP": -17.1}
"""Changes of the Frechet distance on COCO in per cent, arXiv 2412.03957, abstract."""

Unit = tuple[str, str, int]
"""What labels name, how many objects, seed."""


@dataclass(frozen=True)
class Metric:
    """A column of the table.

    Attributes:
        label: in words.
        better: "higher" or "lower"; None for what is observed and not judged.
        digits: after the point, of the mean.
        relative: compared by its logarithm; the difference is a change in per cent.
    """

    label: str
    better: str | None
    digits: int = 3
    relative: bool = False


METRICS = {
    "frechet": Metric("Frechet distance", "lower", 0, relative=True),
    "inception": Metric("Inception Score", "higher", 2),
    "precision": Metric("R-precision, text to image", "higher"),
    "style": Metric("style", "higher"),
    "shape": Metric("shape", "higher"),
    "colour": Metric("colour", "higher"),
    "place": Metric("place", "higher"),
    "count": Metric("count", "higher"),
    "all": Metric("all of it", "higher"),
    "precision_image": Metric("R-precision, image to text", "higher"),
    "own_precision": Metric("R-precision of the arm's encoders on real pictures", None),
    "own_margin": Metric("their margin to captions that say one thing otherwise", None),
}


@dataclass(frozen=True)
class Mean:
    """An arm's mean of a metric over units."""

    family: str
    arm: str
    metric: str
    value: Interval
    units: int


@dataclass(frozen=True)
class Difference:
    """What an arm has over `none` of its family.

    Attributes:
        value: arm less none, the mean over units; of relative metrics a change in per cent.
        p: two-sided, of sign flips of units.
        p_holm: the same, corrected for the number of arms of the family; the method's is p.
        detectable: the smallest true difference that 80 % of such studies would have shown, in the
            unit of `value` (upwards); None where none could have been.
        units: with both sides.
        missing: units of the family that lack a side.
    """

    family: str
    arm: str
    metric: str
    value: Interval
    p: float
    p_holm: float
    detectable: float | None
    units: int
    missing: int

    @property
    def shown(self) -> str:
        """`better`, `worse` or `no difference shown`: corrected p and interval must agree."""
        low, high = self.value.low, self.value.high
        apart = low is not None and (low > 0 or high < 0)
        if self.p_holm >= LEVEL or not apart:
            return "no difference shown"
        better = METRICS[self.metric].better == "higher"
        return "better" if (self.value.value > 0) == better else "worse"


@dataclass(frozen=True)
class Analysis:
    """Everything that the records say."""

    study: str
    families: tuple[str, ...]
    arms: tuple[str, ...]
    means: tuple[Mean, ...]
    differences: tuple[Difference, ...]
    cells: int
    seconds: float
    fell_apart: dict[str, int]

    def as_dict(self) -> dict[str, object]:
        """The same as plain values, with what is shown."""
        told = asdict(self)
        for row, one in zip(told["differences"], self.differences, strict=True):
            row["shown"] = one.shown
        return told

    def mean(self, family: str, arm: str, metric: str) -> Mean | None:
        """An arm's mean, or None where it was not measured."""
        keys = (family, arm, metric)
        return next((m for m in self.means if (m.family, m.arm, m.metric) == keys), None)

    def difference(self, family: str, arm: str, metric: str) -> Difference | None:
        """What an arm has over none, or None."""
        keys = (family, arm, metric)
        return next((d for d in self.differences if (d.family, d.arm, d.metric) == keys), None)


class _Cells:
    """Values by family, arm and metric, then by unit."""

    def __init__(self, records: Iterable[Record]) -> None:
        self.found: dict[tuple[str, str, str], dict[Unit, float]] = defaultdict(dict)
        for record in records:
            unit = (record["labels"], record["objects"], record["seed"])
            for metric in METRICS:
                value = record["metrics"].get(metric)
                if value is not None:
                    self.found[record["family"], record["arm"], metric][unit] = value

    def of(self, family: str, arm: str, metric: str) -> Mapping[Unit, float]:
        return self.found.get((family, arm, metric), {})


def analyse(records: Sequence[Record]) -> Analysis:
    """The analysis of a study.

    Raises:
        InputError: no trained cell.
    """
    trained = [record for record in records if record["family"] != REAL]
    if not trained:
        raise InputError("records", "records of trained cells", "none", "Run the study.")
    cells = _Cells(records)
    families = tuple(dict.fromkeys(str(record["family"]) for record in trained))
    arms = tuple(dict.fromkeys(str(record["arm"]) for record in trained))
    apart = defaultdict(int)
    for record in trained:
        if "fell_apart" in record:
            apart[f"{record['family']}, {record['arm']}"] += 1
    return Analysis(
        study=str(records[0]["study"]),
        families=families,
        arms=arms,
        means=tuple(
            Mean(*keys, mean_interval(_alone(values)), len(values))
            for keys, values in cells.found.items()
        ),
        differences=tuple(
            one
            for family in families
            for metric, told in METRICS.items()
            if told.better
            for one in _family(cells, family, metric, arms)
        ),
        cells=len(trained),
        seconds=sum(record["seconds"]["training"] for record in trained),
        fell_apart=dict(apart),
    )


def _family(cells: _Cells, family: str, metric: str, arms: Sequence[str]) -> Iterable[Difference]:
    """All arms of a family against none; arms without a pair are no part of it."""
    base = cells.of(family, BASELINE.name, metric)
    units = {unit for arm in arms for unit in cells.of(family, arm, metric)}
    pairs = {}
    for arm in arms:
        ours = cells.of(family, arm, metric)
        both = {unit: _less(metric, ours[unit], base[unit]) for unit in ours if unit in base}
        if arm != BASELINE.name and both:
            pairs[arm] = _alone(both)
    p_values = {arm: p_value(style_means(found)) for arm, found in pairs.items()}
    corrected = _corrected(p_values)
    for arm, found in pairs.items():
        least = detectable(style_means(found), 1 if arm == METHOD else len(pairs.keys() - {METHOD}))
        yield Difference(
            family=family,
            arm=arm,
            metric=metric,
            value=_told(metric, mean_interval(found)),
            p=p_values[arm],
            p_holm=corrected[arm],
            detectable=None if least is None else _percent(metric, least),
            units=len(found),
            missing=len(units) - len(found),
        )


def _corrected(p_values: Mapping[str, float]) -> dict[str, float]:
    """By arm: the method's own, and the others' after Holm."""
    others = {arm: p for arm, p in p_values.items() if arm != METHOD}
    found = dict(zip(others, map(float, holm(list(others.values()))), strict=True))
    return {arm: found.get(arm, p) for arm, p in p_values.items()}


def _less(metric: str, one: float, other: float) -> float:
    return log(one / other) if METRICS[metric].relative else one - other


def _alone(values: Mapping[Unit, float]) -> dict[str, list[float]]:
    """Each unit as a unit of `inference`, in an order that does not depend on the records'."""
    return {str(unit): [value] for unit, value in sorted(values.items())}


def _told(metric: str, value: Interval) -> Interval:
    ends = (None if end is None else _percent(metric, end) for end in (value.low, value.high))
    return Interval(_percent(metric, value.value), *ends)


def _percent(metric: str, difference: float) -> float:
    return 100 * (exp(difference) - 1) if METRICS[metric].relative else difference
