"""A model's file is enough to paint from, to the bit, and says what it lacks."""

import json
import os
from dataclasses import replace

import pytest
import torch
from gan_runs import GALIP, QUICK, SSA_GAN, painter, run_gan, small_encoders, small_pairs, vision
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from supcon_sets import clip

from nsync.errors import InputError
from nsync.supcon.encoder_file import KINDS, save_encoders
from nsync.supcon.gan.averaging import Average
from nsync.supcon.gan.model_file import (
    describe,
    family_from,
    load_model,
    model_metadata,
    save_model,
)
from nsync.supcon.gan.sampler import generate
from nsync.supcon.gan.training import run_config

PROMPTS, SEEDS = ["a red dot", "two green lines"], [1, 2]
ENCODERS = {"small": small_encoders, "clip": lambda: clip().eval().requires_grad_(False)}


def saved(path, family=SSA_GAN, encoders=None):
    """Save a generator; what it paints before."""
    encoders = encoders or small_encoders()
    tower = vision() if family.needs_vision else None
    average = Average(painter(family, tower)).network
    training = run_config(QUICK, family, encoders, small_pairs(), tower) | {"steps": 6}
    save_model(
        path, average.state_dict(), family, encoders, title="dots", training=training, vision=tower
    )
    return generate(average, encoders, PROMPTS, SEEDS)


def test_every_kind_of_encoders_is_tried_here():
    assert ENCODERS.keys() == KINDS.keys()


@pytest.mark.parametrize("kind", ENCODERS)
@pytest.mark.parametrize("family", [SSA_GAN, GALIP], ids=["SSA-GAN", "GALIP"])
def test_it_paints_the_same_from_the_file_alone(tmp_path, family, kind):
    path = tmp_path / "model.safetensors"
    encoders = ENCODERS[kind]()
    before = saved(path, replace(family, text_width=encoders.width), encoders)
    state = torch.random.get_rng_state()
    model = load_model(path)
    assert torch.equal(torch.random.get_rng_state(), state)
    after = generate(model.generator, model.encoders, PROMPTS, SEEDS)
    assert torch.equal(before, after)
    assert model.family == replace(family, text_width=encoders.width)
    assert model.labels == ("dots", "lines")
    assert model.training["steps"] == 6
    assert model.training["settings"] == QUICK.as_dict()
    weights = [*model.generator.parameters(), *model.encoders.parameters()]
    assert not any(value.requires_grad for value in weights)
    assert not model.generator.training


def test_what_encoders_have_for_pictures_is_not_saved(tmp_path):
    saved(tmp_path / "model.safetensors")
    names = load_file(tmp_path / "model.safetensors")
    assert any(name.startswith("encoders.text_encoder.") for name in names)
    assert not any("image_encoder" in name for name in names)


def test_the_file_says_what_it_is(tmp_path):
    path = tmp_path / "model.safetensors"
    saved(path)
    told = model_metadata(path)
    assert told["family"] == describe(SSA_GAN)
    assert told["vision"] is None
    assert told["encoders"]["config"]["vocabulary"] == small_encoders().config["vocabulary"]
    with safe_open(path, "pt") as file:
        assert file.metadata()["modelspec.title"] == "dots"


@pytest.mark.parametrize("family", [SSA_GAN, GALIP], ids=["SSA-GAN", "GALIP"])
def test_families_are_told_and_made_of_json(family):
    assert family_from(json.loads(json.dumps(describe(family)))) == family


def test_a_run_exports_what_can_be_loaded(tmp_path):
    encoders, path = small_encoders(), tmp_path / "model.safetensors"

    def export(learned, steps):
        training = run_config(QUICK, SSA_GAN, encoders, small_pairs()) | {"steps": steps}
        save_model(path, learned["average"], SSA_GAN, encoders, title="dots", training=training)
        return {"model": path}

    painted = []

    def preview(done, average):
        painted.append(generate(average, encoders, PROMPTS, SEEDS))

    settings = replace(QUICK, steps=2, preview_every=2)
    run_gan(tmp_path, settings, encoders=encoders, export=export, preview=preview)
    model = load_model(path)
    assert torch.equal(generate(model.generator, model.encoders, PROMPTS, SEEDS), painted[-1])


def changed(path, tensors=None, **told):
    """The file with other tensors, or saying other things of itself."""
    found = load_file(path)
    metadata = {"nsync.t2i_gan": json.dumps(model_metadata(path) | told)}
    save_file(tensors(found) if tensors else found, path, metadata)


@pytest.mark.parametrize(
    ("tensors", "text"),
    [
        (lambda t: {k: v for k, v in t.items() if k != "generator.start.bias"}, "1 missing, such"),
        (lambda t: t | {"generator.more": torch.zeros(1)}, "1 left over, such as generator.more"),
        (lambda t: t | {"vision.more": torch.zeros(1)}, "1 left over, such as vision.more"),
        (lambda t: t | {"generator.start.bias": torch.zeros(3)}, "1 of another shape, such as gen"),
    ],
)
def test_tensors_that_are_not_the_models_are_named(tmp_path, tensors, text):
    path = tmp_path / "model.safetensors"
    saved(path)
    changed(path, tensors)
    with pytest.raises(InputError, match=rf"model.safetensors`: expected the tensors.*{text}"):
        load_model(path)


@pytest.mark.parametrize(
    ("told", "text"),
    [
        ({"version": 2}, "version 1 of its file format; got version 2"),
        ({"family": {"name": "StyleGAN"}}, "description that is none.*StyleGAN"),
        ({"family": {"name": "SSA-GAN", "depth": 3}}, "description that is none.*depth"),
        ({"family": describe(SSA_GAN) | {"width": 0}}, "width"),
        ({"encoders": {"kind": "other", "config": {}}}, "description that is none.*other"),
        ({"training": {}}, "description that is none.*labels"),
    ],
)
def test_a_file_that_says_what_cannot_be_is_one_error(tmp_path, told, text):
    path = tmp_path / "model.safetensors"
    saved(path)
    changed(path, **told)
    with pytest.raises(InputError, match=text):
        load_model(path)


def test_other_files_are_one_error(tmp_path):
    rule = "a text-to-image GAN saved by the SupCon GAN Trainer"
    with pytest.raises(InputError, match=rf"{rule}.*No such file"):
        load_model(tmp_path / "none.safetensors")
    (tmp_path / "text.safetensors").write_text("no tensors in here, only words")
    with pytest.raises(InputError, match=rule):
        load_model(tmp_path / "text.safetensors")
    save_encoders(tmp_path / "encoders.safetensors", small_encoders(), title="dots")
    with pytest.raises(InputError, match=rf"{rule}.*Is it a LoRA, a checkpoint, or encoders"):
        model_metadata(tmp_path / "encoders.safetensors")


def test_a_file_cut_short_is_one_error(tmp_path):
    path = tmp_path / "model.safetensors"
    saved(path)
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(InputError, match="saved by the SupCon GAN Trainer"):
        load_model(path)
