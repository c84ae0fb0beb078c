"""Pretraining of encoders: what it computes, that it learns, that it can be stopped anywhere."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pretraining_runs import FLAGS, SHORT, run_pretraining, with_contrast
from small_runs import Stop, assert_same_end, files_of, records, run, state, stop_at
from supcon_sets import SIDE, clip, flags, labelled_set, small
from torch import Tensor

from nsync.errors import InputError
from nsync.supcon import losses
from nsync.supcon.contrast import CONTRASTS
from nsync.supcon.encoder_file import load_encoders
from nsync.supcon.encoders import identity
from nsync.supcon.pairs import draw_rows, read_pairs, split
from nsync.supcon.pretrain_settings import PretrainSettings
from nsync.supcon.pretraining import (
    IMAGE_TO_TEXT,
    TEXT_TO_IMAGE,
    encode,
    measure,
    pretrain,
)
from nsync.supcon.retrieval import retrieval

HERE = Path(__file__).resolve().parent


@pytest.mark.parametrize("mask", [True, False])
def test_a_step_is_what_the_method_says(tmp_path: Path, mask: bool) -> None:
    """Loss and update of the first step, put together from the losses, branch by branch."""
    weights = {"image_image": 0.3, "text_text": 0.0, "matching": 0.7}
    settings = replace(SHORT, steps=1, class_mask=mask, contrast_temperature=0.3, **weights)
    run_pretraining(tmp_path, settings)
    [told] = [one for one in records(tmp_path) if "loss" in one]

    encoders = small(FLAGS)
    pairs, _ = split(read_pairs(FLAGS, SIDE), settings.validation, settings.seed)
    rows = draw_rows(pairs.labels.tensor, settings.batch, settings.seed, 0)
    branches = [
        (encoders.images(pairs.pixels(each)).whole, encoders.texts(pairs.texts(each)).sentence)
        for each in rows
    ]
    labels = [pairs.labels.rows(each) for each in rows]
    every_caption = [item.caption for item in FLAGS.items]
    numbers = [[every_caption.index(text) for text in pairs.texts(each)] for each in rows]
    spared = labels if mask else map(torch.tensor, numbers)
    matching = [losses.matching(*b, y) for b, y in zip(branches, spared, strict=True)]
    images, texts = (torch.cat(each) for each in zip(*branches, strict=True))
    every = torch.cat(labels)
    loss = 0.7 * sum(matching) / 2
    at = {"temperature": 0.3}
    loss = loss + 0.3 * losses.supervised_contrastive(images, every, **at)
    loss = loss + 0.06 * losses.cross_contrastive(images, texts, every, **at)
    loss = loss + 0.06 * losses.cross_contrastive(texts, images, every, **at)
    assert told["loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert told["loss_matching"] == pytest.approx(sum(matching).item() / 2, rel=1e-5)
    assert "loss_text_text" not in told
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(encoders.parameters(), 1.0)
    assert told["norm"] == pytest.approx(float(norm), rel=1e-4)
    optimizer = torch.optim.AdamW(encoders.parameters(), 1e-2 / 3, weight_decay=0.01)
    assert told["rate"] == pytest.approx(1e-2 / 3)
    optimizer.step()
    learned = load_encoders(tmp_path / "pair_1.safetensors").state_dict()
    for name, value in encoders.state_dict().items():
        torch.testing.assert_close(learned[name], value, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("contrast_kind", "step"), [*((kind, 3) for kind in CONTRASTS), ("supcon", 1), ("supcon", 4)]
)
def test_a_pretraining_stopped_and_gone_on_with_was_never_stopped(
    tmp_path: Path, contrast_kind: str, step: int
) -> None:
    settings = with_contrast(contrast_kind)
    with pytest.raises(Stop):
        run_pretraining(tmp_path / "stopped", settings, on_step=stop_at(step))
    assert state(tmp_path / "stopped").step == step
    run_pretraining(tmp_path / "stopped", settings)
    result = run_pretraining(tmp_path / "whole", settings)
    assert_same_end(tmp_path / "stopped", tmp_path / "whole")
    pairs = [load_encoders(tmp_path / at / "pair_6.safetensors") for at in ("stopped", "whole")]
    assert identity(pairs[0]) == identity(pairs[1])
    assert len(result.losses) == 6
    assert result.over


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork, to be quick")
def test_a_killed_pretraining_ends_with_the_bits_of_one_that_was_not(tmp_path: Path) -> None:
    found = subprocess.run(
        [sys.executable, str(HERE / "killed_pretrainings.py"), str(tmp_path), "4", "0"],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parents[1])},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    assert int(found.stdout.splitlines()[-1]) >= 2  # the others fell before the first state


def test_it_learns_which_text_is_of_which_picture(tmp_path: Path) -> None:
    """Chance finds it about once in 36 times; labels say nothing of what the captions say."""
    style_set = flags(160)
    settings = replace(SHORT, steps=40, batch=16, learning_rate=3e-3, validation=40, save_every=0)
    settings = replace(settings, validate_every=40)
    untrained = small(style_set)
    _, held_out = split(read_pairs(style_set, SIDE), 40, 0)
    before = measure(settings, untrained, held_out)
    run_pretraining(tmp_path, settings, style_set=style_set)
    [after] = [one for one in records(tmp_path) if TEXT_TO_IMAGE in one]
    assert before[TEXT_TO_IMAGE] < 0.3
    assert before[IMAGE_TO_TEXT] < 0.3
    assert after[TEXT_TO_IMAGE] > 0.8
    assert after[IMAGE_TO_TEXT] > 0.8
    pair = load_encoders(tmp_path / "pair_40.safetensors")
    images, texts = encode(pair, held_out, 7)
    found = retrieval(images, texts, held_out.captions)
    assert found.text_to_image == pytest.approx(after[TEXT_TO_IMAGE])


def test_contrast_pulls_the_pictures_of_a_label_together(tmp_path: Path) -> None:
    """Plain or striped ones, whatever else they show, also among those it has not seen."""
    style_set = flags(160)
    inner = {"matching": 0, "image_text": 0, "text_image": 0}
    settings = replace(SHORT, steps=40, batch=16, learning_rate=3e-3, validation=40, **inner)
    _, held_out = split(read_pairs(style_set, SIDE), 40, 0)
    labels, pair = held_out.labels.tensor, small(style_set)
    before = gap(encode(pair, held_out, 8)[0], labels)
    run_pretraining(tmp_path, settings, pair, style_set=style_set)
    assert abs(before) < 0.1
    assert gap(encode(pair, held_out, 8)[0], labels) > 0.5


def gap(images: Tensor, labels: Tensor) -> float:
    """By how much pictures of one label are more alike than those of two, in mean cosine."""
    unit = torch.nn.functional.normalize(images, dim=1)
    cosines, same = unit @ unit.T, labels[:, None] == labels
    others = ~torch.eye(len(labels), dtype=torch.bool)
    return (cosines[same & others].mean() - cosines[~same].mean()).item()


def test_the_classifier_is_trained_along_and_not_exported(tmp_path: Path) -> None:
    seen = []
    for steps in (1, 6):
        run_pretraining(tmp_path, replace(with_contrast("classifier"), steps=steps))
        seen.append(state(tmp_path).tensors["classifier.weight"])
    assert not torch.equal(*seen)
    assert load_encoders(tmp_path / "pair_6.safetensors").width == 32


def test_clip_is_trained_at_its_projections_and_its_towers_are_not_saved(tmp_path: Path) -> None:
    encoders = clip()
    before = {name: value.clone() for name, value in encoders.state_dict().items()}
    run_pretraining(tmp_path, SHORT, encoders)
    tensors = state(tmp_path).tensors
    assert {name for name in tensors if name.startswith("encoders.")} == {
        f"encoders.project_{side}.{part}"
        for side in ("images", "texts")
        for part in ("weight", "bias")
    }
    learned = load_encoders(tmp_path / "pair_6.safetensors").state_dict()
    changed = {name for name, value in before.items() if not torch.equal(value, learned[name])}
    assert changed == {
        f"project_{side}.{part}" for side in ("images", "texts") for part in ("weight", "bias")
    }


def test_a_bad_step_is_skipped(tmp_path: Path) -> None:
    encoders = small(FLAGS)
    plain, calls = encoders.images, []

    def spoiled(pixels: Tensor) -> object:
        calls.append(len(pixels))
        found = plain(pixels)
        return found._replace(whole=found.whole * float("nan")) if len(calls) == 2 else found

    encoders.images = spoiled
    run_pretraining(tmp_path, replace(SHORT, validation=0, log_every=1), encoders)
    [told] = [one for one in records(tmp_path) if "warning" in one]
    assert told["step"] == 2
    assert "loss, loss_matching" in told["warning"]
    assert all(v.isfinite().all() for v in state(tmp_path).tensors.values())


def test_a_finished_pretraining_is_not_made_again(tmp_path: Path) -> None:
    result = run_pretraining(tmp_path)
    before = files_of(tmp_path)
    assert run_pretraining(tmp_path) == result
    assert files_of(tmp_path) == before


def test_another_run_is_refused_with_what_differs(tmp_path: Path) -> None:
    with pytest.raises(Stop):
        run_pretraining(tmp_path, on_step=stop_at(3))
    before = files_of(tmp_path)
    text = (
        r"(?s)which has made 3 steps; got other ones:\n  `temperature` was 0\.1, is 0\.2\n"
        r"  the encoders: was '\w{12}', is '\w{12}'\. "
    )
    other = flags(21)
    with pytest.raises(InputError, match=text):
        run_pretraining(
            tmp_path, replace(SHORT, temperature=0.2), small(other, seed=1), style_set=other
        )
    with pytest.raises(InputError, match=r"or labels of the set: was '\w{12}', is '\w{12}'"):
        run_pretraining(tmp_path, SHORT, style_set=flags(22))
    assert files_of(tmp_path) == before
    with pytest.raises(InputError, match="what is taught: was 'a pair of encoders', is 'a style'"):
        run(tmp_path)
    longer = replace(SHORT, steps=8, log_every=1, save_every=1, keep_last=5)
    assert run_pretraining(tmp_path, longer).step == 8


@pytest.mark.parametrize(
    ("style_set", "text"),
    [
        (labelled_set(["a", "", "b"]), "a label for every picture; got none for item_1"),
        (labelled_set(["a", "a"]), "at least two different labels"),
        (labelled_set(["a", "b"], ["", "x"]), "a caption for every picture; got none for item_0"),
        (labelled_set(["a", "b"], ["x", "x " * 70]), "1 too long:\n  item_1: 70 tokens of 64"),
    ],
)
def test_a_set_that_cannot_be_learned_from_is_refused(
    tmp_path: Path, style_set: object, text: str
) -> None:
    with pytest.raises(InputError, match=text):
        run_pretraining(tmp_path, style_set=style_set)
    assert not (tmp_path / "run").exists()


def test_settings_out_of_their_range_are_named() -> None:
    bad = PretrainSettings(
        contrast="triplet", steps=0, batch=1, temperature=0, image_text=-1, validate_every=0
    )
    with pytest.raises(InputError) as caught:
        bad.check()
    names = {"contrast", "steps", "batch", "temperature", "image_text", "validate_every"}
    assert set(caught.value.name.split(", ")) == names
    with pytest.raises(InputError, match="`matching` above 0, where no other loss has a weight"):
        PretrainSettings(contrast="none", matching=0).check()
    PretrainSettings(matching=0).check()


def test_no_pair_is_left_to_train_on(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"`validation`.*19 of 20"):
        pretrain(
            replace(SHORT, validation=19), small(FLAGS), FLAGS, tmp_path / "run", lambda *_: {}
        )


def test_held_out_pairs_that_cannot_be_told_apart_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="`validation`: expected 0, or pairs of at least two"):
        run_pretraining(tmp_path, replace(SHORT, validation=1))
    assert not (tmp_path / "run").exists()
