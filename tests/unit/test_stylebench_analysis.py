"""StyleBench's analysis: against plain loops, by simulation, and on studies of a known truth."""

import itertools
import json
import random
import statistics as standard
from dataclasses import replace

import numpy as np
import pytest
from stylebench_records import record, study

from benchmarks.studies.inference import (
    _weights,
    detectable,
    effect_size,
    mean_interval,
    p_value,
    student,
    style_means,
)
from benchmarks.stylebench.analysis import analyse
from benchmarks.stylebench.reading import read_records
from nsync.errors import InputError
from nsync.evaluation.result import Interval


def normal(styles, seeds, between, within, rng):
    of_styles = rng.normal(0, between, (styles, 1))
    values = of_styles + rng.normal(0, within, (styles, seeds))
    return {f"s{i}": row for i, row in enumerate(values.tolist())}


def resampled_by_loops(values, draws, seed):
    """Styles, then seeds within each drawn style: the definition, word by word."""
    draw, styles, means = random.Random(seed), list(values), []
    for _ in range(draws):
        total = 0.0
        for _ in styles:
            seeds = values[draw.choice(styles)]
            total += sum(draw.choice(seeds) for _ in seeds) / len(seeds)
        means.append(total / len(styles))
    return means


def test_resamples_are_those_of_plain_loops():
    """Their spread and middle; seeds are unequal, as where cells are missing."""
    rng = np.random.default_rng(0)
    values = {f"s{i}": rng.normal(i, 5, 2 + i % 4).tolist() for i in range(8)}
    ours = _weights(tuple(map(len, values.values()))) @ np.concatenate(list(values.values()))
    theirs = resampled_by_loops(values, 10_000, 1)
    points = np.linspace(0.025, 0.975, 9)
    width = np.ptp(np.quantile(theirs, points))
    assert np.quantile(ours, points) == pytest.approx(np.quantile(theirs, points), abs=width / 30)


@pytest.mark.parametrize(
    ("freedom", "half", "outer"), [(1, 1.3764, 12.7062), (2, 1.0607, 4.3027), (9, 0.8834, 2.2622),
                                   (14, 0.8681, 2.1448), (200, 0.8434, 1.9719)]
)  # fmt: skip
def test_students_points_are_the_tables(freedom, half, outer):
    assert student(0.8, freedom) == pytest.approx(half, abs=1e-4)
    assert student(0.975, freedom) == pytest.approx(outer, abs=1e-4)


def test_an_interval_is_as_wide_as_students_of_the_styles():
    for between, within in ((1, 0), (1, 1), (0.1, 1)):
        values = normal(10, 5, between, within, np.random.default_rng(2))
        found, means = mean_interval(values), [np.mean(row) for row in values.values()]
        width = 2 * 2.2622 * standard.stdev(means) / 10**0.5
        assert found.value == pytest.approx(standard.fmean(means))
        assert found.high - found.low == pytest.approx(width, rel=0.1)


def test_the_mean_is_of_styles_not_of_cells():
    values = {"a": [1.0] * 9, "b": [0.0], "c": [0.0], "d": [0.0], "e": [0.0]}
    assert mean_interval(values).value == pytest.approx(0.2)


def test_few_styles_have_no_interval_and_equal_values_one_of_no_width():
    few = mean_interval({name: [0.0, 1.0, 2.0] for name in "abcd"})
    assert (few.value, few.low, few.high) == (1.0, None, None)
    flat = mean_interval({name: [0.3, 0.3] for name in "abcdef"})
    assert (flat.low, flat.high) == (pytest.approx(0.3), pytest.approx(0.3))


@pytest.mark.parametrize(("between", "within"), [(1, 0), (1, 1), (0.2, 1)])
def test_intervals_of_ten_styles_and_five_seeds_cover(between, within):
    """In 90 to 97 % of studies; plain percentiles do in 89.8, 93.4 and 98.0 %."""
    rng = np.random.default_rng(7)
    found = [mean_interval(normal(10, 5, between, within, rng)) for _ in range(600)]
    assert 0.90 <= np.mean([one.low <= 0 <= one.high for one in found]) <= 0.97


