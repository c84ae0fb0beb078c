"""Encoders by their contract, CLIP's beside transformers' own, and the files that they go into."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from supcon_sets import TOKENIZER, clip, clip_model, labelled_set, small
from torch import Tensor
from transformers import CLIPTokenizerFast

from nsync.draws import generator
from nsync.errors import InputError
from nsync.supcon.clip_encoders import DEVIATION, MEAN, ClipEncoders, read_tokenizer
from nsync.supcon.encoder_file import encoders_metadata, load_encoders, save_encoders
from nsync.supcon.encoders import Encoders, check_captions, check_words, identity
from nsync.supcon.small_encoders import SmallEncoders, vocabulary_of, words_of

CAPTIONS = ["a red circle", "two blue squares on the left over a hill", "a ring"]
SET = labelled_set(["a", "b", "c"], CAPTIONS)
KINDS = {"small": lambda: small(SET).eval(), "clip": clip}


@pytest.fixture(params=KINDS)
def encoders(request: pytest.FixtureRequest) -> Encoders:
    return KINDS[request.param]()


def pixels(encoders: Encoders, count: int = 3) -> Tensor:
    side = encoders.image_size
    return torch.rand(count, 3, side, side, generator=generator(0, "pixels")) * 2 - 1


def test_features_have_the_shapes_of_the_contract(encoders: Encoders) -> None:
    images, texts = encoders.images(pixels(encoders)), encoders.texts(CAPTIONS)
    width = encoders.width
    assert images.whole.shape == texts.sentence.shape == (3, width)
    side = int(images.regions.shape[1] ** 0.5)
    assert images.regions.shape == (3, side**2, width)
    assert side == {16: 2, 32: 4}[encoders.image_size]
    counts = [
        encoders.tokens(caption) - (2 if encoders.kind == "clip" else 0) for caption in CAPTIONS
    ]
    assert texts.mask.dtype == torch.bool
    assert texts.mask.sum(1).tolist() == counts
    assert texts.words.shape == (3, max(counts), width)
    assert texts.mask.shape == (3, max(counts))
    assert not texts.words[~texts.mask].any()
    assert texts.words[texts.mask].abs().sum(1).min() > 0


def test_an_items_features_do_not_depend_on_its_neighbours(encoders: Encoders) -> None:
    together = encoders.images(pixels(encoders)), encoders.texts(CAPTIONS)
    for row, caption in enumerate(CAPTIONS):
        alone = encoders.images(pixels(encoders)[row : row + 1]), encoders.texts([caption])
        count = alone[1].words.shape[1]
        for one, other in (
            (alone[0].whole, together[0].whole[row : row + 1]),
            (alone[0].regions, together[0].regions[row : row + 1]),
            (alone[1].sentence, together[1].sentence[row : row + 1]),
            (alone[1].words, together[1].words[row : row + 1, :count]),
        ):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_the_order_of_words_is_seen(encoders: Encoders) -> None:
    one, other = encoders.texts(["a red circle", "a circle red"]).sentence
    assert not torch.allclose(one, other, atol=1e-4)


def test_the_small_pair_learns_where_things_are() -> None:
    """By a table of places, which begins at 0."""
    encoders = small(SET)
    before = encoders.images(pixels(encoders)).whole
    torch.nn.init.normal_(encoders.image_encoder.places)
    after = encoders.images(pixels(encoders)).whole
    assert not torch.allclose(before, after, atol=1e-2)
    gradient = torch.autograd.grad(after.sum(), encoders.image_encoder.places)[0]
    assert gradient.abs().amin() > 0


def test_pictures_of_another_size_are_scaled(encoders: Encoders) -> None:
    large = pixels(encoders).repeat_interleave(2, 2).repeat_interleave(2, 3)
    scaled = torch.nn.functional.interpolate(
        large, size=(encoders.image_size,) * 2, mode="bilinear", antialias=True
    )
    assert torch.equal(encoders.images(large).whole, encoders.images(scaled).whole)


@pytest.mark.parametrize("wrong", [(3, 16, 16), (1, 3, 16, 20), (1, 1, 16, 16)])
def test_no_pictures_are_refused(encoders: Encoders, wrong: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"`pixels`: expected float \[n, 3, s, s\]"):
        encoders.images(torch.zeros(wrong))


def test_gradients_reach_the_pixels(encoders: Encoders) -> None:
    given = pixels(encoders).requires_grad_()
    features = encoders.images(given)
    (features.whole.sum() + features.regions.square().sum()).backward()
    assert given.grad.abs().sum() > 0


def test_captions_that_do_not_fit_are_named(encoders: Encoders) -> None:
    long = " ".join(["circle"] * 70)
    with pytest.raises(
        InputError, match=rf"2 too long:\n  b: 7\d tokens of {encoders.longest}\n  d"
    ):
        check_captions(encoders, [("a", "a ring"), ("b", long), ("c", ""), ("d", long)])
    with pytest.raises(InputError, match=r"1 too long:\n  'circle circle"):
        encoders.texts(["a ring", long])
    room = encoders.longest - (2 if encoders.kind == "clip" else 0)
    assert encoders.texts([" ".join(["a"] * room)]).mask.sum() == room


def test_captions_without_a_word_are_no_use_for_training() -> None:
    with pytest.raises(InputError, match=r"1 without: b \('!!!'\)"):
        check_words(small(SET), [("a", "a ring"), ("b", "!!!")])


def test_an_empty_text_has_a_sentence_and_no_word(encoders: Encoders) -> None:
    texts = encoders.texts(["", "a ring"])
    assert texts.sentence.isfinite().all()
    assert texts.mask[0].sum() == 0
    alone = encoders.texts([""])
    assert alone.words.shape[1] == 1
    assert alone.sentence.isfinite().all()


def test_the_small_pair_knows_its_captions_words() -> None:
    assert words_of("A red, RED circle!") == ["a", "red", "red", "circle"]
    assert vocabulary_of(["b a", "A c"]) == ["a", "b", "c"]
    encoders = small(SET).eval()
    same = encoders.texts(["a zebra", "a giraffe", "a ring"]).sentence
    assert torch.equal(same[0], same[1])
    assert not torch.allclose(same[0], same[2])


def test_the_small_pair_is_drawn_by_its_seed() -> None:
    before = torch.random.get_rng_state()
    one, same, other = small(SET), small(SET), small(SET, seed=1)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert identity(one) == identity(same) != identity(other)


def test_the_small_pair_has_about_a_million_weights() -> None:
    encoders = SmallEncoders.fresh(CAPTIONS, 0)
    assert 1e6 < sum(weight.numel() for weight in encoders.parameters()) < 2e6


def test_clip_as_a_whole_is_what_transformers_makes_of_it() -> None:
    """The trained projections begin as identities."""
    encoders, model = clip(), clip_model()
    given = pixels(encoders)
    mean, deviation = (torch.tensor(each).view(3, 1, 1) for each in (MEAN, DEVIATION))
    tokenizer = CLIPTokenizerFast.from_pretrained(TOKENIZER)
    tokens = tokenizer(CAPTIONS, padding=True, return_tensors="pt")
    out = model(pixel_values=((given + 1) / 2 - mean) / deviation, **tokens)
    images, texts = encoders.images(given).whole, encoders.texts(CAPTIONS).sentence
    for ours, theirs in ((images, out.image_embeds), (texts, out.text_embeds)):
        unit = torch.nn.functional.normalize(ours, dim=1)
        torch.testing.assert_close(unit, theirs, atol=1e-5, rtol=1e-4)


def test_of_clip_the_projections_alone_are_trained() -> None:
    encoders = clip().train()
    wanted = {
        f"project_{side}.{part}" for side in ("images", "texts") for part in ("weight", "bias")
    }
    trained = {name for name, weight in encoders.named_parameters() if weight.requires_grad}
    assert trained == wanted
    assert not any(module.training for module in encoders.clip.modules())
    whole = clip(trains_towers=True).train()
    assert whole.clip.training
    frozen = [name for name, weight in whole.named_parameters() if not weight.requires_grad]
    assert frozen == ["clip.logit_scale"]


def test_what_clip_is_made_of_depends_on_no_version() -> None:
    """Or a run could not be gone on with after an update."""
    told = json.dumps(clip().config["clip"])
    assert "version" not in told
    assert "dtype" not in told


def test_clip_may_have_another_width() -> None:
    encoders = clip(width=40)
    assert encoders.images(pixels(encoders)).regions.shape == (3, 16, 40)
    assert encoders.texts(CAPTIONS).words.shape[2] == 40


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """CLIP as transformers keeps it."""
    clip_model().save_pretrained(tmp_path)
    CLIPTokenizerFast.from_pretrained(TOKENIZER).save_pretrained(tmp_path)
    return tmp_path


def test_clip_comes_from_a_folder_or_from_tensors(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    tensors = clip_model().state_dict() | {"text_model.embeddings.position_ids": torch.arange(32)}
    made = [
        ClipEncoders.from_folder(folder),
        ClipEncoders.from_tensors(config, tensors, read_tokenizer(folder)),
    ]
    for encoders in made:
        texts = [each.texts(CAPTIONS).sentence for each in (encoders, clip())]
        assert torch.equal(*texts)


def test_what_is_no_clip_is_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="a CLIP model for transformers"):
        ClipEncoders.from_folder(folder / "nowhere")
    config, tensors = json.loads((folder / "config.json").read_text()), clip_model().state_dict()
    del tensors["text_projection.weight"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"1 missing, such as text_projection\.weight"):
        ClipEncoders.from_folder(folder)
    with pytest.raises(InputError, match=r"(?s)`tensors`.*text_projection\.weight"):
        ClipEncoders.from_tensors(config, tensors, read_tokenizer(folder))
    with pytest.raises(InputError, match=r"`tokenizer`"):
        read_tokenizer(folder / "nowhere")
    larger = json.loads(read_tokenizer(TOKENIZER))
    larger["model"]["vocab"] |= {f"more{place}": 670 + place for place in range(3)}
    with pytest.raises(InputError, match="at most 670 words, as many as the model has; got 673"):
        ClipEncoders(clip_model(), json.dumps(larger))


def test_a_file_gives_the_same_encoders_back(encoders: Encoders, tmp_path: Path) -> None:
    path = tmp_path / "pair.safetensors"
    for weight in encoders.parameters():
        if weight.requires_grad:
            torch.nn.init.normal_(weight, std=0.1)
    save_encoders(path, encoders, title="birds", training={"steps": 3})
    found = load_encoders(path)
    assert type(found) is type(encoders)
    assert not any(module.training for module in found.modules())
    for ours, theirs in zip(encoders.texts(CAPTIONS), found.texts(CAPTIONS), strict=True):
        assert torch.equal(ours, theirs)
    given = pixels(encoders)
    for ours, theirs in zip(encoders.images(given), found.images(given), strict=True):
        assert torch.equal(ours, theirs)
    assert identity(found) == identity(encoders)
    told = encoders_metadata(path)
    assert (told["version"], told["kind"], told["training"]) == (1, encoders.kind, {"steps": 3})
    with safe_open(path, "pt") as file:
        assert file.metadata()["modelspec.title"] == "birds"


def test_learned_tensors_stand_for_those_of_their_names(tmp_path: Path) -> None:
    encoders, path = small(SET), tmp_path / "pair.safetensors"
    save_encoders(
        path, encoders, title="", learned={"image_encoder.whole.bias": torch.full((32,), 7.0)}
    )
    assert load_encoders(path).image_encoder.whole.bias.tolist() == [7.0] * 32


def rewrite(path: Path, change: Callable[[dict, dict], None]) -> None:
    with safe_open(path, "pt") as file:
        told = json.loads(file.metadata()["nsync.encoders"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(told, tensors)
    save_file(tensors, path, {"nsync.encoders": json.dumps(told)})


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda told, _: told.update(version=2), r"version 1 .*; got version 2\. Update"),
        (lambda told, _: told.update(kind="large"), "a kind in small, clip; got 'large'"),
        (lambda told, _: told["config"].update(width=5), "a configuration that is none: .*width"),
        (lambda told, _: told["config"].pop("vocabulary"), "a configuration that is none"),
        (lambda _, t: t.pop("image_encoder.places"), r"1 missing, such as image_encoder\.places"),
        (lambda _, t: t.update(more=torch.ones(2)), "1 left over, such as more"),
        (
            lambda _, t: t.update({"image_encoder.places": torch.ones(2)}),
            r"1 of another shape, such as image_encoder\.places",
        ),
    ],
)
def test_a_file_that_was_changed_is_refused(tmp_path: Path, change: Callable, text: str) -> None:
    path = tmp_path / "pair.safetensors"
    save_encoders(path, small(SET), title="")
    rewrite(path, change)
    with pytest.raises(InputError, match=rf"(?s)`pair\.safetensors`: .*{text}"):
        load_encoders(path)


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    with pytest.raises(InputError, match=r"`x\.safetensors`: expected encoders saved by"):
        load_encoders(path)
    path.write_bytes(b"no tensors")
    with pytest.raises(InputError, match=r"`x\.safetensors`: expected encoders saved by"):
        load_encoders(path)
    save_file({"a": torch.ones(1)}, path)
    with pytest.raises(InputError, match="says nothing of encoders"):
        encoders_metadata(path)
