"""A LoRA file of any naming means in training what it means to the host and to diffusers."""

import pytest
from questions import answer, ask, once

RANK = 2
KINDS = ("SD15", "SDXL")
HALVES = {
    "kohya": ("{}.lora_down.weight", "{}.lora_up.weight"),
    "PEFT": ("{}.lora_A.weight", "{}.lora_B.weight"),
    "processor": ("{}_lora.down.weight", "{}_lora.up.weight"),
    "text": ("{}.lora_linear_layer.down.weight", "{}.lora_linear_layer.up.weight"),
}


@pytest.fixture
def answers(in_host, installation):
    return once(installation, in_host, ask_everything)


def ask_everything(host):
    return ask(host, QUESTIONS)


def _modules():
    import architectures
    import small_models

    return architectures, small_models


def _sockets(kind):
    families, small = _modules()
    model = families.sockets(kind)[0]
    return model, _two_encoders() if kind == "SDXL" else small.clip()


def _two_encoders():
    import comfy.sd
    import comfy.sdxl_clip
    import comfy.supported_models_base

    _, small = _modules()
    target = comfy.supported_models_base.ClipTarget(
        comfy.sdxl_clip.SDXLTokenizer, comfy.sdxl_clip.SDXLClipModel
    )
    size = {**small.TEXT, "num_hidden_layers": 3}  # the last but one is read, and is not the first
    sizes = {"clip_l_model_config": size, "clip_g_model_config": size}
    return comfy.sd.CLIP(target, model_options=sizes)


def _layers(model, clip):
    """Every linear layer and convolution of the two, by the key that training has for it."""
    import torch

    kinds = (torch.nn.Linear, torch.nn.Conv2d)
    found = {p: m for p, m in model.model.diffusion_model.named_modules() if isinstance(m, kinds)}
    for encoder, whole in clip.cond_stage_model.named_children():
        for path, module in whole.transformer.named_modules():
            if isinstance(module, torch.nn.Linear):
                found[f"{encoder}:{path}"] = module
    return found


def _weight_key(layer):
    """The host's key of a layer's weight."""
    encoder, colon, path = layer.partition(":")
    return f"{encoder}.transformer.{path}.weight" if colon else f"diffusion_model.{layer}.weight"


def _diffusers_paths(model):
    import comfy.utils

    names = comfy.utils.unet_to_diffusers(model.model.model_config.unet_config)
    return {v[: -len(".weight")]: k[: -len(".weight")] for k, v in names.items() if "weight" in k}


def _namings(host, model, clip):
    """Ways to name layers in a file, each from layer to name and the name of its factors."""
    lora = host.module("nodes.host.lora")
    theirs = _diffusers_paths(model)
    layers = _layers(model, clip)
    unet = [path for path in layers if ":" not in path]
    text = [key for key in layers if ":" in key and "text_projection" not in key]
    processors = {
        path: f"unet.{name.replace('.to_', '.processor.to_').removesuffix('.0')}"
        for path, name in theirs.items()
        if ".to_" in name
    }
    encoders = {"clip_l": "text_encoder", "clip_g": "text_encoder_2"}
    return {
        "kohya": ({p: n for p, n in lora.lora_names(model).items() if p in layers}, "kohya"),
        "kohya, original": ({p: f"lora_unet_{p.replace('.', '_')}" for p in unet}, "kohya"),
        "generic": ({p: f"diffusion_model.{p}" for p in unet}, "PEFT"),
        "processors": (processors, "processor"),
        "kohya, text": (lora.text_lora_names(clip), "kohya"),
        "generic, text": ({k: f"text_encoders.{_weight_key(k)[:-7]}" for k in text}, "PEFT"),
        "diffusers, text": (
            {k: f"{encoders[k.partition(':')[0]]}.{k.partition(':')[2]}" for k in text},
            "text",
        ),
    }


def _tensors(layers, names, halves):
    """Random factors and an alpha of its own for every layer that has a name."""
    import torch

    source, tensors = torch.Generator().manual_seed(3), {}
    down_name, up_name = HALVES[halves]
    for key, name in names.items():
        shape = layers[key].weight.shape
        ones = [1] * len(shape[2:])
        tensors[down_name.format(name)] = torch.randn(RANK, *shape[1:], generator=source)
        tensors[up_name.format(name)] = torch.randn(shape[0], RANK, *ones, generator=source)
        tensors[f"{name}.alpha"] = torch.rand((), generator=source) * 4 + 0.1
    return tensors


