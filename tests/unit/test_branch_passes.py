"""What goes through the network together: split, short of memory, or not to be fused at all."""

import json
import logging
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import pytest
import torch
from branch_runs import (
    SMALL,
    TALL,
    LittleDenoiser,
    assert_near,
    batches_of,
    chosen,
    errors,
    expected_of,
    found_by,
    passes_of,
    random_adapters,
)
from tiny_denoiser import TinyDenoiser
from torch import Tensor, nn

from nsync.batches import EncodedSet, draw_batches
from nsync.errors import InputError
from nsync.memory import OutOfMemoryError
from nsync.settings import AUTO, BOTH, FUSED, SEQUENTIAL, TrainSettings

SETTINGS = TrainSettings(rank=3, alpha=2.0, batch=4, trains=BOTH)
SAME = 1e-5  # the same sums in another order, in float32


class Watched(TinyDenoiser):
    """Remembers how many pictures went through in each pass; may be short of memory.

    Attributes:
        room: pictures that fit; `room_again`: if activations are computed again.
        error: makes what is raised, in forward or in backward, where they do not fit.
    """

    room = room_again = 10**9
    error, in_backward = partial(torch.OutOfMemoryError, "CUDA out of memory."), False

    def __init__(self) -> None:
        super().__init__()
        self.sizes, self.refused, self.again, self._last = [], [], False, None

    @contextmanager
    def checkpointing(self) -> Iterator[None]:
        self.again = True
        try:
            yield
        finally:
            self.again = False

    def loss(self, latents, conditioning, noise, times) -> Tensor:
        # What a pass took must be free before the next one asks for room.
        assert self._last is None or self._last() is None
        losses = super().loss(latents, conditioning, noise, times)
        if len(latents) <= (self.room_again if self.again else self.room):
            self.sizes.append(len(latents))
            return losses
        self.refused.append(len(latents))
        self._last = weakref.ref(latents)
        if not self.in_backward:
            raise self.error()
        losses.register_hook(self._refuse)
        return losses

    def _refuse(self, gradient: Tensor) -> None:
        raise self.error()


def short_of_memory(**kwargs: object) -> Watched:
    denoiser = Watched()
    vars(denoiser).update(kwargs)
    return denoiser


def texts_of(batches) -> list[str]:
    return [text for batch in batches.values() for text in batch.prompts]


def form_of(most: int, branches: str, checkpointing: bool = False) -> dict[str, object]:
    return {"branches": branches, "most": most, "checkpointing": checkpointing}


@pytest.mark.parametrize("form", [FUSED, SEQUENTIAL])
def test_a_step_may_be_split_in_any_way(form: str) -> None:
    settings, denoiser = replace(SETTINGS, branches=form, text_encoders=True), Watched()
    batches, start = batches_of((3, 2, 1), [SMALL, TALL]), chosen(SETTINGS, denoiser)
    whole = found_by(settings, denoiser, batches, start)
    # One per size; one per size and branch, of which the anchor has one size only.
    assert len(denoiser.sizes) == {FUSED: 2, SEQUENTIAL: 5}[form]
    for most in range(1, 7):
        denoiser.sizes.clear()
        parts = found_by(settings, denoiser, batches, start, form_of(most, form))
        assert_near(parts, whole, SAME)
        assert sum(denoiser.sizes) == 6
        assert max(denoiser.sizes) <= most
    denoiser.sizes.clear()
    found_by(settings, denoiser, batches, start, form_of(1, form))
    assert denoiser.sizes == [1] * 6


NO_MEMORY = {
    "GPU": Watched.error,
    "Python": MemoryError,
    "main memory": partial(RuntimeError, "DefaultCPUAllocator: can't allocate memory: ..."),
}


