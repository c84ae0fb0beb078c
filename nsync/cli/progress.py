"""What the terminal shows while a command works."""

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from ..launched import launch
from ..runs.log import POSITIVE
from ..runs.parts import StepReport


@contextmanager
def items(title: str, unit: str = "picture") -> Iterator[Callable[[int, int], None]]:
    """A bar, as a callback of (done, all); there is none before the first call."""
    with ExitStack() as stack:
        bars: list[tqdm] = []

        def report(done: int, total: int) -> None:
            if not bars:
                silent = not launch().is_lead
                bar = tqdm(desc=title, unit=unit, total=total, leave=False, disable=silent)
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
    options = {"desc": title, "unit": "step", "total": total, "disable": not launch().is_lead}
    with logging_redirect_tqdm(), tqdm(**options) as bar:

        def report(told: StepReport) -> None:
            if not bar.n:
                bar.initial = bar.n = told.step - 1  # a run that goes on
            bar.set_postfix(loss=f"{told.values.get(headline, math.nan):.4f}", refresh=False)
            bar.update(told.step - bar.n)

        yield report
