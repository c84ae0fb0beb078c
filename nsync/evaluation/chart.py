"""Pictures of an evaluation: the chart with its table, and the sheet of the pictures themselves."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from torch import Tensor

from .plots import drawn, new_figure
from .result import ArmScores, Evaluation, Interval
from .table import table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = ("#2f6f8f", "#b5573c", "#5d7d3a", "#7a5a93", "#a07a1f", "#566270")
_INK, _PALE = "#222222", "#8a8a8a"
_SHOWN = 8  # pictures of an arm on the sheet


def chart(evaluation: Evaluation) -> Image.Image:
    """Style by arm, every picture a dot, between the base and the references; the table below."""
    lines = textwrap.wrap(evaluation.verdict, 130)
    count = len(evaluation.arms)
    height = 2.2 + 0.55 * count + 0.32 * (count + 2) + 0.22 * len(lines)
    width = max(10.0, _table_width(*table(evaluation)))
    figure = new_figure(figsize=(width, height), dpi=110, layout="constrained")
    top, bottom = figure.subplots(2, 1, height_ratios=[1.6 + 0.55 * count, 0.32 * (count + 2)])
    figure.suptitle("\n".join(lines), fontsize=10.5, x=0.01, ha="left", color=_INK)
    _style_axis(top, evaluation)
    _table_axis(bottom, evaluation)
    return drawn(figure)


def sheet(
    evaluation: Evaluation, references: Sequence[Tensor], arms: Mapping[str, Sequence[Tensor]]
) -> Image.Image:
    """References in the first row, each arm's pictures in one below, best first, with scores.

    Args:
        references: uint8 `[3, h, w]`, of any sizes.
        arms: such pictures by arm.
    """
    shown = [("references", list(references)[:_SHOWN], [""] * _SHOWN)]
    for arm in evaluation.arms:
        best = [arm.pictures[place] for place in ranked(arm)[:_SHOWN]]
        pictures = [arms[arm.name][one.index] for one in best]
        shown.append((arm.name, pictures, [f"#{p.index}  {p.style:.3f}" for p in best]))
    figure = new_figure(figsize=(1.35 * _SHOWN + 0.4, 1.8 * len(shown)), dpi=110)
    axes = figure.subplots(len(shown), _SHOWN, squeeze=False)
    figure.subplots_adjust(0.02, 0.01, 0.99, 0.94, 0.06, 0.3)
    for line, (name, pictures, words) in zip(axes, shown, strict=True):
        _row(line, name, pictures, words)
    return drawn(figure)


def curve(points: Mapping[str, Sequence[tuple[int, float]]], best: int | None) -> Image.Image:
    """Scores along the steps of a training, one panel each.

    Args:
        points: (step, value) by the score's name.
        best: the step that is kept, or None.
    """
    figure = new_figure(figsize=(5.2, 1.7 * len(points)), dpi=100, layout="constrained")
    panels = figure.subplots(len(points), 1, squeeze=False, sharex=True)[:, 0]
    for panel, (name, values), colour in zip(panels, points.items(), _COLOURS, strict=False):
        steps, heights = zip(*values, strict=True)
        panel.plot(steps, heights, marker="o", markersize=3.5, color=colour, linewidth=1.4)
        panel.set_ylabel(name, fontsize=9)
        if best is not None:
            panel.axvline(best, color=_PALE, linewidth=1, linestyle=":")
        _plain(panel)
    panels[-1].set_xlabel("step", fontsize=9)
    return drawn(figure)


def _style_axis(axis: Axes, evaluation: Evaluation) -> None:
    arms = evaluation.arms
    jitter = np.random.default_rng(0)
    for place, (arm, colour) in enumerate(zip(arms, _cycled(len(arms)), strict=True)):
        values = [picture.style for picture in arm.pictures]
        heights = place + jitter.uniform(-0.16, 0.16, len(values))
        axis.scatter(values, heights, s=11, color=colour, alpha=0.35, linewidths=0)
        _whisker(axis, arm.style, place, colour)
    _line(axis, evaluation.ceiling.value, "references")
    if evaluation.floor is not None:
        _line(axis, evaluation.floor, "baseline")
    axis.set_yticks(range(len(arms)), [f"{arm.name} ({len(arm.pictures)})" for arm in arms])
    axis.set_ylim(len(arms) - 0.5, -0.7)
    encoder = evaluation.encoders["style"]["name"]
    axis.set_xlabel(f"style similarity to the references ({encoder}, mean and 95 % interval)")
    _plain(axis)


def _whisker(axis: Axes, style: Interval, place: int, colour: str) -> None:
    if style.low is not None and style.high is not None:
        axis.plot([style.low, style.high], [place, place], color=colour, linewidth=3)
    axis.plot([style.value], [place], marker="D", markersize=7, color=colour, mec="white")


def _line(axis: Axes, place: float, name: str) -> None:
    axis.axvline(place, color=_PALE, linewidth=1, linestyle="--")
    axis.text(place, -0.68, f" {name}", fontsize=8, color=_PALE, va="top")


def _table_width(captions: Sequence[str], rows: Sequence[Sequence[str]]) -> float:
    """In inches, with room to spare: 8 point digits are 0.07 wide."""
    columns = zip(captions, *rows, strict=True)
    widest = [max(len(line) for text in cells for line in text.split("\n")) for cells in columns]
    return sum(0.07 * length + 0.22 for length in widest) + 0.4


def _table_axis(axis: Axes, evaluation: Evaluation) -> None:
    axis.axis("off")
    captions, rows = table(evaluation)
    made = axis.table(cellText=rows, colLabels=captions, loc="center", cellLoc="center")
    made.auto_set_font_size(False)
    made.set_fontsize(8)
    made.auto_set_column_width(list(range(len(captions))))
    for cell in made.get_celld().values():
        cell.set_edgecolor("#dddddd")
        cell.set_height(0.9 / (len(rows) + 1))


def _row(axes: Sequence[Axes], name: str, pictures: Sequence[Tensor], words: Sequence[str]) -> None:
    for axis in axes:
        axis.axis("off")
    axes[0].text(0, 1.16, name, transform=axes[0].transAxes, fontsize=9, color=_INK)
    for axis, picture, text in zip(axes, pictures, words, strict=False):
        axis.imshow(picture.permute(1, 2, 0).numpy())
        axis.set_title(text, loc="left", fontsize=7, color=_PALE, pad=3)


def _plain(axis: Axes) -> None:
    axis.tick_params(labelsize=8.5, length=0)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
    axis.grid(axis="x", color="#eeeeee")
    axis.set_axisbelow(True)


def _cycled(count: int) -> list[str]:
    return [_COLOURS[i % len(_COLOURS)] for i in range(count)]


def ranked(arm: ArmScores) -> list[int]:
    """Indices of the arm's pictures, nearest to the style first."""
    return [one.index for one in sorted(arm.pictures, key=lambda picture: -picture.style)]