def _saved(host, tensors):
    import safetensors.torch

    path = host.base / "output" / "existing.safetensors"
    safetensors.torch.save_file(tensors, path)
    return path


def _ours(host, path, model, clip):
    """What training would start from, as weights by layer."""
    lora, files = host.module("nodes.host.lora"), host.module("nsync.lora_file")
    names, fused = lora.lora_spellings(model, clip), lora.fused_spellings(model, clip)
    found = files.match_layers(files.read_lora(path), names, _layers(model, clip), fused)
    return {
        key: part.alpha / len(part.down) * part.up.flatten(1) @ part.down.flatten(1)
        for key, part in found.items()
    }


def _hosts(path, model, clip, strength=1.0):
    """What the host's own Load LoRA adds to every weight, by the host's key."""
    import comfy.lora
    import comfy.sd
    import comfy.utils
    import torch

    lora = comfy.utils.load_torch_file(str(path), safe_load=True)
    patched, text = comfy.sd.load_lora_for_models(model, clip, lora, strength, strength)
    found = {}
    for patcher in (patched, text.patcher):
        shapes = {key: value.shape for key, value in patcher.model.state_dict().items()}
        for key, patches in patcher.patches.items():
            added = comfy.lora.calculate_weight(patches, torch.zeros(shapes[key]), key)
            found[key] = added.flatten(1)
    return found


def _gap(ours, theirs):
    """The greatest relative difference, of the layers that either has; infinite if one lacks one"""
    if set(ours) != set(theirs) or not ours:
        return float("inf")
    return max(float((ours[k] - v).abs().max() / v.abs().max()) for k, v in theirs.items())


def _told(action):
    try:
        action()
    except ValueError as error:
        return f"{type(error).__name__} {error}"
    return ""


# --- the host's loader ----------------------------------------------------------------------------


def weights_in_every_naming(host):
    found = {}
    for kind in KINDS:
        model, clip = _sockets(kind)
        layers = _layers(model, clip)
        for naming, (names, halves) in _namings(host, model, clip).items():
            path = _saved(host, _tensors(layers, names, halves))
            ours = _ours(host, path, model, clip)
            theirs = _hosts(path, model, clip)
            gap = _gap({_weight_key(key): value for key, value in ours.items()}, theirs)
            order = [key for key in layers if key in ours]
            found[f"{kind}, {naming}"] = {
                "gap": gap,
                "layers": len(ours),
                "named": len(names),
                "in order": list(ours) == order,
            }
    return found


def test_every_naming_is_read_as_the_host_reads_it(answers):
    found = answer(answers, weights_in_every_naming)
    for naming, seen in found.items():
        assert seen["gap"] < 1e-6, (naming, seen)
        assert seen["layers"] == seen["named"] > 10, (naming, seen)
        assert seen["in order"], naming
    assert len(found) == 14


# --- diffusers ------------------------------------------------------------------------------------


def _text_encoders(kind):
    import transformers.integrations.peft
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    # transformers may ask for a newer PEFT than this project does.
    transformers.integrations.peft.check_peft_version = lambda min_version: None
    _, small = _modules()
    depth = 3 if kind == "SDXL" else 2
    config = CLIPTextConfig(**{**small.TEXT, "num_hidden_layers": depth, "projection_dim": 32})
    encoders = {"text_encoder": CLIPTextModel(config)}
    if kind == "SDXL":
        encoders["text_encoder_2"] = CLIPTextModelWithProjection(config)
    return encoders


def _pipeline(kind, unet, encoders):
    from diffusers import DDIMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline

    if kind == "SD15":
        encoder, schedule = encoders["text_encoder"], DDIMScheduler()
        return StableDiffusionPipeline(
            None, encoder, None, unet, schedule, None, None, requires_safety_checker=False
        )
    both = encoders["text_encoder"], encoders["text_encoder_2"]
    return StableDiffusionXLPipeline(None, *both, None, None, unet, DDIMScheduler())


