"""The trainer with a set of several labels: a run for each, others as negatives."""

import sys
from pathlib import Path

import pytest
from questions import answer, ask, once

PER_LABEL = {"labels": "one run per label", "negatives_from": "other labels", "steps": 2}
NAMES = ["both_monet", "both_van gogh"]


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
    return _helpers().graph(name=name, **{"preview_every": 0, **PER_LABEL, **settings})


def _labelled(style_set, *labels):
    """The set with these labels, without painted negatives."""
    from dataclasses import replace

    pairs = zip(style_set.items, labels, strict=True)
    items = tuple(replace(item, label=label, negatives=()) for item, label in pairs)
    return replace(style_set, items=items)


def _given(host, *labels):
    """What is on the sockets, and what came out of each output, as lists."""
    graphs = _helpers()
    given = graphs.sockets(host, "SD15")
    given["style_set"] = _labelled(given["style_set"], *(labels or ("monet", "van gogh", "monet")))
    taken = graphs.serve(host, given)
    host.nodes["TestSink"].INPUT_IS_LIST = True
    return given, taken


def _same(one, other):
    return one.keys() == other.keys() and all(bool((one[k] == other[k]).all()) for k in one)


def _runs(host):
    return sorted(path.name for path in (host.base / "output/nsync/runs").glob("*"))


def _texts(outcome):
    return [data["text"] for event, data in outcome.messages if event == "progress_text"]


# --- trained --------------------------------------------------------------------------------------


def train_every_label(host):
    """Beside the run of one label by itself, with the other's picture as its negative."""
    import folder_paths

    graphs = _helpers()
    given, taken = _given(host)
    outcome = host.run(_graph("both", preview_every=2, **PER_LABEL))
    if not outcome.ok:
        return outcome.error
    each, drawn = dict(taken), _drawn_for_each(host, _graph("both", preview_every=2, **PER_LABEL))
    settings, labels = host.module("nsync.settings"), host.module("nsync.sets.labels")
    wanted = settings.TrainSettings(rule="projection", negatives_from="other labels")
    given["style_set"] = labels.by_label(wanted, given["style_set"])["monet"]
    alone = host.run(_graph("alone", labels="one style"))
    return {
        "names": each["lora_name"],
        "words": each["embedding_word"],
        "listed": set(each["lora_name"]) <= set(folder_paths.get_filename_list("loras")),
        "losses": [len(one["loss"]) for one in each["loss_map"]],
        "pictures": len({float(graphs.draw(model).abs().sum()) for model in each["model"]}),
        "clips": len(each["clip"]),
        "drawn": drawn,
        "texts": _texts(outcome),
        "shown": outcome.outputs["2"],
        "runs": [name for name in _runs(host) if name.startswith("both")],
        "alone": [alone.error, taken["lora_name"], _same(each["lora"][0], taken["lora"][0])],
        "apart": not _same(each["lora"][0], each["lora"][1]),
    }


def _drawn_for_each(host, graph):
    """The names with which a node behind the trainer, one that knows no lists, is carried out."""
    sink, names = host.nodes["TestSink"], []
    taken, sink.INPUT_IS_LIST = sink.take, False
    sink.take = lambda self, **values: names.append(values["lora_name"]) or ()
    host.run(graph)
    sink.take, sink.INPUT_IS_LIST = taken, True
    return names


def test_every_label_has_a_lora_of_its_own(answers):
    seen = answer(answers, train_every_label)
    assert seen["names"] == seen["drawn"] == [f"{name}.safetensors" for name in NAMES]
    assert seen["listed"]
    assert seen["runs"] == NAMES
    assert seen["losses"] == [2, 2]
    assert seen["clips"] == seen["pictures"] == 2
    assert seen["words"] == ["", ""]
    assert seen["apart"]
    assert seen["texts"][0].startswith("both_monet, 1 of 2 | step 1 of 2")
    assert seen["texts"][-2].startswith("both_van gogh, 2 of 2 | step 2 of 2")
    assert seen["texts"][-1] == "\n".join(seen["shown"]["text"])  # it stays on the node
    assert seen["shown"]["text"] == [f"Saved loras/{name}.safetensors" for name in NAMES]
    folders = [picture["subfolder"] for picture in seen["shown"]["images"]]
    assert folders == [f"nsync/runs/{name}/samples" for name in NAMES]


def test_a_labels_run_is_that_of_its_pictures_alone(answers):
    assert answer(answers, train_every_label)["alone"] == ["", ["alone.safetensors"], True]


# --- stopped, paused, gone bad --------------------------------------------------------------------


def stop_in_the_second(host):
    """After its first step; then the same graph again."""
    import comfy.model_management as management

    progress = host.module("nodes.progress").TrainingProgress
    run = host.module("nodes.training.run")
    _, taken = _given(host)
    host.run(_graph("undisturbed"))
    expected, shown = list(taken["lora"]), progress.on_step

    def pressed(self, report):
        if len(_runs_of(host, "cut")) == 2:
            management.interrupt_current_processing()
        shown(self, report)

    progress.on_step = pressed
    try:
        stopped = host.run(_graph("cut"))
    finally:
        progress.on_step = shown
    files = _runs_of(host, "cut")
    again = host.run(_graph("cut"))
    return {
        "ok": [stopped.ok, again.ok],
        "files": files,
        "loras": sorted(path.name for path in run.lora_folder().glob("cut*")),
        "texts": _texts(again),
        "same": [_same(*pair) for pair in zip(taken["lora"], expected, strict=True)],
    }


