"""Intervals, p-values, Holm and the halves: what they equal, and what they refuse."""

import itertools
import statistics as standard
import warnings

import numpy as np
import pytest

from nsync.errors import InputError
from nsync.evaluation import (
    bootstrap,
    cmmd,
    cmmd_swaps,
    compare_scores,
    compare_similarity,
    frechet_distance,
    frechet_swaps,
    halves,
    holm,
    kernel_distance,
    kernel_swaps,
    matched_similarity,
    normalised_interval,
    normalised_score,
    self_similarity,
    significance,
    similarity_interval,
    style_similarity,
    swaps,
)
from nsync.evaluation.permutation import Swappable, sign_flips


def style(n, seed, shift=2.0, d=6):
    rows = np.random.default_rng(seed).standard_normal((n, d))
    rows[:, 0] += shift
    return rows


REFERENCE, FIRST, SECOND = style(9, 0), style(7, 1, 1.5), style(7, 2, 1.0)


@pytest.mark.parametrize("form", ["nsync", "pairwise"])
def test_values_in_intervals_are_the_scores_themselves(form):
    first, second = (style_similarity(REFERENCE, rows, form).mean() for rows in (FIRST, SECOND))
    found = similarity_interval(REFERENCE, FIRST, form)
    assert found.value == pytest.approx(first, abs=1e-12)
    assert found.low < found.value < found.high
    compared = compare_similarity(REFERENCE, FIRST, SECOND, form).difference
    assert compared.value == pytest.approx(first - second, abs=1e-12)
    scores = FIRST[:, 0], SECOND[:, 0]
    assert compare_scores(*scores).difference.value == pytest.approx(np.mean(scores[0] - scores[1]))


def test_the_normalised_value_is_made_of_floor_and_ceiling():
    floor, score = (matched_similarity(REFERENCE, rows).mean() for rows in (SECOND, FIRST))
    expected = normalised_score(score, floor, self_similarity(REFERENCE).mean())
    assert normalised_interval(REFERENCE, FIRST, SECOND).value == pytest.approx(expected)
    assert normalised_interval(REFERENCE, SECOND, SECOND).value == pytest.approx(0, abs=1e-12)


def test_draws_come_from_the_seed_alone():
    def both(seed):
        return compare_similarity(REFERENCE, style(20, 1), style(20, 2), seed=seed)

    np.random.seed(1)
    first = both(3)
    np.random.seed(2)
    np.random.random(5)
    assert first == both(3)
    assert first.difference.low != both(4).difference.low
    assert first.significance.p != both(4).significance.p


def test_equal_pictures_have_intervals_of_no_width_and_p_1():
    equal = np.ones((6, 4))
    found = compare_similarity(equal, equal, equal)
    assert (found.difference.low, found.difference.value, found.difference.high) == (0, 0, 0)
    assert found.significance.p == 1
    one = similarity_interval(equal, equal, "nsync")
    assert one.high - one.low == pytest.approx(0, abs=1e-12)
    for kind in (kernel_swaps, cmmd_swaps, frechet_swaps):
        assert significance(kind(REFERENCE, FIRST, FIRST)).p == 1


