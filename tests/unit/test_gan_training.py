"""A run of a GAN is the same run wherever it was stopped, and bad numbers never reach it."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from gan_runs import (
    ATTN_GAN,
    CAPTIONS,
    DM_GAN,
    GALIP,
    QUICK,
    QUICK_STAGED,
    SSA_GAN,
    Exports,
    run_gan,
    small_encoders,
    small_pairs,
)
from module_runs import modules_as_if_on_a_device
from small_runs import Stop, assert_equal, assert_same_end, config, records, state, stop_at

from nsync.errors import InputError
from nsync.runs.log import NonFiniteError
from nsync.supcon.contrast import CONTRASTS
from nsync.supcon.gan.batches import draw_sides, encode_pairs
from nsync.supcon.gan.steps import generator_loss
from nsync.supcon.pairs import draw_rows
from nsync.supcon.small_encoders import SmallEncoders

ALWAYS = {
    "loss_d", "loss_g", "adversarial", "match", "divergence", "contrast", "spread", "score_real",
    "score_fake", "norm_d", "norm_g", "rate", "seconds",
}  # fmt: skip


@pytest.mark.parametrize(
    ("family", "contrast", "step"),
    [
        (SSA_GAN, "classifier", 1),
        (SSA_GAN, "supcon", 4),
        (GALIP, "supcon", 3),
        (ATTN_GAN, "supcon", 3),
        (DM_GAN, "supcon", 3),
    ],
)
def test_stopped_and_gone_on_with_it_was_never_stopped(
    tmp_path: Path, family: object, contrast: str, step: int
) -> None:
    """All networks, all Adams, running statistics, the average and the log, to the last bit."""
    quick = QUICK if family.judges_alone else QUICK_STAGED
    settings, kept = replace(quick, contrast=contrast), []
    with pytest.raises(Stop):
        run_gan(tmp_path / "stopped", settings, family, on_step=stop_at(step))
    assert state(tmp_path / "stopped").step == step
    for name in ("stopped", "whole"):
        exports = Exports(tmp_path / name)
        result = run_gan(tmp_path / name, settings, family, export=exports)
        assert (result.step, result.over, len(result.losses)) == (6, True, 6)
        kept.append(exports.kept[-1][0])
    assert_same_end(tmp_path / "stopped", tmp_path / "whole")
    trained = {"generator", "discriminators", *(["classifier"] if contrast == "classifier" else [])}
    found = {name.split(".")[0] for name in state(tmp_path / "whole").tensors}
    assert found == trained | {"optimizer", "average"}
    for name in (*trained, "average"):
        assert_equal(kept[0][name], kept[1][name])


def test_what_is_trained_moves_and_the_encoders_do_not(tmp_path: Path) -> None:
    encoders, exports = small_encoders(), Exports(tmp_path)
    before = {name: value.clone() for name, value in encoders.state_dict().items()}
    run_gan(tmp_path, replace(QUICK, steps=1), encoders=encoders, export=exports)
    run_gan(tmp_path, replace(QUICK, steps=3), encoders=encoders, export=exports)
    assert_equal(dict(encoders.state_dict()), before)
    one, three = (learned for learned, _ in exports.kept)
    for part in ("generator", "discriminators", "average"):
        weights = [name for name in one[part] if name.endswith("weight")]
        same = [name for name in weights if torch.equal(one[part][name], three[part][name])]
        assert len(same) < len(weights) / 4, part
    assert_differ(three["generator"], three["average"])


def assert_differ(these: dict, those: dict) -> None:
    assert these.keys() == those.keys()
    assert any(not torch.equal(these[name], those[name]) for name in these)


@pytest.mark.parametrize("contrast", CONTRASTS)
def test_the_log_has_the_numbers_of_every_arm(tmp_path: Path, contrast: str) -> None:
    run_gan(tmp_path, replace(QUICK, steps=4, contrast=contrast))
    told = records(tmp_path)
    assert [one["step"] for one in told] == [1, 2, 3, 4]
    for one in told:
        assert one.keys() >= ALWAYS
        assert ("penalty" in one) == (one["step"] in (1, 3))
        assert ("classifier" in one) == (contrast == "classifier")
        assert (one["contrast"] == 0) == (contrast == "none")
        whole = one["adversarial"] + 0.5 * one["match"] + one["contrast"]
        assert one["loss_g"] == pytest.approx(whole, rel=1e-5)
    assert [one["rate"] for one in told[:3]] == pytest.approx([1e-3 / 3, 2e-3 / 3, 1e-3])


def test_the_seed_decides_and_torchs_own_state_does_not(tmp_path: Path) -> None:
    losses = []
    for place, seed in enumerate((0, 0, 1)):
        torch.manual_seed(place)
        before = torch.random.get_rng_state()
        settings = replace(QUICK, steps=2, seed=seed)
        losses.append(run_gan(tmp_path / str(place), settings).losses)
        assert torch.equal(torch.random.get_rng_state(), before)
    assert losses[0] == losses[1]
    assert losses[0][0] != losses[2][0]


@pytest.mark.parametrize("device", [False, True], ids=["", "as if on a device"])
@pytest.mark.parametrize("bad", [0, 3])
def test_a_step_whose_generator_went_bad_was_never_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: bool, bad: int
) -> None:
    """Though its discriminators had been updated by then."""
    if device:
        modules_as_if_on_a_device(monkeypatch)
    spoil(monkeypatch, {bad})
    run_gan(tmp_path, replace(QUICK, steps=bad + 1, save_every=1, keep_last=9))
    found = state(tmp_path).tensors
    assert all(value.isfinite().all() for value in found.values())
    [told] = [one for one in records(tmp_path) if "warning" in one]
    assert told["step"] == bad + 1
    assert told["warning"].endswith("The step was skipped.")
    if bad:
        run_gan(tmp_path / "short", replace(QUICK, steps=bad))
        before = state(tmp_path / "short").tensors
        # Counts are let run on, on a device.
        weights = {n for n in before if not n.endswith(("updates", ".step"))}
        assert_equal({n: found[n] for n in weights}, {n: before[n] for n in weights})


def test_three_bad_steps_running_stop_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, {1, 2, 3})
    with pytest.raises(NonFiniteError, match=r"the 3rd such step running.*model_4"):
        run_gan(tmp_path)


def test_a_rising_loss_is_no_reason_to_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It tells how generator and discriminators stand to each other; Adam forgets its scale."""

    def rising(*given: object, **named: object) -> dict:
        terms = generator_loss(*given, **named)
        return terms | {"loss_g": terms["loss_g"].abs() * 3.0 ** given[5]}

    monkeypatch.setattr("nsync.supcon.gan.training.generator_loss", rising)
    result = run_gan(tmp_path, replace(QUICK, steps=32, save_every=0))
    assert result.over
    assert result.losses[-1] > 1e4 * result.losses[0]


