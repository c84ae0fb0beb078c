"""After a run, however it ended, the host is as it was; runs in one queue know nothing of another.

The paper's preset is asked here too, by a run that is stopped.
"""

import json
from contextlib import contextmanager

import pytest
from questions import answer, ask, once

pytestmark = pytest.mark.newest

ENDS = ("ended", "stopped", "failed")
WAYS = {
    "LoRA": ({}, {}),
    "everything": (
        {"trains": "LoRA and embedding", "layers": "all linear and convolution"},
        {"text_encoders": True, "checkpointing": True, "ema": 0.5},
    ),
}


@pytest.fixture
def answers(in_host, installation):
    return once(installation, in_host, ask_everything)


def ask_everything(host):
    return ask(host, QUESTIONS)


def _run(host, name, end="ended", options=None, **settings):
    """A run of four steps, as far as it comes."""
    import trainer_graph

    common = {"rule": "plain", "steps": 4, "preview_every": 2, "precision": "bf16", "name": name}
    prompt = trainer_graph.graph(options, **common | settings)
    with _pressed(host, 2 if end == "stopped" else 0):
        return host.run(prompt)


@contextmanager
def _pressed(host, step):
    """The stop button, pressed when a step is told."""
    import comfy.model_management as management

    kind = host.module("nodes.progress").TrainingProgress
    told = kind.on_step

    def on_step(progress, report):
        if report.step == step:
            management.interrupt_current_processing()
        told(progress, report)

    kind.on_step = on_step
    try:
        yield
    finally:
        kind.on_step = told


# --- traces ---------------------------------------------------------------------------------------


def look_after_every_end(host):
    """What is left of a run in the models, in the host and in memory."""
    found = {}
    for way, (settings, options) in WAYS.items():
        for end in ENDS:
            found[f"{way}, {end}"] = _look_after(host, way, end, settings, options)
    return found


