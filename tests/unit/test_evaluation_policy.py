"""The policy for few pictures, row by row."""

import pytest

from nsync.errors import InputError
from nsync.evaluation import advice
from nsync.evaluation.policy import LEVELS, METRICS

EXPECTED = {
    # pictures: style, CMMD, KID, FID, IS
    1: ("per picture", "no", "no", "no", "no"),
    4: ("per picture", "no", "no", "no", "no"),
    5: ("wide", "test only", "warn", "no", "no"),
    19: ("wide", "test only", "warn", "no", "no"),
    20: ("ok", "ok", "warn", "test only", "no"),
    99: ("ok", "ok", "warn", "test only", "no"),
    100: ("ok", "ok", "ok", "warn", "warn"),
    999: ("ok", "ok", "ok", "warn", "warn"),
    1000: ("ok", "ok", "ok", "warn", "ok"),
    2047: ("ok", "ok", "ok", "warn", "ok"),
    2048: ("ok", "ok", "ok", "ok", "ok"),
    50_000: ("ok", "ok", "ok", "ok", "ok"),
}


@pytest.mark.parametrize(("pictures", "levels"), EXPECTED.items())
def test_levels(pictures, levels):
    found = {metric: advice(metric, pictures) for metric in METRICS}
    assert tuple(found[metric].level for metric in ("style", "cmmd", "kid", "fid", "is")) == levels
    for metric, each in found.items():
        assert each.level in LEVELS
        assert each.sentence or each.level == "ok"
        assert metric != "is" or "not a style metric" in each.sentence


def test_sentences_name_what_changes_within_a_level():
    assert "full rank" in advice("fid", 1000).sentence != advice("fid", 999).sentence
    assert "10,000" in advice("fid", 2048).sentence
    assert advice("fid", 10_000).sentence == ""
    assert "one split" in advice("is", 4999).sentence
    assert "split" not in advice("is", 5000).sentence


def test_bad_input_is_told():
    with pytest.raises(InputError, match="`metric`: expected one of style, cmmd, kid, fid, is"):
        advice("FID", 10)
    with pytest.raises(InputError, match="`pictures`: expected at least 1; got 0"):
        advice("fid", 0)
