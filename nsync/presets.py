"""Settings by the memory of a card, and those of the paper, each under one name.

What a preset does not mention stays as it was set. `docs/benchmarks.md` has each one's peak memory.
"""

from dataclasses import replace

from .settings import EMBEDDING, FUSED, SEQUENTIAL, TrainSettings

AS_SET = "as set"

# arXiv 2511.01517, by the authors' code (src/config.py): textual inversion on SD1.5 at 512 px, 2
# pictures per branch, learning rate 5e-4 x 2, 8000 steps, AdamW at torch's defaults, no schedule,
# no clipping. The initial word is the user's: painting, illustration or animation.
_PAPER = {
    "trains": EMBEDDING,
    "vectors": 0,
    "embedding_rate": 1e-3,
    "steps": 8000,
    "batch": 2,
    "accumulate": 1,
    "optimizer": "adamw",
    "schedule": "constant",
    "warmup": 0,
    "clip_norm": 0.0,
    "scope": "global",
    "shared_noise": False,
    "times": "uniform",
    "ema": 0.0,
    "min_snr": 0.0,
    "caption_dropout": 0.0,
    "noise_offset": 0.0,
}

_TABLE: dict[str, dict[str, object]] = {
    AS_SET: {},
    "6 GB": {
        "precision": "bf16", "batch": 1, "branches": SEQUENTIAL, "checkpointing": True, "rank": 8,
        "alpha": 8.0,
    },
    "8 GB": {"precision": "bf16", "batch": 1, "branches": SEQUENTIAL, "checkpointing": True},
    "12 GB": {"precision": "bf16", "batch": 1, "branches": FUSED, "checkpointing": True},
    "16 GB": {"precision": "bf16", "batch": 2, "branches": FUSED, "checkpointing": True},
    "24 GB and more": {"precision": "bf16", "batch": 2, "branches": FUSED, "checkpointing": False},
    "paper": {**_PAPER, "rule": "nsync"},
    "paper, as released": {**_PAPER, "rule": "released-4.2"},
}  # fmt: skip

PRESETS = tuple(_TABLE)
"""Names of the presets, that which changes nothing first."""


def filled_in(settings: TrainSettings, preset: str) -> TrainSettings:
    """The settings with what the preset (one of `PRESETS`) says."""
    return replace(settings, **_TABLE[preset])
