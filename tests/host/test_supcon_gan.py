"""The second method in the host: from a labelled set to pictures, stopped, gone on with, loaded."""

import shutil
import sys
import threading
import time
from pathlib import Path

import pytest
from questions import answer, ask, once


@pytest.fixture
def answers(in_host, installation):
    return once(installation, in_host, ask_everything)


def ask_everything(host):
    return ask(host, QUESTIONS)


def _graphs():
    sys.path.insert(0, str(Path(__file__).parent))
    import gan_graph

    return gan_graph


def _tensors(host, folder, name):
    from safetensors.torch import load_file

    return load_file(host.base / "output" / folder / f"{name}.safetensors")


def _equal(one, other):
    return one.keys() == other.keys() and all(value.equal(other[k]) for k, value in one.items())


def _saved_pictures(host, outcome, number):
    import numpy as np
    from PIL import Image

    files = [entry["filename"] for entry in outcome.outputs[number]["images"]]
    return np.stack([np.asarray(Image.open(host.base / "output" / file)) for file in files])


# --- the whole way --------------------------------------------------------------------------------


def learn_paint_judge(host):
    """Everything in one graph; then the files alone paint the same pictures."""
    graphs = _graphs()
    whole = graphs.training() | graphs.painting(["4", 0], per_prompt=2) | graphs.judging()
    first = host.run(whole)
    loader = {
        "3": graphs.node("LoadSupConEncoders", file="supcon_encoders.safetensors"),
        "4": graphs.node("LoadT2IGAN", file="supcon_gan.safetensors"),
        "11": graphs.told(["3", 1]),
        "12": graphs.told(["4", 1]),
    }
    again = host.run(loader | graphs.painting(["4", 0], per_prompt=2, batch=4))
    runs = host.base / "output" / "nsync" / "runs"
    pictures = [_saved_pictures(host, outcome, "7") for outcome in (first, again)]
    return {
        "errors": [first.error, again.error],
        "outputs": first.outputs,
        "loaded": [again.outputs["11"]["text"][0], again.outputs["12"]["text"][0]],
        "difference": int(abs(pictures[0].astype(int) - pictures[1].astype(int)).max()),
        "shape": list(pictures[0].shape),
        "alike": float(pictures[0].std(0).mean()),
        "samples": sorted(path.name for path in (runs / "supcon_gan" / "samples").iterdir()),
        "progress": [data["text"] for event, data in first.messages if event == "progress_text"],
    }


def test_the_graph_learns_paints_and_judges(answers):
    done = answer(answers, learn_paint_judge)
    assert done["errors"] == ["", ""]
    learned, trained = done["outputs"]["3"]["text"], done["outputs"]["4"]["text"]
    assert learned[0] == "Saved supcon_encoders.safetensors"
    assert "R-precision of 4 pairs that training never saw, after 4 steps" in learned[1]
    assert trained[0] == "Saved supcon_gan.safetensors"
    assert "SSA-GAN, 64 x 64 pixels, 3 steps on 12 pictures, contrast supcon." in trained[1]
    assert done["samples"] == ["step_00000000.png", "step_00000003.png"]
    assert done["outputs"]["4"]["images"][0]["filename"] == "step_00000003.png"
    assert done["outputs"]["10"]["text"][0].startswith("candidate has a style similarity of")
    assert len(done["outputs"]["8"]["text"]) == done["shape"][0] == 12
    assert done["shape"][1:] == [64, 64, 3]
    assert done["alike"] > 0  # seeds make a difference
    assert any("step 3 of 3 | loss" in text for text in done["progress"])
    assert not any("loss nan" in text for text in done["progress"])


def test_the_file_paints_what_the_trainer_gave(answers):
    done = answer(answers, learn_paint_judge)
    assert done["difference"] <= 1  # other pictures beside them: rounding alone
    assert "small encoders, features of 32 numbers.\nTrained 4 steps on 12" in done["loaded"][0]
    assert "Labels: flat, outline." in done["loaded"][0]
    assert "supcon_gan: SSA-GAN" in done["loaded"][1]


