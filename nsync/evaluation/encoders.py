"""Style encoders: networks that turn pictures into vectors whose nearness means something.

| name | what it is for | source |
|---|---|---|
| `csd` | style | arXiv 2404.01292 |
| `clip-l-14` | control beside CSD; prompt adherence | arXiv 2103.00020 |
| `clip-l-14-336` | CMMD; prompt adherence | arXiv 2401.09603 |
| `dinov2` | content, diversity | arXiv 2304.07193 |
| `inception` | FID, KID, Inception Score | the TensorFlow network of 2015-12-05 |
| `inception-imagenet` | FID and KID as the NSYNC paper has them | torchvision's Inception v3 |
| `sscd` | copies of training pictures | arXiv 2202.10261 |
| `ruler` | style in pictures of the tiny world | `nsync.tiny.ruler` |
| `ruler-content` | content in them | `nsync.tiny.ruler` |
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPTokenizerFast

from ..errors import InputError
from ..memory import Parts
from .preprocess import Preprocessing

OnItem = Callable[[int, int], None]
"""Called before each picture with (done, all); what it raises ends the work."""

BATCH = 8


class Encoder(Protocol):
    """What the evaluation knows of an encoder.

    Attributes:
        name: one of `NAMES` in `nsync.evaluation.loading`.
        identity: sha256 of the weights in hex.
        preprocessing: id of the way from pixels to the network's input.
        precision: "fp32" or "fp16", in which the network computes now.
        width: length of the vectors.
        notes: what a user should know of the weights, as phrases.
    """

    name: str
    identity: str
    preprocessing: str
    precision: str
    width: int
    notes: tuple[str, ...]

    def encode(self, pictures: Sequence[Tensor], on_item: OnItem | None = None) -> Tensor:
        """Vectors of pictures, float32 `[n, width]` in main memory.

        Args:
            pictures: uint8 `[3, h, w]` RGB of any sizes, as `as_pictures` gives them.
            on_item: progress.

        Returns:
            Rows of unit length; raw pool features for the two Inceptions.

        Raises:
            InputError: pictures of another kind; or the network gives NaN, as half precision may.
            OutOfMemoryError: not even one picture fits.
        """

    def to(self, device: torch.device | str, dtype: torch.dtype = torch.float32) -> "Encoder":
        """Move the network, and compute in float32 or float16 from now on; returns itself."""


class NetworkEncoder:
    """An encoder of unit vectors around a network; see `Encoder`."""

    unit = True

    def __init__(
        self,
        name: str,
        network: nn.Module,
        way: Preprocessing,
        identity: str,
        notes: tuple[str, ...] = (),
    ) -> None:
        self.name, self.identity, self.notes = name, identity, notes
        self.preprocessing = way.id
        self._prepare, self._network = way.prepare, network.eval().requires_grad_(False)
        self._device, self._dtype, self._parts = torch.device("cpu"), torch.float32, Parts(BATCH)
        self.width: int = network.width

    @property
    def precision(self) -> str:
        return "fp16" if self._dtype == torch.float16 else "fp32"

    @property
    def nbytes(self) -> int:
        """What the weights take, as they are now."""
        return sum(value.nbytes for value in self._network.parameters())

    def to(
        self, device: torch.device | str, dtype: torch.dtype = torch.float32
    ) -> "NetworkEncoder":
        """See `Encoder.to`."""
        if dtype not in (torch.float32, torch.float16):
            raise InputError("dtype", "float32 or float16", str(dtype))
        self._network.to(device, dtype)
        self._device, self._dtype, self._parts = torch.device(device), dtype, Parts(BATCH)
        return self

    @torch.no_grad()
    def encode(self, pictures: Sequence[Tensor], on_item: OnItem | None = None) -> Tensor:
        """See `Encoder.encode`."""
        vectors = [torch.empty(0, self.width)]
        for batch in _batches(self._prepared(pictures, on_item)):
            vectors.append(self._encoded(torch.stack(batch)))
        return torch.cat(vectors)

    def _prepared(self, pictures: Sequence[Tensor], on_item: OnItem | None) -> Iterator[Tensor]:
        for done, picture in enumerate(pictures):
            if on_item:
                on_item(done, len(pictures))
            if picture.dtype != torch.uint8 or picture.ndim != 3 or picture.shape[0] != 3:
                raise InputError("pictures", "uint8 [3, h, w]", f"{picture.dtype} {picture.shape}")
            yield self._prepare(picture)

    def _encoded(self, pixels: Tensor) -> Tensor:
        """Vectors of one batch, in smaller parts where memory runs out."""
        text = f"One picture does not fit into memory with {self.name}. Use the CPU."
        return self._parts(
            len(pixels), lambda part: self._through(pixels[part]), self._device, text
        )

    @torch.no_grad()
    def _through(self, pixels: Tensor) -> Tensor:
        with _exact():
            features = self._network(pixels.to(self._device, self._dtype)).float()
        if not features.isfinite().all():
            remedy = "Compute in fp32, or get the weight file again."
            raise InputError(self.name, "a network with finite vectors", "NaN or infinity", remedy)
        # In half precision a unit vector is none: cosines came out above 1.
        return (F.normalize(features, dim=1) if self.unit else features).cpu()


class ClipEncoder(NetworkEncoder):
    """CLIP's vision tower, and its text tower where there is one."""

    _text: nn.Module | None = None
    _tokenizer: CLIPTokenizerFast | None = None

    def with_text(self, tower: nn.Module, tokenizer: Path) -> "ClipEncoder":
        """Add a text tower.

        Args:
            tower: a `ClipText` of the same projection width.
            tokenizer: a folder with CLIP's `vocab.json` and `merges.txt`.

        Raises:
            InputError: no tokenizer there, or one of other words than the tower's.
        """
        rule = "a folder with CLIP's vocab.json and merges.txt"
        try:
            words = CLIPTokenizerFast.from_pretrained(tokenizer, local_files_only=True)
        except (OSError, ValueError, TypeError, AttributeError, ImportError) as error:
            raise InputError("tokenizer", rule, f"{str(tokenizer)!r} ({error})") from error
        if len(words) != tower.words:  # transformers 5 makes an empty one of an empty folder
            got = f"{str(tokenizer)!r} with {len(words)} words instead of {tower.words}"
            raise InputError("tokenizer", rule, got)
        self._text, self._tokenizer = tower, words
        return self

    def to(self, device: torch.device | str, dtype: torch.dtype = torch.float32) -> "ClipEncoder":
        """See `Encoder.to`; the text tower goes along."""
        super().to(device, dtype)
        if self._text is not None:
            self._text.to(device, dtype)
        return self

    @property
    def nbytes(self) -> int:
        """See `NetworkEncoder.nbytes`; the text tower's among them."""
        text = () if self._text is None else self._text.parameters()
        return super().nbytes + sum(value.nbytes for value in text)

    @property
    def reads_texts(self) -> bool:
        """Whether there is a text tower."""
        return self._text is not None

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors of texts, float32 `[n, width]` in main memory.

        A text is cut off after 77 tokens, its start and end signs among them, as CLIP knows no
        more. Placeholder words are noise to it: take the style token out first.

        Raises:
            InputError: this encoder has no text tower.
        """
        if self._text is None or self._tokenizer is None:
            remedy = "Choose a CLIP file with both towers, or a text file beside it."
            raise InputError(self.name, "an encoder with a text tower", "a vision tower", remedy)
        limits = {"max_length": self._text.tokens, "truncation": True, "padding": "max_length"}
        vectors = [torch.empty(0, self.width)]
        for start in range(0, len(texts), BATCH):
            words = list(texts[start : start + BATCH])
            tokens = self._tokenizer(words, return_tensors="pt", **limits).to(self._device)
            with _exact():
                features = self._text(tokens["input_ids"], tokens["attention_mask"]).float()
            vectors.append(F.normalize(features, dim=1).cpu())
        return torch.cat(vectors)


class PoolEncoder(NetworkEncoder):
    """An Inception network: pool features as they are."""

    unit = False

    def to(self, device: torch.device | str, dtype: torch.dtype = torch.float32) -> "PoolEncoder":
        """See `Encoder.to`; FID and its kin are defined in float32."""
        if dtype != torch.float32:
            raise InputError("dtype", f"float32 for {self.name}", str(dtype))
        super().to(device, dtype)
        return self


class InceptionEncoder(PoolEncoder):
    """The FID network: pool features, and class probabilities from them."""

    @torch.no_grad()
    def logits(self, features: Tensor) -> Tensor:
        """Class logits without the bias, float32 `[n, 1008]`, of pool features `[n, 2048]`.

        From the features, so that stored vectors serve the Inception Score as well.

        Source: `logits_unbiased` of torch-fidelity.
        """
        return features @ self._network.classes.detach().cpu().T

    def probabilities(self, features: Tensor) -> Tensor:
        """Class probabilities, float64 `[n, 1008]`, for the Inception Score."""
        return self.logits(features).double().softmax(1)


def _batches(pixels: Iterator[Tensor]) -> Iterator[list[Tensor]]:
    """Neighbours of one shape, at most `BATCH` of them at a time."""
    for _, same in groupby(pixels, key=lambda one: one.shape):
        batch: list[Tensor] = []
        for one in same:
            batch.append(one)
            if len(batch) == BATCH:
                yield batch
                batch = []
        if batch:
            yield batch


@contextmanager
def _exact() -> Iterator[None]:
    """Float32 that is float32: TensorFloat-32, cuDNN's default, has 10 bits and moves FID."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)
