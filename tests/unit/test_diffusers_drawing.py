"""Pictures drawn by a diffusers pipeline behind the contract."""

from functools import partial
from itertools import pairwise

import pytest
import torch
from diffusers import (
    AutoPipelineForImage2Image,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
)
from small_pipelines import small_flow, small_sd, small_sdxl, small_v, source, tiny_pipeline

from nsync.denoiser import SamplerSettings
from nsync.errors import InputError
from nsync.memory import OutOfMemoryError
from nsync.pipelines.denoiser import DiffusersDenoiser
from nsync.tiny.captions import PHRASES
from nsync.tiny.ruler import Ruler
from nsync.tiny.scenes import Scene

# numpy 2 on diffusers' way of reading tensors.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

PROMPTS = ["two red circles on the left", "a blue ring over a hill", "a cross"]
SIZE = (16, 24)

DRAWINGS = [
    (small_sd, "euler", "normal", EulerDiscreteScheduler, {"timestep_spacing": "linspace"}),
    (small_sd, "euler", "simple", EulerDiscreteScheduler, {"timestep_spacing": "trailing"}),
    (small_sd, "euler", "karras", EulerDiscreteScheduler, {"use_karras_sigmas": True}),
    (small_v, "euler", "normal", EulerDiscreteScheduler, {"timestep_spacing": "linspace"}),
    (small_sd, "dpmpp_2m", "normal", DPMSolverMultistepScheduler, {}),
    (small_sdxl, "dpmpp_2m", "karras", DPMSolverMultistepScheduler, {"use_karras_sigmas": True}),
    (small_sdxl, "euler", "normal", EulerDiscreteScheduler, {"timestep_spacing": "linspace"}),
    (small_sd, "ddim", "simple", DDIMScheduler, {"timestep_spacing": "trailing"}),
    (tiny_pipeline, "dpmpp_2m", "normal", DPMSolverMultistepScheduler, {}),
]


@pytest.mark.parametrize(("make", "sampler", "scheduler", "kind", "options"), DRAWINGS)
def test_pictures_are_those_that_the_pipeline_draws(make, sampler, scheduler, kind, options):
    pipeline, settings = make(), SamplerSettings(5, 3.0, sampler, scheduler)
    drawn = DiffusersDenoiser(pipeline).generate(
        PROMPTS[:2], [3, 4], SIZE, settings, negative_prompt="a square"
    )
    pipeline.scheduler = kind.from_config(pipeline.scheduler.config, **options)
    expected = pipeline(
        PROMPTS[:2],
        negative_prompt=["a square"] * 2,
        generator=[source(3), source(4)],
        num_inference_steps=5,
        guidance_scale=3.0,
        width=SIZE[0],
        height=SIZE[1],
        output_type="pt",
    ).images
    assert drawn.shape == (2, 3, SIZE[1], SIZE[0])
    # As diffusers has it, DDIM starts from noise of another size: 1 for 0.998.
    torch.testing.assert_close(drawn, expected, rtol=0, atol=1e-3 if sampler == "ddim" else 1e-5)


STARTED = [
    (make, sampler, "normal", kind, {"timestep_spacing": "linspace"}, 5)
    for make in (small_sd, small_v, small_sdxl)
    for sampler, kind in (
        ("euler", EulerDiscreteScheduler),
        ("dpmpp_2m", DPMSolverMultistepScheduler),
    )
]
# The last of so many steps have one timestep, and sigmas of their own.
STARTED += [
    (small_sd, "dpmpp_2m", "karras", DPMSolverMultistepScheduler, {"use_karras_sigmas": True}, 100)
]