# --- again, on, and stopped -----------------------------------------------------------------------


def go_on(host):
    """Two steps, then four under the same name, beside four at once; and a pause."""
    graphs = _graphs()
    short, long = {"name": "on", "steps": 2}, {"name": "on", "steps": 4}
    gan_short, gan_long = short | {"name": "gan_on"}, long | {"name": "gan_on"}
    outcomes = [
        host.run(graphs.training(short, **gan_short)),
        host.run(graphs.pretraining(**long)),
        host.run(graphs.pretraining(name="straight", steps=4)),
    ]
    # The GAN's own: the encoders have to be the same.
    usual = {"name": "straight", "steps": 4}
    outcomes += [
        host.run(graphs.training(usual, name="gan_whole", steps=4)),
        host.run(graphs.training(usual, name="gan_parts", steps=4, pause_every=3)),
    ]
    paused = outcomes[-1].outputs["4"]["text"][1]
    outcomes.append(host.run(graphs.training(usual, name="gan_parts", steps=4, pause_every=3)))
    refused = host.run(graphs.training(usual, **gan_long)).error
    anew = host.run(graphs.training(usual, **gan_long, if_run_exists="start anew"))
    return {
        "errors": [outcome.error for outcome in (*outcomes, anew)],
        "encoders": _equal(
            *(_tensors(host, "supcon_encoders", n) for n in ("on_00002", "straight"))
        ),
        "gans": _equal(*(_tensors(host, "t2i_gans", n) for n in ("gan_parts", "gan_whole"))),
        "average": _saved_the_average(host, "gan_whole", 4),
        "paused": paused,
        "refused": refused,
        "anew": anew.outputs["4"]["text"][0],
    }


def _saved_the_average(host, name, step):
    """Whether the model's file holds the average of the run's last state."""
    prefix, state = "average.network.", f"nsync/runs/{name}/state"
    kept = _tensors(host, state, f"step_{step:08}")
    average = {n.removeprefix(prefix): v for n, v in kept.items() if n.startswith(prefix)}
    saved = _tensors(host, "t2i_gans", name)
    return _equal(average, {n[10:]: v for n, v in saved.items() if n.startswith("generator.")})


def test_a_run_that_goes_on_is_the_same_run(answers):
    done = answer(answers, go_on)
    assert set(done["errors"]) == {""}
    assert done["encoders"]
    assert done["gans"]
    assert done["average"]
    assert done["paused"] == "Paused after 3 of 4 steps: run again"


def test_other_encoders_make_another_run(answers):
    done = answer(answers, go_on)
    assert "the encoders: was" in done["refused"]
    assert "set `if_run_exists` to 'start anew'" in done["refused"]
    assert done["anew"] == "Saved gan_on_00002.safetensors"


def stop(host):
    """The page's stop button pressed after the second step of each trainer; then one step more."""
    graphs, found = _graphs(), {}
    usual = {"name": "straight", "steps": 4}
    every = {
        "encoders": lambda steps: graphs.pretraining(name="stopped_encoders", steps=steps),
        "gan": lambda steps: graphs.training(
            usual, name="stopped_gan", steps=steps, preview_every=0, save_every=0
        ),
    }
    for (kind, made), number in zip(every.items(), ("3", "4"), strict=True):
        name = made(1)[number]["inputs"]["name"]
        log = host.base / f"output/nsync/runs/{name}/log.jsonl"
        threading.Thread(target=_press_when, args=(log,), daemon=True).start()
        outcome = host.run(made(100_000))
        steps = len([line for line in log.read_text().splitlines() if '"loss' in line])
        again = host.run(made(steps + 1))
        found[kind] = {
            "interrupted": "execution_interrupted" in [event for event, _ in outcome.messages],
            "steps": steps,
            "file": f"{name}_stopped_at_{steps}.safetensors",
            "again": [again.error, again.outputs[number]["text"][0]],
        }
    files = host.module("nodes.supcon.trained_files")
    lists = {kind: files.file_options(kind) for kind in _FOLDERS.values()}
    return found | {"lists": lists}


