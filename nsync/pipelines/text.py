"""Prompts read by a diffusers pipeline's text encoders, with words that stand for vectors.

The vectors of a word take the places of as many tokens in what the token table gives out; the
table itself, the tokenizer and the encoder stay as they are.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from diffusers import DiffusionPipeline
from diffusers.loaders import TextualInversionLoaderMixin
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase, T5EncoderModel
from transformers.utils import ModelOutput

from ..denoiser import Word
from ..errors import InputError
from ..words import spell

# Two words that are one token each to CLIP and to T5 (of which a letter takes two), whatever stands
# around them.
_PLACEHOLDERS = ("the", "of")


@dataclass(frozen=True, eq=False, repr=False)
class TextReader:
    """One text encoder of a pipeline with its tokenizer.

    Attributes:
        name: of the encoder, as ComfyUI has it ("clip_l", "t5xxl").
        limit: tokens that the encoder reads at once, start and end among them.
        layers: whether every layer's states are told, or the last one's alone.
    """

    name: str
    pipeline: DiffusionPipeline
    tokenizer: PreTrainedTokenizerBase
    encoder: PreTrainedModel
    limit: int
    layers: bool = True

    def read(self, texts: Sequence[str], words: Mapping[str, Word]) -> ModelOutput:
        """What the encoder makes of the texts, its layers' states `[n, limit, width]` among it.

        Gradients flow to the words' vectors, and to whatever of the encoder is trained.

        Raises:
            InputError: a text is cut off before or inside one of the words.
        """
        tokens, places, vectors = self._tokens(texts, words)
        with _inserted(self._table, places, vectors):
            return self.encoder(tokens.to(self.encoder.device), output_hidden_states=self.layers)

    def count(self, text: str, words: Mapping[str, Word]) -> int:
        """Tokens of the whole text with start and end; a word counts its vectors."""
        spelled, _ = _spell(text, self._own(words), _PLACEHOLDERS[0])
        # Not verbose: that a prompt is too long is for the caller to say.
        return len(self.tokenizer(*self._converted([spelled]), verbose=False).input_ids)

    def vectors(self, text: str) -> Tensor:
        """The token table's rows for the text, float32 `[tokens, width]`, a copy."""
        tokens = self.tokenizer(text, add_special_tokens=False).input_ids
        return self._table.weight.detach()[tokens].to(torch.float32, copy=True)

    @property
    def _table(self) -> torch.nn.Module:
        # transformers 5 gives a T5 two modules for one table, and reads this one.
        stack = self.encoder.encoder if isinstance(self.encoder, T5EncoderModel) else None
        return stack.embed_tokens if stack else self.encoder.get_input_embeddings()

    def _tokens(
        self, texts: Sequence[str], words: Mapping[str, Word]
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """(tokens `[n, length]`, where vectors go `[n, length]`, the vectors in that order)."""
        own = self._own(words)
        spelled, found = zip(*(_spell(text, own, _PLACEHOLDERS[0]) for text in texts), strict=True)
        tokens = self._ids(spelled)
        if not any(found):
            return tokens, torch.zeros_like(tokens, dtype=torch.bool), []
        # How the text around a word splits is the tokenizer's affair: the vectors go where two
        # spellings of the word differ.
        places = tokens != self._ids([_spell(text, own, _PLACEHOLDERS[1])[0] for text in texts])
        for text, row, inside in zip(texts, places, found, strict=True):
            if int(row.sum()) != sum(len(own[word]) for word in inside):
                self._refuse(text, inside)
        return tokens, places, [own[word] for inside in found for word in inside]

    def _own(self, words: Mapping[str, Word]) -> dict[str, Tensor]:
        return {word: value[self.name] for word, value in words.items() if self.name in value}

    def _ids(self, texts: Sequence[str]) -> Tensor:
        row = {"padding": "max_length", "max_length": self.limit, "truncation": True}
        return self.tokenizer(self._converted(texts), return_tensors="pt", **row).input_ids

    def _converted(self, texts: Sequence[str]) -> list[str]:
        # The pipeline's own embeddings of several vectors, where the user has loaded some.
        if not isinstance(self.pipeline, TextualInversionLoaderMixin):
            return list(texts)
        return self.pipeline.maybe_convert_prompt(list(texts), self.tokenizer)

    def _refuse(self, text: str, words: Sequence[str]) -> None:
        told = ", ".join(map(repr, dict.fromkeys(words)))
        raise InputError(
            "prompt",
            f"{told} within the {self.limit} tokens that the text encoder {self.name} reads",
            repr(text),
            "Shorten the prompt, or put the word first.",
        )


def _spell(text: str, words: Mapping[str, Tensor], placeholder: str) -> tuple[str, list[str]]:
    return spell(text, {word: len(vectors) for word, vectors in words.items()}, placeholder)


@contextmanager
def _inserted(table: torch.nn.Module, places: Tensor, vectors: Sequence[Tensor]) -> Iterator[None]:
    """For the block, the token table gives out the vectors at their places."""
    if not vectors:
        yield
        return

    def insert(_table: torch.nn.Module, _inputs: tuple, rows: Tensor) -> Tensor:
        # Places are looked up on the CPU: a GPU would have to be waited for.
        where = tuple(index.to(rows.device) for index in places.nonzero(as_tuple=True))
        return rows.index_put(where, torch.cat([vector.to(rows) for vector in vectors]))

    hook = table.register_forward_hook(insert)
    try:
        yield
    finally:
        hook.remove()
