"""From pictures to a verdict, held to the formulas worked out one by one."""

import itertools
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from plain_encoders import PlainEncoder, pictures
from plain_evaluation import CAPTIONS, COLD, WARM, arm, every_encoder, request

from nsync.errors import InputError
from nsync.evaluation import cmmd, kernel_distance
from nsync.evaluation.arms import Arm
from nsync.evaluation.chart import ranked
from nsync.evaluation.evaluate import evaluate
from nsync.evaluation.report import write_report
from nsync.evaluation.roles import Roles
from nsync.evaluation.statistics import halves
from nsync.evaluation.table import table


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(a.double() @ b.double() / (a.double().norm() * b.double().norm()))


def test_every_number_is_the_formulas(tmp_path: Path) -> None:
    asked, encoders = request(), every_encoder()
    found = evaluate(asked, encoders, tmp_path)
    by_name = {encoder.name: encoder for encoder in encoders}
    vectors = {
        name: {
            "references": encoder.encode(list(asked.references)),
            **{one.name: encoder.encode(list(one.pictures)) for one in asked.arms},
        }
        for name, encoder in by_name.items()
    }
    csd = vectors["csd"]
    together = [cosine(a, b) for a, b in itertools.combinations(csd["references"], 2)]
    assert found.ceiling.value == pytest.approx(np.mean(together), abs=1e-6)
    base = [cosine(a, b) for a in csd["base"] for b in csd["references"]]
    assert found.floor == pytest.approx(np.mean(base), abs=1e-6)
    assert [one.name for one in found.arms] == ["nsync", "base", "plain"]
    for one in asked.arms:
        scores = found.arm(one.name)
        texts = by_name["clip-l-14"].encode_texts(list(one.captions))
        for place, picture in enumerate(scores.pictures):
            near = [cosine(csd[one.name][place], r) for r in csd["references"]]
            assert picture.style == pytest.approx(np.mean(near), abs=1e-6)
            read = cosine(vectors["clip-l-14"][one.name][place], texts[place])
            assert picture.adherence == pytest.approx(read, abs=1e-6)
            copied = [
                cosine(vectors["sscd"][one.name][place], r) for r in vectors["sscd"]["references"]
            ]
            assert picture.similarity == pytest.approx(max(copied), abs=1e-6)
            assert picture.nearest == int(np.argmax(copied))
        sets = scores.sets
        l336, pool = vectors["clip-l-14-336"], vectors["inception"]
        assert sets.cmmd == pytest.approx(cmmd(l336["references"], l336[one.name]), rel=1e-5)
        assert sets.kid == pytest.approx(
            kernel_distance(pool["references"], pool[one.name]), rel=1e-5
        )
        assert sets.fid is None  # of 8 references
    plain, before = found.arm("plain"), vectors["dinov2"]["base"]
    content = [cosine(a, b) for a, b in zip(vectors["dinov2"]["plain"], before, strict=True)]
    assert [one.content for one in plain.pictures] == pytest.approx(content, abs=1e-6)
    moved = [
        1 - cosine(*pair)
        for pair in zip(
            by_name["dinov2"].encode(list(asked.arms[0].plain)),
            by_name["dinov2"].encode(list(asked.arms[1].plain)),
            strict=True,
        )
    ]
    assert plain.sets.drift == pytest.approx(np.mean(moved), abs=1e-6)
    assert found.arm("base").sets.drift is None
    assert ranked(plain) == sorted(range(12), key=lambda i: -plain.pictures[i].style)


def test_the_verdict_says_what_differs(tmp_path: Path) -> None:
    found = evaluate(request(), every_encoder(), tmp_path)
    assert "nsync is nearer to the style than base: +" in found.verdict
    assert "nsync is nearer to the style than plain: +" in found.verdict
    styles = [one for one in found.comparisons if one.score == "style"]
    assert [(one.against, one.is_real, one.is_better) for one in styles] == [
        ("base", True, True),
        ("plain", True, True),
    ]
    for one in styles:
        mine, theirs = (
            [p.style for p in found.arm(name).pictures] for name in ("nsync", one.against)
        )
        assert one.difference.value == pytest.approx(np.mean(mine) - np.mean(theirs), abs=1e-9)
        assert one.difference.low < one.difference.value < one.difference.high
    first, second = sorted(one.p for one in styles)
    assert sorted(one.p_holm for one in styles) == [2 * first, max(2 * first, second)]
    better = {one.score: one.better for one in found.comparisons}
    assert better == {"style": "higher", "adherence": "higher", "CMMD": "lower", "KID": "lower"}
    assert {one.score for one in found.comparisons} == {"style", "adherence", "CMMD", "KID"}


