"""The trainer in a real ComfyUI, on every family that it names: train, save, load, compare."""

import sys
from pathlib import Path

import pytest

KINDS = ("SD15", "SDXL", "SD3", "Flux")


def train_and_compare(host):
    """Everything below in one process."""
    return {
        "runs": {k: _train_through_the_graph(host, k, name=f"small {k}") for k in KINDS},
        "comparisons": {k: _compare_loaded_with_trained(host, k) for k in KINDS},
        "precision": _train_a_half_precision_base(host),
    }


def _train_through_the_graph(host, kind, **settings):
    """One run of the node in a graph; what came out, and what it did to the model on the socket."""
    import comfy.utils
    import folder_paths

    graphs = _helpers()
    given = graphs.sockets(host, kind)
    taken = graphs.serve(host, given)
    before, patches = graphs.draw(given["model"]), dict(given["model"].patches)
    outcome = host.run(graphs.graph(**settings))
    if not outcome.ok:
        return {"ok": False, "error": outcome.error}

    listed = folder_paths.get_filename_list("loras")
    path = folder_paths.get_full_path_or_raise("loras", taken["lora_name"])
    reloaded, unmatched = graphs.load_lora(given["model"], taken["lora_name"])
    after = graphs.draw(reloaded)
    return {
        "ok": True,
        "listed": taken["lora_name"] in listed,
        "tensors": len(comfy.utils.load_torch_file(path)),
        "layers": len(reloaded.patches),
        "unmatched": unmatched,
        "losses": taken["loss_map"]["loss"],
        "changed": float((after - before).abs().max()),
        "same_as_output": bool((graphs.draw(taken["model"]) == after).all()),
        "same_as_lora_model": bool((graphs.draw(_load_model(host, given, taken)) == after).all()),
        "socket_untouched": bool((graphs.draw(given["model"]) == before).all())
        and given["model"].patches == patches
        and not any("lora" in name for name, _ in given["model"].model.named_modules()),
        "texts": [data["text"] for event, data in outcome.messages if event == "progress_text"],
        "shown": outcome.outputs["2"],
        "runs": sorted(p.name for p in (host.base / "output/nsync/runs").iterdir()),
    }


def _train_a_half_precision_base(host):
    """Which dtypes the network's first layer sees at each precision, drawn and trained."""
    import torch

    graphs, found = _helpers(), {}
    for precision in ("fp32", "bf16"):
        given = graphs.sockets(host, "SD15", torch.float16)
        taken = graphs.serve(host, given)
        before, seen = graphs.draw(given["model"]), []
        layer = given["model"].model.diffusion_model.input_blocks[1][0]
        hook = layer.register_forward_pre_hook(lambda _, inputs, seen=seen: seen.append(inputs[0]))
        outcome = host.run(graphs.graph(precision=precision, name=precision, preview_every=0))
        hook.remove()
        found[precision] = {
            "error": outcome.error,
            "seen": sorted({str(value.dtype) for value in seen}),
            "losses": taken["loss_map"]["loss"],
            "lora": sorted({str(value.dtype) for value in taken["lora"].values()}),
            "same": bool((graphs.draw(given["model"]) == before).all()),
            "stored": str(given["model"].model.diffusion_model.out[2].weight.dtype),
        }
    return found


def _helpers():
    sys.path.insert(0, str(Path(__file__).parent))
    import trainer_graph

    return trainer_graph


def _load_model(host, given, taken):
    loader = host.nodes["LoraModelLoader"]
    return loader.execute(given["model"], taken["lora"], 1.0).args[0]


@pytest.fixture(scope="module")
def found(in_host):
    return in_host(train_and_compare, timeout=900)


@pytest.mark.parametrize("kind", KINDS)
def test_train_save_and_load(found, kind):
    done = found["runs"][kind]
    assert done["ok"], done["error"]
    assert done["listed"]
    assert done["tensors"] == 3 * done["layers"] > 0
    assert done["unmatched"] == []
    assert len(done["losses"]) == 1
    assert done["changed"] > 1e-3
    assert done["same_as_output"]
    assert done["same_as_lora_model"]
    assert done["socket_untouched"]
    assert "step 1 of 1 | loss" in done["texts"][-2]
    assert done["texts"][-1].startswith("Saved loras/")
    assert done["shown"]["images"][0]["filename"] == "step_000001.png"


