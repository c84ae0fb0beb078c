"""Prompts as tokens, with words among them that stand for vectors of their own.

The host's text encoders take a vector in a token's place: that is how its `embedding:name` works.
Here the vectors come from the trainer instead of a file, and gradients flow back to them.
"""

from collections.abc import Mapping

from comfy.sd import CLIP
from torch import Tensor, nn

from ...nsync.denoiser import Word
from ...nsync.errors import InputError
from ...nsync.words import spell

Tokens = dict[str, list[list[tuple]]]
"""By the name of the host's tokenizer ("l"): chunks of (token or vector, weight)."""

# Two words of one token each, in every tokenizer known (T5 has two for a single letter). Where a
# prompt's tokens differ between them is where the word stands, whatever the tokenizer is.
_MARKS = ("the", "of")


def tokenize(clip: CLIP, text: str, words: Mapping[str, Word]) -> Tokens:
    """The tokens of a prompt, with the vectors of `words` in their places.

    Raises:
        InputError: the tokenizer does not keep the places apart.
    """
    _, found = spell(text, dict.fromkeys(words, 1), "")
    tokens = marked_tokens(clip, text, words)
    if not found:
        return tokens
    other, wanted = marked_tokens(clip, text, words, _MARKS[1]), [words[word] for word in found]
    for name, chunks in tokens.items():
        if encoder := encoder_name(clip, name):
            tokens[name] = _filled(chunks, other[name], [v[encoder] for v in wanted])
    return tokens


def marked_tokens(
    clip: CLIP, text: str, words: Mapping[str, Word], mark: str = _MARKS[0], **options: bool
) -> Tokens:
    """The tokens of a prompt, with a mark for each vector of the words in it: to each text encoder
    as many as it has of its own.

    Args:
        options: of the host's tokenizers.
    """
    if not words:
        return clip.tokenize(text, **options)
    known: dict[tuple[int, ...], Tokens] = {}
    tokens = {}
    for name in _tokenizers(clip):
        encoder = encoder_name(clip, name)
        counts = {word: _count(vectors, encoder) for word, vectors in words.items()}
        key = tuple(counts.values())
        if key not in known:
            known[key] = clip.tokenize(spell(text, counts, mark)[0], **options)
        tokens[name] = known[key][name]
    return tokens


def encoder_name(clip: CLIP, name: str) -> str:
    """The text encoder that reads a tokenizer's tokens: "clip_l" for "l", "t5xxl" for "t5xxl".

    "" if there is none: SD3 may be without its T5.
    """
    model, names = clip.cond_stage_model, (f"clip_{name}", name)
    return next((known for known in names if getattr(model, known, None) is not None), "")


def text_encoders(clip: CLIP) -> dict[str, nn.Module]:
    """The host's text encoders by name, as the modules that LoRA formats know their layers in."""
    names = [encoder_name(clip, name) for name in _tokenizers(clip)]
    return {name: getattr(clip.cond_stage_model, name).transformer for name in names if name}


def token_ids(clip: CLIP, text: str) -> dict[str, list[int]]:
    """The ids of a text's own tokens by text encoder, without start, end and padding."""
    tokens = clip.tokenize(text, return_word_ids=True)
    return {
        encoder_name(clip, name): [t[0] for chunk in chunks for t in chunk if t[2] != 0]
        for name, chunks in tokens.items()
        if encoder_name(clip, name)
    }


def _tokenizers(clip: CLIP) -> list[str]:
    return list(clip.tokenize(""))


def _count(vectors: Word, encoder: str) -> int:
    """Of an encoder that is missing, any number."""
    return len(vectors.get(encoder, next(iter(vectors.values()))))


def _filled(
    chunks: list[list[tuple]], other: list[list[tuple]], wanted: list[Tensor]
) -> list[list[tuple]]:
    vectors = [row for vectors in wanted for row in vectors.unbind()]
    places = [
        (i, j)
        for i, (chunk, twin) in enumerate(zip(chunks, other, strict=True))
        for j, (token, its_twin) in enumerate(zip(chunk, twin, strict=True))
        if _is_another(token[0], its_twin[0])
    ]
    if len(places) != len(vectors):
        raise InputError(
            "clip",
            "a text encoder whose tokenizer has a token of its own for short words",
            f"one that makes {len(places)} tokens of {len(vectors)} words",
            "Train a LoRA instead of an embedding.",
        )
    filled = [list(chunk) for chunk in chunks]
    for (i, j), vector in zip(places, vectors, strict=True):
        filled[i][j] = (vector, *filled[i][j][1:])
    return filled


def _is_another(token: object, twin: object) -> bool:
    """Only a mark differs; what is no number is of the host's own `embedding:name`."""
    return isinstance(token, int) and isinstance(twin, int) and token != twin
