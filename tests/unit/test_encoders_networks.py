"""Each encoder gives the vectors of its reference implementation, from every layout of file."""

import argparse

import pytest
import torch
from encoder_files import reference, some_pictures, weights
from safetensors.torch import load_file, save_file
from transformers import Dinov2Config, Dinov2Model

from nsync.errors import InputError
from nsync.evaluation import convnets, encoders, loading, networks
from nsync.evaluation.layouts import dinov2
from nsync.evaluation.loading import NAMES, load_encoder
from nsync.evaluation.networks import Sizes
from nsync.evaluation.preprocess import SSCD_288
from nsync.memory import OutOfMemoryError
from nsync.tiny import BASE_FOLDER
from nsync.tiny.ruler import Ruler
from nsync.tiny.scenes import draw_scenes
from nsync.tiny.world import render

TEXTS = ["a red circle on the left", "two blue rings", "a cross"]
SMALL = {
    "csd": ("csd", Sizes(128, 2, 14, 224)),
    "clip-l-14": ("clip", Sizes(128, 2, 14, 224)),
    "clip-l-14-336": ("clip-336", Sizes(128, 2, 14, 336)),
    "dinov2": ("dinov2", Sizes(128, 2, 14, 518)),
    "inception": ("inception", None),
    "inception-imagenet": ("inception-imagenet", None),
    "sscd": ("sscd", None),
}
PICKLED = {
    "csd": ".bin",
    "dinov2": ".pth",
    "inception": ".pth",
    "inception-imagenet": ".pth",
    "sscd": ".pt",
}
POOLED = ("inception", "inception-imagenet")


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """Networks of two layers count as the real ones."""
    for name, (_, sizes) in SMALL.items():
        if sizes:
            monkeypatch.setitem(loading.SIZES, name, [sizes])


def tensors(name):
    return weights(reference(SMALL[name][0])["shapes"])


def published(name, folder):
    """A file as its publisher has it."""
    state = tensors(name)
    path = folder / f"{name}{PICKLED.get(name, '.safetensors')}"
    if name == "csd":
        state = {f"module.{key}": value for key, value in state.items()}
        state = {"model_state_dict": state, "args": argparse.Namespace(lr=1e-3), "epoch": 3}
    if name in PICKLED:
        torch.save(state, path)
    else:
        save_file(state, path)
    return path


def columns(vectors):
    return vectors[:, :6]


def expected(name, key="values"):
    return torch.tensor(reference(SMALL[name][0])[key])


def assert_as_expected(name, encoder):
    vectors = encoder.encode(some_pictures())
    bound = 1e-5 * expected(name).abs().max() if name in POOLED else 1e-6
    assert (columns(vectors) - expected(name)).abs().max() < bound
    assert vectors.dtype == torch.float32
    assert vectors.shape == (3, encoder.width)
    if name not in POOLED:
        assert torch.allclose(vectors.norm(dim=1), torch.ones(3), atol=1e-6)


@pytest.mark.parametrize("name", SMALL)
def test_published_files_give_the_references_vectors(tmp_path, name):
    encoder = load_encoder(name, published(name, tmp_path))
    assert encoder.name == name
    assert encoder.precision == "fp32"
    assert_as_expected(name, encoder)


def as_transformers(name, folder):
    """The same tower as transformers writes it."""
    encoder = load_encoder(name, published(name, folder))
    return {key: value.clone() for key, value in encoder._network.model.state_dict().items()}


@pytest.mark.parametrize("prefix", ["backbone.", "backbone.vision_model."])
def test_csd_port_with_the_names_of_transformers(tmp_path, prefix):
    tower = as_transformers("csd", tmp_path)
    head = tower.pop("visual_projection.weight").T.contiguous()
    port = {prefix + key.removeprefix("vision_model."): value for key, value in tower.items()}
    port |= {"last_layer_style": head, "last_layer_content": torch.rand(128, 768)}
    save_file(port, tmp_path / "port.safetensors")
    encoder = load_encoder("csd", tmp_path / "port.safetensors")
    assert_as_expected("csd", encoder)
    assert encoder.identity == load_encoder("csd", published("csd", tmp_path)).identity


def test_csd_port_without_the_trainers_prefix(tmp_path):
    save_file(tensors("csd"), tmp_path / "port.safetensors")
    assert_as_expected("csd", load_encoder("csd", tmp_path / "port.safetensors"))


