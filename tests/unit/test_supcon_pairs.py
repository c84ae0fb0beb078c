"""Labelled batches: every item once an epoch, and beside it another of its label."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from supcon_sets import SIDE, labelled_set

from nsync.errors import InputError
from nsync.pictures.buckets import fit
from nsync.supcon.labels import read_labels
from nsync.supcon.losses import label_overlap
from nsync.supcon.pairs import draw_rows, read_pairs, split

SINGLE = torch.tensor([0, 0, 0, 1, 1, 2, 0])
SEVERAL = read_labels(labelled_set(["a", "a, b", "a, b, c", "c", "d", "b"])).tensor


@pytest.mark.parametrize("batch", [1, 2, 3, 7, 10])
def test_an_epoch_has_every_item_once_in_an_order_of_its_own(batch: int) -> None:
    rows = [row for step in range(21) for row in draw_rows(SINGLE, batch, 3, step).first]
    epochs = [rows[start : start + 7] for start in range(0, len(rows) - 6, 7)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > len(epochs) / 2


@pytest.mark.parametrize("labels", [SINGLE, SEVERAL], ids=["single", "several"])
def test_a_partner_is_another_item_with_a_label_in_common(labels: torch.Tensor) -> None:
    overlap = label_overlap(labels, labels)
    for step in range(200):
        for row, partner in zip(*draw_rows(labels, 3, 0, step), strict=True):
            alone = overlap[row].count_nonzero() == 1
            assert (partner == row) == bool(alone)
            assert overlap[row, partner] > 0


@pytest.mark.parametrize("labels", [SINGLE, SEVERAL], ids=["single", "several"])
def test_partners_are_drawn_by_the_overlap_of_labels(labels: torch.Tensor) -> None:
    """Within four standard deviations of their exact shares."""
    drawn: dict[int, Counter] = {}
    for step in range(3000):
        for row, partner in zip(*draw_rows(labels, 4, 1, step), strict=True):
            drawn.setdefault(row, Counter())[partner] += 1
    overlap = label_overlap(labels, labels, torch.float64)
    for row, counts in drawn.items():
        shares = overlap[row].clone()
        shares[row] = 0
        if not shares.any():
            continue
        total = sum(counts.values())
        for partner, share in enumerate((shares / shares.sum()).tolist()):
            deviation = (share * (1 - share) / total) ** 0.5
            assert abs(counts[partner] / total - share) <= 4 * deviation


def test_draws_depend_on_seed_and_step_alone() -> None:
    assert draw_rows(SINGLE, 4, 0, 5) == draw_rows(SINGLE, 4, 0, 5)
    others = [draw_rows(SINGLE, 4, 1, 5), draw_rows(SINGLE, 4, 0, 6)]
    assert draw_rows(SINGLE, 4, 0, 5) not in others


def test_an_item_twice_in_a_batch_has_partners_of_its_own() -> None:
    labels = torch.zeros(40, dtype=torch.long)
    first, second = draw_rows(labels, 80, 0, 0)
    pairs = Counter(zip(first, second, strict=True))
    assert len(pairs) > 70


def test_pairs_are_the_sets_pictures_and_words() -> None:
    style_set, told = labelled_set(["a", "b", "a"]), []
    pairs = read_pairs(style_set, 8, lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert pairs.names == ("item_0", "item_1", "item_2")
    assert pairs.texts([2, 0]) == ["picture number 2", "picture number 0"]
    for row, item in enumerate(style_set.items):
        wanted = fit(item.pixels, (8, 8)) * 2 - 1
        torch.testing.assert_close(pairs.pixels([row])[0], wanted, atol=1 / 255, rtol=0)
    extremes = torch.stack([torch.zeros(3, SIDE, SIDE), torch.ones(3, SIDE, SIDE)])
    ends = [replace(i, pixels=p) for i, p in zip(style_set.items[:2], extremes, strict=True)]
    read = read_pairs(replace(style_set, items=tuple(ends)), SIDE).pixels([0, 1])
    assert torch.equal(read, extremes * 2 - 1)


def test_held_out_pairs_are_drawn_by_the_seed() -> None:
    pairs = read_pairs(labelled_set(list("abcabcabc")), SIDE)
    kept, held = split(pairs, 4, 0)
    assert (len(kept), len(held)) == (5, 4)
    assert sorted(kept.names + held.names) == sorted(pairs.names)
    numbers = {
        name: int(label) for name, label in zip(pairs.names, pairs.labels.tensor, strict=True)
    }
    for part in (kept, held):
        assert part.labels.tensor.tolist() == [numbers[name] for name in part.names]
        for row, name in enumerate(part.names):
            place = pairs.names.index(name)
            assert torch.equal(part.pixels([row]), pairs.pixels([place]))
            assert part.captions[row] == pairs.captions[place]
    assert split(pairs, 4, 0)[1].names == held.names
    assert {split(pairs, 4, seed)[1].names for seed in range(5)} != {held.names}
    assert len(split(pairs, 0, 0)[1]) == 0
    with pytest.raises(InputError, match=r"`validation`.* 8 of 9"):
        split(pairs, 8, 0)


def test_the_digest_is_of_all_that_is_read() -> None:
    style_set = labelled_set(["a", "b", "a"])
    first = style_set.items[0]
    changed = [
        replace(first, caption="another"),
        replace(first, label="b"),
        replace(first, pixels=1 - first.pixels),
    ]
    sets = [style_set, *(replace(style_set, items=(i, *style_set.items[1:])) for i in changed)]
    digests = [read_pairs(one, SIDE).digest for one in sets]
    assert len(set(digests)) == 4
    assert read_pairs(labelled_set(["a", "b", "a"]), SIDE).digest == digests[0]
