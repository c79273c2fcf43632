from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pellucid.data.decode import BadImage
from pellucid.data.pack_index import FILE, Index, read_index, versions, write_index
from pellucid.data.reading import FIELDS, Facts

ABOUT = versions((6, 8, 1), "crop")


def index() -> Index:
    generator = np.random.default_rng(0)
    columns = {name: generator.integers(0, 2, 3).astype(dtype) for name, dtype in FIELDS.items()}
    bad = {1: BadImage("truncated", "b 图.jpg", "it ends")}
    x = generator.integers(0, 256, (3, 48))
    facts = Facts(columns, np.stack([x.sum(1), (x**2).sum(1)], axis=1)[:, None], bad)
    return Index("abc", ("a.jpg", "b 图.jpg", "c.jpg"), facts, np.array([4, 0, 2]), np.array([1, 2, 3], np.uint32))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_index(tmp_path, index(), ABOUT)
    found, expected = read_index(tmp_path, ABOUT, 1), index()
    assert found is not None
    assert (found.token, found.names, found.rows) == ("abc", expected.names, 5)
    assert found.row.tolist() == [4, 0, 2]
    assert [(n, bad.kind, bad.name, bad.detail) for n, bad in found.facts.bad.items()] == [
        (1, "truncated", "b 图.jpg", "it ends")
    ]
    for name, column in expected.facts.columns.items():
        assert np.array_equal(column, found.facts.columns[name])


def test_none_and_another_version_are_no_index(tmp_path: Path) -> None:
    assert read_index(tmp_path, ABOUT, 1) is None
    write_index(tmp_path, index(), ABOUT)
    assert read_index(tmp_path, ABOUT | {"pillow": "1.0"}, 1) is None
    assert read_index(tmp_path, versions((6, 9, 1), "crop"), 1) is None
    assert read_index(tmp_path, ABOUT, 3) is None


FORGERIES: dict[str, Callable[[Index], Index]] = {
    "a row twice": lambda i: dataclasses.replace(i, row=np.array([4, 4, 2])),
    "a row before the first": lambda i: dataclasses.replace(i, row=np.array([4, -1, 2])),
    "a picture twice": lambda i: dataclasses.replace(i, names=("a.jpg", "a.jpg", "c.jpg")),
    "a picture too few": lambda i: dataclasses.replace(i, names=("a.jpg", "c.jpg")),
    "rows of another kind": lambda i: dataclasses.replace(i, row=np.array([4.0, 0.0, 2.0])),
    "sums of no pixels": lambda i: dataclasses.replace(
        i, facts=dataclasses.replace(i.facts, sums=i.facts.sums * np.array([1, 300]))
    ),
    "squares below the mean's": lambda i: dataclasses.replace(
        i, facts=dataclasses.replace(i.facts, sums=np.full((3, 1, 2), 48 * 9))
    ),
    "a name that leads elsewhere": lambda i: dataclasses.replace(i, token="../x"),
    "a name too long for a file": lambda i: dataclasses.replace(i, token="a" * 300),
    "a format that is none": lambda i: dataclasses.replace(
        i,
        facts=dataclasses.replace(i.facts, columns={**i.facts.columns, "format": np.full(3, 77, np.uint8)}),
    ),
    "sums too few": lambda i: dataclasses.replace(i, facts=dataclasses.replace(i.facts, sums=i.facts.sums[:2])),
    "a column too short": lambda i: dataclasses.replace(
        i, facts=dataclasses.replace(i.facts, columns={**i.facts.columns, "bytes": np.zeros(2, np.int64)})
    ),
    "a bad picture that is not there": lambda i: dataclasses.replace(
        i, facts=dataclasses.replace(i.facts, bad={7: BadImage("empty", "x", "y")})
    ),
    "a kind that is none": lambda i: dataclasses.replace(
        i,
        facts=dataclasses.replace(i.facts, bad={0: BadImage("odd", "x", "y")}),  # type: ignore[arg-type]
    ),
    "a file elsewhere": lambda i: dataclasses.replace(i, token="../../x"),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_what_does_not_hold_together_is_no_index(forgery: str, tmp_path: Path) -> None:
    write_index(tmp_path, FORGERIES[forgery](index()), ABOUT)
    assert read_index(tmp_path, ABOUT, 1) is None


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 0.999), value=st.integers(0, 255), cut=st.booleans())
def test_damage_gives_an_index_or_none_and_nothing_else(tmp_path: Path, place: float, value: int, cut: bool) -> None:
    write_index(tmp_path, index(), ABOUT)
    raw = bytearray((tmp_path / FILE).read_bytes())
    at = int(place * len(raw))
    raw[at] = value
    (tmp_path / FILE).write_bytes(raw[:at] if cut else raw)
    found = read_index(tmp_path, ABOUT, 1)
    assert found is None or len(found.names) == len(found.row) == 3