def test_clip_file_with_the_names_of_transformers(tmp_path):
    state = as_transformers("clip-l-14", tmp_path)
    state["vision_model.embeddings.position_ids"] = torch.arange(257)
    state["logit_scale"] = torch.tensor(4.6)
    save_file(state, tmp_path / "port.safetensors")
    assert_as_expected("clip-l-14", load_encoder("clip-l-14", tmp_path / "port.safetensors"))


def test_dinov2_file_with_the_names_of_transformers(tmp_path):
    """As published there: the names of version 4, position embeddings of 518 px."""
    save_file(dinov2(tensors("dinov2"), "file"), tmp_path / "port.safetensors")
    encoder = load_encoder("dinov2", tmp_path / "port.safetensors")
    assert_as_expected("dinov2", encoder)
    assert encoder.identity == load_encoder("dinov2", published("dinov2", tmp_path)).identity


def test_dinov2_file_that_this_transformers_saves(tmp_path, monkeypatch):
    """With the names that its version gives them, whichever it is."""
    config = Dinov2Config(
        hidden_size=128, num_hidden_layers=2, num_attention_heads=2, image_size=518, patch_size=14
    )
    state = Dinov2Model(config).state_dict()
    save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / "a.safetensors")
    encoder = load_encoder("dinov2", tmp_path / "a.safetensors")
    assert encoder.encode(some_pictures(1)).shape == (1, 128)


def test_sscd_conversion_without_prefix_and_counters(tmp_path):
    state = {
        key.removeprefix("backbone."): value
        for key, value in tensors("sscd").items()
        if not key.endswith("num_batches_tracked")
    }
    save_file(state, tmp_path / "sscd.safetensors")
    assert_as_expected("sscd", load_encoder("sscd", tmp_path / "sscd.safetensors"))


def test_inception_gives_logits_without_bias_and_probabilities(tmp_path):
    encoder = load_encoder("inception", published("inception", tmp_path))
    features = encoder.encode(some_pictures())
    logits = encoder.logits(features)
    wanted = expected("inception", "logits")
    assert logits.shape == (3, 1008)
    assert (columns(logits) - wanted).abs().max() < 1e-5 * wanted.abs().max()
    probabilities = encoder.probabilities(features)
    assert probabilities.dtype == torch.float64
    assert torch.allclose(probabilities.sum(1), torch.ones(3, dtype=torch.float64))


def text_encoder(folder):
    path = published("clip-l-14", folder)
    return load_encoder("clip-l-14", path, tokenizer=BASE_FOLDER / "tokenizer")


def test_texts_of_a_file_with_both_towers(tmp_path):
    vectors = text_encoder(tmp_path).encode_texts(TEXTS)
    assert (columns(vectors) - expected("clip-l-14", "texts")).abs().max() < 1e-6


def test_what_is_moved_is_counted_with_its_text_tower(tmp_path):
    encoder = text_encoder(tmp_path)
    alone = load_encoder("clip-l-14", published("clip-l-14", tmp_path))
    text = sum(value.nbytes for value in encoder._text.parameters())
    assert text > 0
    assert encoder.nbytes == alone.nbytes + text


def test_texts_of_a_separate_file(tmp_path):
    state = load_file(published("clip-l-14", tmp_path))
    pictures = {key: value for key, value in state.items() if key.startswith("visual.")}
    texts = {key: value for key, value in state.items() if not key.startswith("visual.")}
    save_file(pictures, tmp_path / "pictures.safetensors")
    save_file(texts, tmp_path / "texts.safetensors")
    encoder = load_encoder(
        "clip-l-14",
        tmp_path / "pictures.safetensors",
        text_file=tmp_path / "texts.safetensors",
        tokenizer=BASE_FOLDER / "tokenizer",
    )
    assert (
        columns(encoder.encode_texts(TEXTS)) - expected("clip-l-14", "texts")
    ).abs().max() < 1e-6


def test_a_text_tower_of_another_width_is_refused_and_the_own_one_comes_first(tmp_path):
    path = published("clip-l-14", tmp_path)
    both = load_file(path)
    texts = both | {"text_projection": torch.rand(128, 32)}
    save_file(texts, tmp_path / "texts.safetensors")
    pictures = {key: value for key, value in both.items() if key.startswith("visual.")}
    save_file(pictures, tmp_path / "pictures.safetensors")
    options = {"text_file": tmp_path / "texts.safetensors", "tokenizer": BASE_FOLDER / "tokenizer"}
    with pytest.raises(InputError, match="width 32"):
        load_encoder("clip-l-14", tmp_path / "pictures.safetensors", **options)
    vectors = load_encoder("clip-l-14", path, **options).encode_texts(TEXTS)
    assert (columns(vectors) - expected("clip-l-14", "texts")).abs().max() < 1e-6


