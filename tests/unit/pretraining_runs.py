"""Short pretrainings for the tests."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from supcon_sets import flags, small

from nsync.runs.parts import TrainResult
from nsync.supcon.encoder_file import save_encoders
from nsync.supcon.encoders import Encoders
from nsync.supcon.learner import ModulesLearned
from nsync.supcon.pretrain_settings import PretrainSettings
from nsync.supcon.pretraining import ENCODERS, pretrain

SHORT = PretrainSettings(
    steps=6, batch=4, learning_rate=1e-2, warmup=2, validation=5, validate_every=4, save_every=2
)
FLAGS = flags(20)


def exporter(encoders: Encoders, folder: Path) -> Callable[[ModulesLearned, int], dict[str, Path]]:
    """Writes the trained pair as a file."""

    def export(learned: ModulesLearned, steps: int) -> dict[str, Path]:
        path = folder / f"pair_{steps}.safetensors"
        save_encoders(path, encoders, title="flags", learned=learned[ENCODERS])
        return {ENCODERS: path}

    return export


def run_pretraining(
    folder: Path, settings: PretrainSettings = SHORT, encoders: Encoders | None = None, **given
) -> TrainResult:
    """Pretrain in `folder`/run, on flags unless another set is given."""
    style_set = given.pop("style_set", FLAGS)
    encoders = encoders or small(style_set)
    usual = {"export": exporter(encoders, folder)}
    return pretrain(settings, encoders, style_set, folder / "run", **(usual | given))


def with_contrast(name: str) -> PretrainSettings:
    return replace(SHORT, contrast=name)
