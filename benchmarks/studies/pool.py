"""Processes of one thread each that run cells, and are ended when somebody stops waiting."""

import logging
import math
import multiprocessing
import signal
import time
import traceback
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait

import torch

from .records import Record

Task = Hashable
"""A cell to run, or what several cells share and is made first."""

Work = Callable[[Task], list[Record] | None]
"""Does a task; the records of a cell."""

_PATIENCE = 10  # seconds for a process to end by itself


@dataclass(frozen=True)
class Done:
    """A task that went well: how long it took, and the records of a cell."""

    seconds: float
    records: list[Record] = field(default_factory=list)


@dataclass
class _Worker:
    """A process, the line to it, and what it is doing."""

    process: multiprocessing.Process
    line: Connection
    task: Task | None = None


class Pool:
    """Processes for one study; as a context it ends them, by their own ids, whatever happens.

    They are spawned, not forked: a fork of a process whose torch has threads may hang.

    Args:
        begin: called once in each process, and pickled for it; what it gives does the tasks.
        count: of processes.
    """

    def __init__(self, begin: Callable[[], Work], count: int) -> None:
        context, self._workers = multiprocessing.get_context("spawn"), []
        for _ in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs, begin), daemon=True)
            process.start()
            theirs.close()  # or the line would stay open when the process is gone
            self._workers.append(_Worker(process, ours))

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.line.close()
            if worker.task is not None:
                worker.process.terminate()
        for worker in self._workers:
            worker.process.join(_PATIENCE)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()

    def results(
        self, tasks: Iterable[Task], may_begin: Callable[[], bool], end: float = math.inf
    ) -> Iterator[tuple[Task, Done | str]]:
        """What becomes of the tasks, in the order in which they end; a text is a traceback.

        Args:
            may_begin: asked before each task.
            end: by `time.monotonic`; from then on nobody waits for what is still running.

        Raises:
            RuntimeError: a process ended by itself.
        """
        waiting = deque(tasks)
        while True:
            for worker in self._workers:
                if worker.task is None and waiting and may_begin():
                    worker.task = waiting.popleft()
                    worker.line.send(worker.task)
            busy = {worker.line: worker for worker in self._workers if worker.task is not None}
            left = max(0.0, end - time.monotonic())
            ready = wait(list(busy), None if left == math.inf else left) if busy else []
            if not ready:
                return
            for line in ready:
                yield _received(busy[line])


def _received(worker: _Worker) -> tuple[Task, Done | str]:
    task = worker.task
    try:
        result = worker.line.recv()
    except EOFError:
        worker.process.join(_PATIENCE)
        code = worker.process.exitcode
        raise RuntimeError(f"The process at {task} ended with code {code}") from None
    worker.task = None
    return task, result


def _work(line: Connection, begin: Callable[[], Work]) -> None:
    """A process: tasks come, results go, until the line is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: the first process sees to it
    logging.getLogger("nsync").setLevel(logging.ERROR)  # its warnings are meant for one run
    torch.set_num_threads(1)
    work = begin()
    while True:
        try:
            task = line.recv()
        except EOFError:
            return
        begun = time.monotonic()
        try:
            found = work(task)
        except Exception:  # told where it is seen; the other cells go on
            line.send(traceback.format_exc())
        else:
            line.send(Done(time.monotonic() - begun, found or []))
