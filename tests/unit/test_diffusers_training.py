"""Each family learns by the trainer, and diffusers reads what it learned from the LoRA file."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from small_pipelines import small_flux, small_sd, small_sd3, small_sdxl, small_v, source
from small_runs import QUICK, Exports, run
from tiny_denoiser import tiny_set

from nsync.checkpoint import export_file, lora_tensors
from nsync.denoiser import SamplerSettings
from nsync.errors import InputError
from nsync.layers import EVERYTHING
from nsync.lora_file import match_layers, read_lora
from nsync.pipelines import DiffusersDenoiser
from nsync.settings import BOTH
from nsync.trained import chosen_layers, networks

FAMILIES = [small_sd, small_v, small_sdxl, small_sd3, small_flux]
EVERY = {"layers": EVERYTHING, "text_encoders": True}
SETTINGS = replace(
    QUICK, rule="overlap", steps=12, warmup=0, learning_rate=5e-3, alpha=3.0, times="uniform",
    save_every=0, **EVERY,
)  # fmt: skip
DRAWN = ["a ring in the style of sks"], [7], (32, 32), SamplerSettings(2, 2.0)


def fixed_loss(denoiser, style_set):
    """The mean loss on the set's pictures at fixed noise and times."""
    latents = denoiser.encode_images(torch.stack([item.pixels for item in style_set.items] * 2))
    noise, times = torch.randn(latents.shape, generator=source()), torch.linspace(0.05, 0.9, 6)
    prompts = [style_set.prompt(item) for item in style_set.items] * 2
    with torch.no_grad():
        return float(denoiser.loss(latents, denoiser.encode_prompts(prompts), noise, times).mean())


def parts(denoiser):
    return {n: {k: v.clone() for k, v in m.state_dict().items()} for n, m in
            networks(denoiser).items()}  # fmt: skip


def merged(make, learned):
    """A new pipeline with the LoRA added to its weights by hand, in float64."""
    denoiser = DiffusersDenoiser(make())
    layers = chosen_layers(SETTINGS, denoiser)
    with torch.no_grad():
        for key, alpha in learned.alphas.items():
            down = learned.lora[f"{key}.lora_A"].double()
            up = learned.lora[f"{key}.lora_B"].double()
            weight = layers[key].weight
            added = alpha / len(down) * up.flatten(1) @ down.flatten(1)
            weight += added.reshape(weight.shape)
    return denoiser


@pytest.mark.parametrize("make", FAMILIES)
def test_a_lora_learns_and_diffusers_reads_it(make, tmp_path):
    pipeline, export = make(), Exports(tmp_path)
    denoiser = DiffusersDenoiser(pipeline)
    style_set = tiny_set(tmp_path / "set", base=denoiser.identity)
    before, loss, picture = parts(denoiser), fixed_loss(denoiser, style_set), None
    picture = denoiser.generate(*DRAWN)
    run(tmp_path, SETTINGS, denoiser=denoiser, style_set=style_set, export=export)
    for name, values in parts(denoiser).items():
        assert all(torch.equal(values[key], before[name][key]) for key in values), name
    torch.testing.assert_close(denoiser.generate(*DRAWN), picture, rtol=0, atol=0)

    learned = export.last
    by_hand = merged(make, learned)
    assert fixed_loss(by_hand, style_set) < 0.98 * loss
    wanted = by_hand.generate(*DRAWN)
    assert (wanted - picture).abs().max() > 1e-2

    tensors = lora_tensors(learned.lora, denoiser.lora_names, learned.alphas)
    file = export_file(tmp_path / "style.safetensors", tensors, {})
    pipeline.load_lora_weights(str(tmp_path), weight_name=file.name)
    loaded = denoiser.generate(*DRAWN)
    change = (wanted - picture).norm()
    assert (loaded - wanted).norm() < 1e-3 * change

    other = DiffusersDenoiser(make())
    layers = chosen_layers(SETTINGS, other)
    again = match_layers(read_lora(file), other.lora_spellings, layers)
    assert again.keys() == learned.alphas.keys()


def test_an_embedding_of_every_encoder_learns_alone(tmp_path):
    pipeline, export = small_flux(), Exports(tmp_path)
    denoiser = DiffusersDenoiser(pipeline)
    pipeline.text_encoder_2.requires_grad_(False)
    before = {k: v.clone() for k, v in pipeline.text_encoder_2.state_dict().items()}
    start = denoiser.word_vectors("ring")
    style_set = tiny_set(tmp_path / "set", base=denoiser.identity)
    settings = replace(SETTINGS, trains=BOTH, initial_word="ring", steps=2)
    run(tmp_path, settings, denoiser=denoiser, style_set=style_set, export=export)
    learned = export.last.embedding
    assert list(learned) == ["clip_l", "t5xxl"]
    assert all((learned[name] - start[name]).abs().min() > 1e-4 for name in learned)
    after = pipeline.text_encoder_2.state_dict()
    assert all(torch.equal(after[key], before[key]) for key in before)
    assert not any(":" in key and "t5" in key for key in export.last.alphas)


def test_a_t5_asks_for_no_gradient():
    pipeline = small_flux()
    pipeline.text_encoder_2.requires_grad_(True)
    DiffusersDenoiser(pipeline)
    assert not any(value.requires_grad for value in pipeline.text_encoder_2.parameters())


def saved_lora(make, folder):
    """A LoRA file of a family that diffusers' own `save_lora_weights` would name likewise."""
    denoiser = DiffusersDenoiser(make())
    layers = {k: v for k, v in chosen_layers(SETTINGS, denoiser).items() if ":" not in k}
    weights, alphas = {}, {}
    for key, layer in layers.items():
        shape = layer.weight.shape
        weights[f"{key}.lora_A"] = torch.ones(2, *shape[1:])
        weights[f"{key}.lora_B"] = torch.ones(shape[0], 2, *[1] * len(shape[2:]))
        alphas[key] = 2.0
    tensors = lora_tensors(weights, denoiser.lora_names, alphas)
    return export_file(folder / "lora.safetensors", tensors, {})


@pytest.mark.parametrize(
    ("lora_of", "base"), [(small_flux, small_sd3), (small_sd3, small_sd), (small_sd, small_flux)]
)
def test_a_lora_of_another_family_is_refused(lora_of, base, tmp_path):
    file, denoiser = read_lora(saved_lora(lora_of, tmp_path)), DiffusersDenoiser(base())
    with pytest.raises(InputError, match="LoRA of another model") as error:
        match_layers(file, denoiser.lora_spellings, chosen_layers(SETTINGS, denoiser))
    assert "layers that this model does not have" in str(error.value)


def test_a_scale_is_a_part_of_peft_factors(tmp_path):
    weights = {"a.lora_A": torch.ones(2, 3), "a.lora_B": torch.ones(3, 2)}
    tensors = lora_tensors(weights, {"a": "transformer.a"}, {"a": 3.0})
    kept = load_file(export_file(tmp_path / "x.safetensors", tensors, {}))
    assert kept.keys() == {"transformer.a.lora_A.weight", "transformer.a.lora_B.weight"}
    torch.testing.assert_close(kept["transformer.a.lora_B.weight"], torch.full((3, 2), 1.5))
