"""A full disk, and another run under the name, are told before any picture is read."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from gan_runs import ATTN_GAN, GALIP, QUICK, SSA_GAN, Exports, run_gan, small_encoders, vision
from pretraining_runs import FLAGS, SHORT, run_pretraining
from supcon_sets import small

from nsync.errors import InputError
from nsync.style_set import StyleItem, StyleSet
from nsync.supcon.gan.training import check_before_reading
from nsync.supcon.pretraining import pretrain


class Unread(StyleItem):
    """A picture that must not be read."""

    def load(self) -> torch.Tensor:
        raise AssertionError("read")


UNREAD = StyleSet(
    tuple(Unread(i.name, i.caption, i.label, pixels=i.pixels) for i in FLAGS.items),
    token="sks",
    resolution=16,
)


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr("nsync.checkpoint.shutil.disk_usage", lambda _: usage)


def test_another_pretraining_is_refused_unread(tmp_path: Path) -> None:
    run_pretraining(tmp_path)
    for settings, encoders, told in (
        (replace(SHORT, batch=5), small(FLAGS), "`batch` was 4, is 5"),
        (replace(SHORT, steps=5), small(FLAGS), "`steps`: expected at least 6"),
        (SHORT, small(FLAGS, seed=1), "the encoders: was"),
    ):
        with pytest.raises(InputError, match=told):
            pretrain(settings, encoders, UNREAD, tmp_path / "run", lambda *_: {})
    with pytest.raises(AssertionError, match="read"):
        pretrain(SHORT, small(FLAGS), UNREAD, tmp_path / "run", lambda *_: {})


@pytest.mark.usefixtures("full")
def test_a_pretraining_without_room_is_refused_unread(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"`output`.*MB free.*nothing has been written"):
        pretrain(SHORT, small(FLAGS), UNREAD, tmp_path / "run", lambda *_: {})
    assert not list(tmp_path.iterdir())


def test_another_gan_is_refused_before_the_set_is_read(tmp_path: Path) -> None:
    run_gan(tmp_path)
    encoders, folder = small_encoders(), tmp_path / "run"
    check_before_reading(QUICK, SSA_GAN, encoders, folder)
    for settings, family, told in (
        (replace(QUICK, batch=5), SSA_GAN, "`batch` was 4, is 5"),
        (replace(QUICK, steps=5), SSA_GAN, "`steps`: expected at least 6"),
        (QUICK, replace(SSA_GAN, width=3), "the networks: was"),
        (QUICK, ATTN_GAN, "the networks: was"),
    ):
        with pytest.raises(InputError, match=told):
            check_before_reading(settings, family, encoders, folder)
    with pytest.raises(InputError, match="the base model: was"):
        check_before_reading(QUICK, GALIP, encoders, folder, vision())
    check_before_reading(replace(QUICK, batch=5), SSA_GAN, encoders, tmp_path / "another")


@pytest.mark.usefixtures("full")
def test_a_gan_without_room_is_refused_and_nothing_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"`output`.*MB free.*nothing has been written"):
        check_before_reading(QUICK, SSA_GAN, small_encoders(), tmp_path / "run")
    with pytest.raises(InputError, match=r"`output`.*MB free.*nothing has been written"):
        run_gan(tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_room_is_that_of_the_states(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked for holds all states that lie there at once, and is not far beyond them."""
    asked = []
    monkeypatch.setattr(
        "nsync.supcon.gan.training.check_room",
        lambda folder, weights, copies: asked.append(4 * weights * copies),
    )
    settings = replace(QUICK, save_every=2, keep_last=2)
    run_gan(tmp_path, settings, export=Exports(tmp_path))
    states = sum(f.stat().st_size for f in (tmp_path / "run" / "state").glob("*.safetensors"))
    assert states * 1.5 < asked[0] * 1.6
    assert asked[0] < states * 2
