"""The paper plan of many processes: its bytes are those of a real exchange, its times add up."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from small_runs import QUICK, run
from tiny_denoiser import WIDTH, WORDS, TinyNetwork
from torch import Tensor

from benchmarks.scaling import BRANCHES, Family, Given, Size, exchange, on_paper, passes, size_of
from nsync.processes import Processes

GIVEN = Given(
    rank=2, pictures=2, whole=16, rate=100.0, inside=100.0, link=10.0, latency=5.0, machine=8
)
LARGE = Size("large", 100_000_000, 1_000_000_000_000)


@dataclass(frozen=True)
class Watched(Processes):
    """One process that counts what it would send."""

    sent: list = field(default_factory=list)

    def summed(self, tensors: list[Tensor]) -> list[Tensor]:
        self.sent.append(sum(tensor.nbytes for tensor in tensors))
        return super().summed(tensors)


def tiny_inputs() -> dict[str, object]:
    states = torch.empty(1, WORDS, WIDTH)
    return {"noisy": torch.empty(1, 4, 4, 4), "times": torch.empty(1), "states": states}


def test_the_bytes_are_those_that_a_run_sends(tmp_path: Path) -> None:
    """Three branches, and beside them the losses of two items each."""
    processes = Watched()
    run(tmp_path, replace(QUICK, steps=2), processes=processes)
    size = size_of(Family("tiny", TinyNetwork, tiny_inputs), QUICK.rank)
    assert processes.sent == [BRANCHES * (size.gradient + 4 * QUICK.batch)] * 2


def test_operations_are_counted() -> None:
    """Convolutions of 3 x 3 and four linear layers of the tiny network, by hand."""
    size = size_of(Family("tiny", TinyNetwork, tiny_inputs), 2)
    ends = 2 * 2 * 9 * 4 * WIDTH * 16
    projections = 2 * WIDTH * WIDTH * (16 + WORDS + WORDS + 16)
    looks = 2 * 2 * 16 * WORDS * WIDTH
    assert size.forward == pytest.approx(ends + projections + looks, rel=0.02)


def test_times_are_volume_over_bandwidth_and_hops() -> None:
    assert exchange(LARGE, GIVEN, 1) == 0
    two, eight, many = (exchange(LARGE, GIVEN, count) for count in (2, 8, 1024))
    assert two == pytest.approx(3e8 / 100e9 + 2 * 5e-6)
    assert eight == pytest.approx(2 * 7 / 8 * 3e8 / 100e9 + 6 * 5e-6)
    assert many == pytest.approx(2 * 1023 / 1024 * 3e8 / 10e9 + 20 * 5e-6)
    assert passes(LARGE, GIVEN, 2) == pytest.approx(2 * 3 * 2 * 1e12 / 100e12)


def test_the_table_stops_where_pictures_do() -> None:
    rows = [line for line in on_paper(LARGE, GIVEN).splitlines() if line.startswith("| ")]
    cells = {row.split("|")[1].strip(): row.split("|") for row in rows}
    assert cells["16"][-2].strip() != "-"
    assert cells["32"][-2].strip() == "-"
    own, sent = passes(LARGE, GIVEN, 2), exchange(LARGE, GIVEN, 16)
    assert cells["16"][3].strip() == f"{own / (own + sent):.1%}"
    fixed = passes(LARGE, GIVEN, 16) / (passes(LARGE, GIVEN, 1) + sent)
    assert cells["16"][-2].strip() == f"{fixed:.1f} x ({fixed / 16:.0%})"