def _compare_loaded_with_trained(host, kind):
    """For each choice of layers: the loss with adapters, and with the file of them loaded."""
    import torch

    lora, checkpoint = host.module("nodes.host.lora"), host.module("nsync.checkpoint")
    adapters, layers = host.module("nsync.adapters"), host.module("nsync.layers")
    denoisers = host.module("nodes.host.adapter")
    graphs = _helpers()
    given = graphs.sockets(host, kind)
    given.pop("style_set")
    names = lora.lora_names(given["model"])
    unet = _diffusers_unet(kind, given["model"])
    found = {}
    with torch.inference_mode(False), torch.no_grad():
        denoiser = denoisers.HostDenoiser(**given)
        inputs = _loss_inputs(denoiser)
        plain = denoiser.loss(*inputs)
        for choice in layers.LAYER_CHOICES:
            chosen = layers.select_layers(denoiser.network, choice)
            checkpoint.check_names(chosen, names)
            networks, start = {"network": denoiser.network}, adapters.fresh(chosen, 4, 2.0, 0)
            with (
                denoiser.trainable(),
                adapters.adapters(networks, start, denoiser.device) as (store, _),
            ):
                _disturb(store.vector.detach())
                expected = denoiser.loss(*inputs)
            weights, alphas = store.named(store.vector.detach()), dict.fromkeys(chosen, 2.0)
            tensors = checkpoint.lora_tensors(weights, names, alphas)
            path = checkpoint.export_file(
                host.base / "output/loras" / f"{kind}.safetensors", tensors, {}
            )
            loaded, unmatched = graphs.load_lora(given["model"], path.name)
            again = denoisers.HostDenoiser(**given | {"model": loaded}).loss(*inputs)
            found[choice] = {
                "layers": len(chosen),
                "patched": len(loaded.patches),
                "unmatched": unmatched,
                "error": float(((again - expected) / expected).abs().max()),
                "effect": float(((plain - expected) / expected).abs().max()),
            }
            if unet is not None:
                found[choice]["diffusers"] = _compare_with_diffusers(unet, loaded, path)
    return found


def _disturb(vector):
    import torch

    source = torch.Generator().manual_seed(0)
    vector.copy_(torch.randn(vector.shape, generator=source) * 0.3)


def _loss_inputs(denoiser):
    import torch

    source = torch.Generator().manual_seed(0)
    channels = denoiser.encode_images(torch.rand(1, 3, 64, 64)).shape[1]
    latents, noise = (torch.randn(2, channels, 8, 8, generator=source) for _ in range(2))
    prompts = denoiser.encode_prompts(["a cat in the style of sks", "a house"])
    return latents, prompts, noise, torch.tensor([0.3, 0.8])


def _diffusers_unet(kind, model):
    import architectures

    return architectures.diffusers_unet(kind, model) if kind in ("SD15", "SDXL") else None


def _pipeline(unet):
    import diffusers

    if unet.config.addition_embed_type is None:
        parts = (None, None, None, unet, None, None, None)
        return diffusers.StableDiffusionPipeline(*parts, requires_safety_checker=False)
    return diffusers.StableDiffusionXLPipeline(None, None, None, None, None, unet, None)


def _compare_with_diffusers(unet, loaded, path):
    """The same file in a diffusers pipeline with the same weights: its layers, and the error."""
    import comfy.model_management
    import torch

    pipeline = _pipeline(unet)
    comfy.model_management.load_models_gpu([loaded])
    source = torch.Generator().manual_seed(0)
    noisy, states = (
        torch.randn(1, 4, 8, 8, generator=source),
        torch.randn(1, 5, 32, generator=source),
    )
    times, pooled = torch.tensor([500.0]), torch.randn(1, 32, generator=source)
    sizes = torch.arange(6.0)[None]
    vector = None
    if unet.config.addition_embed_type:
        vector = torch.cat([pooled, unet.add_time_proj(sizes.flatten()).reshape(1, -1)], 1)
    expected = loaded.model.diffusion_model(noisy, times, context=states, y=vector)
    added = {"text_embeds": pooled, "time_ids": sizes}
    base = unet(noisy, times, states, added_cond_kwargs=added).sample
    pipeline.load_lora_weights(str(path))
    found = unet(noisy, times, states, added_cond_kwargs=added).sample
    size, parameters = float(expected.abs().max()), [name for name, _ in unet.named_parameters()]
    pipeline.unload_lora_weights()
    return {
        "layers": sum(".lora_A." in name for name in parameters),
        "error": float((found - expected).abs().max()) / size,
        "effect": float((found - base).abs().max()) / size,
    }


@pytest.mark.parametrize("kind", KINDS)
def test_what_loaders_read_is_what_was_trained(found, kind):
    compared = found["comparisons"][kind]
    assert len({one["layers"] for one in compared.values()}) == 3
    for one in compared.values():
        assert one["unmatched"] == []
        assert one["layers"] == one["patched"]
        assert one["error"] < 1e-5 < 1e-3 < one["effect"]
        if kind in ("SD15", "SDXL"):
            assert one["diffusers"]["layers"] == one["layers"]
            assert one["diffusers"]["error"] < 1e-5 < 1e-3 < one["diffusers"]["effect"]


def test_precision_is_that_of_the_arithmetic(found):
    found = found["precision"]
    for precision, dtype in (("fp32", "torch.float32"), ("bf16", "torch.bfloat16")):
        assert found[precision] == {
            "error": "",
            "seen": [dtype],
            "losses": found[precision]["losses"],
            "lora": ["torch.float32"],
            "same": True,
            "stored": "torch.float16",
        }
    assert found["bf16"]["losses"] == pytest.approx(found["fp32"]["losses"], rel=0.05)
