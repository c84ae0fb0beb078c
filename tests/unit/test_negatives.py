"""Which negatives are made, when they are made again, and what becomes of a damaged folder."""

import json
from dataclasses import replace

import pytest
import torch
from denoisers import SmallDenoiser

from nsync.denoiser import Denoiser, SamplerSettings
from nsync.errors import InputError
from nsync.negatives import NegativeSettings, make_negatives, plan
from nsync.pictures.images import read_image
from nsync.sets.negative_store import missing_files
from nsync.style_set import StyleItem, StyleSet

SETTINGS = NegativeSettings(sampler=SamplerSettings(steps=2, guidance=1.0), per_positive=2)


class Drawing(SmallDenoiser):
    """The small denoiser, which also counts what it draws and can be stopped."""

    def __init__(self, seed=0, stop_after=None):
        super().__init__(seed)
        self.drawn, self.stop_after = [], stop_after

    def generate(self, prompts, seeds, size, settings, **start):
        if self.stop_after is not None and len(self.drawn) >= self.stop_after:
            raise KeyboardInterrupt
        self.drawn += [(prompt, size) for prompt in prompts]
        return super().generate(prompts, seeds, size, settings, **start)


def pictures(count=3, **changes):
    items = []
    for i in range(count):
        source = torch.Generator().manual_seed(i)
        pixels = torch.rand(3, 64 if i % 2 else 48, 64, generator=source)
        items.append(StyleItem(f"shape {i}", f"a shape in Sks number {i}", pixels=pixels))
    return StyleSet(tuple(items), token="sks", resolution=64, **changes)


def with_caption(style_set, index, caption):
    items = list(style_set.items)
    items[index] = replace(items[index], caption=caption)
    return replace(style_set, items=tuple(items))


def files(style_set):
    return {item.name: item.negatives for item in style_set.items}


def test_the_small_denoiser_meets_the_contract():
    assert isinstance(SmallDenoiser(), Denoiser)


def test_every_item_gets_its_negatives_in_its_own_bucket(tmp_path):
    style_set = pictures()
    made = make_negatives(SETTINGS, Drawing(), style_set, tmp_path)
    assert made.base == "small-0"
    for item in made.items:
        assert len(item.negatives) == 2
        assert len(set(item.negatives)) == 2
        width, height = style_set.size(item, 8)
        for file in item.negatives:
            assert read_image(file).shape == (3, height, width)


def test_the_prompt_has_a_generic_word_where_the_style_token_was():
    style_set = pictures(200)
    first = [SETTINGS.prompt(style_set, item, 0) for item in style_set.items]
    assert not any("sks" in prompt.lower() for prompt in first)
    words = [prompt.rpartition(" in the style of ")[2] for prompt in first]
    assert {word: words.count(word) > 40 for word in SETTINGS.words} == dict.fromkeys(words, True)
    assert all(prompt.count(word) == 2 for prompt, word in zip(first, words, strict=True))
    second = [SETTINGS.word(item, 1) for item in style_set.items]
    assert all(a != b for a, b in zip(words, second, strict=True))
    reseeded = replace(SETTINGS, seed=1)
    assert words != [reseeded.word(item, 0) for item in style_set.items]


def test_word_and_seed_depend_on_the_item_alone():
    many, few = pictures(5), pictures(5)
    few = replace(few, items=few.items[3:])
    denoiser = Drawing()
    asked = {r.file: r.facts for r in plan(SETTINGS, denoiser, many)}
    assert all(asked[r.file] == r.facts for r in plan(SETTINGS, denoiser, few))
    seeds = [facts["seed"] for facts in asked.values()]
    assert len(set(seeds)) == len(seeds)


def test_the_same_request_makes_nothing_anew(tmp_path):
    first, again = Drawing(), Drawing()
    made = make_negatives(SETTINGS, first, pictures(), tmp_path)
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert files(make_negatives(SETTINGS, again, pictures(), tmp_path)) == files(made)
    assert len(first.drawn) == 6
    assert again.drawn == []
    assert stamps == {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}


