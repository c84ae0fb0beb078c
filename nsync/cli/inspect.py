"""Tell what a file or folder is: a LoRA, an embedding, a GAN, encoders, a run, a negative set."""

import json
from collections import Counter
from pathlib import Path

from safetensors import SafetensorError, safe_open

from ..adapters import NETWORK, split_key
from ..errors import InputError, told_as
from ..lora_file import read_lora
from ..runs.folder import RunFolder
from ..runs.standing import STYLE
from ..sets.negative_store import MANIFEST, PARTS, NegativeStore, missing_files
from ..supcon.encoder_file import encoders_metadata
from ..supcon.gan.model_file import model_metadata
from .compare import LISTING, read_arms
from .main import Outcome

FILE = "a safetensors file, or the folder of a run, of negatives, of a comparison"
DEFAULT = None
SHARES = ()
LEARNS = False

_SAID = {
    "modelspec.title": "title",
    "nsync.trigger_word": "style token",
    "nsync.template": "template",
    "nsync.rule": "rule",
    "nsync.steps": "steps",
    "nsync.pictures": "pictures",
    "nsync.base": "base model",
    "nsync.dataset": "style set",
    "nsync.versions": "versions",
}
_TEXT = ("lora_te", "text_encoder", "clip_", "t5xxl")


def run(path: Path) -> Outcome:
    """Say what it is.

    Raises:
        InputError: there is nothing, or nothing that is known.
    """
    if path.is_dir():
        return Outcome("\n".join([str(path), *_folder(path)]))
    if not path.is_file():
        raise InputError("FILE", "a file or folder that is there", str(path))
    return Outcome("\n".join([str(path), *_file(path)]))


def _folder(path: Path) -> list[str]:
    run = RunFolder(path)
    with told_as("FILE"):
        config = run.config()
    if _is_of_run(config):
        return _of_run(run)
    if (path / MANIFEST).is_file() or any(path.glob(PARTS)):
        count, lost = len(NegativeStore(path).pictures), len(missing_files(path))
        return [f"  a negative set of {count} pictures, {lost} of them not there any more"]
    if (path / LISTING).is_file():
        arms = [f"{arm.name} {len(arm.pictures)}" for arm in read_arms(path)]
        return [f"  a comparison of {len(arms)} arms: {', '.join(arms)}"]
    rule = "a run's folder, a negative set's or a comparison's"
    raise InputError("FILE", rule, f"{path}, which has none of their files")


def _is_of_run(config: object) -> bool:
    """Whether it is a run's; models and much else have a config.json as well."""
    settings = config.get("settings") if isinstance(config, dict) else None
    return isinstance(settings, dict) and "steps" in settings


def _of_run(run: RunFolder) -> list[str]:
    config, steps = run.config(), run.steps()
    settings = config["settings"]
    done = steps[-1] if steps else 0
    files = run.finished(done, settings["steps"]) or {}
    lines = [f"  a run that teaches {config.get('kind', STYLE)}"]
    lines.append(f"  steps: {done} of {settings['steps']}, {len(steps)} states to go on from")
    facts = ("token", "pictures", "base", "dataset", "versions")
    lines += [f"  {name}: {_short(config[name])}" for name in facts if name in config]
    lines += [f"  saved: {file}" for file in files.values()]
    if not files and (last := [one for one in run.records() if "loss_positive" in one]):
        lines.append(f"  loss of step {last[-1]['step']}: {last[-1]['loss_positive']:.4f}")
    return [*lines, *_settings(settings)]


def _file(path: Path) -> list[str]:
    try:
        with safe_open(path, "pt") as file:
            names, said = list(file.keys()), file.metadata() or {}
            shapes = {name: file.get_slice(name).get_shape() for name in names}
    except (OSError, SafetensorError) as error:
        raise InputError("FILE", "a whole safetensors file", f"{path.name} ({error})") from error
    if "nsync.encoders" in said:
        told = encoders_metadata(path)
        return [f"  {told['kind']} encoders of the SupCon pretraining", *_training(told)]
    if "nsync.t2i_gan" in said:
        told = model_metadata(path)
        return [f"  a text-to-image GAN, {told['family']['name']}", *_training(told)]
    told = [f"  {shown}: {_short(said[name])}" for name, shown in _SAID.items() if name in said]
    told += _settings(json.loads(said.get("nsync.settings", "{}")))
    if any(".lora_" in name or ".lora." in name or "_lora." in name for name in names):
        return [*_of_lora(path), *told]
    if shapes and all(len(shape) == 2 for shape in shapes.values()) and len(shapes) <= 3:
        rows = ", ".join(f"{name} {n} vectors of {w}" for name, (n, w) in shapes.items())
        return [f"  an embedding: {rows}", *told]
    return [f"  {len(names)} tensors of no kind that is known here, such as {names[:1]}", *told]


def _of_lora(path: Path) -> list[str]:
    """What a LoRA's factors are; a file that cannot be trained further says why instead."""
    try:
        layers = read_lora(path).layers
    except InputError as error:
        return [f"  a LoRA that training cannot start from: {error.got}"]
    parts = Counter("text encoders" if _is_text(name) else NETWORK for name in layers)
    ranks = Counter(len(one.down) for one in layers.values())
    alphas = Counter(one.alpha for one in layers.values())
    return [
        f"  a LoRA of {len(layers)} layers: {_counted(parts)}",
        f"  rank: {_counted(ranks)}; alpha: {_counted(alphas)}",
    ]


def _is_text(name: str) -> bool:
    return split_key(name)[0] != NETWORK or name.startswith(_TEXT)


def _training(told: dict) -> list[str]:
    training = told["training"]
    facts = ("steps", "pictures", "labels", "versions")
    lines = [f"  {name}: {_short(training[name])}" for name in facts if name in training]
    return [*lines, *_settings(training.get("settings", {}))]


def _settings(settings: dict) -> list[str]:
    return ["  settings:", *(f"    {n}: {v}" for n, v in settings.items())] if settings else []


def _counted(counts: Counter) -> str:
    if len(counts) == 1:
        return str(next(iter(counts)))
    return ", ".join(f"{value} ({count} times)" for value, count in counts.most_common(4))


def _short(value: object) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 80 else f"{text[:76]} ..."
