from __future__ import annotations

import hashlib
import json
import os
import time
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.errors import DataError, UsageError
from pellucid.files import checksum, read_bytes, read_json, read_lines, write_json

if TYPE_CHECKING:
    from collections.abc import Callable


def put(tmp_path: Path, data: bytes | str) -> Path:
    path = tmp_path / "value.json"
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("null", None),
        ('\n {"a": [1, -2.5e3, true]}\n', {"a": [1, -2500.0, True]}),
        ("\ufeff[]", []),
        ('"\\u82b1"', "花"),
        ('["NaN", "{[", "\\"]"]', ["NaN", "{[", '"]']),
        ("1000000000000000019884624838656", 1000000000000000019884624838656),
        ("1e-999", 0.0),
    ],
)
def test_reads(tmp_path: Path, text: str, value: Any) -> None:
    assert read_json(put(tmp_path, text)) == value


def test_depth(tmp_path: Path) -> None:
    assert read_json(put(tmp_path, "[" * 64 + "]" * 64)) is not None
    assert read_json(put(tmp_path, '{"a": [[], [{}]]}'), depth=4) == {"a": [[], [{}]]}
    # Many brackets side by side are not deep.
    assert len(read_json(put(tmp_path, "[" + ",".join(["[]"] * 500) + "]"), depth=2)) == 500
    with pytest.raises(DataError, match=r"value\.json, line 2, column 13: nested more than 3 deep"):
        read_json(put(tmp_path, '{"a": "[{[{",\n "b": [[], [{}]]}'), depth=3)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("", "line 1, column 1: not JSON"),
        ('{"a": 1,\n "b" 2}', "line 2, column 6: not JSON (Expecting ':' delimiter)"),
        ('{"a": 1} x', "line 1, column 10: not JSON"),
        ('{"a": "NaN",\n "b": NaN}', "line 2, column 7: NaN is not a number JSON has"),
        ("[Infinity]", "line 1, column 2: Infinity is not"),
        ("[\n\n -Infinity]", "line 3, column 2: -Infinity is not"),
        ("[1, 1e999]", "line 1, column 5: 1e999 is too large"),
        ("[-1" + "0" * 400 + ".5]", "line 1, column 2: -10000"),
        ('{"a": {"b": 1, "c": 2, "b": 3}}', "the key 'b' stands twice"),
        (b'{"a":\n "caf\xe9"}', "line 2: not UTF-8"),
        (b"\xff\xfe{\0}\0", "line 1: not UTF-8"),
        ('["a\nb"]', "not JSON"),
        ("[01]", "not JSON"),
    ],
)
def test_refuses(tmp_path: Path, data: bytes | str, words: str) -> None:
    path = put(tmp_path, data)
    with pytest.raises(DataError) as caught:
        read_json(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert words in message
    assert len(message) < len(str(path)) + 200


@pytest.mark.parametrize("size", [5_000, 4_000_000])
def test_a_huge_whole_number_costs_nothing(tmp_path: Path, size: int) -> None:
    """Turned into an int, a number this long would take minutes."""
    path = put(tmp_path, "[" + "9" * size + "]")
    start = time.perf_counter()
    with pytest.raises(DataError, match=rf"line 1, column 2: 9{{30}}… has {size:,} digits, and at most 100"):
        read_json(path)
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize("text", ["[" * 1_000_000, '{"a":' * 500_000, "[" * 2_000 + "]" * 2_000, "[[{}]," * 200_000])
def test_deep_nesting_is_no_crash(tmp_path: Path, text: str) -> None:
    with pytest.raises(DataError, match=r"line 1, column \d+: "):
        read_json(put(tmp_path, text))


def test_the_search_for_a_place_is_linear(tmp_path: Path) -> None:
    """Escaped quotes without end: a search that goes back would take hours."""
    path = put(tmp_path, "[" * 70 + "0" + "]" * 70 + '"' + '\\"' * 1_000_000)
    start = time.perf_counter()
    with pytest.raises(DataError):
        read_json(path)
    path = put(tmp_path, "[" * 5_000 + '"' + '\\"' * 1_000_000)
    with pytest.raises(DataError, match="column 65: nested more than 64"):
        read_json(path)
    assert time.perf_counter() - start < 10


def test_size_limit(tmp_path: Path) -> None:
    path = put(tmp_path, "[" + " " * 98 + "]")
    assert read_json(path, limit=100) == []
    with pytest.raises(DataError, match=r"holds 100 bytes or more, and at most 99 are read"):
        read_json(path, limit=99)


def test_a_file_that_grows_between_looking_and_reading_is_still_limited(tmp_path: Path) -> None:
    device = Path("/proc/self/mountinfo")
    if not device.exists():
        pytest.skip("no /proc here, whose files report a size of 0")
    with pytest.raises(DataError, match="at most 10 are read"):
        read_bytes(device, limit=10)


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.json: there is no such file"):
        read_json(tmp_path / "absent.json")
    with pytest.raises(DataError, match="is a folder"):
        read_json(tmp_path)
    with pytest.raises(DataError, match="there is no such file"):
        read_json(put(tmp_path, "") / "below")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        for read in (read_json, checksum, read_lines):
            with pytest.raises(DataError, match="no regular file"):
                read(tmp_path / "pipe")


def test_a_disk_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(tmp_path, "{}")

    def fails(*_args: object, **_kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", fails)
        for read in (read_json, checksum, read_lines):
            with pytest.raises(DataError, match="not allowed to read it"):
                read(path)

    def breaks(*_args: object, **_kwargs: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", breaks)
        with pytest.raises(DataError, match="could not read it"):
            read_json(path)


@pytest.mark.parametrize("line", [b'{"torn', b"[1]", b"3", b"NaN", b'{"a": 1, "a": 2}', b"\xff"])
def test_damage_before_the_last_line_is_refused(tmp_path: Path, line: bytes) -> None:
    path = put(tmp_path, b'{"epoch": 1}\n\n' + line + b'\n{"epoch": 2}\n')
    with pytest.raises(DataError, match=r"value\.json, line 3"):
        read_lines(path)
    # The newline stands at the end of a line that was written whole.
    with pytest.raises(DataError, match=r"value\.json, line 2"):
        read_lines(put(tmp_path, b'{"epoch": 1}\n' + line + b"\n"))


def test_lines(tmp_path: Path) -> None:
    assert read_lines(put(tmp_path, "")) == []
    assert read_lines(put(tmp_path, '{"a": 1}\r\n\r\n{"b": 2}')) == [{"a": 1}, {"b": 2}]
    with pytest.raises(DataError, match="at most 7 are read"):
        read_lines(put(tmp_path, '{"a": 1}\n'), 7)


def outcome(read: Callable[[Path], Any], path: Path) -> Any:
    try:
        return read(path)
    except DataError as error:
        return error


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=200))
def test_random_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = put(tmp_path_factory.getbasetemp(), data)
    for read in (read_json, read_lines):
        result = outcome(read, path)
        assert not isinstance(result, DataError) or str(result).startswith(str(path))


@settings(max_examples=300, deadline=None)
@given(text=st.text(alphabet='[]{}",:\\ \n0123456789eE+-.NaInfityrulsu花', max_size=60))
def test_what_is_taken_means_the_same_to_python(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = put(tmp_path_factory.getbasetemp(), text)
    value = outcome(read_json, path)
    assert isinstance(value, DataError) or value == json.loads(text)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**90), 10**90)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=8)
    # Of what is no text the one thing that stands in names of files: a byte that is not UTF-8.
    | st.sampled_from(["\udce9", "\u2028", "\0"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(value=JSON)
def test_what_is_written_reads_back(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "back.json"
    write_json(path, value)
    assert read_json(path) == value


def test_checksums(tmp_path: Path) -> None:
    path = put(tmp_path, "abc")
    # RFC 1321 (MD5) and FIPS 180-2 (SHA-1, SHA-256), each for "abc".
    assert checksum(path, "md5") == "900150983cd24fb0d6963f7d28e17f72"
    assert checksum(path, "sha1") == "a9993e364706816aba3e25717850c26c9cd0d89d"
    assert checksum(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    big = os.urandom(3_000_001)
    assert checksum(put(tmp_path, big)) == hashlib.sha256(big).hexdigest()
    for name in ("md6", "shake_128", ""):
        with pytest.raises(UsageError, match="use sha256 or md5"):
            checksum(path, name)
    with pytest.raises(DataError, match="is a folder"):
        checksum(tmp_path)
    with pytest.raises(DataError, match="no such file"):
        checksum(tmp_path / "absent")


def test_half_a_character_is_refused_and_a_strange_byte_of_a_name_is_not(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for text in ('{"a": ["\\ud800"]}', '{"\\uDFFF": 1}', '"\\udc00\\ud800"'):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(DataError, match=r"a\.json: .* holds half a character: mend it"):
            read_json(path)
    path.write_text('["\\udc80", "\\ud83c\\udf39"]', encoding="utf-8")
    assert read_json(path) == ["\udc80", "🌹"]


def test_a_name_that_no_file_can_have_is_refused() -> None:
    for name in ("a\0b", "\ud800"):
        with pytest.raises(DataError, match="is no name that a file can have"):
            read_bytes(name, limit=10)


def test_memory_is_set_aside_for_the_file_and_not_for_the_limit(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 100)
    tracemalloc.start()
    read_bytes(tmp_path / "a", limit=1 << 40)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


def test_many_short_lines_take_little_time_each(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"{}\n" * 200_000)
    begun = time.perf_counter()
    assert len(read_lines(tmp_path / "a")) == 200_000
    assert time.perf_counter() - begun < 5
