"""Stopping a run that is stopping already."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def held_back() -> Iterator[None]:
    """For the block, Ctrl-C and SIGTERM are not heard: what was learned is being saved.

    A launcher sends SIGTERM to all processes as soon as one of them has gone, which is when the
    lead has begun to save. Signals reach the main thread only; in another there is nothing to do.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, signal.SIG_IGN)
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:  # None: it was not set from Python
                signal.signal(number, handler)
