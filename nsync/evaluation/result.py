"""What an evaluation found, as plain values: for the report, for JSON, for other programs."""

from dataclasses import asdict, dataclass, field

from . import bootstrap

Json = dict[str, object]

STANDARD, PAPER = PARITIES = ("standard", "as the NSYNC paper")
"""With which published numbers the scores compare: each metric's own, or that paper's."""


@dataclass(frozen=True)
class Interval:
    """A value and its 95 % interval; without one where too little is known."""

    value: float
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, found: bootstrap.Interval) -> "Interval":
        """That of a bootstrap."""
        return cls(found.value, found.low, found.high)

    @property
    def excludes_zero(self) -> bool:
        """Whether the whole interval lies on one side of zero."""
        return self.low is not None and self.high is not None and self.low * self.high > 0


@dataclass(frozen=True)
class PictureScores:
    """One candidate.

    Attributes:
        index: in its arm, 0 the first.
        prompt: what it was drawn from, or "".
        style: mean cosine to the references, -1..1 (form "pairwise").
        adherence: cosine of picture and caption without the style token, or None.
        content: cosine to the base's picture of the same prompt by the content encoder, or None.
        nearest: index of the reference that the copy encoder finds most similar, or None.
        similarity: cosine to it, or None.
    """

    index: int
    prompt: str
    style: float
    adherence: float | None
    content: float | None
    nearest: int | None
    similarity: float | None


@dataclass(frozen=True)
class SetScores:
    """Scores of an arm's pictures together; None where there are too few, or no encoder for it.

    Attributes:
        cmmd: unbiased, x1000; may be negative.
        cmmd_biased: as published, x1000.
        kid: full U-statistic; mean over subsets in the paper's parity.
        fid: of as many pictures as there are: biased upwards, see the notes; mean over resamples
            in the paper's parity.
        inception: Inception Score; no style metric.
        vendi: effective number of different pictures, 1..n.
        spread: mean cosine distance of two of the pictures.
        drift: mean cosine distance to the base's pictures of prompts without the style token.
    """

    cmmd: float | None = None
    cmmd_biased: float | None = None
    kid: float | None = None
    fid: float | None = None
    inception: float | None = None
    vendi: float | None = None
    spread: float | None = None
    drift: float | None = None


@dataclass(frozen=True)
class ArmScores:
    """One arm: pictures that were drawn in one way.

    Attributes:
        style: mean of the pictures' `style`.
        style_nsync: the paper's form, cosine to the mean reference; rises with their number.
        normalised: `style` between floor (the base, 0) and ceiling (the references, 1), or None.
        copies: indices of pictures nearer to a reference than any two references are to each
            other, by the copy encoder; None where there is none.
    """

    name: str
    pictures: tuple[PictureScores, ...]
    style: Interval
    style_nsync: float
    normalised: Interval | None
    adherence: Interval | None
    content: Interval | None
    sets: SetScores
    copies: tuple[int, ...] | None


@dataclass(frozen=True)
class Validity:
    """Whether an encoder tells this very style from others.

    Attributes:
        readout: "cosine", or "csls", which mends some encoders' failures; see
            `nsync.evaluation.validity`.
        gap: similarity among the references less that of references and distractors.
        valid: the gap's interval lies above zero.
    """

    encoder: str
    readout: str
    gap: Interval
    valid: bool


@dataclass(frozen=True)
class Comparison:
    """One arm less another, prompt by prompt.

    Attributes:
        score: "style", "adherence", "CMMD", "KID" or "FID".
        difference: of `arm` less `against`.
        p: of no difference; sign flips for scores of pictures, label swaps for those of sets.
        p_holm: the same, corrected for the number of arms.
        better: what counts as better, "higher" or "lower".
    """

    score: str
    arm: str
    against: str
    difference: Interval
    p: float
    p_holm: float
    better: str

    @property
    def is_real(self) -> bool:
        """Whether the corrected p-value is under 5 %."""
        return self.p_holm < 0.05

    @property
    def is_better(self) -> bool:
        """Whether the difference goes the way that counts as better."""
        return (self.difference.value > 0) == (self.better == "higher")


@dataclass(frozen=True)
class Evaluation:
    """Everything that one evaluation found.

    Attributes:
        verdict: a sentence or a few, for the user.
        notes: what has to be known to read the numbers, in the order of their weight.
        encoders: name, identity and preprocessing by what each was used for.
        references: their number.
        ceiling: mean similarity of a reference to the others.
        floor: of the baseline's pictures to the references, or None without a baseline.
        settings, versions: what was asked for, and with which software.
    """

    verdict: str
    notes: tuple[str, ...]
    encoders: dict[str, Json]
    references: int
    ceiling: Interval
    floor: float | None
    validity: tuple[Validity, ...]
    arms: tuple[ArmScores, ...]
    comparisons: tuple[Comparison, ...]
    settings: Json = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    def as_dict(self) -> Json:
        """The same as plain values, for JSON."""
        return asdict(self)

    def arm(self, name: str) -> ArmScores:
        """The scores of the arm of this name."""
        return next(arm for arm in self.arms if arm.name == name)
