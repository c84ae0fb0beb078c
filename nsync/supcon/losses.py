"""Contrastive losses of pictures and texts that share labels.

One sum serves all of them. An anchor i looks at candidates a; s(i, a) is their cosine over the
temperature, and W(i, a) >= 0 says how much a is a positive of i:

    out:  L_i = - sum_p W(i, p) log softmax_a(s(i, .))[p] / sum_p W(i, p)
    in:   L_i = - log( sum_p W(i, p) softmax_a(s(i, .))[p] / sum_p W(i, p) )

the two forms of Khosla et al. (arXiv 2004.11362, equations 2 and 3), of which `out`, with the sum
outside the logarithm, is theirs and the default. With one label per item W is 1 for equal labels
and 0 otherwise. With several it is the overlap of the label sets, shared over all labels (Jaccard).

An anchor without a positive says nothing: it is left out of the mean, and stays a candidate of the
others. If no anchor has one, the loss is 0, with gradients of 0.

Features are normalised here and may be of any float type; the arithmetic is float32 at least.
"""

import torch
from torch import Tensor, distributed
from torch.distributed.nn.functional import all_gather
from torch.nn import functional as F

from ..errors import InputError

OUT, IN = FORMS = ("out", "in")
"""Where the sum over positives stands: outside the logarithm, or in it."""


def supervised_contrastive(
    features: Tensor, labels: Tensor, *, temperature: float = 0.1, form: str = OUT
) -> Tensor:
    """Within one kind of features, image-image or text-text: an anchor's candidates are all others.

    For several branches, their features one below the other and their labels likewise.

    Args:
        features: float `[n, d]`, at least 2.
        labels: int `[n]`, or for several labels per item 0 and 1 (or bool) `[n, classes]`.
        temperature: above 0. Khosla et al. found 0.1 best.
        form: one of `FORMS`.

    Returns:
        A scalar, the mean over the anchors that have a positive.

    Raises:
        InputError: not such features, labels, temperature or form.
    """
    _check(features, "features", temperature, form)
    _check_labels(labels, len(features))
    alike = label_overlap(labels, labels, _exact(features))
    apart = ~torch.eye(len(features), dtype=torch.bool, device=features.device)
    return _loss(features, features, alike * apart, apart, temperature, form)


def cross_contrastive(
    anchors: Tensor,
    candidates: Tensor,
    labels: Tensor,
    candidate_labels: Tensor | None = None,
    *,
    temperature: float = 0.1,
    form: str = OUT,
) -> Tensor:
    """Between two kinds of features, image-text or text-image: all candidates are looked at.

    Args:
        anchors: float `[n, d]`.
        candidates: float `[m, d]`, of the other kind; the one that belongs to an anchor has its
            label, so it is one of its positives.
        labels: of the anchors; see `supervised_contrastive`.
        candidate_labels: of the candidates; those of the anchors if None.

    Returns:
        As `supervised_contrastive`.

    Raises:
        InputError: as there; unequal widths.
    """
    _check(anchors, "anchors", temperature, form, least=1)
    _check(candidates, "candidates", temperature, form, least=1)
    if anchors.shape[1] != candidates.shape[1]:
        expected = f"as wide as the anchors, {anchors.shape[1]}"
        raise InputError("candidates", expected, str(candidates.shape[1]))
    others = labels if candidate_labels is None else candidate_labels
    _check_labels(labels, len(anchors))
    _check_labels(others, len(candidates))
    alike = label_overlap(labels, others, _exact(anchors))
    return _loss(anchors, candidates, alike, torch.ones_like(alike).bool(), temperature, form)


def unicl(images: Tensor, texts: Tensor, labels: Tensor, *, temperature: float = 0.1) -> Tensor:
    """Inter-modal only: the mean of image-text and text-image (UniCL, arXiv 2204.03610, eq. 2-4).

    Args:
        images: float `[n, d]`.
        texts: float `[n, d]`, row by row the images'.
        labels: see `supervised_contrastive`.

    Raises:
        InputError: as `cross_contrastive`; unequal numbers.
    """
    _paired(images, texts)
    both = ((images, texts), (texts, images))
    return sum(cross_contrastive(*pair, labels, temperature=temperature) for pair in both) / 2


def nt_xent(first: Tensor, second: Tensor, *, temperature: float = 0.5) -> Tensor:
    """Without labels: an item's only positive is itself in the other branch.

    Source: SimCLR (arXiv 2002.05709, eq. 1), as T2I_CL (arXiv 2107.02423) takes it with 0.5.

    Args:
        first: float `[n, d]`.
        second: float `[n, d]`, the same items in the other branch.

    Raises:
        InputError: as `supervised_contrastive`; unequal shapes.
    """
    _paired(first, second)
    items = torch.arange(len(first), device=first.device).repeat(2)
    return supervised_contrastive(torch.cat([first, second]), items, temperature=temperature)


def classification(logits: Tensor, labels: Tensor) -> Tensor:
    """The other way to use labels: cross-entropy of a classifier on the features.

    Args:
        logits: float `[n, classes]`.
        labels: see `supervised_contrastive`; several labels of an item share its weight of 1.

    Raises:
        InputError: not such logits or labels; a label that is none of the classes.
    """
    if logits.ndim != 2 or not logits.is_floating_point() or len(logits) < 1:
        raise InputError("logits", "float [n, classes]", f"{logits.dtype} {tuple(logits.shape)}")
    _check_labels(labels, len(logits))
    classes = logits.shape[1]
    if labels.ndim == 1:
        if labels.min() < 0 or labels.max() >= classes:
            got = f"{int(labels.min())} to {int(labels.max())}"
            raise InputError("labels", f"numbers 0 to {classes - 1}", got)
        return F.cross_entropy(logits.float(), labels.long())
    if labels.shape[1] != classes:
        raise InputError("labels", f"[n, {classes}], as the logits", str(tuple(labels.shape)))
    shares = labels.float() / labels.sum(1, keepdim=True)
    return F.cross_entropy(logits.float(), shares)


