"""Prompts of a diffusers pipeline: its own numbers, and words that stand for vectors."""

import pytest
import torch
from safetensors.torch import save_file
from small_pipelines import small_sd, small_sdxl, tiny_pipeline

from nsync.errors import InputError
from nsync.pipelines.denoiser import DiffusersDenoiser
from nsync.words import contains_word

PROMPTS = ["two red circles on the left, over a hill", "", "a blue ring " * 40]
TOKEN = "sks"


def denoiser_of(pipeline, **vectors):
    denoiser = DiffusersDenoiser(pipeline)
    if vectors:
        denoiser.words[TOKEN] = vectors
    return denoiser


def own_embeddings(pipeline, texts):
    """What the pipeline itself makes of the prompts: a row of its tensors per prompt."""
    found = pipeline.encode_prompt(
        texts, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False
    )
    rows = [tensor for tensor in found if tensor is not None]
    return list(zip(*rows, strict=True))


def assert_same_rows(rows, expected, **tolerance):
    for row, tensors in zip(rows, expected, strict=True):
        torch.testing.assert_close(list(row.values()), list(tensors), **tolerance)


@pytest.mark.parametrize("make", [small_sd, small_sdxl, tiny_pipeline])
def test_prompts_are_read_as_by_the_pipeline_itself(make):
    pipeline = make()
    rows = denoiser_of(pipeline).encode_prompts(PROMPTS)
    names = ["states", "pooled"] if make is small_sdxl else ["states"]
    assert [list(row) for row in rows] == [names] * len(PROMPTS)
    assert_same_rows(rows, own_embeddings(pipeline, PROMPTS), rtol=0, atol=0)
    assert (rows[0]["states"] - rows[1]["states"]).abs().max() > 0.1


def test_embeddings_loaded_into_the_pipeline_are_read_too(tmp_path):
    pipeline, file = small_sd(), tmp_path / "mine.safetensors"
    save_file({"mine": torch.randn(2, 16)}, file)
    pipeline.load_textual_inversion(str(file), token="mine")
    texts = ["a circle in the style of mine"]
    denoiser = denoiser_of(pipeline)
    assert_same_rows(denoiser.encode_prompts(texts), own_embeddings(pipeline, texts))
    assert denoiser.prompt_tokens(texts[0])[0] == 2 + 6 + 2


@pytest.mark.parametrize("make", [small_sd, small_sdxl, tiny_pipeline])
@pytest.mark.parametrize("phrase", ["circle", "red circle", "sunset stripes"])
def test_the_vectors_of_a_phrase_read_as_the_phrase(make, phrase):
    denoiser = denoiser_of(make())
    vectors = denoiser.word_vectors(phrase)
    denoiser.words[TOKEN] = vectors
    texts = ["a {} on the left", "({}), {}!", "{}", "a ring"]
    rows = denoiser.encode_prompts([text.replace("{}", "SKS") for text in texts])
    expected = denoiser.encode_prompts([text.replace("{}", phrase) for text in texts])
    assert_same_rows(rows, [row.values() for row in expected])
    width = denoiser.text_encoders["clip_l"].config.hidden_size
    assert vectors["clip_l"].shape == (denoiser.prompt_tokens(phrase)[0] - 2, width)
    assert vectors["clip_l"].dtype == torch.float32


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("in the style of sks", 1),
        ("Sks, sks; (sks)", 3),
        ("a-sks's sks.", 2),
        ("sksy masks sks_2 sks2", 0),
    ],
)
def test_a_word_stands_by_itself_as_everywhere_else(text, count):
    assert contains_word(text, TOKEN) == bool(count)
    denoiser = denoiser_of(small_sd())
    plain, (before, limit) = denoiser.encode_prompts([text])[0], denoiser.prompt_tokens(text)
    one_token = denoiser.prompt_tokens("circle")[0]
    letters = denoiser.prompt_tokens(TOKEN)[0] - one_token  # tokens of sks beyond one
    denoiser.words[TOKEN] = {"clip_l": torch.randn(5, 16)}
    assert denoiser.prompt_tokens(text) == (before + count * (4 - letters), limit)
    changed = not torch.equal(denoiser.encode_prompts([text])[0]["states"], plain["states"])
    assert changed == bool(count)


def test_longer_words_go_before_those_they_contain_and_others_stay_apart():
    denoiser = denoiser_of(small_sd())
    for word, phrase in (("my", "red"), ("my style", "a ring"), ("<new>", "hill")):
        denoiser.words[word] = denoiser.word_vectors(phrase)
    rows = denoiser.encode_prompts(["my style, my, <new>", "my"])
    denoiser.words.clear()
    expected = denoiser.encode_prompts(["a ring, red, hill", "red"])
    assert_same_rows(rows, [row.values() for row in expected])


def test_a_prompt_is_as_long_as_to_the_encoder_that_has_least_room_for_it():
    denoiser = denoiser_of(small_sdxl(), clip_l=torch.randn(2, 16), clip_g=torch.randn(4, 32))
    assert denoiser.prompt_tokens("a sks") == (2 + 1 + 4, 77)


