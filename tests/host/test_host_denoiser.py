"""The denoiser contract met by ComfyUI's own objects, held against what they are known to be."""

import pytest
from questions import answer, ask, once

TIMES = [0.0, 0.031, 0.4, 0.77, 0.9999]
LONG = " ".join(["a red fox in the snow"] * 16)  # two windows of 77 tokens


@pytest.fixture
def answers(in_host, installation):
    return once(installation, in_host, ask_everything)


def ask_everything(host):
    return ask(host, QUESTIONS)


def _modules():
    import architectures
    import small_models

    return architectures, small_models


def _draws(channels=4, count=5, seed=5):
    import torch

    source = torch.Generator().manual_seed(seed)
    latents, noise = torch.randn(2, count, channels, 8, 8, generator=source)
    return latents, noise, torch.tensor(TIMES[:count])


def _gap(ours, theirs):
    return float(((ours - theirs).abs() / theirs.abs().clamp(min=1e-6)).max())


# --- the loss -------------------------------------------------------------------------------------


def losses_against_textbooks(host):
    """Each prediction type against its paper's formula, written in float64 without the host."""
    import torch

    _, small = _modules()
    found = {}
    for kind in ("EPS", "V_PREDICTION", "FLOW"):
        with torch.inference_mode():
            model, clip, vae = small.unet(kind), small.clip(), small.vae()
            denoiser = host.module("nodes.host.adapter").HostDenoiser(model, clip, vae)
            texts = [f"a fox number {i}" for i in range(len(TIMES))]
            conditioning = denoiser.encode_prompts(texts)
            latents, noise, times = _draws()
            ours = denoiser.loss(latents, conditioning, noise, times)
            context = torch.cat([row["cross_attn"] for row in conditioning])
            reference = _textbook(kind, model.model, context)
            found[kind] = {"gap": _gap(ours, reference(latents, noise, times))}
        found[kind]["loss"] = ours.tolist()
        found[kind]["dtype"] = str(ours.dtype)
    return found


def _textbook(kind, model, context):
    import torch

    def discrete(x0, noise, times):
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
        steps = (times.double() * 999).round().long()
        kept = torch.cumprod(1 - betas, 0)[steps].view(-1, 1, 1, 1)
        noisy = kept.sqrt() * x0.double() + (1 - kept).sqrt() * noise.double()
        output = model.diffusion_model(noisy.float(), steps.float(), context).double()
        target = noise.double()
        if kind == "V_PREDICTION":
            target = kept.sqrt() * noise.double() - (1 - kept).sqrt() * x0.double()
        return (output - target).square().mean((1, 2, 3))

    def flow(x0, noise, times):
        at = times.double().clamp(min=0.001)  # the least noise that the host's schedule has
        t = at.view(-1, 1, 1, 1)
        noisy = (1 - t) * x0.double() + t * noise.double()
        output = model.diffusion_model(noisy.float(), 1000 * at.float(), context).double()
        return (output - (noise.double() - x0.double())).square().mean((1, 2, 3))

    return flow if kind == "FLOW" else discrete


def test_the_loss_is_the_papers_own(answers):
    for kind, seen in answer(answers, losses_against_textbooks).items():
        assert seen["gap"] < 1e-4, (kind, seen)
        assert seen["dtype"] == "torch.float32"
        assert len({round(loss, 4) for loss in seen["loss"]}) == len(TIMES)


def weights_against_the_paper(host):
    """min(SNR, gamma) over the SNR's part in each target, from the schedules in float64."""
    import torch

    _, small = _modules()
    found = {}
    for kind in ("EPS", "V_PREDICTION", "FLOW"):
        with torch.inference_mode():
            sockets = small.unet(kind), small.clip(), small.vae()
            denoiser = host.module("nodes.host.adapter").HostDenoiser(*sockets)
        times = torch.tensor(TIMES)
        for gamma in (1.0, 5.0):
            ours = denoiser.min_snr(times, gamma)
            found[f"{kind} {gamma}"] = {"gap": _gap(ours, _min_snr(kind, times, gamma))}
            found[f"{kind} {gamma}"]["spread"] = float(ours.max() / ours.min())
    return found


def _min_snr(kind, times, gamma):
    import torch

    if kind == "FLOW":  # n - x_0 is off by 1 / t times what x_0 is off by
        t = times.double().clamp(min=0.001)
        return ((1 - t) / t).square().clamp(max=gamma) * t.square()
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    kept = torch.cumprod(1 - betas, 0)[(times.double() * 999).round().long()]
    snr = kept / (1 - kept)
    return snr.clamp(max=gamma) / (snr if kind == "EPS" else snr + 1)


def test_min_snr_weights_are_the_papers(answers):
    for case, seen in answer(answers, weights_against_the_paper).items():
        assert seen["gap"] < 1e-5, (case, seen)
        assert seen["spread"] > 2, case


