"""The published weight files: what they are called, how to know them, where they come from.

Nothing here is downloaded unless somebody calls `download`.
"""

import hashlib
import http.client
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..files import atomic_path

STYLE_FOLDER, CLIP_FOLDER = "style_eval", "clip_vision"
"""Model folders, by the names that the host gives them."""

_BLOCK = 1 << 22  # bytes
_PATIENCE = 60  # seconds without a byte
_DIGITS = 64  # of a whole sha256 in hex

OnBytes = Callable[[int, int], None]
"""Called with (bytes so far, bytes in all or 0 if unknown); what it raises ends the work."""


@dataclass(frozen=True)
class WeightFile:
    """A published file.

    Attributes:
        name: what it is called on the disk here.
        address: where its publisher has it, at a fixed revision where there is such a thing.
        licence: of the weights.
        folder: the model folder that it belongs in.
        size: bytes, 0 where nobody has told.
        sha256: in hex, its first digits where no more was told, empty where nothing was.
    """

    name: str
    address: str
    licence: str
    folder: str
    size: int = 0
    sha256: str = ""

    def text(self) -> str:
        """The file in words, with all that is known of it."""
        size = f"{self.size:,} bytes" if self.size else "size not published"
        more = "..." if len(self.sha256) < _DIGITS else ""
        sha256 = f"sha256 {self.sha256}{more}" if self.sha256 else "sha256 not published"
        return f"{self.name} ({size}, {sha256}, {self.licence}) from {self.address}"

    def has_hash(self, sha256: str) -> bool:
        """Whether a file's sha256 in hex is this one's, as far as that was told."""
        return sha256.startswith(self.sha256)


_HUB, _META = "https://huggingface.co", "https://dl.fbaipublicfiles.com"

CATALOGUE: dict[str, tuple[WeightFile, ...]] = {
    "csd": (
        WeightFile(
            "csd_vit_l.bin",
            f"{_HUB}/tomg-group-umd/CSD-ViT-L/resolve/"
            "5bc26a6fb0487f3f00a2a7313135103a005b1b67/pytorch_model.bin",
            "CC-BY-4.0",
            STYLE_FOLDER,
            2_438_228_893,
            "40e92fad63a361b8136100cd234c42d401ef9b34ff1748234318929ebcc7e7a1",
        ),
    ),
    "clip-l-14": (
        WeightFile(
            "clip-vit-large-patch14.safetensors",
            f"{_HUB}/openai/clip-vit-large-patch14/resolve/"
            "32bd64288804d66eefd0ccbe215aa642df71cc41/model.safetensors",
            "MIT",
            CLIP_FOLDER,
            1_710_540_580,
            "a2bf730a0c7debf160f7a6b50b3aaf3703e7e88ac73de7a314903141db026dcb",
        ),
    ),
    "clip-l-14-336": (
        WeightFile(
            "clip-vit-large-patch14-336.bin",
            f"{_HUB}/openai/clip-vit-large-patch14-336/resolve/"
            "ce19dc912ca5cd21c8a653c79e251e808ccabcd1/pytorch_model.bin",
            "MIT",
            CLIP_FOLDER,
            1_711_974_081,
            "c6032c2e0caae3dc2d4fba35535fa6307dbb49df59c7e182b1bc4b3329b81801",
        ),
    ),
    "dinov2": (
        WeightFile(
            "dinov2_vitb14_pretrain.pth",
            f"{_META}/dinov2/dinov2_vitb14/dinov2_vitb14_pretrain.pth",
            "Apache-2.0",
            STYLE_FOLDER,
            346_378_731,
            "0b8b82f85de91b424aded121c7e1dcc2b7bc6d0adeea651bf73a13307fad8c73",
        ),
        WeightFile(
            "dinov2_vitl14_pretrain.pth",
            f"{_META}/dinov2/dinov2_vitl14/dinov2_vitl14_pretrain.pth",
            "Apache-2.0",
            STYLE_FOLDER,
            1_217_586_395,
            "d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428",
        ),
    ),
    "inception": (
        WeightFile(
            "pt_inception-2015-12-05-6726825d.pth",
            "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
            "pt_inception-2015-12-05-6726825d.pth",
            "Apache-2.0",
            STYLE_FOLDER,
            95_628_359,
            "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
        ),
    ),
    "inception-imagenet": (
        WeightFile(
            "inception_v3_google-0cc3c7bd.pth",
            "https://download.pytorch.org/models/inception_v3_google-0cc3c7bd.pth",
            "BSD-3-Clause",
            STYLE_FOLDER,
            108_949_747,
            "0cc3c7bd",  # torchvision puts the first eight digits into the name
        ),
    ),
    "sscd": (
        WeightFile(
            "sscd_disc_mixup.torchvision.pt",
            f"{_META}/sscd-copy-detection/sscd_disc_mixup.torchvision.pt",
            "MIT",
            STYLE_FOLDER,
        ),
    ),
    "ruler": (),  # its weights are part of this package
    "ruler-content": (),
}
"""By encoder. Where there are several files the first, smaller one is what `download` takes."""


