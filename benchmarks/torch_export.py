"""Step time of exported PyTorch optimizers beside PyTorch's own, on the CPU.

    python benchmarks/torch_export.py [NAME ...] [--threads 2] [--repetitions 15]

A repetition is one step of each optimizer in turn, so that what else the machine does falls on all of them alike; the
ratio is that of the medians. PyTorch has no Lion: the one here is written with its list operations as its AdamW is.
"""

import argparse
import importlib.util
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from evolion.discovered.library import known
from evolion.discovered.torch_source import class_name, torch_module

LEAVES, PARAMETERS = 50, 10_000_000


class Lion(torch.optim.Optimizer):
    """Lion by hand."""

    def __init__(self, params: Any, lr: float, b1: float = 0.9, b2: float = 0.99, weight_decay: float = 1e-3) -> None:
        super().__init__(params, {"lr": lr, "b1": b1, "b2": b2, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move the weights; there is no closure."""
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            grads = [p.grad for p in params]
            for p in params:
                if not self.state[p]:
                    self.state[p]["m"] = torch.zeros_like(p)
            means = [self.state[p]["m"] for p in params]
            torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
            directions = torch._foreach_lerp(means, grads, 1 - group["b1"])
            torch._foreach_sign_(directions)
            torch._foreach_add_(params, directions, alpha=-group["lr"])
            torch._foreach_lerp_(means, grads, 1 - group["b2"])


def exported(name: str, folder: Path) -> Any:
    path = folder / f"{name}.py"
    path.write_text(torch_module(known()[name], name, ""), encoding="utf-8")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, class_name(name))


def parameters(matrices: bool) -> list[torch.nn.Parameter]:
    """Half of the leaves are vectors, unless all must be matrices; together they have ten million entries."""
    torch.manual_seed(0)
    count = LEAVES if matrices else LEAVES // 2
    side = int((PARAMETERS / count) ** 0.5)
    shapes: Iterable[tuple[int, ...]] = [(side, side)] * count + [(side,)] * (LEAVES - count)
    found = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]
    for p in found:
        p.grad = torch.randn_like(p)
    return found


def medians(ours: Callable[[], Any], theirs: Callable[[], Any], repetitions: int) -> tuple[float, float]:
    """Milliseconds of a step of each."""
    times: dict[int, list[float]] = {0: [], 1: []}
    for repetition in range(repetitions + 2):
        for which in (0, 1) if repetition % 2 else (1, 0):
            start = time.perf_counter()
            (ours, theirs)[which]()
            if repetition > 1:
                times[which].append(1e3 * (time.perf_counter() - start))
    return statistics.median(times[0]), statistics.median(times[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="such as adamw; all if none is given")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repetitions", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    optim = torch.optim
    references: dict[str, Callable[[Any], Any]] = {
        "adamw": lambda p: optim.AdamW(p, 1e-3, weight_decay=1e-4, foreach=True),
        "lion": lambda p: Lion(p, 1e-3),
        "muon": lambda p: optim.Muon(p, 1e-3, weight_decay=0.1),
        "adam": lambda p: optim.Adam(p, 1e-3, foreach=True),
        "momentum": lambda p: optim.SGD(p, 1e-3, momentum=0.9, foreach=True),
        "rmsprop": lambda p: optim.RMSprop(p, 1e-3, foreach=True),
    }
    print(f"torch {torch.__version__}, {options.threads} threads, {LEAVES} leaves, {PARAMETERS} parameters, ms a step")
    with tempfile.TemporaryDirectory() as folder:
        for name, reference in references.items():
            if options.names and name not in options.names:
                continue
            matrices = name == "muon"
            # PyTorch's Muon iterates in half precision.
            half: dict[str, Any] = {"orthogonalize_dtype": torch.bfloat16} if matrices else {}
            ours = exported(name, Path(folder))(parameters(matrices), 1e-3, **half)
            theirs = reference(parameters(matrices))
            mine, other = medians(ours.step, theirs.step, 3 if matrices else options.repetitions)
            print(f"{name:10} exported {mine:9.1f}  torch {other:9.1f}  ratio {mine / other:5.2f}", flush=True)


if __name__ == "__main__":
    main()
