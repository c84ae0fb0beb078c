"""One set of weights, two doors: the host's and diffusers'."""

import pytest
from questions import answer, ask, once

PROMPT = "two red circles on the left over a hill in the style of hatching"
SAMPLER = {
    "steps": 3,
    "cfg": 3.0,
    "sampler_name": "euler",
    "scheduler": "simple",
    "seed": 7,
}


@pytest.fixture
def answers(in_host, installation):
    return once(installation, in_host, ask_everything)


def ask_everything(host):
    return ask(host, QUESTIONS)


def write_random_base(host, folder):
    """A folder laid out as the tiny base's, all weights random (biases and norms too)."""
    import json
    import shutil

    import torch
    from safetensors.torch import load_file, save_file

    shutil.copytree(host.module("nsync.tiny").BASE_FOLDER, folder, dirs_exist_ok=True)
    source = torch.Generator().manual_seed(0)
    for part in ("unet", "vae", "text_encoder"):
        file = next((folder / part).glob("*.safetensors"))
        weights = {}
        for name, value in load_file(file).items():
            drawn = torch.randn(value.shape, generator=source) * 0.3
            scale = value[0].numel() ** -0.5 if value.dim() > 1 else 1.0
            weights[name] = (drawn * scale + (value.dim() == 1)).half()
        save_file(weights, file)
    config = folder / "vae" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"scaling_factor": 0.7}))


def compare_the_doors(host, folder):
    """Largest difference of each part between host and diffusers, relative to its size."""
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

    full = {"torch_dtype": torch.float32}
    text = CLIPTextModel.from_pretrained(folder / "text_encoder", **full)
    words = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    unet = UNet2DConditionModel.from_pretrained(folder / "unet", **full)
    auto = AutoencoderKL.from_pretrained(folder / "vae", **full)
    with torch.inference_mode():
        model, clip, vae = host.module("nodes.tiny.model").load_tiny_base(folder)
        denoiser = host.module("nodes.host.adapter").HostDenoiser(model, clip, vae)
        source = torch.Generator().manual_seed(1)
        pixels = torch.rand(2, 3, 64, 64, generator=source)
        noise = torch.randn(2, auto.config.latent_channels, 16, 16, generator=source)
        times = torch.tensor([0.15, 0.9])
        row = {"padding": "max_length", "max_length": 32, "truncation": True}
        tokens = words([PROMPT, ""], return_tensors="pt", **row).input_ids
        context = text(tokens).last_hidden_state
        encoded = auto.encode(pixels * 2 - 1).latent_dist.mean * auto.config.scaling_factor
        decoded = auto.decode(encoded / auto.config.scaling_factor).sample / 2 + 0.5
        velocity = unet(noise, times * 1000, context).sample
        at = times.view(-1, 1, 1, 1)
        mixed = unet((1 - at) * encoded + at * noise, times * 1000, context).sample
        loss = (mixed - (noise - encoded)).square().mean((1, 2, 3))

        conditioning = denoiser.encode_prompts([PROMPT, ""])
        ours = torch.cat([row["cross_attn"] for row in conditioning])
        latents = denoiser.encode_images(pixels)
        denoised = model.model.apply_model(noise, times, c_crossattn=ours)
        raw = model.model.process_latent_out(encoded)
        pairs = {
            "text": (ours, context),
            "encode": (latents, encoded),
            "decode": (vae.decode(raw).movedim(-1, 1), decoded.clamp(0, 1)),
            "velocity": ((noise - denoised) / at, velocity),
            "loss": (denoiser.loss(latents, conditioning, noise, times), loss),
        }
        used = denoiser.prompt_tokens(PROMPT)
    differences = {
        name: float((a - b).abs().max() / b.abs().max()) for name, (a, b) in pairs.items()
    }
    spread = {name: float(b.std()) for name, (_, b) in pairs.items()}
    return {
        "differences": differences,
        "spread": spread,
        "used": used,
        "tokens": int((tokens[0] != words.eos_token_id).sum()) + 1,
    }


def compare_both_weights(host):
    folder = host.base / "random"
    write_random_base(host, folder)
    trained = host.module("nsync.tiny").BASE_FOLDER
    return {"trained": compare_the_doors(host, trained), "random": compare_the_doors(host, folder)}


@pytest.mark.parametrize("weights", ["trained", "random"])
def test_both_doors_predict_the_same(answers, weights):
    seen = answer(answers, compare_both_weights)[weights]
    assert all(gap < 1e-4 for gap in seen["differences"].values()), seen["differences"]
    assert min(seen["spread"].values()) > 1e-3  # else they agree on nothing at all
    assert seen["used"] == [seen["tokens"], 32]