@pytest.mark.parametrize("in_backward", [False, True])
@pytest.mark.parametrize("error", NO_MEMORY.values(), ids=NO_MEMORY)
def test_short_of_memory_the_passes_get_smaller(
    error: Callable[[], Exception], in_backward: bool, caplog: pytest.LogCaptureFixture
) -> None:
    settings, batches = replace(SETTINGS, branches=AUTO), batches_of((3, 2, 2), [SMALL])
    denoiser = short_of_memory(room=2, error=error, in_backward=in_backward)
    start, texts = chosen(settings, denoiser), texts_of(batches)
    whole = found_by(settings, Watched(), batches, start)
    with (
        caplog.at_level(logging.INFO),
        passes_of(settings, denoiser, start, texts) as (find, passes),
    ):
        assert_near(find(batches), whole, SAME)
        assert denoiser.refused == [7, 4]
        assert passes.form == form_of(2, FUSED)
        told = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
        assert [text.split(" go ")[0] for text in told] == [
            "Out of memory: at most 4 pictures",
            "Out of memory: at most 2 pictures",
        ]
        # It stays so, and a run that goes on later starts so.
        assert_near(find(batches), whole, SAME)
        form = json.loads(json.dumps(passes.form))
    assert_near(found_by(settings, denoiser, batches, start, form), whole, SAME)
    assert denoiser.refused == [7, 4]


def test_at_last_activations_are_computed_again(caplog: pytest.LogCaptureFixture) -> None:
    settings, batches = replace(SETTINGS, branches=SEQUENTIAL), batches_of((2, 1, 1), [SMALL])
    denoiser = short_of_memory(room=0, room_again=1)
    start, texts = chosen(settings, denoiser), texts_of(batches)
    whole = found_by(settings, Watched(), batches, start)
    with passes_of(settings, denoiser, start, texts) as (find, passes):
        assert_near(find(batches), whole, SAME)
        assert denoiser.refused == [2, 1]
        assert denoiser.sizes == [1] * 4
        assert passes.form == form_of(1, SEQUENTIAL, True)
        assert "computed again from now on" in caplog.messages[-1]
        form = passes.form
    assert not denoiser.again
    assert_near(found_by(settings, denoiser, batches, start, form), whole, SAME)
    assert denoiser.refused == [2, 1]


def test_where_nothing_fits_it_says_what_to_change() -> None:
    denoiser, batches = short_of_memory(room=0, room_again=0), batches_of((2, 1), [SMALL])
    start = chosen(SETTINGS, denoiser)
    with pytest.raises(OutOfMemoryError) as raised:
        found_by(SETTINGS, denoiser, batches, start)
    for word in ("resolution", "precision", "bf16", "layers", "rank"):
        assert word in str(raised.value)
    assert isinstance(raised.value.__cause__, torch.OutOfMemoryError)
    assert denoiser.refused == [3, 2, 1, 1]
    assert not denoiser.words
    assert not denoiser.again


@pytest.mark.parametrize("error", [RuntimeError, ValueError])
def test_other_failures_are_told_as_they_are(error: type[Exception]) -> None:
    denoiser = short_of_memory(room=0, error=partial(error, "the network is broken"))
    batches = batches_of((2, 1), [SMALL])
    with pytest.raises(error, match=r"^the network is broken$"):
        found_by(SETTINGS, denoiser, batches, chosen(SETTINGS, denoiser))
    assert denoiser.refused == [3]


class Mixing(nn.Module):
    """Has a layer that sees one row for the whole batch: whose is it?"""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        features = x.mean((2, 3))
        return features * self.layer(features.mean(0, keepdim=True))


def mixing() -> tuple:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        denoiser = LittleDenoiser(Mixing())
    return denoiser, random_adapters({"layer": denoiser.network.layer}, 2, 1.0)


