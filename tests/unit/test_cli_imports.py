"""The library and the help are there at once: what is heavy is imported when it is used."""

import json
import subprocess
import sys

import pytest

HEAVY = ("torch", "diffusers", "transformers", "matplotlib")
_TOLD = """
import json, sys, time
{what}
print(json.dumps([time.process_time(), [name for name in {heavy} if name in sys.modules]]))
"""
_HELP = """
from nsync.cli.main import main
try:
    main(["--help"])
except SystemExit as ended:
    assert ended.code == 0
"""
_OF_A_COMMAND = _HELP.replace('"--help"', '"train", "--help"')


def imported(what):
    code = _TOLD.format(what=what, heavy=HEAVY)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=600, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("what", ["import nsync", _HELP], ids=["import", "help"])
def test_nothing_heavy_is_imported(what):
    seconds, heavy = imported(what)
    assert heavy == []
    assert seconds < 1.5  # of the processor, so that a busy machine is not blamed


def test_help_of_a_command_needs_no_diffusers():
    _, heavy = imported(_OF_A_COMMAND)
    assert "diffusers" not in heavy


def test_the_detector_can_fail():
    assert imported("import diffusers")[1] != []
