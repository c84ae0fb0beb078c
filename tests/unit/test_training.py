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
from nsync.run_log import ShareWatch
from nsync.settings import TrainSettings
from nsync.style_set import StyleSet
from nsync.training import NonFiniteError, StepReport, TrainResult, _clip, train

QUICK = TrainSettings(steps=3, rank=4, alpha=4.0, learning_rate=1e-2, warmup=0, preview_every=0)


class Exports:
    """Stands for the writer of files: remembers what it was given."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.kept = folder, []

    def __call__(self, weights: dict[str, Tensor], steps: int) -> Path:
        self.kept.append((weights, steps))
        return self.folder / f"lora_{steps}.safetensors"


def run(folder: Path, settings: TrainSettings = QUICK, **kwargs) -> TrainResult:
    given = {"denoiser": SmallDenoiser(), "export": Exports(folder)} | kwargs
    style_set = given.pop("style_set") if "style_set" in given else small_set(folder / "set")
    return train(settings, style_set=style_set, folder=folder / "run", **given)


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


def test_same_seed_is_bit_equal_and_another_is_not(tmp_path: Path) -> None:
    torch.manual_seed(1)
    first = run(tmp_path / "a")
    torch.manual_seed(2)  # the process's own generator has no say
    second = run(tmp_path / "b")
    other = run(tmp_path / "c", replace(QUICK, seed=1))
    assert first.losses == second.losses
    assert all(torch.equal(first.weights[k], second.weights[k]) for k in first.weights)
    starts = [k for k in first.weights if k.endswith("lora_A")]  # three steps move them by 0.03
    assert all((first.weights[k] - other.weights[k]).abs().max() > 0.1 for k in starts)


def test_network_is_untouched(tmp_path: Path) -> None:
    denoiser = SmallDenoiser()
    before = {k: v.clone() for k, v in denoiser.network.state_dict().items()}
    run(tmp_path, denoiser=denoiser)
    after = denoiser.network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[k], after[k]) for k in before)
    assert not any(p.requires_grad or p.grad is not None for p in denoiser.network.parameters())


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    settings = replace(QUICK, rule="plain", steps=40, batch=4, learning_rate=1e-2)
    losses = run(tmp_path, settings).losses
    assert sum(losses[-10:]) < 0.95 * sum(losses[:10])


@pytest.mark.parametrize("when", [1, 2])
def test_cancel_saves_what_was_learned(
    tmp_path: Path, when: int, caplog: pytest.LogCaptureFixture
) -> None:
    class Cancelled(BaseException):
        pass

    def stop(report: StepReport) -> None:
        if report.step == when:
            raise Cancelled

    export, denoiser = Exports(tmp_path), SmallDenoiser()
    with pytest.raises(Cancelled):
        run(tmp_path, export=export, denoiser=denoiser, on_step=stop)
    whole = run(tmp_path / "whole", replace(QUICK, steps=when))
    [(weights, steps)] = export.kept
    assert steps == when
    assert all(torch.equal(weights[k], whole.weights[k]) for k in whole.weights)
    assert f"lora_{when}.safetensors" in caplog.text
    assert not any("lora" in name for name, _ in denoiser.network.named_parameters())


def test_cancel_while_encoding_writes_nothing(tmp_path: Path) -> None:
    def stop(done: int, count: int) -> None:
        raise KeyboardInterrupt

    export = Exports(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, export=export, on_item=stop)
    assert not export.kept
    assert not (tmp_path / "run").exists()


class BadDenoiser(SmallDenoiser):
    """NaN where it is told: in the latents of a picture, in a loss, or in a gradient."""

    def __init__(self, where: str, call: int) -> None:
        super().__init__()
        self.where, self.call = where, call

    def _now(self, where: str) -> bool:
        self.call -= where == self.where
        return where == self.where and self.call == 0

    def encode_images(self, pixels: Tensor) -> Tensor:
        latents = super().encode_images(pixels)
        return latents * float("nan") if self._now("latents") else latents

    def loss(self, *args: Tensor) -> Tensor:
        loss = super().loss(*args)
        if self._now("loss"):
            return loss * torch.tensor([1.0, float("inf")])[: len(loss)]
        if self._now("gradient"):
            loss.register_hook(lambda gradient: gradient * float("nan"))
        return loss


SQUARE = replace(QUICK, rule="projection", batch=1)


def test_nan_latents_are_named_before_the_first_step(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"picture_1.*finite"):
        run(tmp_path, SQUARE, denoiser=BadDenoiser("latents", 3))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_nan_stops_with_step_items_and_the_last_good_weights(tmp_path: Path, where: str) -> None:
    export = Exports(tmp_path)
    denoiser = BadDenoiser(where, 2)
    settings = replace(QUICK, rule="plain", batch=2)
    with pytest.raises(NonFiniteError) as caught:
        run(tmp_path, settings, denoiser=denoiser, export=export, style_set=same_size(tmp_path))
    text = str(caught.value)
    assert re.search(rf"{where} is NaN or infinite at step 2 for: positive picture_\d", text)
    assert (text.count("picture_") == 1) == (where == "loss")
    assert "lora_1.safetensors" in text
    good = run(tmp_path / "good", replace(settings, steps=1), style_set=same_size(tmp_path))
    [(weights, steps)] = export.kept
    assert steps == 1
    assert all(torch.equal(weights[k], good.weights[k]) for k in weights)


def same_size(folder: Path) -> StyleSet:
    whole = small_set(folder / "set")
    return replace(whole, items=whole.items[::2])


def test_a_failing_preview_never_ends_a_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    seen = []

    def preview(done: int) -> None:
        seen.append((done, torch.is_grad_enabled()))
        raise torch.OutOfMemoryError("no room for a picture")

    result = run(tmp_path, replace(QUICK, preview_every=2), preview=preview)
    assert seen == [(0, False), (2, False), (3, False)]
    assert len(result.losses) == 3
    assert "no room for a picture" in caplog.text


def test_reports_count_down(tmp_path: Path) -> None:
    reports: list[StepReport] = []
    run(tmp_path, on_step=reports.append)
    assert [(r.step, r.steps) for r in reports] == [(1, 3), (2, 3), (3, 3)]
    assert reports[-1].remaining == 0 < reports[0].remaining
    expected = {"loss_positive", "loss_negative", "loss_anchor", "cos_negative", "cos_anchor"}
    expected |= {"norm_positive", "norm_negative", "removed", "rate", "seconds"}
    assert expected <= reports[0].values.keys()
    assert [r.values for r in reports] == [
        {k: v for k, v in record.items() if k != "step"} for record in records(tmp_path)
    ]


@pytest.mark.parametrize(
    ("settings", "options", "text"),
    [
        (QUICK, {"negatives": False}, "`style_set`: expected a set with negatives.*'nsync'"),
        (QUICK, {"base": "another"}, "negatives painted by another \\(another\\)"),
        (QUICK, {"count": 1}, "at least two positives"),
        (QUICK, {"count": 0}, "at least one picture"),
        (replace(QUICK, rank=64), {}, "`rank`: expected at most 32"),
        (replace(QUICK, rule="nope", steps=0, alpha=float("nan")), {}, "`rule`.*`steps`.*`alpha`"),
        (QUICK, {"caption": "word " * 20}, "captions.*picture_0"),
    ],
)
def test_bad_input_is_told_before_work(
    tmp_path: Path, settings: TrainSettings, options: dict, text: str
) -> None:
    style_set = small_set(
        tmp_path / "set", options.get("count", 4), base=options.get("base", "small-0")
    )
    items = style_set.items
    if not options.get("negatives", True):
        items = tuple(replace(item, negatives=()) for item in items)
    if "caption" in options:
        items = tuple(replace(item, caption=options["caption"]) for item in items)
    denoiser = BadDenoiser("latents", 1)  # would be found out if a picture were encoded
    with pytest.raises(InputError, match=f"(?s){text}"):
        run(tmp_path, settings, denoiser=denoiser, style_set=replace(style_set, items=items))
    assert not (tmp_path / "run").exists()


def test_plain_needs_no_negatives(tmp_path: Path) -> None:
    whole = small_set(tmp_path / "set", base="another")
    style_set = replace(whole, items=tuple(replace(i, negatives=()) for i in whole.items))
    assert "loss_negative" not in run_keys(tmp_path, replace(QUICK, rule="plain"), style_set)


def run_keys(folder: Path, settings: TrainSettings, style_set: StyleSet) -> set[str]:
    run(folder, settings, style_set=style_set)
    return set(records(folder)[0])


def test_bf16_keeps_adapters_in_fp32(tmp_path: Path) -> None:
    exact = run(tmp_path / "fp32", replace(QUICK, steps=1))
    rough = run(tmp_path / "bf16", replace(QUICK, steps=1, precision="bf16"))
    assert all(w.dtype == torch.float32 for w in rough.weights.values())
    assert exact.losses != rough.losses
    assert rough.losses == pytest.approx(exact.losses, rel=0.05)


def test_clipping_comes_after_the_rule(tmp_path: Path) -> None:
    free = replace(QUICK, steps=1, rule="plain", clip_norm=0.0)
    norm = run_and_read(tmp_path / "free", free)["norm_update"]
    record = run_and_read(tmp_path / "clipped", replace(free, clip_norm=norm / 2))
    assert record["norm_update"] == pytest.approx(norm)
    free, loose, tight = (
        run(tmp_path / f"{most}", replace(QUICK, rule="plain", clip_norm=most)).weights
        for most in (0.0, 1e6, 1e-3)
    )
    assert all(torch.equal(free[k], loose[k]) for k in free)
    assert not any(torch.allclose(free[k], tight[k], rtol=1e-3) for k in free if "lora_B" in k)


def test_clipping_scales_to_the_norm() -> None:
    gradients = [torch.tensor([3.0]), torch.tensor([4.0])]
    assert _clip(gradients, 1.0) == pytest.approx(5.0)
    assert torch.cat(gradients).tolist() == pytest.approx([0.6, 0.8])
    assert _clip(gradients, 10.0) == pytest.approx(1.0)
    assert torch.cat(gradients).tolist() == pytest.approx([0.6, 0.8])


def run_and_read(folder: Path, settings: TrainSettings) -> dict:
    run(folder, settings)
    return records(folder)[0]


def test_schedules() -> None:
    constant = TrainSettings(steps=10, warmup=4, learning_rate=1.0)
    assert [constant.rate(i) for i in range(6)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0])
    cosine = replace(constant, schedule="cosine")
    rates = [cosine.rate(i) for i in range(10)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[7] == pytest.approx(0.5)
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert min(rates) > 0


@pytest.mark.parametrize(("share", "word"), [(0.005, "too far"), (0.7, "too near"), (0.3, "")])
def test_negatives_too_far_or_near_are_told(share: float, word: str) -> None:
    watch = ShareWatch()
    told = [watch.see(share) for _ in range(120)]
    assert word in told[49]
    assert [i for i, text in enumerate(told) if text] == ([49, 99] if word else [])
    assert not any(ShareWatch().see(None) for _ in range(60))
    assert not any(watch.see(0.7 if i % 10 else 0.5) for i in range(200))
