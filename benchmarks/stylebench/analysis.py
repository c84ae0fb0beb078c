"""From records to results: paired differences against plain training, and who wins.

Fixed before any study was run. A pair is two cells of one style and one seed, arm and baseline:
equal positives, captions and noise. At the deciding step every arm is held against every
baseline, for each adapter and each metric; `inference` says how intervals and p-values come about,
and why over styles; `ruling` says who wins. p-values are corrected (Holm) over the arms within an
adapter, a metric and a baseline. One metric decides, `result.PRIMARY`; all others are looked at.

The deciding step is the last measured one at which `plain` hits the style in 30 to 80 %, where
there is room on both sides: later every arm hits it, earlier none does. Plain alone chooses it.

Every arm makes as many optimizer steps as any other at a step; an arm with negatives sees more
pictures in them. So there are two baselines or more: `plain`, of equal steps, and plain arms of
larger batches; the one that saw most nearly as many pictures as an arm is its baseline of equal
pictures.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from math import log, sqrt
from statistics import fmean

from nsync.errors import InputError
from nsync.evaluation.permutation import holm

from ..studies.inference import detectable, effect_size, mean_interval, p_value, style_means
from .notes import notes
from .reading import Record
from .result import BASE, HEADLINES, METRICS, PRIMARY, Analysis, Budget, Comparison, Mean, Ruling
from .ruling import PICTURES, ROOM, STEPS, answer, rule_on

_PLAIN = "plain"

Cell = tuple[str, int]
"""Style and seed."""


class _Cells:
    """Records by adapter, arm and step, then by style and seed; the base's under every adapter."""

    def __init__(self, records: Sequence[Record]) -> None:
        trained = [record for record in records if record["arm"] != BASE]
        self.adapters = tuple(sorted({str(r["adapter"]) for r in trained}, key=_by_length))
        self._found: dict[tuple[str, str, int], dict[Cell, Record]] = defaultdict(dict)
        for record in records:
            adapters = self.adapters if record["arm"] == BASE else [record["adapter"]]
            for adapter in adapters:
                group = self._found[adapter, record["arm"], record["step"]]
                group[record["style"], record["seed"]] = record
        self.groups = tuple(sorted(self._found))
        self.arms = tuple(sorted({str(record["arm"]) for record in trained}))
        self.steps = tuple(sorted({int(record["step"]) for record in trained}))
        self.cells = tuple(sorted({(r["style"], r["seed"]) for r in trained}))

    def group(self, adapter: str, arm: str, step: int) -> Mapping[Cell, Record]:
        return self._found.get((adapter, arm, step), {})

    def values(self, adapter: str, arm: str, step: int, metric: str) -> dict[Cell, float]:
        found = {c: _value(r, metric) for c, r in sorted(self.group(adapter, arm, step).items())}
        return {cell: value for cell, value in found.items() if value is not None}


def analyse(records: Sequence[Record], baselines: Sequence[str] | None = None) -> Analysis:
    """The analysis of a study.

    Args:
        records: of one study, as `reading.read_records` gives them.
        baselines: plain arms, the one of equal steps first. If None, all whose names start with
            "plain", "plain" itself first.

    Raises:
        InputError: no trained arm; an unknown baseline, or none.
    """
    cells = _Cells(records)
    if not cells.arms:
        raise InputError("records", "records of trained arms", "none", "Run the study.")
    plain = _baselines(cells.arms, baselines)
    means = tuple(_means(cells))
    step = _deciding(cells.steps, [one for one in means if one.arm == plain[0]])
    arms = _ranked(cells.arms, plain, [one for one in means if one.step == step])
    candidates = [arm for arm in arms if arm not in plain]
    compared = tuple(_comparisons(cells, candidates, plain, step, METRICS))
    rulings = tuple(_rulings(cells, candidates, plain, step, compared, means))
    found = Analysis(
        study=str(records[0]["study"]),
        step=step,
        styles=tuple(sorted({style for style, _ in cells.cells})),
        seeds=tuple(sorted({seed for _, seed in cells.cells})),
        adapters=cells.adapters,
        arms=arms,
        baselines=plain,
        answers=tuple(
            answer(
                adapter, [r for r in rulings if r.adapter == adapter], _by_key(compared, adapter)
            )
            for adapter in cells.adapters
        ),
        notes=(),
        budget=_budget(records),
        rulings=rulings,
        means=means,
        comparisons=compared,
        along=tuple(
            one
            for at in cells.steps
            for one in _comparisons(cells, candidates, plain, at, HEADLINES)
        ),
    )
    return replace(found, notes=notes(found))


def _deciding(steps: Sequence[int], plain: Sequence[Mean]) -> int:
    """See the top of the page; where no step leaves room, the last of those that come nearest.

    Args:
        plain: means of the baseline of equal steps, of all metrics, steps and adapters.
    """
    low, high = ROOM
    outside = {}
    for step in steps:
        hits = [m.value.value for m in plain if (m.metric, m.step) == (PRIMARY, step)]
        if hits:
            outside[step] = max(low - fmean(hits), fmean(hits) - high, 0.0)
    return min(outside, key=lambda step: (outside[step], -step)) if outside else steps[-1]


def _by_length(name: str) -> tuple[int, str]:
    """Puts what a longer name is made of before it."""
    return len(name), name


def _value(record: Record, metric: str) -> float | None:
    metrics = record["metrics"]
    if metric != "balanced":
        return metrics.get(metric)
    style, content = metrics.get(PRIMARY), metrics.get("content")
    return None if style is None or content is None else sqrt(style * content)


