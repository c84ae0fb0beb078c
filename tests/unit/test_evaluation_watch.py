"""Which checkpoint is the best, and when training on is of no use."""

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from nsync.denoiser import SamplerSettings
from nsync.errors import InputError
from nsync.evaluation.drawing import Comparison
from nsync.evaluation.watch import Point, StyleWatch, best_point, is_over


def points(*rows: tuple[float, float, float]) -> list[Point]:
    """(style, error, drift) after 0, 100, 200, ... steps."""
    return [Point(100 * place, *row, None) for place, row in enumerate(rows)]


@pytest.mark.parametrize(
    ("rows", "step"),
    [
        ([(0.9, 0, 0)], None),  # the base alone
        ([(0.9, 0, 0), (0.1, 0.1, 0.5)], 100),  # the base is no checkpoint
        ([(0, 0, 0), (0.5, 0.1, 0.1), (0.8, 0.1, 0.2), (0.7, 0.1, 0.3)], 200),
        ([(0, 0, 0), (0.75, 0.1, 0.1), (0.8, 0.1, 0.2), (0.7, 0.1, 0.3)], 100),  # within one error
        ([(0, 0, 0), (0.7, 0.1, 0.1), (0.8, 0.09, 0.2)], 200),  # just outside
        ([(0, 0, 0), (0.8, 0.1, 0.2), (0.8, 0.1, 0.2)], 100),  # a tie: the earlier
        ([(0, 0, 0), (0.75, 0.1, math.nan), (0.8, 0.1, 0.2)], 200),  # an unknown drift
        ([(0, 0, 0), (0.75, 0.1, math.nan), (0.8, 0.1, math.nan)], 100),
    ],
)
def test_the_best_checkpoint(rows: list, step: int | None) -> None:
    best = best_point(points(*rows))
    assert (best and best.step) == step


@pytest.mark.parametrize(
    ("styles", "patience", "over"),
    [
        ([0.5, 0.4, 0.3], 0, False),
        ([0.5], 1, False),
        ([0.5, 0.5], 1, True),
        ([0.5, 0.6], 1, False),
        ([0.5, 0.4, 0.6], 2, False),
        ([0.5, 0.4, 0.5], 2, True),
        ([0.5, 0.6, 0.4], 2, False),
    ],
)
def test_when_it_is_over(styles: list[float], patience: int, over: bool) -> None:
    found = points((0.9, 0, 0), *((style, 0.1, 0.1) for style in styles))
    assert is_over(found, patience) is over


COMPARISON = Comparison(
    ("a red circle",), "sks", "{caption}, {token}", 0, 1, (64, 64), SamplerSettings(), drift=True
)


def watch(folder: Path, comparison: Comparison = COMPARISON, **encoder: str) -> StyleWatch:
    facts = {"identity": "a", "preprocessing": "p", "precision": "fp32", **encoder}
    encoders = [SimpleNamespace(name="ruler", **facts)]
    references = [torch.zeros(3, 64, 64, dtype=torch.uint8)]
    return StyleWatch(
        comparison, None, references, encoders, folder, folder, None, print, print, patience=3
    )


@pytest.mark.parametrize(
    ("comparison", "encoder", "names"),
    [
        (replace(COMPARISON, captions=("a red circle", "a ring")), {}, "captions"),
        (replace(COMPARISON, seed=1), {}, "seed"),
        (replace(COMPARISON, sampler=SamplerSettings(steps=5)), {}, "sampler"),
        (COMPARISON, {"identity": "b"}, "encoders"),
    ],
)
def test_scores_of_another_scale_are_not_gone_on_with(
    tmp_path: Path, comparison: Comparison, encoder: dict[str, str], names: str
) -> None:
    first = watch(tmp_path)
    first.begin([])
    first.begin([])
    with pytest.raises(InputError, match=f"other {names}"):
        watch(tmp_path, comparison, **encoder)


def test_the_card_changes_no_scale(tmp_path: Path) -> None:
    watch(tmp_path).begin([])
    row = {"step": 10, "style": 0.5, "style_error": 0.1, "drift": 0.2}
    again = watch(tmp_path, precision="fp16")
    again.begin([row])
    assert again.points == [Point(10, 0.5, 0.1, 0.2, None)]
