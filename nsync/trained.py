"""What a run trains: a LoRA, the vectors of the style token (textual inversion), or both.

Textual inversion (arXiv 2208.01618) is usually done by training one row of the text encoder's
token table. Here the vectors are weights of their own that the text encoder reads in the token's
place, so that no other row of the table can change.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .adapters import NETWORK, Rows, adapters, check_bare, fresh, layer_key
from .denoiser import Denoiser, Word
from .errors import InputError
from .flat import FlatWeights
from .layers import (
    ATTENTION,
    ATTENTION_AND_FEED_FORWARD,
    check_rank,
    select_layers,
    trainable_layers,
)
from .lora_file import LowRank
from .settings import TrainSettings

LORA, EMBEDDING = "lora", "embedding"


@dataclass(frozen=True)
class Trained:
    """The trained weights of a run, in their places in the model.

    Attributes:
        stores: "lora" (`<layer>.lora_A`, `<layer>.lora_B`) and "embedding" (`[vectors, width]` by
            text encoder), as far as they are trained.
        alphas: the constant alpha of each layer's adapter.
    """

    stores: dict[str, FlatWeights]
    alphas: dict[str, float]
    denoiser: Denoiser
    token: str
    rows: Rows

    @property
    def groups(self) -> dict[str, nn.Parameter]:
        """The vectors to be optimised, by kind."""
        return {kind: store.vector for kind, store in self.stores.items()}

    @contextmanager
    def copied(self, count: int) -> Iterator[list[Tensor]]:
        """For the block, `count` copies of all weights; yields a leaf `[count, n]` per kind."""
        with ExitStack() as stack:
            yield [stack.enter_context(store.copied(count)) for store in self.stores.values()]

    @contextmanager
    def branch(self, place: int, count: int) -> Iterator[None]:
        """For the block, the text encoders read copy `place` of `count`, whatever the batch."""
        counts = [int(other == place) for other in range(count)]
        with self.rows.of(counts), self._words(lambda copies: copies[place]):
            yield

    def parts(self, vectors: list[Tensor], scope: str) -> list[Tensor]:
        """Vectors of all kinds as the tensors over which a rule of this scope projects."""
        if scope == "global":
            return vectors
        stores = self.stores.values()
        return [p for v, store in zip(vectors, stores, strict=True) for p in v.split(store.sizes)]

    def _words(self, pick: Callable[[Tensor], Tensor]) -> AbstractContextManager[None]:
        if EMBEDDING not in self.stores:
            return nullcontext()
        store = self.stores[EMBEDDING]
        vectors = {name: pick(store.read(name)) for name in store.shapes}
        return standing_for(self.denoiser, self.token, vectors)

    def state(self, vectors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
        """Copies in main memory of the weights that these vectors hold, by kind and name."""
        return {kind: store.named(vectors[kind]) for kind, store in self.stores.items()}


@contextmanager
def trained(
    settings: TrainSettings,
    denoiser: Denoiser,
    token: str,
    start: Mapping[str, LowRank] | None = None,
) -> Iterator[Trained]:
    """Put what is trained into the model for the block; the model is afterwards as it was.

    Args:
        token: the style token that the vectors stand for.
        start: adapters to go on from, by layer; they decide layers, ranks and alphas. None starts
            anew by the settings.
    """
    stores, alphas, rows = {}, {}, Rows()
    with ExitStack() as stack:
        stack.enter_context(_frozen(networks(denoiser).values()))
        if settings.trains_lora:
            first = dict(start) if start is not None else first_adapters(settings, denoiser)
            entered = adapters(networks(denoiser), first, denoiser.device)
            stores[LORA], rows = stack.enter_context(entered)
            alphas = {key: one.alpha for key, one in first.items()}
        if settings.trains_embedding:
            stores[EMBEDDING] = FlatWeights(first_vectors(settings, denoiser), denoiser.device)
        made = Trained(stores, alphas, denoiser, token, rows)
        stack.enter_context(made._words(lambda weight: weight))
        yield made


@contextmanager
def _frozen(modules: Iterable[nn.Module]) -> Iterator[None]:
    """For the block, no weight of the model itself asks for a gradient, or for activations."""
    flags = [(value, value.requires_grad) for module in modules for value in module.parameters()]
    for value, _ in flags:
        value.requires_grad_(False)
    try:
        yield
    finally:
        for value, flag in flags:
            value.requires_grad_(flag)


def networks(denoiser: Denoiser) -> dict[str, nn.Module]:
    """Everything that adapters can go into, by name."""
    return {NETWORK: denoiser.network, **denoiser.text_encoders}


def chosen_layers(settings: TrainSettings, denoiser: Denoiser) -> dict[str, nn.Module]:
    """The layers that a LoRA goes into, by key.

    Raises:
        InputError: there is none.
    """
    layers = dict(select_layers(denoiser.network, settings.layers))
    if settings.text_encoders:
        # Of a text encoder only its blocks: what lies around them is not in every LoRA format.
        whole = settings.layers != ATTENTION
        choice = ATTENTION_AND_FEED_FORWARD if whole else ATTENTION
        for name, encoder in denoiser.text_encoders.items():
            found = select_layers(encoder, choice)
            layers |= {layer_key(name, path): layer for path, layer in found.items()}
    return layers


def every_layer(denoiser: Denoiser, text: bool) -> dict[str, nn.Module]:
    """Every layer of the network, and of the text encoders where asked for, by key."""
    found = networks(denoiser) if text else {NETWORK: denoiser.network}
    return {
        layer_key(name, path): layer
        for name, network in found.items()
        for path, layer in trainable_layers(network).items()
    }


def check_layers(
    settings: TrainSettings, denoiser: Denoiser, start: Mapping[str, LowRank] | None
) -> None:
    """Raise `InputError` if the networks hold adapters already; if a new LoRA would find no layers,
    or its rank is above one's size."""
    if settings.trains_lora:
        check_bare(networks(denoiser))
    if settings.trains_lora and start is None:
        check_rank(chosen_layers(settings, denoiser), settings.rank)


