"""What the label of a picture of the tiny world says: some of what it shows, or all of it."""

from ..supcon.labels import SEVERAL
from .scenes import COLOURS, PLACES, SHAPES
from .world import Styled, in_words

STYLE, SHAPE, BOTH, CAPTION, SEVERAL_LABELS = LABEL_BY = (
    "style", "shape", "style and shape", "caption", "several labels"
)  # fmt: skip
"""What pictures of one label have in common; or one label each for style, shape, colour, place."""


def label_of(label_by: str, shown: Styled) -> str:
    """The label of a picture, or its labels.

    Args:
        label_by: one of `LABEL_BY`.
    """
    scene = shown.scene
    style, shape = in_words(shown.style), SHAPES[scene.shape]
    several = (style, shape, tuple(COLOURS)[scene.colour], tuple(PLACES)[scene.place])
    return {
        STYLE: style,
        SHAPE: shape,
        BOTH: f"{style} {shape}",
        CAPTION: shown.caption,
        SEVERAL_LABELS: f"{SEVERAL} ".join(several),
    }[label_by]
