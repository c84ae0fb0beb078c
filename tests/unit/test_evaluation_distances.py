"""Set scores against plain loops in float64, and where the value is known beforehand."""

import math

import numpy as np
import pytest
import torch

from nsync.errors import InputError
from nsync.evaluation import (
    cmmd,
    drift,
    frechet_distance,
    inception_score,
    kernel_distance,
    kernel_distance_subsets,
    mean_pairwise_distance,
    vendi_score,
)
from nsync.evaluation import distances as module
from nsync.evaluation.paper import bootstrapped_frechet


def normal(n, d, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d))


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def looped_mmd(x, y, kernel, unbiased=True):
    """The squared MMD as its definition reads, pair by pair."""

    def mean(a, b):
        same = a is b
        pairs = [(i, j) for i in range(len(a)) for j in range(len(b))]
        kept = [kernel(a[i], b[j]) for i, j in pairs if not (same and unbiased and i == j)]
        return math.fsum(kept) / len(kept)

    return mean(x, x) + mean(y, y) - 2 * mean(x, y)


def cubic(a, b):
    return (a @ b / len(a) + 1) ** 3


def gaussian(a, b):
    return math.exp(-((a - b) @ (a - b)) / 200)


@pytest.mark.parametrize(("n", "m", "d"), [(2, 2, 3), (5, 9, 4), (7, 3, 20)])
def test_kernel_distances_equal_loops_over_pairs(n, m, d):
    x, y = normal(n, d), normal(m, d, 1) + 0.3
    assert kernel_distance(x, y) == pytest.approx(looped_mmd(x, y, cubic), abs=1e-12)
    for unbiased in (True, False):
        expected = 1000 * looped_mmd(x, y, gaussian, unbiased)
        assert cmmd(x, y, unbiased) == pytest.approx(expected, abs=1e-9)


def test_kernel_sums_do_not_depend_on_the_bands_they_are_made_in(monkeypatch):
    x, y = normal(11, 5), normal(8, 5, 1)
    whole = kernel_distance(x, y), cmmd(x, y)
    monkeypatch.setattr(module, "_ROWS", 3)
    assert (kernel_distance(x, y), cmmd(x, y)) == pytest.approx(whole, abs=1e-12)


def test_unbiased_distances_of_one_distribution_are_zero_on_average():
    found = [
        (kernel_distance(x, y), cmmd(unit(x), unit(y)), cmmd(unit(x), unit(y), unbiased=False))
        for x, y in ((normal(8, 6, 2 * i), normal(12, 6, 2 * i + 1)) for i in range(1000))
    ]
    mean, error = np.mean(found, axis=0), np.std(found, axis=0) / len(found) ** 0.5
    assert (abs(mean) < 4 * error).tolist() == [True, True, False]
    # The biased value of one distribution: 10 (1 - c) (1/n + 1/m), with c near 0 here.
    assert mean[2] == pytest.approx(10 * (1 / 8 + 1 / 12), rel=0.03)


def test_subsets_of_the_whole_set_are_the_whole_and_do_not_spread():
    x, y = normal(9, 4), normal(9, 4, 1)
    mean, spread = kernel_distance_subsets(x, y, subsets=3, subset_size=9)
    assert mean == pytest.approx(kernel_distance(x, y), abs=1e-12)
    assert spread < 1e-12


def test_subsets_are_the_seeds():
    x, y = normal(9, 4), normal(12, 4, 1)
    first, again, other = (
        kernel_distance_subsets(x, y, subsets=5, subset_size=4, seed=seed) for seed in (1, 1, 2)
    )
    assert first == again != other


@pytest.mark.parametrize(("n", "d"), [(6, 40), (40, 6)])
def test_frechet_distance_where_it_is_known(n, d):
    x = normal(n, d)
    step = normal(1, d, 3)[0]
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-10)
    assert frechet_distance(x, x + step) == pytest.approx(step @ step, rel=1e-9)
    # y = 2 x: means apart by m, roots of covariances by S^(1/2).
    spread = np.var(x, axis=0, ddof=1).sum()
    expected = x.mean(axis=0) @ x.mean(axis=0) + spread
    assert frechet_distance(x, 2 * x) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("n", [4, 40])
