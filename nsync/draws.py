"""Random draws that depend on what they are for, never on what was drawn before.

A resumed run, another batch size or another number of processes sees the same numbers, because
each draw has a generator of its own, seeded from (seed, step, branch, item).
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def derive_seed(seed: int, *keys: int | str) -> int:
    """A 63-bit seed from `seed` and the keys that name a draw (step, branch, item, purpose)."""
    text = "\x1f".join(map(str, (seed, *keys)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *keys: int | str) -> torch.Generator:
    """A CPU generator for the draw named by `keys`; CPU, so that every device sees one noise."""
    return torch.Generator().manual_seed(derive_seed(seed, *keys))


@contextmanager
def seeded(seed: int, *keys: int | str) -> Iterator[None]:
    """For the block, what draws from torch's own state on the CPU draws what the keys name.

    Modules fill their new weights from that state and take no generator. Afterwards it is as it
    was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed(seed, *keys))
        yield
