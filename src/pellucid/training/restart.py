"""A run that `torchrun` begins anew after one of its processes has died: the same command goes on with the same run.

What tells it from others is noted in the run's environment.json: which torchrun it was, and which of its runs.
"""

from __future__ import annotations

import itertools
import os
import platform
from pathlib import Path
from typing import Any

from pellucid.data.batches import Batches, cuts
from pellucid.errors import PellucidError, UsageError
from pellucid.files import read_json

ENVIRONMENT = "environment.json"

_calls = itertools.count(1)


def launch() -> dict[str, Any] | None:
    """What tells this run from others; None for one that torchrun did not start. To be asked once a run."""
    name = os.environ.get("TORCHELASTIC_RUN_ID")
    if name is None:
        return None
    parent = os.getppid()
    try:
        # The time at which it was started, lest its number be another's by now.
        since = (
            Path(f"/proc/{parent}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19]
        )
    except (OSError, IndexError):
        since = ""
    return {"torchrun": name, "agent": f"{platform.node()}:{parent}:{since}", "run": next(_calls)}


def begun(out: str | Path | None, launched: dict[str, Any] | None) -> str | None:
    """The folder of the run that this one was before torchrun started its processes again; None where there is none."""
    if launched is None or os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0":
        return None
    folders = [Path(out)] if out is not None else sorted(Path("runs").glob("*/"))
    for folder in folders:
        try:
            if read_json(folder / ENVIRONMENT).get("launch") == launched:
                return str(folder)
        except (PellucidError, AttributeError):
            # Not this run's, whatever it is.
            continue
    return None


def refuse_other_batches(folder: Path, batches: Batches) -> None:
    """Raise UsageError where this number of processes cuts an epoch into other batches than the run began with."""
    try:
        before = int(read_json(folder / ENVIRONMENT).get("processes", 1))
    except (PellucidError, AttributeError, TypeError, ValueError):
        return
    if len(cuts(len(batches.labels_n), batches.batch_size, before)) != len(batches):
        raise UsageError(
            f"{folder}: was begun by {before} process{'es' if before > 1 else ''}, and {batches.shard.of} would cut an "
            f"epoch into other batches; go on with {before}"
        )


def refuse_small_batches(batches: Batches) -> None:
    """Raise UsageError where a batch leaves one of several processes less than two pictures."""
    size, least = min(batches.batch_size, len(batches.labels_n)), 2 * batches.shard.of
    if batches.shard.of > 1 and size < least:
        raise UsageError(
            f"--batch-size {size}: is that of all {batches.shard.of} processes together, and leaves one of them less "
            f"than two pictures; give at least {least}, or start fewer processes"
        )
