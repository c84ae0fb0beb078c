"""Pipelines from folders and files: what was saved comes back, nothing is fetched or unpickled."""

import json
import shutil
import socket

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_pipelines import small_flux, small_sd, small_sd3, small_sdxl, source

from nsync.errors import InputError
from nsync.pipelines import DiffusersDenoiser, load

TIMES = torch.tensor([0.2, 0.7])
PROMPTS = ["two red circles on the left", "a blue ring"]


@pytest.fixture(autouse=True)
def _offline(monkeypatch, tmp_path):
    def refuse(*_args, **_options):
        raise AssertionError("asked for the network")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))


def without_t5():
    return small_sd3(t5=False)


def saved(make, folder):
    make().save_pretrained(folder)
    return folder


def losses(denoiser):
    latents, noise = torch.randn(2, 2, 4, 8, 12, generator=source())
    return denoiser.loss(latents, denoiser.encode_prompts(PROMPTS), noise, TIMES)


@pytest.mark.parametrize("make", [small_sd, small_sdxl, small_sd3, without_t5, small_flux])
def test_a_folder_comes_back_as_it_was(make, tmp_path):
    denoiser, expected = load(saved(make, tmp_path / "base")), DiffusersDenoiser(make())
    assert denoiser.identity == expected.identity
    torch.testing.assert_close(losses(denoiser), losses(expected))
    assert list(denoiser.word_vectors("ring")) == list(expected.word_vectors("ring"))
    assert not denoiser.network.training


@pytest.mark.parametrize("make", [small_sd, without_t5])
def test_weights_with_a_variant_in_their_name_are_found(make, tmp_path):
    folder = tmp_path / "base"
    make().save_pretrained(folder, variant="fp16")
    assert not list(folder.rglob("*model.safetensors"))
    assert load(folder).identity == DiffusersDenoiser(make()).identity
    for path in folder.rglob("vae/*.fp16.safetensors"):  # a part without it beside the others
        path.rename(path.with_name(path.name.replace(".fp16", "")))
    assert load(folder).identity == DiffusersDenoiser(make()).identity


def test_weights_are_read_in_the_precision_asked_for(tmp_path):
    denoiser = load(saved(small_sd, tmp_path / "base"), dtype=torch.bfloat16)
    assert denoiser.network.dtype == torch.bfloat16
    assert denoiser.encode_prompts(["a ring"])[0]["states"].dtype == torch.bfloat16


def edited(folder, **changes):
    path = folder / "model_index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def no_index(folder):
    (folder / "model_index.json").unlink()


def bad_index(folder):
    (folder / "model_index.json").write_text("{")


def no_class(folder):
    edited(folder, _class_name="KandinskyPipeline")


def own_class(folder):
    edited(folder, _class_name=["mine", "Mine"])


def no_parts(folder):
    shutil.rmtree(folder / "vae")
    (folder / "unet" / "config.json").unlink()
    shutil.rmtree(folder / "tokenizer")


def part_left_out(folder):
    edited(folder, text_encoder=[None, None])
    shutil.rmtree(folder / "text_encoder")


def pickled(folder):
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(path), path.with_suffix(".bin"))
    path.unlink()


def truncated(folder):
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:5000])


def one_weight_less(folder):
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    del tensors["conv_in.weight"]
    save_file(tensors, path)


def another_width(folder):
    path = folder / "unet" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"cross_attention_dim": 24}))


FOLDERS = [
    (no_index, r"with model_index.json in it; got .*, without one\. Give the folder"),
    (bad_index, "with model_index.json in it; got .*, in which it is bad"),
    (no_class, "of the class StableDiffusionPipeline, .*FluxPipeline; got .*'KandinskyPipeline'"),
    (own_class, r"of the class .*\['mine', 'Mine'\]"),
    (no_parts, r"without unet/config.json, vae/config.json, vae/\*.safetensors, tokenizer/tok"),
    (part_left_out, r"without text_encoder/config.json, text_encoder/\*.safetensors"),
    (pickled, r"without unet/\*.safetensors. Weights are read from safetensors files only"),
    (truncated, "weights that can be loaded; got .*base, which cannot be"),
    (one_weight_less, "conv_in.weight"),
    (another_width, "weights that can be loaded; got .*base, which cannot be"),
]


@pytest.mark.parametrize(("spoil", "told"), FOLDERS)
def test_a_bad_folder_is_told_in_one_error(spoil, told, tmp_path):
    folder = saved(small_sd, tmp_path / "base")
    spoil(folder)
    with pytest.raises(InputError, match=told) as error:
        load(folder)
    assert error.value.name == "path"


def configuration(make, folder):
    """What a folder holds beside its weights."""
    for path in saved(make, folder).rglob("*.safetensors"):
        path.unlink()
    return folder


def checkpoint(folder, *names):
    path = folder / "some.safetensors"
    save_file({name: torch.zeros(2, 2) for name in names}, path)
    return path


NETWORK = "model.diffusion_model.input_blocks.0.0.weight"


def test_a_file_that_is_not_there_or_no_safetensors(tmp_path):
    pickle = tmp_path / "model.ckpt"
    pickle.write_bytes(b"\x80\x04")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"nothing")
    for path, told in (
        (tmp_path / "none", "a pipeline's folder or a file that is there"),
        (pickle, "a .safetensors file; got model.ckpt. A pickle can run programs"),
        (broken, "a whole .safetensors file; got broken.safetensors, which cannot be read"),
    ):
        with pytest.raises(InputError, match=told) as error:
            load(path)
        assert error.value.name == "path"


def test_a_file_without_configuration_says_what_belongs_where(tmp_path):
    path = checkpoint(tmp_path, NETWORK)
    with pytest.raises(InputError, match=r"configuration of some.safetensors: model_ind") as error:
        load(path)
    assert error.value.name == "config"
    assert "stable-diffusion-v1-5/stable-diffusion-v1-5 is not in the local" in str(error.value)
    folder = configuration(small_sd, tmp_path / "config")
    (folder / "scheduler" / "scheduler_config.json").unlink()
    told = r"config, without vae/\*.safetensors, text_encoder/\*.safetensors, scheduler/sch"
    with pytest.raises(InputError, match=told) as error:
        load(path, folder)
    assert error.value.name == "config"


def test_the_local_cache_is_looked_into(tmp_path):
    base = tmp_path / "cache" / "models--stable-diffusion-v1-5--stable-diffusion-v1-5"
    configuration(small_sd, base / "snapshots" / "abc")
    (base / "refs").mkdir()
    (base / "refs" / "main").write_text("abc")
    with pytest.raises(InputError, match=r"abc, without vae/\*.safetensors, text_enc") as error:
        load(checkpoint(tmp_path, NETWORK))
    assert error.value.name == "config"


@pytest.mark.parametrize("make", [small_sd, small_flux])
def test_a_lora_is_no_checkpoint(make, tmp_path):
    file = checkpoint(tmp_path, "lora_unet_x.lora_up.weight")
    with pytest.raises(InputError, match=r"has no weights named model.*Is it a LoRA") as error:
        load(file, configuration(make, tmp_path / "config"))
    assert error.value.name == "path"
