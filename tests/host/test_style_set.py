"""Style Set and Caption Images as ComfyUI runs them, good folders and bad ones."""

import numpy as np
import pytest
from PIL import Image

FOLDERS = ("input/hs_style", "datasets/hs_style", "input/hs_bare")
MODEL = "hs_author/tiny-llava"


@pytest.fixture
def folders(base_directory, tmp_path):
    """Pictures under input and datasets, a link out of input, and a small model under models."""
    from small_captioners import llava

    for number, folder in enumerate(FOLDERS):
        place = base_directory / folder
        (place / "inner").mkdir(parents=True, exist_ok=True)
        for old in place.rglob("*.txt"):
            old.unlink()
        for count, name in enumerate(("a", "b", "inner/c")):
            noise = np.random.default_rng([number, count]).integers(
                0, 256, (64, 64 + 16 * count, 3)
            )
            Image.fromarray(noise.astype(np.uint8)).save(place / f"{name}.png")
            if folder != "input/hs_bare":
                (place / f"{name}.txt").write_text(f"{name} of {folder}")
    (base_directory / "input" / "hs_empty").mkdir(exist_ok=True)
    (tmp_path / "secret").mkdir()
    Image.new("RGB", (64, 64)).save(tmp_path / "secret" / "s.png")
    link = base_directory / "input" / "hs_link"
    link.unlink(missing_ok=True)
    link.symlink_to(tmp_path / "secret")
    model = base_directory / "models" / "LLM" / MODEL
    if not model.exists():
        llava(model)
    return base_directory


def style_set(folder, **inputs):
    defaults = {
        "folder": folder,
        "token": "sks",
        "template": "{caption} in the style of {token}",
        "resolution": 64,
        "problem_files": "stop",
    }
    return {"class_type": "NSYNC_StyleSet", "inputs": {**defaults, **inputs}}


def captions(folder, **inputs):
    defaults = {
        "folder": folder,
        "model": MODEL,
        "instruction": "word1 word2",
        "max_words": 5,
        "device": "auto",
    }
    return {"class_type": "NSYNC_CaptionImages", "inputs": {**defaults, **inputs}}


def ask(host, prompts, fingerprinted=""):
    """Runs the prompts: what each showed or said; the folders offered; a folder's fingerprints."""
    import comfy.model_management as management

    answers, made, make = [], [], management.free_memory
    for prompt in prompts:
        management.free_memory = lambda *room: made.append(len(answers)) or make(*room)
        outcome = host.run(prompt)
        management.free_memory = make
        texts = {node: shown["text"][0] for node, shown in outcome.outputs.items()}
        answers.append([texts, outcome.error])
    inputs = host.object_info()["NSYNC_StyleSet"]["input"]["required"]
    seen = fingerprints(host, fingerprinted) if fingerprinted else []
    offered = inputs["folder"][1]["options"]
    return {"answers": answers, "folders": offered, "fingerprints": seen, "room": made}


def fingerprints(host, folder):
    """Of a folder as it is, again, with a caption edited, with one gone, with a picture more."""
    node = host.nodes["NSYNC_StyleSet"]
    place = host.base / folder

    def now():
        return node.fingerprint_inputs(folder=[folder], token=["sks"])

    seen = [now(), now()]
    (place / "a.txt").write_text("other words")
    seen.append(now())
    (place / "b.txt").unlink()
    seen.append(now())
    (place / "new.png").write_bytes((place / "a.png").read_bytes())
    seen.append(now())
    (place / "new.png").unlink()
    return seen


