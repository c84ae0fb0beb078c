"""The host's model in training: right gradients however they are made, and nothing left behind."""

from functools import partial

import pytest
from questions import answer, ask, once

pytestmark = pytest.mark.newest

KINDS = ("SD15", "SDXL", "SD3", "Flux")
LAYERS = ("attention", "all linear and convolution")
TEXTS = ["a fox", "a boat"]
BASES = ("float32 plain network", "float32 patched network", "float16 plain network",
         "float32 plain text", "float32 patched text", "float16 patched text")  # fmt: skip
WAYS = {
    "fused": {"branches": "fused"},
    "sequential": {"branches": "sequential"},
    "checkpointing": {"branches": "fused", "checkpointing": True},
}


@pytest.fixture
def answers(in_host, installation):
    return once(installation, in_host, ask_everything)


def ask_everything(host):
    return ask(host, QUESTIONS)


def _denoiser(host, kind):
    import architectures
    import gradients
    import torch

    with torch.inference_mode():  # as the host's own loaders
        denoiser = host.module("nodes.host.adapter").HostDenoiser(*architectures.sockets(kind))
    gradients.well_conditioned(denoiser.network)
    return denoiser


def _settings(host, **changes):
    chosen = {"rank": 2, "alpha": 3.0, "batch": 2, **changes}
    return host.module("nsync.settings").TrainSettings(**chosen)


# --- gradients ------------------------------------------------------------------------------------


def gradients_of_every_family(host):
    """All branches at once, one after the other, recomputed: against passes made by hand."""
    import architectures
    import gradients

    found = {}
    for kind in KINDS:
        denoiser = _denoiser(host, kind)
        given = gradients.batches(host, architectures.LATENT_CHANNELS[kind])
        for layers in LAYERS:
            settings = _settings(host, layers=layers)
            start = gradients.disturbed(host, settings, denoiser)
            expected = gradients.plainly(denoiser, given, start)
            ways = {
                way: gradients.by_passes(
                    host, denoiser, _settings(host, layers=layers, **change), given, start
                )[0]
                for way, change in WAYS.items()
            }
            found[f"{kind}, {layers}"] = {
                "gaps": {way: gradients.gap(ours, expected) for way, ours in ways.items()},
                "between branches": gradients.gap(
                    {"positive": expected["negative"]}, {"positive": expected["positive"]}
                ),
                "least": min(
                    float(value.norm()) for each in expected.values() for value in each.values()
                ),
            }
    return found


def test_every_way_finds_the_gradients_of_plain_passes(answers):
    found = answer(answers, gradients_of_every_family)
    assert len(found) == len(KINDS) * len(LAYERS)
    for case, seen in found.items():
        assert max(seen["gaps"].values()) < 1e-5, (case, seen)
        assert seen["between branches"] > 0.1, case
        assert seen["least"] > 0, case


# --- checkpointing --------------------------------------------------------------------------------


def memory_with_and_without(host):
    import architectures
    import gradients

    found = {}
    for kind in KINDS:
        denoiser = _denoiser(host, kind)
        given = gradients.batches(host, architectures.LATENT_CHANNELS[kind], side=32)
        before = _own_forwards(denoiser.network)
        peaks = {
            way: gradients.peak_bytes(
                partial(gradients.by_passes, host, denoiser, _settings(host, **WAYS[way]), given)
            )
            for way in ("fused", "checkpointing")
        }
        blocks = list(host.module("nodes.host.checkpointing").blocks(denoiser.network))
        found[kind] = {
            "share": peaks["checkpointing"] / peaks["fused"],
            "blocks": sorted({type(block).__name__ for block in blocks}),
            "restored": _own_forwards(denoiser.network) == before,
        }
    return found


def _own_forwards(network):
    return [name for name, module in network.named_modules() if "forward" in module.__dict__]


def test_checkpointing_takes_less_memory_and_goes_away(answers):
    found = answer(answers, memory_with_and_without)
    assert {kind: set(seen["blocks"]) for kind, seen in found.items()} == {
        "SD15": {"ResBlock", "SpatialTransformer", "Downsample", "Upsample"},
        "SDXL": {"ResBlock", "SpatialTransformer", "Downsample", "Upsample"},
        "SD3": {"JointBlock"},
        "Flux": {"DoubleStreamBlock", "SingleStreamBlock"},
    }
    for kind, seen in found.items():
        assert seen["share"] < 0.85, (kind, seen)  # the small Flux is little more than its ends
        assert seen["restored"], kind


def options_of_every_block(host):
    """A patch on the socket's model that does another thing in every block: checkpointed or not."""
    import gradients

    denoiser = _denoiser(host, "SD15")
    denoiser._patcher.set_model_attn1_output_patch(_by_block)
    given, found = gradients.batches(host, 4), {}
    start = gradients.disturbed(host, _settings(host), denoiser)
    for way in ("fused", "checkpointing"):
        settings = _settings(host, **WAYS[way])
        found[way], losses = gradients.by_passes(host, denoiser, settings, given, start)
    denoiser._patcher.model_options["transformer_options"].pop("patches")
    _, without = gradients.by_passes(host, denoiser, settings, given, start)
    gap = gradients.gap(found["checkpointing"], found["fused"])
    return {"gap": gap, "losses": [losses["positive"][0], without["positive"][0]]}


def _by_block(value, options):
    kind, number = options["block"]
    return value * (1 + 0.3 * number + {"input": 0, "middle": 1, "output": 2}[kind])


