"""Our formulas against the reference implementations' values (scripts/agreement/formulas.py)."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from agreement.features import features, logits, unit_features

from nsync.evaluation import (
    cmmd,
    frechet_distance,
    inception_score,
    kernel_distance,
    kernel_distance_subsets,
    style_similarity,
)
from nsync.evaluation.paper import bootstrapped_frechet, subset_kernel

FOUND = json.loads((Path(__file__).parent / "agreement/formulas.json").read_text())
SLOW = 2048 * 3000


def cases(name):
    def kind(case):
        slow = case.get("width", 0) * case["n"] >= SLOW
        return pytest.param(case, marks=[pytest.mark.slow] if slow else [], id=str(case["n"]))

    return pytest.mark.parametrize("case", [kind(case) for case in FOUND[name]])


def pair(n, m, width):
    return features(1, n, width), features(2, m, width, 0.05)


@cases("fid")
def test_fid(case):
    n, m, width = case["n"], case["m"], case["width"]
    ours = frechet_distance(*pair(n, m, width))
    full_rank = min(n, m) > width
    for library in ("torch-fidelity", "torchmetrics", "clean-fid", "pytorch-fid"):
        if full_rank:
            assert ours == pytest.approx(case[library], rel=1e-6)
        else:
            assert ours == pytest.approx(case[library], abs=2e-3)


@cases("kid")
def test_kid(case):
    ours = kernel_distance(*pair(case["n"], case["n"], case["width"]))
    for library in ("torch-fidelity", "torchmetrics", "clean-fid", "gan-metrics"):
        assert ours == pytest.approx(case[library], abs=1e-12)


def test_kid_in_subsets():
    mean, spread = kernel_distance_subsets(*pair(120, 150, 96), subsets=20, subset_size=50)
    assert mean == pytest.approx(FOUND["kid_subsets"]["mean"], abs=1e-12)
    assert spread == pytest.approx(FOUND["kid_subsets"]["std"], abs=1e-12)


@cases("inception_score")
def test_inception_score(case):
    probabilities = torch.from_numpy(logits(3, case["n"], 1008)).softmax(dim=1)
    ours = inception_score(probabilities, splits=case["splits"])
    assert ours == pytest.approx(case["torch-fidelity"], abs=1e-10)


@cases("cmmd")
def test_cmmd(case):
    x, y = unit_features(1, case["n"], 768), unit_features(2, case["m"], 768, 0.05)
    assert cmmd(x, y, unbiased=False) == pytest.approx(case["fp64"], abs=1e-9)
    in_half_the_bits = cmmd(x.astype(np.float32), y.astype(np.float32), unbiased=False)
    assert in_half_the_bits == pytest.approx(case["fp32"], abs=5e-4)


@cases("nsync")
def test_nsync_form(case):
    x, y = unit_features(1, case["n"], 768), unit_features(2, case["m"], 768, 0.05)
    assert style_similarity(x, y, "nsync").mean() == pytest.approx(case["mean"], abs=1e-6)


def test_fid_and_kid_as_the_papers_code_gives_them():
    sets = pair(12, 15, 32)
    for found, ours in (
        (FOUND["paper_fid"], bootstrapped_frechet(*sets, seed=5)),
        (FOUND["paper_kid"], subset_kernel(*sets, seed=5)),
    ):
        assert ours[0] == pytest.approx(found["mean"], rel=1e-4)
        assert ours[1] == pytest.approx(found["std"], rel=1e-4)
