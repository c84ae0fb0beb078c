"""With which published numbers an evaluation compares, and what is said of it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from plain_encoders import PlainEncoder, pictures
from plain_evaluation import WARM, every_encoder, request

from nsync.evaluation import cmmd, frechet_distance, inception_score, kernel_distance
from nsync.evaluation.chart import chart
from nsync.evaluation.evaluate import evaluate
from nsync.evaluation.paper import bootstrapped_frechet, subset_kernel
from nsync.evaluation.request import Request
from nsync.evaluation.result import PAPER, STANDARD, Evaluation
from nsync.evaluation.table import table

ENCODERS = [*every_encoder(), PlainEncoder("inception-imagenet", 17)]


def asked(parity: str, times: int = 2) -> Request:
    """24 references and as many or more pictures, enough for FID."""
    made = request(parity=parity, references=pictures(24, WARM, 0))
    arms = (
        replace(one, pictures=one.pictures * times, prompts=(), captions=(), plain=())
        for one in made.arms
    )
    return replace(made, arms=tuple(arms))


def features(name: str, request: Request) -> tuple[np.ndarray, np.ndarray]:
    """References and candidates by one of the encoders."""
    encoder = next(one for one in ENCODERS if one.name == name)
    sets = request.references, request.ordered()[0].pictures
    return tuple(encoder.encode(list(one)).double().numpy() for one in sets)


def column(found: Evaluation, caption: str) -> str:
    captions, rows = table(found)
    return rows[0][[one.replace("\n", " ") for one in captions].index(caption)]


def test_the_papers_distances_are_on_its_own_network(tmp_path: Path) -> None:
    wanted = asked(PAPER)
    found = evaluate(wanted, ENCODERS, tmp_path)
    sets, (x, y) = found.arm("nsync").sets, features("inception-imagenet", wanted)
    assert sets.fid == pytest.approx(bootstrapped_frechet(x, y)[0], rel=1e-6)
    assert sets.kid == pytest.approx(subset_kernel(x, y)[0], rel=1e-6)
    biased = cmmd(*features("clip-l-14-336", wanted), unbiased=False)
    assert column(found, "CMMD (biased)") == f"{biased:.3f}"
    assert column(found, "FID (over resamples)") == f"{sets.fid:.1f}"
    assert column(found, "KID x1000 (over subsets)") == f"{1000 * sets.kid:.3f}"
    assert found.encoders["inception"]["name"] == "inception-imagenet"
    assert found.encoders["classes"]["name"] == "inception"
    assert any("compare with its tables and with no other" in note for note in found.notes)
    styles = {arm.name: arm.style_nsync for arm in found.arms}
    for one in found.comparisons:
        if one.score == "style":
            gained = styles["nsync"] - styles[one.against]
            assert one.difference.value == pytest.approx(gained, abs=1e-9)


def test_without_that_network_the_difference_is_told(tmp_path: Path) -> None:
    wanted = asked(PAPER)
    found = evaluate(wanted, every_encoder(), tmp_path)
    x, y = features("inception", wanted)
    assert found.arm("nsync").sets.fid == pytest.approx(bootstrapped_frechet(x, y)[0], rel=1e-6)
    assert any("load the encoder inception-imagenet" in note for note in found.notes)
    colours = [one for one in every_encoder() if not one.name.startswith("inception")]
    found = evaluate(wanted, colours, tmp_path)
    assert found.arm("nsync").sets.fid is None
    assert not any("Inception" in note for note in found.notes)


def test_the_metrics_own_numbers_take_the_2015_network(tmp_path: Path) -> None:
    wanted = asked(STANDARD)
    found = evaluate(wanted, ENCODERS, tmp_path)
    sets, (x, y) = found.arm("nsync").sets, features("inception", wanted)
    assert sets.fid == pytest.approx(frechet_distance(x, y), rel=1e-6)
    assert sets.kid == pytest.approx(kernel_distance(x, y), rel=1e-6)
    assert not any("NSYNC paper:" in note for note in found.notes)
    idle = "inception-imagenet was not asked anything here. It is for the parity"
    assert any(note.startswith(idle) for note in found.notes)


def test_no_column_of_the_charts_table_is_cut_off(tmp_path: Path) -> None:
    found = evaluate(asked(PAPER, 9), ENCODERS, tmp_path)
    arms = tuple(replace(arm, name=f"a LoRA of a long name, {arm.name}") for arm in found.arms)
    pixels = np.asarray(chart(replace(found, arms=arms)))
    assert pixels.shape[1] > 1100
    assert (pixels[:, [0, 1, -2, -1]] == 255).all()


def test_a_name_with_two_dollars_is_no_mathematics(tmp_path: Path) -> None:
    found = evaluate(asked(PAPER, 9), ENCODERS, tmp_path)
    arms = tuple(replace(arm, name=f"a$_$b {arm.name}") for arm in found.arms)
    assert chart(replace(found, arms=arms)).height > 100


def test_the_inception_score_is_shown_as_no_style_metric(tmp_path: Path) -> None:
    few, many = (evaluate(asked(PAPER, times), ENCODERS, tmp_path) for times in (8, 9))
    caption = "Inception Score (no style metric)"
    assert caption not in [one.replace("\n", " ") for one in table(few)[0]]
    encoder = ENCODERS[4]
    pool = encoder.encode(list(many_pictures := asked(PAPER, 9).ordered()[0].pictures))
    assert len(many_pictures) == 108
    assert any("bounded by their number" in note for note in many.notes)
    assert any("needs at least 100 pictures" in note for note in few.notes)
    assert column(many, caption) == f"{inception_score(encoder.probabilities(pool)):.2f}"