def _look_after(host, way, end, settings, options):
    import comfy.model_management as management
    import torch
    import trainer_graph

    given = _sockets(host, broken=end == "failed")
    taken = trainer_graph.serve(host, given)
    _run(host, f"{way} first {end}", **settings)  # what is made once is made now
    taken.clear()
    drawn = _used(given)
    before, tensors = _facts(given), _tensor_bytes()
    outcome = _run(host, f"{way} {end}", end, options, **settings)
    events, error = [event for event, _ in outcome.messages], outcome.error
    del outcome
    taken.clear()
    again = _used(given)
    seen = {
        "ok": "execution_success" in events,
        "interrupted": "execution_interrupted" in events,
        "error": error,
        "changes": _changes(before, _facts(given)),
        "used": [bool((a == b).all()) for a, b in zip(again, drawn, strict=True)],
        "in_training": management.in_training,
        "grown": _tensor_bytes() / tensors,
        "loaded": _loaded(given),
        "enabled": [torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")],
    }
    host.nodes.pop("TestSource"), host.nodes.pop("TestSink")
    return seen


def _sockets(host, broken):
    """With a model all of whose losses are NaN if `broken`: after three of them a run gives up."""
    import text_models
    import torch
    import trainer_graph

    given = text_models.sockets(host, "SD15")
    if broken:
        weights = dict(given["model"].model.named_parameters())
        with torch.inference_mode():
            weights["diffusion_model.out.2.bias"][0] = torch.nan
        parts = {part: given[part] for part in ("model", "clip", "vae")}
        base = host.module("nodes.host.adapter").HostDenoiser(**parts).identity
        given["style_set"] = trainer_graph.style_set(host, base)
    return given


def _used(given):
    """The models as the next nodes use them: one drawing, one prompt, one picture encoded."""
    import gc

    import nodes
    import torch
    import trainer_graph

    gc.collect()  # the run's own clones among what the host has loaded
    drawn = trainer_graph.draw(given["model"]).nan_to_num()
    with torch.inference_mode():
        ((states, _),) = nodes.CLIPTextEncode().encode(given["clip"], "a cat")[0]
        return drawn, states, given["vae"].encode(torch.full((1, 64, 64, 3), 0.5))


def _networks(given):
    model, clip, vae = (given[part] for part in ("model", "clip", "vae"))
    return [model.model, clip.cond_stage_model, vae.first_stage_model]


def _facts(given):
    """Everything of the networks that a run could leave changed, by module and weight."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    facts = {}
    for i, network in enumerate(_networks(given)):
        for name, module in network.named_modules():
            own = sorted(key for key in module.__dict__ if not key.startswith("_"))
            counts = [len(getattr(module, hook)) for hook in hooks]
            facts[f"{i} {name}"] = [type(module).__name__, own, counts, module.training]
        for name, value in (*network.named_parameters(), *network.named_buffers()):
            kept = value.detach().double().nan_to_num().sum().item()
            facts[f"{i} weight {name}"] = [
                str(value.dtype), str(value.device), list(value.shape), value.requires_grad, kept,
                value.grad is None if value.is_leaf else False,
            ]  # fmt: skip
    facts["patches"] = [len(given["model"].patches), len(given["clip"].patcher.patches)]
    facts["options"] = sorted(given["model"].model_options["transformer_options"])
    facts["dtype"] = str(given["model"].model.manual_cast_dtype)
    return facts


def _changes(before, after):
    return {
        name: [before.get(name), after.get(name)]
        for name in before.keys() | after.keys()
        if before.get(name) != after.get(name)
    }


def _tensor_bytes():
    """Bytes behind all tensors that Python can reach."""
    import gc
    import warnings

    import torch

    gc.collect()
    sizes = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of modules that warn of being looked at
        for value in gc.get_objects():
            if type(value) in (torch.Tensor, torch.nn.Parameter):
                storage = value.untyped_storage()
                sizes[storage.data_ptr()] = storage.nbytes()
    return sum(sizes.values())


def _loaded(given):
    """How often the host takes a network for loaded; it drops clones that are gone in its time."""
    import comfy.model_management as management

    models = [entry.model for entry in management.current_loaded_models]
    inside = [None if model is None else model.model for model in models]
    networks = _networks(given)
    return max(sum(one is network for one in inside) for network in networks)


def test_nothing_is_left_of_a_run(answers):
    found = answer(answers, look_after_every_end)
    assert len(found) == len(WAYS) * len(ENDS)
    for case, seen in found.items():
        assert seen["ok"] == ("ended" in case), (case, seen["error"])
        assert seen["interrupted"] == ("stopped" in case), case
        assert ("NonFiniteError" in seen["error"]) == ("failed" in case), (case, seen["error"])
        assert seen["changes"] == {}, (case, seen["changes"])
        assert seen["used"] == [True, True, True], case
        assert seen["in_training"] is False, case
        assert seen["grown"] < 1.01, (case, seen["grown"])
        assert seen["loaded"] == 1, (case, seen["loaded"])
        assert seen["enabled"] == [True, False], case


# --- two in one queue -----------------------------------------------------------------------------


def two_trainers(host):
    """Two trainers on the same sockets in one graph, and each of them alone."""
    import text_models
    import trainer_graph

    given = text_models.sockets(host, "SD15")
    trainer_graph.serve(host, given)
    errors = []
    for pair in (("plain",), ("text",), ("plain", "text")):
        prompt = trainer_graph.graph({"text_encoders": True, "embedding_rate": 0.1})
        asked = prompt.pop("2")
        prompt.pop("3")
        for place, kind in enumerate(pair):
            inputs = {**asked["inputs"], "name": f"{kind} of {len(pair)}", "steps": 3}
            inputs |= {"preview_every": 2, "rule": "nsync"}
            if kind == "text":
                inputs["trains"] = "LoRA and embedding"
            else:
                inputs.pop("options")
            prompt[str(20 + place)] = {**asked, "inputs": inputs}
        errors.append(host.run(prompt).error)
    return {"errors": errors, "same": [_same_files(host, kind) for kind in ("plain", "text")]}


def _same_files(host, kind):
    from safetensors.torch import load_file

    names = [f"loras/{kind} of {count}.safetensors" for count in (1, 2)]
    alone, beside = (load_file(host.base / "output" / name) for name in names)
    return alone.keys() == beside.keys() and all(bool((alone[k] == beside[k]).all()) for k in alone)


def test_two_trainers_in_one_graph_are_as_if_alone(answers):
    seen = answer(answers, two_trainers)
    assert seen["errors"] == ["", "", ""]
    assert seen["same"] == [True, True]


# --- the paper ------------------------------------------------------------------------------------

PAPER = {
    "rule": "nsync",
    "trains": "embedding",
    "embedding_rate": 1e-3,
    "steps": 8000,
    "batch": 2,
    "accumulate": 1,
    "vectors": 0,
    "optimizer": "adamw",
    "schedule": "constant",
    "warmup": 0,
    "clip_norm": 0.0,
    "scope": "global",
    "times": "uniform",
    "ema": 0.0,
    "min_snr": 0.0,
}


def paper_stopped(host):
    """The preset over settings that say otherwise, stopped after two of its 8,000 steps."""
    import text_models
    import trainer_graph

    trainer_graph.serve(host, text_models.sockets(host, "SD15"))
    others = {"rule": "plain", "steps": 3, "batch": 1, "warmup": 9, "learning_rate": 0.5}
    options = {"initial_word": "illustration", "ema": 0.9, "min_snr": 5.0}
    found = {}
    for preset in ("paper", "paper, as released"):
        outcome = _run(
            host,
            preset,
            "stopped",
            options,
            preset=preset,
            preview_every=0,
            **{name: value for name, value in others.items() if name != "steps"},
        )
        config = host.base / "output/nsync/runs" / preset / "config.json"
        title = preset.replace(", ", "_").replace(" ", "_")
        files = (host.base / "models/embeddings").glob(f"{title}_stopped_at_2*")
        found[preset] = {
            "error": outcome.error,
            "settings": json.loads(config.read_text())["settings"],
            "files": [file.name for file in files],
        }
    return found


def test_the_papers_preset_is_the_papers_setting(answers):
    found = answer(answers, paper_stopped)
    for preset, seen in found.items():
        wanted = PAPER | {"rule": "nsync" if preset == "paper" else "released-4.2"}
        assert {name: seen["settings"][name] for name in wanted} == wanted
        assert seen["settings"]["initial_word"] == "illustration"
        assert len(seen["files"]) == 1, preset


QUESTIONS = (look_after_every_end, two_trainers, paper_stopped)
