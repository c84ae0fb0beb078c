"""Bases that a single file tells: their configurations, and where CLIP's tokenizer is found."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from nsync.errors import InputError
from nsync.pipelines import known, load
from nsync.pipelines.denoiser import FAMILIES
from nsync.tiny import BASE_FOLDER

UNET, VAE, CLIP_L, CLIP_G = 859_520_964, 83_653_863, 123_060_480, 694_659_840
SDXL_UNET = 2_567_463_684
"""Numbers of the published networks, as their model cards and diffusers' own tests have them."""
BASES = {"stable_diffusion_1": UNET, "stable_diffusion_xl": SDXL_UNET}
BLOCKS = "model.diffusion_model.input_blocks"


def shapes_of(name, **changes):
    told = {**known._KNOWN[name], **changes}
    return {key: torch.empty(shape, device="meta") for key, shape in told.items() if shape}


def count(module):
    return sum(value.numel() for value in module.parameters())


@pytest.mark.parametrize("name", BASES)
def test_networks_are_as_large_as_the_published_ones(name):
    folder = known._BASES / name
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(folder / "unet"))
        vae = AutoencoderKL.from_config(AutoencoderKL.load_config(folder / "vae"))
        text = CLIPTextModel(CLIPTextConfig.from_pretrained(folder / "text_encoder"))
        assert [count(unet), count(vae), count(text)] == [BASES[name], VAE, CLIP_L]
        if name == "stable_diffusion_xl":
            config = CLIPTextConfig.from_pretrained(folder / "text_encoder_2")
            assert count(CLIPTextModelWithProjection(config)) == CLIP_G


@pytest.mark.parametrize("name", BASES)
def test_every_part_of_the_pipeline_has_its_configuration(name):
    index = json.loads((known._BASES / name / "model_index.json").read_text())
    family = next(f for f in FAMILIES if f.kind.__name__ == index["_class_name"])
    parts = {part for part in index if not part.startswith(("_", "force"))}
    assert parts == set(family.parts)
    folders = {path.name for path in (known._BASES / name).iterdir() if path.is_dir()}
    assert folders == {part for part in parts if not part.startswith("tokenizer")}


@pytest.mark.parametrize("name", BASES)
def test_a_file_is_told_by_its_shapes(name):
    assert known.known_base(shapes_of(name)) == known._BASES / name
    first = f"{BLOCKS}.0.0.weight"
    for changes in (
        {first: (320, 9, 3, 3)},  # inpainting
        {"first_stage_model.decoder.conv_in.weight": None},  # without its autoencoder
        {"v_pred": (0,)},
        {"edm_mean": (4,)},
        {key: (320, 1024) for key in known._KNOWN[name] if "attn2" in key},  # Stable Diffusion 2
    ):
        assert known.known_base(shapes_of(name, **changes)) is None


@pytest.fixture
def words(tmp_path):
    """CLIP's files in a ComfyUI's place, and the environment as it is without one."""
    place = tmp_path / "ComfyUI/comfy/sd1_tokenizer"
    place.mkdir(parents=True)
    for file in ("vocab.json", "merges.txt"):
        shutil.copy(BASE_FOLDER / "tokenizer" / file, place)
    return place


def test_the_tokenizer_is_the_users_or_comfyuis(words, tmp_path, monkeypatch):
    monkeypatch.delenv("COMFYUI_PATH", raising=False)
    assert known.clip_words(None) is None
    assert known.clip_words(words) == words
    own = tmp_path / "own"
    shutil.copytree(words, own / "tokenizer")
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path / "ComfyUI"))
    assert known.clip_words(None) == words
    assert known.clip_words(own) == own / "tokenizer"
    monkeypatch.delenv("COMFYUI_PATH")
    inside = tmp_path / "ComfyUI/custom_nodes/pack/nsync/pipelines/known.py"
    monkeypatch.setattr(known, "__file__", str(inside))
    assert known.clip_words(None) == words
    monkeypatch.setattr(known, "__file__", "/app/nsync/pipelines/known.py")  # as in a container
    assert known.clip_words(None) is None


def test_the_second_tokenizer_of_sdxl_fills_up_with_exclamation_marks(words):
    first, second = (known.clip_tokenizer(words, part) for part in ("tokenizer", "tokenizer_2"))
    assert (first.pad_token, second.pad_token) == ("<|endoftext|>", "!")
    assert first.model_max_length == second.model_max_length == 77


def test_without_a_tokenizer_the_error_says_what_belongs_where(tmp_path, monkeypatch):
    monkeypatch.delenv("COMFYUI_PATH", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(known, "_KNOWN", {"stable_diffusion_1": {"a": (1,)}})
    file = Path(tmp_path / "some.safetensors")
    save_file({"a": torch.zeros(1)}, file)
    for config in (None, tmp_path):
        with pytest.raises(InputError, match=r"tokenizer/vocab.json.*COMFYUI_PATH") as error:
            load(file, config)
        assert error.value.name == "config"
