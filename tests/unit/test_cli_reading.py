"""A command's file and flags: everything wrong is told at once, with the key's path and line."""

from dataclasses import fields, is_dataclass, replace
from importlib import import_module
from pathlib import Path

import pytest
from workflow_parts import QUICK_SAMPLING, QUICK_TRAINING

from nsync.cli.keys import keys_of
from nsync.cli.main import BAD_INPUT, main
from nsync.cli.reading import read
from nsync.cli.train import DEFAULT
from nsync.denoiser import SamplerSettings
from nsync.errors import InputError
from nsync.negatives import NegativeSettings
from nsync.settings import TrainSettings

COMMANDS = (
    "negatives", "train", "compare", "evaluate", "study", "tiny_pictures", "supcon_pretrain",
    "supcon_gan", "supcon_sample",
)  # fmt: skip
GOOD = """\
model: {path: tiny}
style_set:
  folder: pictures
  token: sks
settings:
  rule: plain
"""


@pytest.fixture
def file(tmp_path):
    (tmp_path / "pictures").mkdir()

    def write(text):
        path = tmp_path / "train.yaml"
        path.write_text(text)
        return path

    return write


def problems(path, **flags):
    with pytest.raises(InputError) as caught:
        read(DEFAULT, path, flags)
    return str(caught.value)


def test_the_settings_are_those_of_the_graph(file):
    text = GOOD + "  learning_rate: 1e-3\n  steps: 7\n  shared_noise: yes\n  initial_word: 123\n"
    made = read(DEFAULT, file(text), {})
    wanted = {"learning_rate": 1e-3, "steps": 7, "shared_noise": True, "initial_word": "123"}
    assert made.settings == TrainSettings(rule="plain", **wanted)


def test_flags_stand_over_the_file_and_paths_have_their_places(file, monkeypatch, tmp_path):
    monkeypatch.chdir("/")
    flags = {"settings.rule": "nsync", "output": "there"}
    made = read(DEFAULT, file(GOOD), flags)
    assert made.settings.rule == "nsync"
    assert made.output == Path("/there")
    assert made.style_set.folder == tmp_path / "pictures"


def test_everything_is_told_at_once_with_path_and_line(file):
    text = """\
nmae: x
model: {path: tiny}
style_set:
  folder: pictures
  resolution: large
settings:
  steps: 0
  stesp: 5
  rule: best
  compile: 3
  rank: "4"
  batch: 2
  batch: 3
preview: 7
"""
    told = problems(file(text))
    for line in (
        "line 1, nmae: no such key; is it name?",
        "line 5, style_set.resolution: expected a whole number; got 'large'",
        "line 7, settings.steps: expected at least 1; got 0",
        "line 8, settings.stesp: no such key; is it steps?",
        "line 9, settings.rule: expected one of nsync",
        "line 10, settings.compile: expected true or false; got '3'",
        "line 11, settings.rank: expected a whole number; got the text '4'",
        "line 13, settings.batch: given twice",
        "line 14, preview: expected keys below it",
    ):
        assert line in told
    assert "9 wrong" in told


def test_what_is_not_there_is_told_with_all_else(file, tmp_path):
    text = """\
model: {path: nowhere.safetensors, config: configs}
style_set: {folder: no_pictures}
start_from: no_lora.safetensors
settings: {rank: 0}
"""
    told = problems(file(text))
    for line in (
        "line 1, model.path: expected a folder or a safetensors file that is there, or `tiny`; got",
        f"line 1, model.config: expected a folder that is there; got '{tmp_path / 'configs'}'",
        f"line 2, style_set.folder: expected a folder that is there; got '{tmp_path}",
        f"line 3, start_from: expected a file that is there; got '{tmp_path}/no_lora.safetensors'",
        "line 4, settings.rank: expected at least 1; got 0",
    ):
        assert line in told
    assert "5 wrong" in told


def test_only_files_that_are_not_there_are_named(tmp_path):
    (tmp_path / "one.safetensors").touch()
    names = ["one.safetensors", "two.safetensors", "three.safetensors"]
    loras = [str(tmp_path / name) for name in names]
    flags = {"model.path": "tiny", "loras": loras, "drawing.captions": ["a"]}
    with pytest.raises(InputError) as caught:
        read(import_module("nsync.cli.compare").DEFAULT, None, flags)
    told = f"files that are there; got '{loras[1]}, {loras[2]}'"
    assert f"loras: expected {told}" in str(caught.value)


def test_a_place_that_cannot_be_and_a_name_that_is_a_path_are_told(file, tmp_path):
    (tmp_path / "taken").touch()
    flags = {"output": str(tmp_path / "taken" / "deeper"), "name": "a/b", "negatives_name": ".."}
    told = problems(file(GOOD), **flags)
    assert (
        f"--output, output: expected a folder that can be made and written in; got '{tmp_path}"
        in told
    )
    assert "--name, name: expected a file name of at most 100 characters" in told
    assert "--negatives_name, negatives_name: expected a file name" in told
    assert "3 wrong" in told


