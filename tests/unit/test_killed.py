"""A run that is killed, however often and wherever, ends as the run that never was."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork, to be quick")
def test_a_killed_run_ends_with_the_bits_of_one_that_was_not(tmp_path: Path) -> None:
    """What is compared is said in killed_runs.py: the state, the log, the exported file."""
    found = subprocess.run(
        [sys.executable, str(HERE / "killed_runs.py"), str(tmp_path), "24", "0"],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parents[1])},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    counts = json.loads(found.stdout.splitlines()[-1])
    print(f"{counts['kills']} kills, {counts['inside']} of them inside writing: {counts}")
    assert counts["kills"] >= 20
    assert counts["inside"] >= 5
    assert counts["elsewhere"] >= 3
    assert counts["resumed"] >= 5  # the others fell before the first state
