"""The values of the reference implementations, for the tests to hold ours to.

For developers, seldom: the numbers are committed (tests/unit/agreement/formulas.json), and the
tests need none of the libraries. To make them anew::

    python3 -m venv agreement && agreement/bin/pip install torch numpy "scipy<1.18" scikit-learn
    agreement/bin/pip install torchmetrics==1.9.0 torch-fidelity==0.4.0 clean-fid==0.1.35 \
        pytorch-fid==0.3.0
    git clone https://github.com/sayakpaul/cmmd-pytorch
    git clone https://github.com/abdulfatir/gan-metrics-pytorch
    agreement/bin/python scripts/agreement/formulas.py cmmd-pytorch gan-metrics-pytorch

SciPy 1.18 took away the argument that three of them call `sqrtm` with.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import sys
import tempfile
import types
import warnings
from pathlib import Path

import cleanfid.fid
import numpy as np
import pytorch_fid.fid_score
import torch
import torch_fidelity.metric_fid
import torch_fidelity.metric_isc
import torch_fidelity.metric_kid
import torchmetrics.image.fid
import torchmetrics.image.kid
from features import features, logits, unit_features

RESULT = Path(__file__).parents[2] / "tests/unit/agreement/formulas.json"
LIBRARIES = (
    "torchmetrics",
    "torch-fidelity",
    "clean-fid",
    "pytorch-fid",
    "scipy",
    "numpy",
    "torch",
)
FID_CASES = (
    (8, 8, 2048),
    (20, 50, 2048),
    (100, 100, 2048),
    (300, 1000, 2048),
    (1000, 1200, 256),
    (3000, 3000, 512),
    (3000, 3000, 2048),
)
CHECKOUTS = {"cmmd-pytorch": "f7673a9", "gan-metrics-pytorch": "c56c62b"}


def main() -> None:
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cmmd", type=Path, help="checkout of cmmd-pytorch")
    parser.add_argument("gan_metrics", type=Path, help="checkout of gan-metrics-pytorch")
    arguments = parser.parse_args()
    gan = {name: _gan_metrics(arguments.gan_metrics, name) for name in ("fid_score", "kid_score")}
    result = {
        "versions": {name: importlib.metadata.version(name) for name in LIBRARIES} | CHECKOUTS,
        "fid": [_fid(*case) for case in FID_CASES],
        "kid": [_kid(n, width, gan["kid_score"]) for n, width in ((8, 64), (50, 2048), (200, 512))],
        "kid_subsets": _kid_subsets(),
        "inception_score": [_inception_score(n, splits) for n, splits in ((40, 1), (100, 10))],
        "cmmd": [_cmmd(n, m, arguments.cmmd) for n, m in ((8, 8), (20, 50), (100, 100))],
        "nsync": [_nsync(n, m) for n, m in ((1, 3), (20, 12))],
        "paper_fid": _paper_fid(gan["fid_score"]),
        "paper_kid": _paper_kid(gan["kid_score"]),
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def _pair(n: int, m: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    return features(1, n, width), features(2, m, width, 0.05)


def _fid(n: int, m: int, width: int) -> dict:
    print("FID", n, m, width, flush=True)
    moments = [(rows.mean(axis=0), np.cov(rows, rowvar=False)) for rows in _pair(n, m, width)]
    flat = [array for pair in moments for array in pair]
    named = [dict(zip(("mu", "sigma"), pair, strict=True)) for pair in moments]
    values = {
        "torch-fidelity": torch_fidelity.metric_fid.fid_statistics_to_metric(*named, False),
        "torchmetrics": torchmetrics.image.fid._compute_fid(*map(torch.from_numpy, flat)),
        "clean-fid": cleanfid.fid.frechet_distance(*flat),
        "pytorch-fid": pytorch_fid.fid_score.calculate_frechet_distance(*flat),
    }
    values["torch-fidelity"] = values["torch-fidelity"]["frechet_inception_distance"]
    return {"n": n, "m": m, "width": width} | {k: float(v) for k, v in values.items()}


def _torch_fidelity_kid(x: np.ndarray, y: np.ndarray, subsets: int, size: int) -> dict:
    return torch_fidelity.metric_kid.kid_features_to_metric(
        torch.from_numpy(x),
        torch.from_numpy(y),
        kid_subsets=subsets,
        kid_subset_size=size,
        kid_kernel="poly",
        kid_kernel_poly_degree=3,
        kid_kernel_poly_gamma=None,
        kid_kernel_poly_coef0=1,
        rng_seed=2020,
        verbose=False,
    )


def _kid(n: int, width: int, gan_metrics: types.ModuleType) -> dict:
    x, y = _pair(n, n, width)
    tensors = torch.from_numpy(x), torch.from_numpy(y)
    whole = {"n_subsets": 1, "subset_size": n, "ret_var": False}
    return {
        "n": n,
        "width": width,
        "torch-fidelity": _torch_fidelity_kid(x, y, 1, n)["kernel_inception_distance_mean"],
        "torchmetrics": float(torchmetrics.image.kid.poly_mmd(*tensors)),
        "clean-fid": cleanfid.fid.kernel_distance(x, y, num_subsets=1, max_subset_size=n),
        "gan-metrics": float(gan_metrics.polynomial_mmd_averages(x, y, **whole)[0]),
    }


def _kid_subsets() -> dict:
    found = _torch_fidelity_kid(*_pair(120, 150, 96), 20, 50)
    return {
        "mean": found["kernel_inception_distance_mean"],
        "std": found["kernel_inception_distance_std"],
    }


def _inception_score(n: int, splits: int) -> dict:
    rows = torch.from_numpy(logits(3, n, 1008))
    found = torch_fidelity.metric_isc.isc_features_to_metric(rows, splits, shuffle=False)
    return {"n": n, "splits": splits, "torch-fidelity": found["inception_score_mean"]}


def _cmmd(n: int, m: int, checkout: Path) -> dict:
    x, y = unit_features(1, n, 768), unit_features(2, m, 768, 0.05)
    mmd = _load(checkout / "distance.py", "distance").mmd
    return {
        "n": n,
        "m": m,
        "fp32": float(mmd(x.astype(np.float32), y.astype(np.float32))),
        "fp64": float(mmd(x, y)),
    }


def _nsync(n: int, m: int) -> dict:
    """The steps of NSYNC's src/metrics/calculate_csd.py, in float32 as there."""
    x = torch.from_numpy(unit_features(1, n, 768)).float()
    y = torch.from_numpy(unit_features(2, m, 768, 0.05)).float()
    each = torch.nn.CosineSimilarity(dim=1, eps=1e-6)(x.mean(dim=0, keepdim=True), y)
    return {"n": n, "m": m, "mean": float(each.mean())}


