from __future__ import annotations

import errno
import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pellucid.errors import DataError, PellucidError, UsageError
from pellucid.files import read_tensors, read_tensors_metadata, write_tensors

DTYPES = ["bool", "uint8", "int8", "uint16", "int16", "float16", "uint32", "int32", "float32", "uint64", "int64"]


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def entry(dtype: str = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def put(tmp_path: Path, header: Any, data: bytes = b"", length: int | None = None) -> Path:
    """A file made by the format's description, independent of the library: u64 length, JSON, bytes."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def test_reads_a_file_made_by_hand(tmp_path: Path) -> None:
    header = {
        "b": entry("F64", [], [4, 12]),
        "a": entry("I16", [1, 2], [0, 4]),
        "__metadata__": {"format": "pt"},
        "e": entry("F32", [0, 7], [12, 12]),
    }
    path = put(tmp_path, header, struct.pack("<hhd", -3, 500, 2.5))
    arrays = read_tensors(path)
    assert list(arrays) == ["a", "b", "e"]
    np.testing.assert_array_equal(arrays["a"], np.array([[-3, 500]], np.int16))
    assert arrays["a"].dtype == np.int16
    assert arrays["b"].shape == ()
    assert arrays["b"] == 2.5
    assert arrays["e"].shape == (0, 7)
    assert read_tensors_metadata(path) == {"format": "pt"}
    arrays["a"][0, 0] = 7
    assert read_tensors(path)["a"][0, 0] == -3


def test_booleans_become_true_or_false(tmp_path: Path) -> None:
    array = read_tensors(put(tmp_path, {"m": entry("BOOL", [3], [0, 3])}, b"\x00\x01\x05"))["m"]
    assert array.dtype == np.bool_
    assert array.view(np.uint8).tolist() == [0, 1, 1]
    scalar = read_tensors(put(tmp_path, {"m": entry("BOOL", [], [0, 1])}, b"\x05"))["m"]
    assert isinstance(scalar, np.ndarray)
    assert scalar.shape == ()


def test_writes_what_another_reader_understands(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write_tensors(path, {"w": np.array([[1, 2], [3, 4]], np.float32).T, "n": np.array(7)}, {"z": "1", "a": "花"})
    data = path.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    assert (8 + length) % 8 == 0
    assert header["__metadata__"] == {"z": "1", "a": "花"}
    begin, end = header["w"]["data_offsets"]
    body = data[8 + length :]
    assert struct.unpack("<4f", body[begin:end]) == (1.0, 3.0, 2.0, 4.0)
    assert header["n"]["shape"] == []
    assert header["n"]["dtype"] == "I64"


@settings(max_examples=100, deadline=None)
@given(
    arrays=st.dictionaries(
        st.text(max_size=12).filter(lambda name: name != "__metadata__"),
        st.sampled_from([*DTYPES, "float64", ">f4", ">i8"]).flatmap(
            lambda dtype: hnp.arrays(np.dtype(dtype), hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
        ),
        max_size=4,
    ),
    metadata=st.none() | st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=4),
    view=st.sampled_from(["as is", "transposed", "reversed", "every second"]),
)
def test_round_trip(
    tmp_path_factory: pytest.TempPathFactory,
    arrays: dict[str, np.ndarray[Any, Any]],
    metadata: dict[str, str] | None,
    view: str,
) -> None:
    path = tmp_path_factory.getbasetemp() / "round.safetensors"
    if view == "transposed":
        arrays = {name: array.T for name, array in arrays.items()}
    elif view != "as is":
        step = -1 if view == "reversed" else 2
        arrays = {name: array[..., ::step] if array.ndim else array for name, array in arrays.items()}
    write_tensors(path, arrays, metadata)
    back = read_tensors(path)
    assert list(back) == sorted(arrays)
    for name, array in arrays.items():
        assert back[name].shape == array.shape
        assert back[name].dtype == array.dtype.newbyteorder("<")
        assert back[name].flags.writeable
        assert back[name].flags.c_contiguous
        assert back[name].tobytes() == np.asarray(array, dtype=array.dtype.newbyteorder("<")).tobytes()
    assert read_tensors_metadata(path) == (metadata or {})


WRITER = """
import sys
import numpy as np
from pellucid.files import write_tensors
write_tensors(sys.argv[1], {"b": np.zeros(3, np.float32), "a": np.ones(2)}, {key: key for key in "qwertyuiop"})
"""


def test_equal_arrays_give_equal_bytes_in_every_process(tmp_path: Path) -> None:
    """The library alone writes the metadata in an order that changes from one process to the next."""
    written = set()
    for number in range(4):
        path = tmp_path / str(number)
        subprocess.run([sys.executable, "-c", WRITER, str(path)], check=True, timeout=60)
        written.add(path.read_bytes())
    assert len(written) == 1


def test_files_of_torch_users_open(tmp_path: Path) -> None:
    """What the library's own PyTorch writer makes, this reader takes."""
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    weight = torch.arange(6, dtype=torch.float32).reshape(2, 3)
    path = tmp_path / "model.safetensors"
    save_file({"fc.weight": weight, "steps": torch.tensor(3)}, str(path), {"format": "pt"})
    arrays = read_tensors(path)
    np.testing.assert_array_equal(arrays["fc.weight"], weight.numpy())
    assert arrays["steps"].shape == ()
    save_file({"fc.weight": weight.to(torch.bfloat16)}, str(path))
    with pytest.raises(DataError, match=r"'fc\.weight' is of type 'BF16', which NumPy lacks: save it as"):
        read_tensors(path)


@pytest.mark.parametrize("array", [np.array(["a"]), np.array([None]), np.zeros(2, np.complex128), np.zeros(2, "M8[s]")])
def test_unknown_types_are_not_written(tmp_path: Path, array: np.ndarray[Any, Any]) -> None:
    with pytest.raises(UsageError, match=r"m\.safetensors: w is of type .*turn it into one of bool"):
        write_tensors(tmp_path / "m.safetensors", {"w": array})
    with pytest.raises(UsageError, match="__metadata__"):
        write_tensors(tmp_path / "m.safetensors", {"__metadata__": np.zeros(1)})
    assert names(tmp_path) == set()


DAMAGE: list[tuple[str, Any, bytes, str]] = [
    ("shape says more", {"a": entry(shape=[3])}, b"8 bytes.", "takes 12 bytes, and has 8"),
    ("shape says a petabyte", {"a": entry(shape=[1 << 48])}, b"8 bytes.", "takes 1,125,899,906,842,624 bytes"),
    ("range says a petabyte", {"a": entry(shape=[1 << 48], offsets=[0, 1 << 50])}, b"8 bytes.", "the file has 8"),
    ("file too long", {"a": entry()}, b"8 bytes. and more", "the file has 17"),
    ("file too short", {"a": entry()}, b"8 byt", "the file has 5"),
    ("gap", {"a": entry(), "b": entry(offsets=[12, 20])}, b"-" * 20, "'b' begins at byte 12, where 8 was expected"),
    ("gap at the start", {"a": entry(offsets=[4, 12])}, b"-" * 12, "begins at byte 4, where 0"),
    ("overlap", {"a": entry(), "b": entry(offsets=[4, 12])}, b"-" * 12, "'b' begins at byte 4, where 8"),
    ("the same bytes twice", {"a": entry(), "b": entry()}, b"-" * 8, "'b' begins at byte 0, where 8"),
    ("backwards", {"a": entry(offsets=[8, 0])}, b"-" * 8, "byte range"),
    ("negative range", {"a": entry(offsets=[-8, 0])}, b"", "byte range"),
    ("three offsets", {"a": entry(offsets=[0, 4, 8])}, b"-" * 8, "byte range"),
    ("float offsets", {"a": entry(offsets=[0.0, 8.0])}, b"-" * 8, "byte range"),
    ("negative shape", {"a": entry(shape=[-1, -2])}, b"-" * 8, "the shape of 'a'"),
    ("boolean shape", {"a": entry(shape=[True, 2])}, b"-" * 8, "the shape of 'a'"),
    ("huge shape", {"a": entry(shape=[1 << 63, 0], offsets=[0, 0])}, b"", "the shape of 'a'"),
    ("shape of 65 dimensions", {"a": entry(shape=[1] * 65, offsets=[0, 4])}, b"-" * 4, "the shape of 'a'"),
    ("empty but too large for NumPy", {"a": entry(shape=[0, 1 << 62], offsets=[0, 0])}, b"", "not a sound"),
    ("empty after an overflow", {"a": entry(shape=[1 << 62, 1 << 62, 0], offsets=[0, 0])}, b"", "not a sound"),
    ("shape is text", {"a": entry(shape="2")}, b"-" * 8, "the shape of 'a'"),
    ("unknown type", {"a": entry("F8_E4M3", [8])}, b"-" * 8, "'F8_E4M3', which NumPy lacks"),
    ("type is a list", {"a": entry([])}, b"-" * 8, "which NumPy lacks"),  # type: ignore[arg-type]
    ("no type", {"a": {"shape": [2], "data_offsets": [0, 8]}}, b"-" * 8, "is not its dtype, shape and data_offsets"),
    ("one key more", {"a": {**entry(), "code": "x"}}, b"-" * 8, "is not its dtype"),
    ("entry is a number", {"a": 3}, b"", "is not its dtype"),
    ("metadata are numbers", {"__metadata__": {"a": 3}}, b"", "metadata are not texts"),
    ("metadata are a list", {"__metadata__": []}, b"", "metadata are not texts"),
    ("header is a list", [], b"", "no JSON object"),
    ("header is no JSON", b"{'a': 1}", b"", "header, line 1, column 2: not JSON"),
    ("header is deep", b"[" * 100_000, b"", "nested more than 4 deep"),
    ("one name twice", b'{"a": {}, "a": {}}', b"", "stands twice"),
    ("a number without end", b'{"a": ' + b"9" * 5000 + b"}", b"", "digits"),
    ("no UTF-8", b'{"\xff": {}}', b"", "not UTF-8"),
]


@pytest.mark.parametrize(("header", "data", "words"), [case[1:] for case in DAMAGE], ids=[case[0] for case in DAMAGE])
def test_lies_are_refused(tmp_path: Path, header: Any, data: bytes, words: str) -> None:
    path = put(tmp_path, header, data)
    with pytest.raises(DataError) as caught:
        read_tensors(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert words in message
    assert len(message) < len(str(path)) + 300


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "does not fit into a file of 0"),
        (b"\0\0\0", "does not fit into a file of 3"),
        (b"\0" * 8, "header, line 1, column 1: not JSON"),
        (b"\xff" * 8 + b"{}", "a header of 18,446,744,073,709,551,615 bytes does not fit"),
        (b"\x03" + b"\0" * 7 + b"{}", "a header of 3 bytes does not fit into a file of 10"),
    ],
)
def test_lies_about_the_header_s_length(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    for read in (read_tensors, read_tensors_metadata):
        with pytest.raises(DataError, match=words):
            read(path)


def test_a_header_of_many_megabytes_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", 17 << 20))
        file.truncate(18 << 20)
    with pytest.raises(DataError, match="above the 16,777,216 that are read"):
        read_tensors(path)


def test_size_limit_and_missing_file(tmp_path: Path) -> None:
    path = put(tmp_path, {"a": entry()}, b"8 bytes.")
    size = path.stat().st_size
    assert list(read_tensors(path, limit=size)) == ["a"]
    with pytest.raises(DataError, match="at most"):
        read_tensors(path, limit=size - 1)
    with pytest.raises(DataError, match="no such file"):
        read_tensors(tmp_path / "absent")
    with pytest.raises(DataError, match="is a folder"):
        read_tensors_metadata(tmp_path)


def outcome(path: Path) -> dict[str, Any] | DataError:
    try:
        return read_tensors(path)
    except DataError as error:
        return error


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=120))
def test_random_bytes_are_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "random.safetensors"
    for body in (data, struct.pack("<Q", len(data)) + data):
        path.write_bytes(body)
        result = outcome(path)
        assert result == {} or str(result).startswith(str(path))