def test_opposite_references_resample_without_a_fault():
    reference = np.concatenate([style(3, 0), -style(2, 0)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = similarity_interval(reference, FIRST, "nsync")
    assert -1 <= found.low < found.high <= 1


def test_the_papers_form_is_resampled_at_its_number_of_references():
    """References drawn twice lengthen a mean: every resample would lie below the value."""
    reference, candidate = style(5, 5, 1.5), style(60, 6, 1.5)
    found = similarity_interval(reference, candidate, "nsync")
    middle, width = (found.low + found.high) / 2, found.high - found.low
    assert middle == pytest.approx(found.value, abs=0.1 * width)


def test_no_interval_of_a_cosine_leaves_its_range():
    reference = style(6, 5, 0.8)
    near = similarity_interval(reference, np.tile(reference.mean(axis=0), (9, 1)), "nsync")
    assert 0.9 < near.value < near.high <= 1


def test_references_are_resampled_too():
    """Equal differences from picture to picture, so all doubt is about the references."""
    reference = style(6, 0)
    first, second = np.tile(style(1, 1), (8, 1)), np.tile(style(1, 2), (8, 1))
    found = compare_similarity(reference, first, second).difference
    change = (first[0] / np.linalg.norm(first[0]) - second[0] / np.linalg.norm(second[0])) @ (
        reference / np.linalg.norm(reference, axis=1, keepdims=True)
    ).T
    expected = 2 * 2.571 * standard.stdev(change) / 6**0.5  # Student's t with 5 degrees
    assert found.high - found.low == pytest.approx(expected, rel=0.15)


@pytest.mark.parametrize(("n", "t"), [(5, 2.776), (10, 2.262), (200, 1.972)])
def test_intervals_are_as_wide_as_students(n, t):
    values = np.random.default_rng(n).standard_normal(n)
    found = compare_scores(values, np.zeros(n)).difference
    expected = 2 * t * standard.stdev(values) / n**0.5
    assert found.high - found.low == pytest.approx(expected, rel=0.15)
    assert bootstrap.student(n - 1) == pytest.approx(t, rel=3e-3)


def test_a_picture_drawn_twice_is_no_pair():
    gram, counts = np.array([[1.0, 0.2, 0.4], [0.2, 1.0, 0.6], [0.4, 0.6, 1.0]]), [[2, 1, 0]]
    assert bootstrap.pair_mean(gram, np.array(counts, float))[0] == pytest.approx(0.2)
    assert bootstrap.pair_mean(gram, np.ones((1, 3)))[0] == pytest.approx(0.4)


def test_few_pairs_are_all_enumerated():
    values = np.array([0.3, -0.1, 0.5, 0.2, 0.4])
    means = [np.mean(values * signs) for signs in itertools.product((1, -1), repeat=5)]
    expected = np.mean(np.abs(means) >= abs(values.mean()) - 1e-12)
    found = significance(sign_flips(values))
    assert (found.p, found.exact) == (expected, True)
    assert significance(sign_flips(np.ones(14))).p == 2 / 2**14
    assert significance(sign_flips(np.ones(1))).p == 1


def test_many_pairs_are_drawn_and_the_observed_one_counts():
    found = significance(sign_flips(np.ones(40)), draws=999)
    assert (found.p, found.exact) == (1 / 1000, False)
    assert not significance(sign_flips(np.ones(15))).exact
    exact = significance(sign_flips(style(12, 4, 0.4)[:, 0])).p
    drawn = significance(sign_flips(style(12, 4, 0.4)[:, 0]), draws=2000).p
    assert drawn == pytest.approx(exact, abs=0.04)
    assert drawn != exact


def test_every_number_of_draws_is_drawn():
    seen = []

    def difference(swaps):
        seen.append(len(swaps))
        return np.zeros(len(swaps))

    significance(Swappable(difference, 30, 0.0), draws=1300)
    assert sum(seen) == 1301


SCORES = {
    "KID": (kernel_swaps, kernel_distance),
    "CMMD": (cmmd_swaps, cmmd),
    "biased CMMD": (
        lambda *sets: cmmd_swaps(*sets, unbiased=False),
        lambda x, y: cmmd(x, y, unbiased=False),
    ),
    "FID": (frechet_swaps, frechet_distance),
}


@pytest.mark.parametrize(("swapped", "score"), SCORES.values(), ids=list(SCORES))
@pytest.mark.parametrize("stack", [swaps._STACKED, 100])
@pytest.mark.parametrize(("n", "m", "d"), [(9, 7, 6), (3, 5, 20), (30, 20, 4)])
def test_swapped_differences_equal_scores_of_swapped_sets(
    swapped, score, stack, n, m, d, monkeypatch
):
    monkeypatch.setattr(swaps, "_STACKED", stack)
    reference, first, second = style(n, 0, d=d), style(m, 1, 1.5, d=d), style(m, 2, 1.0, d=d)
    choices = np.random.default_rng(3).random((6, m)) < 0.5
    choices[0] = False
    expected = [
        score(reference, np.where(mask[:, None], second, first))
        - score(reference, np.where(mask[:, None], first, second))
        for mask in choices
    ]
    found = swapped(reference, first, second)
    assert found.difference(choices) == pytest.approx(expected, abs=1e-9)
    assert found.difference(~choices) == pytest.approx([-each for each in expected], abs=1e-9)
    assert found.pairs == m


@pytest.mark.parametrize(("swapped", "score"), SCORES.values(), ids=list(SCORES))
def test_choices_that_are_equal_but_for_rounding_count_as_equal(swapped, score):
    """Half of the pairs hold one picture twice, so swapping them changes nothing."""
    first, second = style(8, 1, 3.0), style(8, 2, 1.0)
    second[4:] = first[4:]
    choices = np.array(list(itertools.product((False, True), repeat=8)))[:, :, None]
    differences = np.array(
        [
            score(REFERENCE, np.where(mask, second, first))
            - score(REFERENCE, np.where(mask, first, second))
            for mask in choices
        ]
    )
    expected = np.mean(np.abs(differences) >= abs(differences[0]) - 1e-9)
    assert significance(swapped(REFERENCE, first, second)).p == expected


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.03, 0.01, 0.5]) == pytest.approx([0.06, 0.03, 0.5])
    assert holm([0.6, 0.9]) == pytest.approx([1, 1])
    assert holm([0.02]) == pytest.approx([0.02])
    assert holm([]).tolist() == []