def test_folders_sockets_and_captions(in_host, folders):
    loader = {
        "class_type": "LoadImageTextDataSetFromFolder",
        "inputs": {"folder": "hs_style/inner"},
    }
    sockets = {"images": ["1", 0], "captions": ["1", 1], "labels": "one label"}
    graph = {"1": captions("input/hs_bare"), "2": style_set("input/hs_bare", captions=["1", 0])}
    prompts = [
        {"1": style_set("input/hs_style")},
        {"1": style_set("input/hs_style/inner")},
        {"1": loader, "2": style_set("(from sockets)", **sockets)},
        {"1": style_set("input/hs_bare", problem_files="stop")},
        graph,
        graph,
        {"1": style_set("datasets/hs_style")},
    ]
    told = in_host(ask, prompts=prompts, fingerprinted="input/hs_style")

    folder, inner, socket, bare, first, again, dataset = told["answers"]
    assert folder == [{"1": "3 of 3 pictures used from folder hs_style."}, ""]
    assert inner == [{"1": "1 of 1 pictures used from folder inner."}, ""]
    assert socket == [{"2": "1 of 1 pictures used from the sockets."}, ""]
    for name in ("a", "b", "inner/c"):
        assert f"{name}.png: no caption: {name[-1]}.txt is missing" in bare[1]

    used = "3 of 3 pictures used from folder hs_bare."
    assert first == [{"1": "3 captions written, 0 were there already.", "2": used}, ""]
    assert again == [{"1": "0 captions written, 3 were there already.", "2": used}, ""]
    assert told["room"] == [prompts.index(graph)]  # for the first, and not for the second
    written = (folders / "input" / "hs_bare" / "inner" / "c.txt").read_text()
    assert 1 <= len(written.split()) <= 5

    assert {"(from sockets)", "input/hs_style", "input/hs_style/inner"} <= set(told["folders"])
    if "datasets/hs_style" in told["folders"]:
        assert dataset == [{"1": "3 of 3 pictures used from folder hs_style."}, ""]
    else:  # a host from before there was such a folder
        assert "which is not there" in dataset[1]

    seen = told["fingerprints"]
    assert seen[0] == seen[1]
    assert len(set(seen)) == 4


BAD_FOLDERS = {
    "input/../..": "expected a folder under the host's input or datasets folder",
    "../input/hs_style": "expected a folder under",
    "/etc": "got '/etc'",
    "input//etc/..": "expected a folder under",
    "input": "got 'input'",
    "": "got ''",
    "output/hs_style": "got 'output/hs_style'",
    "input/hs_link": "a link that points out of it",
    "input/hs_gone": "which is not there",
    "input/hs_empty": "picture",
}
BAD_MODELS = ("gone", "", "../LLM/hs_author/tiny-llava", "/etc", "hs_author")
BAD_VALUES = [
    ({"token": " "}, "`token`: expected a word"),
    ({"template": "{caption}"}, "`template`: expected a text with {caption} and {token}"),
    ({"template": "{caption} {token} {0}"}, "`template`"),
    ({"captions": "one"}, "`captions`: expected one of the captions for each of the 3"),
    ({"labels": "one"}, "`labels`: expected one of the labels for each of the 3"),
    ({"folder": "(from sockets)"}, "`images`: expected pictures on this socket"),
    ({"images": ["9", 0]}, "`folder`: expected '(from sockets)' while `images` is connected"),
]


def test_bad_inputs_are_refused_and_touch_nothing(in_host, folders):
    picture = {"width": 64, "height": 64, "batch_size": 1, "color": 0}
    empty = {"class_type": "EmptyImage", "inputs": picture}
    cases = [
        (node(folder), ("`folder`", words))
        for folder, words in BAD_FOLDERS.items()
        for node in (style_set, captions)
    ]
    cases += [
        (captions("input/hs_bare", model=name), ("`model`: expected a folder with", f"'{name}'"))
        for name in BAD_MODELS
    ]
    # What the page sends where a list has nothing to choose from.
    unasked = captions("input/hs_bare")
    del unasked["inputs"]["model"]
    cases.append((unasked, ("`model`: expected a folder with", "Put one there")))
    cases += [
        (style_set(**{"folder": "input/hs_style", **inputs}), (words,))
        for inputs, words in BAD_VALUES
    ]
    before = sorted(folders.joinpath("input").rglob("*"))

    told = in_host(ask, prompts=[{"1": node, "9": empty} for node, _ in cases])

    for (node, words), (_, error) in zip(cases, told["answers"], strict=True):
        assert all(word in error for word in words), (node, error)
    assert sorted(folders.joinpath("input").rglob("*")) == before