@pytest.mark.parametrize(("make", "sampler", "scheduler", "kind", "options", "of"), STARTED)
def test_pictures_from_pictures_are_those_that_the_pipeline_draws(
    make, sampler, scheduler, kind, options, of
):
    pipeline = make()
    denoiser = DiffusersDenoiser(pipeline)
    latents = denoiser.encode_images(torch.rand(2, 3, SIZE[1], SIZE[0], generator=source()))
    settings = SamplerSettings(3, 3.0, sampler, scheduler)
    drawn = denoiser.generate(PROMPTS[:2], [3, 4], SIZE, settings, latents=latents, denoise=3 / of)
    other = AutoPipelineForImage2Image.from_pipe(pipeline)
    other.set_progress_bar_config(disable=True)
    other.scheduler = kind.from_config(pipeline.scheduler.config, **options)
    expected = other(
        PROMPTS[:2],
        image=latents,
        strength=3 / of,
        negative_prompt=["", ""],
        generator=[source(3), source(4)],
        num_inference_steps=of,  # of which it makes strength * of
        guidance_scale=3.0,
        output_type="pt",
    ).images
    torch.testing.assert_close(drawn, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("start", "grid"), [(False, [1.0, 0.5005, 0.001, 0.0]), (True, [0.4006, 0.2008, 0.001, 0.0])]
)
def test_flow_is_drawn_by_eulers_method(start, grid):
    """dx/dsigma = velocity, from sigma 1 to 1/1000 in even steps, then to 0, as the host does."""
    pipeline = tiny_pipeline()
    denoiser, settings = DiffusersDenoiser(pipeline), SamplerSettings(3, 1.0)
    latents, noise = torch.randn(1, 12, 6, 4, generator=source(1)), source(3)
    given = {"latents": latents, "denoise": 0.5} if start else {}
    drawn = denoiser.generate(PROMPTS[:1], [3], SIZE, settings, **given)
    states = denoiser.encode_prompts(PROMPTS[:1])[0]["states"][None]
    x = (1 - grid[0]) * latents + grid[0] * torch.randn(1, 12, 6, 4, generator=noise)
    with torch.no_grad():
        for now, then in pairwise(grid):
            velocity = pipeline.unet(x, torch.tensor(now * 1000), states).sample
            x = x + (then - now) * velocity
        pixels = pipeline.vae.decode(x / pipeline.vae.config.scaling_factor).sample
    torch.testing.assert_close(drawn, (pixels / 2 + 0.5).clamp(0, 1), rtol=0, atol=1e-4)


def test_a_half_precision_network_is_drawn_from_in_whole_precision(monkeypatch):
    pipeline, seen, step = small_sd(), set(), EulerDiscreteScheduler.step
    pipeline.unet.bfloat16()

    def watched(self, predicted, timestep, x, **options):
        seen.update((predicted.dtype, x.dtype))
        return step(self, predicted, timestep, x, **options)

    monkeypatch.setattr(EulerDiscreteScheduler, "step", watched)
    DiffusersDenoiser(pipeline).generate(PROMPTS[:1], [3], SIZE, SamplerSettings(2, 3.0))
    assert seen == {torch.float32}


@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m"])
@pytest.mark.parametrize("make", [small_sd, small_sdxl, tiny_pipeline])
def test_a_picture_depends_on_its_own_prompt_and_seed(make, sampler, monkeypatch):
    denoiser, settings = DiffusersDenoiser(make()), SamplerSettings(3, 3.0, sampler)
    state = torch.random.get_rng_state()
    together = denoiser.generate(PROMPTS, [5, 6, 7], SIZE, settings)
    monkeypatch.setattr("nsync.memory.BATCH_PIXELS", 2 * SIZE[0] * SIZE[1])
    batched = denoiser.generate(PROMPTS, [5, 6, 7], SIZE, settings)
    alone = [denoiser.generate([PROMPTS[i]], [5 + i], SIZE, settings) for i in range(3)]
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.testing.assert_close(batched, together, rtol=0, atol=1e-5)
    torch.testing.assert_close(torch.cat(alone), together, rtol=0, atol=1e-5)
    other_seed = denoiser.generate(PROMPTS[:1], [8], SIZE, settings)
    other_prompt = denoiser.generate(PROMPTS[1:2], [5], SIZE, settings)
    assert (other_seed - together[:1]).abs().max() > 1e-2
    assert (other_prompt - together[:1]).abs().max() > 1e-4


