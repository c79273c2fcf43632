from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.fuzz.guard import few, guarded
from tests.fuzz.mutate import Edit, byte_edits, changed, json_edits, mutated, with_header

from pellucid import nets
from pellucid.errors import PellucidError
from pellucid.explain import Tape
from pellucid.explain.record import record
from pellucid.files import read_tensors, read_tensors_metadata, write_tensors
from pellucid.files.read import parse_json

KEY = "pellucid.tape"


def _tape() -> Tape:
    model = nets.build("INPUT -> CONV(3, norm=batch) -> POOL -> FC(classes)", 2, (1, 6, 6), seed=0)
    x = np.random.default_rng(0).normal(size=(1, 1, 6, 6)).astype(np.float32)
    return record(model, x, [1], optimizer=torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), training=True)


TAPE = _tape()


@given(
    edits=byte_edits, values=json_edits, where=st.sampled_from(("bytes", "header", "text")), seed=st.integers(0, 2**32)
)
@few(250)
def test_tapes(
    tmp_path_factory: pytest.TempPathFactory, edits: list[Edit], values: list[Edit], where: str, seed: int
) -> None:
    folder = tmp_path_factory.getbasetemp() / "here"
    folder.mkdir(exist_ok=True)
    path = folder / "tape"
    TAPE.save(path)
    if where == "text":
        description = parse_json(read_tensors_metadata(path)[KEY].encode(), "it", depth=24)
        write_tensors(path, read_tensors(path), {KEY: changed(description, values).decode("utf-8", "replace")})
    else:
        whole = path.read_bytes()
        path.write_bytes(with_header(whole, values) if where == "header" else mutated(whole, edits))

    def read() -> Tape:
        found = Tape.load(path)
        draw = random.Random(seed)
        for node in found.nodes:
            address = f"{node.name}[{','.join(str(draw.randrange(max(1, n))) for n in node.shape)}]"
            step = f"{address.partition('[')[0]}.next[{address.partition('[')[2]}"
            for ask, what in (
                (found.value, address),
                (found.why, address),
                (found.receptive_field, address),
                (found.why, step),
            ):
                try:
                    ask(what)
                except PellucidError:
                    continue
        return found

    guarded("tape", folder, read, sane=lambda found: all(found.values[n.name].shape == n.shape for n in found.nodes))


def test_the_sound_tape_is_read(tmp_path: Path) -> None:
    TAPE.save(tmp_path / "tape")
    found = Tape.load(tmp_path / "tape")
    assert [node.name for node in found.nodes] == [node.name for node in TAPE.nodes]
    assert found.why(f"{found.output}[0,0]").terms