_FOLDERS = {"encoders": "supcon_encoders", "gan": "t2i_gans"}


def _press_when(log):
    import comfy.model_management

    while not log.exists() or len(log.read_text().splitlines()) < 2:
        time.sleep(0.01)
    comfy.model_management.interrupt_current_processing()


@pytest.mark.parametrize("kind", ["encoders", "gan"])
def test_stop_saves_what_was_learned(answers, kind):
    found = answer(answers, stop)
    done = found[kind]
    assert done["interrupted"]
    assert 2 <= done["steps"] < 100_000
    assert done["file"] in found["lists"][_FOLDERS[kind]]
    assert done["again"][0] == ""
    assert done["again"][1] == f"Saved {done['file'].split('_stopped')[0]}.safetensors"


# --- CLIP -----------------------------------------------------------------------------------------


def use_clip(host):
    """A small CLIP in a folder: encoders around it, and GALIP inside it."""
    graphs = _graphs()
    _write_clip(host)
    clip = {"encoders": "clip_vision/small", "name": "clip", "steps": 2, "width": 32}
    galip = {"family": "GALIP", "image_size": 32, "name": "galip", "steps": 2, "preview_every": 0}
    made = graphs.training(clip, **galip) | graphs.painting(["4", 0])
    first = host.run(made)
    wrong = host.run(graphs.training({"name": "straight", "steps": 4}, **galip | {"name": "no"}))
    loader = {"4": graphs.node("LoadT2IGAN", file="galip.safetensors")}
    again = host.run(loader | graphs.painting(["4", 0]))
    pictures = [_saved_pictures(host, outcome, "7").astype(int) for outcome in (first, again)]
    return {
        "errors": [first.error, again.error],
        "report": first.outputs["4"]["text"][1],
        "wrong": wrong.error,
        "difference": int(abs(pictures[0] - pictures[1]).max()),
    }


def _write_clip(host):
    """As downloaded: a CLIP of random weights with the host's own tokenizer."""
    import comfy.sd1_clip
    import torch
    from transformers import CLIPConfig, CLIPModel

    sides = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
    vision = sides | {"num_hidden_layers": 9, "image_size": 16, "patch_size": 4}
    config = CLIPConfig(
        text_config=sides | {"num_hidden_layers": 2}, vision_config=vision, projection_dim=32
    )
    folder = host.base / "models" / "clip_vision" / "small"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        CLIPModel(config).save_pretrained(folder)
    words = Path(comfy.sd1_clip.__file__).parent / "sd1_tokenizer"
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(words / name, folder)


def test_galip_is_built_on_the_encoders_clip(answers):
    done = answer(answers, use_clip)
    assert done["errors"] == ["", ""]
    assert "galip: GALIP, 32 x 32 pixels, 2 steps" in done["report"]
    assert done["difference"] <= 1
    assert "`encoders`: expected CLIP encoders" in done["wrong"]
    assert "got small ones" in done["wrong"]


def train_in_stages(host):
    """AttnGAN and DM-GAN, one step each, and what they paint."""
    graphs, found = _graphs(), {}
    usual = {"name": "straight", "steps": 4}
    few = {"image_size": 32, "steps": 1, "preview_every": 0, "penalty_weight": 0.0}
    for family in ("AttnGAN", "DM-GAN"):
        made = graphs.training(usual, family=family, name=family, **few)
        outcome = host.run(made | graphs.painting(["4", 0]))
        found[family] = [outcome.error, list(_saved_pictures(host, outcome, "7").shape)]
    return found


@pytest.mark.parametrize("family", ["AttnGAN", "DM-GAN"])
def test_families_of_stages_are_trained_and_paint(answers, family):
    assert answer(answers, train_in_stages)[family] == ["", [6, 32, 32, 3]]


QUESTIONS = (learn_paint_judge, go_on, stop, use_clip, train_in_stages)