@pytest.mark.parametrize("room", [2, 0])
def test_where_memory_runs_out_fewer_pictures_are_drawn_at_once(room, monkeypatch):
    denoiser, settings = DiffusersDenoiser(tiny_pipeline()), SamplerSettings(2, 3.0)
    latents = denoiser.encode_images(torch.rand(3, 3, SIZE[1], SIZE[0], generator=source()))
    start = {"latents": latents, "denoise": 0.5}
    ask = partial(denoiser.generate, PROMPTS, [5, 6, 7], SIZE, settings, **start)
    plenty, guided, seen = ask(), DiffusersDenoiser._guided, []

    def greedy(self, noisy, timesteps, rows, *given, **options):
        seen.append(len(rows))
        if len(rows) > room:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return guided(self, noisy, timesteps, rows, *given, **options)

    monkeypatch.setattr(DiffusersDenoiser, "_guided", greedy)
    if not room:
        with pytest.raises(OutOfMemoryError, match=f"One picture of {SIZE[0]} x {SIZE[1]} px"):
            ask()
        return
    torch.testing.assert_close(ask(), plenty, rtol=0, atol=1e-5)
    assert seen == [3] + [1] * 3 * settings.steps


@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m"])
@pytest.mark.parametrize("make", [small_v, small_flow, tiny_pipeline])
@torch.no_grad()
def test_a_start_is_kept_the_more_the_less_is_drawn_anew(make, sampler):
    pipeline, passes, gaps = make(), [], []
    denoiser, settings = DiffusersDenoiser(pipeline), SamplerSettings(4, 1.0, sampler)
    start = denoiser.encode_images(torch.rand(1, 3, SIZE[1], SIZE[0], generator=source()))
    kept = pipeline.vae.decode(start / pipeline.vae.config.scaling_factor).sample / 2 + 0.5
    pipeline.unet.register_forward_hook(lambda *_: passes.append(1))
    for denoise in (0.01, 0.3, 0.6, 1.0):
        passes.clear()
        drawn = denoiser.generate(PROMPTS[:1], [3], SIZE, settings, latents=start, denoise=denoise)
        gaps.append(float((drawn - kept.clamp(0, 1)).square().mean()))
        assert len(passes) == settings.steps
    assert gaps == sorted(gaps)
    assert gaps[0] < 0.2 * gaps[-1]


def test_words_count_in_drawing():
    denoiser, settings = DiffusersDenoiser(tiny_pipeline()), SamplerSettings(3, 3.0)
    denoiser.words["sks"] = denoiser.word_vectors("red")
    drawn = denoiser.generate(["a sks ring"], [1], SIZE, settings, negative_prompt="sks")
    expected = denoiser.generate(["a red ring"], [1], SIZE, settings, negative_prompt="red")
    torch.testing.assert_close(drawn, expected)


@pytest.mark.parametrize(
    ("make", "settings", "size", "told"),
    [
        (small_sd, SamplerSettings(sampler="lms"), SIZE, "`sampler`.*euler, ddim, dpmpp_2m.*'lms'"),
        (small_sd, SamplerSettings(scheduler="beta"), SIZE, "`scheduler`.*normal, simple, karras"),
        (
            small_flow,
            SamplerSettings(scheduler="karras"),
            SIZE,
            "`scheduler`.*one of normal, simple; got",
        ),
        (tiny_pipeline, SamplerSettings(), (16, 18), "`size`.*multiples of 4 pixels; got 16 x 18"),
    ],
)
def test_what_cannot_be_drawn_is_refused(make, settings, size, told):
    with pytest.raises(InputError, match=told):
        DiffusersDenoiser(make()).generate(PROMPTS[:1], [1], size, settings)


@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m"])
def test_the_tiny_base_draws_what_it_is_asked_for(sampler):
    scene = Scene(shape=0, colour=3, place=1, count=0, background=0)
    prompt = PHRASES[0].format(content=scene.caption(), word="hatching")
    settings = SamplerSettings(12, 3.0, sampler)
    drawn = DiffusersDenoiser(tiny_pipeline()).generate([prompt], [11], (64, 64), settings)
    reading = Ruler.load().read(drawn)
    assert reading.content_hits([scene], ("shape", "colour", "place", "count")).all()
    assert reading.style_hits("hatching").all()
