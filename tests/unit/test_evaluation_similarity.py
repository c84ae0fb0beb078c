"""Style similarity in its forms: against loops, its ceiling, and its number of references."""

import math

import numpy as np
import pytest
import torch

from nsync.errors import InputError
from nsync.evaluation import (
    csls_similarity,
    double_prototype,
    matched_similarity,
    normalised_score,
    self_similarity,
    style_gap,
    style_similarity,
)
from nsync.evaluation.similarity import FORMS


def style(n, seed=0, spread=1.0, d=12):
    """Pictures of one style: around one direction."""
    rows = spread * np.random.default_rng(seed).standard_normal((n, d))
    rows[:, 0] += 2
    return rows


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def looped(reference, candidate, form):
    scores = []
    for row in unit(candidate):
        mean = sum(unit(reference)) / len(reference)
        dot = math.fsum(a * b for a, b in zip(row, mean, strict=True))
        scores.append(dot / math.sqrt(mean @ mean) if form == "nsync" else dot)
    return scores


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("n", [1, 7])
def test_equals_a_loop(form, n):
    reference, candidate = style(n), style(5, 1)
    expected = looped(reference, candidate, form)
    assert style_similarity(reference, candidate, form) == pytest.approx(expected, abs=1e-12)
    tensors = torch.from_numpy(reference), torch.from_numpy(candidate)
    assert style_similarity(*tensors, form) == pytest.approx(expected, abs=1e-12)


def test_the_papers_form_is_the_one_that_a_bare_call_gives():
    reference, candidate = style(4), style(5, 1)
    found = style_similarity(reference, candidate)
    assert found.tolist() == style_similarity(reference, candidate, "nsync").tolist()


@pytest.mark.parametrize("form", FORMS)
def test_lengths_of_features_do_not_matter(form):
    reference, candidate = style(6), style(5, 1)
    scales = np.linspace(0.1, 9, 6)[:, None]
    found = style_similarity(reference * scales, candidate * 7, form)
    assert found == pytest.approx(style_similarity(reference, candidate, form), abs=1e-12)
    assert style_similarity(candidate[:1], candidate[:1] * 3, form) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("form", FORMS)
def test_the_ceiling_leaves_each_reference_out_of_its_own_mean(form):
    reference = style(6)
    expected = [
        looped(np.delete(reference, i, axis=0), reference[i : i + 1], form)[0] for i in range(6)
    ]
    assert self_similarity(reference, form) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("form", FORMS)
def test_candidates_meet_as_many_references_as_the_ceiling(form):
    reference, candidate = style(6), style(4, 1)
    expected = np.mean(
        [looped(np.delete(reference, i, axis=0), candidate, form) for i in range(6)], axis=0
    )
    assert matched_similarity(reference, candidate, form) == pytest.approx(expected, abs=1e-12)


def test_the_pairwise_form_alone_does_not_depend_on_the_number_of_references():
    candidate, pool = style(200, 1), style(4000, 2)

    def mean(form, n):
        sets = (pool[i : i + n] for i in range(0, 1000, n))
        return np.mean([style_similarity(some, candidate, form).mean() for some in sets])

    few, many = mean("pairwise", 4), mean("pairwise", 100)
    assert few == pytest.approx(many, abs=1e-12)
    assert mean("nsync", 100) - mean("nsync", 4) > 0.1


@pytest.mark.parametrize("form", FORMS)
def test_pictures_of_the_style_reach_the_ceiling(form):
    pool = style(6000, 3)
    ceiling = np.mean([self_similarity(pool[i : i + 5], form).mean() for i in range(0, 3000, 5)])
    candidate = pool[5000:]
    reached = np.mean(
        [matched_similarity(pool[i : i + 5], candidate, form).mean() for i in range(0, 3000, 5)]
    )
    assert reached == pytest.approx(ceiling, abs=0.02)


def test_the_double_prototype_hides_scatter():
    reference = style(50)
    mean, scattered = (style(400, 1, spread) for spread in (1.0, 3.0))
    lost = style_similarity(reference, mean).mean() - style_similarity(reference, scattered).mean()
    hidden = double_prototype(reference, mean) - double_prototype(reference, scattered)
    assert lost > 0.2 > 0.1 > hidden
    g, v = unit(mean).mean(axis=0), unit(reference).mean(axis=0)
    assert double_prototype(reference, mean) == pytest.approx(unit(g) @ unit(v), abs=1e-12)


