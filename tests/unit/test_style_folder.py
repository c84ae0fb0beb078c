"""Style sets from folders and lists: every problem by its file's name, all at once."""

import numpy as np
import pytest
import torch
from PIL import Image

from nsync.errors import InputError
from nsync.pictures.buckets import bucket_size
from nsync.pictures.captions import MAX_CAPTION
from nsync.pictures.folder import pictures_in
from nsync.sets.folder import read_folder, read_lists
from nsync.style_set import StyleSet, check_prompts

EMPTY = StyleSet((), "sks", resolution=64)


def _picture(path, seed=0, size=(64, 64)):
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise).save(path)


@pytest.fixture
def folder(tmp_path):
    """Three good pictures with captions."""
    place = tmp_path / "my_style"
    for seed, name in enumerate(("a", "b", "c")):
        _picture(place / f"{name}.png", seed)
        (place / f"{name}.txt").write_text(f"a {name}\n")
    return place


def test_folder_becomes_a_set(folder):
    style_set, report = read_folder(folder, EMPTY, skip=False)

    assert [item.name for item in style_set.items] == ["a", "b", "c"]
    assert style_set.prompt(style_set.items[0]) == "a a in the style of sks"
    assert style_set.items[1].path == folder / "b.png"
    assert style_set.positive(style_set.items[1], 4).shape == (3, 64, 64)
    assert report.text() == "3 of 3 pictures used from folder my_style."


def test_size_of_an_item_is_its_upright_bucket(folder):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.effect_noise((90, 40), 50).save(folder / "a.png", exif=exif)
    style_set, _ = read_folder(folder, EMPTY, skip=False)
    item = style_set.items[0]
    assert style_set.size(item, 8) == bucket_size(40, 90, 64, 8)
    assert style_set.positive(item, 8).shape[-2:] == style_set.size(item, 8)[::-1]