@settings(max_examples=300, deadline=None)
@given(place=st.integers(0, 10_000), byte=st.integers(0, 255), cut=st.integers(0, 40))
def test_a_flipped_byte_or_a_cut_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, place: int, byte: int, cut: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "flipped.safetensors"
    arrays = {"conv.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "n": np.array(3), "m": np.array([True])}
    write_tensors(path, arrays, {"format": "pt"})
    data = bytearray(path.read_bytes())
    data[place % len(data)] = byte
    path.write_bytes(bytes(data[: len(data) - cut]))
    result = outcome(path)
    if isinstance(result, DataError):
        assert str(result).startswith(str(path))
    else:
        assert cut == 0
        assert sum(array.nbytes for array in result.values()) == sum(array.nbytes for array in arrays.values())


def test_a_full_disk_leaves_the_old_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.safetensors"
    write_tensors(path, {"w": np.ones(3, np.float32)})
    real = os.write

    def full(descriptor: int, data: memoryview) -> int:
        if len(data) < 20:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, data[: len(data) // 2])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(PellucidError, match="no space left"):
            write_tensors(path, {"w": np.zeros(1000, np.float32)})
    np.testing.assert_array_equal(read_tensors(path)["w"], np.ones(3, np.float32))
    assert names(tmp_path) == {"model.safetensors"}
