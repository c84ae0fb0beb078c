"""Anchors of the same label, negatives of other labels, and a run for every label."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from labelled_sets import NoPictures, grey_set, labelled, unpainted
from small_runs import QUICK, Exports, Stop, assert_equal, assert_same_end, run, stop_at, tensors
from tiny_denoiser import TinyDenoiser, tiny_set

from nsync.batches import check_set, draw_batches, encode_set
from nsync.errors import InputError
from nsync.sets.labels import by_label
from nsync.settings import BOTH, OTHER_LABELS, PAINTED_AND_OTHERS, TrainSettings
from nsync.style_set import StyleSet
from nsync.training import check_runs

SETTINGS = TrainSettings(batch=2)
OTHERS = replace(SETTINGS, negatives_from=OTHER_LABELS)
MIXED = replace(SETTINGS, negatives_from=PAINTED_AND_OTHERS)


def pairs(settings: TrainSettings, style_set: StyleSet, branch: str, steps: int) -> Counter:
    """How often each (positive, picture of the branch) was drawn; pictures by their mean's tenths.

    Latents of a grey are 2 * grey - 1 everywhere.
    """
    encoded = encode_set(settings, TinyDenoiser(), style_set)
    found = Counter()
    for step in range(steps):
        batches = draw_batches(encoded, settings, step)
        means = (round(float(one.mean() + 1) * 5) for one in batches[branch].latents)
        found.update(zip(batches["positive"].names, means, strict=True))
    return found


# --- anchors --------------------------------------------------------------------------------------

GREYS = {"a1": 0.1, "b2": 0.2, "a3": 0.3, "b4": 0.4, "a5": 0.5}


def test_an_anchor_is_another_positive_of_the_same_label() -> None:
    found = pairs(replace(OTHERS, rule="nsync"), _with_others(GREYS), "anchor", 60)
    kin = {"a": (1, 3, 5), "b": (2, 4)}
    assert set(found) == {
        (name, other) for name in GREYS for other in kin[name[0]] if other != int(name[1])
    }


def _with_others(levels: dict[str, float]) -> StyleSet:
    """All of them positives, and a white picture of another label."""
    return replace(grey_set(levels, {}), others=grey_set({"w": 1.0}, {}).items)


def test_one_label_or_none_changes_nothing(tmp_path: Path) -> None:
    plain, same = labelled(tmp_path, "    "), labelled(tmp_path, "aaaa")
    whole, marked = (encode_set(SETTINGS, TinyDenoiser(), one) for one in (plain, same))
    for step in range(10):
        one, other = (draw_batches(encoded, SETTINGS, step) for encoded in (whole, marked))
        for name, batch in one.items():
            assert (batch.names, batch.prompts) == (other[name].names, other[name].prompts)
            assert all(map(torch.equal, batch.latents, other[name].latents))


def test_the_digest_of_a_set_without_others_is_what_it_was(tmp_path: Path) -> None:
    """Of a set of which runs on disk may hold the digest."""
    assert grey_set(GREYS, {}).digest == DIGEST
    assert _with_others(GREYS).digest != DIGEST


DIGEST = "3e2462d9deba7c574680615d2e305fafe5e552db143e1ccfee5e03e894f7cdce"


# --- negatives ------------------------------------------------------------------------------------


def test_negatives_of_other_labels_need_none_painted() -> None:
    style_set = by_label(OTHERS, grey_set(GREYS, {}))["a"]
    check_set(OTHERS, TinyDenoiser(), style_set)
    found = pairs(OTHERS, style_set, "negative", 40)
    assert set(found) == {(name, other) for name in ("a1", "a3", "a5") for other in (2, 4)}


def test_a_negative_of_another_label_has_the_positives_words_and_size() -> None:
    sizes = {"a1": (48, 24), "a3": (24, 48), "b2": (24, 48)}
    style_set = by_label(OTHERS, grey_set(GREYS, sizes))["a"]
    encoded = encode_set(OTHERS, TinyDenoiser(), style_set)
    for step in range(6):
        batches = draw_batches(encoded, OTHERS, step)
        positive, negative = batches["positive"], batches["negative"]
        assert negative.names == positive.names
        assert negative.prompts == positive.prompts
        assert all(text.endswith("in the style of sks") for text in negative.prompts)
        shapes = [one.shape for one in positive.latents]
        assert [one.shape for one in negative.latents] == shapes
    assert len({one.shape for one in encoded.positives}) == 3


def test_both_kinds_of_negatives_come_equally_often(tmp_path: Path) -> None:
    """However many pictures there are of each."""
    style_set = by_label(MIXED, labelled(tmp_path, "aa" + "b" * 9))["a"]
    encoded = encode_set(MIXED, TinyDenoiser(), style_set)
    painted, seen = [one for each in encoded.negatives for one in each], Counter()
    for step in range(300):
        for one in draw_batches(encoded, MIXED, step)["negative"].latents:
            known = any(torch.equal(one, other) for other in painted)
            places = [i for i, other in enumerate(encoded.others[0]) if torch.equal(one, other)]
            assert known != bool(places)
            seen["painted" if known else places[0]] += 1
    assert seen["painted"] == pytest.approx(300, abs=4 * 150**0.5)  # of 600, deviation 12
    assert set(seen) == {"painted", *range(9)}


def test_painted_negatives_are_drawn_as_if_there_were_no_others(tmp_path: Path) -> None:
    own = by_label(SETTINGS, labelled(tmp_path, "aaabb"))["a"]
    alone = replace(tiny_set(tmp_path), items=own.items)
    assert own.digest == alone.digest
    beside = replace(own, others=own.items)
    sets = [encode_set(SETTINGS, TinyDenoiser(), one) for one in (own, beside)]
    for step in range(5):
        one, other = (draw_batches(encoded, SETTINGS, step)["negative"] for encoded in sets)
        assert one.names == other.names
        assert all(map(torch.equal, one.latents, other.latents))


def test_progress_counts_the_pictures_of_other_labels() -> None:
    """Each of the three sizes of the label's pictures takes the two others once."""
    sizes, seen = {"a1": (48, 24), "a3": (24, 48)}, []
    style_set = by_label(OTHERS, grey_set(GREYS, sizes))["a"]
    encode_set(OTHERS, TinyDenoiser(), style_set, lambda *now: seen.append(now))
    assert seen == [(done, 3 + 3 * 2) for done in range(1, 10)]