def _spoil(folder):
    """One of each problem; returns the words that must be said of each file."""
    (folder / "empty.png").touch()
    (folder / "empty.txt").write_text("empty file")
    (folder / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0\x00\x10JFIF")
    (folder / "cut.txt").write_text("cut off")
    _picture(folder / "dot.png", 10, (1, 1))
    (folder / "dot.txt").write_text("a dot")
    _picture(folder / "strip.png", 11, (2000, 10))
    (folder / "strip.txt").write_text("a strip")
    _picture(folder / "z_again.bmp", 1)  # the pixels of b.png in another format
    (folder / "z_again.txt").write_text("a copy")
    captions = {
        "no_words": None,
        "blank": b" \n\t",
        "latin1": "caf\xe9".encode("latin-1"),
        "utf16": "a cat".encode("utf-16"),
        "long": b"word " * (MAX_CAPTION // 5 + 1),
        "huge": b"\xe9" * 1_000_000,  # not UTF-8 either, but too long to be read at all
    }
    for seed, (name, caption) in enumerate(captions.items(), 20):
        _picture(folder / f"{name}.png", seed)
        if caption is not None:
            (folder / f"{name}.txt").write_bytes(caption)
    return {
        "empty.png": "0 bytes",
        "cut.jpg": "unreadable",
        "dot.png": "tiny: 1 x 1 pixels would be enlarged 64.0 times",
        "strip.png": "tiny: 2000 x 10",
        "z_again.bmp": "duplicate: the same picture as b.png",
        "no_words.png": "no caption: no_words.txt is missing",
        "blank.png": "blank.txt is empty",
        "latin1.png": "latin1.txt is not UTF-8",
        "utf16.png": "utf16.txt is not UTF-8",
        "long.png": f"long.txt is longer than {MAX_CAPTION} characters",
        "huge.png": "huge.txt is longer",
    }


def _lines(text):
    return {line.strip().partition(": ")[0]: line for line in text.splitlines()}


def test_stop_names_every_problem_in_one_error(folder):
    words = _spoil(folder)
    with pytest.raises(InputError) as caught:
        read_folder(folder, EMPTY, skip=False)
    assert "11 of 14 with problems" in str(caught.value)
    assert "set `problem_files` to `skip`" in str(caught.value)
    lines = _lines(str(caught.value))
    for name, word in words.items():
        assert word in lines[name]


def test_skip_leaves_problems_out_and_names_them(folder):
    words = _spoil(folder)
    style_set, report = read_folder(folder, EMPTY, skip=True)
    assert [item.name for item in style_set.items] == ["a", "b", "c"]
    assert report.text().startswith("3 of 14 pictures used from folder my_style.\nSkipped:\n")
    lines = _lines(report.text())
    for name, word in words.items():
        assert word in lines[name]


def test_a_file_with_two_problems_has_both_named(folder):
    (folder / "both.png").touch()
    _, report = read_folder(folder, EMPTY, skip=True)
    assert "0 bytes" in report.problems[0][1]
    assert "both.txt is missing" in report.problems[0][1]


def test_nothing_is_written(folder):
    _spoil(folder)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    read_folder(folder, EMPTY, skip=True)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_notes_on_used_pictures_and_on_other_files(folder):
    frames = [Image.effect_noise((64, 64), sigma) for sigma in (40, 90)]
    frames[0].save(folder / "d_moving.gif", save_all=True, append_images=frames[1:])
    (folder / "d_moving.txt").write_text("a SKS cat")
    _picture(folder / "e_wide.png", 5, (640, 64))
    (folder / "e_wide.txt").write_text("sksy things")
    (folder / "photo.heic").write_bytes(b"heic")
    (folder / "alone.txt").write_text("a caption")
    (folder / ".hidden.png").touch()
    (folder / "a_folder.png").mkdir()

    style_set, report = read_folder(folder, EMPTY, skip=False)

    assert len(style_set) == 5
    assert sorted(report.notes) == [
        ("alone.txt", "a caption without a picture"),
        ("d_moving.gif", "has 2 frames; the first is used"),
        ("d_moving.gif", "its caption already has the token 'sks'; the template adds it once more"),
        ("e_wide.png", "640 x 64 is longer than 4 to 1; its ends are cropped away"),
        ("photo.heic", "not a picture that is read here; left alone"),
    ]


def test_folders_inside_are_labels_and_names_stay_unique(folder):
    _picture(folder / "day" / "a.png", 7)
    _picture(folder / "day" / "a.JPG", 8)
    (folder / "day" / "a.txt").write_bytes(b"\xef\xbb\xbfone caption\r\nfor both")
    _picture(folder / "night" / "old" / "a.png", 9)

    style_set, report = read_folder(folder, EMPTY, skip=False)

    named = [(item.name, item.label, item.caption) for item in style_set.items]
    assert named[3:] == [
        ("day__a", "day", "one caption for both"),
        ("day__a.png", "day", "one caption for both"),
    ]
    assert [item.label for item in style_set.items[:3]] == ["", "", ""]
    assert report.notes == [("night/old", "a folder two levels down; not looked into")]


def test_links_out_of_the_folder_are_not_followed(folder, tmp_path):
    _picture(tmp_path / "secret.png", 30)
    (tmp_path / "secret.txt").write_text("a secret")
    _picture(tmp_path / "elsewhere" / "s.png", 31)
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    (folder / "link.txt").write_text("a link")
    (folder / "sub").symlink_to(tmp_path / "elsewhere")
    (folder / "gone.png").symlink_to(folder / "nowhere.png")
    _picture(folder / "words.png", 32)
    (folder / "words.txt").symlink_to(tmp_path / "secret.txt")

    style_set, report = read_folder(folder, EMPTY, skip=True)

    assert [item.name for item in style_set.items] == ["a", "b", "c"]
    problems = dict(report.problems)
    assert set(problems) == {"link.png", "sub/s.png", "gone.png", "words.png"}
    assert "points out" in problems["link.png"]
    assert "points out" in problems["sub/s.png"]
    assert "no such file" in problems["gone.png"]
    assert "points out" in problems["words.png"]


def test_captions_and_labels_from_elsewhere_take_the_place_of_the_folders_own(folder):
    (folder / "b.txt").unlink()
    style_set, _ = read_folder(
        folder, EMPTY, skip=False, captions=["one", "two", "three"], labels=["x", "y", "x"]
    )
    assert [(i.caption, i.label) for i in style_set.items] == [
        ("one", "x"),
        ("two", "y"),
        ("three", "x"),
    ]
    with pytest.raises(InputError, match=r"`captions`: .* each of the 3 pictures; got 2"):
        read_folder(folder, EMPTY, skip=False, captions=["one", "two"])
    with pytest.raises(InputError, match=r"c\.png: its caption is empty"):
        read_folder(folder, EMPTY, skip=False, captions=["one", "two", ""])


def test_empty_and_missing_folder(tmp_path):
    with pytest.raises(
        InputError, match=r"`folder`: expected a usable picture .*\.png.*; got none"
    ):
        read_folder(tmp_path, EMPTY, skip=True)
    with pytest.raises(InputError, match="'gone', which does not"):
        read_folder(tmp_path / "gone", EMPTY, skip=True)


def test_folder_with_problems_alone_says_why(tmp_path):
    (tmp_path / "a.png").touch()
    with pytest.raises(InputError, match=r"(?s)usable picture.*a\.png: an empty file"):
        read_folder(tmp_path, EMPTY, skip=True)


def test_progress_is_told_and_can_interrupt(folder):
    told = []
    read_folder(folder, EMPTY, skip=False, on_picture=lambda *counts: told.append(counts))
    assert told == [(0, 3), (1, 3), (2, 3)]

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read_folder(folder, EMPTY, skip=False, on_picture=stop)


def test_hidden_files_are_no_pictures(folder):
    (folder / "._a.png").touch()
    (folder / ".cache").mkdir()
    (folder / ".cache" / "x.png").touch()
    assert [path.name for path in pictures_in(folder)] == ["a.png", "b.png", "c.png"]


def _images(count, shape=(48, 64, 3)):
    return [torch.rand(*shape, generator=torch.Generator().manual_seed(k)) for k in range(count)]


def test_lists_become_a_set():
    images = _images(2)
    style_set, report = read_lists(images, ["a", " b\n"], ["x", "y"], EMPTY, skip=False)
    assert [(i.name, i.caption, i.label) for i in style_set.items] == [
        ("image_0001", "a", "x"),
        ("image_0002", "b", "y"),
    ]
    assert torch.equal(style_set.items[1].pixels, images[1].permute(2, 0, 1))
    assert style_set.positive(style_set.items[0], 8).shape == (3, 56, 72)
    assert len(style_set.digest) == 64
    assert report.text() == "2 of 2 pictures used from the sockets."


def test_lists_under_inference_mode():
    with torch.inference_mode():
        style_set, _ = read_lists(_images(1), ["a"], [], EMPTY, skip=False)
        assert style_set.positive(style_set.items[0], 8).shape == (3, 56, 72)


def test_list_pictures_with_one_and_four_channels():
    half = torch.full((64, 64, 4), 0.5)
    style_set, _ = read_lists([half, *_images(1, (64, 64, 1))], "ab", [], EMPTY, skip=False)
    assert torch.allclose(style_set.items[0].pixels, torch.tensor(0.75))
    assert style_set.items[1].pixels.shape == (3, 64, 64)


def test_problems_in_lists_are_named():
    broken = _images(1)[0]
    broken[0, 0, 0] = float("nan")
    images = [
        *_images(2),
        _images(1)[0],
        broken,
        _images(1, (1, 1, 3))[0],
        _images(1, (9, 9, 2))[0],
    ]
    captions = ["a", "  ", "c", "d", "e", "f"]
    _, report = read_lists(images, captions, [], EMPTY, skip=True)
    problems = dict(report.problems)
    assert problems["image_0002"] == "its caption is empty"
    assert problems["image_0003"] == "duplicate: the same picture as image_0001"
    assert "NaN" in problems["image_0004"]
    assert "tiny" in problems["image_0005"]
    assert "shape [9, 9, 2]" in problems["image_0006"]


@pytest.mark.parametrize(("captions", "labels"), [(["a"], []), ([], []), (["a", "b"], ["x"])])
def test_lists_of_different_lengths(captions, labels):
    with pytest.raises(InputError, match="for each of the 2 pictures"):
        read_lists(_images(2), captions, labels, EMPTY, skip=True)


@pytest.mark.parametrize(
    "template",
    [
        *("", "{caption}", "{token}", "{caption} {token} {artist}", "{caption} {token"),
        *("{} {token}", "{caption!r} {token}", "{caption:>9} {token}", "{caption.x} {token}"),
    ],
)
def test_template_must_have_caption_and_token(template):
    with pytest.raises(InputError, match="`template`"):
        StyleSet((), "sks", template)


def test_template_keeps_doubled_braces_and_captions_any():
    style_set, _ = read_lists(
        _images(1), ["{a} b"], [], StyleSet((), "{t}", "{{x}} {token}: {caption}", 64), skip=False
    )
    assert style_set.prompt(style_set.items[0]) == "{x} {t}: {a} b"


@pytest.mark.parametrize("token", ["", "  "])
def test_token_must_be_a_word(token):
    with pytest.raises(InputError, match="`token`"):
        StyleSet((), token)


class _WordCounter:
    """A text encoder of a contract: a token for each word, begin and end, eight in all."""

    def prompt_tokens(self, text):
        return len(text.split()) + 2, 8


def _captioned(*captions, template="{caption} by {token}"):
    empty = StyleSet((), "sks", template, 64)
    return read_lists(_images(len(captions)), captions, [], empty, skip=False)[0]


def test_prompts_that_lose_their_token_are_all_named():
    style_set = _captioned("one two three four", "one two three four five", "1 2 3 4 5 6 7 8 9")
    with pytest.raises(InputError) as caught:
        check_prompts(_WordCounter(), style_set)
    text = str(caught.value)
    assert "2 too long" in text
    assert "image_0001" not in text
    assert "image_0002: 9 tokens of 8" in text
    assert "image_0003: 13 tokens of 8" in text
    assert "'sks'" in text


def test_token_before_a_long_caption_is_not_cut_off():
    long = "1 2 3 4 5 6 7 8 9"
    check_prompts(_WordCounter(), _captioned(long, template="{token}: {caption}"))
    check_prompts(_WordCounter(), _captioned("1 2 3", template="{caption} by {token} painted well"))
