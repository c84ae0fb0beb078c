"""Everything that a training run is asked to do, checked once."""

import math
from dataclasses import asdict, dataclass

from .adapters import ATTENTION, LAYER_CHOICES
from .errors import InputError
from .rules import RULES

SCOPES = ("global", "tensor")
SCHEDULES = ("constant", "cosine")
PRECISIONS = ("fp32", "bf16")


@dataclass(frozen=True)
class TrainSettings:
    """One run's settings; `check` is the only place that judges them.

    Attributes:
        rule: how the gradients of the branches become one update; see `nsync.rules`.
        scope: project over all weights together ("global") or weight by weight ("tensor").
        weight: lambda of the rule `contrast`, 0 or more.
        steps: number of updates.
        learning_rate: AdamW's, after warm-up.
        batch: pictures per branch and step.
        rank: of the adapters.
        alpha: adapters are scaled by alpha / rank.
        layers: one of `nsync.adapters.LAYER_CHOICES`.
        seed: every random draw is derived from it.
        shared_noise: a negative gets the noise and the time of its positive.
        warmup: steps over which the learning rate rises linearly.
        schedule: what follows the warm-up: "constant", or "cosine" down to zero.
        clip_norm: the update's gradient is scaled down to this norm; 0 switches that off.
        precision: the network's arithmetic; adapters and optimizer are float32 in any case.
        preview_every: steps between previews; 0 draws none.
    """

    rule: str = "nsync"
    scope: str = "global"
    weight: float = 0.5
    steps: int = 500
    learning_rate: float = 1e-4
    batch: int = 2
    rank: int = 16
    alpha: float = 16.0
    layers: str = ATTENTION
    seed: int = 0
    shared_noise: bool = False
    warmup: int = 20
    schedule: str = "constant"
    clip_norm: float = 1.0
    precision: str = "fp32"
    preview_every: int = 100

    def check(self) -> None:
        """Raise one `InputError` that names every setting out of its range."""
        found = [(name, rule, value) for name, rule, value, good in self._judgements() if not good]
        if found:
            names, rules, values = zip(*found, strict=True)
            joined = "; ".join(f"`{n}` {r}" for n, r in zip(names, rules, strict=True))
            got = "; ".join(f"`{n}` = {v!r}" for n, v in zip(names, values, strict=True))
            raise InputError(", ".join(names), joined, got)

    def rate(self, step: int) -> float:
        """The learning rate of update `step` (0-based)."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / (self.warmup + 1)
        if self.schedule == "constant":
            return self.learning_rate
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * done))

    def as_dict(self) -> dict[str, str | int | float | bool]:
        """The settings as plain values, for JSON."""
        return asdict(self)

    def _judgements(self) -> list[tuple[str, str, object, bool]]:
        return [
            self._one_of("rule", tuple(RULES)),
            self._one_of("scope", SCOPES),
            self._one_of("layers", LAYER_CHOICES),
            self._one_of("schedule", SCHEDULES),
            self._one_of("precision", PRECISIONS),
            self._at_least("steps", 1),
            self._at_least("batch", 1),
            self._at_least("rank", 1),
            self._at_least("warmup", 0),
            self._at_least("preview_every", 0),
            self._at_least("weight", 0),
            self._at_least("clip_norm", 0),
            self._above_zero("learning_rate"),
            self._above_zero("alpha"),
        ]

    def _one_of(self, name: str, choices: tuple[str, ...]) -> tuple[str, str, object, bool]:
        value = getattr(self, name)
        return name, f"one of {', '.join(choices)}", value, value in choices

    def _at_least(self, name: str, least: int) -> tuple[str, str, object, bool]:
        value = getattr(self, name)
        return name, f"at least {least}", value, math.isfinite(value) and value >= least

    def _above_zero(self, name: str) -> tuple[str, str, object, bool]:
        value = getattr(self, name)
        return name, "a number above 0", value, math.isfinite(value) and value > 0
