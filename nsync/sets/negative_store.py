"""Where negatives are kept: a folder of pictures and a manifest that says what each was made of."""

import hashlib
import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from ..errors import InputError
from ..files import write_atomic
from ..identity import COMPANIONS, other_companions
from ..names import cut_to_bytes
from ..pictures.images import png, to_picture
from ..style_set import StyleItem

MANIFEST, PARTS = "manifest.json", "manifest.*.json"
FORMAT = 1
_STEM_BYTES = 160
"""Of 255 that a file system takes: number, hash and a temporary name come to it."""


@dataclass(frozen=True)
class Request:
    """One negative to be made: what it depends on, and its place in the set.

    Attributes:
        item: of which it is a negative.
        index: 0 for the first negative of an item.
        facts: what the picture depends on, as JSON values.
        companions: what else it depends on and is not always known; see `Denoiser`.
    """

    item: StyleItem
    index: int
    facts: dict[str, object]
    companions: Mapping[str, str] = field(default_factory=dict)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels: the positive's bucket."""
        width, height = self.facts["size"]
        return width, height

    @property
    def file(self) -> str:
        """The file's name: of the item, with a hash of the facts."""
        key = hashlib.sha256(json.dumps(self.facts, sort_keys=True).encode()).hexdigest()
        stem = cut_to_bytes(re.sub(r"[^\w.-]+", "_", self.item.name)[:80], _STEM_BYTES)
        return f"{stem}_{self.index + 1}_{key[:12]}.png"


class NegativeStore:
    """The folder of a negative set and its manifest.

    Where several processes paint, each lists its pictures in a part of the manifest under a name of
    its own, so that none can spoil another's. Whoever reads reads the parts as well, also those of
    killed processes; whoever writes the whole manifest puts them into it, and takes them away.

    Args:
        part: whether `save` writes a part, of what this object has added.
    """

    def __init__(self, folder: Path, part: bool = False) -> None:
        self._folder = folder
        self._parts = sorted(folder.glob(PARTS))
        self._name = f"manifest.{uuid.uuid4().hex[:8]}.json" if part else MANIFEST
        self.pictures = self._load(folder / MANIFEST)
        for path in self._parts:
            self.pictures |= self._load(path)
        self._listed = {} if part else self.pictures

    def has(self, request: Request) -> bool:
        """Whether the picture is there, whole.

        Raises:
            InputError: it was changed, or painted by other text encoders, VAE or noise levels.
        """
        entry, path = self.pictures.get(request.file), self._folder / request.file
        if entry is None or not path.is_file():
            return False
        if hashlib.sha256(path.read_bytes()).hexdigest() != entry["sha256"]:
            raise InputError(
                path.name,
                "the negative as it was made",
                "a file that was changed since",
                f"Delete {path} to have it made again.",
            )
        if others := other_companions(entry, request.companions):
            told = [COMPANIONS[part] for part in others]
            raise InputError(
                "name",
                "negatives painted by what is on the sockets now",
                f"some in {self._folder} that were painted by others: {', '.join(told)}",
                "Choose another name for the negative set to keep these.",
            )
        return True

    def add(self, request: Request, pixels: Tensor) -> None:
        """Write a picture; it counts only after `save`."""
        if not pixels.isfinite().all():
            raise InputError(
                request.item.name,
                "a negative of finite numbers",
                "NaN or infinity from the model",
                "Use a model and a VAE in fp32 or bf16, or other sampler settings.",
            )
        data = png(to_picture(pixels))
        write_atomic(self._folder / request.file, data)
        self._listed[request.file] = {
            "item": request.item.name,
            "index": request.index,
            **request.facts,
            **request.companions,
            "sha256": hashlib.sha256(data).hexdigest(),
        }

    def save(self) -> None:
        """Write the manifest, or the part."""
        manifest = {"format": FORMAT, "pictures": self._listed}
        write_atomic(self._folder / self._name, json.dumps(manifest, indent=1, ensure_ascii=False))
        if self._name == MANIFEST:
            for path in self._parts:
                path.unlink(missing_ok=True)

    def _load(self, path: Path) -> dict[str, dict[str, object]]:
        try:
            manifest = json.loads(path.read_text("utf-8"))
            if manifest["format"] != FORMAT:
                raise ValueError(f"format {manifest['format']!r}")
            pictures = dict(manifest["pictures"])
            for entry in pictures.values():
                _ = entry["sha256"]
        except FileNotFoundError:  # nothing painted yet; or put into the whole meanwhile
            return {}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                path.name,
                f"a manifest of format {FORMAT} in {self._folder}",
                f"one that cannot be read ({type(error).__name__}: {error})",
                "Choose another name, or delete that folder to have all negatives made again.",
            ) from error
        return pictures


def missing_files(folder: Path) -> list[str]:
    """Names of pictures that the folder's manifest lists and that are not there (any more)."""
    return [name for name in NegativeStore(folder).pictures if not (folder / name).is_file()]
