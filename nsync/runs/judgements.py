"""Settings judged once: every one that is out of its range is named in one error.

A judgement is (name, rule, value, whether it is good).
"""

import math
from collections.abc import Collection, Iterable
from dataclasses import fields
from typing import TypeVar

from ..errors import InputError

Judgement = tuple[str, str, object, bool]
S = TypeVar("S")

_FROM_ONE = ("log_every", "keep_last", "validate_every", "score_every")
_FROM_ZERO = ("preview_every", "save_every", "pause_every")
CADENCE = frozenset({*_FROM_ONE, *_FROM_ZERO})
"""How often what is done (`nsync.runs.parts.Pace`): it changes nothing of what a run learns."""


def judge(judgements: Iterable[Judgement]) -> None:
    """Raise one `InputError` that names every setting that is not good."""
    found = [(name, rule, value) for name, rule, value, good in judgements if not good]
    if found:
        names, rules, values = zip(*found, strict=True)
        joined = "; ".join(f"`{n}` {r}" for n, r in zip(names, rules, strict=True))
        got = "; ".join(f"`{n}` = {v!r}" for n, v in zip(names, values, strict=True))
        raise InputError(", ".join(names), joined, got)


def one_of(settings: object, name: str, choices: tuple[str, ...]) -> Judgement:
    """A setting that is one of these."""
    value = getattr(settings, name)
    return name, f"one of {', '.join(choices)}", value, value in choices


def at_least(settings: object, name: str, least: int) -> Judgement:
    """A finite number that is no less."""
    value = getattr(settings, name)
    return name, f"at least {least}", value, math.isfinite(value) and value >= least


def above_zero(settings: object, name: str) -> Judgement:
    """A finite number above 0."""
    value = getattr(settings, name)
    return name, "a number above 0", value, math.isfinite(value) and value > 0


def share(settings: object, name: str) -> Judgement:
    """A number in 0..1, without 1."""
    value = getattr(settings, name)
    return name, "at least 0 and below 1", value, 0 <= value < 1


def pace(settings: object) -> list[Judgement]:
    """How often what is done; see `nsync.runs.parts.Pace`."""
    least = (
        {"steps": 1} | dict.fromkeys(sorted(_FROM_ONE), 1) | dict.fromkeys(sorted(_FROM_ZERO), 0)
    )
    return [at_least(settings, name, number) for name, number in least.items()]


def differing(one: S, other: S, free: Collection[str]) -> dict[str, tuple[object, object]]:
    """(value of `one`, value of `other`) of the settings that are not equal and not free."""
    names = [field.name for field in fields(one) if field.name not in free]
    pairs = {name: (getattr(one, name), getattr(other, name)) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
