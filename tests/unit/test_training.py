"""The loop: same seed same run, only what is trained changes, bad input told before any work."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from denoisers import SmallDenoiser, small_set
from small_runs import (
    EVERYTHING,
    Exports,
    Stop,
    assert_equal,
    config,
    records,
    run,
    stop_at,
    tensors,
    timeless,
    with_optimizer,
)
from small_runs import QUICK as SIX_STEPS
from tiny_denoiser import TinyDenoiser, tiny_set
from torch import Tensor, nn

from nsync.errors import InputError
from nsync.learner import Learned
from nsync.lora_file import LowRank
from nsync.optimizers import OPTIMIZERS
from nsync.rules import RULES
from nsync.settings import BOTH, EMBEDDING, TRAINS, TrainSettings
from nsync.training import TrainResult, clip

QUICK = replace(SIX_STEPS, steps=3, warmup=0)


def real_run(folder: Path, settings: TrainSettings = QUICK, **given) -> TrainResult:
    """With a real UNet, and pictures of two sizes."""
    usual = {"denoiser": SmallDenoiser(), "style_set": small_set(folder / "set")}
    return run(folder, settings, **(usual | given))


def learned(folder: Path, settings: TrainSettings = QUICK, **given) -> Learned:
    export = Exports(folder)
    run(folder, settings, export=export, **given)
    return export.last


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_trains_and_logs(tmp_path: Path, rule: str) -> None:
    settings, export = replace(QUICK, rule=rule), Exports(tmp_path)
    result = real_run(tmp_path, settings, export=export)
    [(found, steps)] = export.kept
    assert result.step == steps == 3
    assert result.files == {"lora": tmp_path / "lora_3.safetensors"}
    assert result.losses == [record["loss_positive"] for record in records(tmp_path)]
    assert [record["step"] for record in records(tmp_path)] == [1, 2, 3]
    assert found.lora.keys() == {f"{k}.lora_{part}" for k in found.alphas for part in "AB"}
    assert all(w.dtype == torch.float32 and w.any() for w in found.lora.values())
    assert set(found.alphas.values()) == {2.0}
    assert TrainSettings(**config(tmp_path)["settings"]) == settings


@pytest.mark.parametrize("trains", TRAINS)
def test_same_seed_is_bit_equal_and_another_is_not(tmp_path: Path, trains: str) -> None:
    settings = replace(QUICK, trains=trains)
    torch.manual_seed(1)
    first = learned(tmp_path / "a", settings)
    torch.manual_seed(2)  # the process's own generator has no say
    second = learned(tmp_path / "b", settings)
    other = learned(tmp_path / "c", replace(settings, seed=1))
    assert timeless(tmp_path / "a") == timeless(tmp_path / "b") != timeless(tmp_path / "c")
    assert_equal(tensors(first), tensors(second))
    moved = [(tensors(first)[k] - tensors(other)[k]).abs().max() for k in tensors(first)]
    assert min(moved) > 1e-4
    starts = [k for k in first.lora if k.endswith("lora_A")]  # three steps move them by 0.03
    assert all((first.lora[k] - other.lora[k]).abs().max() > 0.1 for k in starts)


@pytest.mark.parametrize(
    ("changed", "encoders"),
    [
        ({}, False),
        ({"trains": EMBEDDING}, False),
        ({"trains": BOTH}, False),
        ({"text_encoders": True}, True),
        (EVERYTHING, True),
    ],
)
def test_what_is_trained_changes_and_nothing_else(
    tmp_path: Path, changed: dict, encoders: bool
) -> None:
    denoiser, settings = SmallDenoiser(), replace(QUICK, **changed)
    modules = {"network": denoiser.network, **denoiser.text_encoders}
    before = {name: _copies(module) for name, module in modules.items()}
    export = Exports(tmp_path)
    result = real_run(tmp_path, settings, denoiser=denoiser, export=export)
    for name, module in modules.items():
        assert_equal(before[name], _copies(module))
        assert not any(p.requires_grad or p.grad is not None for p in module.parameters())
    assert denoiser.words == {}
    found = export.last
    assert bool(found.lora) == settings.trains_lora
    assert any(":" in layer for layer in found.alphas) == encoders
    assert all(found.lora[k].any() for k in found.lora)  # lora_B starts at zero
    assert set(result.files) == {k for k, f in vars(found).items() if f and k != "alphas"}
    if settings.trains_embedding:
        start = denoiser.word_vectors(settings.initial_word)["words"]
        moved = (found.embedding["words"] - start).abs()
        assert moved.shape == start.shape
        assert 0 < moved.min() <= moved.max() < 0.05
    else:
        assert not found.embedding


def _copies(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    settings = replace(QUICK, rule="plain", steps=40, batch=4, save_every=0)
    losses = real_run(tmp_path, settings).losses
    assert sum(losses[-10:]) < 0.95 * sum(losses[:10])


@pytest.mark.parametrize("trains", TRAINS)
def test_training_goes_on_from_an_existing_lora(tmp_path: Path, trains: str) -> None:
    """And leaves the first values of it alone."""
    first = learned(tmp_path / "a")
    start = {
        key: LowRank(first.lora[f"{key}.lora_A"], first.lora[f"{key}.lora_B"], 1.0)
        for key in first.alphas
    }
    kept = {name: value.clone() for name, value in first.lora.items()}
    found = learned(tmp_path / "b", replace(QUICK, trains=trains, steps=1), start=start)
    assert_equal(first.lora, kept)
    assert config(tmp_path / "b")["start_from"] != config(tmp_path / "a")["start_from"] == ""
    if trains == EMBEDDING:
        assert not found.lora
        return
    assert set(found.alphas.values()) == {1.0}
    for name, value in found.lora.items():
        assert 0 < (value - kept[name]).abs().max() < 0.02  # one step of AdamW


@pytest.mark.parametrize("when", [1, 2])
def test_cancel_saves_what_was_learned(
    tmp_path: Path, when: int, caplog: pytest.LogCaptureFixture
) -> None:
    export, denoiser = Exports(tmp_path), TinyDenoiser()
    with pytest.raises(Stop):
        run(tmp_path, export=export, denoiser=denoiser, on_step=stop_at(when))
    whole = learned(tmp_path / "whole", replace(SIX_STEPS, steps=when))
    [(found, steps)] = export.kept
    assert steps == when
    assert_equal(tensors(found), tensors(whole))
    assert f"lora_{when}.safetensors" in caplog.text
    assert not any("lora" in name for name, _ in denoiser.network.named_parameters())


def test_cancel_while_encoding_writes_nothing(tmp_path: Path) -> None:
    seen = []

    def stop(done: int, count: int) -> None:
        seen.append((done, count))
        if done == 2:
            raise KeyboardInterrupt

    export = Exports(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, export=export, on_item=stop)
    assert seen == [(1, 3), (2, 3)]
    assert not export.kept
    assert not (tmp_path / "run").exists()


class OncePerPicture(TinyDenoiser):
    """Gives NaN for one picture, or fails if any is encoded."""

    def __init__(self, bad: int) -> None:
        super().__init__()
        self.left = bad

    def encode_images(self, pixels: Tensor) -> Tensor:
        self.left -= 1
        assert self.left >= 0, "no picture was to be encoded"
        return super().encode_images(pixels) * (1.0 if self.left else float("nan"))


def test_nan_latents_are_named_before_the_first_step(tmp_path: Path) -> None:
    """Of the third picture that is encoded: positive 0, negative 0, positive 1."""
    with pytest.raises(InputError, match=r"`picture_1`.*finite"):
        run(tmp_path, denoiser=OncePerPicture(3))
    assert not (tmp_path / "run").exists()


LONG = {"caption": "word " * 20}


@pytest.mark.parametrize(
    ("settings", "options", "text"),
    [
        (QUICK, {"negatives": ()}, "`style_set`: expected a set with negatives.*'nsync'"),
        (QUICK, {"base": "another"}, "negatives painted by another \\(another\\)"),
        (QUICK, {"count": 1}, "at least two positives"),
        (replace(QUICK, validation=2), {}, "`validation`: expected fewer.*got 2 of 3"),
        (QUICK, {"count": 0}, "at least one picture"),
        (replace(QUICK, rank=64), {}, "`rank`: expected at most 8"),
        (replace(QUICK, rule="nope", steps=0, alpha=float("nan")), {}, "`rule`.*`steps`.*`alpha`"),
        (QUICK, LONG, "captions.*picture_0"),
        (replace(QUICK, trains=BOTH, vectors=7), {}, "captions.*picture_0: 13 tokens of 10"),
        (replace(QUICK, trains=EMBEDDING, initial_word=" "), {}, "`initial_word`"),
        (replace(QUICK, optimizer="prodigy"), {}, "`learning_rate` 1.0 with the optimizer prodigy"),
    ],
)
def test_bad_input_is_told_before_work(
    tmp_path: Path, settings: TrainSettings, options: dict, text: str
) -> None:
    options = dict(options)
    size = {"count": options.pop("count", 3), "base": options.pop("base", "tiny-0")}
    whole = tiny_set(tmp_path / "set", **size)
    items = tuple(replace(item, **options) for item in whole.items)
    denoiser = OncePerPicture(0)
    with pytest.raises(InputError, match=f"(?s){text}"):
        run(tmp_path, settings, denoiser=denoiser, style_set=replace(whole, items=items))
    assert not (tmp_path / "run").exists()
    assert denoiser.words == {}


def test_an_optimizer_that_cannot_be_made_is_told_before_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its package is there, or it would not be on offer, but cannot be imported."""
    monkeypatch.setitem(sys.modules, "lion_pytorch", None)
    with pytest.raises(InputError, match=r"`optimizer`.*pip install lion-pytorch"):
        run(tmp_path, replace(QUICK, optimizer="lion"), denoiser=OncePerPicture(0))
    assert not (tmp_path / "run").exists()


