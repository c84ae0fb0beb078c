"""Properties of the gradient rules, each written once and held to a bank of inputs."""

import doctest

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nsync import rules
from nsync.rules import RULES, SCOPES, refine

SHAPES = ((4, 8), (16,), (), (2, 4, 2))
LENGTH = 32 + 16 + 1 + 16
SCALES = {
    torch.float32: (1e-10, 1.0, 1e10),
    torch.bfloat16: (1e-10, 1.0, 1e10),
    torch.float16: (1e-4, 1.0, 1e2),
}
WEIGHT = 0.3


def _random(seed):
    return torch.randn(LENGTH, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def _kinds():
    """(g_p, g_n, g_a) by what is special about them."""
    p, n, a, zero = _random(1), _random(2), _random(3), torch.zeros(LENGTH, dtype=torch.float64)
    first_tensor = torch.arange(LENGTH) < 32
    return {
        "random": (p, n, a),
        "agreeing": (p, n + p, a + p),
        "rank deficient": (n + 2 * a, n, a),
        "rank one": (3 * p, -p, 2 * p),
        "parallel": (p, p, p),
        "nearly parallel": (p, p + 1e-3 * n, p - 1e-3 * a),
        "opposite": (p, -p, -p),
        "nearly opposite": (p, -p + 1e-3 * n, a),
        "orthogonal": (torch.where(first_tensor, p, 0), torch.where(first_tensor, 0, n), a),
        "one number": (p * (torch.arange(LENGTH) == 48), n, a),
        "zero positive": (zero, n, a),
        "zero negative": (p, zero, a),
        "zero anchor": (p, n, zero),
        "zero tensors": (torch.where(first_tensor, 0, p), torch.where(first_tensor, n, 0), a),
        "all zero": (zero, zero, zero),
    }


def _cut(flat, dtype):
    pieces = flat.split([torch.Size(shape).numel() for shape in SHAPES])
    return [piece.reshape(shape).to(dtype) for piece, shape in zip(pieces, SHAPES, strict=True)]


def _bank():
    for dtype, scales in SCALES.items():
        pairs = [(s, s) for s in scales] + [(scales[0], scales[-1]), (scales[-1], scales[0])]
        for kind, (p, n, a) in _kinds().items():
            for of_p, of_others in pairs:
                branches = (p * of_p, n * of_others, a * of_others)
                name = f"{kind}, {str(dtype)[6:]}, {of_p:g} and {of_others:g}"
                yield pytest.param([_cut(branch, dtype) for branch in branches], id=name)


BANK = tuple(_bank())
on_bank = pytest.mark.parametrize("branches", BANK)
in_scopes = pytest.mark.parametrize("scope", SCOPES)
PROJECTING = ("projection", "overlap")


def flat(tensors):
    """A list of gradients as one vector of the platform's widest float."""
    return np.concatenate([t.double().numpy().ravel() for t in tensors]).astype(np.longdouble)


def groups(tensors, scope):
    """The vectors that get coefficients of their own."""
    return [flat([t]) for t in tensors] if scope == "tensor" else [flat(tensors)]


def length(vector):
    return np.sqrt(vector @ vector)


def reference(rule, p, n, a, weight):
    """The update on vectors, written from the table of rules and from nothing else."""

    def onto(b):
        return (p @ b) / (b @ b) * b if b @ b > 0 else np.zeros_like(b)

    if rule == "overlap":
        return p - onto(n) if p @ n > 0 else p
    return {
        "nsync": p - onto(n) + onto(a),
        "projection": p - onto(n),
        "released-4.2": 2 * p - onto(p + n),
        "released-4.1": p - onto(p + n),
        "mean": (p + n + a) / 3,
        "contrast": p - weight * n,
        "plain": p,
    }[rule]


def assert_reference(rule, branches, scope, weight):
    """The update is the reference's to one rounding in its dtype, and keeps shapes and dtypes."""
    update = refine(rule, *branches, scope=scope, weight=weight)
    assert [u.shape for u in update] == [p.shape for p in branches[0]]
    assert [u.dtype for u in update] == [p.dtype for p in branches[0]]
    info = torch.finfo(update[0].dtype)
    for u, p, n, a in zip(*(groups(b, scope) for b in (update, *branches)), strict=True):
        expected = reference(rule, p, n, a, weight)
        terms = {
            "mean": max(length(p), length(n), length(a)),
            "contrast": max(length(p), length(n)),
        }
        scale = terms.get(rule, length(p))
        bound = info.eps * abs(expected) + 1e-14 * scale + info.smallest_normal * info.eps
        fits = abs(expected) <= info.max
        assert not np.isnan(u).any()
        assert (abs(u - expected) <= bound)[fits].all()


@on_bank
@in_scopes
def test_equals_a_wider_reference(branches, scope):
    for rule in RULES:
        assert_reference(rule, branches, scope, WEIGHT)


NUMBERS = st.floats(width=32, allow_nan=False, allow_infinity=False)
BRANCH = st.lists(NUMBERS, min_size=5, max_size=5)


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(
    values=st.tuples(BRANCH, BRANCH, BRANCH),
    dtype=st.sampled_from(list(SCALES)),
    rule=st.sampled_from(RULES),
    scope=st.sampled_from(SCOPES),
)
def test_equals_a_wider_reference_on_any_finite_numbers(values, dtype, rule, scope):
    greatest = torch.finfo(dtype).max
    wide = [torch.tensor(v, dtype=torch.float64).clamp(-greatest, greatest) for v in values]
    branches = [list(branch.to(dtype).split([2, 3])) for branch in wide]
    assert_reference(rule, branches, scope, WEIGHT)


@on_bank
@in_scopes
def test_projection_is_orthogonal_to_the_negatives(branches, scope):
    p, n, _ = branches
    update = refine("projection", p, n, scope=scope)
    info = torch.finfo(p[0].dtype)
    for u, before, b in zip(*(groups(x, scope) for x in (update, p, n)), strict=True):
        rounding = info.eps * (length(u) + info.smallest_normal * len(u) ** 0.5)
        assert abs(u @ b) <= (rounding + 1e-14 * length(before)) * length(b)


@on_bank
@in_scopes
@pytest.mark.parametrize("rule", PROJECTING)
def test_never_longer_than_the_positive(rule, branches, scope):
    p, n, _ = branches
    update = refine(rule, p, n, scope=scope)
    rounding = 1 + torch.finfo(p[0].dtype).eps
    for u, before in zip(groups(update, scope), groups(p, scope), strict=True):
        assert length(u) <= rounding * length(before)


@in_scopes
def test_released_41_is_a_push_away_that_limits_itself(scope):
    p, n, _ = [_cut(branch, torch.float64) for branch in _kinds()["agreeing"]]
    update = refine("released-4.1", p, n, scope=scope)
    turned = refine("released-4.1", n, p, scope=scope)
    for u, v, a, b in zip(*(groups(x, scope) for x in (update, turned, p, n)), strict=True):
        np.testing.assert_allclose(u.astype(float), -v.astype(float), atol=1e-12 * length(a))
        cosine = (a @ b) / (length(a) * length(b))
        sine = np.sqrt(1 - cosine**2)
        assert length(u) == pytest.approx(length(a) * length(b) * sine / length(a + b))
        assert length(u) <= min(length(a), length(b)) * (1 + 1e-12)


def test_released_41_is_half_the_difference_of_equal_lengths_and_a_projection_as_p_fades():
    p, n = torch.tensor([3.0, 4.0]).double(), torch.tensor([5.0, 0.0]).double()
    torch.testing.assert_close(refine("released-4.1", [p], [n])[0], (p - n) / 2)
    faint = 1e-6 * p
    left = refine("released-4.1", [faint], [n])[0]
    torch.testing.assert_close(left, refine("projection", [faint], [n])[0], rtol=0, atol=1e-11)


@pytest.mark.parametrize("rule", ["nsync", *PROJECTING])
@in_scopes
@pytest.mark.parametrize("factor", [2.0**-40, 0.5, 2.0**40])
def test_scale_of_negatives_and_anchors_does_not_matter(rule, scope, factor):
    # Powers of two scale without rounding, so that the updates must agree to the last bit.
    p, n, a = [_cut(branch, torch.float32) for branch in _kinds()["agreeing"]]
    before = refine(rule, p, n, a, scope=scope)
    after = refine(rule, p, [factor * x for x in n], [factor * x for x in a], scope=scope)
    assert all(map(torch.equal, before, after))


@pytest.mark.parametrize("rule", RULES)
@in_scopes
@pytest.mark.parametrize("factor", [2.0**-30, 2.0**30])
def test_scaling_all_branches_scales_the_update(rule, scope, factor):
    branches = [_cut(branch, torch.bfloat16) for branch in _kinds()["agreeing"]]
    before = refine(rule, *branches, scope=scope)
    after = refine(rule, *[[factor * x for x in b] for b in branches], scope=scope)
    assert all(torch.equal(factor * x, y) for x, y in zip(before, after, strict=True))


ROWS = torch.tensor([[1.0, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1]])  # orthogonal, exactly


@pytest.mark.parametrize("rule", ["nsync", *PROJECTING])
@pytest.mark.parametrize("scale", [1e-10, 1.0, 1e10])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@in_scopes
def test_is_the_positive_where_the_others_are_orthogonal_or_zero(rule, scale, dtype, scope):
    p, n, a = [[row.to(dtype), (scale * row).to(dtype).view(2, 2)] for row in ROWS]
    zero = [torch.zeros_like(x) for x in p]
    for others in ((n, a), (n, zero), (zero, a), (zero, zero)):
        assert all(map(torch.equal, refine(rule, p, *others, scope=scope), p))


def test_nsync_counts_twice_what_positive_and_anchor_share():
    p, n = [ROWS[0]], [ROWS[1]]
    assert torch.equal(refine("nsync", p, n, p)[0], 2 * p[0])


def test_overlap_keeps_what_points_away_from_the_negatives():
    p, n, _ = [_cut(branch, torch.float32) for branch in _kinds()["agreeing"]]
    away = [-x for x in n]
    assert all(map(torch.equal, refine("overlap", p, away), p))
    assert all(map(torch.equal, refine("overlap", p, n), refine("projection", p, n)))
    assert not torch.equal(refine("projection", p, away)[0], p[0])


def test_mean_leaves_the_anchor_out_where_there_is_none():
    assert torch.equal(refine("mean", [torch.ones(3)], [torch.zeros(3)])[0], torch.full((3,), 0.5))


@pytest.mark.parametrize("rule", RULES)
def test_scope_tensor_is_each_tensor_by_itself(rule):
    branches = [_cut(branch, torch.float32) for branch in _kinds()["agreeing"]]
    together = refine(rule, *branches, scope="tensor")
    alone = [refine(rule, [p], [n], [a])[0] for p, n, a in zip(*branches, strict=True)]
    torch.testing.assert_close(together, alone)
    if rule not in ("mean", "contrast", "plain"):
        assert not torch.allclose(together[0], refine(rule, *branches)[0])


@pytest.mark.parametrize("rule", RULES)
@in_scopes
def test_inputs_stay_and_results_are_new(rule, scope):
    branches = [_cut(branch, torch.float64) for branch in _kinds()["random"]]
    before = [[x.clone() for x in branch] for branch in branches]
    for u in refine(rule, *branches, scope=scope):
        u.zero_()
    assert all(
        torch.equal(x, y)
        for b, c in zip(branches, before, strict=True)
        for x, y in zip(b, c, strict=True)
    )


def test_parameters_of_several_dtypes_and_layouts():
    wide = torch.arange(12.0).view(3, 4)
    p = [wide.T, wide.half(), wide.bfloat16()[:, ::2], torch.zeros(0)]
    for scope in SCOPES:
        update = refine("projection", p, [x.float() for x in p], scope=scope)
        assert [u.dtype for u in update] == [x.dtype for x in p]
        assert all(torch.equal(u, torch.zeros_like(x)) for u, x in zip(update, p, strict=True))
    assert torch.equal(refine("plain", p)[0], wide.T)


def test_an_update_is_no_part_of_the_graph():
    p = [torch.ones(2, requires_grad=True)]
    assert not refine("projection", p, [torch.ones(2)])[0].requires_grad


def test_mps_which_has_no_float64_accumulates_in_float32():
    from nsync.gradients import _accumulation_dtype

    assert _accumulation_dtype(torch.device("mps")) == torch.float32
    assert _accumulation_dtype(torch.device("cuda")) == torch.float64


def test_the_docstring_tells_the_truth():
    result = doctest.testmod(rules)
    assert result.attempted >= 5
    assert result.failed == 0


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("scope", SCOPES)
def test_one_look_gives_both_answers(rule: str, scope: str):
    branches = [_cut(_random(seed), torch.float32) for seed in (1, 2, 3)]
    update, read = rules.refine_and_read(rule, *branches, scope=scope, weight=WEIGHT)
    alone = refine(rule, *branches, scope=scope, weight=WEIGHT)
    assert all(map(torch.equal, update, alone))
    expected = rules.statistics(rule, *branches, scope=scope, weight=WEIGHT)
    assert read.keys() == expected.keys()
    assert all(torch.equal(read[name], expected[name]) for name in read)
