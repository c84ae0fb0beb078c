"""Which checkpoint is the best, and when training on is of no use."""

import math

import pytest

from nsync.evaluation.watch import Point, best_point, is_over


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
