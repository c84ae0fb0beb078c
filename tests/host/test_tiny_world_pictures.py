"""A labelled set of the tiny world, and the sheets that a training of it shows."""

import re

import pytest
from questions import answer, ask, once


@pytest.fixture
def answers(in_host, installation):
    return once(installation, in_host, ask_everything)


def ask_everything(host):
    return ask(host, QUESTIONS)


def draw_a_world(host):
    """What the node gives, as it was asked."""
    node = host.module("nodes.tiny.world_pictures")
    asked = {"styles": "flat, stained glass", "scenes": "one object", "count": 6, "seed": 3}
    drawn = {by: node.TinyWorldPictures.execute(by, **asked).result for by in node.LABEL_BY}
    again = node.TinyWorldPictures.execute("style", **asked).result[0]
    more = node.TinyWorldPictures.execute("style", **asked | {"count": 8}).result[1]
    crowd = node.TinyWorldPictures.execute("style", **asked | {"scenes": node.UP_TO_THREE}).result
    images, captions, _, prompts = drawn["style"]
    ruler = host.module("nsync.tiny.ruler").Ruler.load()
    pictures = [image[0].movedim(-1, 0) for image in images]
    return {
        "shape": list(images[0].shape),
        "captions": captions,
        "prompts": prompts,
        "labels": {by: result[2] for by, result in drawn.items()},
        "same": all(one.equal(other) for one, other in zip(images, again, strict=True)),
        "prefix": more[:6] == captions,
        "crowd": crowd[1],
        "styles": [_style_of(host, ruler, picture) for picture in pictures],
    }


def _style_of(host, ruler, picture):
    tables = host.module("nsync.tiny.ruler").TABLES
    return tables["style"][int(ruler.read(picture[None]).indices("style"))]


def test_a_labelled_world(answers):
    drawn = answer(answers, draw_a_world)
    assert drawn["shape"] == [1, 64, 64, 3]
    assert drawn["same"]
    assert drawn["prefix"]
    assert drawn["prompts"].splitlines() == drawn["captions"]
    assert drawn["styles"] == ["flat", "stained_glass"] * 3
    assert drawn["labels"]["style"] == ["flat", "stained glass"] * 3
    pattern = re.compile(r"an? (\w+) (\w+) (.+) in the style of (.+)")
    for place, caption in enumerate(drawn["captions"]):
        colour, shape, where, style = pattern.fullmatch(caption).groups()
        assert drawn["labels"]["shape"][place] == shape
        assert drawn["labels"]["style and shape"][place] == f"{style} {shape}"
        assert drawn["labels"]["caption"][place] == caption
        several = drawn["labels"]["several labels"][place]
        assert several == f"{style}, {shape}, {colour}, {where}"
    assert not all(pattern.fullmatch(caption) for caption in drawn["crowd"])


def draw_a_sheet(host):
    """Five pictures of one grey each; captions of a set of three labels, some with two."""
    import numpy as np
    import torch

    previews = host.module("nsync.supcon.gan.sheets")
    pictures = torch.arange(5).view(5, 1, 1, 1).expand(5, 3, 4, 4) / 10
    drawn = np.asarray(previews.sheet(pictures))
    labels = host.module("nsync.supcon.labels").Labels
    pairs = host.module("nsync.supcon.pairs").LabelledPairs
    names = tuple("abcdef")
    nothing = torch.zeros(6, 3, 4, 4, dtype=torch.uint8)
    one, several = torch.tensor([0, 0, 0, 1, 2, 2]), torch.zeros(6, 3)
    several[range(6), one] = 1
    several[0, 2] = 1
    many = torch.arange(50)
    numbers = tuple(f"{number:02}" for number in range(50))
    blank = torch.zeros(50, 3, 4, 4, dtype=torch.uint8)
    crowd = pairs(numbers, numbers, blank, labels(numbers, many))
    chosen = [
        previews.first_prompts(pairs(names, names, nothing, labels(("x", "y", "z"), tensor)))
        for tensor in (one, several)
    ]
    return {
        "size": list(drawn.shape),
        "greys": [
            int(v) for v in (drawn[0, 0, 0], drawn[0, 6, 0], drawn[6, 6, 0], drawn[6, 12, 0])
        ],
        "chosen": chosen,
        "of many": previews.first_prompts(crowd),
    }


def test_a_sheet_has_its_pictures_in_rows(answers):
    drawn = answer(answers, draw_a_sheet)
    assert drawn["size"] == [10, 16, 3]
    assert drawn["greys"] == [0, 26, 102, 255]


def test_a_sheet_takes_captions_of_each_label_in_turn(answers):
    plain, several = answer(answers, draw_a_sheet)["chosen"]
    assert plain == ["a", "d", "e", "b", "f", "c"]
    assert several == ["a", "d", "e", "b", "f", "c"]


def test_a_sheet_of_many_labels_takes_them_from_all_over(answers):
    chosen = answer(answers, draw_a_sheet)["of many"]
    assert chosen == [f"{place * 50 // 16:02}" for place in range(16)]


QUESTIONS = (draw_a_world, draw_a_sheet)
