"""Was the style caught? Scores of pictures from features, and how far to trust them.

Everything here takes feature arrays `[n, d]`, a row per picture (numpy or torch, any real dtype,
any device), computes in float64, and draws at random from a given seed only. Bad input is one
`nsync.errors.InputError`.

* `similarity`, `validity`: scores per picture, their ceiling, and whether the encoder can tell.
* `distances`, `diversity`, `paper`: scores of sets.
* `bootstrap`, `permutation`, `swaps`, `statistics`: intervals, p-values, the best of several.
* `policy`: what a score is worth at a number of pictures.
"""

from .distances import (
    cmmd,
    frechet_distance,
    inception_score,
    kernel_distance,
    kernel_distance_subsets,
)
from .diversity import drift, mean_pairwise_distance, vendi_score
from .permutation import holm, significance
from .policy import advice
from .similarity import (
    double_prototype,
    matched_similarity,
    normalised_score,
    self_similarity,
    style_similarity,
)
from .statistics import (
    compare_scores,
    compare_similarity,
    halves,
    normalised_interval,
    similarity_interval,
)
from .swaps import cmmd_swaps, frechet_swaps, kernel_swaps
from .validity import csls_similarity, style_gap

__all__ = [
    "advice",
    "cmmd",
    "cmmd_swaps",
    "compare_scores",
    "compare_similarity",
    "csls_similarity",
    "double_prototype",
    "drift",
    "frechet_distance",
    "frechet_swaps",
    "halves",
    "holm",
    "inception_score",
    "kernel_distance",
    "kernel_distance_subsets",
    "kernel_swaps",
    "matched_similarity",
    "mean_pairwise_distance",
    "normalised_interval",
    "normalised_score",
    "self_similarity",
    "significance",
    "similarity_interval",
    "style_gap",
    "style_similarity",
    "vendi_score",
]
