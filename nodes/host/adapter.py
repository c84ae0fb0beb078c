"""The contract of `nsync.denoiser` met with the objects on ComfyUI's sockets."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import comfy.model_management as management
import comfy.sample
import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP, VAE
from torch import Tensor, nn

from ...nsync.denoiser import Conditioning, Row, SamplerSettings, Word
from ...nsync.errors import InputError
from ...nsync.memory import Parts, too_large
from .attention import attention_with_gradient
from .checkpointing import checkpointing
from .conditioning import encode_loaded, encode_tokens, network_inputs
from .identity import companions_of, identity_of
from .interrupts import heeded_later
from .noise_levels import check_trainable, error_scale, noise_levels, signal_to_noise
from .sampling import at_once, check_names, draw
from .trainable import load_whole, trainable, training_flag, whole_model
from .words import marked_tokens, text_encoders, token_ids, tokenize


class HostDenoiser:
    """A MODEL, a CLIP and a VAE as one `Denoiser`; the objects on the sockets are never changed.

    Args:
        model, clip, vae: as they came from the sockets.

    Raises:
        InputError: one of them is missing, or the model was not trained to take out noise.
    """

    def __init__(self, model: ModelPatcher, clip: CLIP, vae: VAE) -> None:
        for name, value in (("model", model), ("clip", clip), ("vae", vae)):
            if value is None:
                remedy = "The checkpoint may hold none; load it with a node of its own."
                raise InputError(name, f"a {name.upper()}", "nothing", remedy)
        check_trainable(model.get_model_object("model_sampling"))
        self._patcher, self._clip, self._vae = model.clone(), clip, vae
        self._format = model.get_model_object("latent_format")
        self._in_training = self._text_in_training = False
        self.identity, self.companions = identity_of(model), companions_of(model, clip, vae)
        self.words: dict[str, Word] = {}

    @property
    def device(self) -> torch.device:
        """Where `loss` computes."""
        return self._patcher.load_device

    @property
    def network(self) -> nn.Module:
        """The diffusion model itself, shared with the socket: whoever changes it changes it back.

        Inside `trainable()` it may be another copy than outside.
        """
        return self._patcher.model.diffusion_model

    @property
    def text_encoders(self) -> dict[str, nn.Module]:
        """The host's text encoders by its own names ("clip_l"), shared with the socket."""
        return text_encoders(self._clip)

    @property
    def size_multiple(self) -> int:
        """Pixels per latent, times the patch of a transformer."""
        patch = getattr(self.network, "patch_size", None) or 1
        side = patch if isinstance(patch, int) else max(patch)
        return self._format.spacial_downscale_ratio * side

    @contextmanager
    def trainable(self, dtype: torch.dtype | None = None, text: bool = False) -> Iterator[None]:
        """The model loaded and fit for autograd; afterwards it draws what it drew before, bitwise.

        Args:
            dtype: of the network's arithmetic; None keeps the host's choice, often float16, in
                which small gradients vanish. The weights stay as they are stored.
            text: the text encoders too; `encode_prompts` is differentiable then.

        Raises:
            InputError: the model lies in dynamic VRAM and cannot be loaded again; see
                `whole_model`.
        """
        socket, clip = self._patcher, self._clip
        with torch.inference_mode(False):
            self._patcher = whole_model(socket)
            if dtype not in (None, self._patcher.model.get_dtype_inference()):
                self._patcher.set_model_compute_dtype(dtype)
            if text:
                self._clip = _whole_clip(clip, self.device)
        self._loaded = [self._patcher, *([self._clip.patcher] if text else [])]
        try:
            with trainable(self._loaded):
                self._in_training, self._text_in_training = True, text
                yield
        finally:
            self._patcher, self._clip = socket, clip
            self._in_training = self._text_in_training = False

    def reload(self) -> None:
        """Have what is in training on its device again, if it is: who made room may have moved it.

        Outside inference mode, since tensors made here may become weights.
        """
        if self._in_training:
            load_whole(self._loaded)

    def encode_images(self, pixels: Tensor) -> Tensor:
        """Pixels `[n, 3, h, w]` in 0..1 to latents `[n, c, ...]` in the model's scale, float32."""
        latents = []
        with torch.inference_mode():
            for picture in pixels.movedim(1, -1):  # a video's VAE would take a batch for frames
                latent = self._vae.encode(picture[None])
                latents.append(self._patcher.model.process_latent_in(latent.float()).cpu())
        return _normal(torch.cat(latents))

    @heeded_later()
    def encode_prompts(self, texts: Sequence[str]) -> Conditioning:
        """One row per prompt, as the host's text encoder makes it, under the host's names."""
        rows = self._encode(texts)
        if self._text_in_training:
            return rows
        return [{name: _normal(value) for name, value in row.items()} for row in rows]

    def word_vectors(self, text: str) -> dict[str, Tensor]:
        """The rows of the token tables that the text's tokens have, float32 copies."""
        encoders = self.text_encoders
        tables = {n: encoders[n].get_input_embeddings().weight for n in encoders}
        with torch.inference_mode(False):
            return {
                name: tables[name].detach().clone()[ids].float().cpu()
                for name, ids in token_ids(self._clip, text).items()
            }

    def prompt_tokens(self, text: str) -> tuple[int, int]:
        """(tokens that the prompt takes, tokens read at once) of the encoder that reads most."""
        counts, tokens = [], marked_tokens(self._clip, text, self.words, return_word_ids=True)
        for name, chunks in tokens.items():
            if _part(self._clip.cond_stage_model, name) is None:
                continue  # SD3 without its T5
            tokenizer = _part(self._clip.tokenizer, name)
            words = sum(token[2] != 0 for chunk in chunks for token in chunk)
            ends = ("start_token", "end_token")
            used = words + sum(getattr(tokenizer, end, None) is not None for end in ends)
            counts.append((used, getattr(tokenizer, "max_length", len(chunks[0]))))
        return max(counts, key=lambda count: count[1] - count[0])

    @heeded_later()
    def loss(
        self, latents: Tensor, conditioning: Conditioning, noise: Tensor, times: Tensor
    ) -> Tensor:
        """Per-sample loss `[n]`, float32: of the noise, the v or the flow velocity, as trained."""
        if not self._in_training:
            management.load_models_gpu([self._patcher])
        model = self._patcher.model
        sigmas = noise_levels(model.model_sampling, times).to(latents.device)
        noisy = model.model_sampling.noise_scaling(sigmas, noise, latents)
        errors = [None] * len(latents)
        for rows, inputs in network_inputs(model, conditioning, latents):
            options = {**self._patcher.model_options["transformer_options"]}
            options |= {"cond_or_uncond": [0], "sigmas": sigmas[rows]}
            options["optimized_attention_override"] = attention_with_gradient
            denoised = model.apply_model(
                noisy[rows], sigmas[rows], transformer_options=options, **inputs
            )
            for row, error in zip(rows, latents[rows] - denoised, strict=True):
                errors[row] = error
        scale = error_scale(model.model_sampling, sigmas)
        return torch.stack(errors).flatten(1).float().square().mean(1) * scale.square()

    def min_snr(self, times: Tensor, gamma: float) -> Tensor:
        """min(SNR, gamma) / s^2 `[n]`; see `nsync.denoiser`."""
        sampling = self._patcher.model.model_sampling
        sigmas = noise_levels(sampling, times)
        scale = error_scale(sampling, sigmas)
        return signal_to_noise(sampling, sigmas).clamp(max=gamma) / scale.square()

    def checkpointing(self) -> AbstractContextManager[None]:
        """Activations of the network's blocks are computed again in backward."""
        return checkpointing(self.network)

    def check_drawing(self, settings: SamplerSettings, size: tuple[int, int]) -> None:
        """Refuse what `generate` cannot draw.

        Raises:
            InputError: the host knows no such sampler or scheduler, or width or height do not fit.
        """
        check_names(settings)
        ratio = self._format.spacial_downscale_ratio
        for name, side in zip(("width", "height"), size, strict=True):
            if side % ratio:
                raise InputError(name, f"a multiple of {ratio} pixels", str(side))

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
        """Draw as the host's KSampler does: a picture depends on its own prompt and seed alone.

        Raises:
            InputError: see `check_drawing`.
            OutOfMemoryError: not even one picture fits into memory.
        """
        self.check_drawing(settings, size)
        with self._drawing(), torch.random.fork_rng(devices=[]):  # the host seeds the process
            rows, unwanted = self._encode(prompts), self._encode([negative_prompt])
            starts = self._starts(len(rows), size, latents)

            def drawn(part: slice) -> Tensor:
                given = rows[part], unwanted, seeds[part], starts[part]
                return draw((self._patcher, self._vae), *given, settings, denoise)

            parts = Parts(at_once(rows, size, settings))
            return _normal(parts(len(rows), drawn, self.device, too_large(size)))

    def _encode(self, texts: Sequence[str]) -> list[Row]:
        encode = encode_loaded if self._text_in_training else encode_tokens
        # Tensors of inference mode are of no use to text encoders that are being trained.
        with nullcontext() if self._text_in_training else torch.inference_mode():
            prompts = [tokenize(self._clip, text, self.words) for text in texts]
            return [encode(self._clip, prompt) for prompt in prompts]

    def _starts(self, count: int, size: tuple[int, int], latents: Tensor | None) -> Tensor:
        if latents is not None:
            return self._patcher.model.process_latent_out(latents)
        ratio = self._format.spacial_downscale_ratio
        shape = (count, self._format.latent_channels, size[1] // ratio, size[0] // ratio)
        return comfy.sample.fix_empty_latent_channels(self._patcher, torch.zeros(shape))

    @contextmanager
    def _drawing(self) -> Iterator[None]:
        if not self._in_training:
            with torch.inference_mode():
                yield
            return
        # Tensors made now may become weights of the model in training: no inference mode.
        with torch.no_grad(), training_flag(False):
            try:
                yield
            finally:
                self.reload()  # the VAE may have taken their place


def _whole_clip(clip: CLIP, device: torch.device) -> CLIP:
    """A clone whose text encoders can be trained beside the model, on its device."""
    whole = clip.clone()
    whole.patcher = whole_model(clip.patcher)
    whole.patcher.load_device = device
    whole.cond_stage_model = whole.patcher.model
    return whole


def _part(owner: object, name: str) -> object | None:
    """The tokenizer or encoder of one kind of tokens: of "l" it is `clip_l`, of "t5xxl" `t5xxl`."""
    names = [known for known in (f"clip_{name}", name) if hasattr(owner, known)]
    return getattr(owner, names[0]) if names else owner


def _normal(value: Tensor) -> Tensor:
    with torch.inference_mode(False):
        return value.clone()