def test_intervals_of_lopsided_styles_cover():
    """A rule that does much for few styles; Student's own covers 92 % of these."""
    rng, hits = np.random.default_rng(8), 0
    for _ in range(600):
        styles = rng.exponential(size=(10, 1)) + rng.normal(0, 0.3, (10, 5))
        found = mean_interval({str(i): row for i, row in enumerate(styles)})
        hits += found.low <= 1 <= found.high
    assert 0.89 <= hits / 600 <= 0.97


def all_flips(values):
    observed = abs(sum(values))
    flips = itertools.product((1, -1), repeat=len(values))
    sums = [abs(sum(s * v for s, v in zip(signs, values, strict=True))) for signs in flips]
    return sum(total >= observed - 1e-12 for total in sums) / len(sums)


@pytest.mark.parametrize("count", [1, 2, 6, 10, 14])
def test_p_values_are_those_of_all_sign_flips(count):
    values = np.random.default_rng(count).normal(0.5, 1, count)
    assert p_value(values) == pytest.approx(all_flips(values.tolist()), abs=1e-12)


def test_many_styles_are_flipped_at_random():
    values = np.random.default_rng(3).normal(0.4, 1, 15)
    assert p_value(values) == pytest.approx(all_flips(values.tolist()), abs=0.01)
    assert p_value(np.ones(20)) == 1 / 10_000


def test_effect_size_is_cohens_for_pairs():
    values = [0.1, 0.4, -0.2, 0.3]
    expected = standard.fmean(values) / standard.stdev(values)
    assert effect_size(np.array(values)) == pytest.approx(expected)
    assert effect_size(np.array([0.1, 0.2])) is None
    assert effect_size(np.full(5, 0.1)) is None


@pytest.mark.parametrize("arms", [1, 6])
def test_a_detectable_difference_is_found_in_four_of_five_studies(arms):
    rng = np.random.default_rng(11)
    least = np.mean([detectable(rng.normal(0, 1, 10), arms) for _ in range(400)]) / 0.9727  # c4
    found = [p_value(rng.normal(least, 1, 10)) * arms < 0.05 for _ in range(600)]
    assert 0.72 <= np.mean(found) <= 0.88


def test_nothing_is_detectable_where_no_p_value_is_small_enough():
    assert detectable(np.arange(5.0), 1) is None  # 2 / 2^5 = 0.0625
    assert detectable(np.arange(6.0), 1) > 0
    assert detectable(np.arange(8.0), 6) > 0
    assert detectable(np.arange(8.0), 7) is None  # 7 x 2 / 2^8 = 0.055
    assert detectable(np.array([1.0]), 1) is None


LIFTS = {"plain": 0.0, "plain wide": 0.02, "good": 0.12, "same": 0.02, "bad": -0.1}


@pytest.mark.parametrize(
    ("metric", "low", "high", "p_holm", "word"),
    [
        ("style_hit", 0.01, 0.05, 0.049, "better"),
        ("style_hit", -0.05, -0.01, 0.049, "worse"),
        ("drift", 0.01, 0.05, 0.049, "worse"),
        ("drift", -0.05, -0.01, 0.049, "better"),
        ("style_hit", 0.01, 0.05, 0.05, "no difference shown"),
        ("style_hit", -0.01, 0.07, 0.01, "no difference shown"),
        ("style_hit", None, None, 0.01, "no difference shown"),
    ],
)
def test_a_difference_is_shown_by_corrected_p_and_interval_together(
    clear, metric, low, high, p_holm, word
):
    value = 0.03 if low is None else (low + high) / 2
    interval = Interval(value, low, high)
    found = replace(
        clear.comparisons[0], metric=metric, difference=interval, p=0.001, p_holm=p_holm
    )
    assert found.shown == word


@pytest.fixture(scope="module")
def clear():
    return analyse(study(LIFTS, steps=(50, 100)))


