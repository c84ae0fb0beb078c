"""What stands on the sockets: attention without a gradient, another CLIP or VAE under one name."""

import pytest
from questions import answer, ask, once


@pytest.fixture
def answers(in_host, installation):
    return once(installation, in_host, ask_everything)


def ask_everything(host):
    return ask(host, QUESTIONS)


# --- attention ------------------------------------------------------------------------------------


def train_with_fast_attention(host):
    """Factors that a step in bf16 has moved, where the host draws by SageAttention or the like."""
    import trainer_graph as graphs

    found = {}
    for family in ("SDXL", "Flux"):
        for where in ("host", "model"):
            given = graphs.sockets(host, family)
            taken, calls = graphs.serve(host, given), []
            with _without_gradient(where, given["model"], calls):
                name = f"{family}_{where}"
                asked = {"precision": "bf16", "name": name, "preview_every": 0}
                outcome = host.run(graphs.graph(rule="plain", **asked))
                assert outcome.ok, outcome.error
                trained = len(calls)
                graphs.draw(taken["model"])
            ups = [value for key, value in taken["lora"].items() if "lora_up" in key]
            moved = sum(bool(up.any()) for up in ups)
            found[name] = {"layers": len(ups), "moved": moved, "asked": [trained, len(calls)]}
    return found


def _without_gradient(where, model, calls):
    """For the block the host's attention, or the override on the model, is one that has no backward
    and hands out tensors without a history: as SageAttention."""
    import contextlib
    import sys
    from unittest import mock

    import comfy.ldm.modules.attention as attention
    import torch

    def sage(*args, **options):
        calls.append(len(args))
        with torch.no_grad():
            return attention.attention_pytorch(*args, **options)

    stack = contextlib.ExitStack()
    if where == "model":
        options = model.model_options["transformer_options"]
        override = {"optimized_attention_override": lambda _, *args, **given: sage(*args, **given)}
        stack.enter_context(mock.patch.dict(options, override))
        return stack
    chosen = attention.wrap_attn(sage)
    for name, module in list(sys.modules.items()):  # each has it under a name of its own
        if name.startswith("comfy.ldm") and hasattr(module, "optimized_attention"):
            stack.enter_context(mock.patch.object(module, "optimized_attention", chosen))
    return stack


def test_attention_that_has_no_gradient_is_not_trained_through(answers):
    found = answer(answers, train_with_fast_attention)
    assert len(found) == 4
    for case, seen in found.items():
        assert seen["moved"] == seen["layers"] > 0, (case, seen)
        trained, drawn = seen["asked"]
        assert trained == 0 < drawn, case  # pictures are drawn by what the host has chosen


# --- another CLIP or VAE --------------------------------------------------------------------------


def run_again_with_others(host):
    """The run of one name asked for again, each time with one thing on the sockets exchanged."""
    import architectures
    import small_models
    import text_models
    import torch
    import trainer_graph as graphs
    from comfy_extras.nodes_model_advanced import ModelSamplingSD3

    given = text_models.sockets(host, "SDXL")
    first = dict(given)
    graphs.serve(host, given)

    def again(**changes):
        given.update(first | changes)
        outcome = host.run(graphs.graph(rule="plain", preview_every=0, name="same"))
        return outcome.error or "there"

    skipped, patched = first["clip"].clone(), first["clip"].clone()
    skipped.clip_layer(-3)
    weights = patched.patcher.model_state_dict()
    key = next(name for name in weights if name.endswith("q_proj.weight"))
    patched.add_patches({key: ("diff", (torch.ones_like(weights[key]),))})
    with torch.inference_mode():
        vae = architectures.vae("SDXL")
        small_models.fill(vae.first_stage_model, 7)
    return {
        "first": again(),
        "again": again(),
        "made anew": again(clip=text_models.clip("SDXL"), vae=architectures.vae("SDXL")),
        "skip": again(clip=skipped),
        "LoRA": again(clip=patched),
        "vae": again(vae=vae),
        "shift": again(model=ModelSamplingSD3().patch(first["model"], 5.0)[0]),
    }


def test_another_clip_or_vae_is_another_run(answers):
    seen = answer(answers, run_again_with_others)
    assert [seen.pop(case) for case in ("first", "again", "made anew")] == ["there"] * 3
    words = "the text encoders, CLIP skip or a LoRA on them: was"
    for case, told in {"skip": words, "LoRA": words, "vae": "the VAE: was"}.items():
        error = seen.pop(case)
        assert told in error, (case, error)
        assert error.count(": was") == 1, (case, error)
        assert "choose another `name`" in error
    assert "the model's noise levels: was" in seen.pop("shift")
    assert not seen


# --- stop -----------------------------------------------------------------------------------------


def stop_while_it_validates(host):
    """The stop button pressed while the second step is validated."""
    import json

    import comfy.model_management as management
    import trainer_graph as graphs

    given = graphs.sockets(host, "SD15")
    graphs.serve(host, given)
    kind, looks = host.module("nsync.validation").Validation, []
    validate = kind.__call__

    def pressed(self):
        looks.append(1)
        if len(looks) == 2:
            management.interrupt_current_processing()
        return validate(self)

    kind.__call__ = pressed
    try:
        options = {"validation": 1, "validate_every": 1}
        asked = {"rule": "plain", "steps": 6, "preview_every": 0, "name": "validated"}
        outcome = host.run(graphs.graph(options, **asked))
    finally:
        kind.__call__ = validate
    log = (host.base / "output/nsync/runs/validated/log.jsonl").read_text().splitlines()
    events = [event for event, _ in outcome.messages if event.startswith("execution_")]
    return {"events": events, "steps": json.loads(log[-1])["step"]}


def test_a_stop_while_it_validates_is_a_stop(answers):
    seen = answer(answers, stop_while_it_validates)
    assert "execution_interrupted" in seen["events"]
    assert seen["steps"] <= 3


QUESTIONS = (
    train_with_fast_attention,
    run_again_with_others,
    stop_while_it_validates,
)
