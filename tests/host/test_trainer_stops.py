"""The trainer stopped, or asked for what cannot be: one clear error, and no file changed."""

import json
import sys
from pathlib import Path

import pytest


def stop_and_refuse(host):
    """Everything below in one process."""
    return {
        "stopped": _stop_while_it_trains(host),
        "errors": _ask_for_the_impossible(host),
        "full": _fill_the_disk(host),
    }


def _stop_while_it_trains(host):
    """The page's stop button pressed after the second step."""
    import threading
    import time

    import comfy.model_management
    import folder_paths

    graphs = _helpers()
    given = graphs.sockets(host, "SD15")
    graphs.serve(host, given)
    log = host.base / "output/nsync/runs/stopped/log.jsonl"

    def press():
        while not log.exists() or len(log.read_text().splitlines()) < 2:
            time.sleep(0.01)
        comfy.model_management.interrupt_current_processing()

    threading.Thread(target=press, daemon=True).start()
    outcome = host.run(graphs.graph(name="stopped", steps=100_000, preview_every=0))
    steps = len(log.read_text().splitlines())
    name = f"stopped_stopped_at_{steps}.safetensors"
    events = [event for event, _ in outcome.messages]
    return {
        "ok": outcome.ok,
        "interrupted": "execution_interrupted" in events,
        "steps": steps,
        "listed": name in folder_paths.get_filename_list("loras"),
        "told": _metadata(folder_paths.get_full_path_or_raise("loras", name))["nsync.steps"],
        "clean": not any("lora" in n for n, _ in given["model"].model.named_modules()),
        "in_training": comfy.model_management.in_training,
    }


def _ask_for_the_impossible(host):
    """Each bad request: its error, and the files that came or went."""
    graphs = _helpers()
    given = graphs.sockets(host, "SD15")
    graphs.serve(host, given)
    good, found = dict(given), {}
    for name, (settings, changes) in _bad_requests(host, good).items():
        given.clear()
        given.update(good | changes)
        before = _files(host.base / "output")
        outcome = host.run(graphs.graph(**settings))
        found[name] = [outcome.error, sorted(_files(host.base / "output") ^ before)]
    return found


def _fill_the_disk(host):
    """Files may grow to 64 kB only, so that the log fits and the state does not."""
    import resource

    graphs = _helpers()
    graphs.serve(host, graphs.sockets(host, "SD15"))
    before = _files(host.base / "output")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, limits[1]))
    try:
        outcome = host.run(graphs.graph(name="full", preview_every=0))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    return [outcome.error, sorted(_files(host.base / "output") - before)]


def _helpers():
    sys.path.insert(0, str(Path(__file__).parent))
    import trainer_graph

    return trainer_graph


def _bad_requests(host, good):
    from dataclasses import replace

    import torch
    from small_models import vae

    whole = good["style_set"]
    bare = replace(whole, items=tuple(replace(item, negatives=()) for item in whole.items))
    blind = vae(4)
    with torch.no_grad():
        next(blind.first_stage_model.parameters()).fill_(float("nan"))
    return {
        "no negatives": ({}, {"style_set": bare}),
        "another base": ({}, {"style_set": replace(whole, base="0" * 64)}),
        "one positive": ({"rule": "nsync"}, {"style_set": replace(whole, items=whole.items[:1])}),
        "rank": ({"rank": 999}, {}),
        "path": ({"name": "../escape"}, {}),
        "no name": ({"name": "  "}, {}),
        "nan": ({}, {"vae": blind}),
        "no clip": ({}, {"clip": None}),
        "another model's LoRA": ({"start_from": _lora_of_flux(host)}, {}),
        "a LoRA for an embedding": (
            {"start_from": _lora_of_flux(host), "trains": "embedding"},
            {},
        ),
        "a LoRA that is not there": ({"start_from": "gone.safetensors"}, {}),
        "no word": ({"trains": "embedding", "options": {"initial_word": " "}}, {}),
        "held out": ({"rule": "plain", "options": {"validation": 2}}, {}),
        "two rates": (
            {"trains": "LoRA and embedding", "options": {"optimizer": "prodigy"}},
            {},
        ),
        "dropout": ({"options": {"caption_dropout": 1.5}}, {}),
        "pause": ({"pause_every": -1}, {}),
        "a long word": ({"trains": "embedding", "options": {"vectors": 64}}, _long(whole)),
    }


def _lora_of_flux(host):
    import torch
    from safetensors.torch import save_file

    name = "lora_unet_double_blocks_0_img_attn_proj"
    halves = {"lora_down": torch.ones(2, 64), "lora_up": torch.ones(64, 2)}
    folder = host.base / "output" / "loras"
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"{name}.{half}.weight": value for half, value in halves.items()}
    save_file(tensors | {f"{name}.alpha": torch.tensor(2.0)}, folder / "flux.safetensors")
    return "flux.safetensors"


def _long(style_set):
    """Captions that leave room for a word, not for 64 vectors."""
    from dataclasses import replace

    items = [replace(item, caption="a red fox in the snow " * 5) for item in style_set.items]
    return {"style_set": replace(style_set, items=tuple(items))}


def _files(folder):
    return {str(path) for path in folder.rglob("*") if path.is_file()}


def _metadata(path):
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return file.metadata()


@pytest.fixture(scope="module")
def found(in_host):
    return in_host(stop_and_refuse, timeout=900)


def test_stop_saves_what_was_learned(found):
    done = found["stopped"]
    assert not done["ok"]
    assert done["interrupted"]
    assert 2 <= done["steps"] < 100_000
    assert done["listed"]
    assert json.loads(done["told"]) == done["steps"]
    assert done["clean"]
    assert done["in_training"] is False


@pytest.mark.parametrize(
    ("request_name", "text"),
    [
        ("no negatives", "`style_set`: expected a set with negatives, which rule 'projection'"),
        ("another base", "`style_set`: expected negatives painted by the model that is trained"),
        ("one positive", "`style_set`: expected at least two positives"),
        ("rank", "`rank`: expected at most 32"),
        ("path", "`name`: expected a file name"),
        ("no name", "`name`: expected a file name"),
        ("nan", "`picture_0`: expected a picture whose latents are finite numbers"),
        ("no clip", "`clip`: expected a CLIP"),
        ("another model's LoRA", "`start_from`: expected a LoRA of this model"),
        ("a LoRA for an embedding", "`start_from`: expected 'nothing', since no LoRA is trained"),
        ("a LoRA that is not there", "start_from: 'gone.safetensors' not in"),
        ("no word", "`initial_word`: expected `initial_word` a word"),
        ("held out", "`validation`: expected fewer held-out pictures"),
        ("two rates", "`embedding_rate` 1.0 with the optimizer prodigy; got"),
        ("dropout", "Value 1.5 bigger than max of 0.99"),
        ("pause", "`pause_every`: expected at least 0"),
        ("a long word", "`captions`: expected prompts whose style token"),
    ],
)
def test_bad_input_is_one_clear_error(found, request_name, text):
    error, changed = found["errors"][request_name]
    assert text in error
    assert changed == []


def test_a_full_disk_loses_nothing(found):
    error, written = found["full"]
    assert "`output`: expected room and permission to write" in error
    assert "step_00000001.safetensors" in error
    told = {"config.json", "log.jsonl", "run.yaml", "set.json"}
    assert {Path(path).name for path in written} == told