# --- a run for every label ------------------------------------------------------------------------


def test_every_label_gets_its_own_pictures(tmp_path: Path) -> None:
    whole = labelled(tmp_path, "abba")
    sets = by_label(MIXED, whole)
    assert list(sets) == ["a", "b"]
    first, *inner, last = whole.items
    assert (sets["a"].items, sets["a"].others) == ((first, last), tuple(inner))
    assert (sets["b"].items, sets["b"].others) == (tuple(inner), (first, last))
    assert all((one.token, one.base) == (whole.token, whole.base) for one in sets.values())


def test_a_run_depends_on_other_labels_only_if_it_asks_for_them(tmp_path: Path) -> None:
    small, large = labelled(tmp_path, "aabb"), labelled(tmp_path, "aabbb")
    assert by_label(SETTINGS, small)["a"].digest == by_label(SETTINGS, large)["a"].digest
    assert by_label(OTHERS, small)["a"].digest != by_label(OTHERS, large)["a"].digest
    unused = replace(OTHERS, rule="plain")
    assert by_label(unused, small)["a"].digest == by_label(unused, large)["a"].digest


@pytest.mark.parametrize("kind", [OTHER_LABELS, PAINTED_AND_OTHERS])
def test_a_labels_run_stopped_and_gone_on_is_never_stopped(tmp_path: Path, kind: str) -> None:
    settings = replace(QUICK, negatives_from=kind, trains=BOTH)
    style_set = by_label(settings, labelled(tmp_path / "set", "aabba"))["a"]
    whole, again = Exports(tmp_path), Exports(tmp_path)
    run(tmp_path / "whole", settings, style_set=style_set, export=whole)
    with pytest.raises(Stop):
        run(tmp_path / "stopped", settings, style_set=style_set, on_step=stop_at(3))
    run(tmp_path / "stopped", settings, style_set=style_set, export=again)
    assert_same_end(tmp_path / "stopped", tmp_path / "whole")
    assert_equal(tensors(again.last), tensors(whole.last))


