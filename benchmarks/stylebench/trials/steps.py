"""The steps of the trials: the library's own, but for one thing each.

In the words of `nsync.rules`: g_p, g_n and g_a are the gradients of the positives', negatives' and
anchors' mean losses, and a rule makes one update u of them.
"""

from contextlib import nullcontext
from dataclasses import replace

import torch
from torch import Tensor

from nsync.batches import draw_batches
from nsync.branches import Batch
from nsync.trained import LORA

from .algebra import RunningAverage, adam_scale, dpo_weights, out_of_span
from .choice import LOW, SPAN
from .step import Branches, Made, Running, Step, copies, some_of, summed, weights_of


class Several(Step):
    """All negatives of the positives take part, the first ones in one branch, the second ones in
    another: the mean of their gradients is g_n, or g_p is projected out of their span."""

    def __call__(self, step: int) -> Made:
        batches = self.draw(step)
        of_negatives = self._draw_negatives(step)
        found = self.passes({**batches, **of_negatives})
        each = [found.pop(name) for name in of_negatives]
        branches = {**found, "negative": summed(each, [1 / len(each)] * len(each))}
        update, seen = self.refined(branches)
        if self.trial.several == SPAN:
            [positive] = branches["positive"].gradients
            update = [out_of_span(positive, [one.gradients[0] for one in each])]
            seen["removed"] = (positive - update[0]).norm() / positive.norm()
        names = tuple(name for one in of_negatives.values() for name in one.names)
        shown = {**batches, "negative": replace(of_negatives["negative 0"], names=names)}
        return Made(shown, branches, update, seen)

    def draw(self, step: int) -> dict[str, Batch]:
        batches = super().draw(step)
        del batches["negative"]  # one drawn of several
        return batches

    def _draw_negatives(self, step: int) -> dict[str, Batch]:
        count = min(map(len, self.running.encoded.negatives))
        return {f"negative {place}": self._draw_one(step, place) for place in range(count)}

    def _draw_one(self, step: int, place: int) -> Batch:
        """The positives' negatives of this place; their noise is their own, unless it is shared."""
        encoded, shared = self.running.encoded, self.settings.shared_noise
        only = replace(
            encoded,
            names=encoded.names if shared else tuple(f"{n}, {place}" for n in encoded.names),
            negatives=tuple(pictures[place : place + 1] for pictures in encoded.negatives),
        )
        return draw_batches(only, self.settings, step)["negative"]


class Averaged(Step):
    """A running average of g_n over the steps so far stands for g_n."""

    def __init__(self, running: Running) -> None:
        super().__init__(running)
        self._average = RunningAverage(self.trial.average)

    def refined(self, branches: Branches) -> tuple[list[Tensor], dict[str, Tensor]]:
        gradients = self.gradients(branches)
        return self.rule({**gradients, "negative": self._average.add(gradients["negative"])})


class AdamMetric(Step):
    """The rule's dot products are weighted by 1 / (sqrt(v) + epsilon), v of the steps before.

    With s the root of that weight, u = rule(s g_p, s g_n) / s. A first step has no v and is made in
    the plain metric. The log's norms, cosines and shares are those of the metric.
    """

    def refined(self, branches: Branches) -> tuple[list[Tensor], dict[str, Tensor]]:
        gradients = self.gradients(branches)
        state, _ = self.running.learner.state()
        if f"optimizer.{LORA}.step" not in state:
            return self.rule(gradients)
        steps = int(state[f"optimizer.{LORA}.step"])
        whole = adam_scale(state[f"optimizer.{LORA}.exp_avg_sq"], steps)
        device = gradients["positive"][0].device
        scales = self.running.made.parts([whole.to(device)], self.settings.scope)
        scaled = {
            name: [part * scale for part, scale in zip(parts, scales, strict=True)]
            for name, parts in gradients.items()
        }
        update, seen = self.rule(scaled)
        return [(u / s).float() for u, s in zip(update, scales, strict=True)], seen


