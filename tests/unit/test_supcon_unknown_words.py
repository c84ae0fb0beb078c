"""Words that encoders were never taught are named where they are asked for."""

import logging
from pathlib import Path

import pytest
from gan_runs import SSA_GAN, painter, run_gan, small_encoders, small_pairs
from pretraining_runs import run_pretraining
from supcon_sets import clip, flags, small

from nsync.supcon.encoders import unknown_words
from nsync.supcon.gan.sampler import generate

TOLD = "Words that the encoders do not know: cat, purple. "


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if "do not know" in r.getMessage()]


def test_unknown_words_are_named_once_and_in_order() -> None:
    asked = ["a Purple, dot", "a purple line", "two lines of a CAT"]
    assert unknown_words(small_encoders(), asked).startswith(TOLD)
    assert unknown_words(small_encoders(), ["A red dot!", ""]) == ""
    many = [f"word{place:02}" for place in range(14)]
    assert "word09 and 4 more." in unknown_words(small_encoders(), many)
    assert "word10" not in unknown_words(small_encoders(), many)


def test_clip_spells_what_it_does_not_know() -> None:
    assert unknown_words(clip(), ["a zzyzx"]) == ""


def test_the_sampler_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="nsync"):
        generate(painter(SSA_GAN), small_encoders(), ["a red dot", "two lines"], [1, 2])
        assert warnings(caplog) == []
        generate(painter(SSA_GAN), small_encoders(), ["a purple cat", "a purple cat"], [1, 2])
    assert len(warnings(caplog)) == 1
    assert warnings(caplog)[0].startswith(TOLD)


def test_a_set_with_other_words_than_the_encoders_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = small(flags(20))
    with caplog.at_level(logging.WARNING, logger="nsync"):
        run_gan(tmp_path)
        run_pretraining(tmp_path / "own")
        assert warnings(caplog) == []
        run_gan(tmp_path / "other", encoders=other.eval().requires_grad_(False))
    assert len(warnings(caplog)) == 1
    assert "a, dot, dots, line, lines, of, one, two" in warnings(caplog)[0]
    assert small_pairs().captions[0] == "a red dot"
