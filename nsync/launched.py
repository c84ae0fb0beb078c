"""How many processes were started together, as torchrun and accelerate tell each of them.

Both say it in the environment (`RANK`, `WORLD_SIZE`, `LOCAL_RANK`, `LOCAL_WORLD_SIZE`). Nothing
heavy is imported here, so that a command can ask before it begins.
"""

import os
from dataclasses import dataclass

from .errors import InputError


class OneSidedError(InputError):
    """Bad input that the first process of this machine has not met, so that this one tells it."""


@dataclass(frozen=True)
class Launch:
    """One of `count` processes, `local_count` of them on this machine.

    Attributes:
        rank: 0 .. count - 1; 0 leads: it alone writes and speaks.
        count: processes in all.
        local_rank, local_count: the same of those on this machine.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    local_count: int = 1

    @property
    def is_lead(self) -> bool:
        """Whether this process writes the files and tells what happens."""
        return self.rank == 0


def launch() -> Launch:
    """What the launcher says; one process where there is none.

    Raises:
        InputError: the environment says something that cannot be.
    """
    count = _number("WORLD_SIZE", 1)
    if count == 1:
        return Launch()
    rank = _number("RANK", 0)
    found = Launch(rank, count, _number("LOCAL_RANK", rank), _number("LOCAL_WORLD_SIZE", count))
    if not (0 <= found.rank < count and 0 <= found.local_rank < found.local_count <= count):
        told = f"RANK {rank}, WORLD_SIZE {count}, LOCAL_RANK {found.local_rank}, "
        told += f"LOCAL_WORLD_SIZE {found.local_count}"
        raise InputError("WORLD_SIZE", "ranks from 0 up, below their count", told)
    return found


def _number(name: str, otherwise: int) -> int:
    told = os.environ.get(name, "")
    if told and not told.isdecimal():
        raise InputError(name, "a whole number, as torchrun sets it", repr(told))
    return int(told) if told else otherwise
