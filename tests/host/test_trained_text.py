"""Trained embeddings and text encoders: what the host's own nodes and diffusers then read."""

from contextlib import contextmanager

import pytest
from questions import answer, ask, once

TOKEN = "sks"
BEFORE = "a cat in the style of "
# After an embedding the host begins a text anew, and T5 has a token for the space that is not there
# before a comma.
AFTER = {"SD15": ", at night", "SDXL": ", at night", "Flux": " at night"}
ONE = {"num_images_per_prompt": 1, "do_classifier_free_guidance": False}
EMBEDDING = {"trains": "embedding"}
BOTH = {"trains": "LoRA and embedding"}
TEXT = {"text_encoders": True}
CASES = {
    "SD15 embedding": (EMBEDDING, {"vectors": 2}),
    "SD15 both": (BOTH, {}),
    "SD15 text": ({}, TEXT),
    "SD15 all": (BOTH, TEXT),
    "SDXL embedding": (EMBEDDING, {"vectors": 2}),
    "SDXL all": (BOTH, TEXT),
    "Flux embedding": (EMBEDDING, {"vectors": 3}),
    "Flux all": (BOTH, TEXT),
}


@pytest.fixture
def answers(in_host, installation):
    return once(installation, in_host, ask_everything)


def ask_everything(host):
    return ask(host, QUESTIONS)


# --- the host -------------------------------------------------------------------------------------


def train_and_use(host):
    """A graph that trains and at once encodes a prompt with what was trained; then Load LoRA."""
    return {case: _train_and_use(host, case, *CASES[case]) for case in CASES}


def _train_and_use(host, case, settings, options):
    import text_models
    import trainer_graph as graphs

    family = case.split()[0]
    given = text_models.sockets(host, family)
    taken = graphs.serve(host, given)
    before = _weights(given["clip"]), _encoded(given["clip"], "a cat")
    common = {"rule": "plain", "steps": 2, "preview_every": 0, "name": case}
    prompt = graphs.graph({"embedding_rate": 0.1, **options}, **common, **settings)
    called = "" if settings else TOKEN  # in the prompt; else what the trainer gives out
    prompt = graphs.with_prompt(prompt, BEFORE + called, AFTER[family])
    with _watched(host, BEFORE + TOKEN + AFTER[family]) as trained:
        outcome = host.run(prompt)
    assert outcome.ok, outcome.error
    text = BEFORE + called + taken["embedding_word"] + AFTER[family]
    base = _encoded(given["clip"], BEFORE + TOKEN + AFTER[family])  # the host takes its LoRA out
    after = _weights(given["clip"]), _encoded(given["clip"], "a cat")
    return {
        "gap": _gap(_row(taken["conditioning"]), trained["row"]),
        "change": _gap(base, trained["row"]),
        "named": [taken["lora_name"], taken["embedding_word"]],
        "listed": _listed(case),
        "passed on": [taken["model"] is given["model"], taken["clip"] is given["clip"]],
        "same": _same(after[0], before[0]) and _same(after[1], before[1]),
        "losses": len(taken["loss_map"]["loss"]),
        "texts": outcome.outputs["2"]["text"],
        **(_load_lora(given, taken, text, trained["row"]) if taken["lora_name"] else {}),
    }


def _listed(case):
    import folder_paths

    names = f"{case}.safetensors", f"{case.replace(' ', '_')}.safetensors"
    lists = map(folder_paths.get_filename_list, ("loras", "embeddings"))
    return [name in listed for name, listed in zip(names, lists, strict=True)]


def _load_lora(given, taken, text, trained):
    """The saved file through Load LoRA, with CLIP."""
    import trainer_graph as graphs

    (model, clip), missed = graphs.load_lora(given["model"], taken["lora_name"], given["clip"])
    return {
        "missed": missed,
        "loaded gap": _gap(_encoded(clip, text), trained),
        "text layers": len(clip.patcher.patches),
        "layers": len(model.patches) + len(clip.patcher.patches),
        "pairs": len(taken["lora"]) / 3,
    }


