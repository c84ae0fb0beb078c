"""Everything that a training run is asked to do, checked once."""

from dataclasses import asdict, dataclass

from .layers import ATTENTION, LAYERS_RULE, names_layers
from .optimizers import OPTIMIZERS, SCHEDULES, schedule_factor
from .rules import RULES, needs_negative
from .runs.judgements import (
    CADENCE,
    Judgement,
    above_zero,
    at_least,
    differing,
    judge,
    one_of,
    share,
)

SCOPES = ("global", "tensor")
PRECISIONS = ("fp32", "bf16")
LORA, EMBEDDING, BOTH = "LoRA", "embedding", "LoRA and embedding"
TRAINS = (LORA, EMBEDDING, BOTH)
TIMES = ("uniform", "logit-normal", "early")
AUTO, FUSED, SEQUENTIAL = "auto", "fused", "sequential"
BRANCH_FORMS = (AUTO, FUSED, SEQUENTIAL)
PAINTED, OTHER_LABELS, PAINTED_AND_OTHERS = "painted", "other labels", "both"
NEGATIVES_FROM = (PAINTED, OTHER_LABELS, PAINTED_AND_OTHERS)

# What may differ when a run is continued: how it computes and what it tells, not what it learns.
_FREE = {"branches", "checkpointing", "compile"} | CADENCE


