"""The trainer watched by Style Watch: the curve, the best checkpoint, an early end."""

import json

import pytest
from questions import answer, ask, once

pytestmark = pytest.mark.newest

CAPTIONS = "\n".join(f"a {colour} circle in the centre" for colour in ("red", "green", "blue"))


@pytest.fixture
def answers(in_host, installation):
    return once(installation, in_host, ask_everything)


def ask_everything(host):
    return ask(host, QUESTIONS)


def _graph(host, name, watch=None, **settings):
    from trainer_graph import SETTINGS

    common = {"rule": "plain", "layers": "attention", "preview_every": 0, "preview_steps": 4}
    sockets = {"model": ["1", 0], "clip": ["1", 1], "vae": ["1", 2], "style_set": ["3", 0]}
    inputs = SETTINGS | common | sockets | {"name": name, "steps": 6} | settings
    asked = {"encoders": ["4", 0], "captions": CAPTIONS, "every": 2, "patience": 0}
    rest = {"download": False, "preprocessing": "the metric's own", "precision": "fp32"}
    words = {"token": "sks", "template": "{caption} in the style of {token}", "resolution": 64}
    words |= {"folder": "(from sockets)", "problem_files": "stop"}
    style = {"style": "sunset", "count": 6, "seed": 0}
    kinds = {
        "1": ("TinyBase", {}),
        "2": ("TinyStylePictures", style),
        "3": ("StyleSet", {"images": ["2", 0], "captions": ["2", 1]} | words),
        "4": (
            "LoadStyleEncoder",
            {"encoder": "ruler", "file": "(published file)", "text_file": "nothing"} | rest,
        ),
        "5": ("StyleWatch", {"per_caption": 1, "seed": 0} | asked | (watch or {})),
        "6": ("ContrastiveLoRATrainer", inputs | {"watch": ["5", 0]}),
    }
    return {
        n: {"class_type": f"NSYNC_{kind}", "inputs": values} for n, (kind, values) in kinds.items()
    }


def _scores(host, name):
    log = host.base / "output" / "nsync" / "runs" / name / "log.jsonl"
    records = map(json.loads, log.read_text().splitlines())
    return [record for record in records if "style" in record]


def _kept(host, name):
    folder = host.base / "output" / "nsync" / "runs" / name / "scores"
    return sorted(path.parent.name for path in folder.glob("*/lora.safetensors"))


# --- the whole way --------------------------------------------------------------------------------


def watch_a_run(host):
    """A run in one go, and the same one paused in between, where files of another run's are."""
    loras = host.base / "output" / "loras"
    loras.mkdir(parents=True, exist_ok=True)
    for step in (2, 4, 6):
        (loras / f"watched_paused_best_at_{step}.safetensors").write_text("of another run")
    whole = host.run(_graph(host, "watched"))
    first = host.run(_graph(host, "watched_paused", pause_every=3))
    other = {"captions": "a red ring"}
    refused = host.run(_graph(host, "watched_paused", other, pause_every=3))
    second = host.run(_graph(host, "watched_paused", pause_every=3))
    compared = host.run(_compared(host, "run:watched"))
    return {
        "arms": compared.error or len(compared.outputs["9"]["images"]),
        "none": host.run(_compared(host, "run:gone")).error,
        "errors": [whole.error, first.error, second.error],
        "scores": [_scores(host, "watched"), _scores(host, "watched_paused")],
        "refused": refused.error,
        "text": whole.outputs["6"]["text"],
        "paused text": second.outputs["6"]["text"],
        "shown": whole.outputs["6"]["images"],
        "kept": _kept(host, "watched"),
        "loras": sorted(path.name for path in loras.glob("watched*")),
        "hashes": [
            _weights(loras / f"{name}.safetensors") for name in ("watched", "watched_paused")
        ],
    }