def test_plain_needs_no_negatives(tmp_path: Path) -> None:
    whole = tiny_set(tmp_path / "set", base="another")
    style_set = replace(whole, items=tuple(replace(i, negatives=()) for i in whole.items))
    run(tmp_path, replace(QUICK, rule="plain"), style_set=style_set)
    assert {"loss_positive", "norm_positive"} <= set(records(tmp_path)[0])
    assert "loss_negative" not in records(tmp_path)[0]


def test_bf16_keeps_adapters_in_fp32(tmp_path: Path) -> None:
    exact = real_run(tmp_path / "fp32", replace(QUICK, steps=1))
    export = Exports(tmp_path)
    settings = replace(QUICK, steps=1, precision="bf16")
    rough = real_run(tmp_path / "bf16", settings, export=export)
    assert all(w.dtype == torch.float32 for w in export.last.lora.values())
    assert exact.losses != rough.losses
    assert rough.losses == pytest.approx(exact.losses, rel=0.05)


def test_clipping_comes_after_the_rule(tmp_path: Path) -> None:
    """What is clipped is the update: its norm is logged as it was before."""
    free = replace(QUICK, steps=1, clip_norm=0.0)
    run(tmp_path / "free", free)
    [before] = records(tmp_path / "free")
    run(tmp_path / "clipped", replace(free, clip_norm=before["norm_update"] / 2))
    [after] = records(tmp_path / "clipped")
    assert after["norm_update"] == pytest.approx(before["norm_update"])
    assert after["norm_update"] != pytest.approx(after["norm_positive"], rel=1e-3)
    free, loose, tight = (
        learned(tmp_path / f"{most}", replace(QUICK, clip_norm=most)).lora
        for most in (0.0, 1e6, 1e-6)
    )
    assert_equal(free, loose)
    assert not any(torch.allclose(free[k], tight[k], rtol=1e-3) for k in free if "lora_B" in k)