def test_long_texts_are_cut_off_and_none_are_none(tmp_path):
    encoder = text_encoder(tmp_path)
    assert encoder.encode_texts([]).shape == (0, 64)
    long = encoder.encode_texts(["circle " * 100, "circle " * 200])
    assert torch.equal(long[0], long[1])


def test_texts_need_a_text_tower_and_a_tokenizer(tmp_path):
    path = published("clip-l-14", tmp_path)
    with pytest.raises(InputError, match="text tower"):
        load_encoder("clip-l-14", path).encode_texts(TEXTS)
    with pytest.raises(InputError, match=r"`tokenizer`.*merges\.txt"):
        load_encoder("clip-l-14", path, tokenizer=tmp_path)
    state = load_file(path)
    state["token_embedding.weight"] = torch.rand(671, 128)
    save_file(state, tmp_path / "more.safetensors")
    with pytest.raises(InputError, match="instead of 671"):
        load_encoder(
            "clip-l-14", tmp_path / "more.safetensors", tokenizer=BASE_FOLDER / "tokenizer"
        )
    only = {k: v for k, v in load_file(path).items() if k.startswith("visual.")}
    save_file(only, tmp_path / "only.safetensors")
    with pytest.raises(InputError, match="without one"):
        load_encoder(
            "clip-l-14", tmp_path / "only.safetensors", tokenizer=BASE_FOLDER / "tokenizer"
        )


def test_the_ruler_needs_no_file_and_knows_styles():
    encoder = load_encoder("ruler")
    assert encoder.width == 20
    scenes = draw_scenes(6, 5)
    styles = ("neon", "woodcut", "comic")
    sets = [(render(scenes, style, 1) * 255).round().byte() for style in styles]
    vectors = encoder.encode([picture for one in sets for picture in one])
    near = vectors @ vectors.T
    own = torch.block_diag(*[torch.ones(6, 6)] * 3).bool()
    assert near[own].mean() > near[~own].mean() + 0.4


def test_the_ruler_of_content_knows_what_a_picture_shows():
    """The cosine is the mean over the tables of the sum of sqrt(p q)."""
    encoder = load_encoder("ruler-content")
    scenes = draw_scenes(6, 5)
    sets = [(render(scenes, style, 1) * 255).round().byte() for style in ("neon", "comic")]
    vectors = encoder.encode([picture for one in sets for picture in one])
    assert torch.allclose(vectors.norm(dim=1), torch.ones(12))
    read = [Ruler.load().read(one.float() / 255).probabilities for one in sets]
    tables = ("shape", "colour", "place", "count")
    expected = [(read[0][t] * read[1][t]).sqrt().sum(1) for t in tables]
    assert torch.allclose((vectors[:6] * vectors[6:]).sum(1), sum(expected) / 4, atol=1e-5)
    across = vectors[:6] @ vectors[6:].T
    assert across.diagonal().mean() > 0.9
    assert across[~torch.eye(6, dtype=torch.bool)].mean() < 0.6


def test_half_precision_vectors_have_unit_length(tmp_path):
    encoder = load_encoder("csd", published("csd", tmp_path))
    single = encoder.encode(some_pictures())
    half = encoder.to("cpu", torch.float16).encode(some_pictures())
    assert encoder.precision == "fp16"
    assert half.dtype == torch.float32
    assert not torch.equal(half, single)
    assert (half - single).abs().max() < 5e-4
    assert (half.norm(dim=1) - 1).abs().max() < 1e-6


@pytest.mark.parametrize("name", POOLED)
def test_inception_stays_in_single_precision(tmp_path, name):
    encoder = load_encoder(name, published(name, tmp_path))
    with pytest.raises(InputError, match="float32"):
        encoder.to("cpu", torch.float16)
    with pytest.raises(InputError, match="float16"):
        load_encoder("ruler").to("cpu", torch.bfloat16)


