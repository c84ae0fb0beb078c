"""The table of an evaluation, as text in rows: one place for the chart, the page and the CSV."""

from .result import PAPER, ArmScores, Evaluation, Interval

_CAPTIONS = (
    "arm", "pictures", "style", "of the way to\nthe references", "style\n(NSYNC's form)",
    "prompt\nadherence", "content\nof the base", "CMMD", "KID x1000", "FID\n(biased)",
    "Inception Score\n(no style metric)", "different\npictures", "drift", "near copies",
)  # fmt: skip
_AS_PAPER = {
    "CMMD": "CMMD\n(biased)",
    "KID x1000": "KID x1000\n(over subsets)",
    "FID\n(biased)": "FID\n(over resamples)",
}


def table(evaluation: Evaluation) -> tuple[list[str], list[list[str]]]:
    """Captions, and one row of texts per arm; columns of which nothing is known are left out."""
    paper = evaluation.settings["parity"] == PAPER
    rows = [_row(arm, paper) for arm in evaluation.arms]
    captions = [_AS_PAPER.get(text, text) if paper else text for text in _CAPTIONS]
    used = [place for place in range(len(captions)) if any(row[place] for row in rows)]
    return [captions[i] for i in used], [[row[i] for i in used] for row in rows]


def _row(arm: ArmScores, paper: bool) -> tuple[str, ...]:
    sets = arm.sets
    return (
        arm.name,
        str(len(arm.pictures)),
        _interval(arm.style),
        _percent(arm.normalised),
        f"{arm.style_nsync:.3f}",
        _interval(arm.adherence),
        _interval(arm.content),
        _number(sets.cmmd_biased if paper else sets.cmmd),
        _number(None if sets.kid is None else 1000 * sets.kid),
        _number(sets.fid, 1),
        _number(sets.inception, 2),
        _number(sets.vendi, 1),
        _number(sets.drift),
        "" if arm.copies is None else str(len(arm.copies)),
    )


def _interval(interval: Interval | None) -> str:
    if interval is None:
        return ""
    if interval.low is None or interval.high is None:
        return f"{interval.value:.3f}"
    return f"{interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def _percent(interval: Interval | None) -> str:
    if interval is None:
        return ""
    if interval.low is None or interval.high is None:
        return f"{100 * interval.value:.0f} %"
    return f"{100 * interval.value:.0f} % [{100 * interval.low:.0f}, {100 * interval.high:.0f}]"


def _number(value: float | None, digits: int = 3) -> str:
    return "" if value is None else f"{value:.{digits}f}"