def _theirs(unet, encoders, model):
    """The weights of the LoRA in diffusers' models, by our layers."""
    from peft.tuners.lora import LoraLayer

    ours = {theirs: path for path, theirs in _diffusers_paths(model).items()}
    found = {
        ours[path]: layer.get_delta_weight(layer.active_adapters[0]).flatten(1)
        for path, layer in unet.named_modules()
        if isinstance(layer, LoraLayer)
    }
    for encoder, key in zip(encoders.values(), ("clip_l", "clip_g"), strict=False):
        for path, layer in encoder.named_modules():
            if isinstance(layer, LoraLayer):
                old = path.replace("text_model.", "").replace("encoder.", "text_model.encoder.")
                found[f"{key}:{old}"] = layer.get_delta_weight(layer.active_adapters[0])
    return {key: value.detach() for key, value in found.items()}


def files_from_diffusers(host):
    """A LoRA trained and saved by diffusers, alpha not the rank, continued here."""
    from diffusers.training_utils import _collate_lora_metadata
    from peft import LoraConfig, get_peft_model_state_dict

    families, _ = _modules()
    found = {}
    for kind in KINDS:
        model, clip = _sockets(kind)
        unet, encoders = families.diffusers_unet(kind, model), _text_encoders(kind)
        config = {"r": 4, "lora_alpha": 3, "init_lora_weights": False}
        words = ["to_q", "to_out.0", "proj_in", "ff.net.2", "conv1", "conv_shortcut"]
        unet.add_adapter(LoraConfig(target_modules=words, alpha_pattern={"to_q": 7}, **config))
        for encoder in encoders.values():
            encoder.add_adapter(LoraConfig(target_modules=["q_proj", "fc2"], **config))
        parts = {"unet": unet, **encoders}
        states = {f"{n}_lora_layers": get_peft_model_state_dict(p) for n, p in parts.items()}
        told = _collate_lora_metadata(parts)
        pipeline = _pipeline(kind, unet, encoders)
        pipeline.save_lora_weights(str(host.base / "output"), **states, **told)
        path = host.base / "output" / "pytorch_lora_weights.safetensors"
        theirs, ours = _theirs(unet, encoders, model), _ours(host, path, model, clip)
        found[kind] = {"gap": _gap(ours, theirs), "layers": len(ours)}
        unet.save_lora_adapter(str(host.base / "output"), adapter_name="default")
        theirs, ours = _theirs(unet, {}, model), _ours(host, path, model, clip)
        found[f"{kind}, the UNet alone"] = {"gap": _gap(ours, theirs), "layers": len(ours)}
    return found


def test_a_file_of_diffusers_has_the_weights_it_was_trained_to(answers):
    found = answer(answers, files_from_diffusers)
    assert len(found) == 4
    for kind, seen in found.items():
        assert seen["gap"] < 1e-6, (kind, seen)
        assert seen["layers"] > 50, (kind, seen)


def names_of_text_layers(host):
    """Text layers under our names, read by diffusers."""
    import torch

    families, _ = _modules()
    found = {}
    for kind in KINDS:
        model, clip = _sockets(kind)
        unet, encoders = families.diffusers_unet(kind, model), _text_encoders(kind)
        names = host.module("nodes.host.lora").text_lora_names(clip)
        tensors = _tensors(_layers(model, clip), names, "kohya")
        # One alpha, as in our files: diffusers mixes up those of text layers if they differ.
        tensors |= {key: torch.tensor(3.0) for key in tensors if key.endswith(".alpha")}
        path = _saved(host, tensors)
        _pipeline(kind, unet, encoders).load_lora_weights(str(path))
        ours, theirs = _ours(host, path, model, clip), _theirs(unet, encoders, model)
        found[kind] = {"gap": _gap(ours, theirs), "names": names}
    return found


def test_text_layers_have_names_that_diffusers_reads(answers):
    found = answer(answers, names_of_text_layers)
    for kind, prefixes in (
        ("SD15", {"clip_l": "lora_te_"}),
        ("SDXL", {"clip_l": "lora_te1_", "clip_g": "lora_te2_"}),
    ):
        assert found[kind]["gap"] < 1e-6, kind
        names = found[kind]["names"]
        assert len(names) == len(set(names.values())) == (12 if kind == "SD15" else 37)
        for key, name in names.items():
            encoder, _, path = key.partition(":")
            assert name == prefixes[encoder] + path.replace(".", "_")


# --- the host's own trainer -----------------------------------------------------------------------


