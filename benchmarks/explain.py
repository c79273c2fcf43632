"""What recording and asking cost: ResNet-18 at 224×224, recorded forwards and backwards, beside the plain pass.

The two take turns in one process on one thread; a ratio is that of one round, and the median of the rounds is given
with its least and greatest. The export is told apart: it is made once for a model and a shape. The memory is that of a
process of its own. A `why` is that of one number of a convolution of 3×3 over 512 channels, terms as objects included.

    OMP_NUM_THREADS=1 python benchmarks/explain.py        writes results/explain.json
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional

from pellucid import nets
from pellucid.data.cores import usable_cores
from pellucid.explain.record import forget, record
from pellucid.training.machine import processor

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).parent
ROUNDS, QUESTIONS = 9, 25


def seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def resnet() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    model = nets.build("resnet18", classes=1000, image=(3, 224, 224), seed=0).eval()
    return model, torch.rand(1, 3, 224, 224), torch.tensor([7])


def recording() -> dict[str, Any]:
    """The recording beside the plain forward and backward pass, and what the export takes."""
    model, x, label = resnet()

    def plain() -> None:
        model.zero_grad()
        loss: Any = functional.cross_entropy(model(x), label)
        loss.backward()

    first = seconds(lambda: record(model, x, label))
    plain()
    rounds = [{"plain": seconds(plain), "record": seconds(lambda: record(model, x, label))} for _ in range(ROUNDS)]
    forget(model)
    again = seconds(lambda: record(model, x, label))
    ratios = [taken["record"] / taken["plain"] for taken in rounds]
    record_s = statistics.median(taken["record"] for taken in rounds)
    return {
        "plain_ms": round(1000 * statistics.median(taken["plain"] for taken in rounds), 1),
        "record_ms": round(1000 * record_s, 1),
        "ratio": round(statistics.median(ratios), 3),
        "ratio_least": round(min(ratios), 3),
        "ratio_greatest": round(max(ratios), 3),
        "rounds": ROUNDS,
        "first_of_the_process_ms": round(1000 * first, 1),
        "export_again_ms": round(1000 * (again - record_s), 1),
    }


def question() -> dict[str, dict[str, float]]:
    """Milliseconds of one `why`, all 4,609 terms as objects, forwards and of a weight's gradient."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(512, 64, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    tape = record(model, torch.randn(1, 512, 14, 14), 3)
    (name,) = (node.name for node in tape.nodes if node.op == "convolution")
    medians = {}
    for what in (name, f"{name}.grad", f"{name}.weight.grad"):
        index = "[5,100,1,1]" if "weight" in what else "[5,7,7]"
        taken = []
        for _ in range(QUESTIONS):
            start = time.perf_counter()
            explanation = tape.why(what + index)
            terms = explanation.terms
            taken.append(time.perf_counter() - start)
        assert explanation.relative < 1e-5
        medians[what] = {"terms": len(terms), "ms": round(1000 * statistics.median(taken), 2)}
    return medians


def memory() -> dict[str, float]:
    """Run in a process of its own: the peak while recording above what stood before, and what the tape keeps."""
    model, x, label = resnet()
    record(model, x, label)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    larger = torch.rand(4, 3, 224, 224)
    tape = record(model, larger, label.repeat(4))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    above = peak - before
    kept = sum(array.nbytes for part in (tape.values, tape.gradients) for array in part.values()) / 2**20
    return {
        "kept_mib": round(kept, 1),
        "peak_above_mib": round(above, 1),
        "ratio": round(above / kept, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--memory", action="store_true", help="measure the memory alone, and print it")
    if parser.parse_args().memory:
        print(json.dumps(memory()))
        return
    torch.set_num_threads(1)
    own = subprocess.run([sys.executable, __file__, "--memory"], capture_output=True, text=True, check=True)
    result = {
        "recording ResNet-18 at 224×224, batch 1, forward and backward": recording(),
        "memory of recording ResNet-18 at 224×224, batch 4": json.loads(own.stdout.splitlines()[-1]),
        "why": question(),
        "machine": {"processor": processor(), "cores": usable_cores(), "threads": 1},
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "date": datetime.now(UTC).date().isoformat(),
    }
    (HERE / "results").mkdir(exist_ok=True)
    (HERE / "results" / "explain.json").write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", "utf-8")
    print(json.dumps(result, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
