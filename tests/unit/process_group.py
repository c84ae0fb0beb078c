"""Groups of real processes for tests: forked from a server that has the library loaded already."""

import multiprocessing
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import torch
from torch.distributed import TCPStore

HERE = Path(__file__).resolve().parent
LOADED = ["process_group", "process_works"]

torch.set_num_threads(1)  # before anything is computed: a pool of threads does not survive a fork


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def together(
    count: int, work: Callable, *given: object, port: int = 0, come: int | None = None
) -> list[int]:
    """Run `work(*given)` in so many processes at once, as torchrun would; their exit codes.

    Minus the signal where one was killed.

    Args:
        port: where they meet, held by none of them; by itself a free one, and a store that is held
            here, as a launcher holds it.
        come: how many of them are there at all.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LOADED)
    here = [str(HERE), str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(here)  # 3.11 does not tell the server sys.path
    told = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1"}
    told["MASTER_PORT"] = str(port or free_port())
    store = None
    if not port:
        told["TORCHELASTIC_USE_AGENT_STORE"] = "True"
        store = TCPStore("127.0.0.1", int(told["MASTER_PORT"]), None, True, wait_for_workers=False)
    members = [
        context.Process(target=_member, args=({**told, "RANK": str(rank)}, work, given))
        for rank in range(count if come is None else come)
    ]
    try:
        for member in members:
            member.start()
        for member in members:
            member.join(100)
    finally:
        del store
        os.environ["PYTHONPATH"] = here[-1]
        for member in members:
            if member.is_alive():
                member.kill()
    return [member.exitcode for member in members]


def _member(told: dict[str, str], work: Callable, given: tuple) -> None:
    os.environ.update(told)
    try:
        code = work(*given)
    except BaseException:
        traceback.print_exc()
        code = 70
    sys.stderr.flush()
    os._exit(code or 0)  # as nothing of the server's is to be cleaned up


def die() -> None:
    """As if the system had killed this process for its memory."""
    os.kill(os.getpid(), signal.SIGKILL)
