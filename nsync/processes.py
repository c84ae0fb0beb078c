"""The processes that share a work: torch.distributed between them, or one process by itself.

Whoever starts them (torchrun, accelerate launch) tells each its place in the environment; `joined`
makes a group of them. What they exchange is small: one vector per step, a word now and then.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from .errors import InputError
from .launched import Launch, OneSidedError, launch
from .runs.log import RunStoppedError

PATIENCE = timedelta(hours=1)
"""How long one waits for another: longer than a preview or an export by the lead may take."""
MEETING = timedelta(minutes=5)
"""How long all have to come together at the start."""
GRACE = timedelta(seconds=10)
"""How far processes that meet the same bad input may lie apart."""

T = TypeVar("T")


class ProcessLostError(RunStoppedError):
    """Another process of the group has stopped, so that this one cannot go on."""


@dataclass(frozen=True)
class Processes:
    """This process among those that work together; one alone needs no torch.distributed.

    All of them have to make the same calls in the same order. Each method but `mine` raises
    `ProcessLostError` where another process has stopped.

    Attributes:
        rank: 0 .. count - 1; 0 leads: it alone writes files and tells what happens.
        count: of the processes.
    """

    rank: int = 0
    count: int = 1

    @property
    def is_lead(self) -> bool:
        """Whether this process writes the files and tells what happens."""
        return self.rank == 0

    @property
    def share(self) -> slice:
        """Which of any items, in an order that all know, are this process's."""
        return slice(self.rank, None, self.count)

    def mine(self, items: Sequence[T]) -> Sequence[T]:
        """This process's share of the items, which may be one less than another's."""
        return items[self.share]

    def summed(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The tensors' sums over all processes, in one all-reduce of them side by side.

        Args:
            tensors: of one dtype, on one device, in shapes that are the same in all processes.

        Returns:
            The same bits in all processes.
        """
        if self.count == 1:
            return list(tensors)
        whole = torch.cat([tensor.reshape(-1) for tensor in tensors])
        with self._heard():
            dist.all_reduce(whole)
        parts = whole.split([tensor.numel() for tensor in tensors])
        return [part.view(one.shape) for part, one in zip(parts, tensors, strict=True)]

    def told(self, flags: Sequence[bool]) -> list[bool]:
        """The lead's flags, whatever this process thinks; as many in all processes."""
        if self.count == 1:
            return list(flags)
        word = torch.tensor(flags, dtype=torch.uint8)
        with self._heard():
            dist.broadcast(word, 0)
        return word.bool().tolist()

    def wait(self) -> None:
        """Return when all processes have come here."""
        self._texts("")

    def check_same(self, name: str, text: str) -> None:
        """Raise `InputError` in all processes, unless all have come here with the same text.

        Args:
            name: what the text tells, as the user knows it.
        """
        found = self._texts(text)
        other = [rank for rank, digest in enumerate(found) if digest != found[0]]
        if other:
            raise InputError(
                name,
                f"the same in all {self.count} processes",
                f"another in process {', '.join(map(str, other[:8]))} than in process 0",
                "Give all machines the same files, and one output folder that all of them see.",
            )

    def _texts(self, text: str) -> list[bytes]:
        """A digest of each process's text."""
        digest = hashlib.sha256(text.encode()).digest()
        if self.count == 1:
            return [digest]
        found = torch.empty(self.count * len(digest), dtype=torch.uint8)
        with self._heard():
            dist.all_gather_into_tensor(found, torch.tensor(list(digest), dtype=torch.uint8))
        return [bytes(one.tolist()) for one in found.split(len(digest))]

    @contextmanager
    def _heard(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ProcessLostError(
                f"Process {self.rank} of {self.count}: another process of this work has stopped "
                f"or cannot be reached ({reason[:200]}). The same command goes on from what is "
                "kept, with as many processes as you like."
            ) from error


ONE = Processes()
"""A process by itself."""


@contextmanager
def joined() -> Iterator[Processes]:
    """For the block, the group of the processes that were started together, or `ONE`.

    Each of them computes on the GPU of its number on its machine, where there are GPUs.

    Raises:
        InputError: the port on which they meet is taken, or not all of them came.
        OneSidedError: in place of an `InputError` of the block that the first process of this
            machine has not met as well.
    """
    here = launch()
    if here.count == 1:
        yield ONE
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(here.local_rank % torch.cuda.device_count())
    store = _meet(here)
    try:
        yield Processes(here.rank, here.count)
    except InputError as error:
        # Before the group ends, or the others would be stopped before this is known.
        if _is_one_sided(store, here):
            raise OneSidedError(error.name, error.expected, error.got, error.remedy) from error
        raise
    finally:
        dist.destroy_process_group()


def check_device(device: torch.device, key: str = "model.device") -> None:
    """Raise `InputError`, which names the key, where processes of this machine share a GPU."""
    count = launch().local_count
    if device.type == "cuda" and count > torch.cuda.device_count():
        wanted = f"a GPU for each of the {count} processes on this machine"
        remedy = f"Start as many processes as there are GPUs, or set `{key}` to cpu."
        raise InputError(key, wanted, str(torch.cuda.device_count()), remedy)


def _is_one_sided(store: "dist.Store", here: Launch) -> bool:
    if here.local_rank == 0:
        store.set(f"bad input {here.rank}", "")
        return False
    try:
        store.wait([f"bad input {here.rank - here.local_rank}"], GRACE)
    except dist.DistStoreError:  # it did not come
        return True
    except RuntimeError:  # the store is gone, and the process that held it
        return False
    return False


def _meet(here: Launch) -> "dist.Store":
    if not dist.is_available():
        remedy = "Start it without a launcher, or install another build of torch."
        raise InputError("WORLD_SIZE", "a torch with torch.distributed", "one without", remedy)
    from torch.distributed.rendezvous import rendezvous  # which only such a torch has

    # Both, since a model may be on the CPU of a machine with GPUs.
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    address = f"{os.environ.get('MASTER_ADDR', '?')}:{os.environ.get('MASTER_PORT', '?')}"
    try:
        store, rank, count = next(rendezvous("env://", timeout=MEETING))
        store.set_timeout(MEETING)
        dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=PATIENCE)
        return store
    except (RuntimeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        if "EADDRINUSE" in str(error):
            reason = "the port is in use by another program"
        raise InputError(
            "MASTER_PORT",
            f"all {here.count} processes to meet at {address}",
            f"{type(error).__name__} in process {here.rank}: {reason[:200]}",
            "Choose a free port (torchrun: --master-port, or --standalone on one machine; "
            "accelerate launch: --main_process_port).",
        ) from error