def _baselines(arms: Sequence[str], given: Sequence[str] | None) -> tuple[str, ...]:
    if given is None:
        plain = tuple(sorted((a for a in arms if a.startswith(_PLAIN)), key=_by_length))
    else:
        plain = tuple(given)
    unknown = [arm for arm in plain if arm not in arms]
    if unknown or not plain:
        got = ", ".join(unknown) or "none"
        raise InputError("baselines", f"some of the arms {', '.join(arms)}", got)
    return plain


def _ranked(arms: Sequence[str], plain: Sequence[str], means: Sequence[Mean]) -> tuple[str, ...]:
    """Baselines as given, then the others, the highest style hit rate first."""
    hits = {
        arm: [m.value.value for m in means if (m.arm, m.metric) == (arm, PRIMARY)] for arm in arms
    }
    others = [arm for arm in arms if arm not in plain]
    others.sort(key=lambda arm: -sum(hits[arm]) / max(len(hits[arm]), 1))
    return (*plain, *others)


def _by_style(values: Mapping[Cell, float]) -> dict[str, list[float]]:
    grouped: dict[str, list[float]] = {}
    for (style, _), value in values.items():
        grouped.setdefault(style, []).append(value)
    return grouped


def _means(cells: _Cells) -> Iterable[Mean]:
    for adapter, arm, step in cells.groups:
        for metric in METRICS:
            values = cells.values(adapter, arm, step, metric)
            if values:
                grouped = _by_style(values)
                value = mean_interval(grouped)
                yield Mean(adapter, arm, metric, step, value, len(grouped), len(values))


def _comparisons(
    cells: _Cells,
    candidates: Sequence[str],
    plain: Sequence[str],
    step: int,
    metrics: Iterable[str],
) -> Iterable[Comparison]:
    """Every candidate less every baseline, each family corrected."""
    judged = [metric for metric in metrics if METRICS[metric].better]
    for adapter in cells.adapters:
        for against in plain:
            for metric in judged:
                pairs = {
                    arm: _pairs(cells, adapter, (arm, against), step, metric) for arm in candidates
                }
                yield from _family(cells, adapter, against, metric, step, pairs)


def _pairs(
    cells: _Cells, adapter: str, arms: tuple[str, str], step: int, metric: str
) -> dict[Cell, float]:
    one, other = (cells.values(adapter, arm, step, metric) for arm in arms)
    return {cell: value - other[cell] for cell, value in one.items() if cell in other}


def _family(
    cells: _Cells,
    adapter: str,
    against: str,
    metric: str,
    step: int,
    pairs: Mapping[str, Mapping[Cell, float]],
) -> Iterable[Comparison]:
    """Of one adapter, metric and baseline: arms without a pair are no part of it."""
    grouped = {arm: _by_style(found) for arm, found in pairs.items() if found}
    means = {arm: style_means(values) for arm, values in grouped.items()}
    p_values = [p_value(of_styles) for of_styles in means.values()]
    for arm, p, p_holm in zip(means, p_values, holm(p_values), strict=True):
        yield Comparison(
            adapter=adapter,
            arm=arm,
            against=against,
            metric=metric,
            step=step,
            difference=mean_interval(grouped[arm]),
            p=p,
            p_holm=float(p_holm),
            effect=effect_size(means[arm]),
            detectable=detectable(means[arm], len(means)),
            by_style=dict(zip(grouped[arm], means[arm].tolist(), strict=True)),
            pairs=len(pairs[arm]),
            missing=len(cells.cells) - len(pairs[arm]),
        )


def _by_key(compared: Iterable[Comparison], adapter: str) -> dict[tuple[str, str, str], Comparison]:
    return {(c.arm, c.against, c.metric): c for c in compared if c.adapter == adapter}


def _rulings(
    cells: _Cells,
    candidates: Sequence[str],
    plain: Sequence[str],
    step: int,
    compared: Sequence[Comparison],
    means: Sequence[Mean],
) -> Iterable[Ruling]:
    for adapter in cells.adapters:
        keyed = _by_key(compared, adapter)
        seen = {arm: _pictures(cells.group(adapter, arm, step)) for arm in (*plain, *candidates)}
        there = [name for name in plain if seen[name]]
        drift = {
            m.arm: m.value.value
            for m in means
            if (m.adapter, m.metric, m.step) == (adapter, "drift", step)
        }
        for arm in candidates:
            if not seen[arm] or plain[0] not in there:
                continue
            nearest = min(there, key=lambda name: abs(log(seen[arm] / seen[name])))
            against = {STEPS: plain[0], PICTURES: nearest}
            yield rule_on(adapter, arm, against, seen[arm] / seen[nearest], keyed, drift)


def _pictures(group: Mapping[Cell, Record]) -> float:
    """Pictures seen in a cell that made all its steps; 0 where there is no record."""
    return float(max((r["pictures_seen"] for r in group.values()), default=0))


def _budget(records: Iterable[Record]) -> Budget:
    """Of every cell its last record."""
    last: dict[tuple[object, ...], Record] = {}
    for record in sorted((r for r in records if r["arm"] != BASE), key=lambda r: r["step"]):
        last[tuple(record[field] for field in ("style", "adapter", "arm", "seed"))] = record
    apart = Counter(f"{r['adapter']}, {r['arm']}" for r in last.values() if "fell_apart" in r)
    cores = {record.get("cores") for record in last.values()} - {None}
    seconds = float(sum(record["seconds"] for record in last.values()))
    passes = sum(record["passes"] for record in last.values())
    return Budget(len(last), seconds, passes, max(cores) if cores else None, dict(apart))