def test_an_interrupted_request_goes_on_where_it_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr("nsync.negatives.BATCH_MOST", 1)
    whole = make_negatives(SETTINGS, Drawing(), pictures(), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        make_negatives(SETTINGS, Drawing(stop_after=4), pictures(), tmp_path / "cut")
    rest = Drawing()
    made = make_negatives(SETTINGS, rest, pictures(), tmp_path / "cut")
    assert len(rest.drawn) == 2
    for a, b in zip(whole.items, made.items, strict=True):
        assert [p.read_bytes() for p in a.negatives] == [p.read_bytes() for p in b.negatives]


def test_a_changed_caption_remakes_that_item_alone(tmp_path):
    old = make_negatives(SETTINGS, Drawing(), pictures(), tmp_path)
    denoiser = Drawing()
    changed = with_caption(pictures(), 1, "a thing")
    new = make_negatives(SETTINGS, denoiser, changed, tmp_path)
    assert [prompt.partition(" in ")[0] for prompt, _ in denoiser.drawn] == ["a thing"] * 2
    same = {name for name in files(old) if files(old)[name] == files(new)[name]}
    assert same == {"shape 0", "shape 2"}
    assert all(file.exists() for file in files(old)["shape 1"])  # another set may still use it


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 3},
        {"template": "a {word} of {caption}"},
        {"sampler": SamplerSettings(steps=3, guidance=1.0)},
        {"sampler": SamplerSettings(steps=2, guidance=2.0)},
        {"from_positive": True},
    ],
)
def test_other_settings_share_no_picture(tmp_path, change):
    old = make_negatives(SETTINGS, Drawing(), pictures(), tmp_path)
    new = make_negatives(replace(SETTINGS, **change), Drawing(), pictures(), tmp_path)
    assert not {p for f in files(old).values() for p in f} & {
        p for f in files(new).values() for p in f
    }


def test_another_base_or_positive_shares_no_picture(tmp_path):
    old = make_negatives(SETTINGS, Drawing(), pictures(), tmp_path)
    other = Drawing(seed=1)
    new = make_negatives(SETTINGS, other, pictures(), tmp_path)
    assert new.base == "small-1"
    assert len(other.drawn) == 6
    redrawn = pictures()
    item = replace(redrawn.items[0], pixels=1 - redrawn.items[0].pixels)
    redrawn = replace(redrawn, items=(item, *redrawn.items[1:]))
    fresh = Drawing()
    make_negatives(SETTINGS, fresh, redrawn, tmp_path)
    assert len(fresh.drawn) == 2
    assert all(p.exists() for f in files(old).values() for p in f)


def test_from_the_positive_keeps_more_of_it_the_less_is_drawn_anew(tmp_path):
    style_set = pictures()

    def distance(settings, name):
        made = make_negatives(settings, Drawing(), style_set, tmp_path / name)
        gaps = [
            (made.negative(item, 0, 8) - style_set.positive(item, 8)).square().mean()
            for item in made.items
        ]
        return torch.stack(gaps).mean()

    near = distance(replace(SETTINGS, from_positive=True, denoise=0.05), "near")
    far = distance(replace(SETTINGS, from_positive=True, denoise=1.0), "far")
    assert near < 0.7 * far


def test_the_manifest_says_what_each_picture_was_made_of(tmp_path):
    style_set = pictures(1)
    made = make_negatives(SETTINGS, Drawing(), style_set, tmp_path)
    entries = json.loads((tmp_path / "manifest.json").read_text())["pictures"]
    entry = entries[made.items[0].negatives[0].name]
    assert entry["item"] == "shape 0"
    assert entry["prompt"] == SETTINGS.prompt(style_set, style_set.items[0], 0)
    assert entry["base"] == "small-0"
    assert entry["positive"] == style_set.items[0].digest
    assert (entry["steps"], entry["guidance"], entry["mode"]) == (2, 1.0, "from noise")
    assert entry["size"] == list(style_set.size(style_set.items[0], 8))
    assert isinstance(entry["seed"], int)


