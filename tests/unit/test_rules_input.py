"""What the rules say about their input and about a step: errors, needs, statistics."""

import math

import pytest
import torch

from nsync.errors import InputError
from nsync.rules import (
    RULES,
    SCOPES,
    denies_style,
    needs_anchor,
    needs_negative,
    refine,
    statistics,
    turns_against_negatives,
)

P = [torch.ones(2, 3), torch.ones(4)]

BAD_INPUT = {
    "unknown rule": (
        lambda: refine("pcgrad", P, P),
        "`rule`: expected one of nsync, projection, released-4.2, released-4.1, mean, overlap, "
        "contrast, plain; got 'pcgrad'.",
    ),
    "unknown scope": (
        lambda: refine("plain", P, scope="layer"),
        "`scope`: expected one of global, tensor; got 'layer'.",
    ),
    "negative weight": (
        lambda: refine("contrast", P, P, weight=-1.0),
        "`weight`: expected a finite number, at least 0; got -1.0.",
    ),
    "weight that is no number": (
        lambda: refine("contrast", P, P, weight=math.nan),
        "`weight`: expected a finite number, at least 0; got nan.",
    ),
    "no negatives": (
        lambda: refine("projection", P),
        "`negative`: expected a list of tensors, which rule 'projection' needs; got None. Give the "
        "gradients of that branch, or choose a rule without negatives.",
    ),
    "no anchors": (
        lambda: refine("nsync", P, P),
        "`anchor`: expected a list of tensors, which rule 'nsync' needs; got None. Give the "
        "gradients of that branch, or choose a rule without anchors.",
    ),
    "counts": (
        lambda: refine("projection", P, P[:1]),
        "`negative`: expected as many tensors as `positive`, 2; got 1.",
    ),
    "shapes": (
        lambda: refine("nsync", P, P, [P[0].T, P[1]]),
        "`anchor[0]`: expected the shape of `positive[0]`, (2, 3); got (3, 2).",
    ),
    "shapes of a branch that is not used": (
        lambda: refine("plain", P, [P[0], torch.ones(1)]),
        "`negative[1]`: expected the shape of `positive[1]`, (4,); got (1,).",
    ),
    "a tensor for a list": (
        lambda: refine("plain", P[0]),
        "`positive`: expected a list of tensors; got one tensor of shape (2, 3).",
    ),
    "nothing": (
        lambda: refine("plain", []),
        "`positive`: expected at least one tensor; got an empty list.",
    ),
    "a parameter without gradient": (
        lambda: refine("projection", P, [P[0], None]),
        "`negative[1]`: expected a tensor; got NoneType.",
    ),
    "integers": (
        lambda: refine("plain", [torch.ones(2, dtype=torch.long)]),
        "`positive[0]`: expected a floating-point tensor; got torch.int64.",
    ),
    "statistics": (
        lambda: statistics("overlap", P),
        "`negative`: expected a list of tensors, which rule 'overlap' needs; got None. Give the "
        "gradients of that branch, or choose a rule without negatives.",
    ),
    "needs of an unknown rule": (
        lambda: needs_negative("typo"),
        "`rule`: expected one of nsync, projection, released-4.2, released-4.1, mean, overlap, "
        "contrast, plain; got 'typo'.",
    ),
}


@pytest.mark.parametrize(("call", "text"), BAD_INPUT.values(), ids=BAD_INPUT)
def test_bad_input_is_told_in_full(call, text):
    with pytest.raises(InputError) as error:
        call()
    assert str(error.value) == text


def test_what_rules_need():
    assert [rule for rule in RULES if not needs_negative(rule)] == ["plain"]
    assert [rule for rule in RULES if needs_anchor(rule)] == ["nsync"]
    assert [rule for rule in RULES if denies_style(rule)] == ["mean"]
    assert [rule for rule in RULES if not turns_against_negatives(rule)] == ["mean", "plain"]


