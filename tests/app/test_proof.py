from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pellucid
from pellucid.app import proof
from pellucid.errors import UsageError, VerificationError
from pellucid.files import read_tensors, read_tensors_metadata, write_json, write_tensors

LAST = Path("checkpoints") / "last.safetensors"


def rewrite(path: Path, change: Callable[[dict[str, Any], dict[str, Any]], None]) -> None:
    """The checkpoint with another content and a right checksum."""
    arrays, state = read_tensors(path, sealed=True), json.loads(read_tensors_metadata(path)["state"])
    change(arrays, state)
    write_tensors(path, arrays, {"state": json.dumps(state)}, seal=True)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings: dict[str, Any] = {"precision": "float32", "layout": "nchw", "threads": 1, "epochs": 2}
    return Path(pellucid.train("digits", net="lenet5", out=tmp_path_factory.mktemp("trained") / "run", **settings))


@pytest.fixture
def pair(trained: Path, tmp_path: Path) -> tuple[Path, Path]:
    return shutil.copytree(trained, tmp_path / "whole"), shutil.copytree(trained, tmp_path / "parted")


def test_equal_runs_are_equal_whatever_the_clock_said(pair: tuple[Path, Path]) -> None:
    whole, parted = pair
    rows = [json.loads(line) for line in (parted / "metrics.jsonl").read_text().splitlines()]
    (parted / "metrics.jsonl").write_text("".join(json.dumps(row | {"seconds": 99.0}) + "\n" for row in rows))
    rewrite(parted / LAST, lambda _, state: state.update(seconds=99.0))
    found = proof._compare(whole, parted, 3)
    arrays = read_tensors(whole / LAST)
    assert (found.killed_after, found.steps) == (3, rows[-1]["step"])
    assert (found.arrays, found.numbers) == (len(arrays), sum(array.size for array in arrays.values()))


def test_the_first_field_that_differs_is_named(pair: tuple[Path, Path]) -> None:
    whole, parted = pair

    def last_bit(arrays: dict[str, Any], _: dict[str, Any]) -> None:
        moments = arrays["optimizer.2.momentum_buffer"]
        moments[1, 2] = np.nextafter(moments[1, 2], np.float32(9))

    rewrite(parted / LAST, last_bit)
    with pytest.raises(
        VerificationError, match=r"optimizer\.2\.momentum_buffer\[1,2.* \(\d+ of its [\d,]+ numbers"
    ) as error:
        proof._compare(whole, parted, 3)
    assert error.value.exit_code == 4
    rewrite(parted / LAST, lambda _, state: state.update(step=7))
    with pytest.raises(VerificationError, match=r"step in last\.safetensors is \d+ in the run never stopped and 7"):
        proof._compare(whole, parted, 3)
    lines = (parted / "metrics.jsonl").read_text().splitlines()
    (parted / "metrics.jsonl").write_text("\n".join([json.dumps(json.loads(lines[0]) | {"loss": 0.5}), *lines[1:]]))
    with pytest.raises(VerificationError, match=r"loss in line 1 of metrics\.jsonl is .* and 0\.5 in"):
        proof._compare(whole, parted, 3)


def test_weights_that_differ_in_the_bundle_alone_are_noticed(pair: tuple[Path, Path]) -> None:
    whole, parted = pair
    data = bytearray((parted / "bundle" / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (parted / "bundle" / "model.safetensors").write_bytes(data)
    with pytest.raises(VerificationError, match=r"model\.safetensors, though all numbers"):
        proof._compare(whole, parted, 3)


def test_a_run_is_killed_resumed_and_compared(pellucid_command: Any, trained: Path) -> None:
    done = pellucid_command("verify", trained, "--resume", "--json")
    assert done.code == 0, done.err
    answer = json.loads(done.out)
    assert answer["steps"] // 2 < answer["killed_after"] < answer["steps"]
    assert answer["bytes"] == (trained / "bundle" / "model.safetensors").stat().st_size


def test_what_cannot_be_repeated_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no recipe\.json here"):
        proof.prove(tmp_path, print)
    write_json(tmp_path / "recipe.json", {"data": "digits", "net": "custom"})
    with pytest.raises(UsageError, match="only your own program can repeat"):
        proof.prove(tmp_path, print)
