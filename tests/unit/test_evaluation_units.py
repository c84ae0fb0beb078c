"""Several pictures of one prompt: drawn and swapped together, for they are no further prompts."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from plain_encoders import PlainEncoder
from plain_evaluation import every_encoder, request

from nsync.errors import InputError
from nsync.evaluation import (
    bootstrap,
    compare_scores,
    compare_similarity,
    kernel_swaps,
    normalised_interval,
    permutation,
    significance,
    similarity_interval,
)
from nsync.evaluation.evaluate import evaluate
from nsync.evaluation.units import Units

RNG = np.random.default_rng(3)
REFERENCE, FIRST, SECOND = (RNG.standard_normal((8, 5)) + shift for shift in (2.0, 1.5, 1.0))
PROMPTS = [f"prompt {i}" for i in range(8)]
TIMES = 4


def again(rows: np.ndarray) -> np.ndarray:
    """Every row so many times, as if all seeds of a prompt gave the same picture."""
    return np.tile(rows, (TIMES, 1))


def test_units_are_prompts_or_pictures() -> None:
    units = Units.of(7, ["a", "b", "a", "c", "d", "e", "d"])
    assert (units.index.tolist(), units.count) == ([0, 1, 0, 2, 3, 4, 3], 5)
    few = Units.of(7, ["a", "b", "a", "c", "d", "d", "d"])
    assert (few.index.tolist(), few.count) == (list(range(7)), 7)
    assert Units.of(3).count == 3
    with pytest.raises(InputError, match=r"one for each of 3 pictures; got 2"):
        Units.of(3, ["a", "b"])


def test_the_same_pictures_again_tell_nothing_new() -> None:
    """To the bit what one picture of each prompt tells; without the prompts, a false precision."""
    prompts = PROMPTS * TIMES

    def found(first: np.ndarray, second: np.ndarray, prompts: list[str]) -> list:
        return [
            similarity_interval(REFERENCE, first, prompts=prompts),
            compare_similarity(REFERENCE, first, second, prompts=prompts).difference,
            compare_similarity(REFERENCE, first, second, "nsync", prompts=prompts).difference,
            compare_scores(first[:, 0], second[:, 0], prompts=prompts).difference,
            normalised_interval(REFERENCE, first, second, prompts=prompts),
        ]

    once = found(FIRST, SECOND, PROMPTS)
    together = found(again(FIRST), again(SECOND), prompts)
    apart = found(again(FIRST), again(SECOND), [])
    for one, other, wrong in zip(once, together, apart, strict=True):
        assert (other.value, other.low, other.high) == pytest.approx(
            (one.value, one.low, one.high), rel=1e-9
        )
        assert wrong.high - wrong.low < 0.9 * (one.high - one.low)


def test_p_values_swap_all_pictures_of_a_prompt() -> None:
    once = compare_similarity(REFERENCE, FIRST, SECOND).significance
    both = again(FIRST), again(SECOND)
    together = compare_similarity(REFERENCE, *both, prompts=PROMPTS * TIMES).significance
    assert together == once
    assert compare_similarity(REFERENCE, *both).significance.p < once.p
    made = kernel_swaps(REFERENCE, *both)
    units = Units.of(made.pairs, PROMPTS * TIMES)
    swaps = np.zeros((1, 8), bool)
    swaps[0, 2] = True
    mixed = both[0].copy(), both[1].copy()
    mixed[0][2::8], mixed[1][2::8] = both[1][2::8], both[0][2::8]
    expected = kernel_swaps(REFERENCE, *mixed).difference(np.zeros((1, made.pairs), bool))
    assert units.swapped(made).difference(swaps) == pytest.approx(expected, rel=1e-9)


def test_intervals_and_p_values_hold_where_a_prompt_is_good_for_all_its_seeds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(bootstrap.interval.__kwdefaults__, "draws", 500)
    monkeypatch.setitem(permutation.significance.__kwdefaults__, "draws", 199)
    rng, prompts = np.random.default_rng(8), [f"{i}" for i in range(12) for _ in range(TIMES)]

    def studies(prompts: list[str]) -> tuple[float, float]:
        covered, false = [], []
        for seed in range(600):
            effect = np.repeat(rng.standard_normal(12), TIMES)
            change = effect + 0.5 * rng.standard_normal(12 * TIMES)
            made = compare_scores(change, np.zeros_like(change), prompts=prompts, seed=seed)
            covered.append(made.difference.low <= 0 <= made.difference.high)
            false.append(made.significance.p <= 0.05)
        return float(np.mean(covered)), float(np.mean(false))

    covered, false = studies(prompts)
    assert 0.92 <= covered <= 0.98
    assert 0.03 <= false <= 0.07
    covered, false = studies([])
    assert covered < 0.8
    assert false > 0.2


def test_an_evaluation_draws_prompts_and_says_so(tmp_path: Path) -> None:
    asked = request()
    twice = tuple(
        replace(
            one,
            pictures=one.pictures * 2,
            prompts=one.prompts * 2,
            captions=one.captions * 2,
            plain=one.plain * 2,
        )
        for one in asked.arms
    )
    once = evaluate(asked, every_encoder(), tmp_path)
    found = evaluate(replace(asked, arms=twice), every_encoder(), tmp_path)
    assert "All pictures of a prompt count as one draw: there are 12 prompts." in found.notes
    assert not any("count as one draw" in note for note in once.notes)
    pairs = [(found.arm(n), once.arm(n)) for n in ("nsync", "plain")]
    intervals = [(getattr(a, k), getattr(b, k)) for a, b in pairs for k in INTERVALS]
    intervals += [
        (a.difference, b.difference)
        for a, b in zip(found.comparisons, once.comparisons, strict=True)
        if a.difference.low is not None
    ]
    assert len(intervals) >= 12
    for other, one in intervals:
        assert (other.low, other.high) == pytest.approx((one.low, one.high), rel=1e-6)
    for other, one in zip(found.comparisons, once.comparisons, strict=True):
        if one.score in ("style", "adherence"):
            assert (other.score, other.p) == (one.score, one.p)
        # Of 12 swaps all choices are looked at, half of them in effect; of 24 random ones.
        assert (2**11 * other.p).is_integer()


INTERVALS = ("style", "normalised", "adherence", "content")


def test_few_prompts_are_told(tmp_path: Path) -> None:
    few = tuple(
        replace(one, prompts=("a", "b") * 6, captions=("a", "b") * 6) for one in request().arms
    )
    found = evaluate(request(arms=few), [PlainEncoder("csd")], tmp_path)
    assert any(note.startswith("Fewer than 5 different prompts") for note in found.notes)
    assert found.arm("nsync").style.low is not None


def test_significance_is_of_units() -> None:
    made = Units.of(8, PROMPTS).swapped(kernel_swaps(REFERENCE, FIRST, SECOND))
    assert significance(made).exact
    assert made.pairs == 8