def compare_an_embedding(host):
    """A run that trains both: its last checkpoint's pictures as Style Comparison draws them and as
    the watch drew them in training; how far these are from the base's."""
    import numpy as np
    from PIL import Image

    def pixels(path):
        return np.asarray(Image.open(path).convert("RGB"), float)

    both = {"trains": "LoRA and embedding", "steps": 2}
    trained = host.run(_graph(host, "watched_both", {"seed": 17}, **both))
    drawing = {"captions": CAPTIONS, "seed": 17, "steps": 4}
    compared = host.run(_compared(host, "run:watched_both", **drawing))
    if trained.error or compared.error:
        return {"error": trained.error or compared.error}
    shown = [host.base / "output" / one["filename"] for one in compared.outputs["9"]["images"]]
    kept = host.base / "output/nsync/runs/watched_both/scores/step_000002"
    watched = [pixels(path) for path in sorted(kept.glob("drawn_*.png"))]
    base, drawn = ([pixels(path) for path in part] for part in (shown[:3], shown[3:]))
    return {
        "error": "",
        "files": sorted(path.name for path in kept.glob("*.safetensors")),
        "gap": float(np.abs(np.subtract(drawn, watched)).mean()),
        "change": float(np.abs(np.subtract(base, watched)).mean()),
        "alone": _embedding_alone(host),
    }


def _embedding_alone(host):
    """The arms of a run that trains an embedding and nothing else, or its error."""
    alone = {"trains": "embedding", "steps": 2}
    trained = host.run(_graph(host, "watched_alone", {"seed": 19}, **alone))
    compared = host.run(_compared(host, "run:watched_alone"))
    return trained.error or compared.error or len(compared.outputs["9"]["images"])


def test_a_checkpoint_is_drawn_with_its_embedding(answers):
    found = answer(answers, compare_an_embedding)
    assert found["error"] == ""
    assert found["files"] == ["embedding.safetensors", "lora.safetensors"]
    assert found["alone"] == 2  # the base, and the checkpoint
    assert found["gap"] < 0.5 < 3 < found["change"], found


def _compared(host, loras, **others):
    sockets = {"model": ["1", 0], "clip": ["1", 1], "vae": ["1", 2]}
    words = {"loras": loras, "captions": "a red circle", "token": "sks", "drift": False}
    words |= {"template": "{caption} in the style of {token}", "seed": 0, "per_caption": 1}
    drawing = {"width": 64, "height": 64, "steps": 2, "guidance": 1.0, "sampler": "euler"}
    inputs = sockets | words | drawing | {"scheduler": "simple"} | others
    return {
        "1": {"class_type": "NSYNC_TinyBase", "inputs": {}},
        "8": {"class_type": "NSYNC_StyleComparison", "inputs": inputs},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["8", 2], "filename_prefix": "c"}},
    }


def _weights(path):
    from safetensors import safe_open

    with safe_open(path, "pt") as opened:
        return opened.metadata()["nsync.weights_sha256"]


def test_scores_are_taken_along_the_steps(answers):
    found = answer(answers, watch_a_run)
    assert found["errors"] == ["", "", ""]
    whole, paused = found["scores"]
    assert [record["step"] for record in whole] == [0, 2, 4, 6]
    assert whole[0]["drift"] == 0
    assert all(record["drift"] > 0 for record in whole[1:])
    assert all(-1 <= record["style"] <= 1 for record in whole)
    assert len({record["style"] for record in whole}) == 4
    assert paused == whole
    curve = {"filename": "curve.png", "subfolder": "nsync/runs/watched/scores", "type": "output"}
    assert found["shown"] == [curve]
    assert found["hashes"][0] == found["hashes"][1]


def test_scores_of_another_scale_are_refused(answers):
    assert (
        "earlier scores of this run were taken by; got other captions"
        in answer(answers, watch_a_run)["refused"]
    )


def test_the_best_checkpoint_is_kept_and_named(answers):
    found = answer(answers, watch_a_run)
    scores = found["scores"][0][1:]
    top = max(scores, key=lambda one: one["style"])
    near = [one for one in scores if one["style"] >= top["style"] - top["style_error"]]
    best = min(near, key=lambda one: one["drift"])["step"]
    name = f"watched_best_at_{best}.safetensors"
    assert name in found["loras"]
    assert any(f"Best by style: step {best} " in line and name in line for line in found["text"])
    assert f"step_{best:06}" in found["kept"]
    assert len(found["kept"]) <= 3
    assert found["arms"] == 1 + len(found["kept"])  # the base, and each checkpoint
    assert "run:name for a watched run's checkpoints; got 'run:gone'" in found["none"]


def test_the_best_checkpoint_is_not_taken_from_another_run(answers):
    found = answer(answers, watch_a_run)
    [told] = [line for line in found["paused text"] if "Best by style" in line]
    name = told.rpartition(" ")[2]
    assert name.endswith("_00002.safetensors")
    assert name in found["loras"]
    assert not [one for one in found["loras"] if "_00003" in one]


