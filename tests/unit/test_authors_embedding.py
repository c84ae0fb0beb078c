"""Our engine, training an embedding by `released-4.2`, against the authors' own loop.

Theirs trains a row of the text encoder's token table: one backward call per branch with no
zero_grad between them, `.grad` cloned after each and zeroed in every row but the token's, the
update built from the clones, and AdamW (constant rate, no clipping) over the whole table. The third
clone never enters. Ours trains vectors of their own, with a gradient of its own per branch.

The one difference is AdamW's weight decay. Theirs, at torch's default of 0.01, pulls at every row
of the table in every step, gradient or not; ours leaves an embedding alone.
"""

import itertools
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_denoiser import ROWS, TOKEN, TinyDenoiser, row, tiny_set
from torch import Tensor

from nsync.batches import EncodedSet, draw_batches, encode_set
from nsync.branches import Batch
from nsync.learner import Learner
from nsync.passes import BranchPasses
from nsync.rules import refine
from nsync.settings import EMBEDDING, TrainSettings
from nsync.trained import trained
from nsync.training import clip

RATE, DECAY, STEPS = 1e-2, 0.01, 25
SETTINGS = TrainSettings(
    rule="released-4.2",
    trains=EMBEDDING,
    initial_word="painting",
    embedding_rate=RATE,
    steps=STEPS,
    warmup=0,
    clip_norm=0.0,
)


def our_run(
    denoiser: TinyDenoiser, encoded: EncodedSet, settings: TrainSettings = SETTINGS
) -> Iterator[Tensor]:
    """The vector before the first step, and after every one."""
    with ExitStack() as stack:
        made = stack.enter_context(trained(settings, denoiser, TOKEN))
        passes = BranchPasses(settings, denoiser, made, encoded.prompts(denoiser, settings), stack)
        learner = Learner(settings, made)
        yield learner.learned().embedding["words"][0]
        for step in range(STEPS):
            branches = passes(draw_batches(encoded, settings, step))
            gradients = {name: branch.gradients for name, branch in branches.items()}
            update = refine(settings.rule, **gradients)
            clip(update, settings.clip_norm)
            learner.step(update, step, torch.tensor(True))
            assert all(vector.grad is None for vector in learner.vectors)  # memory for the passes
            yield learner.learned().embedding["words"][0]


def authors_run(denoiser: TinyDenoiser, encoded: EncodedSet, decay: float) -> Iterator[Tensor]:
    """The whole table before the first step, and after every one."""
    table = denoiser.encoder.table.weight.requires_grad_()
    token = ROWS - 1
    with torch.no_grad():
        table[token] = table[row(SETTINGS.initial_word)]
    yield table.detach().clone()
    optimizer = torch.optim.AdamW([table], lr=RATE, weight_decay=decay)
    for step in range(STEPS):
        clones = []
        for batch in draw_batches(encoded, replace(SETTINGS, rule="nsync"), step).values():
            _loss(denoiser, batch).backward()
            table.grad[torch.arange(ROWS) != token] = 0
            clones.append(table.grad.clone())
        positive, negative, _anchor = (clone[token] for clone in clones)
        table.grad[token] = positive - _proj(positive, negative) + _proj(positive, positive)
        optimizer.step()
        optimizer.zero_grad()
        yield table.detach().clone()


def _loss(denoiser: TinyDenoiser, batch: Batch) -> Tensor:
    rows = denoiser.encode_prompts(batch.prompts)
    latents, noise = torch.stack(batch.latents), torch.stack(batch.noise)
    return denoiser.loss(latents, rows, noise, batch.times).mean()


def _proj(a: Tensor, b: Tensor) -> Tensor:
    return (a @ b) / (b @ b) * b


def both_runs(folder: Path, decay: float) -> tuple[list[Tensor], list[Tensor], TinyDenoiser]:
    """Our vector and their table after every step, and our denoiser afterwards."""
    ours, theirs = TinyDenoiser(), TinyDenoiser()
    encoded = encode_set(SETTINGS, ours, tiny_set(folder))
    vectors = list(our_run(ours, encoded))
    tables = list(authors_run(theirs, encoded, decay))
    return vectors, tables, ours


def test_the_vector_is_theirs_step_by_step(tmp_path: Path) -> None:
    vectors, tables, _ = both_runs(tmp_path, decay=0.0)
    assert len(vectors) == STEPS + 1
    for ours, table in zip(vectors, tables, strict=True):
        torch.testing.assert_close(ours, table[-1], rtol=2e-6, atol=2e-6)
    moves = [float((b - a).norm()) for a, b in itertools.pairwise(vectors)]
    assert min(moves) > RATE / 4  # far above the tolerance, in every step
    assert float((vectors[-1] - vectors[0]).abs().max()) > 5 * RATE


def test_their_weight_decay_of_foreign_rows_is_what_differs(tmp_path: Path) -> None:
    vectors, tables, denoiser = both_runs(tmp_path, decay=DECAY)
    start = TinyDenoiser().encoder.table.weight
    foreign = start[:-1]
    for step, table in enumerate(tables):
        wanted = foreign.double() * (1 - RATE * DECAY) ** step
        torch.testing.assert_close(table[:-1].double(), wanted, rtol=1e-5, atol=0)
    assert not torch.equal(tables[-1][:-1], foreign)
    assert torch.equal(denoiser.encoder.table.weight, start)  # ours, to the bit, every row

    # Theirs pulls at the token's own row as well, to begin with by nothing but the decay ...
    first = tables[1][-1] + RATE * DECAY * tables[0][-1]
    torch.testing.assert_close(vectors[1], first, rtol=2e-6, atol=2e-6)
    # ... and in the end by about as much as the decay of all steps.
    pulled = STEPS * RATE * DECAY * tables[0][-1].abs()
    apart = (vectors[-1] - tables[-1][-1]).abs()
    assert 0 < float(apart.max()) < 10 * float(pulled.max())


@pytest.mark.parametrize("rule", ["nsync", "projection", "plain"])
def test_no_other_rule_gives_their_vector(tmp_path: Path, rule: str) -> None:
    """The comparison would tell."""
    _, tables, _ = both_runs(tmp_path / "a", decay=0.0)
    denoiser = TinyDenoiser()
    encoded = encode_set(SETTINGS, denoiser, tiny_set(tmp_path / "a"))
    *_, found = our_run(denoiser, encoded, replace(SETTINGS, rule=rule))
    assert float((found - tables[-1][-1]).abs().max()) > RATE / 10