def test_normalised_score_is_0_at_the_base_and_1_at_the_references():
    assert normalised_score(0.2, 0.2, 0.6) == 0
    assert normalised_score(0.6, 0.2, 0.6) == 1
    assert normalised_score(0.3, 0.2, 0.6) == pytest.approx(0.25)


def test_an_encoder_that_sees_the_style_has_a_gap_above_zero():
    near, far = style(12, 0, 0.6), -style(12, 1, 0.6)
    assert style_gap(near, far).told_apart
    assert not style_gap(near, style(12, 2, 0.6)).told_apart
    equal = np.ones((6, 3))
    assert not style_gap(equal, equal).told_apart


@pytest.mark.parametrize("readout", ["cosine", "csls"])
def test_the_gap_equals_loops(readout):
    reference, distractor = style(7), style(8, 1, d=12) * np.linspace(1, -1, 12)
    pool = [*unit(reference), *unit(distractor)]

    def r(i):
        near = sorted((pool[i] @ pool[j] for j in range(len(pool)) if j != i), reverse=True)
        return np.mean(near[:10])

    def similarity(i, j):
        cosine = pool[i] @ pool[j]
        return cosine if readout == "cosine" else 2 * cosine - r(i) - r(j)

    same = np.mean([similarity(i, j) for i in range(7) for j in range(7) if i != j])
    different = np.mean([similarity(i, j) for i in range(7) for j in range(7, 15)])
    gap = style_gap(reference, distractor, readout)
    assert (gap.same, gap.different) == pytest.approx((same, different), abs=1e-12)
    assert gap.gap.value == pytest.approx(same - different, abs=1e-12)


@pytest.mark.parametrize(("n", "k"), [(7, 8), (2, 3)])
def test_csls_of_candidates_equals_loops(n, k):
    reference, candidate, distractor = style(n), style(3, 5), -style(k, 1)
    pool = [*unit(reference), *unit(distractor)]

    def r(row, others):
        return np.mean(sorted((row @ other for other in others), reverse=True)[:10])

    expected = []
    for row in unit(candidate):
        each = [
            2 * row @ pool[j] - r(row, pool) - r(pool[j], pool[:j] + pool[j + 1 :])
            for j in range(n)
        ]
        expected.append(np.mean(each))
    found = csls_similarity(reference, candidate, distractor)
    assert found == pytest.approx(expected, abs=1e-12)


def test_bad_input_is_told():
    good = style(6)
    opposite = np.concatenate([good, -good])
    for call, told in (
        (lambda: style_similarity(good, good, "double prototype"), "`form`: .*nsync, pairwise"),
        (lambda: style_similarity(good, good[:, :3]), "`candidate`: expected 12 features"),
        (lambda: style_similarity(good, good * np.nan), "`candidate`: .*NaN or infinity"),
        (lambda: style_similarity(good, good[:0]), "`candidate`: .*at least 1 picture; got 0"),
        (lambda: style_similarity(np.zeros((2, 12)), good), "`reference`: .*only zeros"),
        (lambda: style_similarity(opposite, good), "`reference`: .*cancel out.*pairwise"),
        (lambda: double_prototype(good, opposite), "`candidate`: .*cancel out"),
        (lambda: self_similarity(good[:1]), "`reference`: .*at least 2 pictures; got 1"),
        (lambda: matched_similarity(good[:1], good), "`reference`: .*at least 2"),
        (lambda: self_similarity(good, "mean"), "`form`"),
        (lambda: normalised_score(0.5, 0.4, 0.4), "`ceiling`: .*above the floor.*another encoder"),
        (lambda: style_gap(good[:4], good), "`reference`: .*at least 5 pictures; got 4"),
        (lambda: style_gap(good, good[:4]), "`distractor`: .*at least 5 pictures; got 4"),
        (lambda: style_gap(good, good, "rank"), "`readout`: expected one of cosine, csls"),
        (lambda: csls_similarity(good, good, good[:1]), "`distractor`: .*at least 2"),
    ):
        with pytest.raises(InputError, match=told):
            call()
    assert style_similarity(opposite, good, "pairwise") == pytest.approx(0, abs=1e-12)
