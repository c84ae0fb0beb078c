"""Whether a run that is on disk may be gone on with."""

from collections.abc import Mapping
from dataclasses import fields

from .errors import InputError
from .run_folder import RunFolder
from .settings import TrainSettings

_WORDS = {"token": "the style token", "template": "the template"}
_DIGESTS = {
    "base": "the base model",
    "dataset": "the pictures, captions or negatives of the set",
    "start_from": "the LoRA to start from",
}


def check_same_run(run: RunFolder, step: int, config: Mapping[str, object]) -> None:
    """Refuse to go on with `run`, which stands after `step`, by another configuration.

    Raises:
        InputError: the folder holds another run, or one that is further than what is asked for;
            every difference is named.
    """
    before = run.config()
    if before is None or not step:
        return
    found = differences(before, config)
    if found:
        raise InputError(
            "name",
            f"the settings of the run {run.path.name}, which has made {step} steps",
            "other ones:\n" + "\n".join(f"  {line}" for line in found),
            "\nSet them back to go on with that run; set `if_run_exists` to 'start anew' to keep "
            "it and train under a numbered name; or choose another `name`.",
        )
    asked = config["settings"]["steps"]
    if step > asked:
        raise InputError(
            "steps",
            f"at least {step}, which the run {run.path.name} has made already",
            str(asked),
            "Ask for more, or set `if_run_exists` to 'start anew'.",
        )


def differences(before: Mapping[str, object], now: Mapping[str, object]) -> list[str]:
    """What of two configurations makes them two runs, a line each; versions may differ."""
    known = {field.name for field in fields(TrainSettings)}
    old = TrainSettings(**{k: v for k, v in before["settings"].items() if k in known})
    lines = [
        f"`{name}` was {was!r}, is {asked!r}"
        for name, (was, asked) in old.differs(TrainSettings(**now["settings"])).items()
    ]
    for part, words in (_WORDS | _DIGESTS).items():
        was, asked = before.get(part, ""), now[part]
        if was != asked:
            if part in _DIGESTS:
                was, asked = was[:12] or "none", asked[:12] or "none"
            lines.append(f"{words}: was {was!r}, is {asked!r}")
    return lines
