"""`pellucid verify`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from pellucid import bundle
from pellucid.app import options
from pellucid.app.show import console


@dataclass(frozen=True)
class Options:
    """Decode the raw pictures that a bundle carries, and compare the logits with those recorded (exit code 4)."""

    run: Annotated[str, tyro.conf.Positional]
    """A run folder, or a bundle."""
    json: bool = False
    """Print one JSON document."""


def main(arguments: Sequence[str]) -> int:
    """Run `pellucid verify`; returns the exit code."""
    chosen = options.parse(Options, arguments, command="verify")
    worst = bundle.verify(chosen.run)
    if chosen.json:
        print(json.dumps({"run": chosen.run, "difference": worst}, ensure_ascii=False))
    else:
        console().print(f"{chosen.run}: the logits recorded, within {worst:.1g} of the largest", soft_wrap=True)
    return 0