def test_differences_are_those_of_plain_loops():
    records = study(LIFTS, noise=0.2)
    del records[60:200:7]
    found = analyse(records)
    for against in ("plain", "plain wide"):
        by_style = {}
        for one in records:
            for other in records:
                same = all(one[k] == other[k] for k in ("style", "seed"))
                if same and (one["arm"], other["arm"]) == ("good", against):
                    change = one["metrics"]["style_hit"] - other["metrics"]["style_hit"]
                    by_style.setdefault(one["style"], []).append(change)
        pairs = sum(map(len, by_style.values()))
        one = found.comparison("LoRA", "good", against, "style_hit")
        means = {style: standard.fmean(changes) for style, changes in by_style.items()}
        assert one.by_style == pytest.approx(means)
        assert one.difference.value == pytest.approx(standard.fmean(means.values()))
        assert (one.pairs, one.missing) == (pairs, 50 - pairs)
    assert one.missing > 0
    assert any("Pairs left out" in note and f"{one.missing} of 50" in note for note in found.notes)


def test_p_values_are_corrected_over_the_arms_of_a_family(clear):
    """Holm by hand: the smallest times 3, the next times 2, the last as it is, never falling."""
    for metric, against in itertools.product(("style_hit", "content"), ("plain", "plain wide")):
        family = [c for c in clear.comparisons if (c.metric, c.against) == (metric, against)]
        family.sort(key=lambda c: c.p)
        first = min(1, 3 * family[0].p)
        second = max(first, min(1, 2 * family[1].p))
        expected = [first, second, max(second, family[2].p)]
        assert [c.p_holm for c in family] == pytest.approx(expected)


def test_balanced_is_of_each_record():
    records = [record(f"s{i}", arm, 0, style_hit=h, content=c) for i in range(2)
               for arm, h, c in (("plain", 0.25, 1.0), ("new", 0.64, 0.25))]  # fmt: skip
    found = analyse(records)
    assert found.mean("LoRA", "plain", "balanced").value.value == pytest.approx(0.5)
    assert found.comparison("LoRA", "new", "plain", "balanced").difference.value == (
        pytest.approx(-0.1)
    )


def test_the_winner_is_found(clear):
    rulings = {one.arm: one for one in clear.rulings}
    assert [arm for arm, one in rulings.items() if one.wins] == ["good"]
    assert rulings["good"].equal_pictures == "plain wide"
    assert rulings["good"].equal_steps == "plain"
    assert rulings["good"].content == {k: "no difference shown" for k in rulings["good"].style}
    assert set(rulings["bad"].style.values()) == {"worse"}
    (told,) = clear.answers
    assert told.headline == "good beats plain on style at no worse drift."
    assert "Worse than plain on style: bad." in told.details
    numbers = clear.comparison("LoRA", "good", "plain wide", "style_hit")
    assert f"{numbers.difference.value:+.3f} [{numbers.difference.low:.3f}, " in told.details[0]
    assert clear.arms == ("plain", "plain wide", "good", "same", "bad")


def test_only_more_style_than_both_plain_arms_wins():
    found = analyse(study({"plain": 0, "plain wide": 0.12, "new": 0.12}))
    (ruling,) = found.rulings
    assert ruling.style == {"equal steps": "better", "equal pictures": "no difference shown"}
    assert found.answers[0].headline == "No arm beats plain."
    least = found.comparison("LoRA", "new", "plain wide", "style_hit").detectable
    assert any(f"{least:.3f}" in line for line in found.answers[0].details)
    assert any("better at equal steps" in line for line in found.answers[0].details)


@pytest.mark.parametrize(
    ("more", "spread", "word"),
    [
        (-0.02, 0.001, "no worse"),
        (0.007, 0.001, "no worse"),  # but more, by less than a tenth
        (0.0098, 0.001, "worse"),
        (0.02, 0.001, "worse"),
        (0.0, 0.02, "not settled"),
    ],
)
def test_worse_drift_does_not_win(more, spread, word):
    records = study({"plain": 0, "plain wide": 0, "new": 0.1}, noise=0.01, new=more)
    for one in records:
        if one["arm"] == "new":
            one["metrics"]["drift"] += spread * (-1) ** int(one["style"][1:])
    (ruling,) = analyse(records).rulings
    assert (ruling.drift, ruling.wins) == (word, word == "no worse")