def losses_against_the_sampler(host):
    """Every family against one Euler step of the host's own sampler, which ends at `denoised`."""
    import torch

    families, _ = _modules()
    found = {}
    for kind in ("SDXL", "SD3", "Flux"):
        with torch.inference_mode():
            model, clip, vae = families.sockets(kind)
            denoiser = host.module("nodes.host.adapter").HostDenoiser(model, clip, vae)
            latents, noise, times = _draws(families.LATENT_CHANNELS[kind], 3)
            texts = ["a fox", "a red boat", ""]
            ours = denoiser.loss(latents, denoiser.encode_prompts(texts), noise, times)
            theirs = [
                _one_step(model, clip, text, latents[i : i + 1], noise[i : i + 1], times[i : i + 1])
                for i, text in enumerate(texts)
            ]
            found[kind] = {"gap": _gap(ours, torch.stack(theirs)), "loss": ours.tolist()}
            found[kind]["multiple"] = denoiser.size_multiple
            swapped = denoiser.loss(latents, denoiser.encode_prompts(texts[::-1]), noise, times)
            found[kind]["words count"] = bool((swapped[0] - ours[0]).abs() > 1e-6)
    return found


def _one_step(model, clip, text, latents, noise, times):
    import comfy.sample
    import comfy.samplers
    import torch

    sampling = model.get_model_object("model_sampling")
    if hasattr(sampling, "num_timesteps"):
        sigma = sampling.sigmas[(times * 999).round().long()]
    else:
        sigma = torch.tensor([max(sampling.percent_to_sigma(1 - float(times)), sampling.sigmas[0])])
    cond = clip.encode_from_tokens_scheduled(clip.tokenize(text))
    denoised = comfy.sample.sample_custom(
        model,
        noise,
        1.0,
        comfy.samplers.sampler_object("euler"),
        torch.cat([sigma, torch.zeros(1)]),
        cond,
        cond,
        model.model.process_latent_out(latents),
        disable_pbar=True,
    )
    error = (latents - model.model.process_latent_in(denoised)) / sigma
    return error.square().mean()


def test_every_family_gets_what_the_hosts_sampler_gives_it(answers):
    found = answer(answers, losses_against_the_sampler)
    for kind, seen in found.items():
        assert seen["gap"] < 5e-4, (kind, seen)
        assert seen["words count"], kind
    assert {kind: seen["multiple"] for kind, seen in found.items()} == {
        "SDXL": 8,
        "SD3": 16,
        "Flux": 16,
    }


def rows_of_different_lengths(host):
    import torch

    _, small = _modules()
    with torch.inference_mode():
        denoiser = host.module("nodes.host.adapter").HostDenoiser(
            small.unet(), small.clip(), small.vae()
        )
        texts = ["a fox", LONG, "a boat"]
        latents, noise, times = _draws(count=3)
        together = denoiser.encode_prompts(texts)
        whole = denoiser.loss(latents, together, noise, times)
        gaps = []
        for i, text in enumerate(texts):
            part = latents[i : i + 1], noise[i : i + 1], times[i : i + 1]
            alone = denoiser.loss(part[0], denoiser.encode_prompts([text]), *part[1:])
            gaps.append(float((whole[i] - alone).abs().max()))
        return {
            "gaps": gaps,
            "shapes": [list(row["cross_attn"].shape) for row in together],
            "tokens": [denoiser.prompt_tokens(text) for text in ("", "a (red:1.3) fox", LONG)],
            "inference": [value.is_inference() for row in together for value in row.values()],
        }


def test_prompts_of_several_windows_count_as_they_do_in_the_host(answers):
    seen = answer(answers, rows_of_different_lengths)
    assert all(gap < 1e-5 for gap in seen["gaps"])
    assert seen["shapes"] == [[1, 77, 32], [1, 154, 32], [1, 77, 32]]
    assert seen["tokens"] == [[2, 77], [5, 77], [98, 77]]
    assert not any(seen["inference"])


# --- drawing --------------------------------------------------------------------------------------


def _room_for_one_picture(host):
    """The host's sampler runs out of memory with two; yields how many it was asked for."""
    import contextlib
    from unittest import mock

    import comfy.sample
    import torch

    sample, seen = comfy.sample.sample, []

    def greedy(model, noise, *args, **options):
        seen.append(len(noise))
        if len(noise) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return sample(model, noise, *args, **options)

    @contextlib.contextmanager
    def patched():
        with mock.patch.object(comfy.sample, "sample", greedy):
            yield seen

    return patched()


