"""Between the steps: what is read, told, looked at and exported."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_runs import (
    EVERYTHING,
    QUICK,
    Exports,
    as_if_on_a_device,
    assert_equal,
    records,
    run,
    state,
    tensors,
    timeless,
    with_optimizer,
)
from tiny_denoiser import TinyDenoiser, tiny_set
from torch import Tensor

from nsync.batches import draw_batches, encode_set, held_out
from nsync.draws import generator
from nsync.runs.session import StepReport
from nsync.settings import BOTH, EMBEDDING, TrainSettings
from nsync.validation import TIMES


def test_reports_count_down(tmp_path: Path) -> None:
    reports: list[StepReport] = []
    run(tmp_path, replace(QUICK, steps=3), on_step=reports.append)
    assert [(r.step, r.steps) for r in reports] == [(1, 3), (2, 3), (3, 3)]
    assert reports[-1].remaining == 0 < reports[0].remaining
    expected = {"loss_positive", "loss_negative", "loss_anchor", "cos_negative", "cos_anchor"}
    expected |= {"norm_positive", "norm_negative", "norm_update", "removed", "rate", "seconds"}
    assert expected <= reports[0].values.keys()
    assert [r.values for r in reports] == [
        {k: v for k, v in record.items() if k != "step"} for record in records(tmp_path)
    ]
    json.dumps(reports[0].values, allow_nan=False)  # plain numbers, for a page to show


def test_the_model_is_made_ready_after_the_encoding_and_left_in_the_end(tmp_path: Path) -> None:
    told = []

    @contextmanager
    def ready() -> Iterator[None]:
        told.append("ready")
        yield
        told.append("left")

    run(
        tmp_path,
        replace(QUICK, steps=1),
        ready=ready,
        on_item=lambda done, count: told.append("item"),
        on_step=lambda report: told.append("step"),
        preview=lambda done: told.append(f"preview {done}"),
    )
    assert told == ["item", "item", "item", "ready", "step", "left"]


def test_the_rate_follows_the_schedule(tmp_path: Path) -> None:
    settings, export = replace(QUICK, schedule="linear", learning_rate=0.1), Exports(tmp_path)
    run(tmp_path, settings)
    rates = [record["rate"] for record in records(tmp_path)]
    assert rates == pytest.approx([0.1 / 3, 0.2 / 3, 0.1, 0.075, 0.05, 0.025])
    run(tmp_path / "one", replace(settings, steps=1), export=export)
    lora = export.last.lora
    moved = max(float(w.abs().max()) for k, w in lora.items() if k.endswith("lora_B"))
    assert moved == pytest.approx(rates[0], rel=1e-3)  # the first step of AdamW is the rate


class Looks:
    """Looks at the model as a preview does: by what it answers."""

    def __init__(self, denoiser: TinyDenoiser) -> None:
        self.denoiser, self.seen = denoiser, []

    def __call__(self, done: int) -> None:
        assert not torch.is_grad_enabled()
        self.seen.append((done, answer(self.denoiser)))


def answer(denoiser: TinyDenoiser) -> Tensor:
    rows = denoiser.encode_prompts(["a shape in the style of sks"])
    drawn = torch.randn(2, 1, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    return denoiser.loss(drawn[0], rows, drawn[1], torch.tensor([0.5])).detach()


def test_previews_are_drawn_at_the_start_in_time_and_at_the_end(tmp_path: Path) -> None:
    denoiser = TinyDenoiser()
    looks = Looks(denoiser)
    settings = replace(QUICK, preview_every=2, steps=5)
    run(tmp_path / "with", settings, denoiser=denoiser, preview=looks)
    assert [done for done, _ in looks.seen] == [0, 2, 4, 5]
    assert len({float(seen) for _, seen in looks.seen}) == 4
    run(tmp_path / "without", replace(settings, preview_every=0), preview=looks)
    assert len(looks.seen) == 4
    assert_equal(state(tmp_path / "with").tensors, state(tmp_path / "without").tensors)


@pytest.mark.parametrize(
    "changed",
    [
        {"ema": 0.9},
        with_optimizer("schedule-free adamw"),
        {"ema": 0.9, **with_optimizer("schedule-free adamw")},
        EVERYTHING,
        {"trains": EMBEDDING, **with_optimizer("schedule-free adamw")},
    ],
    ids=str,
)
def test_averages_are_exported_and_previewed_in_the_weights_stead(
    tmp_path: Path, changed: dict
) -> None:
    denoiser, export = TinyDenoiser(), Exports(tmp_path)
    looks = Looks(denoiser)
    settings = replace(QUICK, preview_every=3, **changed)
    run(tmp_path, settings, denoiser=denoiser, export=export, preview=looks)
    exported, kept = tensors(export.last), state(tmp_path).tensors
    assert_equal(exported, _averages(settings, kept, exported))
    trained = {name.removeprefix("weights."): v for name, v in kept.items() if "weights." in name}
    flat = torch.cat([v.flatten() for v in exported.values()])
    assert not torch.allclose(flat, torch.cat(list(trained.values())))
    # The last preview has seen a model that answers as one with the exported weights does.
    with _holding(denoiser, settings, exported):
        assert torch.allclose(answer(denoiser), looks.seen[-1][1], rtol=1e-6)


def _averages(
    settings: TrainSettings, kept: dict[str, Tensor], exported: dict[str, Tensor]
) -> dict[str, Tensor]:
    """The averages that a state holds, cut as the exported weights are."""
    kinds = {"lora": "lora", "embedding": "<words>"}
    flat = {}
    for kind in settings.rates:
        if settings.ema:
            flat[kind] = kept[f"ema.{kind}"]
        else:  # y = 0.1 z + 0.9 x; the optimizer's own arithmetic, for the same bits
            y, z = kept[f"weights.{kind}"].clone(), kept[f"optimizer.{kind}.z"]
            flat[kind] = y.lerp_(z, 1 - 1 / 0.9)
    wanted = {}
    for kind, vector in flat.items():
        names = [n for n in exported if (n == kinds["embedding"]) == (kind == "embedding")]
        parts = vector.split([exported[name].numel() for name in names])
        wanted |= {n: p.view_as(exported[n]) for n, p in zip(names, parts, strict=True)}
    return wanted


@contextmanager
def _holding(
    denoiser: TinyDenoiser, settings: TrainSettings, exported: dict[str, Tensor]
) -> Iterator[None]:
    """For the block, the weights of the layers with what the LoRA adds to them, and the word."""
    networks = {"": denoiser.network, "words": denoiser.encoder}
    before = [(p, p.clone()) for network in networks.values() for p in network.parameters()]
    for name in [name for name in exported if name.endswith("lora_A")]:
        owner, _, path = name.removesuffix(".lora_A").rpartition(":")
        layer = networks[owner].get_submodule(path)
        up = exported[name.replace("lora_A", "lora_B")]
        layer.weight += settings.alpha / settings.rank * up @ exported[name]
    if "<words>" in exported:
        denoiser.words["sks"] = {"words": exported["<words>"]}
    yield
    denoiser.words.clear()
    for parameter, value in before:
        parameter.copy_(value)


VALIDATED = replace(QUICK, validation=1, validate_every=2, steps=5)


@pytest.mark.parametrize("changed", [{}, EVERYTHING], ids=["lora", "everything"])
def test_the_validation_loss_is_what_it_says(tmp_path: Path, changed: dict) -> None:
    """Over held-out pictures at fixed times with fixed noise, of the weights to be saved."""
    settings, denoiser, export = replace(VALIDATED, **changed), TinyDenoiser(), Exports(tmp_path)
    style_set = tiny_set(tmp_path / "set")
    run(tmp_path, settings, denoiser=denoiser, export=export, style_set=style_set)
    noted = {r["step"]: r["loss_validation"] for r in records(tmp_path) if "loss_validation" in r}
    assert noted.keys() == {2, 4, 5}
    assert len(set(noted.values())) == 3
    [name] = held_out(style_set, settings)
    [item] = [item for item in style_set.items if item.name == name]
    losses = []
    with _holding(denoiser, settings, tensors(export.last)), torch.no_grad():
        latents = denoiser.encode_images(style_set.positive(item, 8)[None])
        rows = denoiser.encode_prompts([f"{item.caption} in the style of sks"])
        for time in (0.1, 0.3, 0.5, 0.7, 0.9):
            drawn = generator(settings.seed, "validation", name, str(time))
            noise = torch.randn(1, *latents.shape[1:], generator=drawn)
            losses.append(float(denoiser.loss(latents, rows, noise, torch.tensor([time]))))
    assert noted[5] == pytest.approx(sum(losses) / len(losses), rel=1e-5)
    assert TIMES == (0.1, 0.3, 0.5, 0.7, 0.9)


def test_the_validation_loss_of_equal_weights_is_equal(tmp_path: Path) -> None:
    """Each time the same pictures, times and noise: bits differ only where weights do."""
    still = replace(VALIDATED, learning_rate=1e-30, weight_decay=0.0, validate_every=1)
    run(tmp_path, still)
    noted = [r["loss_validation"] for r in records(tmp_path) if "loss_validation" in r]
    assert len(noted) == 5
    assert len(set(noted)) == 1


class Recording(TinyDenoiser):
    """Remembers the pictures, the noise and the times of every pass of the training."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Tensor, Tensor, list[float]]] = []

    def loss(self, latents: Tensor, conditioning: list, noise: Tensor, times: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            self.seen.append((latents.clone(), noise.clone(), times.tolist()))
        return super().loss(latents, conditioning, noise, times)


def test_every_step_sees_the_draws_of_its_number(tmp_path: Path) -> None:
    denoiser, style_set = Recording(), tiny_set(tmp_path / "set")
    run(tmp_path, QUICK, denoiser=denoiser, style_set=style_set)
    encoded = encode_set(QUICK, denoiser, style_set)
    assert len(denoiser.seen) == 6
    for step, (_, noise, times) in enumerate(denoiser.seen):
        batches = draw_batches(encoded, QUICK, step).values()
        assert sorted(times) == sorted(time for one in batches for time in one.times.tolist())
        for wanted in (drawn for one in batches for drawn in one.noise):
            assert sum(torch.equal(wanted, found) for found in noise) == 1


def test_a_held_out_picture_is_never_trained_on(tmp_path: Path) -> None:
    denoiser, style_set = Recording(), tiny_set(tmp_path / "set")
    run(tmp_path, VALIDATED, denoiser=denoiser, style_set=style_set)
    held = held_out(style_set, VALIDATED)
    pictures = [picture for latents, *_ in denoiser.seen for picture in latents]
    for item in style_set.items:
        latents = denoiser.encode_images(style_set.positive(item, 8)[None])[0]
        assert any(torch.equal(latents, seen) for seen in pictures) == (item.name not in held)


@pytest.mark.parametrize("changed", [{}, {"validation": 1, "validate_every": 3}, {"save_every": 5}])
def test_reading_in_blocks_reads_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: dict
) -> None:
    usual = {"steps": 10, "log_every": 4, "save_every": 0, "trains": BOTH}
    settings = replace(QUICK, **(usual | changed))
    run(tmp_path / "each", settings)
    as_if_on_a_device(monkeypatch)
    lines: list[int] = []

    def count(report: StepReport) -> None:
        lines.append(sum("loss_positive" in one for one in records(tmp_path / "blocks")))

    result = run(tmp_path / "blocks", settings, on_step=count)
    assert timeless(tmp_path / "blocks") == timeless(tmp_path / "each")
    assert len(result.losses) == 10
    reads = [step for step in range(1, 11) if lines[step - 1] == step]
    early = {"validation": [3, 6, 9], "save_every": [5]}
    wanted = [4, 8, 10] + [step for name in changed for step in early.get(name, [])]
    assert reads == sorted(wanted)


def test_a_report_holds_the_numbers_that_were_read_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_if_on_a_device(monkeypatch)
    reports: list[StepReport] = []
    run(tmp_path, replace(QUICK, steps=5, log_every=2, save_every=0), on_step=reports.append)
    losses = [record["loss_positive"] for record in records(tmp_path)]
    assert [report.values.get("loss_positive") for report in reports] == [
        None,
        losses[1],
        losses[1],
        losses[3],
        losses[4],
    ]
