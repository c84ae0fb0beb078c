"""A run that is stopped and gone on with is the run that never stopped, to the last bit."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_runs import (
    EVERYTHING,
    QUICK,
    Exports,
    Stop,
    assert_equal,
    assert_same_end,
    config,
    files_of,
    records,
    run,
    state,
    stop_at,
    tensors,
    timeless,
    with_optimizer,
)
from tiny_denoiser import TinyDenoiser, tiny_set
from torch import Tensor

from nsync.errors import InputError
from nsync.lora_file import LowRank
from nsync.optimizers import OPTIMIZERS
from nsync.runs.folder import RunFolder
from nsync.settings import BOTH, EMBEDDING, TrainSettings

WAYS = {
    "embedding": {"trains": EMBEDDING},
    "everything": EVERYTHING,
    "ema": {"ema": 0.5},
    "cosine": {"schedule": "cosine"},
    "accumulate": {"accumulate": 2, "batch": 1, "trains": BOTH},
    "validation": {"validation": 1, "validate_every": 2},
    "dropout": {"caption_dropout": 0.5, "noise_offset": 0.1, "min_snr": 5.0, "times": "early"},
    "plain, by tensor": {"rule": "overlap", "scope": "tensor"},
}
WAYS |= {name: {"trains": BOTH, **with_optimizer(name)} for name in OPTIMIZERS}


def finished(folder: Path, settings: TrainSettings, **given) -> Exports:
    """Run to the end, however often it takes."""
    export = Exports(folder)
    while run(folder, settings, export=export, **given).step < settings.steps:
        pass
    return export


@pytest.mark.parametrize("way", WAYS)
def test_stopped_and_gone_on_is_never_stopped(tmp_path: Path, way: str) -> None:
    """Stopped after the first step, between two states, and where a state was just due."""
    settings = replace(QUICK, **WAYS[way])
    whole = finished(tmp_path / "whole", settings)
    for step in (1, 3, 4):
        with pytest.raises(Stop):
            run(tmp_path / "stopped", settings, on_step=stop_at(step))
        assert state(tmp_path / "stopped").step == step
    result = run(tmp_path / "stopped", settings, export=whole)
    assert_same_end(tmp_path / "stopped", tmp_path / "whole")
    assert_equal(*(tensors(learned) for learned, _ in whole.kept))
    assert result.losses == [one["loss_positive"] for one in _steps(tmp_path / "whole")]
    assert len(result.losses) == 6


def _steps(folder: Path) -> list[dict]:
    return [one for one in records(folder) if "loss_positive" in one]


def test_a_run_stopped_at_its_last_step_is_only_exported(tmp_path: Path) -> None:
    settings = replace(QUICK, **WAYS["validation"])
    whole = finished(tmp_path / "whole", settings)
    with pytest.raises(Stop):
        run(tmp_path / "stopped", settings, on_step=stop_at(6))
    steps = []
    export = finished(tmp_path / "stopped", settings, on_step=steps.append)
    assert steps == []
    assert_same_end(tmp_path / "stopped", tmp_path / "whole")
    assert_equal(tensors(export.last), tensors(whole.last))


@pytest.mark.parametrize("every", [1, 2, 4])
def test_a_run_in_parts_is_the_whole_run(tmp_path: Path, every: int) -> None:
    settings = replace(QUICK, **EVERYTHING)
    whole = finished(tmp_path / "whole", settings)
    export, results = Exports(tmp_path), []
    while not results or results[-1].step < 6:
        results.append(run(tmp_path / "parts", replace(settings, pause_every=every), export=export))
    assert [result.step for result in results] == [*range(every, 6, every), 6]
    assert [steps for _, steps in export.kept] == [result.step for result in results]
    assert [len(result.losses) for result in results] == [result.step for result in results]
    assert all(file.exists() for result in results for file in result.files.values())
    assert_same_end(tmp_path / "parts", tmp_path / "whole")
    assert_equal(tensors(export.last), tensors(whole.last))


def test_more_steps_can_be_asked_for_where_the_rate_does_not_depend_on_them(tmp_path: Path) -> None:
    finished(tmp_path / "raised", replace(QUICK, steps=4))
    finished(tmp_path / "raised", QUICK)
    finished(tmp_path / "at once", QUICK)
    assert_same_end(tmp_path / "raised", tmp_path / "at once")
    assert config(tmp_path / "raised")["settings"]["steps"] == 6


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_more_steps_are_another_run_where_the_rate_depends_on_them(
    tmp_path: Path, schedule: str
) -> None:
    settings = replace(QUICK, schedule=schedule)
    finished(tmp_path, settings)
    assert_refused(tmp_path, r"`steps` was 6, is 8\. *$", replace(settings, steps=8))


def assert_refused(folder: Path, text: str, settings: TrainSettings = QUICK, **given) -> None:
    """Told before any picture is encoded, with all ways out, and nothing has been written."""
    before = files_of(folder)
    given.setdefault("denoiser", Blind())
    with pytest.raises(InputError, match=f"(?ms){text}") as caught:
        run(folder, settings, **given)
    if caught.value.name == "name":
        assert "`if_run_exists` to 'start anew'" in str(caught.value)
        assert "choose another `name`" in str(caught.value)
    assert files_of(folder) == before
    assert given["denoiser"].words == {}


class Blind(TinyDenoiser):
    """Must not be asked to encode anything."""

    def encode_images(self, pixels: Tensor) -> Tensor:
        raise AssertionError("a picture was encoded")

    def encode_prompts(self, texts: list[str]) -> list[dict[str, Tensor]]:
        raise AssertionError("a prompt was encoded")


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    """The folder of a run that was stopped after three steps."""
    with pytest.raises(Stop):
        run(tmp_path, on_step=stop_at(3))
    return tmp_path


def test_changed_settings_are_named_with_both_values(stopped: Path) -> None:
    changed = replace(QUICK, learning_rate=0.5, rule="overlap", seed=3, preview_every=9)
    text = (
        r"the run run, which has made 3 steps; got other ones:\n"
        r"  `rule` was 'nsync', is 'overlap'\n"
        r"  `learning_rate` was 0\.01, is 0\.5\n"
        r"  `seed` was 0, is 3\. *$"
    )
    assert_refused(stopped, text, changed)


def test_another_base_set_token_template_or_start_are_named(stopped: Path) -> None:
    whole = tiny_set(stopped / "set")
    first = replace(whole.items[0], caption="another")
    other = replace(
        whole,
        items=(first, *whole.items[1:]),
        token="abc",
        template="{token}: {caption}",
        base="tiny-1",
    )
    start = {"attn.to_q": LowRank(torch.ones(2, 8), torch.ones(8, 2), 2.0)}
    text = (
        r"  the style token: was 'sks', is 'abc'\n"
        r"  the template: was '{caption} in the style of {token}', is '{token}: {caption}'\n"
        r"  the base model: was 'tiny-0', is 'tiny-1'\n"
        r"  the pictures, captions or negatives of the set: was '[\da-f]{12}', is '[\da-f]{12}'\n"
        r"  the LoRA to start from: was 'none', is '[\da-f]{12}'\. *$"
    )
    assert_refused(stopped, text, style_set=other, denoiser=Blind(1), start=start)


def test_a_changed_negative_is_another_set(stopped: Path) -> None:
    style_set = tiny_set(stopped / "set")
    swapped = style_set.items[0].negatives[0]
    swapped.write_bytes(style_set.items[1].negatives[0].read_bytes())
    assert_refused(stopped, "negatives of the set: was", style_set=style_set)


def test_another_vae_is_named_where_both_are_known(tmp_path: Path) -> None:
    def having(kind: type[TinyDenoiser], **companions: str) -> TinyDenoiser:
        denoiser = kind()
        denoiser.companions = companions
        return denoiser

    known = {"vae": "a" * 64, "text_encoders": "b" * 64, "noise_levels": "c" * 64}
    with pytest.raises(Stop):
        run(tmp_path, on_step=stop_at(3), denoiser=having(TinyDenoiser, **known))
    text = (
        r"  the text encoders, CLIP skip or a LoRA on them: was 'bbbbbbbbbbbb', is 'dddddddddddd'\n"
        r"  the VAE: was 'aaaaaaaaaaaa', is 'eeeeeeeeeeee'\. *$"
    )
    other = {**known, "vae": "e" * 64, "text_encoders": "d" * 64}
    assert_refused(tmp_path, text, denoiser=having(Blind, **other))
    with pytest.raises(Stop):  # at a door that does not know, and does not forget
        run(tmp_path, on_step=stop_at(4), denoiser=having(TinyDenoiser))
    assert_refused(tmp_path, text, denoiser=having(Blind, **other))
    assert run(tmp_path, denoiser=having(TinyDenoiser, **known)).over


@pytest.mark.parametrize(
    "changed",
    [
        {"preview_every": 1},
        {"validate_every": 7},
        {"save_every": 5, "keep_last": 1},
        {"pause_every": 2},
        {"log_every": 1},
        {"checkpointing": True},
    ],
    ids=str,
)
def test_what_does_not_change_the_run_may_change(stopped: Path, changed: dict) -> None:
    finished(stopped, replace(QUICK, **changed))
    finished(stopped / "whole", QUICK)
    one, two = state(stopped), state(stopped / "whole")
    assert_equal(one.tensors, two.tensors)
    assert timeless(stopped) == timeless(stopped / "whole")


def test_branches_may_go_another_way_from_now_on(stopped: Path) -> None:
    """The same numbers up to rounding, which differs between one pass and three."""
    finished(stopped, replace(QUICK, branches="sequential"))
    finished(stopped / "whole", QUICK)
    assert state(stopped).form["branches"] == "sequential"
    for name, value in state(stopped / "whole").tensors.items():
        torch.testing.assert_close(state(stopped).tensors[name], value, rtol=1e-3, atol=1e-5)


def test_a_run_goes_on_in_the_form_that_it_found(stopped: Path) -> None:
    """`auto` is decided once: where it chose one pass after the other, it stays with that."""
    was = state(stopped)
    form = {"branches": "sequential", "most": 1, "checkpointing": False}
    RunFolder(stopped / "run").save(replace(was, form=form), 2)
    finished(stopped, QUICK)
    assert state(stopped).form == form


def test_a_finished_run_is_not_made_again(tmp_path: Path) -> None:
    result = run(tmp_path)
    before = files_of(tmp_path)
    export = Exports(tmp_path)
    again = run(tmp_path, denoiser=Blind(), export=export, preview=lambda _: pytest.fail("drawn"))
    assert again == result
    assert export.kept == []
    assert files_of(tmp_path) == before


def test_a_finished_run_whose_files_are_gone_is_exported_again(tmp_path: Path) -> None:
    export = Exports(tmp_path)
    result = run(tmp_path, export=export)
    for file in result.files.values():
        file.unlink()
    assert run(tmp_path, export=export) == result
    assert all(file.exists() for file in result.files.values())
    assert_equal(*(tensors(learned) for learned, _ in export.kept))


def test_fewer_steps_than_made_are_refused(stopped: Path) -> None:
    text = "`steps`: expected at least 3, which the run run has made already; got 2"
    assert_refused(stopped, text, replace(QUICK, steps=2))


def damage(file: Path, left: int) -> None:
    file.write_bytes(file.read_bytes()[:left])


@pytest.mark.parametrize("left", [-1, 100, 4, 0])
def test_damaged_states_are_made_again_from_the_one_before(
    tmp_path: Path, left: int, caplog: pytest.LogCaptureFixture
) -> None:
    """And do not count among the states that are kept: the good ones do."""
    settings = replace(QUICK, save_every=1, keep_last=3, **EVERYTHING)
    with pytest.raises(Stop):
        run(tmp_path, settings, on_step=stop_at(5))
    for step in (4, 5):
        damage(tmp_path / "run" / "state" / f"step_{step:08}.safetensors", left)
    with caplog.at_level(logging.INFO), pytest.raises(Stop):
        run(tmp_path, replace(settings, keep_last=1), on_step=stop_at(4))
    assert "step_00000005.safetensors cannot be read" in caplog.text
    assert "step_00000004.safetensors cannot be read" in caplog.text
    assert "Going on after step 3 of 6" in caplog.text
    assert RunFolder(tmp_path / "run").steps() == [4]
    finished(tmp_path, settings)
    finished(tmp_path / "whole", settings)
    assert_same_end(tmp_path, tmp_path / "whole")


def test_where_every_state_is_damaged_the_run_is_refused(stopped: Path) -> None:
    for file in (stopped / "run" / "state").iterdir():
        damage(file, 50)
    before = files_of(stopped)
    with pytest.raises(InputError, match=r"`name`: expected a state that can be read.*2 damaged"):
        run(stopped, denoiser=Blind())
    assert files_of(stopped) == before


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_newest_states_are_kept(tmp_path: Path, keep: int) -> None:
    found = []

    def look(report: object) -> None:
        found.append(RunFolder(tmp_path / "run").steps())

    settings = replace(QUICK, keep_last=keep)
    run(tmp_path, settings, on_step=look)
    assert found == [[], [], [2], [2], [2, 4][-keep:], [2, 4][-keep:]]
    assert RunFolder(tmp_path / "run").steps() == [2, 4, 6][-keep:]


def test_what_a_killed_process_left_is_removed(stopped: Path) -> None:
    left = [
        stopped / "run" / ".log.jsonl.12345678.part",
        stopped / "run" / "state" / ".step_00000004.safetensors.12345678.part",
    ]
    for file in left:
        file.write_bytes(b"half")
    finished(stopped, QUICK)
    assert not any(file.exists() for file in left)
    assert list((stopped / "run").rglob("*.part")) == []


def test_a_run_without_a_state_begins_anew(tmp_path: Path) -> None:
    """Even by other settings: there is nothing of it that could be gone on with."""
    other = replace(QUICK, seed=5)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "log.jsonl").write_text('{"step": 1, "loss_positive": 1.0}\n{"st')
    finished(tmp_path, other)
    finished(tmp_path / "whole", other)
    assert_same_end(tmp_path, tmp_path / "whole")
