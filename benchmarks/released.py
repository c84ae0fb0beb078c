"""The authors' released loop (github.com/giddyyupp/NSYNC, v4.2), made anew from its description.

In every step it encodes pictures by the VAE and prompts by the text encoder, goes forward and
backward three times, one branch after the other, with gradient checkpointing, and gives AdamW the
whole token table. What it learns is the style token's row of that table.

Left out, to its favour: reading and scaling picture files, and the GradScaler, since the arithmetic
is bf16 on a GPU as in the other arms.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from clip_layers import without_overwriting
from nsync_style.nodes.host.checkpointing import checkpointing
from nsync_style.nodes.host.conditioning import encode_loaded
from nsync_style.nodes.host.words import token_ids
from nsync_style.nsync.trained import trained
from torch import Tensor
from workload import Arm, Workload

NAME, LORA_NAME = "released loop", "released loop, LoRA"
BRANCHES = ("positive", "negative", "anchor")


def textual_inversion(work: Workload) -> Arm:
    """The loop as released."""
    return Arm(NAME, partial(_learn_a_word, work))


def lora(work: Workload) -> Arm:
    """The same loop around a LoRA: what its passes and encodings cost without the token table."""
    return Arm(LORA_NAME, partial(_learn_a_lora, work))


@dataclass(frozen=True)
class _Loop:
    work: Workload
    learns_a_word: bool

    def loss(self) -> Tensor:
        """Draw a branch's batch, encode it, and go through the network."""
        work, count = self.work, self.work.settings.batch
        items = random.sample(work.style_set.items, count)
        pixels = torch.stack([_flipped(item.pixels) for item in items])
        with torch.no_grad():
            latents = work.sockets[2].encode(pixels.movedim(1, -1))  # on the VAE's own device
            latents = work.sockets[0].model.process_latent_in(latents.float()).to(work.device)
        noise, times = torch.randn_like(latents), torch.rand(count)
        with self._arithmetic():
            with torch.set_grad_enabled(self.learns_a_word):
                rows = self._rows([work.style_set.prompt(item) for item in items])
            return work.denoiser.loss(latents, rows, noise, times).mean()

    def _arithmetic(self) -> AbstractContextManager:
        if self.work.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.work.device.type, self.work.dtype)

    def _rows(self, texts: Sequence[str]) -> list[dict[str, Tensor]]:
        """All prompts through the text encoder at once: as sections of one long prompt.

        The host gives the pooled vector of the first section only; that is taken for all.
        """
        clip = self.work.sockets[1]
        tokens = [clip.tokenize(text) for text in texts]
        together = {name: [chunk for each in tokens for chunk in each[name]] for name in tokens[0]}
        row = encode_loaded(clip, together)
        states = row.pop("cross_attn").chunk(len(texts), dim=1)
        return [{"cross_attn": one, **row} for one in states]


def _learn_a_word(work: Workload, steps: int, after_step: Callable[[], None]) -> None:
    loop = _Loop(work, learns_a_word=True)
    with _everything_loaded(work), _token_tables(work) as tables:
        optimizer = torch.optim.AdamW([table for table, _ in tables], lr=1e-3)
        for _ in range(steps):
            sums = [[] for _ in tables]  # backward passes add up, as they do in the authors' code
            for _ in BRANCHES:
                loss = loop.loss()
                loss.backward()
                for kept, (table, _) in zip(sums, tables, strict=True):
                    kept.append(table.grad.clone())
            for kept, (table, row) in zip(sums, tables, strict=True):
                update = _released(kept[0][row], kept[1][row])
                table.grad.zero_()
                table.grad[row] = update
            optimizer.step()
            optimizer.zero_grad()
            loss.item()  # for the progress bar
            after_step()


def _learn_a_lora(work: Workload, steps: int, after_step: Callable[[], None]) -> None:
    loop = _Loop(work, learns_a_word=False)
    with _everything_loaded(work), trained(work.settings, work.denoiser, "") as made:
        optimizer = torch.optim.AdamW(made.groups.values(), lr=1e-4)
        for _ in range(steps):
            sums = []
            for _ in BRANCHES:
                with made.copied(1) as leaves, made.rows.of([work.settings.batch]):
                    loss = loop.loss()
                    gradient = torch.autograd.grad(loss, leaves)[0][0]
                sums.append(sums[-1] + gradient if sums else gradient)
            made.groups["lora"].grad = _released(sums[0], sums[1])
            optimizer.step()
            optimizer.zero_grad()
            loss.item()
            after_step()


def _released(positive: Tensor, both: Tensor) -> Tensor:
    """2 g_p - P_{p+n}(g_p); see `nsync.rules`."""
    flat = both.flatten()
    return 2 * positive - (positive.flatten() @ flat) / (flat @ flat) * both


@contextmanager
def _everything_loaded(work: Workload) -> Iterator[None]:
    """Network and text encoder ready to be trained, with gradient checkpointing in both."""
    denoiser = work.denoiser
    with ExitStack() as stack:
        stack.enter_context(without_overwriting())
        stack.enter_context(denoiser.trainable(work.dtype, True))
        for network in (denoiser.network, *denoiser.text_encoders.values()):
            stack.enter_context(checkpointing(network))
        yield


@contextmanager
def _token_tables(work: Workload) -> Iterator[list[tuple[Tensor, int]]]:
    """(table, row that is learned) of every text encoder; afterwards the tables are as before."""
    ids = token_ids(work.sockets[1], work.style_set.token)
    encoders = work.denoiser.text_encoders
    tables = [(encoders[name].get_input_embeddings().weight, ids[name][0]) for name in ids]
    before = [table.detach().clone() for table, _ in tables]
    for table, _ in tables:
        table.requires_grad_(True)
    try:
        yield tables
    finally:
        for (table, _), old in zip(tables, before, strict=True):
            table.requires_grad_(False)
            table.grad = None
            table.data.copy_(old)


def _flipped(pixels: Tensor) -> Tensor:
    return pixels.flip(-1) if random.random() < 0.5 else pixels