def test_the_best_is_chosen_on_one_half_and_told_by_the_other(tmp_path: Path) -> None:
    chosen, rest = halves(CAPTIONS, seed=0)
    warm, mild = pictures(12, WARM, 60), pictures(12, (0.6, 0.5, 0.5), 61)
    lucky = tuple(warm[i] if i in chosen else mild[i] for i in range(12))
    steady = tuple(warm[i] if i in rest else mild[i] for i in range(12))
    base, plain, nsync = request().arms
    arms = (base, replace(plain, pictures=lucky), replace(nsync, pictures=steady))
    found = evaluate(request(arms=arms), [PlainEncoder("csd")], tmp_path)
    told = next(note for note in found.notes if note.startswith("Chosen on one half"))
    half = np.mean([found.arm("plain").pictures[i].style for i in rest])
    assert f"plain is nearest to the style; on the other half it has {half:.3f}, +" in told


def test_two_arms_that_are_alike_are_told_so(tmp_path: Path) -> None:
    alike = (arm("base", COLD, 1), arm("plain", WARM, 7), arm("nsync", WARM, 8))
    found = evaluate(request(arms=alike), every_encoder(), tmp_path)
    assert "No difference in style between nsync and plain is shown" in found.verdict


def test_an_encoder_that_cannot_tell_is_named_first(tmp_path: Path) -> None:
    blind = request(distractors=pictures(12, WARM, 50), references=pictures(8, WARM, 51))
    found = evaluate(blind, [PlainEncoder("csd")], tmp_path)
    assert not found.validity[0].valid
    assert found.verdict.startswith("Beware: csd does not tell this style")
    sharp = evaluate(request(distractors=pictures(12, COLD, 50)), every_encoder(), tmp_path)
    assert [(one.encoder, one.readout) for one in sharp.validity] == [
        ("csd", "cosine"),
        ("clip-l-14", "cosine"),
        ("csd", "csls"),
        ("clip-l-14", "csls"),
    ]
    assert sharp.validity[0].gap != sharp.validity[2].gap
    assert all(one.valid for one in sharp.validity)
    assert "Beware" not in sharp.verdict


def test_a_copy_is_found(tmp_path: Path) -> None:
    asked = request()
    stolen = (*asked.arms[2].pictures[:5], asked.references[3], *asked.arms[2].pictures[6:])
    arms = (*asked.arms[:2], replace(asked.arms[2], pictures=stolen))
    found = evaluate(replace(asked, arms=arms), every_encoder(), tmp_path)
    assert 5 in found.arm("nsync").copies
    assert found.arm("nsync").pictures[5].nearest == 3
    assert "suspiciously near to a reference" in found.verdict
    without = evaluate(replace(asked, arms=arms), [PlainEncoder("csd")], tmp_path)
    assert without.arm("nsync").copies is None
    assert "cop" not in without.verdict
    assert any("Copies were not looked for" in note for note in without.notes)


def test_few_pictures_get_values_and_no_claims(tmp_path: Path) -> None:
    asked = request()
    few = tuple(
        replace(one, pictures=one.pictures[:3], prompts=(), captions=(), plain=())
        for one in asked.arms
    )
    found = evaluate(replace(asked, arms=few), every_encoder(), tmp_path)
    assert found.comparisons == ()
    assert all(one.style.low is None and one.sets.cmmd is None for one in found.arms)
    assert any("Fewer than 5 pictures" in note for note in found.notes)
    assert found.verdict.startswith("nsync has a style similarity of")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"references": pictures(1, WARM, 0)}, "at least two pictures of the style; got 1"),
        ({"references": pictures(1, WARM, 0) * 4}, "4 times the same picture"),
        ({"arms": (arm("a", WARM, 1), arm("a", COLD, 2))}, "a name of its own for each arm"),
        ({"candidate": "gone"}, "one of the arms, base, plain, nsync"),
        ({"arms": (arm("nsync", WARM, 1), Arm("base", ()))}, "at least one picture"),
        (
            {"arms": (arm("nsync", WARM, 1), Arm("base", pictures(3, COLD, 1)))},
            "as many pictures as 'nsync' has, 12",
        ),
        (
            {
                "arms": (
                    arm("nsync", WARM, 1),
                    replace(arm("base", COLD, 1), captions=CAPTIONS[::-1]),
                )
            },
            "the prompt that 'nsync' has in place 0",
        ),
        (
            {"arms": (arm("nsync", WARM, 1), replace(arm("base", COLD, 1), captions=("x",)))},
            "12 captions, one for each picture",
        ),
    ],
)
def test_what_cannot_be_judged_is_one_error(changes: dict, text: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=text.replace("(", r"\(")):
        evaluate(request(**changes), every_encoder(), tmp_path)


