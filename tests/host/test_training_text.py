"""Words that stand for vectors: what the text encoders read, and where gradients go."""

from pathlib import Path

import pytest
from questions import answer, ask, once

pytestmark = pytest.mark.newest

LONG = ", ".join(["sks"] + ["a red fox in the snow"] * 14 + ["in the style of sks"])  # two windows
ENCODERS = {
    "SD15": ["clip_l"],
    "SDXL": ["clip_g", "clip_l"],
    "SD3": ["clip_g", "clip_l"],
    "Flux": ["clip_l", "t5xxl"],
}
PROMPTS = (
    "a cat in the style of sks",
    "(sks:1.2) of a cat, (night:0.7)",
    "SKS, a cat (in the style of sks)",
    "sks",
    LONG,
)
WAYS = {
    "fused": {"branches": "fused"},
    "sequential": {"branches": "sequential"},
    "checkpointing": {"branches": "fused", "checkpointing": True},
}
# A T5 has more tokens for a word that CLIP has one for.
KNOWN = {"one": "painting", "two": "red house", "unlike": "impressionism"}
COUNTS = {"one": [1], "two": [2], "unlike": [1]}


@pytest.fixture
def answers(in_host, installation):
    return once(installation, in_host, ask_everything)


def ask_everything(host):
    return ask(host, QUESTIONS)


def _denoiser(host, family):
    import small_models
    import text_models
    import torch

    with torch.inference_mode():  # as the host's own loaders
        model, clip, vae = (
            small_models.unet(),
            text_models.clip(family),
            small_models.vae(),
        )
    return host.module("nodes.host.adapter").HostDenoiser(model, clip, vae)


# --- what is read ---------------------------------------------------------------------------------


def words_with_known_vectors(host):
    """A word with the vectors of known ones, against a prompt with those."""
    import text_models

    found = {}
    for family in text_models.FAMILIES:
        denoiser = _denoiser(host, family)
        for count, known in KNOWN.items():
            for training in (False, True):
                seen = _compare(denoiser, known, training)
                found[f"{family}, {count}, {training}"] = seen | {
                    "encoders": sorted(denoiser.word_vectors(known)),
                    "vectors": sorted({len(v) for v in denoiser.word_vectors(known).values()}),
                }
    return found


def _compare(denoiser, known, training):
    import contextlib
    import re

    import torch

    texts = [re.sub("sks", known, text, flags=re.IGNORECASE) for text in PROMPTS]
    context = denoiser.trainable(text=True) if training else contextlib.nullcontext()
    with context, torch.no_grad():
        expected, plain = denoiser.encode_prompts(texts), denoiser.encode_prompts(PROMPTS)
        denoiser.words["sks"] = denoiser.word_vectors(known)
        ours, again = denoiser.encode_prompts(PROMPTS), denoiser.encode_prompts(texts)
        tokens = [denoiser.prompt_tokens(text) for text in (PROMPTS[0], texts[0])]
        denoiser.words.clear()
    return {
        "same": _same(ours, expected),
        "others": _same(again, expected),
        "unlike": not _same(ours[:1], plain[:1]),
        "tokens": tokens,
    }


def _same(ours, theirs):
    import torch

    pairs = list(zip(ours, theirs, strict=True))
    alike = all(list(a) == list(b) for a, b in pairs)
    return alike and all(torch.equal(a[name], b[name]) for a, b in pairs for name in b)


def test_vectors_are_read_as_the_words_that_have_them(answers):
    found = answer(answers, words_with_known_vectors)
    assert len(found) == len(ENCODERS) * len(KNOWN) * 2
    for case, seen in found.items():
        assert seen["same"], case
        assert seen["others"], case
        assert seen["unlike"], case
        assert seen["tokens"][0] == seen["tokens"][1], case
        family, count, _ = case.split(", ")
        unlike = (family, count) == ("Flux", "unlike")
        assert seen["vectors"] == ([1, 3] if unlike else COUNTS[count]), case
        assert seen["encoders"] == ENCODERS[family], case


def beside_an_embedding_of_the_hosts(host):
    """A word with vectors in a prompt that names a file of the host's embeddings as well."""
    import folder_paths
    from safetensors.torch import save_file

    found, folder = {}, Path(folder_paths.get_folder_paths("embeddings")[0])
    folder.mkdir(exist_ok=True)
    for family in ("SD15", "SDXL"):
        denoiser = _denoiser(host, family)
        save_file(denoiser.word_vectors("red house"), folder / f"{family}_house.safetensors")
        texts = [f"sks of a embedding:{family}_house, {known}" for known in ("sks", "painting")]
        expected = denoiser.encode_prompts(["painting of a red house, painting"] * 2)
        denoiser.words["sks"] = denoiser.word_vectors("painting")
        found[family] = _same(denoiser.encode_prompts(texts), expected)
    return found