def test_where_negatives_come_from_makes_another_run(tmp_path: Path) -> None:
    style_set = by_label(MIXED, labelled(tmp_path / "set", "aabb"))["a"]
    found = []
    for kind in ("painted", OTHER_LABELS, PAINTED_AND_OTHERS):
        export, settings = Exports(tmp_path), replace(QUICK, negatives_from=kind)
        run(tmp_path / kind, settings, style_set=style_set, export=export)
        found.append(export.last.lora)
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert any(not torch.equal(found[one][name], found[other][name]) for name in found[0])
    settings = replace(QUICK, negatives_from=PAINTED_AND_OTHERS, steps=9)
    with pytest.raises(InputError, match="`negatives_from` was 'other labels', is 'both'"):
        run(tmp_path / OTHER_LABELS, settings, style_set=style_set)


# --- what cannot be -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "labels", "text"),
    [
        (SETTINGS, "aabc", "`style_set`: expected at least two positives of the same label, since "
         "an anchor of rule 'nsync'.*got one of 'b', 'c'.*'projection'"),
        (SETTINGS, "aa ", "`style_set`.*got one of no label"),
        (replace(SETTINGS, validation=3), "aabba", "`style_set`.*got one of 'a', 'b'.*hold out"),
        (OTHERS, "aa", "`negatives_from`: expected a set with at least two labels.*got one label, "
         "'a'.*choose 'painted'"),
        (MIXED, "  ", "`negatives_from`.*got no labels"),
        (OTHERS, "aabb", "`negatives_from`.*all trained as one style \\(a, b\\).*Set `labels` to"),
        (replace(SETTINGS, negatives_from="nope"), "aa", "`negatives_from` one of painted, other "),
    ],
)  # fmt: skip
def test_bad_input_is_told_before_work(
    tmp_path: Path, settings: TrainSettings, labels: str, text: str
) -> None:
    style_set = labelled(tmp_path / "set", labels)
    with pytest.raises(InputError, match=f"(?s){text}"):
        run(tmp_path, settings, denoiser=NoPictures(), style_set=style_set)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("labels", ["aabc", "aabb", "aa"])
def test_what_is_wrong_for_one_rule_is_fine_for_another(tmp_path: Path, labels: str) -> None:
    style_set = unpainted(labelled(tmp_path, labels))
    settings = replace(OTHERS, rule="plain")
    check_set(settings, TinyDenoiser(), style_set)
    for own in by_label(settings, style_set).values():
        check_set(settings, TinyDenoiser(), own)


def test_both_kinds_need_painted_negatives_as_well(tmp_path: Path) -> None:
    style_set = by_label(MIXED, unpainted(labelled(tmp_path, "aabb")))["a"]
    with pytest.raises(InputError, match="a set with negatives"):
        check_set(MIXED, TinyDenoiser(), style_set)


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        (
            "a b ",
            "`labels`: expected a label on every picture.*got none on picture_1, picture_3\\.",
        ),
        ("a" + " " * 12, "picture_9, picture_10 and 2 more"),
        ("aabc", "`style_set`.*got one of 'b', 'c'"),
        ("", "`style_set`: expected at least one picture"),
    ],
)
def test_a_set_that_has_no_run_for_every_label(tmp_path: Path, labels: str, text: str) -> None:
    with pytest.raises(InputError, match=text):
        by_label(SETTINGS, labelled(tmp_path, labels))


def test_later_runs_are_judged_before_the_first_is_trained(tmp_path: Path) -> None:
    settings = replace(QUICK, trains=BOTH)
    sets = by_label(settings, labelled(tmp_path / "set", "aabb"))
    runs = {tmp_path / label / "run": style_set for label, style_set in sets.items()}
    check_runs(settings, TinyDenoiser(), runs)
    run(tmp_path / "b", settings, style_set=sets["b"])
    check_runs(settings, TinyDenoiser(), runs)
    with pytest.raises(InputError, match="`rank` was 2, is 1"):
        check_runs(replace(settings, rank=1), TinyDenoiser(), runs)
    long = replace(settings, vectors=7)  # the style token alone takes as many
    with pytest.raises(InputError, match="`captions`"):
        check_runs(long, TinyDenoiser(), runs)