def test_a_word_with_vectors_for_one_encoder_is_ordinary_to_the_other():
    denoiser = denoiser_of(small_sdxl())
    plain = denoiser.encode_prompts(["a sks"])[0]["states"]
    denoiser.words[TOKEN] = {"clip_g": torch.randn(1, 32)}
    seen = denoiser.encode_prompts(["a sks"])[0]["states"]
    assert torch.equal(seen[:, :16], plain[:, :16])
    assert not torch.equal(seen[:, 16:], plain[:, 16:])


@pytest.mark.parametrize("place", ["behind the end", "across the end"])
def test_a_word_that_would_not_be_read_is_refused(place):
    denoiser = denoiser_of(small_sd(), clip_l=torch.randn(3, 16))
    text = "a " * (80 if place == "behind the end" else 73) + TOKEN
    with pytest.raises(
        InputError, match=r"'sks' within the 77 tokens .* clip_l .* Shorten"
    ) as told:
        denoiser.encode_prompts(["a ring", text])
    assert told.value.name == "prompt"
    assert denoiser.encode_prompts(["a " * 72 + TOKEN])


def objective(states):
    """A number that every state has a part in."""
    weights = torch.randn(states.shape, generator=torch.Generator().manual_seed(3))
    return (states * weights.to(states)).sum()


@pytest.mark.parametrize("make", [small_sd, small_sdxl])
def test_gradients_of_the_vectors_are_the_slopes(make):
    pipeline = make()
    for encoder in denoiser_of(pipeline).text_encoders.values():
        encoder.double()
    denoiser = denoiser_of(pipeline)
    widths = {name: e.config.hidden_size for name, e in denoiser.text_encoders.items()}
    source = torch.Generator().manual_seed(4)
    vectors = {
        name: torch.randn(2, width, generator=source, dtype=torch.float64, requires_grad=True)
        for name, width in widths.items()
    }

    def value(*given):
        denoiser.words[TOKEN] = dict(zip(vectors, given, strict=True))
        rows = denoiser.encode_prompts(["a sks over sks", "a ring", "sks"])
        return sum(objective(tensor) for row in rows for tensor in row.values())

    assert torch.autograd.gradcheck(value, tuple(vectors.values()), fast_mode=True)
    assert torch.autograd.grad(value(*vectors.values()), vectors["clip_l"])[0].abs().min() > 0


def test_gradients_are_those_of_a_new_row_of_the_table():
    """As diffusers' textual_inversion.py trains it: a token added, the table resized."""
    texts, vector = ["a circle in the style of sks", "sks, sks"], torch.randn(1, 16)
    ours = vector.clone().requires_grad_()
    denoiser = denoiser_of(small_sd(), clip_l=ours)
    seen = objective(torch.stack([row["states"] for row in denoiser.encode_prompts(texts)]))
    seen.backward()

    pipeline = small_sd()
    pipeline.tokenizer.add_tokens(TOKEN)
    pipeline.text_encoder.resize_token_embeddings(len(pipeline.tokenizer))
    table = pipeline.text_encoder.get_input_embeddings().weight
    place = pipeline.tokenizer.convert_tokens_to_ids(TOKEN)
    with torch.no_grad():
        table[place] = vector[0]
    table.requires_grad_()
    states = torch.stack([states for (states,) in own_embeddings(pipeline, texts)])
    objective(states).backward()
    torch.testing.assert_close(seen, objective(states))
    torch.testing.assert_close(ours.grad[0], table.grad[place], rtol=1e-4, atol=1e-4)
    assert table.grad[place].norm() > 1


def test_nothing_of_the_vectors_stays_behind():
    pipeline = small_sd()
    table = pipeline.text_encoder.get_input_embeddings()
    before, plain = table.weight.clone(), own_embeddings(pipeline, ["a sks"])
    vectors = torch.randn(2, 16, requires_grad=True)
    denoiser = denoiser_of(pipeline, clip_l=vectors)
    denoiser.encode_prompts(["a sks"])[0]["states"].sum().backward()
    denoiser.words[TOKEN] = {"clip_l": torch.randn(2, 5)}  # of a wrong width
    with pytest.raises(RuntimeError):
        denoiser.encode_prompts(["a sks"])
    assert torch.equal(table.weight, before)
    assert table.weight.grad is None
    assert_same_rows([{"states": plain[0][0]}], own_embeddings(pipeline, ["a sks"]), rtol=0, atol=0)
    denoiser.word_vectors("a ring")["clip_l"].zero_()
    assert torch.equal(table.weight, before)


def test_vectors_are_float32_also_of_a_half_precision_encoder():
    denoiser = denoiser_of(tiny_pipeline(torch.float16))
    vectors = denoiser.word_vectors("red")["clip_l"].requires_grad_()
    assert vectors.dtype == torch.float32
    denoiser.words[TOKEN] = {"clip_l": vectors}
    row = denoiser.encode_prompts(["a sks ring"])[0]
    torch.testing.assert_close(row["states"], denoiser.encode_prompts(["a red ring"])[0]["states"])
    row["states"].float().sum().backward()
    assert vectors.grad.dtype == torch.float32