def test_problems_are_told_in_the_order_of_the_file(file):
    told = problems(file("settings: {rank: 0}\nname: a/b\nsteps: 3\n"), output="/dev/null/x")
    lines = [line.strip() for line in told.splitlines()[1:]]
    places = [line.partition(",")[0].partition(":")[0] for line in lines]
    assert places == ["line 1", "line 2", "line 3", "--output", "model.path", "style_set.folder"]


def test_a_file_that_stands_for_tiny_is_taken_for_what_it_is(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert replace(DEFAULT.model, path=Path("tiny")).is_tiny
    (tmp_path / "tiny").mkdir()
    assert not replace(DEFAULT.model, path=Path("tiny")).is_tiny


def test_flags_are_told_by_their_names(file):
    told = problems(file(GOOD), **{"settings.steps": "many"})
    assert "--settings.steps, settings.steps: expected a whole number; got 'many'" in told


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [1\n", "got line 2, column 1: expected ',' or ']'"),
        ("- 1\n", "got a sequence on line 1"),
        ("a: b: c\n", "mapping values are not allowed"),
        ("\x00", "special characters are not allowed"),
        ("settings: 3\n", "line 1, settings: expected keys below it"),
        ("settings: {steps: [3]}\n", "line 1, settings.steps: expected a whole number; got a list"),
        ("settings: {steps: }\n", "settings.steps: expected a whole number; got nothing"),
        ("? [a, b]\n: 3\n", "no such key"),
        ("a: &x [*x]\n", "no such key"),
    ],
)
def test_what_is_no_file_of_keys_is_told(file, text, said):
    assert said in problems(file(text))


def test_bytes_that_are_no_text_are_told(tmp_path):
    path = tmp_path / "train.yaml"
    path.write_bytes(b"name: \xff\xfe")
    assert "YAML file that can be read" in problems(path)


def test_missing_file_unknown_flag_and_unknown_command_end_with_2(tmp_path, capsys):
    assert main(["train", str(tmp_path / "none.yaml")]) == BAD_INPUT
    assert "No such file" in capsys.readouterr().err
    assert main(["train", "--settings.step", "5"]) == BAD_INPUT
    said = capsys.readouterr().err
    assert "--settings.step: no such flag; is it --settings.steps?" in said
    assert "Traceback" not in said
    assert main(["train", "--nmae=x", "--settings.step", "5", str(tmp_path / "none.yaml")]) == 2
    assert "No such file" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main(["trian"])
    assert ended.value.code == BAD_INPUT


@pytest.mark.parametrize("command", COMMANDS)
def test_every_key_of_a_command_is_told_of(command):
    module = import_module(f"nsync.cli.{command}")
    keys = list(keys_of(module.DEFAULT))
    assert all(key.told and key.help() for key in keys)
    assert len(keys) == _leaves(module.DEFAULT)


def test_help_tells_ranges_and_defaults():
    told = {key.path: key.help() for key in keys_of(DEFAULT)}
    assert told["settings.steps"] == "number of updates (a whole number; at least 1; default 500)"
    assert "one of fp32, bf16" in told["settings.precision"]


def _leaves(value):
    inner = [getattr(value, one.name) for one in fields(value)]
    return sum(_leaves(one) if is_dataclass(one) else 1 for one in inner)


def test_the_pages_files_are_accepted(tmp_path):
    page = (Path(__file__).parents[2] / "docs/command_line.md").read_text()
    blocks = [part.partition("```")[0] for part in page.split("```yaml\n")[1:]]
    (tmp_path / "output/loras").mkdir(parents=True)
    (tmp_path / "output/loras/sunset.safetensors").touch()
    for folder in ("pictures", "held_out"):
        (tmp_path / folder).mkdir()
    for command, block in zip(("train", "compare", "study"), blocks, strict=True):
        file = tmp_path / f"{command}.yaml"
        file.write_text(block)
        made = read(import_module(f"nsync.cli.{command}").DEFAULT, file, {})
        assert made.model.path == tmp_path / "tiny"


def test_the_pages_quickstart_is_that_of_the_graph(tmp_path):
    page = (Path(__file__).parents[2] / "docs/command_line.md").read_text()
    (tmp_path / "pictures").mkdir()
    file = tmp_path / "train.yaml"
    file.write_text(page.split("```yaml\n")[1].partition("```")[0])
    made = read(DEFAULT, file, {})
    assert made.settings == TrainSettings(rule="nsync", **QUICK_TRAINING)
    drawn = {"steps": QUICK_SAMPLING["steps"], "guidance": QUICK_SAMPLING["cfg"]}
    assert made.negatives == NegativeSettings(sampler=SamplerSettings(**drawn))