def _runs_of(host, name):
    return [run for run in _runs(host) if run.startswith(name)]


def test_a_stop_keeps_the_labels_before_and_goes_on_with_the_rest(answers):
    seen = answer(answers, stop_in_the_second)
    assert seen["ok"] == [False, True]
    names = ["cut_monet", "cut_van gogh", "cut_van gogh_stopped_at_1"]
    assert seen["loras"] == [f"{name}.safetensors" for name in names]
    assert [text.partition(" | loss")[0] for text in seen["texts"]] == [
        "cut_van gogh, 2 of 2 | step 2 of 2",
        "Saved loras/cut_monet.safetensors\nSaved loras/cut_van gogh.safetensors",
    ]
    assert seen["same"] == [True, True]


def pause_every_label(host):
    """The graph queued four times: paused, done, found done, from the cache."""
    import execution
    from driver import _Recorder
    from server import PromptServer

    _, taken = _given(host)
    server = PromptServer.instance = _Recorder()
    cache = {"lru": 0, "ram": 0.0, "ram_inactive": 0.0}
    executor = execution.PromptExecutor(server, execution.CacheType.CLASSIC, cache)
    found = []
    for _ in range(4):
        prompt = _graph("slow", pause_every=1)
        _, _, outputs = host.validate(prompt)
        executor.execute(prompt, "test", {}, outputs)
        cached = [d["nodes"] for e, d in executor.status_messages if e == "execution_cached"]
        shown = executor.history_result["outputs"].get("2", {}).get("text")
        found.append([list(taken["lora_name"]), "2" in cached[-1], shown])
    return found


def test_every_label_pauses_and_goes_on(answers):
    first, second, third, fourth = answer(answers, pause_every_label)
    assert first[0] == [f"slow_{label}_stopped_at_1.safetensors" for label in ("monet", "van gogh")]
    assert "slow_van gogh: Paused after 1 of 2 steps: run again" in first[2]
    assert second[0] == third[0] == ["slow_monet.safetensors", "slow_van gogh.safetensors"]
    assert [one[1] for one in (first, second, third, fourth)] == [False, False, False, True]


def go_bad_in_the_first(host):
    """Its numbers do, as the trainer tells it."""
    run, log = host.module("nodes.training.run").TrainingRun, host.module("nsync.runs.log")
    _given(host)
    train = run.train

    def bad(self, *given):
        if self.folder.name == "bad_monet":
            raise log.NonFiniteError("NaN in bad_monet")
        return train(self, *given)

    run.train = bad
    try:
        outcome = host.run(_graph("bad"))
    finally:
        run.train = train
    loras = host.module("nodes.host.lora").lora_folder()
    return [outcome.error, sorted(path.name for path in loras.glob("bad*"))]


def test_a_label_that_goes_bad_does_not_keep_the_others_from_training(answers):
    error, files = answer(answers, go_bad_in_the_first)
    assert "NonFiniteError: NaN in bad_monet" in error
    assert files == ["bad_van gogh.safetensors"]


# --- what cannot be -------------------------------------------------------------------------------


def ask_for_the_impossible(host):
    """Each bad request: its error, and the runs that came of it."""
    given, _ = _given(host)
    assert host.run(_graph("before")).ok
    whole, found = given["style_set"], {}
    for name, (labels, settings) in BAD.items():
        given["style_set"] = _labelled(whole, *labels)
        before = _runs(host)
        outcome = host.run(_graph(**{"name": "bad one", **settings}))
        found[name] = [outcome.error, [run for run in _runs(host) if run not in before]]
    return found


BAD = {
    "no label": (("monet", "", "monet"), {}),
    "one label": (("monet",) * 3, {}),
    "one style": (("monet", "turner", "monet"), {"labels": "one style"}),
    "a path": (("monet", "../turner", "monet"), {}),
    "capitals": (("monet", "Monet", "monet"), {}),
    "one picture": (("monet", "turner", "monet"), {"rule": "nsync"}),
    "none painted": (("monet", "turner", "monet"), {"negatives_from": "both"}),
    "another before": (("turner", "van gogh", "turner"), {"name": "before", "rank": 2}),
}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("no label", "`labels`: expected a label on every picture of the set"),
        ("one label", "`negatives_from`: expected a set with at least two labels"),
        ("one style", "Set `labels` to 'one run per label', or choose 'painted'"),
        ("a path", "`labels`: expected a file name of at most 100 characters"),
        ("capitals", "`labels`: expected labels that differ by more than capitals"),
        ("one picture", "at least two positives of the same label, since an anchor"),
        ("none painted", "`style_set`: expected a set with negatives, which rule"),
        ("another before", "`rank` was 4, is 2"),
    ],
)
def test_bad_input_is_one_clear_error_before_any_run(answers, name, text):
    error, runs = answer(answers, ask_for_the_impossible)[name]
    assert text in error
    assert runs == []


QUESTIONS = (
    train_every_label,
    stop_in_the_second,
    pause_every_label,
    go_bad_in_the_first,
    ask_for_the_impossible,
)
