"""Where a step's time goes: a clock that the loop stops at each part of a step, for those who ask."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import torch

#: What a step is made of, in its order; what lies between two steps (reports, checkpoints) is "between".
PARTS = ("data", "forward", "backward", "optimiser", "waiting", "between")


@dataclass
class Clock:
    """Seconds by part. On a device that works on its own every mark waits for it, which makes the run slower."""

    device: torch.device
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))
    steps: int = 0
    _at: float = 0.0
    _busy: float = 0.0
    _busy_from: float = 0.0

    def start(self) -> None:
        """Begin to count, or go on after something that is no part of a step, such as an evaluation."""
        self._at = self._now()
        self._busy_from = time.process_time()

    def stop(self) -> None:
        """What follows is not counted."""
        self._busy += time.process_time() - self._busy_from

    def mark(self, part: str) -> None:
        """The time since the mark before was this part's."""
        now = self._now()
        self.seconds[part] += now - self._at
        self._at = now

    def step(self) -> None:
        """One step is done."""
        self.steps += 1

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def to_json(self, threads: int, flop: int, peak: float) -> dict[str, Any]:
        """What `profile.json` holds.

        `flop` are the operations of a step, `peak` those a second of a large matrix product in the same precision.
        """
        whole = sum(self.seconds.values())
        steps = max(1, self.steps)
        computing = self.seconds["forward"] + self.seconds["backward"]
        rate = flop * self.steps / computing if computing else 0.0
        return {
            "steps": self.steps,
            "milliseconds": {part: 1e3 * seconds / steps for part, seconds in self.seconds.items()},
            "share": {part: seconds / whole if whole else 0.0 for part, seconds in self.seconds.items()},
            "threads": threads,
            "busy": self._busy / (whole * threads) if whole else 0.0,
            "flop": flop,
            "flop_per_second": rate,
            "peak_flop_per_second": peak,
            "share_of_peak": rate / peak if peak else 0.0,
        }