class InTimes(Step):
    """The rule in one half of the times, plain training in the other.

    The positives fall into the half with the rule or outside by their own times; negatives and
    anchors get times of that half, uniform in it. u is the mean over all positives, of which those
    outside have their gradient as it is.
    """

    def __call__(self, step: int) -> Made:
        batches = self.draw(step)
        positive, low = batches["positive"], self.trial.times == LOW
        inside = [row for row, time in enumerate(positive.times) if (time < 0.5) == low]
        outside = [row for row in range(len(positive.names)) if row not in inside]
        if not inside:
            plain = {"positive": positive}
            branches = self.passes(plain)
            return Made(plain, branches, self.gradients(branches)["positive"], {})
        split = {**batches, "positive": some_of(positive, inside)}
        if outside:
            split["outside"] = some_of(positive, outside)
        found = self.passes(split)
        update, seen = self.refined({name: found[name] for name in batches})
        if outside:
            share = len(inside) / len(positive.names)
            plain = self.gradients(found)["outside"]
            pairs = zip(update, plain, strict=True)
            update = [share * ours + (1 - share) * theirs for ours, theirs in pairs]
            parts = [found["positive"], found.pop("outside")]
            found["positive"] = summed(parts, [share, 1 - share])
        shown = {**batches, "positive": some_of(positive, inside + outside)}
        return Made(shown, found, update, seen)

    def draw(self, step: int) -> dict[str, Batch]:
        batches = super().draw(step)
        first = 0.0 if self.trial.times == LOW else 0.5
        return {
            name: batch if name == "positive" else replace(batch, times=first + batch.times / 2)
            for name, batch in batches.items()
        }


class AtTheStart(Step):
    """g_n is taken at the weights that training started from.

    There the adapters change nothing (lora_B is zero): the negatives' gradient is that of the
    untrained model. It is zero in lora_A, so that nothing is removed from g_p there; what it has in
    lora_B is meant for the first lora_A, from which training moves little.
    """

    def __init__(self, running: Running) -> None:
        super().__init__(running)
        self._first = copies(running.learner.vectors)

    def __call__(self, step: int) -> Made:
        batches = self.draw(step)
        branches = self.passes({n: batch for n, batch in batches.items() if n != "negative"})
        with weights_of(self.running.learner, self._first):
            branches |= self.passes({"negative": batches["negative"]})
        return Made(batches, branches, *self.refined(branches))


class Bounded(Step):
    """`contrast` with a weight for each pair, as Diffusion-DPO has it (see `dpo_weights`):

        u = g_p - lambda / n * sum_i w_i g_n,i

    Each negative is a branch of its own, and its pair's losses before training are known by a pass
    without gradient.
    """

    def __init__(self, running: Running) -> None:
        super().__init__(running)
        self._first = copies(running.learner.vectors)

    def __call__(self, step: int) -> Made:
        batches = self.draw(step)
        negative = batches["negative"]
        places = range(len(negative.names))
        alone = {f"negative {place}": some_of(negative, [place]) for place in places}
        found = self.passes({"positive": batches["positive"], **alone})
        each = [found[name] for name in alone]
        now = found["positive"].losses, torch.cat([one.losses for one in each])
        before = [self._losses_before(batches[name]) for name in ("positive", "negative")]
        weights = dpo_weights(self.trial.beta, now[0], before[0], now[1], before[1])
        negatives = summed(each, [float(weight) / len(each) for weight in weights])
        branches = {"positive": found["positive"], "negative": negatives}
        update, seen = self.refined(branches)
        return Made(batches, branches, update, {**seen, "weight": weights.mean()})

    @torch.no_grad()
    def _losses_before(self, batch: Batch) -> Tensor:
        device = self.running.denoiser.device
        half = self.settings.precision == "bf16"
        arithmetic = torch.amp.autocast(device.type, torch.bfloat16) if half else nullcontext()
        latents, noise = (torch.stack(part).to(device) for part in (batch.latents, batch.noise))
        with weights_of(self.running.learner, self._first), arithmetic:
            rows = self.running.prompts(batch.prompts)
            return self.running.denoiser.loss(latents, rows, noise, batch.times).float()


class KeepingPrior(Step):
    """The base's own pictures are trained on beside (prior preservation, DreamBooth, arXiv
    2208.12242, equation 2): u = rule(g_p, ...) + weight * g_prior. Their prompts are captions
    without the style token."""

    def draw(self, step: int) -> dict[str, Batch]:
        with_negatives = replace(self.settings, rule="projection")
        prior = draw_batches(self.running.prior, with_negatives, step)["negative"]
        return {**super().draw(step), "prior": prior}

    def refined(self, branches: Branches) -> tuple[list[Tensor], dict[str, Tensor]]:
        gradients = self.gradients(branches)
        prior = gradients.pop("prior")
        update, seen = self.rule(gradients)
        pairs = zip(update, prior, strict=True)
        return [u + self.trial.prior * part for u, part in pairs], seen


STEPS: dict[str, type[Step]] = {
    "": Step,
    "several": Several,
    "average": Averaged,
    "metric": AdamMetric,
    "times": InTimes,
    "negatives_at": AtTheStart,
    "beta": Bounded,
    "prior": KeepingPrior,
    "negatives": Step,
}
"""By `Trial.kind`."""
