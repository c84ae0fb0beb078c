"""The contract of `nsync.denoiser` met by a diffusers pipeline."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from diffusers import (
    AutoencoderKL,
    DiffusionPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)
from torch import Tensor, nn

from ..adapters import layer_key
from ..denoiser import Conditioning, Row, SamplerSettings, Word, row_shape
from ..errors import InputError
from ..identity import feed_tensors
from ..layers import trainable_layers
from .schedule import NoiseSchedule
from .text import TextReader
from .unet_names import original_names

BATCH_PIXELS = 1024 * 1024
"""Pictures are drawn together up to this many pixels."""

_STATES, _POOLED = "states", "pooled"
_NOT_USED = ("safety_checker", "feature_extractor", "image_encoder")


class DiffusersDenoiser:
    """A Stable Diffusion 1, 2 or XL pipeline, or the tiny base's, as a `Denoiser`.

    The pipeline is shared, not copied: its modules may be moved, trained and adapted, and are seen
    here as they then are. Its scheduler, safety checker and watermark take no part.

    Args:
        pipeline: as `from_pretrained` gives it, with all its parts.

    Raises:
        InputError: a pipeline of another kind, one without some part, or one whose base predicts
            neither noise nor velocity.
    """

    def __init__(self, pipeline: DiffusionPipeline) -> None:
        _check(pipeline)
        self._pipeline = pipeline
        self._schedule = NoiseSchedule(pipeline.scheduler)
        self._readers = _readers(pipeline)
        self.identity = _weights_digest(pipeline.unet)
        self.size_multiple = pipeline.vae_scale_factor
        self.words: dict[str, Word] = {}

    @property
    def device(self) -> torch.device:
        """Where `loss` computes."""
        return self.network.device

    @property
    def network(self) -> nn.Module:
        """The pipeline's own UNet."""
        return self._pipeline.unet

    @property
    def text_encoders(self) -> Mapping[str, nn.Module]:
        """The pipeline's own: `clip_l`, and for SDXL `clip_g`."""
        return {reader.name: reader.encoder for reader in self._readers}

    @property
    def lora_names(self) -> dict[str, str]:
        """What a LoRA file calls every layer, by key: kohya's names, of which the host takes the
        same ones (`lora_unet_...`, `lora_te_...`; `lora_te1_...`, `lora_te2_...` of two)."""
        names = {path: f"lora_unet_{path.replace('.', '_')}" for path in _paths(self.network)}
        encoders = self.text_encoders
        for number, (name, encoder) in enumerate(encoders.items(), 1):
            prefix = f"lora_te{number if len(encoders) > 1 else ''}_text_model_"
            for path in _paths(encoder):
                # transformers 5 has no `text_model` in a CLIPTextModel.
                inner = path.removeprefix("text_model.").replace(".", "_")
                names[layer_key(name, path)] = f"{prefix}{inner}"
        return names

    @torch.no_grad()
    def encode_images(self, pixels: Tensor) -> Tensor:
        """Pixels `[n, 3, h, w]` in 0..1 to latents in the network's scale, float32, on the CPU."""
        with _able_vae(self._pipeline.vae) as vae:
            pictures = (pixels * 2 - 1).to(vae.device, vae.dtype).split(1)
            means = [vae.encode(picture).latent_dist.mean for picture in pictures]
        shift, factor = _latent_scale(vae)
        return (torch.cat(means).float().cpu() - shift) * factor

    def encode_prompts(self, texts: Sequence[str]) -> Conditioning:
        """One row per prompt, as the pipeline's own `encode_prompt` makes them.

        Raises:
            InputError: one of `words` stands in a text after what the encoder reads.
        """
        read = [reader.read(texts, self.words) for reader in self._readers]
        if len(read) == 1:
            return [{_STATES: states} for states in read[0].last_hidden_state]
        states = torch.cat([seen.hidden_states[-2] for seen in read], dim=-1)
        pairs = zip(states, read[-1].text_embeds, strict=True)
        return [{_STATES: state, _POOLED: pooled} for state, pooled in pairs]

    def word_vectors(self, text: str) -> dict[str, Tensor]:
        """Float32 `[tokens, width]` by text encoder: the token tables' rows for the text."""
        return {reader.name: reader.vectors(text) for reader in self._readers}

    def prompt_tokens(self, text: str) -> tuple[int, int]:
        """(tokens that the prompt takes, tokens read at once) of the encoder with least room."""
        counts = [(reader.count(text, self.words), reader.limit) for reader in self._readers]
        return max(counts, key=lambda count: count[0] - count[1])

    def loss(
        self, latents: Tensor, conditioning: Conditioning, noise: Tensor, times: Tensor
    ) -> Tensor:
        """Per-sample loss `[n]`, float32: of the noise, the v or the flow velocity, as trained."""
        values = (value.to(self.device) for value in (latents, noise, times))
        noisy, wanted, timesteps = self._schedule.noised(*values)
        losses = noisy.new_empty(len(noisy))
        for places in _alike(conditioning):
            rows = [conditioning[place] for place in places]
            predicted = self._predict(noisy[places], timesteps[places], rows)
            errors = (predicted - wanted[places]).square().flatten(1).mean(1)
            losses = losses.index_put((torch.tensor(places, device=losses.device),), errors)
        return losses

    def min_snr(self, times: Tensor, gamma: float) -> Tensor:
        """Weights `[n]` of the losses at these times, float32."""
        return self._schedule.min_snr(times, gamma)

    @contextmanager
    def checkpointing(self) -> Iterator[None]:
        """For the block, the UNet computes its blocks' activations again in backward."""
        if self._pipeline.unet.is_gradient_checkpointing:
            yield
            return
        self._pipeline.unet.enable_gradient_checkpointing()
        try:
            yield
        finally:
            self._pipeline.unet.disable_gradient_checkpointing()

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
        """Pixels `[n, 3, height, width]`, float32; a picture depends on its prompt and seed alone.

        Samplers and schedulers are diffusers' own under the host's names; none of them draws noise
        on its way.

        Raises:
            InputError: there is no such sampler or scheduler here, or the size does not fit.
        """
        noise = self._noise(seeds, size)
        rows, unwanted = self.encode_prompts(prompts), self.encode_prompts([negative_prompt])[0]
        most = max(1, BATCH_PIXELS // (size[0] * size[1]))
        pictures = []
        for start in range(0, len(rows), most):
            part = slice(start, start + most)
            begin = None if latents is None else latents[part].to(self.device)
            predict = partial(
                self._guided, rows=rows[part], unwanted=unwanted, guidance=settings.guidance
            )
            drawn = self._schedule.draw(predict, noise[part], settings, begin, denoise)
            pictures.append(self._decode(drawn))
        return torch.cat(pictures)

    def _noise(self, seeds: Sequence[int], size: tuple[int, int]) -> Tensor:
        factor = self.size_multiple
        if any(side % factor for side in size):
            raise InputError("size", f"multiples of {factor} pixels", f"{size[0]} x {size[1]}")
        shape = (self._pipeline.unet.config.in_channels, size[1] // factor, size[0] // factor)
        sources = [torch.Generator().manual_seed(seed) for seed in seeds]
        return torch.stack([torch.randn(shape, generator=s) for s in sources]).to(self.device)

    def _guided(
        self, noisy: Tensor, timestep: Tensor, rows: Sequence[Row], unwanted: Row, guidance: float
    ) -> Tensor:
        if guidance == 1:
            return self._predict(noisy, timestep, rows)
        both = [*[unwanted] * len(rows), *rows]
        without, wanted = self._predict(noisy.repeat(2, 1, 1, 1), timestep, both).chunk(2)
        return without + guidance * (wanted - without)

    def _predict(self, noisy: Tensor, timesteps: Tensor, rows: Sequence[Row]) -> Tensor:
        """The network's prediction, float32; timesteps are `[n]`, or one for all."""
        autocast = torch.is_autocast_enabled(self.device.type)
        dtype = torch.float32 if autocast else self._pipeline.unet.dtype
        stacked = {
            name: torch.stack([row[name] for row in rows]).to(self.device, dtype)
            for name in rows[0]
        }
        added = {}
        if _POOLED in stacked:
            ids = {"text_embeds": stacked[_POOLED], "time_ids": self._size_ids(noisy)}
            added["added_cond_kwargs"] = ids
        return self.network(noisy.to(dtype), timesteps, stacked[_STATES], **added).sample.float()

    def _size_ids(self, latents: Tensor) -> Tensor:
        """SDXL's picture size, crop and target size: nothing scaled, nothing cropped."""
        height, width = (side * self.size_multiple for side in latents.shape[-2:])
        ids = torch.tensor([height, width, 0, 0, height, width], device=latents.device)
        return ids.float().repeat(len(latents), 1)

    def _decode(self, latents: Tensor) -> Tensor:
        shift, factor = _latent_scale(self._pipeline.vae)
        with _able_vae(self._pipeline.vae) as vae:
            parts = (latents / factor + shift).to(vae.device, vae.dtype).split(1)
            pixels = torch.cat([vae.decode(part).sample.float().cpu() for part in parts])
        return (pixels / 2 + 0.5).clamp(0, 1)


def _check(pipeline: object) -> None:
    kinds = (StableDiffusionPipeline, StableDiffusionXLPipeline)
    if not isinstance(pipeline, kinds):
        expected = " or ".join(kind.__name__ for kind in kinds)
        raise InputError("pipeline", f"a {expected}", type(pipeline).__name__)
    parts = pipeline.components.items()
    missing = [name for name, part in parts if part is None and name not in _NOT_USED]
    if missing:
        raise InputError("pipeline", "all its parts", f"none for {', '.join(missing)}")
    channels, latents = pipeline.unet.config.in_channels, pipeline.vae.config.latent_channels
    if channels != latents:
        raise InputError(
            "pipeline",
            f"a network that reads the {latents} channels of a latent",
            f"one that reads {channels}",
            "Choose a text-to-image model, not one for inpainting.",
        )


def _readers(pipeline: DiffusionPipeline) -> list[TextReader]:
    first = TextReader("clip_l", pipeline, pipeline.tokenizer, pipeline.text_encoder)
    if isinstance(pipeline, StableDiffusionPipeline):
        return [first]
    return [first, TextReader("clip_g", pipeline, pipeline.tokenizer_2, pipeline.text_encoder_2)]


def _weights_digest(network: nn.Module) -> str:
    """SHA-256 (hex) of the weights' names and of a sample of each, as ComfyUI's door has it.

    So what was made of a base there, negatives and states, is of the same base here.
    """
    weights = dict(network.named_parameters())
    try:
        names = original_names(list(weights), network.config.layers_per_block)
    except KeyError:  # adapters inside, or a layer that ComfyUI's families do not have
        names = {name: name for name in weights}
    digest = hashlib.sha256()
    feed_tensors(digest, {f"diffusion_model.{names[name]}": weights[name] for name in weights})
    # There, what is patched onto a model would follow.
    return hashlib.sha256(digest.hexdigest().encode()).hexdigest()


def _paths(network: nn.Module) -> list[str]:
    return list(trainable_layers(network))


def _alike(rows: Conditioning) -> list[list[int]]:
    """Places of the rows that fit into one batch, by batch."""
    batches: dict[object, list[int]] = {}
    for place, row in enumerate(rows):
        batches.setdefault(row_shape(row), []).append(place)
    return list(batches.values())


def _latent_scale(vae: AutoencoderKL) -> tuple[float, float]:
    """(shift, factor): the network sees (latent - shift) * factor."""
    return vae.config.shift_factor or 0.0, vae.config.scaling_factor


@contextmanager
def _able_vae(vae: AutoencoderKL) -> Iterator[AutoencoderKL]:
    """The autoencoder; for the block in float32 where it says that float16 overflows in it."""
    if vae.dtype != torch.float16 or not vae.config.force_upcast:
        yield vae
        return
    try:
        yield vae.float()
    finally:
        vae.half()
