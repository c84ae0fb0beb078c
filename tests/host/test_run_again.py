"""The same graph run again: a stopped, paused or killed training goes on."""

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest
from comfy_host import ComfyServer
from litegraph import Graph
from questions import answer, ask, once
from workflow_api import to_api

STEPS = 6


@pytest.fixture
def answers(in_host, installation):
    return once(installation, in_host, ask_everything)


def ask_everything(host):
    return ask(host, QUESTIONS)


def _helpers():
    sys.path.insert(0, str(Path(__file__).parent))
    import trainer_graph

    return trainer_graph


def _graph(name, **settings):
    return _helpers().graph(name=name, steps=STEPS, preview_every=0, **settings)


def _given(host):
    graphs = _helpers()
    given = graphs.sockets(host, "SD15")
    return given, graphs.serve(host, given)


def _same(one, other):
    return one.keys() == other.keys() and all(bool((one[k] == other[k]).all()) for k in one)


def _files(host):
    return sorted(str(p) for p in (host.base / "output").rglob("*") if p.is_file())


# --- stopped --------------------------------------------------------------------------------------


def stop_and_go_on(host):
    """The stop button after three steps, then the same graph again; beside a run not stopped."""
    import comfy.model_management as management

    progress = host.module("nodes.progress").TrainingProgress
    _, taken = _given(host)
    whole = host.run(_graph("undisturbed"))
    expected, losses = dict(taken["lora"]), taken["loss_map"]["loss"]
    shown = progress.on_step

    def pressed(self, report):
        if report.step == 3:
            management.interrupt_current_processing()
        shown(self, report)

    progress.on_step = pressed
    try:
        stopped = host.run(_graph("stopped twice"))
    finally:
        progress.on_step = shown
    partial = (host.base / "output/loras/stopped twice_stopped_at_3.safetensors").exists()
    again = host.run(_graph("stopped twice"))
    return {
        "ok": [whole.ok, stopped.ok, again.ok],
        "partial": partial,
        "same": _same(taken["lora"], expected),
        "losses": [taken["loss_map"]["loss"], losses],
        "texts": [d["text"] for event, d in again.messages if event == "progress_text"],
    }


def test_a_stopped_run_goes_on_and_ends_with_the_same_bits(answers):
    seen = answer(answers, stop_and_go_on)
    assert seen["ok"] == [True, False, True]
    assert seen["partial"]
    assert seen["same"]
    assert seen["losses"][0] == seen["losses"][1]
    assert "step 4 of 6" in seen["texts"][0]


# --- paused ---------------------------------------------------------------------------------------


def pause_draw_and_go_on(host):
    """One graph, queued five times: paused at 2 and at 4, done at 6, found done, from the cache."""
    import execution
    from driver import _Recorder
    from server import PromptServer

    _, taken = _given(host)
    host.run(_graph("unpaused"))
    expected = dict(taken["lora"])
    server = PromptServer.instance = _Recorder()
    cache = {"lru": 0, "ram": 0.0, "ram_inactive": 0.0}
    executor = execution.PromptExecutor(server, execution.CacheType.CLASSIC, cache)
    found = []
    for _ in range(5):
        prompt = _graph("paused", pause_every=2)  # the host writes into a prompt
        ok, reasons, outputs = host.validate(prompt)
        assert ok, reasons
        server.messages.clear()
        executor.execute(prompt, "test", {}, outputs)
        cached = [d["nodes"] for e, d in executor.status_messages if e == "execution_cached"]
        found.append(
            {
                "ok": executor.success,
                "name": taken["lora_name"],
                "picture": float(_helpers().draw(taken["model"]).abs().sum()),
                "trained": "2" not in cached[-1],
                "text": executor.history_result["outputs"].get("2", {}).get("text"),
            }
        )
    return {"parts": found, "same": _same(taken["lora"], expected)}


def test_a_paused_run_draws_and_goes_on(answers):
    seen = answer(answers, pause_draw_and_go_on)
    parts = seen["parts"]
    assert all(part["ok"] for part in parts)
    names = ["paused_stopped_at_2", "paused_stopped_at_4", "paused", "paused", "paused"]
    assert [part["name"] for part in parts] == [f"{name}.safetensors" for name in names]
    assert [part["trained"] for part in parts] == [True, True, True, True, False]
    assert len({part["picture"] for part in parts[:3]}) == 3  # drawn with what is learned so far
    assert "Paused after 2 of 6 steps: run again" in parts[0]["text"]
    assert seen["same"]


# --- asked for something else ---------------------------------------------------------------------


def ask_for_something_else(host):
    """Another learning rate under the name of a run that is there; the same again; anew."""
    _, taken = _given(host)
    assert host.run(_graph("asked")).ok
    first, files = dict(taken["lora"]), _files(host)
    other = host.run(_graph("asked", learning_rate=2e-2))
    untouched = _files(host) == files
    encoded = []
    batches = host.module("nsync.batches")
    latents = batches._latents
    batches._latents = lambda *args: encoded.append(args[2]) or latents(*args)
    try:
        again = host.run(_graph("asked"))
    finally:
        batches._latents = latents
    same = _same(taken["lora"], first)
    anew = host.run(_graph("asked", learning_rate=2e-2, if_run_exists="start anew"))
    return {
        "error": other.error,
        "untouched": untouched,
        "again": [again.ok, same, encoded],
        "anew": [anew.ok, taken["lora_name"]],
    }


