"""How near pictures are to a style: the cosine of their features with those of the references.

Three forms are in use, and their values cannot be compared with each other. With unit features
`g_i` of the candidates, `r_j` of the references, and `v` the mean of the `r_j`::

    pairwise            g_i . v              the mean cosine with a reference
    nsync               g_i . v / |v|        the cosine with the mean reference
    double prototype    g . v / (|g| |v|)    with g the mean of the g_i: one number for a set

`nsync` is what NSYNC publishes (arXiv 2511.01517; its code, github.com/giddyyupp/NSYNC, file
src/metrics/calculate_csd.py). It rises with the number of references, because `|v|` falls as more
of them average out. `pairwise` does not: its expected value is the same for 3 references and for
300, so it is the one for comparisons. The double prototype (advice of CSD's author,
github.com/learn2phoenix/CSD, issue 5) averages scatter and outliers away; it is here to be
recognised in other people's tables, not as a headline.

>>> reference, candidate = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[3.0, 4.0]])
>>> [round(float(style_similarity(reference, candidate, form)[0]), 4) for form in FORMS]
[0.9899, 0.7]
"""

import numpy as np

from ..errors import InputError
from .features import Features, as_features, as_set, check_length, unit

FORMS = ("nsync", "pairwise")
"""Forms that give a value per picture, the paper's first."""


def style_similarity(reference: Features, candidate: Features, form: str = "nsync") -> np.ndarray:
    """The similarity of each candidate with the references.

    Args:
        reference: `[n, d]`, pictures of the style; at least 1.
        candidate: `[m, d]`, at least 1. Rows of either need not have length 1.
        form: one of `FORMS`.

    Returns:
        float64 `[m]`, -1..1, higher is nearer.

    Raises:
        InputError: an unknown form; bad features (see `features.as_features`); references that
            cancel out, in the form `nsync`.
    """
    check_form(form)
    pairs, gram = cosines(reference, candidate)
    return pairs.mean(axis=1) / mean_length(gram, form)


def double_prototype(reference: Features, candidate: Features) -> float:
    """The cosine of the mean candidate with the mean reference, -1..1: see the top of the page.

    Args:
        reference: `[n, d]`.
        candidate: `[m, d]`.

    Raises:
        InputError: bad features; a set whose directions cancel out.
    """
    pairs, gram = cosines(reference, candidate)
    of_candidate = unit("candidate", as_features("candidate", candidate)).mean(axis=0)
    length = float(np.linalg.norm(of_candidate))
    check_length("candidate", length)
    return float(pairs.mean() / (length * mean_length(gram, "nsync")))


def self_similarity(reference: Features, form: str = "pairwise") -> np.ndarray:
    """The similarity of each reference with the other n - 1: its mean is the ceiling of a score.

    A reference never counts in its own mean, which would raise five references from 0.57 to 0.74.
    Compare with `matched_similarity` only: the form `nsync` depends on the number of references.

    Args:
        reference: `[n, d]`, at least 2.
        form: one of `FORMS`.

    Returns:
        float64 `[n]`, -1..1.

    Raises:
        InputError: as `style_similarity`; fewer than 2 references.
    """
    check_form(form)
    rows = unit("reference", as_features("reference", reference, 2))
    gram = rows @ rows.T
    others = (gram.sum(axis=1) - np.diag(gram)) / (len(gram) - 1)
    return others / _mean_length_without_one(gram, form)


def matched_similarity(
    reference: Features, candidate: Features, form: str = "pairwise"
) -> np.ndarray:
    """The similarity of each candidate with n - 1 references, averaged over the one left out.

    So candidates are held to as many references as `self_similarity` holds a reference to. In the
    form `pairwise` it equals `style_similarity`.

    Args:
        reference: `[n, d]`, at least 2.
        candidate: `[m, d]`.
        form: one of `FORMS`.

    Returns:
        float64 `[m]`, -1..1.

    Raises:
        InputError: as `self_similarity`.
    """
    check_form(form)
    as_features("reference", reference, 2)
    pairs, gram = cosines(reference, candidate)
    without_one = (pairs.sum(axis=1, keepdims=True) - pairs) / (len(gram) - 1)
    return (without_one / _mean_length_without_one(gram, form)).mean(axis=1)


def normalised_score(score: float, floor: float, ceiling: float) -> float:
    """Where a score lies between the untuned base (0) and the references themselves (1).

    Args:
        score: mean `matched_similarity` of the pictures to judge.
        floor: mean `matched_similarity` of the base's pictures.
        ceiling: mean `self_similarity` of the references, in the same form.

    Returns:
        Below 0: farther than the base. Above 1: nearer than the references to each other, which
        happens when pictures are more alike than the references are, or copies.

    Raises:
        InputError: no room between floor and ceiling.
    """
    if not floor < ceiling:
        wanted, got = f"a value above the floor, {floor:.4f}", f"{ceiling:.4f}"
        remedy = (
            "This encoder sees the base's pictures as near to the references as the references are "
            "to each other: choose another encoder, or references that are more alike."
        )
        raise InputError("ceiling", wanted, got, remedy)
    return (score - floor) / (ceiling - floor)


def cosines(reference: Features, candidate: Features) -> tuple[np.ndarray, np.ndarray]:
    """All that any form needs: candidates with references `[m, n]`, references `[n, n]`.

    Raises:
        InputError: bad features.
    """
    rows = as_features("reference", reference)
    others = unit("candidate", as_set("candidate", candidate, rows))
    rows = unit("reference", rows)
    return others @ rows.T, rows @ rows.T


def check_form(form: str) -> None:
    """Raise an `InputError` unless `form` is one of `FORMS`."""
    if form not in FORMS:
        raise InputError("form", f"one of {', '.join(FORMS)}", repr(form))


def mean_length(gram: np.ndarray, form: str) -> float:
    """|v| of references with the cosines `gram [n, n]`, or 1 where the form does not divide by it.

    Raises:
        InputError: references that cancel out.
    """
    if form == "pairwise":
        return 1.0
    length = float(np.sqrt(max(gram.mean(), 0.0)))
    check_length("reference", length)
    return length


def _mean_length_without_one(gram: np.ndarray, form: str) -> np.ndarray:
    """|v| with each reference left out in turn, `[n]`, or ones."""
    if form == "pairwise":
        return np.ones(len(gram))
    left = gram.sum() - 2 * gram.sum(axis=1) + np.diag(gram)
    length = np.sqrt(np.maximum(left, 0.0)) / (len(gram) - 1)
    check_length("reference", length)
    return length