def matching(
    images: Tensor, texts: Tensor, labels: Tensor | None = None, *, temperature: float = 0.1
) -> Tensor:
    """Which text is of which image, both ways: cross-entropy over the batch.

    Others with a label in common are no negatives here: they are left out of the sum, for what is
    pulled together must not be pushed apart at once.

    Source: the sentence term of DAMSM (AttnGAN, arXiv 1711.10485, eq. 11, with its mask of equal
    classes in `losses.py`), on cosines.

    Args:
        images: float `[n, d]`.
        texts: float `[n, d]`, row by row the images'.
        labels: see `supervised_contrastive`; None takes all others for negatives.

    Raises:
        InputError: as `cross_contrastive`; unequal numbers.
    """
    _paired(images, texts)
    _check(images, "images", temperature, OUT, least=1)
    own = torch.eye(len(images), device=images.device)
    seen = torch.ones_like(own).bool()
    if labels is not None:
        _check_labels(labels, len(images))
        seen = (label_overlap(labels, labels) == 0) | own.bool()
    both = ((images, texts), (texts, images))
    return sum(_loss(*pair, own, seen, temperature, OUT) for pair in both) / 2


def label_overlap(labels: Tensor, others: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """How much two items have in common, `[n, m]` in 0..1; see the top.

    The one place that says what is a positive, and so what is no negative.

    Args:
        labels: see `supervised_contrastive`.
        others: likewise, `[m]` or `[m, classes]`.

    Raises:
        InputError: labels of two kinds; an item without a label.
    """
    _check_labels(labels, len(labels))
    _check_labels(others, len(others))
    if labels.ndim != others.ndim or labels.shape[1:] != others.shape[1:]:
        got = f"{tuple(labels.shape)} and {tuple(others.shape)}"
        raise InputError("labels", "one kind of labels, of as many classes, on both sides", got)
    if labels.ndim == 1:
        return (labels[:, None] == others[None]).to(dtype)
    mine, theirs = labels.to(dtype), others.to(dtype)
    common = mine @ theirs.T
    return common / (mine.sum(1)[:, None] + theirs.sum(1)[None] - common)


def gather(features: Tensor) -> Tensor:
    """The features of all processes, in their order; gradients flow back to each its own.

    Every process then computes the same loss of the whole batch. Backward adds up what all of them
    ask of a feature, and data parallel training averages over processes: together that is the
    gradient of one process with the whole batch. Without processes, the features themselves.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return features
    return torch.cat(all_gather(features.contiguous()))


def _loss(
    anchors: Tensor,
    candidates: Tensor,
    alike: Tensor,
    seen: Tensor,
    temperature: float,
    form: str,
) -> Tensor:
    """The sum at the top: `alike` is W `[n, m]`, `seen` (bool) says which candidates there are."""
    exact = _exact(anchors)
    with torch.autocast(anchors.device.type, enabled=False):
        one, other = (F.normalize(part.to(exact), dim=1) for part in (anchors, candidates))
        scores = (one @ other.T / temperature).masked_fill(~seen, float("-inf"))
        weights = alike.to(exact)
        total = weights.sum(1)
        told = total > 0
        # Rows without a positive, and -inf times 0, must not reach backward as NaN: not computed.
        logs = scores[told].log_softmax(1)
        shares = weights[told] / total[told, None]
        logs = logs.masked_fill(shares == 0, 0.0 if form == OUT else float("-inf"))
        each = -(shares * logs).sum(1) if form == OUT else -(logs + shares.log()).logsumexp(1)
        return each.sum() / told.sum().clamp(min=1)


def _exact(features: Tensor) -> torch.dtype:
    """In which is computed: float32, or more where the features are more."""
    return torch.promote_types(features.dtype, torch.float32)


def _check(features: Tensor, name: str, temperature: float, form: str, least: int = 2) -> None:
    if features.ndim != 2 or not features.is_floating_point() or len(features) < least:
        got = f"{features.dtype} {tuple(features.shape)}"
        raise InputError(name, f"float [n, d] with n of {least} or more", got)
    if not temperature > 0:
        raise InputError("temperature", "a number above 0", repr(temperature))
    if form not in FORMS:
        raise InputError("form", f"one of {', '.join(FORMS)}", repr(form))


def _check_labels(labels: Tensor, count: int) -> None:
    rule = f"int [{count}], or 0 and 1 [{count}, classes]"
    kind = f"{labels.dtype} {tuple(labels.shape)}"
    if labels.ndim not in (1, 2) or len(labels) != count:
        raise InputError("labels", rule, kind)
    if labels.ndim == 1:
        if labels.is_floating_point():
            raise InputError("labels", rule, kind)
        return
    if not ((labels == 0) | (labels == 1)).all():
        raise InputError("labels", rule, "other numbers")
    if not labels.any(1).all():
        bare = int((~labels.bool().any(1)).nonzero()[0])
        raise InputError("labels", "at least one label for each item", f"none for item {bare}")


def _paired(first: Tensor, second: Tensor) -> None:
    if first.shape != second.shape:
        got = f"{tuple(first.shape)} and {tuple(second.shape)}"
        raise InputError("features", "two of one shape, row by row of one item", got)
