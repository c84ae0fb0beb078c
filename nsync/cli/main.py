"""The command line: `nsync COMMAND [FILE] [--key value ...]`.

Exit codes: 0, all is done; 1, a run stopped because its numbers went bad or memory ran out; 2, the
input is bad, and nothing was begun or what was there is untouched; 3, a run paused, as it was asked
to, and goes on when the command is given again; 130, interrupted (Ctrl-C, SIGTERM), and goes on
likewise.
"""

import argparse
import importlib
import logging
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from .. import __version__
from ..errors import InputError
from ..launched import Launch, OneSidedError, launch

DONE, STOPPED, BAD_INPUT, PAUSED, INTERRUPTED = 0, 1, 2, 3, 130

_COMMANDS = {
    "negatives": "paint the negative set of a style set",
    "train": "teach the model a style: a LoRA, an embedding, or both",
    "compare": "draw the same prompts without and with each LoRA",
    "evaluate": "score what was drawn against real pictures of the style",
    "study": "train several arms with several seeds, then compare and evaluate all of them",
    "supcon": "the second method: pretrain, gan, sample",
    "inspect": "tell what a LoRA, embedding, GAN, file of encoders or run folder is",
    "tiny-pictures": "draw pictures of the tiny world to try things with",
}
_SUPCON = {
    "pretrain": "teach a pair of encoders what belongs together, by labels",
    "gan": "train a text-to-image GAN against them",
    "sample": "paint prompts with a trained GAN",
}
_EPILOG = f"exit codes: {__doc__.partition('Exit codes: ')[2]}"


@dataclass(frozen=True)
class Outcome:
    """How a command ended.

    Attributes:
        code: the exit code.
        text: what to say of it, on standard output.
    """

    text: str
    code: int = DONE


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit code. Results are told on standard output, all else beside it."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = _parser("nsync", "Teach a text-to-image model a style, without the graph.", _COMMANDS)
    parser.add_argument("--version", action="version", version=__version__)
    command = parser.parse_args(given[:1]).command
    rest = given[1:]
    if command == "supcon":
        about = "Label-guided text-to-image GANs."
        command = f"supcon-{_parser('nsync supcon', about, _SUPCON).parse_args(rest[:1]).command}"
        rest = rest[1:]
    module = importlib.import_module(f".{command.replace('-', '_')}", __package__)
    here = Launch()
    try:
        here = launch()
        _check_alone(module, command, here)
        return _run(module, command.replace("supcon-", "supcon "), rest, here)
    except InputError as error:
        # All processes of a machine meet the same, and the first of them tells it. Where another
        # ended with a code before that, the launcher would stop the first unheard.
        if here.local_rank != 0 and not isinstance(error, OneSidedError):
            return DONE
        print(f"nsync {command}: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        if here.is_lead:
            print("Interrupted; the same command goes on from what is kept.", file=sys.stderr)
        return INTERRUPTED


def _parser(name: str, about: str, commands: dict[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=name,
        description=about,
        epilog=f"{name} COMMAND --help tells more.\n\n{_EPILOG}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    listed = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command, told in commands.items():
        listed.add_parser(command, help=told, add_help=False)
    return parser


def _check_alone(module: ModuleType, command: str, here: Launch) -> None:
    if here.count > 1 and not getattr(module, "SHARED", False):
        wanted = f"one process, since `nsync {command}` does not share its work"
        raise InputError("WORLD_SIZE", wanted, str(here.count), "Start it without a launcher.")


def _run(module: ModuleType, command: str, given: Sequence[str], here: Launch) -> int:
    parser, flags = _flags(module, command)
    given, unknown = _known(given, {"--help", "--dry-run", *(f"--{path}" for path in flags)})
    values = parser.parse_args(given)
    if module.DEFAULT is None:
        print(module.run(values.FILE).text)
        return DONE
    from .reading import read

    given_flags = {path: value for path, value in vars(values).items() if path in flags}
    shared = [importlib.import_module(f".{name}", __package__).DEFAULT for name in module.SHARES]
    asked = read(module.DEFAULT, values.FILE, given_flags, unknown, shared)
    level = logging.WARNING if here.is_lead else logging.ERROR
    logging.basicConfig(level=level, format="%(message)s", stream=sys.stderr)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # as a cluster stops a job
    try:
        outcome = _outcome(module, asked, getattr(values, "dry_run", False), here)
    finally:
        signal.signal(signal.SIGTERM, before)
    if not outcome.text:
        return outcome.code
    print(outcome.text, file=sys.stderr if outcome.code == STOPPED else sys.stdout)
    return outcome.code


def _known(given: Sequence[str], flags: set[str]) -> tuple[list[str], list[str]]:
    """The arguments without flags that there are none of and a value after each; these flags."""
    left, unknown = [], []
    skip = False
    for word in given:
        is_flag = word.startswith("--")
        if is_flag and word.partition("=")[0] not in flags:
            unknown.append(word.partition("=")[0])
            skip = "=" not in word
        elif is_flag or not skip:
            left.append(word)
            skip = False
        else:
            skip = False
    return left, unknown


def _outcome(module: ModuleType, asked: object, dry_run: bool, here: Launch) -> Outcome:
    if not module.LEARNS:
        return module.run(asked)
    from ..memory import OutOfMemoryError
    from ..runs.log import DivergedError, NonFiniteError, RunStoppedError

    try:
        outcome = module.run(asked, dry_run)
    except (DivergedError, NonFiniteError) as error:  # seen by all processes at once
        outcome = Outcome(str(error), STOPPED)
    except (RunStoppedError, OutOfMemoryError) as error:
        return Outcome(str(error), STOPPED)
    # A launcher stops all processes where one of them ends with a code: the lead may be writing.
    return outcome if here.is_lead else Outcome("")


def _flags(module: ModuleType, command: str) -> tuple[argparse.ArgumentParser, set[str]]:
    """The parser of a command: a flag for every key of its file, by the key's path."""
    from .keys import LISTS, Arms, keys_of

    parser = argparse.ArgumentParser(
        prog=f"nsync {command}",
        description=module.__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    if module.FILE:
        count = None if module.DEFAULT is None else "?"
        parser.add_argument("FILE", type=Path, nargs=count, help=module.FILE)
    else:
        parser.set_defaults(FILE=None)
    if module.LEARNS:
        told = "read and judge all that is asked for, print the plan, and do nothing"
        parser.add_argument("--dry-run", dest="dry_run", action="store_true", help=told)
    if module.DEFAULT is None:
        return parser, set()
    groups: dict[str, argparse._ArgumentGroup] = {}
    keys = [key for key in keys_of(module.DEFAULT) if key.kind is not Arms]
    for key in keys:
        section = key.path.rpartition(".")[0]
        title = f"{section}: keys of the file, and flags" if section else "keys and flags"
        group = groups.setdefault(section, parser.add_argument_group(title))
        told = key.help().replace("%", "%%")
        group.add_argument(
            f"--{key.path}",
            dest=key.path,
            default=argparse.SUPPRESS,
            metavar=key.path.rpartition(".")[2].upper(),
            nargs="+" if key.kind in LISTS else None,
            help=told,
        )
    return parser, {key.path for key in keys}