def test_a_network_that_mixes_its_batch_gets_the_branches_apart(
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings, batches = TrainSettings(branches=AUTO, batch=3), batches_of((3, 3, 2), [SMALL])
    denoiser, start = mixing()
    expected = expected_of(settings, denoiser, batches, start, at_once=True)
    assert max(errors(expected, expected_of(settings, denoiser, batches, start)).values()) > 0.01
    with passes_of(settings, denoiser, start, texts_of(batches)) as (find, passes):
        assert_near(find(batches), expected, 1e-5)
        assert passes.form == form_of(0, SEQUENTIAL)
        (told,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
        assert "batch of 1 for 8 pictures" in told
        assert "one after the other from now on" in told
        assert_near(find(batches), expected, 1e-5)
        assert len(caplog.records) == 1


def test_fused_where_it_cannot_be_is_an_input_error() -> None:
    denoiser, start = mixing()
    with pytest.raises(InputError, match=r"`branches`.*auto or sequential"):
        found_by(TrainSettings(branches=FUSED), denoiser, batches_of((2, 2)), start)
    assert type(denoiser.network.layer) is nn.Linear


class Overwriting(TinyDenoiser):
    """Overwrites an activation that the backward pass needs, as networks written to draw may."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[weakref.ref[torch.UntypedStorage]] = []
        self.left: list[int] = []

    def loss(self, *args: object) -> Tensor:
        self.left.append(self.alive())

        def overwrite(module: nn.Module, inputs: tuple, output: Tensor) -> None:
            self.seen.append(weakref.ref(inputs[0].untyped_storage()))
            inputs[0].add_(output.mean())  # with a history that leads to what was saved

        hook = self.network.attn["to_out"].register_forward_hook(overwrite)
        try:
            return super().loss(*args)
        finally:
            hook.remove()

    def alive(self) -> int:
        return sum(activation() is not None for activation in self.seen)


@pytest.mark.parametrize("form", [AUTO, SEQUENTIAL])
def test_a_network_that_overwrites_its_activations(
    form: str, caplog: pytest.LogCaptureFixture
) -> None:
    settings, denoiser = replace(SETTINGS, branches=form), Overwriting()
    batches, start = batches_of((2, 2), [SMALL, TALL]), chosen(settings, denoiser)
    expected = found_by(settings, TinyDenoiser(), batches, start)
    caplog.set_level(logging.INFO)
    with passes_of(settings, denoiser, start, texts_of(batches)) as (find, _):
        for _ in range(2):
            found = find(batches)
            assert all(torch.equal(found.losses[k], expected.losses[k]) for k in batches)
            assert_near(found, expected, 1e-6)
    assert sum("overwrites its activations" in text for text in caplog.messages) == 1
    assert [*denoiser.left, denoiser.alive()] == [0] * (len(denoiser.left) + 1)


class OverwritingWords(TinyDenoiser):
    """Its text encoder overwrites what backward needs, where a prompt says anything."""

    def encode_prompts(self, texts: Sequence[str]) -> list[dict[str, Tensor]]:
        rows = super().encode_prompts(texts)
        for text, row in zip(texts, rows, strict=True):
            if text:
                row["states"] = row["states"] * 1
                row["states"] += row["states"].square()
        return rows


def test_a_text_encoder_that_overwrites_only_where_there_is_something_to_read() -> None:
    settings = replace(SETTINGS, trains="embedding", vectors=1, branches=SEQUENTIAL, batch=1)
    denoiser = OverwritingWords()
    spoken = batches_of((1, 1), [SMALL])
    silent = {name: replace(batch, prompts=("",)) for name, batch in spoken.items()}
    with passes_of(settings, denoiser, {}, [*texts_of(spoken), ""]) as (find, _):
        quiet, found = find(silent), find(spoken)
    assert all(not value.any() for each in quiet.gradients.values() for value in each.values())
    assert all(value.any() for each in found.gradients.values() for value in each.values())


@torch.library.custom_op("nsync_tests::twice", mutates_args=())
def twice(x: Tensor) -> Tensor:
    """An operation without a gradient, as some of the host's kernels."""
    return x * 2


def test_an_operation_without_a_gradient_is_told() -> None:
    class Kernels(TinyDenoiser):
        def loss(self, *args: object) -> Tensor:
            return twice(super().loss(*args))

    denoiser = Kernels()
    with pytest.raises(InputError, match=r"`model`.*nsync_tests.twice.*another base"):
        found_by(SETTINGS, denoiser, batches_of((2, 2)), chosen(SETTINGS, denoiser))


def encoded() -> EncodedSet:
    drawn = torch.randn(8, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    texts = tuple(f"number {place} sks" for place in range(4))
    negatives = tuple((picture,) for picture in drawn[4:])
    return EncodedSet(texts, tuple(drawn[:4]), negatives, texts, texts)


@pytest.mark.parametrize(
    ("rule", "branches"), [("plain", 1), ("projection", 2), ("mean", 2), ("nsync", 3)]
)
def test_no_branch_is_computed_that_the_rule_does_not_need(rule: str, branches: int) -> None:
    for form, sizes in ((AUTO, [2 * branches]), (SEQUENTIAL, [2] * branches)):
        settings, denoiser = replace(SETTINGS, rule=rule, batch=2, branches=form), Watched()
        batches = draw_batches(encoded(), settings, 0)
        found = found_by(settings, denoiser, batches, chosen(settings, denoiser))
        assert denoiser.sizes == sizes
        assert len(found.gradients) == branches