def trained_count(
    settings: TrainSettings, denoiser: Denoiser, start: Mapping[str, LowRank] | None
) -> int:
    """How many numbers are trained."""
    count = 0
    if settings.trains_lora:
        adapters = first_adapters(settings, denoiser) if start is None else start
        count += sum(one.down.numel() + one.up.numel() for one in adapters.values())
    if settings.trains_embedding:
        count += sum(rows.numel() for rows in first_vectors(settings, denoiser).values())
    return count


def first_adapters(settings: TrainSettings, denoiser: Denoiser) -> dict[str, LowRank]:
    """The adapters that a new run starts from; they change nothing yet."""
    layers = chosen_layers(settings, denoiser)
    return fresh(layers, settings.rank, settings.alpha, settings.seed)


def first_vectors(settings: TrainSettings, denoiser: Denoiser) -> dict[str, Tensor]:
    """The token's first vectors, float32 `[vectors, width]` by text encoder.

    They are those of the initial word's tokens. Of fewer vectors each is the mean of its share of
    the tokens; more repeat the tokens in turn.

    Raises:
        InputError: no text encoder knows the initial word.
    """
    found = denoiser.word_vectors(settings.initial_word)
    if not found or any(not len(rows) for rows in found.values()):
        expected = "a word that the model's text encoders have tokens of"
        raise InputError("initial_word", expected, repr(settings.initial_word))
    return {name: _resized(rows, settings.vectors or len(rows)) for name, rows in found.items()}


def _resized(rows: Tensor, count: int) -> Tensor:
    if count >= len(rows):
        return rows[torch.arange(count) % len(rows)]
    return torch.stack([part.mean(0) for part in rows.tensor_split(count)])


@contextmanager
def standing_for(denoiser: Denoiser, token: str, vectors: Word) -> Iterator[None]:
    """For the block, the token stands for the vectors wherever a prompt has it."""
    before = denoiser.words.get(token)
    denoiser.words[token] = vectors
    try:
        yield
    finally:
        if before is None:
            del denoiser.words[token]
        else:
            denoiser.words[token] = before