def draw_in_a_graph(host):
    """KSampler, CLIP Text Encode, VAE Encode and Decode, Load LoRA and an embedding, as ever."""
    import torch
    from safetensors.torch import save_file

    lora = {}
    for block, outputs, inputs in (
        ("input_blocks.1.1.transformer_blocks.0.attn1.to_q", 64, 64),
        ("middle_block.1.transformer_blocks.0.attn2.to_v", 128, 128),
    ):
        lora[f"diffusion_model.{block}.lora_A.weight"] = torch.randn(4, inputs)
        lora[f"diffusion_model.{block}.lora_B.weight"] = torch.randn(outputs, 4)
    for folder, tensors in (("loras", lora), ("embeddings", {"clip_l": torch.randn(2, 128)})):
        (host.base / "models" / folder).mkdir(parents=True, exist_ok=True)
        save_file(tensors, host.base / "models" / folder / "tiny_test.safetensors")

    def pictures(model, prompt, start="3", denoise=1.0):
        from PIL import Image

        outcome = host.run(graph(model, prompt, start, denoise))
        assert outcome.ok, outcome.error
        shown = [
            host.base / "output" / file["filename"] for file in outcome.outputs["10"]["images"]
        ]
        return [list(Image.open(file).convert("RGB").tobytes()) for file in shown]

    plain = pictures("1", PROMPT)
    return {
        "count": [len(plain), len(plain[0])],
        "again": pictures("1", PROMPT) == plain,
        "other words": pictures("1", "a blue ring") != plain,
        "lora": pictures("2", PROMPT) != plain,
        "embedding": pictures("1", f"{PROMPT} embedding:tiny_test") != plain,
        "from a picture": pictures("1", PROMPT, "8", 0.5) != plain[:1],
    }


def graph(model, prompt, start, denoise):
    lora = {"lora_name": "tiny_test.safetensors", "strength_model": 1.0, "strength_clip": 1.0}
    sampled = {
        **SAMPLER,
        "model": [model, 0],
        "positive": ["4", 0],
        "negative": ["5", 0],
        "latent_image": [start, 0],
        "denoise": denoise,
    }
    black = {"width": 64, "height": 64, "batch_size": 1, "color": 0}
    nodes = {
        "1": ("NSYNC_TinyBase", {}),
        "2": ("LoraLoader", {"model": ["1", 0], "clip": ["1", 1], **lora}),
        "3": ("EmptyLatentImage", {"width": 64, "height": 64, "batch_size": 2}),
        "4": ("CLIPTextEncode", {"clip": ["1", 1], "text": prompt}),
        "5": ("CLIPTextEncode", {"clip": ["1", 1], "text": ""}),
        "6": ("KSampler", sampled),
        "7": ("VAEDecode", {"samples": ["6", 0], "vae": ["1", 2]}),
        "8": ("VAEEncode", {"pixels": ["9", 0], "vae": ["1", 2]}),
        "9": ("EmptyImage", black),
        "10": ("SaveImage", {"images": ["7", 0], "filename_prefix": "tiny"}),
    }
    return {place: {"class_type": kind, "inputs": given} for place, (kind, given) in nodes.items()}


def test_the_hosts_own_nodes_use_it(answers):
    seen = answer(answers, draw_in_a_graph)
    assert seen.pop("count") == [2, 64 * 64 * 3]
    assert all(seen.values()), seen


def draw_style_pictures(host):
    nodes = host.nodes
    run = nodes["NSYNC_TinyStylePictures"].execute
    world = host.module("nsync.tiny.world")
    style = world.HELD_OUT_STYLES[0]
    pictures, captions = run(style=style, count=3, seed=5).result
    again, _ = run(style=style, count=3, seed=5).result
    other, same = run(style=world.PRETRAIN_STYLES[0], count=3, seed=5).result
    return {
        "shapes": [list(picture.shape) for picture in pictures],
        "range": [float(min(p.min() for p in pictures)), float(max(p.max() for p in pictures))],
        "captions": captions,
        "same": all(bool((a == b).all()) for a, b in zip(pictures, again, strict=True)),
        "styles differ": all(bool((a != b).any()) for a, b in zip(pictures, other, strict=True)),
        "same scenes": same == captions,
    }


def test_style_pictures_come_from_their_seed(answers):
    seen = answer(answers, draw_style_pictures)
    assert seen["shapes"] == [[1, 64, 64, 3]] * 3
    assert 0 <= seen["range"][0] < seen["range"][1] <= 1
    assert len(set(seen["captions"])) > 1
    assert all(caption.split()[0] in ("a", "two", "three") for caption in seen["captions"])
    assert seen["same"]
    assert seen["styles differ"]
    assert seen["same scenes"]


def load_incomplete(host):
    try:
        host.module("nodes.tiny.model").load_tiny_base(host.base / "nothing")
    except ValueError as error:
        return str(error)
    return ""


def test_an_incomplete_folder_says_so(answers):
    assert "Install the pack again" in answer(answers, load_incomplete)


QUESTIONS = (compare_both_weights, draw_in_a_graph, draw_style_pictures, load_incomplete)
