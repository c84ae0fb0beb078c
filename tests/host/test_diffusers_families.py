"""One base by two doors: the host's objects and a diffusers pipeline of the same weights have the
same losses, gradients and pictures, and a LoRA file changes both alike."""

import pytest
from questions import answer, ask, once

pytestmark = pytest.mark.newest

UNETS, TRANSFORMERS = ("SD15", "SDXL"), ("SD3", "Flux")
FAMILIES = UNETS + TRANSFORMERS
SINGLE = ("SD15", "SDXL", "SD3")  # diffusers converts single files of Flux at full width only
TEXTS = ["a fox in the style of sks", "a boat", "a red hill"]
SIDE = 64


@pytest.fixture
def answers(in_host, installation):
    return once(installation, in_host, ask_everything)


def ask_everything(host):
    return ask(host, QUESTIONS)


def _doors(host, family):
    """(the sockets, the host's denoiser, the pipeline's) of one base."""
    import diffusers_models as models
    import torch

    torch.manual_seed(0)
    given = models.sockets(family)
    place = host.base / "pipelines" / family
    config, file = models.folder(family, given, place), place.with_suffix(".safetensors")
    load = host.module("nsync.pipelines.loading").load
    if family in SINGLE:
        theirs = load(models.single_file(given, config, file), config)
    else:
        models.autoencoder(given, config, file)
        theirs = load(config)
    ours = host.module("nodes.host.adapter").HostDenoiser(*given)
    if family in TRANSFORMERS:  # the text encoders are not the same: what they say is
        theirs._family.rows = lambda texts, words: [
            {"states": row["cross_attn"][0], "pooled": row["pooled_output"][0]}
            for row in ours.encode_prompts(texts)
        ]
    return given, ours, theirs


def _layers(host, model, theirs):
    """The host's layer of each of the pipeline's that is one there as well, by key."""
    known = host.module("nodes.host.lora").lora_spellings(model)
    return {key: known[n] for key, n in theirs.lora_names.items() if n in known and ":" not in key}


def same_numbers(host):
    """Losses, and each branch's gradient of the same adapters."""
    import architectures
    import gradients
    import torch

    found = {}
    settings = host.module("nsync.settings").TrainSettings(
        rank=2, alpha=3.0, batch=2, branches="fused",
        layers="attention and feed-forward",
    )  # fmt: skip
    for family in FAMILIES:
        (model, _, _), ours, theirs = _doors(host, family)
        channels = architectures.LATENT_CHANNELS[family]
        source = torch.Generator().manual_seed(1)
        latents, noise = torch.randn(2, 3, channels, 8, 8, generator=source)
        times = torch.tensor([0.031, 0.4, 0.77])
        losses = [
            one.loss(latents, one.encode_prompts(TEXTS), noise, times).detach()
            for one in (ours, theirs)
        ]
        for network in (ours.network, theirs.network):
            gradients.well_conditioned(network)
        layers = _layers(host, model, theirs)
        start = gradients.disturbed(host, settings, theirs)
        start = {key: one for key, one in start.items() if key in layers}
        at_host = {layers[key]: one for key, one in start.items()}
        given = gradients.batches(host, channels, side=8)
        theirs.trainable = _as_it_is
        right, _ = gradients.by_passes(host, ours, settings, given, at_host)
        seen, _ = gradients.by_passes(host, theirs, settings, given, start)
        expected = {branch: _renamed(values, layers, start) for branch, values in right.items()}
        found[family] = {
            "losses": [value.tolist() for value in losses],
            "gap": gradients.gap(seen, expected),
            "apart": gradients.gap({"p": seen["positive"]}, {"p": seen["negative"]}),
            "layers": len(start),
            "text": _text_names(host, family, theirs),
            "sizes": [ours.size_multiple, theirs.size_multiple],
        }
    return found


def _as_it_is(text=False):
    from contextlib import nullcontext

    return nullcontext()


def _renamed(values, layers, start):
    """The host's gradients by the pipeline's keys, in its order."""
    return {
        f"lora {key}.lora_{half}": values[f"lora {layers[key]}.lora_{half}"]
        for key in start
        for half in "AB"
    }


def test_both_doors_compute_the_same(answers):
    found = answer(answers, same_numbers)
    assert list(found) == list(FAMILIES)
    for family, seen in found.items():
        ours, theirs = seen["losses"]
        assert theirs == pytest.approx(ours, rel=1e-4), family
        assert seen["gap"] < 1e-4 < 0.1 < seen["apart"], (family, seen)
        assert seen["layers"] >= 5, family
        assert seen["sizes"][0] == seen["sizes"][1], family


