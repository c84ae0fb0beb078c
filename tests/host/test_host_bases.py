"""Bases as they come: stored in other types, quantised, under a LoRA; each has its identity."""

import pytest
from questions import answer, ask, once

pytestmark = pytest.mark.newest

STORED = ("float16", "bfloat16", "float8_e4m3fn")
FORMS = ("float8_e4m3fn", "nvfp4", "int8_tensorwise")


@pytest.fixture
def answers(in_host, installation):
    return once(installation, in_host, ask_everything)


def ask_everything(host):
    return ask(host, QUESTIONS)


# --- types ----------------------------------------------------------------------------------------


def train_stored_bases(host):
    """A run on weights stored in a type, and one on the same numbers stored in float32."""
    import torch
    import trainer_graph

    found = {}
    for stored in STORED:
        for precision in ("fp32", "bf16"):
            given = _sockets(host, getattr(torch, stored))
            twin = _sockets(host, torch.float32)
            _copy_weights(given["model"], twin["model"])
            before = _weights(given["model"])
            runs = [
                _train(host, trainer_graph, sockets, precision, f"{stored} {precision} {i}")
                for i, sockets in enumerate((given, twin))
            ]
            after = _weights(given["model"])
            found[f"{stored} {precision}"] = {
                "losses": [run["losses"] for run in runs],
                "gap": _gap(*(run["lora"] for run in runs)),
                "seen": [run["seen"] for run in runs],
                "types": sorted({str(value.dtype) for value in runs[0]["lora"].values()}),
                "same": _same(after, before),
                "stored": sorted({str(value.dtype) for value in after.values()}),
            }
    return found


def _sockets(host, dtype):
    import architectures
    import torch
    import trainer_graph

    arithmetic = None if dtype == torch.float32 else torch.float32  # as the host on a CPU
    with torch.inference_mode():
        model, clip, vae = architectures.sockets("SD15", dtype, arithmetic)
    base = host.module("nodes.host.adapter").HostDenoiser(model, clip, vae).identity
    made = trainer_graph.style_set(host, base)
    return {"model": model, "clip": clip, "vae": vae, "style_set": made}


def _copy_weights(source, target):
    import torch

    values = dict(source.model.diffusion_model.named_parameters())
    with torch.inference_mode():
        for name, value in target.model.diffusion_model.named_parameters():
            value.copy_(values[name].float())


def _weights(model):
    return {k: v.clone() for k, v in model.model.diffusion_model.state_dict().items()}


def _same(after, before):
    same = all(bool((after[name] == before[name]).all()) for name in before)
    return same and list(after) == list(before)


def _train(host, graphs, given, precision, name):
    taken, seen = graphs.serve(host, given), set()
    layer = given["model"].model.diffusion_model.input_blocks[1][0]
    hook = layer.register_forward_pre_hook(lambda _, inputs: seen.add(str(inputs[0].dtype)))
    settings = {"name": name, "precision": precision, "steps": 2, "preview_every": 0}
    outcome = host.run(graphs.graph(rule="plain", **settings))
    hook.remove()
    assert outcome.ok, outcome.error
    losses = taken["loss_map"]["loss"]
    return {"losses": losses, "lora": taken["lora"], "seen": sorted(seen)}


def _gap(ours, theirs):
    import torch

    flat = [torch.cat([lora[name].flatten() for name in sorted(lora)]) for lora in (ours, theirs)]
    return float((flat[0] - flat[1]).norm() / flat[1].norm())


def test_a_stored_type_changes_nothing_but_the_numbers(answers):
    found = answer(answers, train_stored_bases)
    assert len(found) == len(STORED) * 2
    for case, seen in found.items():
        stored, precision = case.split()
        dtype = {"fp32": "torch.float32", "bf16": "torch.bfloat16"}[precision]
        assert seen["seen"] == [[dtype], [dtype]], case
        assert seen["types"] == ["torch.float32"], case
        assert seen["same"], case
        assert seen["stored"] == [f"torch.{stored}"], case
        ours, theirs = seen["losses"]
        assert ours == pytest.approx(theirs, rel=1e-5), case
        assert seen["gap"] < 1e-5, case


# --- quantised ------------------------------------------------------------------------------------


