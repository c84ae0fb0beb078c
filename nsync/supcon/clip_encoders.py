"""CLIP as a pair of encoders: its towers, frozen unless asked otherwise, and a trained projection
on each side.

As a whole and in parts alike, a feature is what CLIP itself would compare, projected once more:
patches and words go through the same norm and projection as CLIP's own summary tokens. While the
projections are as wide as CLIP's space they begin as identities, so untrained it is CLIP.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel, CLIPTokenizerFast

from ..draws import seeded
from ..errors import InputError
from .encoders import Pictures, Words, check_captions, fitted

MEAN = (0.48145466, 0.4578275, 0.40821073)
DEVIATION = (0.26862954, 0.26130258, 0.27577711)
"""Of the pictures that CLIP was trained on, in 0..1 (`clip.py` of github.com/openai/CLIP)."""

_BOTH = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "hidden_act",
    "layer_norm_eps",
)
_TEXT = (*_BOTH, "vocab_size", "max_position_embeddings")
_VISION = (*_BOTH, "image_size", "patch_size", "num_channels")
"""What CLIP computes depends on these; the rest of a configuration differs between versions."""

_RULE = "a CLIP model for transformers (config.json, *.safetensors, and its tokenizer's files)"
_UNLOADABLE = (OSError, ValueError, LookupError, TypeError, AttributeError, ImportError)


class ClipEncoders(nn.Module):
    """See `nsync.supcon.encoders.Encoders`.

    Args:
        clip: the model; in float32.
        tokenizer: of its words, as the JSON of a `tokenizers.Tokenizer` that puts the start and end
            tokens around a text.
        width: of the features; that of CLIP's space if None.
        trains_towers: train CLIP itself too; an attribute as well.

    Raises:
        InputError: a tokenizer with more words than the model has.
    """

    kind: ClassVar[str] = "clip"

    def __init__(
        self,
        clip: CLIPModel,
        tokenizer: str,
        width: int | None = None,
        trains_towers: bool = False,
    ) -> None:
        super().__init__()
        config = clip.config
        self._json, self._tokenizer = tokenizer, Tokenizer.from_str(tokenizer)
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        if (count := self._tokenizer.get_vocab_size()) > config.text_config.vocab_size:
            expected = f"at most {config.text_config.vocab_size} words, as many as the model has"
            raise InputError("tokenizer", expected, str(count))
        self.width = width or config.projection_dim
        self.image_size = config.vision_config.image_size
        self.longest = config.text_config.max_position_embeddings
        self.clip = clip.requires_grad_(trains_towers)
        clip.logit_scale.requires_grad_(False)  # of CLIP's own loss; nothing here reads it
        self.trains_towers = trains_towers
        self.project_images = _projection(config.projection_dim, self.width, "images")
        self.project_texts = _projection(config.projection_dim, self.width, "texts")

    @classmethod
    def from_folder(
        cls, folder: Path, width: int | None = None, trains_towers: bool = False
    ) -> "ClipEncoders":
        """CLIP from a folder in transformers' layout; nothing is downloaded.

        Raises:
            InputError: no such folder, no CLIP in it, or parts are missing.
        """
        loading = {"local_files_only": True, "use_safetensors": True, "output_loading_info": True}
        try:
            clip, found = CLIPModel.from_pretrained(folder, **loading)
        except _UNLOADABLE as error:
            raise InputError(str(folder), _RULE, f"{type(error).__name__}: {error}") from error
        if found["missing_keys"]:
            missing = sorted(found["missing_keys"])
            raise InputError(str(folder), _RULE, f"{len(missing)} missing, such as {missing[0]}")
        return cls(clip.float(), read_tokenizer(folder), width, trains_towers)

    @classmethod
    def from_tensors(
        cls,
        config: Mapping[str, Any],
        tensors: Mapping[str, Tensor],
        tokenizer: str,
        width: int | None = None,
        trains_towers: bool = False,
    ) -> "ClipEncoders":
        """CLIP from the tensors of a `CLIPModel`.

        Args:
            config: as in transformers' config.json.
            tensors: by transformers' names.

        Raises:
            InputError: tensors are missing, left over or of another shape.
        """
        clip = CLIPModel(CLIPConfig.from_dict(dict(config)))
        # Old files hold these counts, which are no weights.
        kept = {k: v for k, v in tensors.items() if not k.endswith(".position_ids")}
        try:
            clip.load_state_dict(kept)
        except RuntimeError as error:
            raise InputError(
                "tensors", "those of a CLIP model of this config", str(error)
            ) from error
        return cls(clip.float(), tokenizer, width, trains_towers)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "ClipEncoders":
        """Some with the shapes of a file's."""
        clip = CLIPModel(CLIPConfig.from_dict(config["clip"]))
        return cls(clip, config["tokenizer"], config["width"], config["trains_towers"])

    @property
    def config(self) -> dict[str, Any]:
        """What `from_config` makes the same shapes of."""
        return {
            "clip": _shapes(self.clip.config),
            "tokenizer": self._json,
            "width": self.width,
            "trains_towers": self.trains_towers,
        }

    def train(self, mode: bool = True) -> "ClipEncoders":
        """As for every module; frozen towers stay in evaluation mode."""
        super().train(mode)
        self.clip.train(mode and self.trains_towers)
        return self

    def images(self, pixels: Tensor) -> Pictures:
        """See `Encoders.images`; the regions are CLIP's patches."""
        tokens = self.project_images(self.compared_pictures(pixels))
        return Pictures(tokens[:, 0], tokens[:, 1:])

    def compared_pictures(self, pixels: Tensor) -> Tensor:
        """What is projected: `[n, 1 + r, p]` in CLIP's own space, the whole and then its patches.

        Raises:
            InputError: see `Encoders.images`.
        """
        pixels = fitted(self, pixels)
        mean, deviation = (pixels.new_tensor(v)[:, None, None] for v in (MEAN, DEVIATION))
        tower = self.clip.vision_model
        states = tower(pixel_values=(pixels / 2 + 0.5 - mean) / deviation).last_hidden_state
        return self.clip.visual_projection(tower.post_layernorm(states))

    def texts(self, captions: Sequence[str]) -> Words:
        """See `Encoders.texts`; the words are CLIP's tokens without start and end."""
        compared, ends = self._compared(captions)
        tokens = self.project_texts(compared)
        columns = tokens.shape[1]
        mask = torch.arange(1, columns - 1, device=ends.device) < ends[:, None]
        return Words(_at(tokens, ends), tokens[:, 1:-1] * mask[..., None], mask)

    def compared_sentences(self, captions: Sequence[str]) -> Tensor:
        """What is projected: `[n, p]` in CLIP's own space.

        Raises:
            InputError: see `Encoders.texts`.
        """
        return _at(*self._compared(captions))

    def _compared(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Tokens `[n, l, p]` and where each text ends."""
        check_captions(self, ((repr(caption), caption) for caption in captions))
        rows = [self._numbers(caption) for caption in captions]
        columns = max(3, *map(len, rows))  # start and end, and at least one between them
        # Behind the end anything may stand: CLIP looks back only.
        padded = [row + row[-1:] * (columns - len(row)) for row in rows]
        device = self.project_texts.weight.device
        ends = torch.tensor([len(row) - 1 for row in rows], device=device)
        numbers = torch.tensor(padded, device=device)
        states = self.clip.text_model(input_ids=numbers).last_hidden_state
        return self.clip.text_projection(states), ends

    def tokens(self, caption: str) -> int:
        """How many tokens a text takes, start and end among them."""
        return len(self._numbers(caption))

    def unknown(self, caption: str) -> list[str]:
        """None: CLIP spells what is no word of its own."""
        return []

    def _numbers(self, caption: str) -> list[int]:
        return self._tokenizer.encode(caption).ids


def read_tokenizer(folder: Path) -> str:
    """CLIP's tokenizer from a folder with its `tokenizer.json`, or `vocab.json` and `merges.txt`.

    Raises:
        InputError: there is none.
    """
    try:
        words = CLIPTokenizerFast.from_pretrained(folder, local_files_only=True)
    except _UNLOADABLE as error:
        rule = "a folder with CLIP's vocab.json and merges.txt"
        raise InputError("tokenizer", rule, f"{str(folder)!r} ({error})") from error
    return words.backend_tokenizer.to_str()


def _at(tokens: Tensor, ends: Tensor) -> Tensor:
    return tokens[torch.arange(len(tokens), device=tokens.device), ends]


def _shapes(config: CLIPConfig) -> dict[str, Any]:
    return {
        "projection_dim": config.projection_dim,
        "text_config": {name: getattr(config.text_config, name) for name in _TEXT},
        "vision_config": {name: getattr(config.vision_config, name) for name in _VISION},
    }


def _projection(inputs: int, outputs: int, side: str) -> nn.Linear:
    layer = nn.utils.skip_init(nn.Linear, inputs, outputs)
    with seeded(0, "clip encoders", side), torch.no_grad():
        if inputs == outputs:
            nn.init.eye_(layer.weight)
        else:
            nn.init.orthogonal_(layer.weight)
        layer.bias.zero_()
    return layer
