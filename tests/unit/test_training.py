"""The loop: same seed same run, nothing lost when it stops, bad input told before any work."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from denoisers import SmallDenoiser, small_set
from torch import Tensor

from nsync.errors import InputError
from nsync.rules import RULES
from nsync.settings import TrainSettings
from nsync.training import NonFiniteError, StepReport, TrainResult, train

QUICK = TrainSettings(steps=3, rank=4, alpha=4.0, learning_rate=1e-2, warmup=0, preview_every=0)


class Exports:
    """Stands for the writer of files: remembers what it was given."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.kept = folder, []

    def __call__(self, weights: dict[str, Tensor], steps: int) -> Path:
        self.kept.append((weights, steps))
        return self.folder / f"lora_{steps}.safetensors"


def run(folder: Path, settings: TrainSettings = QUICK, **kwargs) -> TrainResult:
    denoiser = kwargs.pop("denoiser", None) or SmallDenoiser()
    style_set = kwargs.pop("style_set", None) or small_set(folder / "set")
    export = kwargs.pop("export", None) or Exports(folder)
    return train(settings, denoiser, style_set, folder / "run", export, **kwargs)


def records(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "run" / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_trains_and_logs(tmp_path: Path, rule: str) -> None:
    result = run(tmp_path, replace(QUICK, rule=rule))
    assert len(result.losses) == len(records(tmp_path)) == 3
    assert all(w.dtype == torch.float32 for w in result.weights.values())
    assert all(result.weights[name].any() for name in result.weights)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert TrainSettings(**config["settings"]) == replace(QUICK, rule=rule)