def gradients_of_quantised_bases(host):
    """Against the same model with the numbers that its quantised weights stand for."""
    import architectures
    import gradients
    import small_models
    import torch
    from comfy.quant_ops import QUANT_ALGOS

    build, found = host.module("nodes.host.adapter").HostDenoiser, {}
    settings = host.module("nsync.settings").TrainSettings(rank=2, alpha=2.0, branches="fused")
    for form in FORMS:
        if form not in QUANT_ALGOS:  # an older host
            continue
        with torch.inference_mode():
            model, plain = architectures.quantised("SD15", form)
            rest = small_models.clip(), small_models.vae()
        ours, theirs = build(model, *rest), build(plain, *rest)
        given = gradients.batches(host, 4)
        start = gradients.disturbed(host, settings, theirs)
        found[form] = {"identity": [ours.identity, theirs.identity], "layers": len(start)}
        before = _weights(model)
        one = gradients.by_passes(host, ours, settings, given, start)
        two = gradients.by_passes(host, theirs, settings, given, start)
        pairs = [(_flat(one[0], name), _flat(two[0], name)) for name in gradients.BRANCHES]
        found[form]["gap"] = max(float((a - b).norm() / b.norm()) for a, b in pairs)
        found[form]["apart"] = float((pairs[0][1] - pairs[1][1]).norm() / pairs[0][1].norm())
        found[form]["same"] = _same(_weights(model), before)
    return found


def _flat(found, branch):
    import torch

    return torch.cat([value.flatten() for value in found[branch].values()])


def test_a_quantised_base_has_the_gradients_of_what_it_stands_for(answers):
    found = answer(answers, gradients_of_quantised_bases)
    assert {"float8_e4m3fn", "nvfp4"} <= set(found)
    for form, seen in found.items():
        # The host quantises what flows into an int8 layer as well.
        assert seen["gap"] < (0.05 if form == "int8_tensorwise" else 1e-5), (form, seen)
        assert seen["identity"][0] == seen["identity"][1], form
        assert seen["apart"] > 0.5, form
        assert seen["layers"] == 128, form
        assert seen["same"], form
    assert len({seen["identity"][0] for seen in found.values()}) == len(found)


# --- identity -------------------------------------------------------------------------------------


def identities(host):
    import comfy.sd
    import small_models as small
    import torch

    build = host.module("nodes.host.adapter").HostDenoiser
    with torch.inference_mode():
        clip, vae = small.clip(), small.vae()
        model = small.unet()
        plain = build(model, clip, vae).identity
        lora = small.patched(model)
        loaded = build(lora, clip, vae)
        ask = (["a"], [1], (32, 32), host.module("nsync.denoiser").SamplerSettings(1, 1.0))
        loaded.generate(*ask)  # now the patched weights are in the model
        other = small.unet()
        name = "diffusion_model.input_blocks.1.0.in_layers.0.weight"
        dict(other.model.named_parameters())[name].data[3] += 1e-3
        stronger = comfy.sd.load_lora_for_models(model, None, _lora_of(lora), 0.25, 0.0)[0]
        return {
            "plain": plain,
            "again": build(small.unet(), clip, vae).identity,
            "while a LoRA is loaded": build(model, clip, vae).identity,
            "fresh while loaded": _fresh(host, model),
            "half": build(small.unet(dtype=torch.float16), clip, vae).identity,
            "lora": loaded.identity,
            "lora again": build(small.patched(small.unet()), clip, vae).identity,
            "strength": build(stronger, clip, vae).identity,
            "weight": build(other, clip, vae).identity,
        }


def _lora_of(model):
    (key,) = model.patches
    up, down = model.patches[key][0][1].weights[:2]
    name = key.removesuffix(".weight")
    return {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}


def _fresh(host, model):
    identity = host.module("nodes.host.identity")
    identity._known.clear()
    return identity.identity_of(model)


def test_identity_is_of_the_weights_and_the_loras(answers):
    seen = answer(answers, identities)
    assert len(seen["plain"]) == 64
    same = ("again", "while a LoRA is loaded", "fresh while loaded")
    assert all(seen[name] == seen["plain"] for name in same), seen
    assert seen["lora again"] == seen["lora"]
    kinds = ("plain", "lora", "strength", "weight", "half")
    assert len({seen[name] for name in kinds}) == len(kinds), seen


QUESTIONS = (train_stored_bases, gradients_of_quantised_bases, identities)