def pictures_against_ksampler(host):
    import nodes
    import torch

    _, small = _modules()
    settings = host.module("nsync.denoiser").SamplerSettings
    with torch.inference_mode():
        model, clip, vae = small.unet("EPS"), small.clip(), small.vae()
        denoiser = host.module("nodes.host.adapter").HostDenoiser(model, clip, vae)
        texts, seeds = ["a fox", "a boat", LONG], [3, 2**62 + 1, 5]
        start = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        state = torch.random.get_rng_state()

        def theirs(sampler, i, denoise=1.0):
            latent = nodes.EmptyLatentImage().generate(64, 64)[0]
            if denoise < 1:
                latent = {"samples": vae.encode(start[i : i + 1].movedim(1, -1))}
            conds = [clip.encode_from_tokens_scheduled(clip.tokenize(t)) for t in (texts[i], "no")]
            args = (4, 2.5, sampler, "normal", *conds, latent)
            drawn = nodes.common_ksampler(model, seeds[i], *args, denoise=denoise)[0]
            return vae.decode(drawn["samples"]).movedim(-1, 1)

        found = {}
        for sampler in ("euler", "euler_ancestral", "dpmpp_2m_sde"):
            wanted = settings(4, 2.5, sampler, "normal")
            reference = torch.cat([theirs(sampler, i) for i in range(3)])
            torch.random.set_rng_state(state)
            drawn = denoiser.generate(texts, seeds, (64, 64), wanted, negative_prompt="no")
            kept = bool((torch.random.get_rng_state() == state).all())
            pair = denoiser.generate(texts[:2], seeds[:2], (64, 64), wanted, negative_prompt="no")
            found[sampler] = {
                "gap": float((drawn - reference).abs().max()),
                "pair": float((pair - reference[:2]).abs().max()),
                "kept": kept,
                "spread": float((reference[0] - reference[1]).abs().max()),
            }
        latents = denoiser.encode_images(start)
        wanted = settings(4, 2.5, "euler", "normal")
        drawn = denoiser.generate(
            texts, seeds, (64, 64), wanted, negative_prompt="no", latents=latents, denoise=0.5
        )
        reference = torch.cat([theirs("euler", i, 0.5) for i in range(3)])
        found["from a picture"] = {"gap": float((drawn - reference).abs().max())}
        with _room_for_one_picture(host) as seen:
            ask = texts[:2], seeds[:2], (64, 64), wanted
            start = {"latents": latents[:2], "denoise": 0.5}
            drawn = denoiser.generate(*ask, negative_prompt="no", **start)
        found["in parts"] = {"gap": float((drawn - reference[:2]).abs().max()), "seen": seen}
        wide = denoiser.generate(["a fox"], [1], (96, 40), wanted)
    return found | {
        "wide": list(wide.shape),
        "kind": [str(wide.dtype), wide.is_inference(), latents.is_inference(), str(latents.dtype)],
    }


def test_pictures_are_those_of_ksampler(answers):
    seen = answer(answers, pictures_against_ksampler)
    assert seen.pop("wide") == [1, 3, 40, 96]
    assert seen.pop("kind") == ["torch.float32", False, False, "torch.float32"]
    for sampler, found in seen.items():
        assert found["gap"] < 1e-4, (sampler, found)
    for sampler in ("euler", "euler_ancestral", "dpmpp_2m_sde"):
        assert seen[sampler]["pair"] < 1e-4
        assert seen[sampler]["kept"]
        assert seen[sampler]["spread"] > 0.02
    assert seen["in parts"]["seen"] == [2, 1, 1]


# --- bad input ------------------------------------------------------------------------------------


def refusals(host):
    import comfy.model_sampling
    import torch

    _, small = _modules()
    build = host.module("nodes.host.adapter").HostDenoiser
    settings = host.module("nsync.denoiser").SamplerSettings

    def told(action):
        try:
            action()
        except ValueError as error:
            return f"{type(error).__name__} {error}"
        return ""

    with torch.inference_mode():
        model, clip, vae = small.unet(), small.clip(), small.vae()

        class Sampling(comfy.model_sampling.ModelSamplingDiscrete, comfy.model_sampling.X0):
            pass

        odd = model.clone()
        odd.add_object_patch("model_sampling", Sampling())
        denoiser = build(model, clip, vae)
        return {
            "clip": told(lambda: build(model, None, vae)),
            "model": told(lambda: build(odd, clip, vae)),
            "sampler": told(lambda: denoiser.generate(["a"], [1], (64, 64), settings(1, 1.0, "x"))),
            "scheduler": told(
                lambda: denoiser.generate(["a"], [1], (64, 64), settings(1, 1.0, "euler", "x"))
            ),
            "width": told(lambda: denoiser.generate(["a"], [1], (60, 64), settings())),
            "height": told(lambda: denoiser.generate(["a"], [1], (64, 60), settings())),
        }


def test_bad_input_is_told_by_name(answers):
    for name, text in answer(answers, refusals).items():
        assert text.startswith(f"InputError `{name}`: expected"), (name, text)


QUESTIONS = (
    losses_against_textbooks,
    losses_against_the_sampler,
    rows_of_different_lengths,
    pictures_against_ksampler,
    weights_against_the_paper,
    refusals,
)
