"""The second method asked for what cannot be: one clear error, and no file changed."""

import shutil
import sys
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


def ask_for_the_impossible(host):
    """Each bad request: its error, and the files that came or went."""
    graphs, found = _graphs(), {}
    output = host.base / "output"
    assert host.run(graphs.training({"name": "usual", "steps": 4}, name="usual_gan")).ok
    shutil.copy(output / "supcon_encoders/usual.safetensors", output / "t2i_gans/other.safetensors")
    for name, made in _bad_requests(host, graphs).items():
        before = _files(output)
        outcome = host.run(made)
        # A node that is refused when it is queued does not keep others of the graph from running.
        error = outcome.error or host.validate(made)[1]
        found[name] = [error, sorted(_files(output) ^ before)]
    return found


ANEW = {"if_run_exists": "start anew", "pause_every": 1}


def _bad_requests(host, graphs):
    usual = {"name": "usual", "steps": 4}
    bare = graphs.pretraining(name="bad")
    del bare["2"]["inputs"]["labels"]
    long = graphs.pretraining(name="bad")
    words = {"string_a": ["1", 1], "string_b": " over a hill" * 30, "delimiter": ""}
    long["5"] = {"class_type": "StringConcatenate", "inputs": words}
    long["2"]["inputs"]["captions"] = ["5", 0]
    paints = {"4": graphs.node("LoadT2IGAN", file="usual_gan.safetensors")}
    (host.base / "models" / "clip_vision" / "broken").mkdir(parents=True)
    (host.base / "models" / "clip_vision" / "broken" / "config.json").write_text("{}")
    return {
        "no labels": bare,
        "one label": graphs.pretraining({"styles": "flat"}, name="bad"),
        "long captions": long,
        "unknown style": graphs.pretraining({"styles": "flat, baroque"}, name="bad"),
        "held out": graphs.pretraining(name="bad", validation=11),
        "no clip": graphs.pretraining(name="bad", encoders="clip_vision/broken"),
        "path": graphs.training(usual, name="../escape"),
        "encoders anew": graphs.pretraining(name="bad", **ANEW),
        "gan anew": graphs.training(usual, name="bad", **ANEW),
        "side": graphs.training(usual, name="bad", image_size=48),
        "long preview": graphs.training(usual, name="bad", preview_prompts="a dot " * 40),
        "penalty": graphs.training(usual, name="bad", family="AttnGAN"),
        "another kind": graphs.training(usual, name="usual"),
        "no file": {"4": graphs.node("LoadT2IGAN", file="gone.safetensors")}
        | graphs.painting(["4", 0]),
        "other file": {"4": graphs.node("LoadT2IGAN", file="other.safetensors")}
        | graphs.painting(["4", 0]),
        "no prompts": paints | graphs.painting(["4", 0], prompts=" \n "),
        "long prompt": paints | graphs.painting(["4", 0], prompts="a dot " * 40),
    }


def _files(folder):
    return {str(path) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("request_name", "text"),
    [
        ("no labels", "`style_set`: expected a label for every picture; got none for image_0001"),
        (
            "one label",
            "`style_set`: expected pictures of at least two different labels; got 'flat'",
        ),
        ("long captions", "`captions`: expected captions of at most 64 tokens"),
        ("unknown style", "`styles`: expected styles of flat, outline"),
        ("held out", "`validation`: expected fewer held-out pictures"),
        ("no clip", "expected a CLIP model for transformers"),
        ("path", "`name`: expected a file name"),
        ("encoders anew", "`pause_every`: expected 0 while `if_run_exists` is 'start anew'"),
        ("gan anew", "`pause_every`: expected 0 while `if_run_exists` is 'start anew'"),
        ("side", "`image_size`: expected a power of two"),
        ("long preview", "`captions`: expected captions of at most 64 tokens"),
        ("penalty", "`penalty_weight`: expected 0: this family's discriminators judge a batch"),
        ("another kind", "what is taught: was 'a pair of encoders', is 'a text-to-image GAN'"),
        ("no file", "file: 'gone.safetensors' not in"),
        ("other file", "`other.safetensors`: expected a text-to-image GAN saved by the SupCon"),
        ("no prompts", "`prompts`: expected at least one prompt; got none"),
        ("long prompt", "`captions`: expected captions of at most 64 tokens"),
    ],
)
def test_bad_input_is_one_clear_error(answers, request_name, text):
    error, changed = answer(answers, ask_for_the_impossible)[request_name]
    assert text in error
    assert changed == []


def a_label_of_one_picture(host):
    """Allowed, and told by both trainers."""
    graphs = _graphs()
    drawn = {"styles": "flat, outline, outline", "count": 4, "label_by": "style"}
    few = {"name": "few", "steps": 1, "validation": 0}
    made = graphs.training(few, drawn | {"styles": "flat, outline, grain"}, name="few_gan", steps=1)
    outcome = host.run(made)
    return [outcome.error, outcome.outputs["3"]["text"][1], outcome.outputs["4"]["text"][1]]


def test_a_label_of_one_picture_is_told(answers):
    error, *texts = answer(answers, a_label_of_one_picture)
    assert error == ""
    assert all("Labels with one picture: grain, outline." in text for text in texts)


def read_the_settings(host):
    """Families at their published width and at half of it; a preset over settings of the user's."""
    from dataclasses import asdict, replace

    run = host.module("nsync.supcon.gan.choices")
    kinds = host.module("nsync.supcon.gan").FAMILIES
    encoders = host.module("nsync.supcon.small_encoders").SmallEncoders(["a"], 16, 32)
    whole, half = {}, {}
    for name, kind in kinds.items():
        published = replace(kind(), text_width=32)
        size, width = published.image_size, published.width
        whole[name] = run.family_of(name, size, width, encoders) == published
        half[name] = asdict(run.family_of(name, size, width // 2, encoders))
    asked = run.GanSettings(steps=7, batch=3, match_weight=9.0, contrast="none", ema=0.5)
    galip = kinds["GALIP"]()
    presets = {p: asdict(run.with_preset(asked, galip, p)) for p in (run.AS_SET, run.PUBLISHED)}
    return {"whole": whole, "half": half, "asked": asdict(asked), "presets": presets}


def test_a_family_has_its_published_widths_or_their_share(answers):
    found = answer(answers, read_the_settings)
    assert all(found["whole"].values())
    assert (found["half"]["SSA-GAN"]["width"], found["half"]["SSA-GAN"]["mask_width"]) == (32, 50)
    galip = found["half"]["GALIP"]
    assert (galip["seen_width"], galip["bridge_width"]) == (256, 16)
    assert (galip["text_width"], galip["noise"]) == (32, 100)


def test_a_preset_replaces_what_the_family_has_values_for(answers):
    found = answer(answers, read_the_settings)
    assert found["presets"]["as set"] == found["asked"]
    published = found["presets"]["published"]
    assert (published["batch"], published["match_weight"], published["ema"]) == (16, 0.4, 0.0)
    assert (published["steps"], published["contrast"]) == (7, "none")


QUESTIONS = (ask_for_the_impossible, a_label_of_one_picture, read_the_settings)
