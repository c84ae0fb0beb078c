"""A diffusers pipeline as a denoiser: losses, weights, latents and memory."""

import subprocess
import sys

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, EDMEulerScheduler
from small_pipelines import (
    SD_BETAS,
    small_flow,
    small_sd,
    small_sdxl,
    small_v,
    source,
    tiny_pipeline,
)

from nsync.denoiser import Denoiser
from nsync.errors import InputError
from nsync.pipelines.denoiser import DiffusersDenoiser

PROMPTS = ["two red circles on the left", "a blue ring over a hill", "a cross"]
TIMES = torch.tensor([0.0, 0.3137, 1.0])


def to_pure_noise(prediction_type):
    options = {"prediction_type": prediction_type, "rescale_betas_zero_snr": True}
    return small_sd(DDPMScheduler(**SD_BETAS, **options, clip_sample=False))


def small_to_pure_noise():
    return to_pure_noise("epsilon")


def small_v_to_pure_noise():
    return to_pure_noise("v_prediction")


MAKERS = [
    small_sd, small_to_pure_noise, small_v, small_v_to_pure_noise, small_sdxl, small_flow,
    tiny_pipeline,
]  # fmt: skip


def batch(denoiser, n=3):
    """(latents, noise) of one size that is not square."""
    shape = (2, n, denoiser.network.config.in_channels, 12, 8)
    return torch.randn(shape, generator=source()).unbind()


def textbook_levels(pipeline, times):
    """alpha, sigma in float64 and the network's timesteps, from the schedules' definitions."""
    config, times = pipeline.scheduler.config, times.double()
    if isinstance(pipeline.scheduler, DDPMScheduler | DDIMScheduler):
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
        kept = (1 - betas).cumprod(0)
        if config.get("rescale_betas_zero_snr"):  # arXiv 2305.08891, algorithm 1
            root = kept.sqrt()
            kept = ((root - root[-1]) * root[0] / (root[0] - root[-1])).square()
        steps = (times * 999).round().long()
        return kept[steps].sqrt(), (1 - kept[steps]).sqrt(), steps
    shift = config.get("shift", 1.0)
    sigma = shift * times / (1 + (shift - 1) * times)
    return 1 - sigma, sigma, sigma * 1000


def textbook_target(pipeline, latents, noise, alpha, sigma):
    kind = pipeline.scheduler.config.get("prediction_type", "flow_prediction")
    return {
        "epsilon": noise,
        "v_prediction": alpha * noise - sigma * latents,
        "flow_prediction": noise - latents,
    }[kind]


def textbook_losses(pipeline, denoiser, latents, noise, times):
    alpha, sigma, steps = textbook_levels(pipeline, times)
    alpha, sigma = alpha.view(-1, 1, 1, 1), sigma.view(-1, 1, 1, 1)
    latents, noise = latents.double(), noise.double()
    unet, sizes = pipeline.unet.double(), {}
    rows = [{k: v.double() for k, v in row.items()} for row in denoiser.encode_prompts(PROMPTS)]
    if "pooled" in rows[0]:
        factor = denoiser.size_multiple
        ids = torch.tensor([[12 * factor, 8 * factor, 0, 0, 12 * factor, 8 * factor]] * len(rows))
        pooled = torch.stack([row["pooled"] for row in rows])
        sizes = {"added_cond_kwargs": {"text_embeds": pooled, "time_ids": ids}}
    states = torch.stack([row["states"] for row in rows])
    predicted = unet(alpha * latents + sigma * noise, steps, states, **sizes).sample
    wanted = textbook_target(pipeline, latents, noise, alpha, sigma)
    return (predicted - wanted).square().mean((1, 2, 3))