def test_an_arm_that_saw_more_pictures_than_any_plain_one_does_not_win():
    records = study({"plain": 0, "new": 0.2})
    found = analyse(records)
    (ruling,) = found.rulings
    assert set(ruling.style.values()) == {"better"}
    assert (ruling.pictures_ratio, ruling.wins) == (2.0, False)
    assert any("it cannot win" in note for note in found.notes)
    assert "2.00 times as many pictures" in found.answers[0].details[-1]
    for one in records:
        one["pictures_seen"] = 400
    assert analyse(records).rulings[0].wins


def test_cells_that_fell_apart_saw_no_fewer_pictures():
    records = study({"plain": 0, "plain wide": 0, "new": -0.2})
    for one in records:
        if one["arm"] == "new" and one["seed"] > 0:
            one |= {"pictures_seen": 80, "fell_apart": 10}
    found = analyse(records)
    assert found.rulings[0].equal_pictures == "plain wide"
    assert any("LoRA, new: 40" in note for note in found.notes)


def test_where_nothing_differs_one_study_in_twenty_cries_out():
    """The correction is for a family of four arms; each study has one."""
    arms = dict.fromkeys(("plain", "a", "b", "c", "d"), 0.0)
    alarms, studies = 0, 250
    for number in range(studies):
        rows = study(arms, seeds=2, noise=0.05, between=0.05, rng=number)
        for one in rows:
            one["metrics"] = {"style_hit": one["metrics"]["style_hit"]}
        alarms += any(one.p_holm < 0.05 for one in analyse(rows).comparisons)
    assert 0.01 <= alarms / studies <= 0.08


def test_one_style_has_differences_and_no_more():
    found = analyse(study(LIFTS, styles=1))
    for one in found.comparisons:
        assert (one.difference.low, one.difference.high, one.effect) == (None, None, None)
        assert (one.p, one.detectable, one.shown) == (1.0, None, "no difference shown")
    assert found.answers[0].headline == "No arm beats plain."
    assert any("no intervals" in note for note in found.notes)
    assert any("no difference could reach" in note for note in found.notes)


def test_the_order_of_records_does_not_matter(clear):
    records = study(LIFTS, steps=(50, 100))
    random.Random(0).shuffle(records)
    assert analyse(records).as_dict() == clear.as_dict()


@pytest.mark.parametrize(
    ("hits", "step"),
    [
        ((0.1, 0.5, 0.97), 100),
        ((0.35, 0.6, 0.75), 150),
        ((0.85, 0.95, 1.0), 50),
        ((0.0, 0.05, 0.1), 150),
        ((0.1, 0.2, 0.95), 100),
    ],
)
def test_it_is_decided_where_plain_leaves_room(hits, step):
    """By plain alone: what the arm does there has no say."""
    records = [
        record(f"s{style}", arm, 0, at, style_hit=hit + lift, drift=0.1)
        for arm, lift in (("plain", 0.0), ("new", -0.08))
        for style in range(6)
        for at, hit in zip((50, 100, 150), hits, strict=True)
    ]
    found = analyse(records)
    assert found.step == step
    assert {one.step for one in found.comparisons} == {step}


def test_curves_begin_at_the_base_and_one_step_decides(clear):
    steps = {m.step for m in clear.means if m.arm == "good"}
    assert (steps, clear.step) == ({50, 100}, 100)
    assert clear.mean("LoRA", "base", "content").value.value == 1.0
    assert {c.step for c in clear.comparisons} == {100}
    early = [c for c in clear.along if (c.arm, c.metric, c.step) == ("good", "style_hit", 50)]
    late = clear.comparison("LoRA", "good", "plain", "style_hit").difference.value
    assert early[0].difference.value == pytest.approx(late / 2, abs=0.02)


def test_adapters_are_apart_and_share_the_base():
    lora = study({"plain": 0, "new": 0.2})
    other = [one | {"adapter": "embedding"} for one in study({"plain": 0, "new": -0.2}, rng=1)]
    found = analyse(lora + [one for one in other if one["arm"] != "base"])
    for adapter, sign in (("LoRA", 1), ("embedding", -1)):
        assert found.comparison(adapter, "new", "plain", "style_hit").difference.value * sign > 0.1
        assert found.mean(adapter, "base", "content").cells == 50
    assert found.budget.cells == 200
    assert found.budget.seconds == pytest.approx(2000)
    assert found.budget.passes == 100 * 400 + 100 * 800


