"""Contrastive losses and gradients of pytorch-metric-learning, for the tests to hold ours to.

For developers, seldom: the numbers are committed (tests/unit/agreement/supcon.json). To make them
anew::

    pip install pytorch-metric-learning==2.9.0
    python scripts/agreement/supcon.py

It averages over all anchors, ours over those that have a positive: every label is there twice.
"""

import importlib.metadata
import json
from pathlib import Path

import torch
from features import features
from pytorch_metric_learning.losses import NTXentLoss, SupConLoss
from torch import Tensor, nn

RESULT = Path(__file__).parents[2] / "tests/unit/agreement/supcon.json"
CASES = ((6, 3, 0.1), (16, 5, 0.1), (16, 5, 0.07), (64, 10, 0.5), (64, 32, 1.0))
"""Items, classes, temperature."""
WIDTH = 24


def main() -> None:
    """Compute and write."""
    versions = {n: importlib.metadata.version(n) for n in ("pytorch-metric-learning", "torch")}
    found = {"versions": versions, "width": WIDTH, "cases": [_case(*case) for case in CASES]}
    RESULT.write_text(json.dumps(found) + "\n", encoding="utf-8")


def _case(items: int, classes: int, temperature: float) -> dict:
    labels, first, second = torch.arange(items) % classes, _rows(1, items), _rows(2, items)
    return {
        "items": items,
        "classes": classes,
        "temperature": temperature,
        "within": _value(SupConLoss(temperature), first, labels),
        "between": _value(SupConLoss(temperature), first, labels, second),
        "nt_xent": _value(NTXentLoss(temperature), torch.cat([first, second]), _twice(items)),
    }


def _rows(seed: int, items: int) -> Tensor:
    rows = torch.from_numpy(features(seed, items, WIDTH))
    return rows - rows.mean(0)


def _twice(items: int) -> Tensor:
    return torch.arange(items).repeat(2)


def _value(loss: nn.Module, rows: Tensor, labels: Tensor, others: Tensor | None = None) -> dict:
    """The loss, and the first numbers of its gradient."""
    given = rows.clone().requires_grad_()
    # A copy: where both labels are one object it takes both features for one, without diagonal.
    pairs = {} if others is None else {"ref_emb": others, "ref_labels": labels.clone()}
    value = loss(given, labels, **pairs)
    value.backward()
    return {"loss": value.item(), "gradient": given.grad[:3, :4].tolist()}


if __name__ == "__main__":
    main()
