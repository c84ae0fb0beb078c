"""What an analysis found, as plain values: for the page, for JSON, for other programs."""

from dataclasses import asdict, dataclass

from nsync.evaluation.result import Interval

from ..studies.inference import LEVEL

BASE = "base"
"""The arm of the untrained base's own records."""
PRIMARY = "style_hit"
"""The metric that decides."""
HEADLINES = (PRIMARY, "content", "drift", "balanced")
"""Metrics that the page tells of first, and along the steps."""


@dataclass(frozen=True)
class Metric:
    """A column of the table.

    Attributes:
        label: in words.
        better: "higher" or "lower"; None for what is observed and not judged.
        digits: after the point.
    """

    label: str
    better: str | None
    digits: int = 3


METRICS = {  # in the record contract's names; `balanced` is sqrt(style_hit x content), ours
    "style_hit": Metric("style hit rate", "higher"),
    "style_probability": Metric("style probability", "higher"),
    "content": Metric("content kept", "higher"),
    "balanced": Metric("balanced", "higher"),
    "drift": Metric("drift", "lower", 4),
    "shape": Metric("shape", "higher"),
    "colour": Metric("colour", "higher"),
    "place": Metric("place", "higher"),
    "count": Metric("count", "higher"),
    "plain_content": Metric("content without the style word", "higher"),
    "frechet": Metric("Frechet distance", "lower", 1),
    "kernel": Metric("kernel distance", "lower", 4),
    "cmmd": Metric("CMMD", "lower"),
    "similarity": Metric("style similarity", "higher"),
    "diversity": Metric("diversity", "higher"),
    "copies": Metric("copies", "lower"),
    "cos_negative": Metric("cos(g_p, g_n)", None),
    "removed": Metric("share of g_p removed", None),
}


@dataclass(frozen=True)
class Mean:
    """An arm's mean of a metric at a step: the mean over styles of the means over seeds.

    Attributes:
        value: with its interval.
        styles, cells: how many it is made of.
    """

    adapter: str
    arm: str
    metric: str
    step: int
    value: Interval
    styles: int
    cells: int


@dataclass(frozen=True)
class Comparison:
    """What an arm has over a baseline at a step.

    Attributes:
        difference: arm less baseline, mean over styles of the mean over paired seeds.
        p: two-sided, of sign flips of the styles' differences.
        p_holm: the same, corrected for the number of arms held against this baseline.
        effect: mean of the styles' differences over their standard deviation (Cohen's d_z); None
            for fewer than 3 styles or no deviation.
        detectable: the smallest true difference that would have been called one in 80 % of such
            studies, at the correction's strictest step; None where none could have been.
        by_style: the styles' own differences.
        pairs: (style, seed) with both sides.
        missing: (style, seed) of the study that lack a side.
    """

    adapter: str
    arm: str
    against: str
    metric: str
    step: int
    difference: Interval
    p: float
    p_holm: float
    effect: float | None
    detectable: float | None
    by_style: dict[str, float]
    pairs: int
    missing: int

    @property
    def shown(self) -> str:
        """`better`, `worse` or `no difference shown`: corrected p and interval must agree."""
        if self.p_holm >= LEVEL or not self.difference.excludes_zero:
            return "no difference shown"
        better = METRICS[self.metric].better == "higher"
        return "better" if (self.difference.value > 0) == better else "worse"


@dataclass(frozen=True)
class Ruling:
    """What is said of an arm, by the rule in `ruling`.

    Attributes:
        equal_steps, equal_pictures: the baselines that it was held against.
        pictures_ratio: pictures seen by the arm over those that `equal_pictures` saw.
        style, content: `Comparison.shown` by baseline.
        drift: "no worse", "worse" or "not settled".
        wins: over plain training.
    """

    adapter: str
    arm: str
    equal_steps: str
    equal_pictures: str
    pictures_ratio: float
    style: dict[str, str]
    content: dict[str, str]
    drift: str
    wins: bool


@dataclass(frozen=True)
class Answer:
    """The result for one adapter in words.

    Attributes:
        headline: one sentence.
        details: the numbers to it, and what else is shown.
    """

    adapter: str
    headline: str
    details: tuple[str, ...]


@dataclass(frozen=True)
class Budget:
    """What the study took.

    Attributes:
        cells: trainings.
        seconds: of training, summed over cells.
        passes: forward and backward passes of single pictures.
        cores: processor cores that a cell was given, where the records tell.
        fell_apart: cells whose training ended early, for its loss exploded, by adapter and arm;
            their last pictures stand for the steps that they did not make.
    """

    cells: int
    seconds: float
    passes: int
    cores: int | None
    fell_apart: dict[str, int]


@dataclass(frozen=True)
class Analysis:
    """Everything that the records say.

    Attributes:
        step: the deciding one, at which arms are compared; see `analysis`.
        arms: baselines first, then the others, the highest style hit rate first; without the base.
        baselines: that of equal steps first.
        answers: one per adapter.
        notes: what has to be known to read the numbers.
        means: at every step; the base's at step 0, under each adapter.
        comparisons: at the deciding step.
        along: those of `HEADLINES` at every step, to look at.
    """

    study: str
    step: int
    styles: tuple[str, ...]
    seeds: tuple[int, ...]
    adapters: tuple[str, ...]
    arms: tuple[str, ...]
    baselines: tuple[str, ...]
    answers: tuple[Answer, ...]
    notes: tuple[str, ...]
    budget: Budget
    rulings: tuple[Ruling, ...]
    means: tuple[Mean, ...]
    comparisons: tuple[Comparison, ...]
    along: tuple[Comparison, ...]

    def as_dict(self) -> dict[str, object]:
        """The same as plain values, for JSON."""
        return asdict(self)

    def mean(self, adapter: str, arm: str, metric: str) -> Mean | None:
        """An arm's mean at the deciding step (the base's at step 0), or None where not measured."""
        step = 0 if arm == BASE else self.step
        keys = (adapter, arm, metric, step)
        found = [m for m in self.means if (m.adapter, m.arm, m.metric, m.step) == keys]
        return found[0] if found else None

    def comparison(self, adapter: str, arm: str, against: str, metric: str) -> Comparison | None:
        """An arm's comparison at the deciding step, or None where there is none."""
        keys = (adapter, arm, against, metric)
        rows = self.comparisons
        found = [c for c in rows if (c.adapter, c.arm, c.against, c.metric) == keys]
        return found[0] if found else None
