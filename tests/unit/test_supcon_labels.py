"""Labels of a set: what becomes of them, and what is wrong with some."""

import pytest
import torch
from supcon_sets import labelled_set

from nsync.errors import InputError
from nsync.supcon.labels import read_labels
from nsync.supcon.losses import label_overlap


def test_one_label_each_are_numbers_into_the_names() -> None:
    labels = read_labels(labelled_set(["square", "circle", " circle ", "square"]))
    assert labels.names == ("circle", "square")
    assert labels.tensor.dtype == torch.int64
    assert labels.tensor.tolist() == [1, 0, 0, 1]
    assert labels.notes == ()
    assert labels.rows([3, 1]).tolist() == [1, 0]


def test_several_labels_are_rows_of_0_and_1() -> None:
    labels = read_labels(labelled_set(["circle, square", "circle", ",square,,ring , square"]))
    assert labels.names == ("circle", "ring", "square")
    assert labels.tensor.tolist() == [[1, 0, 1], [1, 0, 0], [0, 1, 1]]
    overlap = label_overlap(labels.tensor, labels.tensor)
    assert overlap[0].tolist() == pytest.approx([1, 1 / 2, 1 / 3])


@pytest.mark.parametrize("bare", ["", "  ", " , "])
def test_items_without_a_label_are_named(bare: str) -> None:
    with pytest.raises(
        InputError, match=r"a label for every picture; got none for item_1, item_3\."
    ):
        read_labels(labelled_set(["a", bare, "b", bare]))


def test_of_many_items_without_a_label_ten_are_named() -> None:
    with pytest.raises(InputError, match=r"item_9, item_10 and 5 more\."):
        read_labels(labelled_set(["a", *[""] * 15]))


def test_empty_captions_are_named() -> None:
    with pytest.raises(InputError, match=r"a caption for every picture; got none for item_0\."):
        read_labels(labelled_set(["a", "b"], [" ", "a dog"]))


@pytest.mark.parametrize("same", [["a", "a", "a"], ["a, b", "b,a"], ["a"]])
def test_labels_that_tell_nobody_from_anybody_are_refused(same: list[str]) -> None:
    with pytest.raises(InputError, match="at least two different labels"):
        read_labels(labelled_set(same))


def test_an_empty_set_is_refused() -> None:
    with pytest.raises(InputError, match="an empty set"):
        read_labels(labelled_set([]))


def test_a_label_with_one_picture_is_allowed_and_told() -> None:
    [note] = read_labels(labelled_set(["a", "a", "rare", "b", "b", "odd"])).notes
    assert note.startswith("Labels with one picture: odd, rare. ")
    assert "its own partner" in note