def _read(rule, p, n=None, a=None, **options):
    """Statistics of one-tensor branches as numbers."""
    branches = [None if branch is None else [torch.tensor(branch)] for branch in (p, n, a)]
    return {name: float(value) for name, value in statistics(rule, *branches, **options).items()}


def test_norms_cosines_and_coefficients():
    read = _read("nsync", [3.0, 4.0], [2.0, 0.0], [0.0, -0.5])
    assert read == pytest.approx(
        {
            "norm_positive": 5.0,
            "norm_negative": 2.0,
            "norm_anchor": 0.5,
            "cos_negative": 0.6,
            "cos_anchor": -0.8,
            "coefficient_positive": 1.0,
            "coefficient_negative": -1.5,
            "coefficient_anchor": -8.0,
            "removed": 0.6,
        }
    )


def test_a_branch_that_is_missing_is_left_out():
    assert set(_read("plain", [1.0])) == {"norm_positive", "coefficient_positive"}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("scope", SCOPES)
def test_coefficients_make_the_update(rule, scope):
    branches = [[torch.randn(7, dtype=torch.float64)] for _ in range(3)]
    read = statistics(rule, *branches, scope=scope)
    made = sum(
        read[f"coefficient_{name}"] * branch[0]
        for name, branch in zip(("positive", "negative", "anchor"), branches, strict=True)
    )
    torch.testing.assert_close(made, refine(rule, *branches, scope=scope)[0])


# g_p and g_n of one length at this cosine; what each rule removes, worked out by hand.
@pytest.mark.parametrize(
    ("rule", "agreeing", "opposing"),
    [
        ("nsync", 0.6, 0.6),
        ("projection", 0.6, 0.6),
        ("overlap", 0.6, 0.0),
        ("contrast", 0.5, 0.0),  # half of g_n taken away, which is 0.5 long
        ("released-4.1", 0.6, 0.0),  # 0.5 (g_p - g_n) along g_n: 0.5 (0.6 - 1) < 0
        ("released-4.2", 0.2, 0.0),  # 1.5 g_p - 0.5 g_n along g_n: 0.9 - 0.5 = 0.4 of 0.6 is left
    ],
)
def test_share_of_the_positive_removed(rule, agreeing, opposing):
    assert _read(rule, [0.6, 0.8], [1.0, 0.0], [0.0, 1.0])["removed"] == pytest.approx(agreeing)
    assert _read(rule, [-0.6, 0.8], [1.0, 0.0], [0.0, 1.0])["removed"] == pytest.approx(opposing)


def test_share_removed_over_several_tensors():
    p = [torch.tensor([3.0, 0.0]), torch.tensor([0.0, 4.0])]
    n = [torch.tensor([1.0, 0.0]), torch.tensor([1.0, 0.0])]
    # By tensor, all of the first (3 of 5) and nothing of the second go.
    assert float(statistics("projection", p, n, scope="tensor")["removed"]) == pytest.approx(3 / 5)
    # Together they are one vector: g_p . g_n / |g_n| = 3 / sqrt(2).
    together = float(statistics("projection", p, n)["removed"])
    assert together == pytest.approx(3 / math.sqrt(2) / 5)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_statistics_are_finite_and_in_range_at_every_scale(rule, scope, dtype):
    p, n, a = torch.randn(3, 6)
    for of_p in (0.0, 1e-10, 1.0, 1e10):
        for of_n in (0.0, 1e-10, -1.0, 1e10):
            scaled = (of_p * p, of_n * n, of_n * a)
            branches = [list(x.to(dtype).split([2, 4])) for x in scaled]
            read = statistics(rule, *branches, scope=scope)
            assert all(torch.isfinite(x) and x.dtype == torch.float64 for x in read.values())
            assert -1 <= read["cos_negative"] <= 1
            assert 0 <= read.get("removed", 0) <= 1 + 1e-12
