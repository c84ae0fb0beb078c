"""Encoders from weight files."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..tiny import RULER_FILE
from ..tiny.ruler import Ruler
from . import preprocess as ways
from .catalogue import compared
from .convnets import FidInception, ImageNetInception, RulerContent, RulerStyle, Sscd
from .encoders import ClipEncoder, InceptionEncoder, NetworkEncoder, PoolEncoder
from .layouts import clip_towers, csd_tower, dinov2
from .networks import DINO_B, DINO_L, VIT_L_14, VIT_L_14_336, ClipText, ClipVision, Dino, Sizes
from .preprocess import Preprocessing, as_in_the_paper
from .weights import identity, read_weights

SIZES: dict[str, list[Sizes]] = {
    "csd": [VIT_L_14],
    "clip-l-14": [VIT_L_14],
    "clip-l-14-336": [VIT_L_14_336],
    "dinov2": [DINO_B, DINO_L],
}
"""The networks that count as an encoder's."""


@dataclass(frozen=True)
class _File:
    """A weight file as it was read."""

    name: str
    tensors: dict
    notes: tuple[str, ...]


def load_encoder(
    name: str,
    file: Path | None = None,
    *,
    text_file: Path | None = None,
    tokenizer: Path | None = None,
    way: Preprocessing | None = None,
    as_paper: bool = False,
) -> NetworkEncoder:
    """An encoder on the CPU in float32, ready to use.

    Args:
        name: one of `NAMES`.
        file: its weights; none for `ruler`.
        text_file: for CLIP, the text tower where `file` has none.
        tokenizer: for CLIP, a folder with its `vocab.json` and `merges.txt`; with it the encoder
            knows texts as well.
        way: another preprocessing than the metric's own, such as `SSCD_288`.
        as_paper: resize to 256 x 256 first, as the NSYNC paper did.

    Returns:
        A `ClipEncoder` for the two CLIP names, an `InceptionEncoder` for `inception`, a
        `PoolEncoder` for `inception-imagenet`.

    Raises:
        InputError: unknown name, no file, a damaged file, or one of another network.
    """
    if name not in NAMES:
        raise InputError("encoder", "one of " + ", ".join(NAMES), repr(name))
    way = way or _WAYS[name]
    way = as_in_the_paper(way) if as_paper else way
    if name in _RULERS:
        return _ruler(name, way)
    if file is None:
        raise InputError(name, "a weight file", "none")
    source = _read(name, Path(file))
    encoder = _LOADERS[name](name, source, way)
    if isinstance(encoder, ClipEncoder) and tokenizer is not None:
        _add_text(encoder, source, text_file, tokenizer)
    return encoder


def _read(name: str, file: Path) -> _File:
    tensors, notes = read_weights(file)
    return _File(file.name, tensors, (compared(name, file), *notes))


def _csd(name: str, file: _File, way: Preprocessing) -> NetworkEncoder:
    tower = csd_tower(file.tensors, file.name)
    network = ClipVision(tower, SIZES[name], file.name)
    return NetworkEncoder(name, network, way, identity(tower), file.notes)


def _clip(name: str, file: _File, way: Preprocessing) -> ClipEncoder:
    tower = clip_towers(file.tensors, file.name).vision
    network = ClipVision(tower, SIZES[name], file.name)
    return ClipEncoder(name, network, way, identity(tower), file.notes)


def _dino(name: str, file: _File, way: Preprocessing) -> NetworkEncoder:
    tensors = dinov2(file.tensors, file.name)
    network = Dino(tensors, SIZES[name], file.name)
    return NetworkEncoder(name, network, way, identity(tensors), file.notes)


def _inception(name: str, file: _File, way: Preprocessing) -> InceptionEncoder:
    network = FidInception(file.tensors, file.name)
    return InceptionEncoder(name, network, way, identity(network.state_dict()), file.notes)


def _imagenet(name: str, file: _File, way: Preprocessing) -> PoolEncoder:
    network = ImageNetInception(file.tensors, file.name)
    return PoolEncoder(name, network, way, identity(network.state_dict()), file.notes)


def _sscd(name: str, file: _File, way: Preprocessing) -> NetworkEncoder:
    network = Sscd(file.tensors, file.name)
    return NetworkEncoder(name, network, way, identity(network.state_dict()), file.notes)


def _ruler(name: str, way: Preprocessing) -> NetworkEncoder:
    network = _RULERS[name](Ruler.load(RULER_FILE))
    return NetworkEncoder(name, network, way, identity(network.state_dict()))


def _add_text(encoder: ClipEncoder, file: _File, text_file: Path | None, tokenizer: Path) -> None:
    """Give the encoder the file's own text tower, or that of another file."""
    tower, name = clip_towers(file.tensors, file.name).text, file.name
    if not tower and text_file is not None:
        tensors, _ = read_weights(Path(text_file))
        name = Path(text_file).name
        tower = clip_towers(tensors, name).text
    if not tower:
        remedy = "Give a text file beside it, or a CLIP file with both towers."
        raise InputError(name, "a CLIP text tower", "a file without one", remedy)
    text = ClipText(tower, name)
    if text.width != encoder.width:
        got = f"one of width {text.width}"
        raise InputError(name, f"a text tower of width {encoder.width}, as the pictures'", got)
    encoder.with_text(text, tokenizer)


_LOADERS: dict[str, Callable[[str, _File, Preprocessing], NetworkEncoder]] = {
    "csd": _csd,
    "clip-l-14": _clip,
    "clip-l-14-336": _clip,
    "dinov2": _dino,
    "inception": _inception,
    "inception-imagenet": _imagenet,
    "sscd": _sscd,
}
_RULERS = {"ruler": RulerStyle, "ruler-content": RulerContent}
_WAYS: dict[str, Preprocessing] = {
    "csd": ways.CLIP_224,
    "clip-l-14": ways.CLIP_224,
    "clip-l-14-336": ways.CMMD_336,
    "dinov2": ways.DINOV2_224,
    "inception": ways.INCEPTION_299,
    "inception-imagenet": ways.INCEPTION_TORCH_299,
    "sscd": ways.SSCD_320,
    "ruler": ways.RULER_64,
    "ruler-content": ways.RULER_64,
}
NAMES = (*_LOADERS, *_RULERS)
"""The encoders there are."""
