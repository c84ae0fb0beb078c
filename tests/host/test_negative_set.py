"""The Negative Set Generator in a graph of the real host, with the tiny base."""

import pytest
from questions import answer, ask, once

COUNT = 3
STYLE = "flat"


@pytest.fixture
def answers(in_host, installation):
    return once(installation, in_host, ask_everything)


def ask_everything(host):
    return ask(host, QUESTIONS)


def paint_and_paint_again(host):
    import json

    folder = host.base / "output" / "nsync" / "negatives" / "mine"

    def run(**changes):
        outcome = host.run(graph(**changes))
        assert outcome.ok, outcome.error
        manifest = json.loads((folder / "manifest.json").read_text())["pictures"]
        times = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.png")}
        shown = [
            (host.base / "temp" / picture["filename"]).read_bytes()
            for picture in outcome.outputs["9"]["images"]
        ]
        bars = [data for event, data in outcome.messages if event == "progress_state"]
        return manifest, times, shown, len(bars)

    manifest, times, shown, _ = run()
    _, again, shown_again, _ = run()
    reseeded, more, _, _ = run(seed=1)
    positive, _, _, _ = run(mode="from positive", denoise=0.5)
    new = [entry for name, entry in positive.items() if name not in reseeded]
    return {
        "entries": list(manifest.values()),
        "files": sorted(times) == sorted(manifest),
        "nothing anew": again == times and shown == shown_again,
        "shown": len(set(shown)),
        "reseeded": len(more) - len(times),
        "kept": all(more[name] == stamp for name, stamp in times.items()),
        "modes": [entry["mode"] for entry in new],
        "identity": _identity(host),
    }


def _identity(host):
    model, clip, vae = host.nodes["NSYNC_TinyBase"].execute().result
    return host.module("nodes.host.adapter").HostDenoiser(model, clip, vae).identity


def graph(**changes):
    asked = {
        "generic_words": "painting, drawing",
        "template": "{caption} in the style of {word}",
        "per_positive": 1,
        "steps": 2,
        "guidance": 3.0,
        "sampler": "euler",
        "scheduler": "simple",
        "mode": "from noise",
        "denoise": 0.6,
        "seed": 0,
        "name": "mine",
        **{name: ["1", i] for i, name in enumerate(("model", "clip", "vae"))},
        "style_set": ["3", 0],
        **changes,
    }
    words = {
        "folder": "(from sockets)",
        "images": ["2", 0],
        "captions": ["2", 1],
        "token": "sks",
        "template": "{caption} in the style of {token}",
        "resolution": 64,
        "problem_files": "stop",
    }
    nodes = {
        "1": ("NSYNC_TinyBase", {}),
        "2": ("NSYNC_TinyStylePictures", {"style": STYLE, "count": COUNT, "seed": 3}),
        "3": ("NSYNC_StyleSet", words),
        "4": ("NSYNC_NegativeSetGenerator", asked),
        "9": ("PreviewImage", {"images": ["4", 1]}),
    }
    return {place: {"class_type": kind, "inputs": given} for place, (kind, given) in nodes.items()}


def test_negatives_are_painted_once_and_kept(answers):
    seen = answer(answers, paint_and_paint_again)
    assert len(seen["entries"]) == COUNT
    for entry in seen["entries"]:
        assert entry["base"] == seen["identity"]
        assert entry["prompt"].endswith((" in the style of painting", " in the style of drawing"))
        assert entry["size"] == [64, 64]
        assert (entry["steps"], entry["guidance"], entry["scheduler"]) == (2, 3.0, "simple")
    assert seen["files"]
    assert seen["nothing anew"]
    assert seen["shown"] == COUNT
    assert seen["reseeded"] == COUNT
    assert seen["kept"]
    assert seen["modes"] == ["from positive"] * COUNT


def ask_badly(host):
    import os

    folder = host.base / "output" / "nsync" / "negatives"
    folder.mkdir(parents=True, exist_ok=True)
    (host.base / "elsewhere").mkdir()
    os.symlink(host.base / "elsewhere", folder / "link")
    (folder / "damaged").mkdir()
    (folder / "damaged" / "manifest.json").write_text("{")
    cases = {
        "name": ["../out", "/tmp/out", "", "link", "a/b"],
        "generic_words": ["", " , ", "sks"],
        "template": ["{caption}", "{caption} {word} sks"],
        "manifest.json": ["damaged"],
    }
    before, found = sorted(host.base.glob("output/**/*")), {}
    for name, values in cases.items():
        for value in values:
            change = {"name" if name == "manifest.json" else name: value}
            outcome = host.run(graph(**change))
            found[f"{name}={value}"] = [outcome.ok, outcome.error]
    return {
        "found": found,
        "nothing written": sorted(host.base.glob("output/**/*")) == before,
        "elsewhere": os.listdir(host.base / "elsewhere"),
    }


def test_bad_input_is_told_and_changes_no_file(answers):
    seen = answer(answers, ask_badly)
    for case, (ok, error) in seen["found"].items():
        assert not ok, case
        assert f"`{case.partition('=')[0]}`: expected" in error, (case, error)
    assert seen["nothing written"]
    assert seen["elsewhere"] == []


def stop_in_the_middle(host):
    import comfy.model_management as management

    module = host.module("nsync.negatives")
    module.BATCH_MOST = 1
    original = host.module("nodes.host.adapter").HostDenoiser.generate
    calls = []

    def generate(self, *args, **start):
        calls.append(args[0])
        if len(calls) == 2:
            management.interrupt_current_processing()  # as the page's stop button does
        return original(self, *args, **start)

    host.module("nodes.host.adapter").HostDenoiser.generate = generate
    stopped = host.run(graph(name="stopped"))
    left = len(list((host.base / "output/nsync/negatives/stopped").glob("*.png")))
    finished = host.run(graph(name="stopped"))
    events = [event for event, _ in stopped.messages]
    return {
        "interrupted": "execution_interrupted" in events,
        "left": left,
        "finished": finished.ok,
        "drawn": [len(call) for call in calls],
    }


def test_stop_is_heeded_and_the_next_run_goes_on(answers):
    seen = answer(answers, stop_in_the_middle)
    assert seen["interrupted"]
    assert seen["left"] == 1
    assert seen["finished"]
    assert seen["drawn"] == [1, 1, 1, 1]  # one kept, one stopped, then the two that were missing


QUESTIONS = (paint_and_paint_again, ask_badly, stop_in_the_middle)
