"""The smallest denoiser that can be trained: a step takes a millisecond or two. Pure torch."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from nsync.denoiser import SamplerSettings
from nsync.pictures.images import png, to_picture
from nsync.style_set import StyleItem, StyleSet

WORDS, WIDTH, ROWS = 10, 8, 32
TOKEN = "sks"


class TinyDenoiser:
    """Meets `nsync.denoiser.Denoiser` by flow matching; one cross-attention, a real token table."""

    size_multiple = 8
    device = torch.device("cpu")

    def __init__(self, seed: int = 0) -> None:
        self.identity, self.companions, self.words = f"tiny-{seed}", {}, {}
        self.network, self.encoder = TinyNetwork(), TinyEncoder()
        for module in (self.network, self.encoder):
            for name, value in module.named_parameters():
                spread = 1.0 if "table" in name else max(1, value[0].numel()) ** -0.5
                value.data = torch.randn(value.shape, generator=source(f"{seed} {name}")) * spread
                value.requires_grad_(False)

    @property
    def text_encoders(self) -> dict[str, nn.Module]:
        return {"words": self.encoder}

    def encode_images(self, pixels: Tensor) -> Tensor:
        small = nn.functional.avg_pool2d(pixels * 2 - 1, 8)
        return torch.cat([small, small.mean(1, keepdim=True)], 1)

    def encode_prompts(self, texts: Sequence[str]) -> list[dict[str, Tensor]]:
        states = self.encoder(torch.stack([self._embedded(text) for text in texts]))
        return [{"states": state} for state in states]

    def word_vectors(self, text: str) -> dict[str, Tensor]:
        rows = [row(word) for word in text.split()]
        return {"words": self.encoder.table.weight[rows].detach().clone()} if rows else {}

    def prompt_tokens(self, text: str) -> tuple[int, int]:
        words = [self.words.get(word) for word in text.split()]
        return sum(1 if word is None else len(word["words"]) for word in words), WORDS

    def loss(
        self,
        latents: Tensor,
        conditioning: Sequence[Mapping[str, Tensor]],
        noise: Tensor,
        times: Tensor,
    ) -> Tensor:
        t = times.view(-1, 1, 1, 1)
        states = torch.stack([one["states"] for one in conditioning])
        predicted = self.network((1 - t) * latents + t * noise, times, states)
        return (predicted - (noise - latents)).square().mean((1, 2, 3))

    def min_snr(self, times: Tensor, gamma: float) -> Tensor:
        return (((1 - times) / times) ** 2).clamp(max=gamma) * times**2

    @contextmanager
    def checkpointing(self) -> Iterator[None]:
        yield

    def generate(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        size: tuple[int, int],
        settings: SamplerSettings,
        **_: object,
    ) -> Tensor:
        return torch.zeros(len(prompts), 3, size[1], size[0])

    def _embedded(self, text: str) -> Tensor:
        rows = []
        for word in text.split():
            own = self.words.get(word)
            rows += [self.encoder.table.weight[row(word)]] if own is None else list(own["words"])
        return torch.stack((rows + [torch.zeros(WIDTH)] * WORDS)[:WORDS])


class TinyNetwork(nn.Module):
    """Pixels that look at words; the layers have the names of attention."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(4, WIDTH, 3, padding=1)
        names = ("to_q", "to_k", "to_v", "to_out")
        self.attn = nn.ModuleDict({name: nn.Linear(WIDTH, WIDTH) for name in names})
        self.conv_out = nn.Conv2d(WIDTH, 4, 3, padding=1)

    def forward(self, noisy: Tensor, times: Tensor, states: Tensor) -> Tensor:
        x = self.conv_in(noisy) + times.view(-1, 1, 1, 1)
        pixels = x.flatten(2).transpose(1, 2)
        x = x + attended(self.attn, tuple(self.attn), pixels, states).transpose(1, 2).view_as(x)
        return self.conv_out(torch.tanh(x))


class TinyEncoder(nn.Module):
    """A token table, and one layer of attention over the words."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(ROWS, WIDTH)
        names = ("q_proj", "k_proj", "v_proj", "out_proj")
        self.self_attn = nn.ModuleDict({name: nn.Linear(WIDTH, WIDTH) for name in names})

    def forward(self, x: Tensor) -> Tensor:
        return x + attended(self.self_attn, tuple(self.self_attn), x, x)


def attended(layers: nn.ModuleDict, names: Sequence[str], x: Tensor, seen: Tensor) -> Tensor:
    query, key, value, out = (layers[name] for name in names)
    return out(nn.functional.scaled_dot_product_attention(query(x), key(seen), value(seen)))


def row(word: str) -> int:
    """A word's row in the token table; the style token has one of its own, the last."""
    if word == TOKEN:
        return ROWS - 1
    return int(hashlib.sha256(word.encode()).hexdigest(), 16) % (ROWS - 1)


def tiny_set(folder: Path, count: int = 3, *, base: str = "tiny-0") -> StyleSet:
    """Positives from pixels, each with one negative on disk under `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    files, items = {}, []
    for place in range(count):
        name = f"picture_{place}"
        files[name] = (folder / f"{name}.png",)
        files[name][0].write_bytes(png(to_picture(pixels(f"negative {place}"))))
        items.append(StyleItem(name, f"shape {place}", pixels=pixels(f"positive {place}")))
    return StyleSet(tuple(items), token=TOKEN, resolution=32).with_negatives(files, base)


def pixels(key: str) -> Tensor:
    return torch.rand(3, 32, 32, generator=source(key))


def source(key: object) -> torch.Generator:
    digest = hashlib.sha256(str(key).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