def _paper_fid(gan_metrics: types.ModuleType) -> dict:
    x, y = _pair(12, 15, 32)
    sets = {"x.npy": x, "y.npy": y}
    np.random.seed(5)  # The original draws from here.
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(Path(folder) / name) for name in sets]
        for path, rows in zip(paths, sets.values(), strict=True):
            np.save(path, rows)
        gan_metrics._compute_activations = lambda rows, *_: rows
        (_, mean, std), *_ = gan_metrics.calculate_fid_given_paths(paths, 1, False, 32)
    return {"mean": float(mean), "std": float(std)}


def _paper_kid(gan_metrics: types.ModuleType) -> dict:
    np.random.seed(5)
    values = gan_metrics.polynomial_mmd_averages(
        *_pair(12, 15, 32), n_subsets=100, subset_size=12, ret_var=False
    )
    return {"mean": float(values.mean()), "std": float(values.std())}


def _gan_metrics(checkout: Path, name: str) -> types.ModuleType:
    """One of its scripts, with the networks that it imports left out."""

    class InceptionV3:
        BLOCK_INDEX_BY_DIM = {32: 0}  # noqa: RUF012

        def __init__(self, blocks: list[int]) -> None: ...

    for module, content in (("inception", InceptionV3), ("lenet", None)):
        stub = types.ModuleType(f"models.{module}")
        stub.InceptionV3, stub.LeNet5 = content, None
        sys.modules[f"models.{module}"] = stub
    sys.modules.setdefault("models", types.ModuleType("models"))
    return _load(checkout / f"{name}.py", name)


def _load(path: Path, name: str) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location(f"reference_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main()
