"""What early stop by drift would have kept."""

import math

import pytest
from stylebench_records import record

from benchmarks.stylebench.stopping import as_markdown, stopped


def run(style, seed, drifts, arm="plain"):
    """Records every 10 steps; the hit rate is a hundredth of the step."""
    return [
        record(style, arm, seed, step, style_hit=step / 100, content=1 - step / 100, drift=drift)
        for step, drift in zip(range(10, 100, 10), drifts, strict=False)
    ]


def base(style, seed):
    return record(style, "base", seed, 0, adapter="embedding", style_hit=0, content=1, drift=0)


def test_the_last_look_before_the_bound_is_kept():
    records = [base("a", 1), *reversed(run("a", 1, [0.1, 0.3, 0.2]))]
    found = stopped(records, [0.05, 0.1, 0.25, 0.3, math.inf])
    assert [one.step for one in found] == [0, 10, 10, 30, 30]
    assert [one.early for one in found] == [1, 1, 1, 0, 0]
    assert [one.style_hit for one in found] == [0, 0.1, 0.1, 0.3, 0.3]
    assert [one.drift for one in found] == [0, 0.1, 0.1, 0.2, 0.2]
    assert {one.cells for one in found} == {1}


def test_styles_count_alike_however_many_seeds_they_have():
    records = [base("a", 1), base("b", 1), base("b", 2)]
    records += run("a", 1, [0.1, 0.1]) + run("b", 1, [0.1, 0.9]) + run("b", 2, [0.9, 0.1])
    records += run("a", 1, [0.9], arm="other")
    plain, other = stopped(records, [0.5])
    assert (plain.early, plain.cells, other.early, other.cells) == (2, 3, 1, 1)
    assert plain.step == pytest.approx((20 + (10 + 0) / 2) / 2)
    assert plain.content == pytest.approx((0.8 + (0.9 + 1) / 2) / 2)
    row = as_markdown([plain]).splitlines()[-1]
    assert row == "| plain (LoRA) | 0.5 | 2 of 3 | 12 | 0.125 | 0.875 | 0.0750 |"
