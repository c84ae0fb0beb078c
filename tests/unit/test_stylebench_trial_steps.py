"""Steps of the trials, held to gradients that are taken one by one and to algebra in float64."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from stylebench_trials import SETTINGS, gradient, same, some, stepping
from torch import Tensor

from benchmarks.stylebench.trials.choice import Trial
from benchmarks.stylebench.trials.step import Step
from nsync.batches import draw_batches
from nsync.rules import refine

AT = 2
"""The step that is looked at; some trials are made the steps before, too."""


def close(found: list[Tensor], expected: Tensor) -> None:
    scale = float(expected.abs().max())
    np.testing.assert_allclose(
        torch.cat(found).double() / scale, expected.numpy() / scale, atol=2e-5
    )


def librarys(step: Step, at: int = AT) -> dict:
    return draw_batches(step.running.encoded, step.settings, at)


def projected(vector: Tensor, other: Tensor, weight: Tensor | float = 1.0) -> Tensor:
    """The vector less its projection on another, in a metric that weighs each number."""
    return vector - (weight * vector * other).sum() / (weight * other * other).sum() * other


def test_a_step_of_no_trial_is_the_librarys(tmp_path: Path) -> None:
    with stepping(tmp_path, Trial(), replace(SETTINGS, rule="nsync")) as step:
        made, batches = step(AT), librarys(step)
        assert same(made.batches, batches)
        each = {name: [gradient(step, batch)] for name, batch in batches.items()}
        close(made.update, refine("nsync", **each)[0])


@pytest.mark.parametrize("shared", [False, True])
def test_all_negatives_of_the_positives_take_part(tmp_path: Path, shared: bool) -> None:
    settings = replace(SETTINGS, shared_noise=shared)
    with stepping(tmp_path, Trial(several="mean"), settings) as step:
        positive, (first, second) = librarys(step)["positive"], step._draw_negatives(AT).values()
        encoded = step.running.encoded
        for place, batch in enumerate((first, second)):
            for row, name in enumerate(positive.names):
                wanted = encoded.negatives[encoded.names.index(name)][place]
                assert torch.equal(batch.latents[row], wanted)
            assert batch.prompts == positive.prompts
            assert torch.equal(batch.times, positive.times) == shared
        assert torch.equal(first.noise[0], second.noise[0]) == shared
        p, n0, n1 = (gradient(step, batch) for batch in (positive, first, second))
        made = step(AT)
        close(made.update, projected(p, (n0 + n1) / 2))
        assert len(made.branches["negative"].losses) == len(made.batches["negative"].names) == 8
    with stepping(tmp_path / "span", Trial(several="span"), settings) as step:
        made = step(AT)
        matrix = torch.stack([n0, n1]).T.numpy()
        weights, *_ = np.linalg.lstsq(matrix, p.numpy(), rcond=None)
        left = p - torch.from_numpy(matrix @ weights)
        close(made.update, left)
        assert float(made.seen["removed"]) == pytest.approx(float((p - left).norm() / p.norm()))


def test_the_average_goes_over_steps(tmp_path: Path) -> None:
    with stepping(tmp_path, Trial(average=0.6), replace(SETTINGS, rule="released-4.2")) as step:
        negatives = [gradient(step, librarys(step, at)["negative"]) for at in range(AT + 1)]
        p = gradient(step, librarys(step)["positive"])
        for at in range(AT + 1):
            made = step(at)
        weights = [0.6 ** (AT - at) for at in range(AT + 1)]
        average = sum(w * n for w, n in zip(weights, negatives, strict=True)) / sum(weights)
        close(made.update, 2 * p - (p - projected(p, p + average)))


@pytest.mark.parametrize("scope", ["global", "tensor"])
def test_the_metric_is_the_optimizers(tmp_path: Path, scope: str) -> None:
    with stepping(tmp_path, Trial(metric="adam"), replace(SETTINGS, scope=scope)) as step:
        batches = librarys(step)
        p, n = (gradient(step, batches[name]) for name in ("positive", "negative"))
        sizes = step.running.made.stores["lora"].sizes if scope == "tensor" else [len(p)]

        def expected(weight: Tensor) -> Tensor:
            parts = [one.split(sizes) for one in (p, n, weight)]
            return torch.cat([projected(*each) for each in zip(*parts, strict=True)])

        close(step(AT).update, expected(torch.ones_like(p)))  # no moments yet
        [vector] = step.running.learner.vectors
        second = torch.zeros_like(p)
        for at in range(2):
            before, given = vector.detach().clone(), [torch.randn_like(p).float() * 10**-at]
            step.running.learner.step([one.clone() for one in given], at, torch.tensor(True))
            second = 0.999 * second + 0.001 * given[0].double().square()
            with torch.no_grad():
                vector.copy_(before)
        weight = 1 / ((second / (1 - 0.999**2)).sqrt() + 1e-8)
        made = step(AT)
        close(made.update, expected(weight))
        assert (made.update[0] - p[: sizes[0]]).abs().max() > 0
        assert made.update[0].dtype == torch.float32


@pytest.mark.parametrize("half", ["low noise", "high noise"])
def test_the_rule_works_in_one_half_of_the_times(tmp_path: Path, half: str) -> None:
    with stepping(tmp_path, Trial(times=half), replace(SETTINGS, rule="nsync")) as step:
        kinds = set()
        for at in range(12):
            batches = librarys(step, at)
            positive = batches["positive"]
            is_in = [(float(time) < 0.5) == (half == "low noise") for time in positive.times]
            parts = [[row for row in range(4) if is_in[row] == one] for one in (True, False)]
            kinds.add(len(parts[0]))
            made = step(at)
            outside = gradient(step, some(positive, parts[1])) if parts[1] else 0.0
            assert sorted(made.batches["positive"].names) == sorted(positive.names)
            assert len(made.branches["positive"].losses) == 4
            close(made.branches["positive"].gradients, gradient(step, positive))
            if not parts[0]:
                close(made.update, outside)
                assert set(made.batches) == {"positive"}
                continue
            each = [gradient(step, some(positive, parts[0]))]
            for name in ("negative", "anchor"):
                times = batches[name].times / 2 + (0.5 if half == "high noise" else 0.0)
                each.append(gradient(step, replace(batches[name], times=times)))
            [inside] = refine("nsync", *([one] for one in each))
            close(made.update, (len(parts[0]) * inside + len(parts[1]) * outside) / 4)
        assert {0, 4} & kinds
        assert {1, 2, 3} & kinds


def test_negatives_at_the_start_leave_the_weights_alone(tmp_path: Path) -> None:
    settings = replace(SETTINGS, rule="overlap")
    with stepping(tmp_path, Trial(negatives_at="start"), settings) as step:
        [vector] = step.running.learner.vectors
        now, first = vector.detach().clone(), step._first[0]
        made, batches = step(AT), librarys(step)
        assert torch.equal(vector, now)
        p = gradient(step, batches["positive"])
        with torch.no_grad():
            vector.copy_(first)
        n = gradient(step, batches["negative"])
        close(made.branches["negative"].gradients, n)
        close(made.update, refine("overlap", [p], [n])[0])
        downs = step.running.made.stores["lora"].named(n)
        assert not any(one.any() for name, one in downs.items() if name.endswith("lora_A"))
        assert all(one.any() for name, one in downs.items() if name.endswith("lora_B"))


def test_the_push_has_a_weight_for_each_pair(tmp_path: Path) -> None:
    settings = replace(SETTINGS, rule="contrast", weight=0.7, shared_noise=True)
    with stepping(tmp_path, Trial(beta=4.0), settings) as step:
        made, batches = step(AT), librarys(step)
        [vector] = step.running.learner.vectors
        losses = {}
        for weights in ("now", "before"):
            for name, batch in batches.items():
                losses[name, weights] = step.passes({name: batch})[name].losses.double().numpy()
            if weights == "now":
                p = gradient(step, batches["positive"])
                each = [gradient(step, some(batches["negative"], [row])) for row in range(4)]
                with torch.no_grad():
                    vector.copy_(step._first[0])
        gains = [losses[name, "now"] - losses[name, "before"] for name in batches]
        weights = 1 / (1 + np.exp(-4.0 / 2 * (gains[0] - gains[1])))
        assert weights.max() - weights.min() > 0.01
        push = sum(weight * one for weight, one in zip(weights, each, strict=True)) / 4
        close(made.update, p - 0.7 * push)
        assert float(made.seen["weight"]) == pytest.approx(weights.mean(), rel=1e-5)


def test_the_bases_pictures_are_trained_on_beside(tmp_path: Path) -> None:
    with stepping(tmp_path, Trial(prior=0.3), replace(SETTINGS, rule="overlap")) as step:
        made = step(AT)
        positive, prior = made.batches["positive"], made.batches["prior"]
        negative = made.batches["negative"]
        assert same({"positive": positive, "negative": negative}, librarys(step))
        assert prior.prompts == tuple(name.replace("picture_", "shape ") for name in positive.names)
        assert not torch.equal(prior.noise[0], positive.noise[0])
        assert not torch.equal(prior.noise[0], negative.noise[0])
        latents = step.running.prior.negatives
        places = [step.running.encoded.names.index(name) for name in positive.names]
        pairs = zip(prior.latents, places, strict=True)
        assert all(torch.equal(one, latents[place][0]) for one, place in pairs)
        p, n = gradient(step, positive), gradient(step, negative)
        close(made.update, refine("overlap", [p], [n])[0] + 0.3 * gradient(step, prior))