# --- ends -----------------------------------------------------------------------------------------


def end_early(host):
    """A rate at which nothing is learned; then the same graph again."""
    quiet = {"learning_rate": 1e-7, "steps": 20}
    graphs = [_graph(host, "early", {"patience": 2}, **quiet) for _ in range(2)]
    first, again = (host.run(graph) for graph in graphs)
    return {
        "errors": [first.error, again.error],
        "text": first.outputs["6"]["text"],
        "steps": [record["step"] for record in _scores(host, "early")],
        "again": again.outputs["6"]["text"],
    }


def test_a_training_that_brings_nothing_ends(answers):
    found = answer(answers, end_early)
    assert found["errors"] == ["", ""]
    assert 2 < found["steps"][-1] < 20
    last = found["steps"][-1]
    assert f"Ended after {last} of 20 steps: the style came no nearer" in found["text"]
    assert found["again"][0] == found["text"][0]


def fail_while_scoring(host):
    """Scores that raise: the first kind at every score, out of memory too."""
    kind = host.module("nsync.evaluation.encoders").NetworkEncoder
    encode, found = kind.encode, {}
    for name, error in (("watch_broken", ValueError("no")), ("watch_full", MemoryError())):

        def fail(self, pictures, on_item=None, error=error):
            raise error

        kind.encode = fail
        try:
            outcome = host.run(_graph(host, name, {"seed": 7}))
        finally:
            kind.encode = encode
        found[name] = [outcome.error, _scores(host, name), outcome.outputs["6"]["text"]]
    return found


def test_a_score_that_fails_ends_nothing(answers):
    for name, (error, scores, text) in answer(answers, fail_while_scoring).items():
        assert error == "", name
        assert scores == []
        assert text == [f"Saved loras/{name}.safetensors"]


def stop_while_scoring(host):
    """The stop button, pressed while a score is drawn after two steps."""
    import comfy.model_management as management

    kind = host.module("nsync.evaluation.encoders").NetworkEncoder
    encode, calls = kind.encode, []

    def press(self, pictures, on_item=None):
        calls.append(len(pictures))
        if len(calls) == 4:
            raise management.InterruptProcessingException
        return encode(self, pictures, on_item)

    kind.encode = press
    try:
        outcome = host.run(_graph(host, "watch_stopped", {"seed": 11}, steps=50))
    finally:
        kind.encode = encode
    loras = host.base / "output" / "loras"
    return {
        "interrupted": "execution_interrupted" in [event for event, _ in outcome.messages],
        "files": sorted(path.name for path in loras.glob("watch_stopped*")),
    }


def test_stop_is_heeded_while_a_score_is_taken(answers):
    found = answer(answers, stop_while_scoring)
    assert found["interrupted"]
    (file,) = found["files"]
    assert int(file.removesuffix(".safetensors").rpartition("_")[2]) < 8


# --- a full card ----------------------------------------------------------------------------------


def score_on_a_full_card(host):
    """After each look, whether the model in training is loaded; the encoder had it moved out."""
    import comfy.model_management as management

    kind = host.module("nsync.evaluation.encoders").NetworkEncoder
    watch = host.module("nodes.progress").HostStyleWatch
    encode, look, moved, loaded = kind.encode, watch.look, [], []

    def crowded(self, pictures, on_item=None):
        moved.append(len(management.free_memory(1e30, management.get_torch_device())))
        return encode(self, pictures, on_item)

    def seen(self, done):
        told = look(self, done)
        ours = self._denoiser.network
        models = [entry.model.model for entry in management.current_loaded_models]
        loaded.append(any(getattr(one, "diffusion_model", None) is ours for one in models))
        return told

    kind.encode, watch.look = crowded, seen
    try:
        outcome = host.run(_graph(host, "watch_crowded", {"seed": 13}, steps=2))
    finally:
        kind.encode, watch.look = encode, look
    return {"error": outcome.error, "moved": moved, "loaded": loaded}


def test_a_model_that_made_room_for_an_encoder_is_loaded_again(answers):
    found = answer(answers, score_on_a_full_card)
    assert found["error"] == ""
    assert any(found["moved"])
    assert found["loaded"] == [True, True]


QUESTIONS = (
    watch_a_run,
    compare_an_embedding,
    end_early,
    fail_while_scoring,
    stop_while_scoring,
    score_on_a_full_card,
)
