"""SD3 and Flux pipelines as denoisers, against formulas and diffusers' own pipelines."""

import math

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from small_pipelines import small_flux, small_schnell, small_sd3, source

from nsync.denoiser import Denoiser, SamplerSettings
from nsync.errors import InputError
from nsync.layers import ATTENTION, ATTENTION_AND_FEED_FORWARD, select_layers
from nsync.pipelines import DiffusersDenoiser

# numpy 2 on diffusers' way of reading tensors.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

PROMPTS = ["two red circles on the left", "a blue ring over a hill, a cross"]
TIMES = torch.tensor([0.0314, 0.8])
SIZE = (24, 16)
T5_TOKENS = {small_sd3: 256, small_flux: 512, small_schnell: 256}
MAKERS = list(T5_TOKENS)


def without_t5():
    return small_sd3(t5=False)


def own_rows(pipeline, texts, tokens):
    """(states, pooled) of the pipeline's own `encode_prompt`."""
    others = [None] * (2 if hasattr(pipeline, "tokenizer_3") else 1)
    found = pipeline.encode_prompt(texts, *others, device="cpu", max_sequence_length=tokens)
    return (found[0], found[2]) if len(others) == 2 else found[:2]


@pytest.mark.parametrize("make", [*MAKERS, without_t5])
def test_prompts_are_read_as_by_the_pipeline_itself(make):
    pipeline, texts = make(), [*PROMPTS, "", "a red ring " * 120]
    rows = DiffusersDenoiser(pipeline).encode_prompts(texts)
    states, pooled = own_rows(pipeline, texts, T5_TOKENS.get(make, 256))
    torch.testing.assert_close(torch.stack([row["states"] for row in rows]), states)
    torch.testing.assert_close(torch.stack([row["pooled"] for row in rows]), pooled)
    assert (rows[0]["states"] - rows[1]["states"]).abs().max() > 0.1
    assert (rows[0]["pooled"] - rows[1]["pooled"]).abs().max() > 0.1


