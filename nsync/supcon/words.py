"""Words and regions of pictures: the part of DAMSM that looks closer than sentences do.

AttnGAN (arXiv 1711.10485) and DM-GAN are trained with it, their encoders and their generators. Its
score of a picture and a text, R(Q, D), with regions v_j and words e_i (equations 7 to 10):

    s_ij    = e_i . v_j, of which softmax over the words i of the text
    alpha_i = softmax over the regions j of gamma1 s_ij
    c_i     = sum_j alpha_ij v_j, what the picture has of the word
    R(Q, D) = 1 / gamma2 log sum_i exp(gamma2 cos(c_i, e_i))

and the loss (equation 11 and on) is the cross-entropy of which text is of which picture, on
gamma3 R, both ways. Checked against `miscc/losses.py` of github.com/taoxugit/AttnGAN (0d000e6) by
`scripts/agreement/staged_gans.py`.

That code has no 1 / gamma2, and so trains at what is a gamma3 of 50 here with its settings of 5 and
10. Here is the paper's formula; ask for gamma3 = 50 to have the code's.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import InputError
from .losses import label_overlap


def word_matching(
    regions: Tensor,
    words: Tensor,
    mask: Tensor | None = None,
    labels: Tensor | None = None,
    *,
    gamma1: float = 4.0,
    gamma2: float = 5.0,
    gamma3: float = 10.0,
) -> Tensor:
    """Which text is of which picture, word by word; as `losses.matching` is of sentences.

    Others with a label in common are no negatives, as there.

    Args:
        regions: float `[n, r, d]`, a feature per region of each picture.
        words: float `[n, l, d]`, a feature per word of each text, row by row the pictures'.
        mask: bool `[n, l]`, True where there is a word. None: everywhere.
        labels: see `losses.supervised_contrastive`; None takes all others for negatives.
        gamma1: above 0, how sharply a word picks its regions; see the top. 4 is the code's, for
            birds and for COCO; the paper names 5.
        gamma2: above 0, how much the best words count.
        gamma3: above 0, the inverse of a temperature.

    Returns:
        A scalar, float32 at least: the mean of both ways. DAMSM's is their sum, twice this.

    Raises:
        InputError: as `word_scores` and `losses.label_overlap`; unequal numbers; such a gamma3.
    """
    scores = word_scores(regions, words, mask, gamma1=gamma1, gamma2=gamma2)
    if len(regions) != len(words):
        got = f"{len(regions)} pictures and {len(words)} texts"
        raise InputError("words", "a text for each picture, row by row", got)
    _above_zero(gamma3=gamma3)
    scores = gamma3 * scores
    if labels is not None:
        if len(labels) != len(scores):
            raise InputError("labels", f"{len(scores)} rows, one per picture", str(len(labels)))
        own = torch.eye(len(scores), dtype=torch.bool, device=scores.device)
        alike = (label_overlap(labels, labels) > 0) & ~own
        scores = scores.masked_fill(alike, float("-inf"))
    target = torch.arange(len(scores), device=scores.device)
    return (F.cross_entropy(scores, target) + F.cross_entropy(scores.T, target)) / 2


def word_scores(
    regions: Tensor,
    words: Tensor,
    mask: Tensor | None = None,
    *,
    gamma1: float = 4.0,
    gamma2: float = 5.0,
) -> Tensor:
    """How well each picture goes with each text, R(Q, D) at the top.

    Needs memory for some n m l (r + d) numbers.

    Args:
        regions: float `[n, r, d]`; see `word_matching`.
        words: float `[m, l, d]`.
        mask: bool `[m, l]`.
        gamma1: see `word_matching`.
        gamma2: likewise.

    Returns:
        `[n, m]`, float32 at least; of one word a cosine, of more at most log(l) / gamma2 above.

    Raises:
        InputError: not such features or mask; a text without a word; such a gamma.
    """
    mask = _checked(regions, words, mask)
    _above_zero(gamma1=gamma1, gamma2=gamma2)
    exact = torch.promote_types(torch.promote_types(regions.dtype, words.dtype), torch.float32)
    with torch.autocast(regions.device.type, enabled=False):
        regions, words = regions.to(exact), words.to(exact)
        there = mask[None, :, :, None]
        # Pictures n, texts m, words l, regions r.
        likeness = torch.einsum("mld,nrd->nmlr", words, regions)
        likeness = likeness.masked_fill(~there, float("-inf")).softmax(2)
        picked = (gamma1 * likeness).softmax(3)
        found = torch.einsum("nmlr,nrd->nmld", picked, regions)
        alike = F.cosine_similarity(found, words[None].expand_as(found), dim=3)
        alike = (gamma2 * alike).masked_fill(~mask, float("-inf"))
        return alike.logsumexp(2) / gamma2


def _checked(regions: Tensor, words: Tensor, mask: Tensor | None) -> Tensor:
    """The mask."""
    if regions.ndim != 3 or not regions.is_floating_point() or len(regions) < 1:
        got = f"{regions.dtype} {tuple(regions.shape)}"
        raise InputError("regions", "float [n, r, d]", got)
    width = regions.shape[2]
    if words.ndim != 3 or not words.is_floating_point() or words.shape[2] != width:
        got = f"{words.dtype} {tuple(words.shape)}"
        raise InputError("words", f"float [m, l, {width}], as wide as the regions", got)
    if mask is None:
        return torch.ones(words.shape[:2], dtype=torch.bool, device=words.device)
    if mask.dtype != torch.bool or mask.shape != words.shape[:2]:
        got = f"{mask.dtype} {tuple(mask.shape)}"
        raise InputError("mask", f"bool {list(words.shape[:2])}, True where a word is", got)
    if not mask.any(1).all():
        bare = int((~mask.any(1)).nonzero()[0])
        raise InputError("mask", "at least one word in each text", f"none in text {bare}")
    return mask


def _above_zero(**values: float) -> None:
    for name, value in values.items():
        if not value > 0:
            raise InputError(name, "a number above 0", repr(value))