@dataclass(frozen=True)
class TrainSettings:
    """One run's settings; `check` is the only place that judges them.

    Attributes:
        rule: how the gradients of the branches become one update; see `nsync.rules`.
        scope: project over all weights together ("global") or weight by weight ("tensor").
        weight: lambda of the rule `contrast`, 0 or more.
        steps: number of updates.
        learning_rate: of the LoRA, after warm-up.
        batch: pictures per branch and pass, of all processes together; see `accumulate`.
        rank: of the LoRA.
        alpha: the LoRA is scaled by alpha / rank.
        layers: one of `nsync.layers.LAYER_CHOICES`, or a regular expression that the whole name of
            a layer of the network matches, in the names of the library that loaded it, as PEFT's
            target_modules; it names nothing in text encoders, which then get attention and
            feed-forward.
        seed: every random draw is derived from it.
        shared_noise: a negative gets the noise and the time of its positive.
        warmup: steps over which the learning rate rises linearly.
        schedule: what follows the warm-up: "constant", or "linear" or "cosine" down to zero.
        clip_norm: the update's gradient is scaled down to this norm; 0 switches that off.
        precision: the network's arithmetic; trained weights and optimizer are float32 in any case.
        preview_every: steps between previews; 0 draws none.
        trains: one of `TRAINS`.
        text_encoders: the LoRA goes into the text encoders as well.
        initial_word: whose token vectors the embedding starts from.
        vectors: of the embedding; 0 takes as many as the initial word has tokens.
        embedding_rate: learning rate of the embedding, after warm-up.
        optimizer: one of `nsync.optimizers.OPTIMIZERS`.
        weight_decay: of the LoRA; an embedding has none, see docs/decisions.md.
        accumulate: the batch of an update is so many times `batch`, in as many passes.
        ema: decay of the average of the weights that is saved in their stead; 0 saves them.
        min_snr: gamma of the min-SNR weighting (arXiv 2303.09556); 0 weighs all times alike.
        times: how times are drawn: "uniform"; "logit-normal" (arXiv 2403.03206, eq. 19 with mean 0
            and deviation 1); "early": u^3 for a uniform u, towards little noise, where strokes and
            textures are decided (github.com/ostris/ai-toolkit: its "style" timesteps).
        caption_dropout: share of the items, in a branch and step, that are trained with an empty
            prompt; a negative goes with its positive.
        noise_offset: deviation of a constant per channel that is added to the noise.
        branches: "fused", all branches in one pass; "sequential", one after the other, for less
            memory; "auto" decides by the free memory of the device.
        checkpointing: compute activations again in backward instead of keeping them.
        compile: compile the network with `torch.compile`.
        log_every: steps between two readings of the numbers on the device.
        validation: pictures held out of training; their loss is logged.
        validate_every: steps between two of these losses.
        save_every: steps between two states from which the run can be resumed; 0 saves one only
            when the run stops.
        keep_last: how many of these states are kept.
        pause_every: stop after every so many steps, to be run again; 0 never pauses.
        score_every: steps between two scores of the style, where it is watched.
        negatives_from: "painted" by the base; "other labels", the pictures in `StyleSet.others`;
            "both", every draw from one or the other with equal chances.
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
    trains: str = LORA
    text_encoders: bool = False
    initial_word: str = "painting"
    vectors: int = 0
    embedding_rate: float = 1e-3
    optimizer: str = "adamw"
    weight_decay: float = 0.01
    accumulate: int = 1
    ema: float = 0.0
    min_snr: float = 0.0
    times: str = "uniform"
    caption_dropout: float = 0.0
    noise_offset: float = 0.0
    branches: str = AUTO
    checkpointing: bool = False
    compile: bool = False
    log_every: int = 10
    validation: int = 0
    validate_every: int = 50
    save_every: int = 100
    keep_last: int = 2
    pause_every: int = 0
    score_every: int = 100
    negatives_from: str = PAINTED

    @property
    def trains_lora(self) -> bool:
        """Whether adapters are trained."""
        return self.trains != EMBEDDING

    @property
    def trains_embedding(self) -> bool:
        """Whether the style token gets vectors of its own."""
        return self.trains != LORA

    @property
    def trains_text(self) -> bool:
        """Whether the text encoders take part in every pass."""
        return self.trains_embedding or self.text_encoders

    @property
    def uses_painted(self) -> bool:
        """Whether negatives painted by the base are trained on."""
        return needs_negative(self.rule) and self.negatives_from != OTHER_LABELS

    @property
    def uses_others(self) -> bool:
        """Whether pictures of other labels are trained on as negatives."""
        return needs_negative(self.rule) and self.negatives_from != PAINTED

    @property
    def rates(self) -> dict[str, float]:
        """Full learning rates by kind of weights."""
        rates = {"lora": self.learning_rate, "embedding": self.embedding_rate}
        trained = {"lora": self.trains_lora, "embedding": self.trains_embedding}
        return {kind: rate for kind, rate in rates.items() if trained[kind]}

    def check(self) -> None:
        """Raise one `InputError` that names every setting out of its range."""
        judge(self.judgements())

    def factor(self, step: int) -> float:
        """What the learning rates are multiplied with in update `step` (0-based)."""
        return schedule_factor(self.schedule, step, self.steps, self.warmup)

    def rate(self, step: int) -> float:
        """The learning rate of update `step` (0-based), of the first kind that is trained."""
        return next(iter(self.rates.values())) * self.factor(step)

    def as_dict(self) -> dict[str, str | int | float | bool]:
        """The settings as plain values, for JSON."""
        return asdict(self)

    def differs(self, other: "TrainSettings") -> dict[str, tuple[object, object]]:
        """What of `other` would make it another run: (value here, value there) by name.

        More steps are no difference where the learning rate does not depend on their number.
        """
        free = _FREE | ({"steps"} if self.schedule == "constant" else set())
        return differing(self, other, free)

    def judgements(self) -> list[Judgement]:
        """Every rule that a setting has to keep, and whether it does."""
        return [
            one_of(self, "rule", tuple(RULES)),
            one_of(self, "scope", SCOPES),
            ("layers", LAYERS_RULE, self.layers, names_layers(self.layers)),
            one_of(self, "schedule", SCHEDULES),
            one_of(self, "precision", PRECISIONS),
            one_of(self, "trains", TRAINS),
            one_of(self, "optimizer", OPTIMIZERS),
            one_of(self, "times", TIMES),
            one_of(self, "branches", BRANCH_FORMS),
            one_of(self, "negatives_from", NEGATIVES_FROM),
            *(at_least(self, name, 1) for name in _FROM_ONE),
            *(at_least(self, name, 0) for name in _FROM_ZERO),
            *(above_zero(self, name) for name in _ABOVE_ZERO),
            *(share(self, name) for name in ("caption_dropout", "ema")),
            self._word("initial_word"),
            *(self._multiplier(name) for name in ("learning_rate", "embedding_rate")),
        ]

    def _multiplier(self, name: str) -> Judgement:
        """Prodigy finds the step size; a usual rate would shrink it to nothing."""
        kind = "lora" if name == "learning_rate" else "embedding"
        free = self.optimizer != "prodigy" or kind not in self.rates
        value = getattr(self, name)
        return name, "1.0 with the optimizer prodigy", value, free or value == 1.0

    def _word(self, name: str) -> Judgement:
        value = getattr(self, name)
        return name, "a word", value, bool(value.strip()) or not self.trains_embedding


_FROM_ONE = (
    "steps",
    "batch",
    "rank",
    "accumulate",
    "log_every",
    "keep_last",
    "validate_every",
    "score_every",
)
_FROM_ZERO = (
    "warmup", "preview_every", "weight", "clip_norm", "vectors", "weight_decay", "min_snr",
    "noise_offset", "validation", "save_every", "pause_every",
)  # fmt: skip
_ABOVE_ZERO = ("learning_rate", "alpha", "embedding_rate")