def test_encoders_get_their_parts() -> None:
    roles = Roles.of(every_encoder())
    parts = {part: encoder["name"] for part, encoder in roles.told().items()}
    assert parts == {
        "style": "csd",
        "control": "clip-l-14",
        "adherence": "clip-l-14",
        "content": "dinov2",
        "copies": "sscd",
        "distance": "clip-l-14-336",
        "inception": "inception",
        "classes": "inception",
    }
    assert Roles.of([PlainEncoder("clip-l-14")]).adherence is None  # it reads no texts
    with pytest.raises(InputError, match="at least one of csd"):
        Roles.of([PlainEncoder("sscd")])
    with pytest.raises(InputError, match="each encoder once"):
        Roles.of([PlainEncoder("csd"), PlainEncoder("csd")])


def test_pictures_are_encoded_once(tmp_path: Path) -> None:
    encoder = PlainEncoder("csd")
    evaluate(request(), [encoder], tmp_path)
    first = encoder.seen
    assert first == 8 + 3 * 12 + 3 * 12  # references, arms, bare captions
    more = (*request().arms, arm("third", WARM, 4))
    evaluate(request(arms=more), [encoder], tmp_path)
    assert encoder.seen == first + 2 * 12


def test_the_table_leaves_out_what_is_not_known(tmp_path: Path) -> None:
    captions, rows = table(evaluate(request(), [PlainEncoder("csd")], tmp_path))
    assert [caption.replace("\n", " ") for caption in captions] == [
        "arm", "pictures", "style", "of the way to the references", "style (NSYNC's form)",
        "CMMD", "drift",
    ]  # fmt: skip
    assert [row[:2] for row in rows] == [["nsync", "12"], ["base", "12"], ["plain", "12"]]
    assert all(len(row) == len(captions) for row in rows)


def test_the_report_is_whole_and_needs_no_network(tmp_path: Path) -> None:
    asked = request()
    odd = replace(asked.arms[1], name="<b>plain & simple</b>")
    asked = replace(asked, arms=(asked.arms[0], odd, asked.arms[2]))
    found = evaluate(asked, every_encoder(), tmp_path / "store")
    report = write_report(
        tmp_path / "report", found, asked.references, {a.name: a.pictures for a in asked.arms}
    )
    assert sorted(path.name for path in report.folder.iterdir()) == [
        "chart.png", "evaluation.json", "pictures.csv", "report.html", "sheet.png",
    ]  # fmt: skip
    told = json.loads((report.folder / "evaluation.json").read_text())
    assert told == json.loads(json.dumps(found.as_dict()))
    page = (report.folder / "report.html").read_text()
    assert "<b>plain" not in page
    assert "&lt;b&gt;plain &amp; simple&lt;/b&gt;" in page
    assert "http" not in page
    assert page.count("data:image/png;base64,") == 2 + 2 * 3 * 6
    nearest = sorted(found.arms[0].pictures, key=lambda one: -one.similarity)[0]
    first = re.search(r"<br>#(\d+), ([\d.]+)(, near copy)?</div>", page)
    copy = ", near copy" if nearest.index in found.arms[0].copies else None
    assert first.groups() == (str(nearest.index), f"{nearest.similarity:.3f}", copy)
    assert page.count(", near copy</div>") == page.count('class="pair copy"') > 0
    lines = (report.folder / "pictures.csv").read_text().splitlines()
    assert len(lines) == 1 + 3 * 12
    assert lines[1].startswith("nsync,0,a thing number 0,")


def test_an_arm_without_captions_is_compared_by_all_but_adherence(tmp_path: Path) -> None:
    asked = request()
    bare = [replace(one, captions=(), prompts=()) if one.name == "plain" else one
            for one in asked.arms]  # fmt: skip
    found = evaluate(replace(asked, arms=tuple(bare)), every_encoder(), tmp_path)
    others = {score: [] for score in ("style", "adherence")}
    for one in found.comparisons:
        others.get(one.score, []).append(one.against)
    assert others == {"style": ["base", "plain"], "adherence": ["base"]}
