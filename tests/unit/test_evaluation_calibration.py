"""Intervals and p-values do what they promise, on studies of which the truth is known.

The world is finite: prompts and references are drawn from pools, so true means are means over
them. A study draws some of either.
"""

import numpy as np
import pytest

from nsync.evaluation import bootstrap as bootstrap_module
from nsync.evaluation import (
    cmmd_swaps,
    compare_scores,
    compare_similarity,
    frechet_swaps,
    kernel_swaps,
    normalised_interval,
    significance,
    similarity_interval,
    style_gap,
)
from nsync.evaluation import permutation as permutation_module
from nsync.evaluation.permutation import sign_flips

WIDTH, POOL = 12, 4000
STUDIES = 800
SIZES = ((10, 10), (20, 10), (10, 40))


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _pools():
    rng = np.random.default_rng(11)
    style, other = np.zeros((2, WIDTH))
    style[0], other[:2] = 1, (0.6, 0.6)

    def noise(size):
        return size * rng.standard_normal((POOL, WIDTH))

    prompt = noise(0.25)
    return {
        "reference": unit(style + noise(0.25)),
        "distractor": unit(other + noise(0.25)),
        "first": unit(0.8 * style + prompt + noise(0.15)),
        "second": unit(0.5 * style + prompt + noise(0.15)),
    }


POOLS = _pools()
MEANS = {name: rows.mean(axis=0) for name, rows in POOLS.items()}


@pytest.fixture(autouse=True)
def _fewer_draws(monkeypatch):
    """As many as the percentiles need; what is calibrated does not depend on more."""
    monkeypatch.setitem(bootstrap_module.interval.__kwdefaults__, "draws", 500)
    monkeypatch.setitem(permutation_module.significance.__kwdefaults__, "draws", 199)


def studies(pictures, references, count=STUDIES):
    """Rows of the pools, study by study: (seed, pictures, references)."""
    rng = np.random.default_rng([5, pictures, references])
    for seed in range(count):
        yield seed, rng.integers(0, POOL, pictures), rng.integers(0, POOL, references)


def coverage(intervals, truth):
    return np.mean([found.low <= truth <= found.high for found in intervals])


@pytest.mark.parametrize("size", SIZES)
def test_intervals_of_a_difference_cover(size):
    found = [
        compare_similarity(
            POOLS["reference"][r], POOLS["first"][p], POOLS["second"][p], seed=seed
        ).difference
        for seed, p, r in studies(*size)
    ]
    truth = (MEANS["first"] - MEANS["second"]) @ MEANS["reference"]
    assert 0.92 <= coverage(found, truth) <= 0.98


@pytest.mark.parametrize("form", ["pairwise", "nsync"])
def test_intervals_of_a_similarity_cover(form):
    found = [
        similarity_interval(POOLS["reference"][r], POOLS["first"][p], form, seed=seed)
        for seed, p, r in studies(20, 10)
    ]
    # The paper's form depends on the number of references: its truth is its mean at that number.
    truth = MEANS["first"] @ MEANS["reference"]
    truth = truth if form == "pairwise" else np.mean([each.value for each in found])
    assert 0.92 <= coverage(found, truth) <= 0.98


def test_intervals_of_the_normalised_score_cover():
    found = [
        normalised_interval(POOLS["reference"][r], POOLS["first"][p], POOLS["second"][p], seed=seed)
        for seed, p, r in studies(20, 20)
    ]
    floor, score = (MEANS[name] @ MEANS["reference"] for name in ("second", "first"))
    truth = (score - floor) / (MEANS["reference"] @ MEANS["reference"] - floor)
    assert 0.92 <= coverage(found, truth) <= 0.98


@pytest.mark.parametrize("size", [(10, 10), (20, 10), (20, 40)])
def test_intervals_of_the_gap_cover(size):
    found = [
        style_gap(POOLS["reference"][r], POOLS["distractor"][p], seed=seed).gap
        for seed, p, r in studies(*size)
    ]
    truth = (MEANS["reference"] - MEANS["distractor"]) @ MEANS["reference"]
    assert 0.92 <= coverage(found, truth) <= 0.98


@pytest.mark.parametrize("pictures", [10, 30])
def test_intervals_of_other_scores_cover(pictures):
    first, second = (POOLS[name][:, 1] for name in ("first", "second"))
    found = [
        compare_scores(first[p], second[p], seed=seed).difference
        for seed, p, _ in studies(pictures, 5)
    ]
    assert 0.92 <= coverage(found, (first - second).mean()) <= 0.98


def _swapped_at_random(rng, first, second):
    """Two arms that draw alike: which picture is whose is a toss."""
    mask = rng.random((len(first), 1)) < 0.5
    return np.where(mask, second, first), np.where(mask, first, second)


def _flips(reference, first, second):
    return sign_flips((first - second) @ reference.mean(axis=0))


TESTS = {
    "similarity": (_flips, (8, 20)),
    "KID": (kernel_swaps, (8, 20)),
    "CMMD": (cmmd_swaps, (8, 20)),
    "biased CMMD": (lambda *sets: cmmd_swaps(*sets, unbiased=False), (20,)),
    "FID": (frechet_swaps, (12,)),
}


def p_values(kind, pictures, count, alike=True):
    rng = np.random.default_rng([9, pictures])
    found = []
    for seed, p, r in studies(pictures, 8, count):
        first, second = POOLS["first"][p], POOLS["second"][p]
        if alike:
            first, second = _swapped_at_random(rng, first, second)
        found.append(significance(kind(POOLS["reference"][r], first, second), seed=seed).p)
    return np.array(found)


@pytest.mark.parametrize(
    ("kind", "pictures"), [(kind, n) for kind, sizes in TESTS.values() for n in sizes]
)
def test_p_values_are_uniform_where_arms_draw_alike(kind, pictures):
    found = p_values(kind, pictures, 1200)
    assert 0.03 <= np.mean(found <= 0.05) <= 0.07
    # Kolmogorov and Smirnov's distance, at a level of 0.1 %, plus the coarseness of the values.
    ranks = np.arange(1, len(found) + 1) / len(found)
    assert np.abs(np.sort(found) - ranks).max() < 1.95 / len(found) ** 0.5 + 1 / 100


@pytest.mark.parametrize("kind", [kind for kind, _ in TESTS.values()])
def test_p_values_are_small_where_arms_differ(kind):
    assert np.mean(p_values(kind, 20, 60, alike=False) <= 0.05) > 0.7