def locate(encoder: str, folders: Sequence[Path]) -> Path:
    """The published file of an encoder in one of the folders, or what was converted from it.

    Raises:
        InputError: it is in none of them; the error says what to get, from where, and whereto.
    """
    files = CATALOGUE[encoder]
    names = [name for file in files for name in (file.name, f"{file.name}.safetensors")]
    paths = [folder / name for name in names for folder in folders]
    for path in paths:
        if path.is_file():
            return path
    looked = ", ".join(map(str, folders))
    known = "; or ".join(file.text() for file in files)
    remedy = f"Put the file into models/{files[0].folder}, or have it downloaded."
    raise InputError(encoder, known, f"no such file in {looked}", remedy)


def compared(encoder: str, path: Path) -> str:
    """What is to be said of a file beside the published ones of its encoder: one phrase.

    A file of the published size is hashed; another size is another file, and hashing could not
    tell more.
    """
    size = path.stat().st_size
    for file in CATALOGUE[encoder]:
        if file.size in (0, size):
            found = sha256_of(path)
            if not file.sha256:
                return f"{path.name}: no published sha256 to compare with; its own is {found}"
            if file.has_hash(found):
                return f"{path.name}: the published {file.name}, sha256 {found}"
            return (
                f"{path.name}: wrong hash: of the size of the published {file.name} but with "
                f"sha256 {found} instead of {file.sha256}; it was altered or damaged"
            )
    return f"{path.name}: not the published file ({size:,} bytes); its names and shapes are right"


def sha256_of(path: Path) -> str:
    """The sha256 of a file in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def download(name: str, folder: Path, on_progress: OnBytes | None = None) -> Path:
    """Fetch a published file, whole and checked, or leave nothing behind.

    Args:
        name: an encoder, for the first of its files, or the name of a file of the catalogue.
        folder: whereto; made if missing.
        on_progress: see `OnBytes`.

    Returns:
        The file; one that is there already is not fetched again.

    Raises:
        InputError: no such file is known, the network fails, what came is not the published file,
            or there is no room for it.
    """
    file = _known(name)
    path = Path(folder) / file.name
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(path.parent).free
    if free < file.size:
        raise InputError("output", f"{file.size:,} bytes free for {file.name}", f"{free:,}")
    digest, size = hashlib.sha256(), 0
    with atomic_path(path) as temporary:
        with temporary.open("wb") as target:
            for block, total in _blocks(file):
                size += len(block)
                digest.update(block)
                target.write(block)
                if on_progress:
                    on_progress(size, total)
        _check(file, size, digest.hexdigest())
    return path


def _known(name: str) -> WeightFile:
    known = {file.name: file for files in CATALOGUE.values() for file in files}
    known |= {encoder: files[0] for encoder, files in CATALOGUE.items() if files}
    if name not in known:
        raise InputError("download", "one of " + ", ".join(sorted(known)), repr(name))
    return known[name]


def _blocks(file: WeightFile) -> Iterator[tuple[bytes, int]]:
    """Blocks, each with how many bytes there are in all.

    A connection that breaks is told as such; `atomic_path` would take it for an error of the disk.
    """
    try:
        with urllib.request.urlopen(file.address, timeout=_PATIENCE) as source:
            total, came = int(source.headers.get("Content-Length") or file.size), 0
            while block := source.read(_BLOCK):
                came += len(block)
                yield block, total
            if came < total:  # a connection that closes early raises nothing
                raise ConnectionError(f"{came:,} of {total:,} bytes came")
    except (OSError, http.client.HTTPException) as error:
        raise _unreachable(file, error) from error


def _unreachable(file: WeightFile, error: Exception) -> InputError:
    remedy = f"Fetch it by hand from {file.address} into models/{file.folder}."
    return InputError("download", f"to reach {file.address}", str(error), remedy)


def _check(file: WeightFile, size: int, sha256: str) -> None:
    if (file.size and size != file.size) or not file.has_hash(sha256):
        got = f"{size:,} bytes with sha256 {sha256}"
        raise InputError("download", file.text(), got, "What came was thrown away; try again.")
