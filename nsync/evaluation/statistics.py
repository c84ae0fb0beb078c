"""Is it real? Style similarity of arms with intervals and p-values, and the best of several.

An arm is what drew the pictures: the base, a LoRA, a checkpoint. Rows of two arms belong together:
the same prompt, the same seed.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from ..draws import derive_seed
from ..errors import InputError
from . import bootstrap
from .bootstrap import Interval, Statistic, pair_mean, weighted_mean
from .features import Features, as_features, as_pair, as_scores, as_set, check_paired, unit
from .permutation import Significance, sign_flips, significance
from .similarity import check_form, mean_length, normalised_score
from .units import LEAST, Units

_NOTHING = 1e-12


@dataclass(frozen=True)
class Comparison:
    """What one arm has over another.

    Attributes:
        difference: of the mean scores, first minus second, with its interval.
        significance: of the sign flips.
    """

    difference: Interval
    significance: Significance


def similarity_interval(
    reference: Features,
    candidate: Features,
    form: str = "pairwise",
    *,
    prompts: Sequence[Hashable] = (),
    seed: int = 0,
) -> Interval:
    """The mean `style_similarity` of the candidates, resampling candidates and references.

    Args:
        reference: `[n, d]`, at least 5.
        candidate: `[m, d]`, at least 5.
        form: `nsync` or `pairwise`.
        prompts: of each picture, where they are known; see `nsync.evaluation.units`.
        seed: of the resamples.

    Raises:
        InputError: an unknown form; bad features; fewer than 5 of either.
    """
    check_form(form)
    rows = _unit_references(reference)
    others = unit("candidate", as_set("candidate", candidate, rows, LEAST))
    statistic = _mean(others @ rows.T, rows @ rows.T, form)
    units = Units.of(len(others), prompts)
    found = bootstrap.interval(units.drawn(statistic), units.count, len(rows), seed=seed)
    return replace(found, low=max(found.low, -1.0), high=min(found.high, 1.0))


def compare_similarity(
    reference: Features,
    first: Features,
    second: Features,
    form: str = "pairwise",
    *,
    prompts: Sequence[Hashable] = (),
    seed: int = 0,
) -> Comparison:
    """How much nearer to the style `first` is than `second`, prompt by prompt.

    Args:
        reference: `[n, d]`, at least 5.
        first: `[m, d]`, at least 5.
        second: `[m, d]`, row by row the same prompts and seeds.
        form: `nsync` or `pairwise`.
        prompts: of each picture, where they are known; see `nsync.evaluation.units`.
        seed: of the resamples and flips.

    Raises:
        InputError: as `similarity_interval`; unequal numbers of pictures.
    """
    check_form(form)
    rows = _unit_references(reference)
    one, other = as_pair(("first", "second"), (first, second), rows, LEAST)
    pairs = (unit("first", one) - unit("second", other)) @ rows.T
    statistic = _mean(pairs, rows @ rows.T, form)
    units = Units.of(len(one), prompts)
    found = bootstrap.interval(units.drawn(statistic), units.count, len(rows), seed=seed)
    flips = units.swapped(sign_flips(pairs.mean(axis=1)))
    return Comparison(found, significance(flips, seed=seed))


def compare_scores(
    first: Features, second: Features, *, prompts: Sequence[Hashable] = (), seed: int = 0
) -> Comparison:
    """Any score per picture that knows no references, as prompt adherence or drift.

    Args:
        first: `[m]`, at least 5 finite scores.
        second: `[m]`, of the same prompts and seeds.
        prompts: of each picture, where they are known; see `nsync.evaluation.units`.
        seed: of the resamples and flips.

    Raises:
        InputError: not such scores; unequal numbers.
    """
    one, other = as_scores("first", first, LEAST), as_scores("second", second, LEAST)
    check_paired(("first", "second"), one, other)
    change = one - other

    def mean(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        return rows @ change / rows.sum(axis=1)

    units = Units.of(len(change), prompts)
    found = bootstrap.interval(units.drawn(mean), units.count, 0, seed=seed)
    return Comparison(found, significance(units.swapped(sign_flips(change)), seed=seed))


def normalised_interval(
    reference: Features,
    candidate: Features,
    base: Features,
    *,
    prompts: Sequence[Hashable] = (),
    seed: int = 0,
) -> Interval:
    """`similarity.normalised_score` in the form `pairwise`, with its interval.

    Floor, score and ceiling are all resampled together. The ends may lie far out, where floor and
    ceiling of many resamples lie close to each other; then the scale itself is not known.

    Args:
        reference: `[n, d]`, at least 5.
        candidate: `[m, d]`, at least 5.
        base: `[m, d]`, the untuned base's pictures of the same prompts and seeds.
        prompts: of each picture, where they are known; see `nsync.evaluation.units`.
        seed: of the resamples.

    Raises:
        InputError: as `compare_similarity`; a ceiling not above the floor.
    """
    rows = _unit_references(reference)
    drawn, before = as_pair(("candidate", "base"), (candidate, base), rows, LEAST)
    score, floor = unit("candidate", drawn) @ rows.T, unit("base", before) @ rows.T
    gram = rows @ rows.T
    ceiling = float(pair_mean(gram, np.ones((1, len(rows))))[0])
    normalised_score(float(score.mean()), float(floor.mean()), ceiling)

    def statistic(of_rows: np.ndarray, of_columns: np.ndarray) -> np.ndarray:
        room = pair_mean(gram, of_columns) - weighted_mean(floor, of_rows, of_columns)
        return weighted_mean(score - floor, of_rows, of_columns) / room

    units = Units.of(len(drawn), prompts)
    return bootstrap.interval(units.drawn(statistic), units.count, len(rows), seed=seed)


def halves(prompts: Sequence[Hashable], *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows to choose the best arm on, and rows to report it on; no prompt is in both.

    The best of k arms is best in part by luck, so its score on the pictures it was chosen by is
    too good.

    Args:
        prompts: the prompt of each row, at least 2 different ones.
        seed: of the halving.

    Returns:
        Two int arrays of rows, together all of them.

    Raises:
        InputError: fewer than 2 prompts.
    """
    different = list(dict.fromkeys(prompts))
    if len(different) < 2:
        remedy = "Draw more prompts, or report without choosing."
        raise InputError("prompts", "at least 2 different prompts", str(len(different)), remedy)
    order = np.random.default_rng(derive_seed(seed, "halves")).permutation(len(different))
    chosen = {different[i] for i in order[: len(different) // 2]}
    mask = np.array([prompt in chosen for prompt in prompts])
    return np.flatnonzero(mask), np.flatnonzero(~mask)


def _unit_references(reference: Features) -> np.ndarray:
    return unit("reference", as_features("reference", reference, LEAST))


def _mean(pairs: np.ndarray, gram: np.ndarray, form: str) -> Statistic:
    """The mean score of `pairs [m, n]`, cosines with the references, for resampled counts."""
    if form == "pairwise":
        return partial(weighted_mean, pairs)
    usual = mean_length(gram, form) ** 2
    alike = float(pair_mean(gram, np.ones((1, len(gram))))[0])

    def mean(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        # A reference taken twice lengthens v as if there were fewer of them. By how much on
        # average, the counts tell; so much is taken off, for v to be one of n references.
        weights = columns / columns.sum(axis=1, keepdims=True)
        square = np.maximum(((weights @ gram) * weights).sum(axis=1), _NOTHING)
        itself = np.square(weights).sum(axis=1)
        few = itself + (1 - itself) * alike
        return weighted_mean(pairs, rows, columns) / np.sqrt(square * usual / few)

    return mean
