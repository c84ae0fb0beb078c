"""SD1.5 and SDXL at full size without a byte of their weights: shapes and dtypes alone.

The networks, their attention and their text encoders are the host's own classes, and what trains
them is this project's code; `FakeTensorMode` lets both run without numbers. Imported inside the
host's process only.
"""

from collections.abc import Mapping
from types import SimpleNamespace

import comfy.sd1_clip
import torch
from bases import SD15, SIDES, network_config
from comfy.model_patcher import ModelPatcher
from nsync_style.nodes.host.adapter import HostDenoiser
from nsync_style.nsync.denoiser import Conditioning
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

_CPU = torch.device("cpu")


class FakeBase(HostDenoiser):
    """A base of the host as it is while it is trained, in fake tensors.

    Args:
        stored: dtype of the weights.
        computed: dtype of the network's arithmetic.
        text: the text encoder too, for training an embedding; of SD1.5 alone.
    """

    def __init__(
        self,
        base: str,
        mode: FakeTensorMode,
        stored: torch.dtype,
        computed: torch.dtype,
        text: bool,
    ) -> None:
        self.identity, self.words = base, {}
        self._base = base
        self._in_training, self._text_in_training = True, text
        with mode:
            config = network_config(base, stored)
            config.set_inference_dtype(stored, None if stored == computed else computed)
            model = config.get_model({}, "", device=_CPU).eval().requires_grad_(False)
            self._patcher = ModelPatcher(model, load_device=_CPU, offload_device=_CPU)
            self._clip = _text_encoder() if text else None
        self._format = self._patcher.get_model_object("latent_format")

    @property
    def text_encoders(self) -> Mapping[str, nn.Module]:
        """Those that are trained; the host keeps the others out of the GPU's memory meanwhile."""
        return super().text_encoders if self._text_in_training else {}

    @property
    def held(self) -> list[Tensor]:
        """The base's tensors on the GPU."""
        modules = [self.network, *self.text_encoders.values()]
        return [t for m in modules for t in (*m.parameters(), *m.buffers())]

    def latents(self) -> Tensor:
        """Those of a picture: `[c, h, w]`."""
        side = SIDES[self._base] // self._format.spacial_downscale_ratio
        return torch.zeros(self._format.latent_channels, side, side)

    def encode_prompts(self, texts: list[str]) -> Conditioning:
        """What the text encoders would make of prompts of up to 75 tokens."""
        if self._text_in_training:
            return super().encode_prompts(texts)
        if self._base == SD15:
            return [{"cross_attn": torch.zeros(1, 77, 768)} for _ in texts]
        return [
            {"cross_attn": torch.zeros(1, 77, 2048), "pooled_output": torch.zeros(1, 1280)}
            for _ in texts
        ]


def _text_encoder() -> SimpleNamespace:
    """What `HostDenoiser` asks of a CLIP: SD1's own tokenizer and text encoder, in float16."""
    tokenizer = comfy.sd1_clip.SD1Tokenizer()
    model = comfy.sd1_clip.SD1ClipModel(device=_CPU, dtype=torch.float16)
    return SimpleNamespace(
        tokenize=tokenizer.tokenize_with_weights,
        tokenizer=tokenizer,
        cond_stage_model=model.requires_grad_(False),
        layer_idx=None,
        patcher=SimpleNamespace(load_device=_CPU),
    )
