"""The verdict in words."""

import pytest

from nsync.evaluation.result import ArmScores, Comparison, Interval, SetScores, Validity
from nsync.evaluation.verdict import probability, signed, verdict

GAIN = Interval(0.041, 0.018, 0.065)


def arm(name: str, copies: tuple[int, ...] | None = ()) -> ArmScores:
    style = Interval(0.5, 0.4, 0.6)
    return ArmScores(name, (), style, 0.6, None, None, None, SetScores(), copies)


def compared(score: str, value: float, p: float, against: str = "plain LoRA") -> Comparison:
    difference = Interval(value, value - 0.02, value + 0.02)
    return Comparison(score, "NSYNC", against, difference, p, p, "higher")


@pytest.mark.parametrize(
    ("comparisons", "copies", "text"),
    [
        (
            [Comparison("style", "NSYNC", "plain LoRA", GAIN, 0.001, 0.002, "higher")],
            (),
            "NSYNC is nearer to the style than plain LoRA: +0.041 [0.018, 0.065], p = 0.002. "
            "No copies.",
        ),
        (
            [compared("style", -0.05, 0.01), compared("adherence", 0.01, 0.6)],
            None,
            "NSYNC is farther from the style than plain LoRA: -0.050 [-0.070, -0.030], p = 0.010. "
            "Prompts kept.",
        ),
        (
            [compared("style", 0.01, 0.2), compared("adherence", -0.05, 0.0001)],
            (3,),
            "No difference in style between NSYNC and plain LoRA is shown: +0.010 [-0.010, 0.030], "
            "p = 0.200. Follows the prompts less than plain LoRA (-0.050 [-0.070, -0.030]). "
            "1 picture is suspiciously near to a reference: look at the pairs.",
        ),
        ([compared("adherence", 0.05, 0.001)], None,
         "NSYNC has a style similarity of 0.500 [0.400, 0.600]. Prompts kept."),
    ],
)  # fmt: skip
def test_what_is_said(comparisons: list, copies: tuple | None, text: str) -> None:
    assert verdict([], [arm("NSYNC", copies), arm("plain LoRA")], comparisons) == text


def test_only_the_style_encoders_doubt_is_told() -> None:
    blind = Validity("csd", "cosine", Interval(0.01, -0.02, 0.04), valid=False)
    sharp = Validity("clip-l-14", "cosine", Interval(0.1, 0.05, 0.15), valid=True)
    said = verdict([blind, sharp], [arm("NSYNC")], [])
    assert said.startswith(
        "Beware: csd does not tell this style from the other pictures (gap +0.010 [-0.020, 0.040])"
    )
    assert "Beware" not in verdict([sharp, blind], [arm("NSYNC")], [])


def test_numbers_in_words() -> None:
    assert probability(0.0004) == "p < 0.001"
    assert probability(0.0123) == "p = 0.012"
    assert signed(Interval(-0.5)) == "-0.500"
    assert signed(GAIN) == "+0.041 [0.018, 0.065]"