def test_arms_are_told_of_by_path_and_line(tmp_path):
    study = import_module("nsync.cli.study")
    file = tmp_path / "study.yaml"
    file.write_text(
        "model: {path: tiny}\nstyle_set: {folder: .}\nreferences: .\nencoders: {ruler: true}\n"
        "drawing: {captions: [a]}\nseeds: [0, 1]\narms:\n"
        "  one: {rule: plain}\n  two:\n    rank: 0\n    stesp: 3\n  three: 5\n  four:\n"
    )
    with pytest.raises(InputError) as caught:
        read(study.DEFAULT, file, {})
    told = str(caught.value)
    assert "line 10, arms.two.rank: expected at least 1; got 0" in told
    assert "line 11, arms.two.stesp: no such key; is it steps?" in told
    assert "line 7, arms.three: expected keys of `settings`" in told
    assert "3 wrong" in told


STUDY = """\
model: {path: tiny}
style_set: {folder: ., token: zork}
references: .
encoders: {ruler: true}
drawing: {captions: [a]}
arms: {one: {rule: plain}}
"""


def told_of(command, path, **flags):
    with pytest.raises(InputError) as caught:
        read(import_module(f"nsync.cli.{command}").DEFAULT, path, flags)
    return str(caught.value)


def test_a_study_draws_with_the_words_that_it_trains_with(tmp_path):
    file = tmp_path / "study.yaml"
    file.write_text(STUDY)
    made = read(import_module("nsync.cli.study").DEFAULT, file, {"drawing.token": "zork"})
    assert made.drawing.token == "zork"
    other = {"drawing.token": "sks", "drawing.template": "{caption}, {token}"}
    told = told_of("study", file, **{"drawing.token": "sks"})
    assert "drawing.token: expected the set's, 'zork', which the arms are trained with" in told
    told = told_of("study", file, **{"drawing.template": other["drawing.template"]})
    assert "drawing.template: expected the set's, '{caption} in the style of {token}'" in told


@pytest.mark.parametrize(
    ("flag", "value", "said"),
    [
        ("drawing.sampler.steps", "0", "drawing.sampler.steps: expected at least 1; got 0"),
        ("drawing.sampler.guidance", "nan", "drawing.sampler.guidance: expected at least 0"),
        ("name", "n" * 95, "arms.one: expected a file name of at most 100 characters"),
        ("style_set.token", "", "style_set.token: expected a word that stands for the style"),
        ("style_set.template", "{token}", "style_set.template: expected a text with {caption}"),
        ("negatives.sampler.steps", "0", "negatives.sampler.steps: expected at least 1; got 0"),
    ],
)
def test_what_a_study_draws_is_judged_with_all_else(tmp_path, flag, value, said):
    file = tmp_path / "study.yaml"
    file.write_text(STUDY.replace("token: zork", "resolution: 64"))
    told = told_of("study", file, **{flag: value})
    assert said in told
    assert "1 wrong" in told


def test_a_presets_precision_counts_for_the_weights(file):
    held = {"model.weights": "bf16"}
    assert read(DEFAULT, file(GOOD), {**held, "preset": "6 GB"}).wanted.precision == "bf16"
    told = problems(file(GOOD), **held)
    assert "model.weights: expected fp32 with settings.precision fp32; got bf16" in told
    assert not told.endswith("..")
    told = problems(file(GOOD), preset="5 GB", **held)
    assert "preset: expected one of as set, 6 GB" in told
    assert "2 wrong" in told


def test_where_embeddings_go_is_a_place(file, tmp_path):
    (tmp_path / "taken").touch()
    told = problems(file(GOOD), embeddings=str(tmp_path / "taken"))
    assert "embeddings: expected a folder that can be made and written in" in told


def test_an_arm_that_is_given_twice_is_told(tmp_path):
    file = tmp_path / "study.yaml"
    file.write_text(STUDY.replace("arms: {one: {rule: plain}}", "arms:\n  one:\n  two:\n  one:\n"))
    assert "line 9, arms.one: given twice" in told_of("study", file)


def test_a_comparison_has_a_baseline_of_its_own(tmp_path):
    flags = dict.fromkeys(("comparison", "baseline", "references"), str(tmp_path))
    told = told_of("evaluate", None, **flags, **{"encoders.ruler": "true"})
    assert "baseline: expected none beside a comparison, which has its own" in told
    assert "1 wrong" in told


def test_a_comparison_without_a_word_for_the_style_is_told():
    flags = {"model.path": "tiny", "drawing.captions": ["a"], "drawing.token": " "}
    assert "drawing.token: expected a text; got nothing" in told_of("compare", None, **flags)
