"""Arms: sets of pictures that were drawn in one way each, to be compared prompt by prompt."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ..errors import InputError


@dataclass(frozen=True, eq=False)
class Arm:
    """Pictures of one arm.

    Attributes:
        name: told in tables: "base", the name of a LoRA file.
        pictures: uint8 `[3, h, w]`, of any sizes; two arms are compared place by place.
        prompts: of each picture, as it was drawn, or empty where they are not known.
        captions: the same without a word about the style, or empty.
        plain: pictures of the bare captions, same seeds; for drift. May be empty.
    """

    name: str
    pictures: tuple[Tensor, ...]
    prompts: tuple[str, ...] = ()
    captions: tuple[str, ...] = ()
    plain: tuple[Tensor, ...] = ()

    @property
    def contents(self) -> tuple[str, ...]:
        """What each picture is to show, in the words that all arms have in common, if known."""
        return self.captions or self.prompts


def check_arms(arms: Sequence[Arm]) -> None:
    """Refuse arms that cannot be compared.

    Raises:
        InputError: an arm has no pictures, or two names are the same, or prompts are not one per
            picture; it names the arms.
    """
    names = [arm.name for arm in arms]
    if len(set(names)) < len(names):
        got = ", ".join(map(repr, names))
        remedy = "Draw all of them in one comparison, or judge each comparison by itself."
        raise InputError("arms", "a name of its own for each arm", got, remedy)
    for arm in arms:
        if not arm.pictures:
            raise InputError(arm.name, "at least one picture", "none")
        for what in ("prompts", "captions", "plain"):
            values = getattr(arm, what)
            if values and len(values) != len(arm.pictures):
                expected = f"{len(arm.pictures)} {what}, one for each picture"
                raise InputError(arm.name, expected, str(len(values)))


def check_paired(arm: Arm, other: Arm) -> None:
    """Refuse two arms whose pictures do not answer to each other, place by place.

    Raises:
        InputError: their numbers or prompts differ.
    """
    if len(arm.pictures) != len(other.pictures):
        expected = f"as many pictures as {other.name!r} has, {len(other.pictures)}"
        remedy = "Arms are compared prompt by prompt: draw all of them from the same prompts."
        raise InputError(arm.name, expected, str(len(arm.pictures)), remedy)
    pairs = zip(arm.contents, other.contents, strict=False)
    for place, (mine, theirs) in enumerate(pairs):
        if mine != theirs:
            expected = f"the prompt that {other.name!r} has in place {place}, {theirs!r}"
            raise InputError(arm.name, expected, repr(mine))