def test_another_request_under_the_same_name_is_told_apart(answers):
    seen = answer(answers, ask_for_something_else)
    assert "`learning_rate` was 0.01, is 0.02" in seen["error"]
    assert "'start anew'" in seen["error"]
    assert seen["untouched"]
    assert seen["again"] == [True, True, []]  # there already: nothing was encoded or trained
    assert seen["anew"] == [True, "asked_00002.safetensors"]


# --- killed ---------------------------------------------------------------------------------------


def _tiny_graph(server, name):
    """The tiny base and a trainer with states every two steps."""
    info = server.get("/object_info")
    drawn = Graph("killed", info, ("", ""))
    base = drawn.node("NSYNC_TinyBase", (0, 0))
    pictures = drawn.node("NSYNC_TinyStylePictures", (0, 0), count=4)
    sources = {"images": pictures["images"], "captions": pictures["captions"]}
    style_set = drawn.node("NSYNC_StyleSet", (0, 0), resolution=64, **sources)
    options = drawn.node("NSYNC_TrainingOptions", (0, 0), save_every=2)
    sockets = {part: base[part] for part in ("model", "clip", "vae")}
    sockets |= {"style_set": style_set["style_set"], "options": options["options"]}
    settings = {"rule": "plain", "steps": 12, "batch": 1, "rank": 2, "preview_every": 0}
    drawn.node("NSYNC_ContrastiveLoRATrainer", (0, 0), name=name, **settings, **sockets)
    return to_api(drawn.json(), info)


def _weights(run):
    from safetensors.torch import load_file

    return load_file(json.loads((run / "result.json").read_text())["files"]["lora"])


def test_a_killed_server_goes_on_where_it_was(installation, base_directory, tmp_path):
    """SIGKILL to the process of ComfyUI between two states of a run; the same prompt again."""
    runs = base_directory / "output" / "nsync" / "runs"
    with ComfyServer(installation, tmp_path / "server.log", base_directory) as server:
        assert server.run(_tiny_graph(server, "server undisturbed")).ok
        server.queue(_tiny_graph(server, "server killed"))
        log, end = runs / "server killed" / "log.jsonl", time.monotonic() + 120
        while not log.exists() or log.read_bytes().count(b"\n") < 5:
            assert time.monotonic() < end, server.tail()
            time.sleep(0.01)
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait()
        server.stop()
        server.start()
        outcome = server.run(_tiny_graph(server, "server killed"))
        assert outcome.ok, outcome.error
        assert "Going on after step" in server.log.read_text(errors="replace")
    first, second = (_weights(runs / f"server {name}") for name in ("undisturbed", "killed"))
    assert _same(first, second)


# --- begun anew -----------------------------------------------------------------------------------


def stop_what_was_begun_anew(host):
    """Stopped after two steps, then gone on with; and asked for what could never end."""
    import comfy.model_management as management

    progress = host.module("nodes.progress").TrainingProgress
    _, taken = _given(host)
    assert host.run(_graph("new")).ok
    shown, trainer = progress.on_step, host.nodes["NSYNC_ContrastiveLoRATrainer"]

    def pressed(self, report):
        if report.step == 2:
            management.interrupt_current_processing()
        shown(self, report)

    linked = [trainer.fingerprint_inputs(name=None)]
    progress.on_step = pressed
    try:
        stopped = host.run(_graph("new", if_run_exists="start anew"))
    finally:
        progress.on_step = shown
    linked.append(trainer.fingerprint_inputs(name=None))
    again = host.run(_graph("new_00002"))
    linked.append(trainer.fingerprint_inputs(name=None))
    never = host.validate(_graph("ever", if_run_exists="start anew", pause_every=1))
    others = [
        host.validate(_graph(**{"name": "other", **values}))[1]
        for values in ({"name": "a/b"}, {"if_run_exists": "maybe"}, {"pause_every": -1})
    ]
    texts = [d["text"] for event, d in stopped.messages if event == "progress_text"]
    return {
        "told": texts[-1],
        "again": [again.ok, taken["lora_name"], len(again.messages) > 0],
        "linked": [len(set(linked)), all(isinstance(one, str) for one in linked)],
        "never": never[:2],
        "others": others,
    }


def test_a_run_begun_anew_says_how_it_goes_on(answers):
    seen = answer(answers, stop_what_was_begun_anew)
    assert seen["told"] == "To go on: `if_run_exists` 'continue' and `name` 'new_00002'"
    assert seen["again"][:2] == [True, "new_00002.safetensors"]


def test_a_linked_name_has_a_fingerprint_that_follows_its_run(answers):
    count, texts = answer(answers, stop_what_was_begun_anew)["linked"]
    assert texts
    assert count >= 2


def test_what_can_never_end_is_refused_when_it_is_queued(answers):
    seen = answer(answers, stop_what_was_begun_anew)
    refused, error = seen["never"]
    assert refused is False
    assert "`pause_every`: expected 0 while `if_run_exists` is 'start anew'" in error
    for error, name in zip(seen["others"], ("name", "if_run_exists", "pause_every"), strict=True):
        assert f"`{name}`: expected" in error


QUESTIONS = (
    stop_and_go_on,
    pause_draw_and_go_on,
    ask_for_something_else,
    stop_what_was_begun_anew,
)