def same_pictures(host):
    """Drawn from the same latents and noise, without and with a LoRA on every layer."""
    import trainer_graph as graphs

    found = {}
    for family in FAMILIES:
        (model, clip, vae), _, theirs = _doors(host, family)
        tensors = _lora(host, theirs, text=family in UNETS)
        name = f"two doors {family}.safetensors"
        folder = host.base / "output" / "loras"
        host.module("nsync.checkpoint").export_file(folder / name, tensors, {})
        shifted = _shifted(family, model)
        if family in UNETS:
            loaded, missed = graphs.load_lora(shifted, name, clip)
        else:
            patched, missed = graphs.load_lora(shifted, name)
            loaded = patched, clip
        build = host.module("nodes.host.adapter").HostDenoiser
        start = theirs.encode_images(_picture())
        before = [_drawn(host, family, one, start) for one in (build(shifted, clip, vae), theirs)]
        theirs._pipeline.load_lora_weights(str(folder), weight_name=name)
        after = [_drawn(host, family, one, start) for one in (build(*loaded, vae), theirs)]
        changes = [now - then for now, then in zip(after, before, strict=True)]
        found[family] = {
            "missed": missed,
            "base": float((before[0] - before[1]).abs().max()),
            "change": float(changes[0].abs().max()),
            "gap": float((changes[0] - changes[1]).norm() / changes[0].norm()),
            "pairs": sum(".lora_down." in key or ".lora_A." in key for key in tensors),
        }
    return found


def _shifted(family, model):
    """Flux as the pipeline draws it: the times of a picture of this size."""
    if family != "Flux":
        return model
    from comfy_extras.nodes_model_advanced import ModelSamplingFlux

    return ModelSamplingFlux().patch(model, 1.15, 0.5, SIDE, SIDE)[0]


def _picture():
    import torch

    return torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def _drawn(host, family, denoiser, start):
    # By "normal" the host ends Flux at a tenth of the noise that diffusers ends it at.
    scheduler = "simple" if family == "Flux" else "normal"
    settings = host.module("nsync.denoiser").SamplerSettings(2, 2.0, "euler", scheduler)
    given = {"negative_prompt": "no", "latents": start, "denoise": 0.5}
    return denoiser.generate(TEXTS[:1], [5], (SIDE, SIDE), settings, **given)


def _lora(host, denoiser, text):
    """Random factors on every layer that a run can train."""
    import torch

    settings = host.module("nsync.settings").TrainSettings(
        layers="all linear and convolution", text_encoders=text
    )
    source, weights, alphas = torch.Generator().manual_seed(3), {}, {}
    for key, layer in host.module("nsync.trained").chosen_layers(settings, denoiser).items():
        shape = layer.weight.shape
        ones = [1] * len(shape[2:])
        weights[f"{key}.lora_A"] = 0.1 * torch.randn(2, *shape[1:], generator=source)
        weights[f"{key}.lora_B"] = 0.1 * torch.randn(shape[0], 2, *ones, generator=source)
        alphas[key] = 3.0
    make = host.module("nsync.checkpoint").lora_tensors
    return make(weights, denoiser.lora_names, alphas)


def test_a_lora_file_changes_both_alike(answers):
    found = answer(answers, same_pictures)
    assert list(found) == list(FAMILIES)
    for family, seen in found.items():
        assert seen["base"] < 1e-4, (family, seen)
        assert seen["gap"] < 1e-3 < 1e-2 < seen["change"], (family, seen)
        assert seen["missed"] == [], (family, seen)


def _text_names(host, family, theirs):
    """Of our names for the text encoders' layers: those that the host's own map does not know, and
    those that it knows for another encoder's."""
    import comfy.lora
    import text_models

    settings = host.module("nsync.settings").TrainSettings(
        layers="all linear and convolution", text_encoders=True
    )
    known = comfy.lora.model_lora_keys_clip(text_models.clip(family).cond_stage_model, {})
    chosen = host.module("nsync.trained").chosen_layers(settings, theirs)
    names = {key: theirs.lora_names[key] for key in chosen if ":" in key}
    return {
        "unknown": [name for name in names.values() if name not in known],
        "encoders": sorted({key.partition(":")[0] for key in names}),
        "swapped": [k for k, n in names.items() if known.get(n, k)[:6] != k[:6]],
    }


def test_the_host_knows_the_layers_of_text_encoders(answers):
    found = {family: seen["text"] for family, seen in answer(answers, same_numbers).items()}
    assert found["SDXL"] == found["SD3"]
    assert found["SD15"] == found["Flux"]
    assert found["SD3"] == {"unknown": [], "encoders": ["clip_g", "clip_l"], "swapped": []}
    assert found["Flux"] == {"unknown": [], "encoders": ["clip_l"], "swapped": []}


QUESTIONS = (same_numbers, same_pictures)