def spoil(monkeypatch: pytest.MonkeyPatch, steps: set[int]) -> None:
    """Let the generator's loss be NaN in these steps."""

    def spoiled(*given: object, **named: object) -> dict:
        terms = generator_loss(*given, **named)
        bad = given[5] in steps
        return {name: value * float("nan") if bad else value for name, value in terms.items()}

    monkeypatch.setattr("nsync.supcon.gan.training.generator_loss", spoiled)


@pytest.mark.parametrize(("family", "batch"), [(SSA_GAN, 2), (ATTN_GAN, 1)])
def test_branches_are_judged_at_once_where_no_picture_sways_another(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, family: object, batch: int
) -> None:
    seen = []

    def counted(self: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
        seen.append(len(images))
        return images

    judge = type(family.build().discriminators[0])
    monkeypatch.setattr(judge, "observe", counted)
    quick = QUICK if family.judges_alone else QUICK_STAGED
    run_gan(tmp_path, replace(quick, steps=1), family)
    assert set(seen) == {batch * quick.batch}


def test_previews_see_the_average_ready_to_paint(tmp_path: Path) -> None:
    seen = []

    def preview(done: int, painter: torch.nn.Module) -> None:
        seen.append((done, painter.training, painter.state_dict()["out.0.running_mean"].clone()))

    exports = Exports(tmp_path)
    run_gan(tmp_path, replace(QUICK, preview_every=3), preview=preview, export=exports)
    assert [(done, training) for done, training, _ in seen] == [(0, False), (3, False), (6, False)]
    [(learned, _)] = exports.kept
    assert torch.equal(seen[-1][2], learned["average"]["out.0.running_mean"])
    assert not torch.equal(seen[-1][2], seen[0][2])


def test_pairs_are_encoded_as_they_are_in_a_step() -> None:
    encoders, pairs = small_encoders(), small_pairs()
    encoded = encode_pairs(pairs, encoders)
    sides = draw_sides(encoded, QUICK, 5, 7, torch.device("cpu"))
    rows = draw_rows(pairs.labels.tensor, 4, QUICK.seed, 7)
    for side, places in zip(sides, rows, strict=True):
        pixels = pairs.pictures[places].double() / 127.5 - 1
        assert torch.allclose(side.images.double(), pixels, atol=1e-6)
        assert torch.allclose(side.seen, encoders.images(side.images).whole, atol=1e-5)
        read = encoders.texts(pairs.texts(places))
        assert torch.allclose(side.text, read.sentence, atol=1e-5)
        length = read.mask.shape[1]
        assert torch.equal(side.mask[:, :length], read.mask)
        assert not side.mask[:, length:].any()
        assert torch.allclose(side.words[:, :length], read.words, atol=1e-5)
        assert side.labels.tolist() == [int(pairs.labels.tensor[place]) for place in places]
        same = [[CAPTIONS[a] == CAPTIONS[b] for a in places] for b in places]
        assert (side.texts[:, None] == side.texts[None]).tolist() == same
    noise = torch.stack([side.noise for side in sides])
    assert noise.shape == (2, 4, 5)
    assert len(noise.unique()) == 40
    again = draw_sides(encoded, QUICK, 5, 8, torch.device("cpu"))
    assert not set(again[0].noise.flatten().tolist()) & set(noise.flatten().tolist())


def test_a_run_that_is_there_is_not_made_again(tmp_path: Path) -> None:
    run_gan(tmp_path)

    def never(*given: object) -> None:
        raise AssertionError

    result = run_gan(tmp_path, on_item=never, on_step=never)
    assert result.over
    assert len(result.losses) == 6


def test_the_configuration_tells_one_run_from_another(tmp_path: Path) -> None:
    with pytest.raises(Stop):
        run_gan(tmp_path, on_step=stop_at(2))
    assert config(tmp_path)["family"]["name"] == "SSA-GAN"
    others = {
        "the networks": {"family": replace(SSA_GAN, width=3)},
        "the encoders": {"encoders": SmallEncoders.fresh(CAPTIONS, 4, image_size=16, width=32)},
        "labels of the set": {"pairs": small_pairs(("dots", *["lines"] * 5))},
        "`contrast` was 'supcon', is 'none'": {"settings": replace(QUICK, contrast="none")},
    }
    for told, changed in others.items():
        with pytest.raises(InputError, match=told):
            run_gan(tmp_path, **changed)
    run_gan(tmp_path, replace(QUICK, log_every=1, preview_every=5))


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"settings": replace(QUICK, batch=1)}, "`batch`: expected `batch` at least 2"),
        ({"family": replace(SSA_GAN, text_width=16)}, "`encoders`.*width 16.*got of 32"),
        ({"family": replace(SSA_GAN, image_size=32)}, "`pairs`.*32 px.*got 16 px"),
        ({"family": replace(SSA_GAN, width=0)}, "`width`"),
        ({"family": GALIP, "vision": None}, "`vision`.*CLIP vision tower"),
    ],
)
def test_what_does_not_fit_is_one_error_before_anything_is_written(
    tmp_path: Path, changed: dict, text: str
) -> None:
    with pytest.raises(InputError, match=text):
        run_gan(tmp_path, **changed)
    assert not list(tmp_path.iterdir())


def test_captions_that_the_encoder_does_not_read_to_their_end_are_named(tmp_path: Path) -> None:
    short = SmallEncoders(["red", "dot", "a"], image_size=16, width=32, longest=3)
    with pytest.raises(InputError, match=r"(?s)captions.*item_4: 4 tokens of 3"):
        run_gan(tmp_path, encoders=short)


@pytest.mark.parametrize("name", ["penalty_weight", "r1_gamma"])
def test_no_penalty_where_a_picture_is_not_judged_alone(tmp_path: Path, name: str) -> None:
    settings = replace(QUICK_STAGED, **{name: 0.5})
    with pytest.raises(InputError, match=rf"{name}.*judge a batch together.*0\.5"):
        run_gan(tmp_path, settings, ATTN_GAN)
    assert not (tmp_path / "run").exists()