def test_metrics_that_an_arm_lacks_are_left_out():
    records = study({"plain": 0, "plain wide": 0, "new": 0})
    for one in records:
        one["metrics"]["removed"] = 0.1 if one["arm"] == "new" else None
        if one["arm"] == "new":
            one["metrics"]["content"] = None
    found = analyse(records)
    assert found.mean("LoRA", "new", "removed").value.value == pytest.approx(0.1)
    assert found.mean("LoRA", "plain", "removed") is None
    assert not [c for c in found.comparisons if c.metric in ("removed", "content", "balanced")]
    assert set(found.rulings[0].content.values()) == {"not measured"}


def test_plain_without_room_is_told():
    told = [any("little room" in n for n in analyse(study({"plain": lift, "new": lift})).notes)
            for lift in (-0.3, 0.0, 0.4)]  # fmt: skip
    assert told == [True, False, True]


def test_baselines_are_given_or_found_by_name():
    records = study({"old": 0, "plain": 0.1, "new": 0})
    assert analyse(records).baselines == ("plain",)
    assert {c.against for c in analyse(records, ["old"]).comparisons} == {"old"}
    with pytest.raises(InputError, match=r"`baselines`: expected some of the arms .*; got older"):
        analyse(records, ["older"])
    with pytest.raises(InputError, match="`baselines`"):
        analyse(study({"new": 0}))
    with pytest.raises(InputError, match="trained arms"):
        analyse([one for one in records if one["arm"] == "base"])


GOOD = [record("neon", arm, 0, style_hit=0.5) for arm in ("plain", "new")]


def written(tmp_path, lines):
    path = tmp_path / "records.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_records_are_read_as_they_were_written(tmp_path):
    lines = [json.dumps(one) for one in GOOD]
    assert read_records(written(tmp_path, [lines[0], "", lines[1], ""])) == GOOD


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (json.dumps(GOOD[1])[:50], "whole JSON object"),
        ("[1]", "JSON object"),
        (json.dumps({k: v for k, v in GOOD[1].items() if k != "seed"}), "`seed`: a whole number"),
        (json.dumps(GOOD[1] | {"step": -1}), "`step`: a whole number"),
        (json.dumps(GOOD[1] | {"seed": True}), "`seed`: a whole number"),
        (json.dumps(GOOD[1] | {"arm": ""}), "`arm`: a text"),
        (json.dumps(GOOD[1] | {"seconds": "9"}), "`seconds`: a finite number"),
        (json.dumps(GOOD[1] | {"metrics": {"drift": float("nan")}}), "`metrics`: an object of"),
        (json.dumps(GOOD[1] | {"study": "another"}), "records of the study 'invented'"),
        (json.dumps(GOOD[1] | {"metrics": {"style_hit": 1.5}}), "`metrics`: an object of"),
        (json.dumps(GOOD[0]), "once at each step; got neon, LoRA, plain, 0, 100 as in line 1"),
    ],
)
def test_a_damaged_line_is_named(tmp_path, line, problem):
    path = written(tmp_path, [json.dumps(GOOD[0]), "", line])
    with pytest.raises(InputError) as caught:
        read_records(path)
    assert str(caught.value).startswith("`records.jsonl, line 3`: expected ")
    assert problem in str(caught.value)


def test_no_records_are_told(tmp_path):
    with pytest.raises(InputError, match="Run the study"):
        read_records(tmp_path / "records.jsonl")
    with pytest.raises(InputError, match="at least one record"):
        read_records(written(tmp_path, ["", ""]))
    (tmp_path / "records.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="UTF-8"):
        read_records(tmp_path / "records.jsonl")


def test_style_means_are_in_the_order_given():
    assert style_means({"b": [1.0, 2.0], "a": [4.0]}).tolist() == [1.5, 4.0]