def test_holm_keeps_its_family():
    """At most 5 % of families without a difference reject anything."""
    rng = np.random.default_rng(0)
    rejected = [(holm(rng.random(4)) <= 0.05).any() for _ in range(2000)]
    assert 0.03 <= np.mean(rejected) <= 0.07


def test_halves_share_no_prompt_and_leave_no_row():
    prompts = ["a", "b", "a", "c", "d", "b", "e"]
    choose, report = halves(prompts, seed=1)
    assert sorted([*choose, *report]) == list(range(7))
    assert not {prompts[i] for i in choose} & {prompts[i] for i in report}
    assert len({prompts[i] for i in choose}) == 2
    assert len({tuple(halves(prompts, seed=seed)[0]) for seed in range(20)}) > 3


def test_the_best_of_many_is_optimistic_unless_reported_on_the_other_half():
    """Ten arms of the same quality: what the best one was chosen by is too good."""
    rng = np.random.default_rng(0)
    chosen_on, reported = [], []
    for seed in range(300):
        scores = rng.standard_normal((10, 20))
        choose, report = halves(range(20), seed=seed)
        best = scores[:, choose].mean(axis=1).argmax()
        chosen_on.append(scores[best, choose].mean())
        reported.append(scores[best, report].mean())
    assert np.mean(chosen_on) > 0.3
    assert abs(np.mean(reported)) < 0.06


def test_bad_input_is_told():
    good = style(6, 0)
    opposite = np.concatenate([good, -good])
    two = np.tile(good[:1], (6, 1)), np.tile(style(9, 1, 0).sum(axis=0), (6, 1))
    for call, told in (
        (lambda: similarity_interval(good[:4], good), "`reference`: .*at least 5 pictures; got 4"),
        (lambda: similarity_interval(good, good[:1]), "`candidate`: .*at least 5 pictures; got 1"),
        (lambda: similarity_interval(good, good, "double"), "`form`"),
        (lambda: similarity_interval(opposite, good, "nsync"), "`reference`: .*cancel out"),
        (lambda: compare_similarity(good, good, good[:5]), "`second`: .*one for each of `first`"),
        (lambda: compare_similarity(good, good, good[:, :2]), "`second`: expected 6 features"),
        (lambda: compare_similarity(good, good * np.nan, good), "`first`: .*NaN"),
        (lambda: compare_similarity(good, good, good, "double"), "`form`"),
        (lambda: compare_scores(good[:, 0], good[:5, 0]), "`second`: expected 6 .* got 5"),
        (lambda: compare_scores(good, good), "`first`: expected one score per picture"),
        (lambda: compare_scores(good[:4, 0], good[:4, 0]), "`first`: .*at least 5"),
        (lambda: normalised_interval(good, good, good[:5]), "`base`: .*each of `candidate`"),
        (lambda: normalised_interval(style(9, 1, 0), *two), "`ceiling`: expected a value above"),
        (lambda: kernel_swaps(good, good, good[:5]), "`second`: expected 6 pictures"),
        (lambda: frechet_swaps(good, good[:1], good[:1]), "`first`: .*at least 2"),
        (lambda: cmmd_swaps(good[:1], good, good), "`reference`: .*at least 2"),
        (lambda: sign_flips([0.1, np.nan]), "`differences`: .*picture 1"),
        (lambda: significance(Swappable(lambda s: s, 0, 0.0)), "at least 1 pair"),
        (lambda: holm([0.1, 1.2]), "`p_values`: expected values 0..1"),
        (lambda: holm([np.nan]), "`p_values`"),
        (lambda: halves(["a", "a"]), "at least 2 different prompts; got 1"),
    ):
        with pytest.raises(InputError, match=told):
            call()
