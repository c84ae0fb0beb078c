"""Labels of a style set: who belongs together, and a set for every label.

Labels are those of "Label-guided supervised contrastive learning" (arXiv 2412.03957) taken to NSYNC
(arXiv 2511.01517): items of one label share what is to be learned, so an item's anchor has its
label; items of other labels do not, so they can be its negatives.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from ..errors import InputError
from ..rules import needs_anchor
from ..settings import PAINTED, TrainSettings
from ..style_set import StyleSet

_NAMED = 10
"""So many items are named in an error; of the rest it gives the number."""


def by_label(settings: TrainSettings, style_set: StyleSet) -> dict[str, StyleSet]:
    """A set for every label, to train a run on each; labels in the order in which they first come.

    Each has the items of its label. The items of the other labels come with it as `others` only if
    the settings take negatives from them: else a run does not depend on them.

    Raises:
        InputError: an empty set; items without a label; a label of which no anchor can be drawn.
    """
    labels = [item.label for item in style_set.items]
    if not labels:
        raise InputError("style_set", "at least one picture", "an empty set")
    if unlabelled := [item.name for item in style_set.items if not item.label]:
        raise InputError(
            "labels",
            "a label on every picture of the set, since each label gets a run of its own",
            f"none on {_listed(unlabelled)}",
            "Put each picture into an inner folder with the label's name, connect `labels` of the "
            "Style Set, or train all pictures as one style.",
        )
    check_anchors(settings, labels)
    return {label: _of_label(settings, style_set, label) for label in dict.fromkeys(labels)}


def check_anchors(settings: TrainSettings, labels: Sequence[str]) -> None:
    """Refuse labels of which one picture alone is trained on, if the rule needs anchors.

    Args:
        labels: of the pictures that are trained on; "" of one without.

    Raises:
        InputError: it names these labels.
    """
    alone = [label for label, count in Counter(labels).items() if count == 1]
    if alone and needs_anchor(settings.rule):
        names = ", ".join(repr(label) if label else "no label" for label in alone)
        kind = "positives of the same label" if any(labels) else "positives"
        raise InputError(
            "style_set",
            f"at least two {kind}, since an anchor of rule '{settings.rule}' is another of them",
            f"one of {names}" if any(labels) else "one",
            "Add a picture, hold out fewer, or choose the rule 'projection'.",
        )


def check_others(style_set: StyleSet) -> None:
    """Refuse a set that has no pictures of other labels.

    Raises:
        InputError: it says whether there is one label only, or all are trained as one style.
    """
    if style_set.others:
        return
    labels = list(dict.fromkeys(item.label for item in style_set.items if item.label))
    if len(labels) > 1:
        expected = "pictures of other labels than the style's"
        got = f"a set whose labels are all trained as one style ({_listed(labels)})"
        remedy = "Set `labels` to 'one run per label'"
    else:
        expected = "a set with at least two labels, of which each is the others' negative"
        got = f"one label, {labels[0]!r}" if labels else "no labels"
        remedy = "Add pictures of other styles under labels of their own"
    raise InputError("negatives_from", expected, got, f"{remedy}, or choose {PAINTED!r}.")


def _of_label(settings: TrainSettings, style_set: StyleSet, label: str) -> StyleSet:
    own = tuple(item for item in style_set.items if item.label == label)
    rest = tuple(item for item in style_set.items if item.label != label)
    others = (*style_set.others, *rest) if settings.uses_others else ()
    return replace(style_set, items=own, others=others)


def _listed(names: Sequence[str]) -> str:
    shown, more = ", ".join(names[:_NAMED]), len(names) - _NAMED
    return f"{shown} and {more} more" if more > 0 else shown