def test_a_deleted_picture_is_made_again_and_a_changed_one_refused(tmp_path):
    made = make_negatives(SETTINGS, Drawing(), pictures(), tmp_path)
    gone, touched = made.items[0].negatives
    before = gone.read_bytes()
    gone.unlink()
    assert missing_files(tmp_path) == [gone.name]
    make_negatives(SETTINGS, Drawing(), pictures(), tmp_path)
    assert gone.read_bytes() == before
    touched.write_bytes(before)
    with pytest.raises(InputError, match=r"changed since.*Delete"):
        make_negatives(SETTINGS, Drawing(), pictures(), tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 2, "pictures": {}}', '{"format": 1}'])
def test_a_damaged_manifest_is_told_and_kept(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text)
    denoiser = Drawing()
    with pytest.raises(InputError, match=r"manifest\.json.*Choose another name"):
        make_negatives(SETTINGS, denoiser, pictures(), tmp_path)
    assert denoiser.drawn == []
    assert (tmp_path / "manifest.json").read_text() == text


def test_a_picture_of_no_numbers_is_refused_by_name(tmp_path):
    class Broken(Drawing):
        def generate(self, *args, **start):
            return super().generate(*args, **start) * float("nan")

    with pytest.raises(InputError, match=r"`shape 0`.*NaN"):
        make_negatives(SETTINGS, Broken(), pictures(), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"words": ()}, "`generic_words`: expected at least one word"),
        ({"words": ("a sks painting",)}, "`generic_words`: expected words other than 'sks'"),
        ({"template": "{caption}"}, "`template`: expected"),
        ({"template": "{caption} {word} sks"}, "`template`: expected a text without"),
        ({"per_positive": 0}, "`per_positive`"),
        ({"sampler": SamplerSettings(steps=0)}, "`steps`"),
        ({"sampler": SamplerSettings(guidance=float("nan"))}, "`guidance`"),
        ({"from_positive": True, "denoise": 0.0}, "`denoise`"),
    ],
)
def test_bad_settings_are_refused_before_any_work(tmp_path, change, text):
    folder = tmp_path / "new"
    with pytest.raises(InputError) as caught:
        make_negatives(replace(SETTINGS, **change), Drawing(), pictures(), folder)
    assert str(caught.value).startswith(text)
    assert not folder.exists()


def test_an_empty_set_and_cut_off_prompts_are_refused(tmp_path):
    with pytest.raises(InputError, match="at least one picture"):
        make_negatives(SETTINGS, Drawing(), pictures(0), tmp_path)
    long = with_caption(pictures(), 2, " ".join(["word"] * 20))
    with pytest.raises(InputError, match=r"shape 2: 25 tokens of 16"):
        make_negatives(SETTINGS, Drawing(), long, tmp_path)


def test_progress_is_told_and_may_stop_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr("nsync.negatives.BATCH_MOST", 1)
    told = []
    make_negatives(SETTINGS, Drawing(), pictures(), tmp_path, lambda *seen: told.append(seen))
    assert told == [(done, 6) for done in range(7)]

    def stop(done, total):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_negatives(SETTINGS, Drawing(), pictures(), tmp_path / "stopped", stop)
    assert len(list((tmp_path / "stopped").glob("*.png"))) == 2


def test_negatives_by_another_vae_are_not_taken_and_not_lost(tmp_path):
    def drawing(**companions):
        denoiser = Drawing()
        denoiser.companions = companions
        return denoiser

    def ask(denoiser):
        return files(make_negatives(SETTINGS, denoiser, pictures(), tmp_path))

    made = ask(drawing(vae="a" * 64, text_encoders="b" * 64))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(InputError, match=r"`name`.*the VAE.*another name") as raised:
        ask(drawing(vae="c" * 64, text_encoders="b" * 64))
    assert "CLIP" not in str(raised.value)
    for same in (drawing(vae="a" * 64, text_encoders="b" * 64), drawing(), drawing(vae="a" * 64)):
        assert ask(same) == made
        assert same.drawn == []
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
