"""What the terminal shows while a command works."""

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from ..launched import launch
from ..runs.log import POSITIVE
from ..runs.parts import StepReport

TERMINAL_SECONDS, LOG_SECONDS = 0.1, 10.0
"""Between two looks of a bar, in a terminal and in a file."""


@contextmanager
def items(title: str, unit: str = "picture") -> Iterator[Callable[[int, int], None]]:
    """A bar, as a callback of (done, all); there is none before the first call."""
    with ExitStack() as stack:
        bars: list[tqdm] = []

        def report(done: int, total: int) -> None:
            if not bars:
                bar = _bar(desc=title, unit=unit, total=total, leave=False)
                bars.append(stack.enter_context(bar))
            bars[0].update(done - bars[0].n)
            if done >= total:
                stack.close()

        yield report


@contextmanager
def steps(
    title: str, total: int, headline: str = POSITIVE
) -> Iterator[Callable[[StepReport], None]]:
    """A bar over the steps of a run, with the time left and the loss; warnings above it.

    Args:
        headline: the log's name of the loss that is shown.
    """
    with logging_redirect_tqdm(), _bar(desc=title, unit="step", total=total) as bar:

        def report(told: StepReport) -> None:
            if not bar.n:
                bar.initial = bar.n = told.step - 1  # a run that goes on
            bar.set_postfix(loss=f"{told.values.get(headline, math.nan):.4f}", refresh=False)
            bar.update(told.step - bar.n)

        yield report


def _bar(**options: object) -> tqdm:
    """A bar of the process that leads; where nobody watches, in a job's log, a line at times."""
    seconds = TERMINAL_SECONDS if sys.stderr.isatty() else LOG_SECONDS
    return tqdm(**options, mininterval=seconds, maxinterval=seconds, disable=not launch().is_lead)
