"""When an arm beats plain training, and the words for it: fixed before any study was run.

The rule. At the last step of a study, for one adapter, an arm *wins* if all of this holds:

1. its style hit rate is higher than that of plain training at equal optimizer steps, and than that
   of plain training that saw as many pictures: both times Holm's corrected p-value (over the arms
   held against that baseline) is below 0.05 and the 95 % interval lies above 0;
2. its drift is no worse: against both baselines the interval of the difference ends below 10 % of
   the baseline's mean drift;
3. the baseline of equal pictures saw at least 95 % as many pictures as the arm.

Content is told by the same test, and decides nothing.
"""

from collections.abc import Mapping, Sequence

from nsync.evaluation.verdict import probability, signed

from .result import PRIMARY, Answer, Comparison, Ruling

MARGIN = 0.1
"""How much of plain training's mean drift may be added by an arm that is no worse."""
LEAST_PICTURES = 0.95
"""Share of an arm's pictures that its baseline of equal pictures must have seen."""

STEPS, PICTURES = "equal steps", "equal pictures"

Compared = Mapping[tuple[str, str, str], Comparison]
"""Comparisons of one adapter by (arm, baseline, metric)."""


def rule_on(
    adapter: str,
    arm: str,
    against: Mapping[str, str],
    ratio: float,
    compared: Compared,
    plain_drift: Mapping[str, float],
) -> Ruling:
    """Whether an arm wins.

    Args:
        against: the baseline by `STEPS` and by `PICTURES`.
        ratio: pictures seen by the arm over those seen by the baseline of equal pictures.
        plain_drift: the baselines' mean drift by name, where it was measured.
    """
    style = _shown(arm, against, PRIMARY, compared)
    drift = _drift(arm, sorted(set(against.values())), compared, plain_drift)
    better = all(word == "better" for word in style.values())
    return Ruling(
        adapter=adapter,
        arm=arm,
        equal_steps=against[STEPS],
        equal_pictures=against[PICTURES],
        pictures_ratio=ratio,
        style=style,
        content=_shown(arm, against, "content", compared),
        drift=drift,
        wins=better and drift == "no worse" and ratio * LEAST_PICTURES <= 1,
    )


def answer(adapter: str, rulings: Sequence[Ruling], compared: Compared) -> Answer:
    """The result for one adapter in words: the best arm first, by its style at equal pictures."""
    if not rulings:
        return Answer(adapter, "Nothing was measured that plain can be compared with.", ())
    ranked = sorted(rulings, key=lambda one: -_lead(one, compared))
    winners = [one for one in ranked if one.wins]
    details = [_numbers(one, compared) for one in (winners or ranked[:1])]
    if winners:
        more = f"; as well: {_listed(winners[1:])}" if winners[1:] else ""
        headline = f"{winners[0].arm} beats plain on style at no worse drift{more}."
    else:
        headline = "No arm beats plain."
        details += _power(ranked[0], compared)
    details += [_almost(one) for one in ranked if not one.wins and "better" in one.style.values()]
    worse = [one for one in ranked if set(one.style.values()) == {"worse"}]
    if worse:
        details.append(f"Worse than plain on style: {_listed(worse)}.")
    return Answer(adapter, headline, tuple(details))


def _shown(arm: str, against: Mapping[str, str], metric: str, compared: Compared) -> dict[str, str]:
    found = {how: compared.get((arm, name, metric)) for how, name in against.items()}
    return {how: one.shown if one else "not measured" for how, one in found.items()}


def _drift(
    arm: str, baselines: Sequence[str], compared: Compared, plain_drift: Mapping[str, float]
) -> str:
    pairs = [(compared.get((arm, name, "drift")), plain_drift.get(name)) for name in baselines]
    if any(one is None or plain is None or one.difference.high is None for one, plain in pairs):
        return "not settled"
    if all(one.difference.high < MARGIN * plain for one, plain in pairs):
        return "no worse"
    return "worse" if any(one.shown == "worse" for one, _ in pairs) else "not settled"


def _lead(ruling: Ruling, compared: Compared) -> float:
    found = compared.get((ruling.arm, ruling.equal_pictures, PRIMARY))
    return found.difference.value if found else float("-inf")


def _numbers(ruling: Ruling, compared: Compared) -> str:
    """`overlap: style hit rate +0.110 [0.042, 0.175], p = 0.020 at equal pictures, ...`."""
    style = [
        f"{signed(found.difference)}, corrected {probability(found.p_holm)} at {how}"
        for how, name in ((PICTURES, ruling.equal_pictures), (STEPS, ruling.equal_steps))
        if (found := compared.get((ruling.arm, name, PRIMARY)))
    ]
    if not style:
        return f"{ruling.arm}: no pair with plain was measured."
    parts = [f"{ruling.arm}: style hit rate {'; '.join(style)}"]
    for metric in ("drift", "content", "balanced"):
        found = compared.get((ruling.arm, ruling.equal_pictures, metric))
        if found:
            word = ruling.drift if metric == "drift" else found.shown
            parts.append(f"{metric} {signed(found.difference)} ({word})")
    return (
        f"{parts[0]}. At equal pictures: {', '.join(parts[1:])}." if parts[1:] else f"{parts[0]}."
    )


def _power(ruling: Ruling, compared: Compared) -> list[str]:
    """How small a difference could have been missed."""
    found = compared.get((ruling.arm, ruling.equal_pictures, PRIMARY))
    if found is None or found.detectable is None:
        return []  # of the latter, the notes tell
    least = f"{found.detectable:.3f}"
    return [f"A true difference of {least} would have been found in 80 % of such studies."]


def _almost(ruling: Ruling) -> str:
    """Why an arm that catches more style is no winner."""
    if any(word != "better" for word in ruling.style.values()):
        words = ", ".join(f"{word} at {how}" for how, word in ruling.style.items())
        return f"{ruling.arm} on style: {words}."
    if ruling.drift != "no worse":
        words = "worse drift" if ruling.drift == "worse" else "a drift that may be worse"
        return f"{ruling.arm} catches more style than plain, at {words}."
    return (
        f"{ruling.arm} catches more style than plain, but saw {ruling.pictures_ratio:.2f} times as "
        f"many pictures as {ruling.equal_pictures}."
    )


def _listed(rulings: Sequence[Ruling]) -> str:
    return ", ".join(one.arm for one in rulings)
