"""A small real denoiser for tests: diffusers' own UNet, flow matching, words by their hash."""

import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from nsync.denoiser import SamplerSettings
from nsync.style_set import StyleItem, StyleSet

WORDS = 16
WIDTH = 32


class SmallDenoiser:
    """Meets `nsync.denoiser.Denoiser`; pixels are pooled to 4 channels of an eighth the size."""

    size_multiple = 8
    device = torch.device("cpu")

    def __init__(self, seed: int = 0) -> None:
        self.identity, self.companions = f"small-{seed}", {}
        self.words = {}
        self._encoder = WordEncoder(seed)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self._network = UNet2DConditionModel(
                sample_size=8,
                in_channels=4,
                out_channels=4,
                block_out_channels=(32, 64),
                layers_per_block=1,
                down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
                up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
                cross_attention_dim=WIDTH,
                attention_head_dim=8,
                norm_num_groups=8,
            ).requires_grad_(False)

    @property
    def network(self) -> nn.Module:
        return self._network

    def encode_images(self, pixels: Tensor) -> Tensor:
        small = nn.functional.avg_pool2d(pixels * 2 - 1, 8)
        return torch.cat([small, small.mean(1, keepdim=True)], 1)

    @property
    def text_encoders(self) -> dict[str, nn.Module]:
        return {"words": self._encoder}

    def encode_prompts(self, texts: Sequence[str]) -> list[dict[str, Tensor]]:
        states = self._encoder(torch.stack([self._embedded(text) for text in texts]))
        return [{"states": state} for state in states]

    def word_vectors(self, text: str) -> dict[str, Tensor]:
        rows = [_vector(word) for word in text.split()]
        return {"words": torch.stack(rows)} if rows else {}

    def min_snr(self, times: Tensor, gamma: float) -> Tensor:
        snr = ((1 - times) / times) ** 2
        return snr.clamp(max=gamma) * times**2

    @contextmanager
    def checkpointing(self) -> Iterator[None]:
        self._network.train()
        self._network.enable_gradient_checkpointing()
        try:
            yield
        finally:
            self._network.disable_gradient_checkpointing()
            self._network.eval()

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
        predicted = self.predict((1 - t) * latents + t * noise, conditioning, times)
        return (predicted - (noise - latents)).square().mean((1, 2, 3))

    def predict(
        self, noisy: Tensor, conditioning: Sequence[Mapping[str, Tensor]], times: Tensor
    ) -> Tensor:
        states = torch.stack([row["states"] for row in conditioning])
        return self._network(noisy, times * 1000, states).sample

    @torch.no_grad()
    def generate(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        size: tuple[int, int],
        settings: SamplerSettings,
        *,
        negative_prompt: str = "",
        latents: Tensor | None = None,
        denoise: float = 1.0,
    ) -> Tensor:
        shape = (4, size[1] // 8, size[0] // 8)
        x = torch.stack([torch.randn(shape, generator=_source(seed)) for seed in seeds])
        if latents is not None:
            x = (1 - denoise) * latents + denoise * x
        grid = torch.linspace(denoise, 0, settings.steps + 1)
        wanted, unwanted = (
            self.encode_prompts(texts) for texts in (prompts, [negative_prompt] * len(prompts))
        )
        for now, then in itertools.pairwise(grid):
            times = now.expand(len(seeds))
            base = self.predict(x, unwanted, times)
            x = x + (then - now) * (
                base + settings.guidance * (self.predict(x, wanted, times) - base)
            )
        return nn.functional.interpolate(x[:, :3], scale_factor=8).mul(0.5).add(0.5).clamp(0, 1)

    def _embedded(self, text: str) -> Tensor:
        rows = []
        for word in text.split():
            own = self.words.get(word)
            rows += [_vector(word)] if own is None else list(own["words"])
        return torch.stack((rows + [torch.zeros(WIDTH)] * WORDS)[:WORDS])


class WordEncoder(nn.Module):
    """One layer of attention over the words, with the names that text encoders have."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.self_attn = nn.ModuleDict(
            {name: nn.Linear(WIDTH, WIDTH) for name in ("q_proj", "k_proj", "v_proj", "out_proj")}
        )
        for place, value in enumerate(self.parameters()):
            drawn = torch.randn(value.shape, generator=_source(f"{seed} {place}"))
            value.data = drawn * WIDTH**-0.5
            value.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (self.self_attn[name](x) for name in ("q_proj", "k_proj", "v_proj"))
        seen = nn.functional.scaled_dot_product_attention(q, k, v)
        return x + self.self_attn["out_proj"](seen)


def _vector(word: str) -> Tensor:
    return torch.randn(WIDTH, generator=_source(word))


def small_set(folder: Path, count: int = 4, *, base: str = "small-0") -> StyleSet:
    """Positives from pixels (two sizes), each with one negative on disk under `folder`."""
    from torchvision.io import write_png

    files, items = {}, []
    for i in range(count):
        height = 64 if i % 2 else 48
        pixels = torch.rand(3, height, 64, generator=_source(i))
        items.append(StyleItem(f"picture_{i}", f"a shape number {i}", pixels=pixels))
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"picture_{i}.png"
        write_png((255 * torch.rand(3, height, 64, generator=_source(-i - 1))).byte(), str(path))
        files[f"picture_{i}"] = (path,)
    return StyleSet(tuple(items), token="sks", resolution=64).with_negatives(files, base)


def _source(key: object) -> torch.Generator:
    digest = hashlib.sha256(str(key).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
