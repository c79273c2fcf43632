"""A tape as one file: safetensors, whose metadata hold everything that is no array as one JSON text.

Arrays are named by what they are: `values/NODE`, `gradients/NODE`, `after/NODE`, `state/STATE/NODE`, `pixels`. A tape
may come from anywhere, so every part is checked as it is read: what is accepted has a value of the right shape for
every node, and every node reads only nodes that stand before it.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pellucid.errors import DataError, UsageError
from pellucid.explain import tape_parts
from pellucid.explain.node import Array
from pellucid.files import read_tensors, read_tensors_metadata, write_tensors
from pellucid.files.read import MIB, parse_json
from pellucid.files.tensors import GIB

if TYPE_CHECKING:
    import os

    from pellucid.explain.tape import Tape

_KEY = "pellucid.tape"
_VERSION = 1

#: What is written must be readable again: bytes of the file, and of its JSON.
_LARGEST, _LONGEST = 4 * GIB, 12 * MIB

#: JSON has no NaN and no infinity: such a number is an object with this one key.
_FLOAT = "$float"
_FLOATS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}

_DEPTH = 24


def write(tape: Tape, path: str | os.PathLike[str]) -> None:
    """Write a tape, atomically.

    Raises UsageError for an attribute that JSON does not have, or an array of a type the format lacks, or a tape larger
    than is read; PellucidError when the system refuses.
    """
    path = Path(path)
    arrays = _arrays(tape)
    text = json.dumps(_plain(path, "the tape", _description(tape)), separators=(",", ":"))
    size = sum(array.nbytes for array in arrays.values())
    if size > _LARGEST - 2 * _LONGEST or len(text) > _LONGEST:
        raise UsageError(
            f"{path}: a tape of {size:,} bytes and {len(text):,} characters of names is too large to be read again "
            f"(at most {_LARGEST - 2 * _LONGEST:,} and {_LONGEST:,}): record fewer images"
        )
    write_tensors(path, arrays, {_KEY: text})


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The fields of the tape in a file. Raises DataError for one that is missing, damaged, or was forged."""
    path = Path(path)
    metadata = read_tensors_metadata(path, limit=_LARGEST)
    if _KEY not in metadata:
        raise DataError(f"{path}: is a safetensors file but no tape: name a file that `Tape.save` wrote")
    place = f"{path}, description of the tape"
    description = _restored(parse_json(metadata[_KEY].encode("utf-8", "surrogatepass"), place, depth=_DEPTH))
    arrays = read_tensors(path, limit=_LARGEST)
    try:
        version = description.get("version") if isinstance(description, dict) else None
        if version != _VERSION or isinstance(version, bool):
            raise DataError(
                f"{path}: is a tape of version {version!r:.40}, and {_VERSION} is read here: record the pass again"
            )
        return tape_parts.fields(description, arrays)
    except tape_parts.UnsoundError as error:
        raise DataError(f"{path}: is no sound tape: {error}: take another copy, or record the pass again") from error


def _arrays(tape: Tape) -> dict[str, Array]:
    """Every array of the tape by its name in the file."""
    made: dict[str, Array] = {}
    for kind, arrays in (("values", tape.values), ("gradients", tape.gradients), ("after", tape.after)):
        made |= {f"{kind}/{name}": array for name, array in arrays.items()}
    if tape.update is not None:
        for name, step in tape.update.parameters.items():
            made |= {f"state/{state}/{name}": array for state, array in step.state.items()}
    if tape.pixels is not None:
        made["pixels"] = tape.pixels.values
    return made


def _description(tape: Tape) -> dict[str, Any]:
    """Everything that is no array."""
    update, pixels = tape.update, tape.pixels
    steps = {} if update is None else update.parameters
    clipping = None if update is None else update.clipping
    return {
        "version": _VERSION,
        "nodes": [
            {
                "name": node.name,
                "op": node.op,
                "inputs": node.inputs,
                "attributes": dict(node.attributes),
                "shape": node.shape,
                "module": node.module,
                "source": node.source,
            }
            for node in tape.nodes
        ],
        "update": None
        if update is None
        else {
            "parameters": {
                name: {"rule": step.rule, "hyper": dict(step.hyper), "states": list(step.state), "step": step.step}
                for name, step in steps.items()
            },
            "clipping": None
            if clipping is None
            else {"kind": clipping.kind, "limit": clipping.limit, "norm": clipping.norm},
        },
        "precision": tape.precision,
        "training": tape.training,
        "inputs": tape.inputs,
        "output": tape.output,
        "loss": tape.loss,
        "pixels": None if pixels is None else {"mean": pixels.mean, "std": pixels.std},
        "notes": tape.notes,
        "aliases": tape.aliases,
    }


def _plain(path: Path, place: str, value: Any) -> Any:
    """A value as JSON has it; raises UsageError, naming the place, for one that it has not."""
    if value is None or isinstance(value, (bool, str)) or type(value) is int:
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {_FLOAT: str(float(value))}
    if isinstance(value, (list, tuple)):
        return [_plain(path, place, one) for one in value]
    if isinstance(value, dict) and all(isinstance(key, str) and key != _FLOAT for key in value):
        where = f"{value['name']!r:.80} of {place}" if isinstance(value.get("name"), str) else place
        return {key: _plain(path, f"{key!r:.80} in {where}", one) for key, one in value.items()}
    raise UsageError(
        f"{path}: {place} holds {value!r:.60}, a {type(value).__name__}, which JSON does not have: turn it into "
        "numbers, texts and lists of these"
    )


def _restored(value: Any) -> Any:
    """A value from JSON, with the floats that JSON does not have."""
    if isinstance(value, list):
        return [_restored(one) for one in value]
    if isinstance(value, dict):
        if set(value) == {_FLOAT} and isinstance(value[_FLOAT], str) and value[_FLOAT] in _FLOATS:
            return _FLOATS[value[_FLOAT]]
        return {key: _restored(one) for key, one in value.items()}
    return value