@contextmanager
def _watched(host, text):
    """What the text encoders say of a prompt at the moment when the weights are saved."""
    import torch

    kind, seen = host.module("nodes.training.run").TrainingRun, {}
    export = kind.export

    def watch(run, learned, steps):
        with torch.no_grad():
            (seen["row"],) = run.denoiser.encode_prompts([text])
        return export(run, learned, steps)

    kind.export = watch
    try:
        yield seen
    finally:
        kind.export = export


def _encoded(clip, text):
    import nodes
    import torch

    with torch.inference_mode():
        return _row(nodes.CLIPTextEncode().encode(clip, text)[0])


def _row(conditioning):
    ((states, others),) = conditioning
    return {"cross_attn": states, "pooled_output": others["pooled_output"]}


def _weights(clip):
    return {name: value.clone() for name, value in clip.cond_stage_model.state_dict().items()}


def _same(ours, theirs):
    return all(bool((ours[name] == theirs[name]).all()) for name in theirs)


def _gap(ours, theirs):
    return max(float((ours[n] - theirs[n]).norm() / theirs[n].norm()) for n in theirs)


def test_the_hosts_nodes_read_what_was_trained(answers):
    found = answer(answers, train_and_use)
    assert list(found) == list(CASES)
    for case, seen in found.items():
        settings, options = CASES[case]
        lora, embedding = settings is not EMBEDDING, bool(settings)
        assert seen["gap"] < 1e-5 < 1e-3 < seen["change"], (case, seen)
        word = f"embedding:{case.replace(' ', '_')}"
        named = [f"{case}.safetensors" if lora else "", word if embedding else ""]
        assert seen["named"] == named, case
        assert seen["listed"] == [lora, embedding], case
        assert seen["passed on"] == [not lora, not lora], case
        assert seen["same"], case
        assert seen["losses"] == 2, case
        assert len(seen["texts"]) == lora + embedding, case
        if lora:
            assert seen["missed"] == [], case
            assert seen["loaded gap"] < 1e-5, (case, seen)
            assert seen["layers"] == seen["pairs"], case
            assert (seen["text layers"] > 0) == (options is TEXT), case


# --- diffusers ------------------------------------------------------------------------------------


def load_in_diffusers(host):
    """The files of `train_and_use`, by diffusers' own loader, in pipelines of the same encoders."""
    import folder_paths
    import text_models
    from safetensors.torch import load_file

    found = {}
    for family in ("SD15", "SDXL"):
        path = folder_paths.get_full_path_or_raise("embeddings", f"{family}_embedding.safetensors")
        clip, parts = text_models.clip(family), load_file(path)
        pipeline = text_models.pipeline(family, clip)
        expected = _encoded(clip, f"{BEFORE}embedding:{family}_embedding{AFTER[family]}")
        text = BEFORE + TOKEN + AFTER[family]
        base = _by_diffusers(pipeline, text)
        if family == "SD15":
            pipeline.load_textual_inversion(path)
        else:
            second = {"text_encoder": pipeline.text_encoder_2, "tokenizer": pipeline.tokenizer_2}
            pipeline.load_textual_inversion(parts["clip_l"], token=TOKEN)
            pipeline.load_textual_inversion(parts["clip_g"], token=TOKEN, **second)
        read = _by_diffusers(pipeline, text)
        found[family] = {
            "keys": sorted(parts),
            "gap": _gap(read, {name: expected[name] for name in read}),
            "change": _gap(read, base),
        }
    return found


def _by_diffusers(pipeline, text):
    import torch

    with torch.no_grad():
        seen = pipeline.encode_prompt(text, device="cpu", **ONE)
    return {"cross_attn": seen[0], **({"pooled_output": seen[2]} if len(seen) == 4 else {})}


def test_diffusers_reads_an_embedding_as_the_host_does(answers):
    found = answer(answers, load_in_diffusers)
    assert found["SD15"]["keys"] == [TOKEN]
    assert found["SDXL"]["keys"] == ["clip_g", "clip_l"]
    for family, seen in found.items():
        assert seen["gap"] < 1e-4 < 1e-2 < seen["change"], (family, seen)


QUESTIONS = (train_and_use, load_in_diffusers)