def file_of_the_hosts_trainer(host):
    """What ComfyUI's trainer saves: an alpha that it trained, and differences of norms and biases.

    Its own way back in takes every alpha for 1; there, `x.alpha` is looked up as `x.weight.alpha`.
    """
    import torch
    from comfy_extras.nodes_train import _setup_lora_adapters

    model, clip = _sockets("SD15")
    lora, adapters = _setup_lora_adapters(model.clone(), {}, "LoRA", torch.float32, RANK)
    source = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for key, value in lora.items():
            offset = 2.0 if key.endswith(".alpha") else 0.0
            value.copy_(torch.randn(value.shape, generator=source) * 0.1 + offset)
    lora = {key: value.detach() for key, value in lora.items()}
    low_rank = {key: value for key, value in lora.items() if ".diff" not in key}
    trained = [adapter for adapter in adapters if hasattr(adapter, "lora_up")]
    alphas = [float(adapter.alpha) for adapter in trained]
    refused = _told(lambda: _ours(host, _saved(host, lora), model, clip))
    path = _saved(host, low_rank)
    ours = {_weight_key(key): value for key, value in _ours(host, path, model, clip).items()}
    layers = {_weight_key(key): layer for key, layer in _layers(model, clip).items()}
    in_training = [
        adapter(torch.zeros_like(layers[key].weight)).detach().flatten(1)
        for key, adapter in zip(_trained_keys(low_rank), trained, strict=True)
    ]
    theirs = dict(zip(_trained_keys(low_rank), in_training, strict=True))
    return {
        "refused": refused,
        "gap to training": _gap(ours, theirs),
        "gap to loading": _gap(ours, _hosts(path, model, clip)),
        "alphas": [min(alphas), max(alphas)],
        "differences": len(lora) - len(low_rank),
    }


def _trained_keys(lora):
    return [f"{k.removesuffix('.alpha')}.weight" for k in lora if k.endswith(".alpha")]


def test_the_hosts_trainer_is_continued_at_its_own_scale(answers):
    seen = answer(answers, file_of_the_hosts_trainer)
    assert seen["gap to training"] < 1e-6, seen
    assert seen["gap to loading"] < 1e-6, seen
    assert 1.5 < seen["alphas"][0] < 2 < seen["alphas"][1] < 2.5


def test_the_hosts_differences_of_norms_are_not_dropped(answers):
    seen = answer(answers, file_of_the_hosts_trainer)
    told = f"existing.safetensors with full difference weights: {seen['differences']} ("
    assert seen["refused"].startswith("InputError `start_from`: expected")
    assert told in seen["refused"]
    assert seen["differences"] > 100


# --- what does not fit ----------------------------------------------------------------------------


def files_that_do_not_fit(host):
    families, _ = _modules()
    sd15, clip = _sockets("SD15")
    sdxl, _ = _sockets("SDXL")
    flux = families.sockets("Flux")[0]

    def told(name, model, shape=(8, 8)):
        import torch

        factors = {
            f"{name}.lora_A.weight": torch.ones(RANK, shape[1]),
            f"{name}.lora_B.weight": torch.ones(shape[0], RANK),
        }
        return _told(lambda: _ours(host, _saved(host, factors), model, clip))

    return {
        "other model": told("lora_unet_double_blocks_0_img_attn_qkv", sd15),
        "other family": told("lora_unet_input_blocks_8_1_proj_in", sdxl),
        "fused": told("transformer.transformer_blocks.0.attn.to_q", flux),
        "whole": told("lora_unet_double_blocks_0_img_attn_qkv", flux, (192, 64)),
        "shape": told("lora_unet_input_blocks_1_1_proj_in", sd15),
    }


def test_a_file_that_does_not_fit_is_an_error(answers):
    seen = answer(answers, files_that_do_not_fit)
    parts = {
        "other model": "layers that this model does not have: 1 (lora_unet_double",
        "other family": "layers",
        "fused": "parts of fused layers: 1 (transformer.transformer_blocks.0.attn.to_q)",
        "shape": "layers of another shape: 1 (lora_unet_input_blocks_1_1_proj_in with [2, 8]",
    }
    assert seen.pop("whole") == ""
    for name, part in parts.items():
        assert seen[name].startswith("InputError `start_from`: expected a LoRA of this model"), name
        assert part in seen[name], seen[name]


QUESTIONS = (
    weights_in_every_naming,
    files_from_diffusers,
    names_of_text_layers,
    file_of_the_hosts_trainer,
    files_that_do_not_fit,
)
