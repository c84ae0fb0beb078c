"""Plots of a study: differences by arm, curves along the steps, style against its price."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from PIL import Image

from nsync.evaluation.plots import drawn, new_figure
from nsync.evaluation.verdict import probability

from .result import BASE, METRICS, PRIMARY, Analysis, Comparison, Ruling

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = (
    "#2f6f8f", "#b5573c", "#5d7d3a", "#7a5a93", "#c28e0e", "#2a9d8f",
    "#d1495b", "#566270", "#8c564b", "#4361ee", "#9a8c98", "#bc6c25",
)  # fmt: skip
_INK, _PALE = "#222222", "#8a8a8a"
_SHOWN = {"better": "#3c7d3c", "worse": "#b5403c", "no difference shown": "#5b6b78"}
_DASHES = ("-", "--", ":", "-.")  # of the baselines
_ALONG = (PRIMARY, "content", "drift")
_PRICES = ("content", "drift")


def forest(found: Analysis) -> Image.Image:
    """Differences in style hit rate to plain training, a row per arm, a panel per adapter."""
    panels = len(found.adapters)
    candidates = [arm for arm in found.arms if arm not in found.baselines]
    size = (2.2 + 4.2 * panels, 1.3 + 0.46 * len(candidates))
    figure = new_figure(figsize=size, dpi=130, layout="constrained")
    for axis, adapter in zip(_axes(figure, 1, panels)[0], found.adapters, strict=True):
        for ruling in found.rulings:
            if ruling.adapter == adapter:
                _forest_row(axis, found, ruling, candidates.index(ruling.arm))
        axis.axvline(0, color=_INK, linewidth=1)
        names = candidates if adapter == found.adapters[0] else [""] * len(candidates)
        axis.set_yticks(range(len(candidates)), names)
        axis.set_ylim(len(candidates) - 0.4, -0.6)
        axis.set_title(adapter, loc="left", fontsize=10, color=_INK)
        axis.set_xlabel("style hit rate, arm less plain", fontsize=9)
        _plain(axis, "x")
    return drawn(figure)


def curves(found: Analysis) -> Image.Image:
    """Means along the steps, and below them the differences to plain at equal pictures."""
    rows, columns = 2 * len(found.adapters), len(_ALONG)
    size = (3.7 * columns, 2.5 * rows + 0.25 * _legend_rows(found))
    figure = new_figure(figsize=size, dpi=130, layout="constrained")
    axes = _axes(figure, rows, columns)
    for place, adapter in enumerate(found.adapters):
        for column, metric in enumerate(_ALONG):
            _mean_lines(axes[2 * place][column], found, adapter, metric)
            _difference_lines(axes[2 * place + 1][column], found, adapter, metric)
    _legend(figure, axes[0][0], found)
    return drawn(figure)


def exchange(found: Analysis) -> Image.Image:
    """Style hit rate against content and drift: each arm's way through both, step by step."""
    rows, columns = len(found.adapters), len(_PRICES)
    size = (5.4 * columns, 3.6 * rows + 0.25 * _legend_rows(found))
    figure = new_figure(figsize=size, dpi=130, layout="constrained")
    axes = _axes(figure, rows, columns)
    for line, adapter in zip(axes, found.adapters, strict=True):
        for axis, metric in zip(line, _PRICES, strict=True):
            _ways(axis, found, adapter, metric)
    _legend(figure, axes[0][0], found)
    return drawn(figure)


def _forest_row(axis: Axes, found: Analysis, ruling: Ruling, place: int) -> None:
    """Filled: at equal pictures, with a dot per style. Hollow, below: at equal steps."""
    pictures = found.comparison(ruling.adapter, ruling.arm, ruling.equal_pictures, PRIMARY)
    steps = found.comparison(ruling.adapter, ruling.arm, ruling.equal_steps, PRIMARY)
    if pictures:
        values = list(pictures.by_style.values())
        axis.scatter(values, [place - 0.1] * len(values), s=9, color=_PALE, alpha=0.5, linewidths=0)
        _whisker(axis, pictures, place - 0.1, filled=True)
        words, place_of_words = probability(pictures.p_holm), ("axes fraction", "data")
        axis.annotate(words, (1.01, place), xycoords=place_of_words, fontsize=7.5, color=_PALE,
                      va="center")  # fmt: skip
    if steps and ruling.equal_steps != ruling.equal_pictures:
        _whisker(axis, steps, place + 0.2, filled=False)


def _whisker(axis: Axes, one: Comparison, height: float, *, filled: bool) -> None:
    colour, ends = _SHOWN[one.shown], one.difference
    if ends.low is not None:
        width = 2.6 if filled else 1.2
        axis.plot([ends.low, ends.high], [height, height], color=colour, linewidth=width)
    face = colour if filled else "white"
    axis.plot([ends.value], [height], marker="D", markersize=6 if filled else 4.5, color=colour,
              markerfacecolor=face, markeredgecolor="white" if filled else colour)  # fmt: skip


