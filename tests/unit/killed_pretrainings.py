"""Kill a pretraining at random moments until it is through; see test_supcon_pretraining.py.

Started with a folder, a number of kills and a seed. The process that has torch loaded forks
children, each of which goes on with the run, and kills them.
"""

import os
import random
import signal
import sys
import time
import traceback
from dataclasses import replace
from pathlib import Path

import torch

torch.set_num_threads(1)  # before anything is computed: a pool of threads does not survive a fork

from pretraining_runs import SHORT, run_pretraining  # noqa: E402
from small_runs import assert_same_end, state  # noqa: E402

from nsync.supcon.encoder_file import load_encoders  # noqa: E402
from nsync.supcon.encoders import identity  # noqa: E402

SETTINGS = replace(SHORT, steps=8, save_every=1)


def started(folder: Path) -> int:
    """The process of a child that goes on with the run."""
    child = os.fork()
    if child:
        return child
    try:
        run_pretraining(folder, SETTINGS, on_step=lambda _: time.sleep(0.01))
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def main(folder: Path, kills: int, seed: int) -> int:
    """Make runs until so many children have been killed; how many went on with a state."""
    chance, whole, resumed, night, killed = random.Random(seed), folder / "whole", 0, 0, 0
    begun = time.perf_counter()
    assert os.waitpid(started(whole), 0)[1] == 0
    length = time.perf_counter() - begun
    while killed < kills:
        place, status = folder / f"night_{night}", None
        while status != 0:
            resumed += (place / "run" / "state").exists() and state(place) is not None
            child = started(place)
            time.sleep(chance.uniform(0.2, 0.8) * length)
            os.kill(child, signal.SIGKILL)  # one that is through is a zombie still
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            assert status in (0, -signal.SIGKILL), f"a child failed with status {status}"
            killed += status != 0
        assert_same_end(place, whole)
        pairs = [load_encoders(one / "pair_8.safetensors") for one in (place, whole)]
        assert identity(pairs[0]) == identity(pairs[1])
        night += 1
    return resumed


if __name__ == "__main__":
    print(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