def squares(latents):
    """Latents `[n, c, h, w]` as Flux reads them: 2 x 2 of them a token, channel by channel."""
    n, c, h, w = latents.shape
    cut = latents.reshape(n, c, h // 2, 2, w // 2, 2)
    return torch.einsum("ncyaxb->nyxcab", cut).reshape(n, h * w // 4, 4 * c)


def textbook_losses(pipeline, rows, latents, noise, shift):
    """Flow matching in float64 (arXiv 2209.03003), the network called by its own inputs."""
    times = TIMES.double()
    sigma = (shift * times / (1 + (shift - 1) * times)).view(-1, 1, 1, 1)
    noisy = (1 - sigma) * latents.double() + sigma * noise.double()
    given = {
        "encoder_hidden_states": torch.stack([row["states"] for row in rows]).double(),
        "pooled_projections": torch.stack([row["pooled"] for row in rows]).double(),
    }
    transformer, wanted = pipeline.transformer.double(), (noise - latents).double()
    if hasattr(pipeline, "tokenizer_3"):
        predicted = transformer(noisy, timestep=1000 * sigma.flatten(), **given).sample
        return (predicted - wanted).square().mean((1, 2, 3))
    y, x = torch.meshgrid(torch.arange(6.0), torch.arange(4.0), indexing="ij")
    predicted = transformer(
        squares(noisy),
        timestep=sigma.flatten(),
        guidance=torch.full((2,), 3.5) if pipeline.transformer.config.guidance_embeds else None,
        img_ids=torch.stack([torch.zeros_like(y), y, x], -1).reshape(-1, 3),
        txt_ids=torch.zeros(given["encoder_hidden_states"].shape[1], 3),
        **given,
    ).sample
    return (predicted - squares(wanted)).square().mean((1, 2))


@pytest.mark.parametrize(
    ("make", "shift"), [(small_sd3, 3.0), (small_flux, math.exp(1.15)), (small_schnell, 1.0)]
)
def test_losses_are_the_textbooks(make, shift):
    pipeline = make()
    denoiser = DiffusersDenoiser(pipeline)
    assert isinstance(denoiser, Denoiser)
    latents, noise = torch.randn(2, 2, 4, 12, 8, generator=source())
    rows = denoiser.encode_prompts(PROMPTS)
    seen = denoiser.loss(latents, rows, noise, TIMES)
    swapped = denoiser.loss(latents, rows[::-1], noise, TIMES)
    expected = textbook_losses(pipeline, rows, latents, noise, shift)
    torch.testing.assert_close(seen.double(), expected, rtol=1e-4, atol=1e-5)
    assert (swapped - seen).abs().max() > 1e-2
    sigma = shift * TIMES.double() / (1 + (shift - 1) * TIMES.double())
    weights = denoiser.min_snr(TIMES, 5.0).double()
    wanted = ((1 - sigma) / sigma).square().clamp(max=5.0) * sigma.square()
    torch.testing.assert_close(weights, wanted, rtol=1e-4, atol=0)


DRAWINGS = [
    (small_sd3, "normal", {"guidance_scale": 3.0}),
    (small_flux, "simple", {"guidance_scale": 3.5, "true_cfg_scale": 3.0}),
    (small_schnell, "simple", {"true_cfg_scale": 3.0}),
]


@pytest.mark.parametrize(("make", "scheduler", "guidance"), DRAWINGS)
def test_pictures_are_those_that_the_pipeline_draws(make, scheduler, guidance):
    pipeline, settings = make(), SamplerSettings(4, 3.0, "euler", scheduler)
    denoiser = DiffusersDenoiser(pipeline)
    drawn = denoiser.generate(PROMPTS, [3, 4], SIZE, settings, negative_prompt="a hill")
    expected = pipeline(
        PROMPTS,
        negative_prompt=["a hill"] * 2,
        generator=[source(3), source(4)],
        num_inference_steps=4,
        width=SIZE[0],
        height=SIZE[1],
        max_sequence_length=T5_TOKENS[make],
        output_type="pt",
        **guidance,
    ).images
    assert drawn.shape == (2, 3, SIZE[1], SIZE[0])
    torch.testing.assert_close(drawn, expected, rtol=0, atol=1e-4)
    other = denoiser.generate(PROMPTS[::-1], [3, 4], SIZE, settings, negative_prompt="a hill")
    assert (other - drawn).abs().max() > 1e-2


def test_the_multistep_sampler_follows_the_same_shift_and_ends_near():
    """Two samplers of many steps solve one equation: a wrong shift would not matter to its end, so
    the levels are compared as well."""
    denoiser = DiffusersDenoiser(small_flux())
    noise = torch.randn(1, 4, 8, 12, generator=source())
    seen = {}
    for name in ("euler", "dpmpp_2m"):
        levels = []

        def predict(x, timestep, levels=levels):
            levels.append(float(timestep) / 1000)
            return x / (0.2 + levels[-1])

        settings = SamplerSettings(40, 1.0, name)
        seen[name] = denoiser._schedule.draw(predict, noise, settings), levels
    torch.testing.assert_close(seen["euler"][0], seen["dpmpp_2m"][0], rtol=0.2, atol=0.05)
    mu = 0.5 + (24 - 256) / (4096 - 256) * (1.15 - 0.5)
    assert seen["euler"][1][20] == pytest.approx(shifted(math.exp(mu), 0.49), abs=0.02)
    assert seen["dpmpp_2m"][1][20] == pytest.approx(shifted(math.exp(mu), 0.49), abs=0.02)


def shifted(shift, time):
    return shift * time / (1 + (shift - 1) * time)


def test_a_shift_that_is_not_exponential_is_refused():
    pipeline = small_flux()
    config = {"use_dynamic_shifting": True, "time_shift_type": "linear"}
    pipeline.scheduler = FlowMatchEulerDiscreteScheduler(**config)
    with pytest.raises(InputError, match="shifted exponentially; got 'linear'"):
        DiffusersDenoiser(pipeline)


def test_sizes_are_whole_squares():
    denoiser = DiffusersDenoiser(small_flux())
    assert denoiser.size_multiple == 4
    with pytest.raises(InputError, match="multiples of 4 pixels; got 24 x 18"):
        denoiser.generate(PROMPTS[:1], [1], (24, 18), SamplerSettings(1, 1.0))


# --- words ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [small_sd3, small_flux])
def test_the_vectors_of_a_phrase_read_as_the_phrase(make):
    denoiser = DiffusersDenoiser(make())
    vectors = denoiser.word_vectors("red circle")
    names = ["clip_l", "clip_g", "t5xxl"] if make is small_sd3 else ["clip_l", "t5xxl"]
    assert list(vectors) == names
    assert list(denoiser.text_encoders) == names[:-1]
    assert len(vectors["t5xxl"]) == 2
    texts = ["a {} on the left", "{}, in {}.", "a ring"]
    expected = denoiser.encode_prompts([text.replace("{}", "red circle") for text in texts])
    denoiser.words["sks"] = vectors
    rows = denoiser.encode_prompts([text.replace("{}", "SKS") for text in texts])
    for row, wanted in zip(rows, expected, strict=True):
        torch.testing.assert_close(dict(row), dict(wanted))
    assert denoiser.prompt_tokens("a sks ring") == (5, T5_TOKENS[make])  # and the end


@pytest.mark.parametrize("make", [small_sd3, small_flux])
def test_gradients_of_the_vectors_are_those_of_the_rows_of_the_tables(make):
    pipeline = make()
    denoiser = DiffusersDenoiser(pipeline)
    readers = denoiser._family.readers
    vectors = {n: v.requires_grad_() for n, v in denoiser.word_vectors("red").items()}
    tables = [reader._table.weight.requires_grad_() for reader in readers]

    def objective(text):
        row = denoiser.encode_prompts([text])[0]
        parts = [part * torch.randn(part.shape, generator=source(2)) for part in row.values()]
        return sum(part.sum() for part in parts)

    expected = torch.autograd.grad(objective("a red ring, over a red hill"), tables)
    denoiser.words["sks"] = vectors
    found = torch.autograd.grad(objective("a sks ring, over a sks hill"), list(vectors.values()))
    for reader, gradient, table in zip(readers, found, expected, strict=True):
        token = reader.tokenizer("red", add_special_tokens=False).input_ids
        torch.testing.assert_close(gradient, table[token], rtol=1e-4, atol=1e-4)
        assert gradient.norm() > 1e-2, reader.name


# --- the network ----------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [small_sd3, small_flux])
def test_checkpointing_computes_the_same_gradients_again(make):
    pipeline, passes = make(), []
    denoiser = DiffusersDenoiser(pipeline)
    layer = pipeline.transformer.transformer_blocks[0].ff.net[2]
    layer.requires_grad_(True)
    layer.register_forward_pre_hook(lambda *_: passes.append(1))
    latents, noise = torch.randn(2, 2, 4, 12, 8, generator=source())
    rows = denoiser.encode_prompts(PROMPTS)

    def gradients():
        passes.clear()
        loss = denoiser.loss(latents, rows, noise, TIMES).sum()
        return torch.autograd.grad(loss, [layer.weight])[0], len(passes)

    plain, once = gradients()
    with denoiser.checkpointing():
        again, twice = gradients()
    assert (once, twice) == (1, 2)
    torch.testing.assert_close(again, plain)
    assert not pipeline.transformer.is_gradient_checkpointing


def test_layers_of_flux_are_chosen_by_what_they_do():
    network = small_flux().transformer
    attention = set(select_layers(network, ATTENTION))
    both = set(select_layers(network, ATTENTION_AND_FEED_FORWARD))
    single, double = "single_transformer_blocks.0", "transformer_blocks.0"
    parts = {f"attn.to_{name}" for name in "qkv"}
    joint = {"attn.to_out.0", "attn.to_add_out", *(f"attn.add_{name}_proj" for name in "qkv")}
    assert attention == {
        f"{single}.proj_out",
        *(f"{single}.{part}" for part in parts),
        *(f"{double}.{part}" for part in parts | joint),
    }
    forward = {f"{double}.{ff}.net.{n}" for ff in ("ff", "ff_context") for n in ("0.proj", "2")}
    assert both - attention == {f"{single}.proj_mlp", *forward}


@pytest.mark.parametrize(
    ("part", "told"),
    [
        ("text_encoder_2", "all its parts; got none for text_encoder_2"),
        ("tokenizer_3", "all its parts; got none for tokenizer_3"),
    ],
)
def test_a_pipeline_that_lacks_a_part_is_refused(part, told):
    pipeline = small_sd3()
    pipeline.register_modules(**{part: None})
    with pytest.raises(InputError, match=told):
        DiffusersDenoiser(pipeline)
