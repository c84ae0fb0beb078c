"""The contract of `nsync.denoiser` met by a diffusers pipeline."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from diffusers import AutoencoderKL, DiffusionPipeline
from torch import Tensor, nn

from ..denoiser import Conditioning, Row, SamplerSettings, Word, row_shape
from ..errors import InputError
from ..identity import feed_tensors
from ..memory import Parts, pictures_at_once, too_large
from .family import Family, Names
from .flux import Flux
from .lora_names import spellings
from .schedule import NoiseSchedule
from .stable_diffusion import StableDiffusion, StableDiffusionXL
from .stable_diffusion_3 import StableDiffusion3
from .unet_names import original_names

FAMILIES: tuple[type[Family], ...] = (StableDiffusion, StableDiffusionXL, StableDiffusion3, Flux)


class DiffusersDenoiser:
    """A Stable Diffusion 1, 2, XL, 3 or Flux pipeline, or the tiny base's, as a `Denoiser`.

    The pipeline is shared, not copied: its modules may be moved, trained and adapted, and are seen
    here as they then are; a T5 is frozen. A LoRA is trained where none of PEFT or diffusers is
    loaded, see `nsync.adapters.check_bare`. Scheduler, safety checker and watermark take no part.

    Args:
        pipeline: as `from_pretrained` gives it, with all its parts.

    Raises:
        InputError: a pipeline of another kind, one without some part, or one whose base predicts
            neither noise nor velocity.
    """

    def __init__(self, pipeline: DiffusionPipeline) -> None:
        self._pipeline, self._family = pipeline, _family(pipeline)
        self._schedule = NoiseSchedule(pipeline.scheduler, self._family.patch)
        self.identity = _weights_digest(self.network)
        self.companions: dict[str, str] = {}  # a run may have begun at ComfyUI's door
        self.size_multiple = pipeline.vae_scale_factor * self._family.patch
        self.words: dict[str, Word] = {}
        for reader in self._family.readers:
            if reader.name not in self._family.adapted:
                reader.encoder.requires_grad_(False)

    @property
    def device(self) -> torch.device:
        """Where `loss` computes."""
        return self.network.device

    @property
    def network(self) -> nn.Module:
        """The pipeline's own UNet or transformer."""
        return self._family.network

    @property
    def text_encoders(self) -> Mapping[str, nn.Module]:
        """The pipeline's own CLIPs: `clip_l` (of Stable Diffusion 2 `clip_h`) and `clip_g`."""
        adapted = self._family.adapted
        return {one.name: one.encoder for one in self._family.readers if one.name in adapted}

    @property
    def lora_names(self) -> Names:
        """What a LoRA file calls every layer, by key, in names that ComfyUI takes as well."""
        return self._family.lora_names()

    @property
    def lora_spellings(self) -> dict[str, str]:
        """The layer's key by every name that a LoRA file may have for it."""
        return spellings(self.lora_names)

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
        return self._family.rows(texts, self.words)

    def word_vectors(self, text: str) -> dict[str, Tensor]:
        """Float32 `[tokens, width]` by text encoder: the token tables' rows for the text."""
        return {reader.name: reader.vectors(text) for reader in self._family.readers}

    def prompt_tokens(self, text: str) -> tuple[int, int]:
        """(tokens that the prompt takes, tokens read at once) of the encoder that reads most; of
        several such the one with least room."""
        readers = self._family.readers
        limit = max(reader.limit for reader in readers)
        most = [reader for reader in readers if reader.limit == limit]
        return max(reader.count(text, self.words) for reader in most), limit

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
        """For the block, the network computes its blocks' activations again in backward."""
        network = self.network
        if network.is_gradient_checkpointing:
            yield
            return
        network.enable_gradient_checkpointing()
        try:
            yield
        finally:
            network.disable_gradient_checkpointing()

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
            OutOfMemoryError: not even one picture fits into memory.
        """
        noise = self._noise(seeds, size)
        rows, unwanted = self.encode_prompts(prompts), self.encode_prompts([negative_prompt])[0]

        def drawn(part: slice) -> Tensor:
            begin = None if latents is None else latents[part].to(self.device)
            predict = partial(
                self._guided, rows=rows[part], unwanted=unwanted, guidance=settings.guidance
            )
            return self._decode(self._schedule.draw(predict, noise[part], settings, begin, denoise))

        return Parts(pictures_at_once(size))(len(rows), drawn, self.device, too_large(size))

    def check_drawing(self, size: tuple[int, int], settings: SamplerSettings) -> None:
        """Refuse what `generate` would refuse, before any work.

        Raises:
            InputError: there is no such sampler or scheduler here, or the size does not fit.
        """
        self._check_size(size)
        self._schedule.check(settings)

    def _check_size(self, size: tuple[int, int]) -> None:
        multiple = self.size_multiple
        if any(side % multiple for side in size):
            raise InputError("size", f"multiples of {multiple} pixels", f"{size[0]} x {size[1]}")

    def _noise(self, seeds: Sequence[int], size: tuple[int, int]) -> Tensor:
        self._check_size(size)
        factor = self._pipeline.vae_scale_factor
        shape = (self._family.channels, size[1] // factor, size[0] // factor)
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
        dtype = torch.float32 if autocast else self.network.dtype
        given = {
            name: torch.stack([row[name] for row in rows]).to(self.device, dtype)
            for name in rows[0]
        }
        return self._family.predict(noisy.to(dtype), timesteps.expand(len(noisy)), given).float()

    def _decode(self, latents: Tensor) -> Tensor:
        shift, factor = _latent_scale(self._pipeline.vae)
        with _able_vae(self._pipeline.vae) as vae:
            parts = (latents / factor + shift).to(vae.device, vae.dtype).split(1)
            pixels = torch.cat([vae.decode(part).sample.float().cpu() for part in parts])
        return (pixels / 2 + 0.5).clamp(0, 1)


def _family(pipeline: object) -> Family:
    """The pipeline as one of its family.

    Raises:
        InputError: there is no such family here, or a part is missing or for another task.
    """
    family = next((one for one in FAMILIES if isinstance(pipeline, one.kind)), None)
    if family is None:
        expected = " or ".join(one.kind.__name__ for one in FAMILIES)
        raise InputError("pipeline", f"a {expected}", type(pipeline).__name__)
    there = {part for part in family.parts if getattr(pipeline, part) is not None}
    spared = () if there.intersection(family.optional) else family.optional
    missing = [part for part in family.parts if part not in there and part not in spared]
    if missing:
        raise InputError("pipeline", "all its parts", f"none for {', '.join(missing)}")
    made, latents = family(pipeline), pipeline.vae.config.latent_channels
    if made.channels != latents:
        raise InputError(
            "pipeline",
            f"a network that reads the {latents} channels of a latent",
            f"one that reads {made.channels}",
            "Choose a text-to-image model, not one for inpainting.",
        )
    return made


def _weights_digest(network: nn.Module) -> str:
    """SHA-256 (hex) of the weights' names and of a sample of each.

    Of a UNet it is what ComfyUI's door has: what was made of a base there, negatives and states, is
    of the same base here.
    """
    weights = dict(network.named_parameters())
    try:
        names = original_names(list(weights), network.config.get("layers_per_block"))
    except KeyError:  # adapters inside, or a network that is not of ComfyUI's UNets
        names = {name: name for name in weights}
    digest = hashlib.sha256()
    feed_tensors(digest, {f"diffusion_model.{names[name]}": weights[name] for name in weights})
    # There, what is patched onto a model would follow.
    return hashlib.sha256(digest.hexdigest().encode()).hexdigest()


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