def _mean_lines(axis: Axes, found: Analysis, adapter: str, metric: str) -> None:
    for arm in found.arms:
        steps, values = _way(found, adapter, arm, metric)
        axis.plot(steps, values, label=arm, **_look(found, arm))
    axis.set_title(f"{adapter}: {METRICS[metric].label}", loc="left", fontsize=9, color=_INK)
    if metric != "content":  # all of whose curves begin near 1
        axis.set_ylim(bottom=0)
    _plain(axis, "both")


def _difference_lines(axis: Axes, found: Analysis, adapter: str, metric: str) -> None:
    """With intervals, the arms a little apart, so that they do not hide each other."""
    rulings = [one for one in found.rulings if one.adapter == adapter]
    for place, ruling in enumerate(rulings):
        keys = (adapter, ruling.arm, ruling.equal_pictures, metric)
        rows = [c for c in found.along if (c.adapter, c.arm, c.against, c.metric) == keys]
        shift = 0.012 * found.step * (place - (len(rulings) - 1) / 2)
        steps = [row.step + shift for row in rows]
        colour = _look(found, ruling.arm)["color"]
        axis.plot(steps, [r.difference.value for r in rows], color=colour, linewidth=0.8, alpha=0.6)
        for step, row in zip(steps, rows, strict=True):
            _upright(axis, step, row, colour)
    axis.axhline(0, color=_INK, linewidth=1)
    axis.set_title("arm less plain at equal pictures", loc="left", fontsize=8, color=_PALE)
    axis.set_xlabel("step", fontsize=8.5)
    _plain(axis, "both")


def _upright(axis: Axes, step: float, row: Comparison, colour: str) -> None:
    ends = row.difference
    if ends.low is not None:
        axis.plot([step, step], [ends.low, ends.high], color=colour, linewidth=1.4)
    axis.plot([step], [ends.value], marker="o", markersize=3, color=colour)


def _ways(axis: Axes, found: Analysis, adapter: str, metric: str) -> None:
    for arm in found.arms:
        _, across = _way(found, adapter, arm, metric, base=True)
        _, up = _way(found, adapter, arm, PRIMARY, base=True)
        if len(across) != len(up) or not up:
            continue  # one of the two was not measured everywhere
        look = _look(found, arm)
        axis.plot(across, up, label=arm, **look)
        axis.plot(across[-1:], up[-1:], marker="D", markersize=6, color=look["color"], mec="white")
    axis.set_xlabel(METRICS[metric].label, fontsize=9)
    axis.set_ylabel(METRICS[PRIMARY].label, fontsize=9)
    end = "right" if METRICS[metric].better == "higher" else "left"
    title = f"{adapter}: better is up and to the {end}"
    axis.set_title(title, loc="left", fontsize=9, color=_INK)
    _plain(axis, "both")


def _way(
    found: Analysis, adapter: str, arm: str, metric: str, *, base: bool = False
) -> tuple[list[int], list[float]]:
    """Steps and means of an arm, from the untrained base on if wanted."""
    arms = {arm, BASE} if base else {arm}
    rows = [m for m in found.means if m.adapter == adapter and m.metric == metric and m.arm in arms]
    rows.sort(key=lambda mean: mean.step)
    return [mean.step for mean in rows], [mean.value.value for mean in rows]


def _look(found: Analysis, arm: str) -> Mapping[str, object]:
    if arm in found.baselines:
        dash = _DASHES[found.baselines.index(arm) % len(_DASHES)]
        return {"color": _INK, "linestyle": dash, "linewidth": 2, "marker": "o", "markersize": 3}
    place = found.arms.index(arm) - len(found.baselines)
    colour = _COLOURS[place % len(_COLOURS)]
    return {"color": colour, "linewidth": 1.5, "marker": "o", "markersize": 3}


def _legend(figure: Figure, axis: Axes, found: Analysis) -> None:
    handles, labels = axis.get_legend_handles_labels()
    columns = min(len(found.arms), 6)
    figure.legend(
        handles, labels, loc="outside lower left", ncols=columns, fontsize=8, frameon=False
    )


def _legend_rows(found: Analysis) -> int:
    return -(-len(found.arms) // 6)


def _axes(figure: Figure, rows: int, columns: int) -> Sequence[Sequence[Axes]]:
    return figure.subplots(rows, columns, squeeze=False)


def _plain(axis: Axes, grid: str) -> None:
    axis.tick_params(labelsize=8, length=0)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
    axis.spines["bottom"].set_color("#cccccc")
    axis.grid(axis=grid, color="#eeeeee")
    axis.set_axisbelow(True)
