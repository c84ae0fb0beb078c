"""A LoRA under the names of `DiffusersDenoiser.lora_names` is read by diffusers, layer by layer."""

import pytest
import torch
from peft.tuners.lora import LoraLayer
from safetensors.torch import save_file
from small_pipelines import small_sd, small_sdxl, source

from nsync.adapters import split_key
from nsync.checkpoint import lora_tensors
from nsync.cli.runs import load_lora
from nsync.errors import InputError
from nsync.pipelines.denoiser import DiffusersDenoiser
from nsync.settings import TrainSettings
from nsync.trained import chosen_layers, networks

RANK, ALPHA = 2, 3.0


def written(denoiser, path):
    """A random LoRA of the attention layers, in the file; its factors by key."""
    layers = chosen_layers(TrainSettings(text_encoders=True), denoiser)
    weights, draw = {}, source(4)
    for key, layer in layers.items():
        weights[f"{key}.lora_A"] = torch.randn(RANK, layer.in_features, generator=draw)
        weights[f"{key}.lora_B"] = torch.randn(layer.out_features, RANK, generator=draw)
    save_file(lora_tensors(weights, denoiser.lora_names, dict.fromkeys(layers, ALPHA)), path)
    return weights


@pytest.mark.parametrize("make", [small_sd, small_sdxl])
def test_diffusers_puts_every_factor_where_it_was_trained(make, tmp_path):
    denoiser = DiffusersDenoiser(make())
    weights = written(denoiser, tmp_path / "lora.safetensors")
    pipeline = make()
    pipeline.load_lora_weights(tmp_path, weight_name="lora.safetensors")
    found = {}
    for name, network in networks(DiffusersDenoiser(pipeline)).items():
        for path, layer in network.named_modules():
            if isinstance(layer, LoraLayer):
                [adapter] = layer.lora_A
                found[name, path] = layer.get_delta_weight(adapter)
    keys = {key.rpartition(".")[0] for key in weights}
    assert set(found) == {split_key(key) for key in keys}
    assert len({name for name, _ in found}) == len(networks(denoiser))
    for key in keys:
        wanted = ALPHA / RANK * weights[f"{key}.lora_B"] @ weights[f"{key}.lora_A"]
        torch.testing.assert_close(found[split_key(key)], wanted)


def test_the_file_is_read_back_by_its_names(tmp_path):
    denoiser, file = DiffusersDenoiser(small_sdxl()), tmp_path / "lora.safetensors"
    weights = written(denoiser, file)
    for key, one in load_lora(file, denoiser).items():
        assert torch.equal(one.down, weights[f"{key}.lora_A"])
        assert torch.equal(one.up, weights[f"{key}.lora_B"])
        assert one.alpha == ALPHA
    with pytest.raises(InputError, match="Is it a LoRA of another model"):
        load_lora(file, DiffusersDenoiser(small_sd()))