def test_plain_gelu_is_noticed(tmp_path, monkeypatch):
    wrong = networks.CLIPVisionConfig
    monkeypatch.setattr(
        networks, "CLIPVisionConfig", lambda **given: wrong(**given | {"hidden_act": "gelu"})
    )
    with pytest.raises(RuntimeError, match="QuickGELU"):
        load_encoder("csd", published("csd", tmp_path))


def test_sscd_takes_whole_pictures_of_unequal_shapes(tmp_path):
    encoder = load_encoder("sscd", published("sscd", tmp_path), way=SSCD_288)
    assert encoder.preprocessing == "sscd-288"
    pictures = [torch.zeros(3, 40, 30, dtype=torch.uint8), *some_pictures(2)[1:]]
    both = encoder.encode(pictures)
    assert torch.allclose(both[1:], encoder.encode(pictures[1:]), atol=1e-6)


def test_the_papers_resize_is_another_preprocessing():
    plain, paper = load_encoder("ruler"), load_encoder("ruler", as_paper=True)
    assert paper.preprocessing == "nsync256+ruler-64"
    assert not torch.equal(plain.encode(some_pictures(1)), paper.encode(some_pictures(1)))


class Greedy(torch.nn.Module):
    """A network that has room for so many pictures at once; the mean colour is its vector."""

    width = 3

    def __init__(self, room):
        super().__init__()
        self.room, self.seen = room, []

    def forward(self, pixels):
        self.seen.append(len(pixels))
        if len(pixels) > self.room:
            raise torch.OutOfMemoryError("out of memory")
        return pixels.mean((2, 3))


def greedy_encoder(room):
    network = Greedy(room)
    return encoders.NetworkEncoder("csd", network, loading.ways.RULER_64, "0"), network


def test_out_of_memory_halves_the_batch_and_stays_halved():
    encoder, network = greedy_encoder(3)
    pictures = [torch.full((3, 64, 64), k, dtype=torch.uint8) for k in range(1, 20)]
    pictures = [one * torch.tensor([1, 2, 3], dtype=torch.uint8)[:, None, None] for one in pictures]
    plenty, _ = greedy_encoder(99)
    assert torch.equal(encoder.encode(pictures), plenty.encode(pictures))
    assert network.seen == [8, 4, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1]


def test_one_picture_that_does_not_fit_is_told():
    encoder, _ = greedy_encoder(0)
    with pytest.raises(OutOfMemoryError, match="One picture"):
        encoder.encode(some_pictures(1))


def test_another_error_is_not_taken_for_one_of_memory():
    encoder, network = greedy_encoder(9)
    network.forward = lambda pixels: pixels.view(1, 2)
    with pytest.raises(RuntimeError, match="shape"):
        encoder.encode(some_pictures(1))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_network_that_breaks_down_is_told(value):
    encoder, network = greedy_encoder(9)
    network.forward = lambda pixels: pixels.mean((2, 3)) * value
    with pytest.raises(InputError, match="fp32"):
        encoder.encode(some_pictures(1))


def test_progress_before_each_picture_and_a_way_out():
    encoder, _ = greedy_encoder(9)
    seen = []

    def on_item(done, total):
        seen.append((done, total))
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encoder.encode(some_pictures(4), on_item)
    assert seen == [(0, 4), (1, 4), (2, 4)]


def test_tensorfloat_is_off_within_and_as_it_was_after():
    encoder, network = greedy_encoder(9)
    inside = []
    network.forward = lambda pixels: inside.append(flags()) or pixels.mean((2, 3))

    def flags():
        return torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        encoder.encode(some_pictures(1))
        assert inside == [(False, "highest")]
        assert flags() == (True, "high")
    finally:
        torch.set_float32_matmul_precision(before)


def test_no_pictures_no_vectors():
    assert load_encoder("ruler").encode([]).shape == (0, 20)


def test_pictures_that_were_not_made_8_bit_are_refused():
    with pytest.raises(InputError, match="uint8"):
        load_encoder("ruler").encode([torch.rand(3, 64, 64)])


def test_unknown_names_and_missing_files():
    with pytest.raises(InputError, match="one of csd, clip-l-14"):
        load_encoder("lpips")
    for name in set(NAMES) - {"ruler", "ruler-content"}:
        with pytest.raises(InputError, match="weight file"):
            load_encoder(name)


def test_average_pools_do_not_count_the_padding():
    """The one change inside a block: of a picture of ones, the border stays one."""
    ones = torch.ones(1, 3, 5, 5)
    assert torch.equal(convnets._A.pool(None, ones), ones)
