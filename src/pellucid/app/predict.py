"""`pellucid predict`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from pellucid import bundle
from pellucid.app import options
from pellucid.app.show import console
from pellucid.data.decode import BadImage


@dataclass(frozen=True)
class Options:
    """What a trained network sees in picture files."""

    run: Annotated[str, tyro.conf.Positional]
    """A run folder, or a bundle."""
    files: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Picture files."""
    json: bool = False
    """Print one JSON object a file, one a line."""


def main(arguments: Sequence[str]) -> int:
    """Run `pellucid predict`; 3 when a file could not be read, the others answered all the same."""
    chosen = options.parse(Options, arguments, command="predict")
    recogniser = bundle.load(chosen.run)
    out, code = console(), 0
    for file, answer in zip(chosen.files, recogniser.predict_each(chosen.files), strict=True):
        if isinstance(answer, BadImage):
            code = answer.exit_code
            if chosen.json:
                print(json.dumps({"file": file, "error": str(answer)}, ensure_ascii=False), flush=True)
            else:
                console(to_stderr=True).print(f"pellucid: {answer}", soft_wrap=True)
        elif chosen.json:
            print(json.dumps(answer.to_json(), ensure_ascii=False, allow_nan=False), flush=True)
        else:
            best = sorted(answer.probabilities.items(), key=lambda item: -item[1])[:3]
            out.print(f"{file}: " + ", ".join(f"{name} {share:.1%}" for name, share in best), soft_wrap=True)
    return code