def test_a_block_computed_again_gets_the_options_that_it_had(answers):
    seen = answer(answers, options_of_every_block)
    assert seen["gap"] < 1e-5
    assert abs(seen["losses"][0] - seen["losses"][1]) > 1e-3


def somebody_elses_forward(host):
    """A block that another pack has changed, and a run that fails."""
    denoiser = _denoiser(host, "SD15")
    block = next(iter(host.module("nodes.host.checkpointing").blocks(denoiser.network)))
    block.forward = theirs = lambda *args: type(block).forward(block, *args)
    try:
        with denoiser.checkpointing():
            changed = block.forward is not theirs
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        return [changed, block.forward is theirs, len(_own_forwards(denoiser.network))]


def test_checkpointing_leaves_a_forward_that_was_there(answers):
    assert answer(answers, somebody_elses_forward) == [True, True, 1]


# --- afterwards -----------------------------------------------------------------------------------


def train_and_look_again(host):
    """Gradients inside `trainable`; pictures, encodings and tensors the same before and after."""
    return {way: _train_and_look_again(host, *way.split()) for way in BASES}


def _train_and_look_again(host, dtype, patched, text):
    import comfy.model_management as management
    import small_models as small
    import torch

    with torch.inference_mode():
        model, clip = small.unet("FLOW", getattr(torch, dtype)), small.clip()
        if patched == "patched":
            model, clip = small.patched(model), small.patched_clip(clip)
        denoiser = host.module("nodes.host.adapter").HostDenoiser(model, clip, small.vae())
        other = host.module("nodes.host.adapter").HostDenoiser(
            model.clone(), clip.clone(), small.vae()
        )
        before = _seen(host, denoiser)
        inputs = _inputs()
        expected = denoiser.loss(inputs[0], denoiser.encode_prompts(TEXTS), *inputs[1:])
        weights = [_weights(part) for part in (model.model, clip.cond_stage_model)]
        facts = {"in_training": [management.in_training]}
        with denoiser.trainable(text=text == "text"):
            facts["in_training"].append(management.in_training)
            facts |= _gradients(host, denoiser, [value.clone() for value in inputs], expected)
            facts["preview"] = float((_seen(host, denoiser)[0] - before[0]).abs().max())
        facts["in_training"].append(management.in_training)
        try:
            with denoiser.trainable(text=text == "text"):
                management.unload_all_models()
                raise KeyboardInterrupt
        except KeyboardInterrupt:
            facts["in_training"].append(management.in_training)
        after = _seen(host, denoiser)
        facts["pictures"] = [bool((a == b).all()) for a, b in zip(after, before, strict=True)]
        again = [_weights(part) for part in (model.model, clip.cond_stage_model)]
        facts["weights"] = [
            list(new) == list(old) and all(bool((new[k] == old[k]).all()) for k in old)
            for new, old in zip(again, weights, strict=True)
        ]
        facts["clone's picture"] = bool((_seen(host, other)[0] == before[0]).all())
        facts["patches"] = [len(model.patches), len(clip.patcher.patches)]
    return facts


def _inputs():
    import torch

    source = torch.Generator().manual_seed(5)
    latents, noise = torch.randn(2, 2, 4, 8, 8, generator=source)
    return latents, noise, torch.tensor([0.3, 0.8])


def _seen(host, denoiser):
    """A picture, and what the text encoder says of its prompt."""
    settings = host.module("nsync.denoiser").SamplerSettings(3, 2.0)
    picture = denoiser.generate(["a fox"], [1], (64, 64), settings)
    return picture, denoiser.encode_prompts(["a fox"])[0]["cross_attn"].detach()


def _weights(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def _gradients(host, denoiser, inputs, expected):
    """With new adapters, which change nothing yet: the loss, and the loss after another's turn."""
    import comfy.model_management as management
    import torch

    trained = host.module("nsync.trained")
    start = trained.first_adapters(_settings(host), denoiser)
    networks = trained.networks(denoiser)
    put = host.module("nsync.adapters").adapters(networks, start, denoiser.device)
    with put as (store, rows), store.copied(1) as leaf, rows.of([2]):
        arguments = inputs[0], denoiser.encode_prompts(TEXTS), *inputs[1:]
        loss = denoiser.loss(*arguments)
        (gradient,) = torch.autograd.grad(loss.sum(), [leaf])
        management.unload_all_models()  # as when something else needs the room
        management.load_models_gpu([denoiser._patcher])
        again = denoiser.loss(*arguments)
    return {
        "gradients": float(gradient.abs().sum()),
        "loss": float((loss.detach() - expected).abs().max()),
        "after unloading": float((again.detach() - expected).abs().max()),
    }


def test_training_leaves_the_socket_as_it_was(answers):
    for way, facts in answer(answers, train_and_look_again).items():
        assert facts["in_training"] == [False, True, False, False], way
        assert facts["gradients"] > 0, way
        assert facts["loss"] < 1e-4, way
        assert facts["preview"] < 1e-5, way
        assert facts["after unloading"] < 1e-4, way
        assert facts["pictures"] == [True, True], way
        assert facts["weights"] == [True, True], way
        assert facts["clone's picture"], way
        assert facts["patches"] == [int("patched" in way)] * 2, way


QUESTIONS = (
    gradients_of_every_family,
    memory_with_and_without,
    options_of_every_block,
    somebody_elses_forward,
    train_and_look_again,
)