def test_frechet_distance_of_independent_axes(n):
    signs = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]] * (n // 4), dtype=float)
    deviations = np.array([3.0, 0.5]), np.array([1.0, 2.0])
    spread = n / (n - 1)  # of a sign, with n - 1
    expected = spread * np.square(deviations[0] - deviations[1]).sum() + 25
    found = frechet_distance(signs * deviations[0], signs * deviations[1] + [3, 4])
    assert found == pytest.approx(expected, rel=1e-12)


def test_frechet_distance_equals_the_root_of_the_product():
    for n, m, d in ((30, 25, 5), (30, 4, 12), (3, 5, 12)):
        x, y = normal(n, d), normal(m, d, 1) * 2 + 0.5
        a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
        values = np.linalg.eigvals(a @ b).astype(complex)
        apart = x.mean(axis=0) - y.mean(axis=0)
        expected = apart @ apart + np.trace(a) + np.trace(b) - 2 * np.sqrt(values).real.sum()
        assert frechet_distance(x, y) == pytest.approx(expected, abs=1e-5)
        assert frechet_distance(y, x) == pytest.approx(frechet_distance(x, y), rel=1e-12)


def test_bootstrap_mean_lies_above_the_distance():
    x, y = normal(40, 10), normal(40, 10, 1)
    assert bootstrapped_frechet(x, y)[0] > 1.1 * frechet_distance(x, y)


def test_inception_score_where_it_is_known():
    certain = np.eye(5)
    assert inception_score(certain) == pytest.approx(5, rel=1e-12)
    assert inception_score(np.full((6, 4), 0.25)) == pytest.approx(1, rel=1e-12)
    assert inception_score(certain, splits=5) == pytest.approx(1, rel=1e-12)
    half = np.array([[1.0, 0.0], [0.5, 0.5]])
    mean = (0.75, 0.25)
    expected = -math.log(0.75) + 0.5 * math.log(0.5 / mean[0]) + 0.5 * math.log(0.5 / mean[1])
    assert inception_score(half) == pytest.approx(math.exp(expected / 2), rel=1e-12)


def test_diversity_where_it_is_known():
    axes = np.eye(4) * 3
    assert vendi_score(axes) == pytest.approx(4, rel=1e-12)
    assert vendi_score(np.ones((4, 7))) == pytest.approx(1, rel=1e-12)
    assert vendi_score(np.repeat(axes, 3, axis=0)) == pytest.approx(4, rel=1e-12)
    assert mean_pairwise_distance(axes) == pytest.approx(1, rel=1e-12)
    assert mean_pairwise_distance(np.ones((4, 7))) == pytest.approx(0, abs=1e-12)
    rows = unit(normal(6, 3))
    apart = [1 - rows[i] @ rows[j] for i in range(6) for j in range(6) if i != j]
    assert mean_pairwise_distance(rows * 5) == pytest.approx(np.mean(apart), rel=1e-12)


def test_vendi_score_equals_the_entropy_of_the_cosines():
    for n, d in ((6, 3), (3, 9), (40, 30)):
        rows = unit(normal(n, d))
        values = np.linalg.eigvalsh(rows @ rows.T / n)
        values = values[values > 1e-14]
        expected = math.exp(-(values * np.log(values)).sum())
        assert vendi_score(rows) == pytest.approx(expected, rel=1e-10)


def test_drift_is_the_cosine_distance_row_by_row():
    before = np.array([[1.0, 0.0], [2.0, 0.0], [1.0, 1.0]])
    after = np.array([[3.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
    assert drift(before, after) == pytest.approx([0, 2, 1 - 0.5**0.5], abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_tensors_of_any_dtype_are_measured_in_float64(dtype):
    x, y = torch.tensor(normal(5, 3)).to(dtype), torch.tensor(normal(6, 3, 1)).to(dtype)
    wide = x.double().numpy(), y.double().numpy()
    for score in (kernel_distance, cmmd, frechet_distance):
        assert score(x.requires_grad_(), y) == score(*wide)


SETS = (frechet_distance, kernel_distance, cmmd)


@pytest.mark.parametrize("score", SETS)
@pytest.mark.parametrize(
    ("x", "y", "told"),
    [
        (normal(1, 3), normal(5, 3), r"`x`: expected features of at least 2 pictures; got 1"),
        (normal(5, 3), normal(1, 3), r"`y`: expected features of at least 2 pictures; got 1"),
        (normal(5, 3), normal(5, 4), r"`y`: expected 3 features a picture; got 4.*same encoder"),
        (normal(5, 3)[0], normal(5, 3), r"`x`: expected .*shape \[pictures.*got shape \[3\]"),
        (normal(5, 3), [["a"]], r"`y`: expected an array or tensor of real numbers; got list"),
        (normal(5, 3) / [1, 1, math.nan], normal(5, 3), r"`x`: .*pictures 0, 1, 2, 3, 4 \("),
        (normal(5, 3), np.where(np.arange(15) == 7, np.inf, 0).reshape(5, 3), r"`y`.*picture 2 "),
    ],
)
def test_bad_sets_are_told(score, x, y, told):
    with pytest.raises(InputError, match=told):
        score(x, y)


def test_other_bad_input_is_told():
    good = normal(5, 3)
    for call, told in (
        (lambda: kernel_distance_subsets(good, good, subset_size=6), "2 to 5; got 6"),
        (lambda: kernel_distance_subsets(good, good, subset_size=1), "2 to 5; got 1"),
        (lambda: kernel_distance_subsets(good, good, subset_size=5, subsets=0), "at least 1"),
        (lambda: inception_score(good), "Take the softmax"),
        (lambda: inception_score(np.eye(3) * 2), "off by up to 1"),
        (lambda: inception_score(np.eye(3), splits=4), "1 to the number of pictures, 3; got 4"),
        (lambda: inception_score(np.eye(3), splits=0), "got 0"),
        (lambda: vendi_score(np.zeros((3, 2))), "only zeros for pictures 0, 1, 2"),
        (lambda: mean_pairwise_distance(good[:1]), "at least 2 pictures"),
        (lambda: drift(good, good[:4]), "`after`: expected 5 pictures, one for each of `before`"),
        (lambda: drift(good, normal(5, 4)), "3 features a picture"),
    ):
        with pytest.raises(InputError, match=told):
            call()
