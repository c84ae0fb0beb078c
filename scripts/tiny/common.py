"""What the three training scripts share: data, averages of weights, state that resumes."""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from nsync.draws import derive_seed, generator  # noqa: E402
from nsync.tiny.scenes import Scene, draw_scenes  # noqa: E402
from nsync.tiny.world import render  # noqa: E402

BUILD = ROOT / "build" / "tiny"


def pictures(
    styles: tuple[str, ...],
    n: int,
    seed: int,
    render: Callable[[Sequence[Scene], str, int], Tensor] = render,
) -> tuple[Tensor, list[Scene], Tensor]:
    """`n` pictures of each style: uint8 `[s * n, 3, 64, 64]`, their scenes, style indices."""
    shots, scenes, chunk = [], [], 512
    for s, style in enumerate(styles):
        for start in range(0, n, chunk):
            part = derive_seed(seed, s, start) % 2**31
            batch = draw_scenes(min(chunk, n - start), part)
            shots.append((render(batch, style, part) * 255).round().to(torch.uint8))
            scenes += batch
    index = torch.arange(len(styles)).repeat_interleave(n)
    return torch.cat(shots), scenes, index


class Averaged:
    """Exponential average of a module's weights, slow once there is something to average."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module, self.decay = module, decay
        self.weights = {k: v.detach().clone() for k, v in module.state_dict().items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the average towards the weights after `step` optimizer steps."""
        keep = min(self.decay, (1 + step) / (10 + step))
        for name, value in self.module.state_dict().items():
            if value.is_floating_point():
                self.weights[name].lerp_(value, 1 - keep)


class Run:
    """A resumable loop: modules, optimizer and averages, written whole every `every` steps."""

    def __init__(
        self, name: str, module: nn.Module, optimizer: torch.optim.Optimizer,
        steps: int, decay: float = 0.999, every: int = 200,
    ) -> None:  # fmt: skip
        self.file = BUILD / f"{name}.state.safetensors"
        self.log = BUILD / f"{name}.log.jsonl"
        self.module, self.optimizer, self.steps, self.every = module, optimizer, steps, every
        self.average, self.done = Averaged(module, decay), 0
        BUILD.mkdir(parents=True, exist_ok=True)
        if self.file.exists():
            self._load()

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {f"model.{k}": v for k, v in self.module.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.weights.items()}
        for i, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{i}.{k}": v for k, v in state.items()}
        return {k: v.detach().clone().contiguous() for k, v in tensors.items()}

    def save(self) -> None:
        """Write the state under a temporary name, then rename it."""
        temporary = self.file.with_suffix(".tmp")
        save_file(self._tensors() | {"step": torch.tensor(self.done)}, temporary)
        os.replace(temporary, self.file)

    def _load(self) -> None:
        tensors = load_file(self.file)
        part = lambda p: {k[len(p) :]: v for k, v in tensors.items() if k.startswith(p)}  # noqa: E731
        self.module.load_state_dict(part("model."))
        self.average.weights = part("average.")
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in part("optimizer.").items():
            i, _, name = key.partition(".")
            state.setdefault(int(i), {})[name] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})
        self.done = int(tensors["step"])

    def __call__(
        self, rate: Callable[[float], float], seed: int
    ) -> Iterator[tuple[int, torch.Generator, Callable[[Tensor], None]]]:
        """Yield (step, generator of the step, what to do with the loss) until the last step."""
        start, total = time.time(), 0.0

        def descend(loss: Tensor) -> None:
            nonlocal total
            for group in self.optimizer.param_groups:
                group["lr"] = group["initial_lr"] * rate(self.done / self.steps)
            self.optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.module.parameters(), 1.0)
            self.optimizer.step()
            self.done += 1
            self.average.update(self.done)
            total += float(loss.detach())

        first = self.done
        while self.done < self.steps:
            yield self.done, generator(seed, self.done), descend
            if self.done % 50 == 0:
                row = {"step": self.done, "loss": total / 50, "seconds": time.time() - start}
                eta = (time.time() - start) / (self.done - first) * (self.steps - self.done) / 60
                print(f"{row} {eta:.1f} min left", flush=True)
                with self.log.open("a") as log:
                    log.write(json.dumps(row) + "\n")
                total = 0.0
            if self.done % self.every == 0 or self.done == self.steps:
                self.save()
