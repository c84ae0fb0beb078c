"""What an arm does that the product cannot: one thing beside its rule, told in its `trial:`."""

import math
from dataclasses import dataclass, fields

from nsync.errors import InputError
from nsync.rules import needs_negative, turns_against_negatives
from nsync.settings import TrainSettings

MEAN, SPAN = "mean", "span"
ADAM = "adam"
LOW, HIGH = "low noise", "high noise"
START = "start"
SAME_STYLE, OTHER_CAPTIONS = "same style", "other captions"

_CHOICES = {
    "several": (MEAN, SPAN),
    "metric": (ADAM,),
    "times": (LOW, HIGH),
    "negatives_at": (START,),
    "negatives": (SAME_STYLE, OTHER_CAPTIONS),
}


@dataclass(frozen=True)
class Trial:
    """One thing that differs from the library's own step; as it stands, nothing does.

    What each of them computes is said in `steps`; `check` is the only place that judges them.

    Attributes:
        several: all negatives of a positive take part in every step, each a branch of its own: the
            "mean" of their gradients stands for g_n, or g_p is projected out of their "span".
        average: decay of a running average of g_n, which stands for the step's own; above 0.
        metric: "adam": the rule's dot products are weighted as Adam weighs its steps.
        times: the rule works where there is "low noise" (times below 1/2) or "high noise" only;
            the positives of other times are trained on plainly.
        negatives_at: "start": g_n is taken at the weights that training started from.
        beta: of Diffusion-DPO, by whose weight `contrast` pushes away from each negative; above 0.
        prior: weight of the loss on the base's own pictures of the positives' captions, without
            style and style token (prior preservation); above 0.
        negatives: in the place of painted ones: true renders of the same captions in the "same
            style", too near; or those that were painted of "other captions", too far.
    """

    several: str = ""
    average: float = 0.0
    metric: str = ""
    times: str = ""
    negatives_at: str = ""
    beta: float = 0.0
    prior: float = 0.0
    negatives: str = ""

    @property
    def kind(self) -> str:
        """The name of what differs; empty where nothing does."""
        names = [one.name for one in fields(self) if getattr(self, one.name) != one.default]
        return names[0] if names else ""

    def check(self, settings: TrainSettings, per_positive: int) -> None:
        """Raise `InputError` for the first thing that is wrong.

        Args:
            settings: of the arm, with its adapter.
            per_positive: negatives of each positive.
        """
        for name, rule, good in self._judgements(settings, per_positive):
            if not good:
                raise InputError(name, rule, repr(getattr(self, name, self)))

    def _judgements(
        self, settings: TrainSettings, per_positive: int
    ) -> list[tuple[str, str, bool]]:
        given = [one.name for one in fields(self) if getattr(self, one.name) != one.default]
        if not given:
            return []
        away, rule = turns_against_negatives(settings.rule), settings.rule
        of_kind = {
            "several": [
                ("an arm with `per_positive` of 2 or more", per_positive > 1),
                ("rule `projection` and scope `global` for a span", self.several != SPAN
                 or (rule, settings.scope) == ("projection", "global")),
            ],
            "average": [("a decay above 0 and below 1", 0 < self.average < 1)],
            "metric": [("the optimizer `adamw`", settings.optimizer == "adamw")],
            "times": [
                ("uniform `times`, `shared_noise: false`",
                 settings.times == "uniform" and not settings.shared_noise),
            ],
            "negatives_at": [],
            "beta": [("a number above 0", 0 < self.beta < math.inf),
                     ("the rule `contrast`", rule == "contrast")],
            "prior": [("a number above 0", 0 < self.prior < math.inf)],
            "negatives": [],
        }  # fmt: skip
        judged = [("trial", "one thing that differs", len(given) == 1)]
        judged += [
            (name, f"one of {', '.join(choices)}", getattr(self, name) in ("", *choices))
            for name, choices in _CHOICES.items()
        ]
        if self.kind == "negatives":
            judged.append((self.kind, "a rule with negatives", needs_negative(rule)))
        elif self.kind != "prior":
            judged.append((self.kind, "a rule that turns against negatives", away))
        judged += [(self.kind, text, good) for text, good in of_kind[self.kind]]
        judged.append(("trial", "an arm whose adapter is a LoRA", settings.trains == "LoRA"))
        judged.append(("trial", "no `caption_dropout`", not settings.caption_dropout))
        return judged