def test_the_hosts_own_embeddings_stay_where_they_are(answers):
    assert answer(answers, beside_an_embedding_of_the_hosts) == {"SD15": True, "SDXL": True}


# --- gradients ------------------------------------------------------------------------------------


def gradients_of_vectors(host):
    """What the vectors get, against what the token tables' rows of the same word would get."""
    import gradients
    import torch

    found = {}
    for family in ENCODERS:
        denoiser = _denoiser(host, family)
        with denoiser.trainable(text=True), gradients.copies_saved():
            word = {n: v.requires_grad_() for n, v in denoiser.word_vectors("red house").items()}
            denoiser.words["sks"] = word
            ours = torch.autograd.grad(_number(denoiser, "sks, a cat"), list(word.values()))
            denoiser.words.clear()
            theirs = _of_the_tables(host, denoiser, "red house", "red house, a cat")
        gaps = [float((a - b).norm() / b.norm()) for a, b in zip(ours, theirs, strict=True)]
        found[family] = {"gap": max(gaps), "encoders": sorted(word)}
        found[family]["least"] = min(float(row.norm()) for value in ours for row in value)
    return found


def _number(denoiser, text):
    import torch

    source = torch.Generator().manual_seed(0)
    (row,) = denoiser.encode_prompts([text])
    return sum((value * torch.randn(value.shape, generator=source)).sum() for value in row.values())


def _of_the_tables(host, denoiser, known, text):
    import torch

    encoders = denoiser.text_encoders
    tables = [encoder.get_input_embeddings().weight for encoder in encoders.values()]
    ids = host.module("nodes.host.words").token_ids(denoiser._clip, known)
    for table in tables:
        table.requires_grad_()
    gradients = torch.autograd.grad(_number(denoiser, text), tables)
    for table in tables:
        table.requires_grad_(False)
    return [gradient[ids[name]] for name, gradient in zip(encoders, gradients, strict=True)]


def test_gradients_reach_the_vectors_of_every_text_encoder(answers):
    for family, seen in answer(answers, gradients_of_vectors).items():
        assert seen["gap"] < 1e-5, (family, seen)
        assert seen["encoders"] == ENCODERS[family]
        assert seen["least"] > 0, family


def passes_with_trained_text(host):
    """Network, text encoders and vectors trained at once: each way against passes by hand."""
    import gradients
    import text_models

    trained, make = host.module("nsync.trained"), host.module("nsync.settings").TrainSettings
    options = {"trains": "LoRA and embedding", "text_encoders": True, "vectors": 2, "rank": 2}
    found = {}
    for family in ("SD15", "SDXL", "Flux"):
        given = text_models.sockets(host, family)
        channels = given["vae"].latent_channels
        given.pop("style_set")
        denoiser = host.module("nodes.host.adapter").HostDenoiser(**given)
        gradients.well_conditioned(denoiser.network)
        batches = gradients.batches(host, channels)
        settings = {way: make(**options, **change) for way, change in WAYS.items()}
        start = gradients.disturbed(host, settings["fused"], denoiser)
        vectors = trained.first_vectors(settings["fused"], denoiser)
        expected = gradients.plainly(denoiser, batches, start, vectors)
        found[family] = {
            way: gradients.gap(
                gradients.by_passes(host, denoiser, one, batches, start)[0], expected
            )
            for way, one in settings.items()
        }
        found[family]["text layers"] = sum(":" in key for key in start)
        found[family]["vectors"] = sorted({n for n in expected["anchor"] if "embedding" in n})
    return found


def test_every_way_finds_the_gradients_of_plain_passes(answers):
    for family, seen in answer(answers, passes_with_trained_text).items():
        assert max(seen[way] for way in WAYS) < 3e-5, (family, seen)
        assert seen["text layers"] > 0, family
        assert seen["vectors"] == [f"embedding {name}" for name in ENCODERS[family]]


QUESTIONS = (
    words_with_known_vectors,
    beside_an_embedding_of_the_hosts,
    gradients_of_vectors,
    passes_with_trained_text,
)
