"""The exported LoRA: diffusers reads every key of it, and it says what it is."""

import errno
import json
import shutil
from pathlib import Path

import pytest
import torch
from denoisers import SmallDenoiser, small_set
from diffusers import (
    DDIMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from nsync import files
from nsync.adapters import NETWORK, adapters, fresh
from nsync.checkpoint import (
    check_names,
    check_room,
    embedding_tensors,
    export_file,
    lora_tensors,
    metadata,
)
from nsync.errors import InputError
from nsync.layers import ATTENTION, LAYER_CHOICES, select_layers
from nsync.settings import TrainSettings
from nsync.training import run_config

CPU = torch.device("cpu")
SD15 = {
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    "block_out_channels": (32, 32, 64, 64),
    "layers_per_block": 2,
    "attention_head_dim": 8,
}
SDXL = {
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (32, 32, 64),
    "layers_per_block": 2,
    "transformer_layers_per_block": (1, 2, 3),
    "attention_head_dim": (4, 4, 8),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 8 * 6 + 16,
}


def kohya_names(layers: dict[str, nn.Module]) -> dict[str, str]:
    """What the host's naming gives for a UNet, here from diffusers' own paths."""
    added = {"add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2"}
    return {p: f"lora_unet_{added.get(p, p).replace('.', '_')}" for p in layers}


def predict(unet: UNet2DConditionModel) -> Tensor:
    source = torch.Generator().manual_seed(0)
    added = {
        "text_embeds": torch.randn(1, 16, generator=source),
        "time_ids": torch.arange(6)[None].float(),
    }
    return unet(
        torch.randn(1, 4, 16, 16, generator=source),
        torch.tensor([500.0]),
        torch.randn(1, 5, 32, generator=source),
        added_cond_kwargs=added,
    ).sample


def pipeline(kind: str, unet: UNet2DConditionModel) -> nn.Module:
    if kind == "sd15":
        return StableDiffusionPipeline(
            None, None, None, unet, DDIMScheduler(), None, None, requires_safety_checker=False
        )
    return StableDiffusionXLPipeline(None, None, None, None, None, unet, DDIMScheduler())


@pytest.mark.parametrize("choice", LAYER_CHOICES)
@pytest.mark.parametrize(("kind", "config"), [("sd15", SD15), ("sdxl", SDXL)])
@torch.no_grad()
def test_diffusers_reads_every_key_and_predicts_the_same(
    tmp_path: Path, kind: str, config: dict, choice: str
) -> None:
    torch.manual_seed(0)
    unet = UNet2DConditionModel(cross_attention_dim=32, norm_num_groups=8, **config).eval()
    base = predict(unet)
    layers = select_layers(unet, choice)
    start = fresh(layers, 4, 2.0, 0)
    with adapters({NETWORK: unet}, start, CPU) as (store, _):
        store.vector.copy_(torch.randn(store.vector.shape) * 0.05)
        expected = predict(unet)
        weights = store.named(store.vector.detach())
        tensors = lora_tensors(weights, kohya_names(layers), dict.fromkeys(layers, 2.0))
    path = export_file(tmp_path / "style.safetensors", tensors, {})
    assert not torch.allclose(expected, base, rtol=1e-2)

    pipe = pipeline(kind, unet)
    pipe.load_lora_weights(str(path))
    loaded = [n for n, _ in unet.named_parameters() if ".lora_" in n]
    assert len(loaded) == 2 * len(tensors) // 3
    torch.testing.assert_close(predict(unet), expected, rtol=1e-4, atol=1e-5)


def weights(rank: int = 2) -> dict[str, Tensor]:
    return {"a.b.lora_A": torch.ones(rank, 3), "a.b.lora_B": torch.ones(3, rank)}


def test_metadata_tells_what_the_file_is(tmp_path: Path) -> None:
    settings, style_set = TrainSettings(rule="overlap", rank=2), small_set(tmp_path / "set")
    config = run_config(settings, SmallDenoiser(), style_set)
    tensors = lora_tensors(weights(), {"a.b": "lora_unet_a_b"}, {"a.b": 16.0})
    told = metadata(config, 7, "my style", "lora")
    path = export_file(tmp_path / "x.safetensors", tensors, told)
    with safe_open(path, "pt") as file:
        told = file.metadata()
    assert told["nsync.trigger_word"] == told["modelspec.trigger_phrase"] == "sks"
    assert told["nsync.base"] == "small-0"
    assert told["nsync.rule"] == "overlap"
    assert told["nsync.dataset"] == style_set.digest
    assert told["nsync.steps"] == told["ss_steps"] == "7"
    assert told["ss_network_dim"] == "2"
    assert TrainSettings(**json.loads(told["nsync.settings"])) == settings
    assert {"nsync", "torch", "peft"} == set(json.loads(told["nsync.versions"]))
    assert len(told["nsync.weights_sha256"]) == 64
    kept = load_file(path)
    assert set(kept) == {
        f"lora_unet_a_b.{part}" for part in ("lora_down.weight", "lora_up.weight", "alpha")
    }
    assert kept["lora_unet_a_b.alpha"].item() == 16.0


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    tensors = lora_tensors(weights(), {"a.b": "ab"}, {"a.b": 2.0})
    paths = [export_file(tmp_path / "x.safetensors", tensors, {}) for _ in range(3)]
    assert [p.name for p in paths] == [
        "x.safetensors",
        "x_00002.safetensors",
        "x_00003.safetensors",
    ]
    assert len({p.read_bytes() for p in paths}) == 1


def test_a_disk_that_fills_up_leaves_no_half_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    tensors = lora_tensors(weights(), {"a.b": "ab"}, {"a.b": 2.0})
    with pytest.raises(InputError, match="No space left on device"):
        export_file(tmp_path / "x.safetensors", tensors, {})
    assert not list(tmp_path.iterdir())


def test_room_and_names_are_checked_before_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers = select_layers(SmallDenoiser().network, ATTENTION)
    check_room(tmp_path / "not" / "there", 1000, 4)
    check_names(layers, kohya_names(layers))
    some = dict(list(kohya_names(layers).items())[1:])
    with pytest.raises(InputError, match=r"`layers`.*1 that it cannot, such as down_blocks"):
        check_names(layers, some)
    usage = shutil.disk_usage(tmp_path)._replace(free=0)
    monkeypatch.setattr("nsync.checkpoint.shutil.disk_usage", lambda _: usage)
    with pytest.raises(InputError, match=r"`output`.*MB free.*nothing has been written"):
        check_room(tmp_path, 1000, 4)


@pytest.mark.parametrize("encoders", [("clip_l",), ("clip_l", "clip_g")])
def test_an_embedding_file_is_what_loaders_read(tmp_path: Path, encoders: tuple[str, ...]) -> None:
    vectors = {name: torch.randn(2, 4 + place) for place, name in enumerate(encoders)}
    settings, style_set = TrainSettings(trains="embedding"), small_set(tmp_path / "set")
    config = run_config(settings, SmallDenoiser(), style_set)
    told = metadata(config, 3, "x", "embedding")
    path = export_file(tmp_path / "x.safetensors", embedding_tensors(vectors, "sks"), told)
    names = ["sks"] if len(encoders) == 1 else list(encoders)
    found = load_file(path)
    assert list(found) == sorted(names)
    for name, encoder in zip(names, encoders, strict=True):
        assert torch.equal(found[name], vectors[encoder])
    with safe_open(path, "pt") as file:
        told = file.metadata()
    assert "ss_network_module" not in told
    assert told["ss_learning_rate"] == "0.001"
