"""The table of a study: CSV and JSON with everything, and the few columns that the page shows."""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nsync.evaluation.result import Interval
from nsync.evaluation.verdict import probability

from .result import BASE, HEADLINES, METRICS, PRIMARY, Analysis, Comparison, Ruling

MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class Text:
    """A cell of the page's table.

    Attributes:
        value: the number.
        note: the interval, or what else stands small below it, in lines.
        kind: "better", "worse" or "", which colours it.
    """

    value: str
    note: str = ""
    kind: str = ""


def as_csv(found: Analysis) -> str:
    """A row per adapter and arm: means with intervals, then differences to each baseline."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    differences = [(m, b) for m, one in METRICS.items() if one.better for b in found.baselines]
    head = ["adapter", "arm", "styles", "cells", "wins"]
    head += [name for metric in METRICS for name in _ends(metric)]
    for metric, baseline in differences:
        name = f"{metric} - {baseline}"
        head += [*_ends(name), f"{name} p", f"{name} p_holm", f"{name} d", f"{name} detectable"]
    writer.writerow(head)
    wins = {(one.adapter, one.arm): one.wins for one in found.rulings}
    for adapter in found.adapters:
        for arm in (BASE, *found.arms):
            count = found.mean(adapter, arm, PRIMARY)
            row = [adapter, arm, *((count.styles, count.cells) if count else ("", ""))]
            row += [wins.get((adapter, arm), "")]
            row += [number for metric in METRICS for number in _mean(found, adapter, arm, metric)]
            for metric, baseline in differences:
                row += _difference(found.comparison(adapter, arm, baseline, metric))
            writer.writerow(row)
    return text.getvalue()


def as_json(found: Analysis) -> str:
    """All of the analysis."""
    return json.dumps(found.as_dict(), indent=1, allow_nan=False) + "\n"


def scores(found: Analysis, adapter: str, metrics: Iterable[str]) -> list[list[Text]]:
    """Means at the last step, a row per arm, the base first: its name, then a cell per metric."""
    rows = []
    for arm in (BASE, *found.arms):
        means = [(name, found.mean(adapter, arm, name)) for name in metrics]
        if any(mean for _, mean in means):
            cells = [mean_text(mean.value, name) if mean else Text("") for name, mean in means]
            rows.append([Text(arm), *cells])
    return rows


def differences(found: Analysis, adapter: str) -> list[list[Text]]:
    """Of every ruled arm: ruling, style against both baselines, the other headlines, power."""
    rows = []
    for one in found.rulings:
        if one.adapter != adapter:
            continue
        pictures, steps = one.equal_pictures, one.equal_steps
        cells = [_compared(found, one, PRIMARY, pictures), _compared(found, one, PRIMARY, steps)]
        cells += [_compared(found, one, name, pictures) for name in HEADLINES[1:]]
        primary = found.comparison(adapter, one.arm, pictures, PRIMARY)
        least = primary.detectable if primary else None
        cells.append(Text("" if least is None else f"{least:.3f}"))
        rows.append([Text(one.arm, f"less {pictures}"), ruling_text(one), *cells])
    return rows


def mean_text(value: Interval, metric: str) -> Text:
    """`0.512` with `0.401 to 0.622`."""
    digits = METRICS[metric].digits
    return Text(f"{value.value:.{digits}f}".replace("-", MINUS), _span(value, digits))


def ruling_text(ruling: Ruling) -> Text:
    """The ruling in two or three words, with the word on drift."""
    drift = f"drift {ruling.drift}"
    if ruling.wins:
        return Text("beats plain", drift, "better")
    words = set(ruling.style.values())
    if words == {"worse"}:
        return Text("worse on style", drift, "worse")
    if words == {"better"}:
        return Text("more style", drift)
    better = [how for how, word in ruling.style.items() if word == "better"]
    return Text(f"at {better[0]} only" if better else "not shown", drift)


def _ends(name: str) -> tuple[str, str, str]:
    return name, f"{name} low", f"{name} high"


def _mean(found: Analysis, adapter: str, arm: str, metric: str) -> Sequence[object]:
    mean = found.mean(adapter, arm, metric)
    return (mean.value.value, mean.value.low, mean.value.high) if mean else ("", "", "")


def _difference(one: Comparison | None) -> Sequence[object]:
    if one is None:
        return [""] * 7
    ends = one.difference
    return (ends.value, ends.low, ends.high, one.p, one.p_holm, one.effect, one.detectable)


def _compared(found: Analysis, ruling: Ruling, metric: str, against: str) -> Text:
    one = found.comparison(ruling.adapter, ruling.arm, against, metric)
    if one is None:
        return Text("")
    digits, shown = METRICS[metric].digits, one.shown
    value = f"{round(one.difference.value, digits) + 0.0:+.{digits}f}".replace("-", MINUS)
    parts = [_span(one.difference, digits), probability(one.p_holm)]
    note = "\n".join(part for part in parts if part)
    return Text(value, note, shown if shown in ("better", "worse") else "")


def _span(value: Interval, digits: int) -> str:
    if value.low is None or value.high is None:
        return ""
    return f"{value.low:.{digits}f} to {value.high:.{digits}f}".replace("-", MINUS)