def test_clipping_scales_to_the_norm() -> None:
    gradients = [torch.tensor([3.0]), torch.tensor([4.0])]
    assert clip(gradients, 1.0) == pytest.approx(5.0)
    assert torch.cat(gradients).tolist() == pytest.approx([0.6, 0.8])
    assert clip(gradients, 10.0) == pytest.approx(1.0)
    assert torch.cat(gradients).tolist() == pytest.approx([0.6, 0.8])
    assert clip(gradients, 0.0) == pytest.approx(1.0)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_trains_both_kinds(tmp_path: Path, optimizer: str) -> None:
    found = learned(tmp_path, replace(QUICK, trains=BOTH, **with_optimizer(optimizer)))
    start = TinyDenoiser().word_vectors("painting")["words"]
    assert all(w.any() for w in found.lora.values())
    assert not torch.equal(found.embedding["words"], start)


def test_the_rate_follows_the_schedule(tmp_path: Path) -> None:
    settings = replace(SIX_STEPS, schedule="linear", learning_rate=0.1)
    run(tmp_path, settings)
    rates = [record["rate"] for record in records(tmp_path)]
    assert rates == pytest.approx([0.1 / 3, 0.2 / 3, 0.1, 0.075, 0.05, 0.025])
    first = learned(tmp_path / "one", replace(settings, steps=1))
    moved = max(float(w.abs().max()) for k, w in first.lora.items() if k.endswith("lora_B"))
    assert moved == pytest.approx(rates[0], rel=1e-3)  # the first step of AdamW is the rate
