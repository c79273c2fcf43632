"""`pellucid verify`."""

from __future__ import annotations

import json
from pathlib import Path

from pellucid import bundle
from pellucid.app.flags import Verify
from pellucid.app.proof import prove
from pellucid.app.show import console


def main(options: Verify) -> int:
    """Verify; a difference is raised, and becomes exit code 4."""
    return _resume(options) if options.resume else _selftest(options)


def _selftest(options: Verify) -> int:
    worst = bundle.verify(options.run)
    if options.json:
        print(json.dumps({"run": options.run, "difference": worst}, ensure_ascii=False))
    else:
        console().print(f"{options.run}: the logits recorded, within {worst:.1g} of the largest", soft_wrap=True)
    return 0


def _resume(options: Verify) -> int:
    progress = console(to_stderr=options.json)
    proof = prove(Path(options.run), lambda text: progress.print(text, soft_wrap=True))
    if options.json:
        print(json.dumps({"run": options.run, **proof.to_json()}, ensure_ascii=False))
    else:
        progress.print(
            f"{options.run}: a run of {proof.steps} steps, killed and resumed after step {proof.killed_after}, ended "
            f"as the one never stopped: {proof.numbers:,} numbers in {proof.arrays} arrays, metrics.jsonl, and all "
            f"{proof.bytes:,} bytes of model.safetensors",
            soft_wrap=True,
        )
    return 0
