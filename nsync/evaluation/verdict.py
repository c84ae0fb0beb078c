"""The verdict in words: what the numbers allow to be said, and no more."""

from collections.abc import Sequence

from .result import ArmScores, Comparison, Evaluation, Interval, Validity

_WORDS = {
    "style": ("nearer to the style", "farther from the style"),
    "adherence": ("nearer to the prompts", "farther from the prompts"),
}


def verdict(
    validity: Sequence[Validity], arms: Sequence[ArmScores], comparisons: Sequence[Comparison]
) -> str:
    """A sentence per question that was asked: style against every other arm, prompts, copies.

    Args:
        validity: of the style encoder first.
        arms: the candidate first.
        comparisons: of the candidate with each other arm.
    """
    sentences = [_doubt(one) for one in validity[:1] if not one.valid]
    candidate = arms[0]
    style = [c for c in comparisons if c.score == "style" and c.arm == candidate.name]
    sentences += [_compared(one) for one in style] or [_alone(candidate)]
    sentences += _prompts(comparisons, candidate.name)
    sentences += _copies(candidate)
    return " ".join(sentences)


def signed(interval: Interval) -> str:
    """`+0.041 [0.018, 0.065]`."""
    if interval.low is None or interval.high is None:
        return f"{interval.value:+.3f}"
    return f"{interval.value:+.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def probability(p: float) -> str:
    """`p = 0.002`; never 0."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def ceiling_words(evaluation: Evaluation) -> str:
    """Where the scale of the style similarity begins and ends."""
    ends = f"the references among themselves {evaluation.ceiling.value:.3f}"
    if evaluation.floor is None:
        return ends
    return f"{ends}, the baseline {evaluation.floor:.3f}"


def _doubt(validity: Validity) -> str:
    return (
        f"Beware: {validity.encoder} does not tell this style from the other pictures "
        f"(gap {signed(validity.gap)}); its style scores say little here."
    )


def _compared(one: Comparison) -> str:
    numbers = f"{signed(one.difference)}, {probability(one.p_holm)}"
    if not one.is_real:
        return f"No difference in style between {one.arm} and {one.against} is shown: {numbers}."
    words = _WORDS["style"][0 if one.is_better else 1]
    return f"{one.arm} is {words} than {one.against}: {numbers}."


def _alone(arm: ArmScores) -> str:
    style = arm.style
    ends = "" if style.low is None else f" [{style.low:.3f}, {style.high:.3f}]"
    return f"{arm.name} has a style similarity of {style.value:.3f}{ends}."


def _prompts(comparisons: Sequence[Comparison], name: str) -> list[str]:
    found = [c for c in comparisons if c.score == "adherence" and c.arm == name]
    if not found:
        return []
    worse = [c for c in found if c.is_real and not c.is_better]
    if not worse:
        return ["Prompts kept."]
    parts = [f"than {c.against} ({signed(c.difference)})" for c in worse]
    return [f"Follows the prompts less {' and '.join(parts)}."]


def _copies(arm: ArmScores) -> list[str]:
    if arm.copies is None:
        return []
    if not arm.copies:
        return ["No copies."]
    count = len(arm.copies)
    pictures = "picture is" if count == 1 else "pictures are"
    return [f"{count} {pictures} suspiciously near to a reference: look at the pairs."]