@pytest.mark.parametrize("make", MAKERS)
def test_losses_are_the_textbooks(make):
    pipeline = make()
    denoiser = DiffusersDenoiser(pipeline)
    assert isinstance(denoiser, Denoiser)
    latents, noise = batch(denoiser)
    seen = denoiser.loss(latents, denoiser.encode_prompts(PROMPTS), noise, TIMES)
    expected = textbook_losses(pipeline, denoiser, latents, noise, TIMES)
    assert seen.dtype == torch.float32
    torch.testing.assert_close(seen.double(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("gamma", [1.0, 5.0])
def test_weights_are_min_snr(make, gamma):
    """In terms of x_0 the weighted loss is min(SNR, gamma): found from a prediction that errs."""
    pipeline = make()
    times = torch.tensor([0.05, 0.4, 0.7, 0.97])
    alpha, sigma, _ = textbook_levels(pipeline, times)
    latents, noise, error = torch.randn(3, 4, dtype=torch.float64, generator=source())
    noisy, wrong = alpha * latents + sigma * noise, latents + error
    told = textbook_target(pipeline, wrong, (noisy - alpha * wrong) / sigma, alpha, sigma)
    loss = (told - textbook_target(pipeline, latents, noise, alpha, sigma)).square()
    weights = DiffusersDenoiser(pipeline).min_snr(times, gamma)
    assert weights.dtype == torch.float32
    expected = (alpha / sigma).square().clamp(max=gamma) * error.square()
    torch.testing.assert_close(weights.double() * loss, expected, rtol=1e-3, atol=0)


@pytest.mark.parametrize("make", MAKERS)
def test_weights_are_finite_at_both_ends(make):
    weights = DiffusersDenoiser(make()).min_snr(torch.tensor([0.0, 1.0]), 5.0)
    assert weights.isfinite().all()
    assert (weights >= 0).all()


def test_rows_of_other_shapes_go_through_the_network_apart():
    denoiser = DiffusersDenoiser(small_sd())
    latents, noise = batch(denoiser)
    rows = denoiser.encode_prompts(PROMPTS)
    rows[1] = {"states": rows[1]["states"][:30]}
    apart = [
        denoiser.loss(latents[i : i + 1], rows[i : i + 1], noise[i : i + 1], TIMES[i : i + 1])
        for i in range(3)
    ]
    torch.testing.assert_close(denoiser.loss(latents, rows, noise, TIMES), torch.cat(apart))


@pytest.mark.parametrize("make", [small_sd, small_sdxl])
@pytest.mark.parametrize("autocast", [False, True])
def test_the_network_computes_in_its_own_dtype_or_the_autocasts(make, autocast):
    pipeline = make()
    whole = DiffusersDenoiser(pipeline)
    latents, noise = batch(whole)
    rows = whole.encode_prompts(PROMPTS)
    expected = whole.loss(latents, rows, noise, TIMES)
    seen_dtypes = []
    if not autocast:
        pipeline.unet.bfloat16()
    pipeline.unet.register_forward_pre_hook(lambda _, inputs: seen_dtypes.append(inputs[0].dtype))
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        losses = whole.loss(latents, rows, noise, TIMES)
    assert seen_dtypes == [torch.float32 if autocast else torch.bfloat16]
    assert losses.dtype == torch.float32
    assert 0 < (losses - expected).abs().max() < 0.05


def test_checkpointing_computes_the_same_gradients_again():
    pipeline = small_sdxl()
    pipeline.unet.requires_grad_(True)
    denoiser = DiffusersDenoiser(pipeline)
    latents, noise = batch(denoiser)
    rows, passes = denoiser.encode_prompts(PROMPTS), []
    pipeline.unet.mid_block.resnets[1].register_forward_pre_hook(lambda *_: passes.append(1))

    def gradients():
        passes.clear()
        loss = denoiser.loss(latents, rows, noise, TIMES).sum()
        return torch.autograd.grad(loss, list(pipeline.unet.parameters())), len(passes)

    plain, once = gradients()
    with denoiser.checkpointing():
        again, twice = gradients()
    assert (once, twice) == (1, 2)
    assert not pipeline.unet.is_gradient_checkpointing
    assert not pipeline.unet.training
    torch.testing.assert_close(again, plain, rtol=0, atol=0)
    pipeline.unet.enable_gradient_checkpointing()
    with denoiser.checkpointing():
        pass
    assert pipeline.unet.is_gradient_checkpointing


@pytest.mark.parametrize("make", [small_sd, small_sdxl, tiny_pipeline])
def test_pictures_become_latents_in_the_networks_scale(make):
    pipeline = make()
    pipeline.vae.register_to_config(shift_factor=0.3)
    denoiser = DiffusersDenoiser(pipeline)
    pixels = torch.rand(2, 3, 24, 16, generator=source())
    latents = denoiser.encode_images(pixels)
    means = pipeline.vae.encode(pixels * 2 - 1).latent_dist.mean
    torch.testing.assert_close(latents, (means - 0.3) * pipeline.vae.config.scaling_factor)
    assert latents.shape[2:] == (24 // denoiser.size_multiple, 16 // denoiser.size_multiple)
    assert not latents.requires_grad


def test_an_autoencoder_that_overflows_in_half_precision_works_in_whole():
    pipeline = tiny_pipeline(torch.float16)
    seen = []
    pipeline.vae.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].dtype))
    pixels = torch.rand(1, 3, 16, 16, generator=source())
    latents = DiffusersDenoiser(pipeline).encode_images(pixels)
    expected = DiffusersDenoiser(tiny_pipeline()).encode_images(pixels)
    assert seen == [torch.float32]
    assert pipeline.vae.dtype == torch.float16
    torch.testing.assert_close(latents, expected)


def test_identity_is_of_the_networks_weights():
    identity = DiffusersDenoiser(small_sd()).identity
    assert identity == DiffusersDenoiser(small_v()).identity
    assert identity != DiffusersDenoiser(small_sdxl()).identity
    pipeline = small_sd()
    with torch.no_grad():
        pipeline.unet.mid_block.resnets[0].conv1.weight *= 1.001
    assert len(identity) == 64
    assert identity != DiffusersDenoiser(pipeline).identity


def without_text_encoder():
    pipeline = small_sd()
    pipeline.register_modules(text_encoder=None)
    return pipeline


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (object, "StableDiffusionXLPipeline or .* or FluxPipeline; got object"),
        (without_text_encoder, "all its parts; got none for text_encoder"),
        (lambda: small_sd(channels=9), "reads the 4 channels of a latent; got one that reads 9"),
        (lambda: small_sd(DDPMScheduler(prediction_type="sample")), "v_prediction.*got 'sample'"),
        (lambda: small_sd(EDMEulerScheduler()), "DDPM schedule or .*EDMEulerScheduler"),
    ],
)
def test_other_pipelines_are_refused(make, told):
    with pytest.raises(InputError, match=told) as error:
        DiffusersDenoiser(make())
    assert error.value.name == "pipeline"


def test_diffusers_is_loaded_only_by_who_asks_for_it():
    lines = (
        "import sys, nsync, nsync.denoiser, nsync.training, nsync.negatives, nsync.tiny.ruler",
        "print('diffusers' in sys.modules, 'nsync.pipelines.denoiser' in sys.modules)",
        "import nsync.pipelines.denoiser",
        "print('diffusers' in sys.modules)",
    )
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "False", "True"]
