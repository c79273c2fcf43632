from __future__ import annotations

import bz2
import dataclasses
import gzip
import hashlib
import io
import json
import lzma
import pickle
import random
import struct
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tests.fuzz.guard import few, guarded
from tests.fuzz.mutate import Edit, byte_edits, changed, json_edits, mutated, with_header

from pellucid.data import cifar, idx
from pellucid.data.cifar import CIFAR10
from pellucid.data.decode import BadImage, decode, decode_reduced, header
from pellucid.data.pack_index import FILE, Index, read_index, versions, write_index
from pellucid.data.reading import FIELDS, Facts
from pellucid.data.record import FILE as RECORD
from pellucid.data.record import Row, read_record, write_record
from pellucid.data.table import open_metadata, open_table


def _pictures() -> dict[str, bytes]:
    x = np.random.default_rng(0).integers(0, 256, (24, 31, 3), np.uint8)
    rgb, wide = Image.fromarray(x), Image.fromarray(x[..., 0].astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[0x0112] = 6
    ways: dict[str, tuple[Image.Image, str, dict[str, Any]]] = {
        "jpeg": (rgb, "JPEG", {"exif": exif}),
        "progressive": (rgb, "JPEG", {"progressive": True}),
        "cmyk": (rgb.convert("CMYK"), "JPEG", {}),
        "png": (rgb, "PNG", {"exif": exif}),
        "palette": (rgb.quantize(16), "PNG", {"transparency": 0}),
        "png16": (wide, "PNG", {}),
        "bmp": (rgb, "BMP", {}),
        "webp": (rgb, "WEBP", {"exif": exif}),
        "lossless": (rgb, "WEBP", {"lossless": True}),
        "gif": (rgb.quantize(16), "GIF", {"save_all": True, "append_images": [rgb.quantize(8)]}),
        "tiff": (rgb, "TIFF", {}),
        "deflate": (rgb, "TIFF", {"compression": "tiff_adobe_deflate"}),
        "float": (Image.fromarray(x[..., 0].astype(np.float32)), "TIFF", {}),
        "ppm": (rgb, "PPM", {}),
    }
    found = {"plain": b"P3\n# a comment\n4 3\n255\n" + b" ".join(b"%d" % n for n in range(36))}
    for name, (image, kind, options) in ways.items():
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        found[name] = buffer.getvalue()
    return found


PICTURES = _pictures()


@given(kind=st.sampled_from(sorted(PICTURES)), edits=byte_edits, other=st.sampled_from(sorted(PICTURES)))
@few(500)
def test_pictures(tmp_path_factory: pytest.TempPathFactory, kind: str, edits: list[Edit], other: str) -> None:
    raw = mutated(PICTURES[kind], edits, PICTURES[other])
    path = _here(tmp_path_factory) / "picture"
    path.write_bytes(raw)

    def read() -> Any:
        whole = decode(raw, "it")
        small = decode_reduced(raw, "it", 8)
        return whole, small, header(path)

    def sane(found: Any) -> bool:
        whole, small, said = found
        return bool(whole.dtype == np.uint8 and whole.shape == (said.height, said.width, 3) and small.pixels.size)

    guarded(f"decode {kind}", path.parent, read, sane=sane)


@pytest.mark.parametrize("kind", sorted(PICTURES))
def test_every_size_in_a_header_that_lies(tmp_path: Path, kind: str) -> None:
    """Each pair of bytes near the beginning in turn says huge, in either order of bytes."""
    raw = PICTURES[kind]
    for at in range(0, min(len(raw), 120), 2):
        for number in (b"\xff\xff", b"\x7f\xff", b"\x00\x00", b"\xff\xff\xff\x7f", b"\x00\x00\x05\xf5"):
            data = raw[:at] + number + raw[at + len(number) :]
            guarded(f"decode {kind}", tmp_path, lambda data=data: decode(data, "it"))  # type: ignore[misc]


@given(edits=byte_edits, packed=st.booleans())
@few(150)
def test_idx(tmp_path_factory: pytest.TempPathFactory, edits: list[Edit], *, packed: bool) -> None:
    sound = b"\0\0\x08\x03" + struct.pack(">III", 2, 3, 4) + bytes(range(24))
    path = _here(tmp_path_factory) / "file"
    path.write_bytes(mutated(gzip.compress(sound, mtime=0) if packed else sound, edits))
    guarded("idx", path.parent, lambda: idx.parse(idx.read_contents(path), "it"), sane=lambda x: x.dtype == np.uint8)


def test_half_a_gigabyte_of_zeros_in_half_a_megabyte_is_refused(tmp_path: Path) -> None:
    piece = gzip.compress(b"\0" * (1 << 24), mtime=0)
    for name, read in (("idx", idx.read_contents), ("cifar archive", lambda path: cifar._members(path, CIFAR10))):
        (tmp_path / name).write_bytes(piece * 33)
        guarded(name, tmp_path, lambda name=name, read=read: read(tmp_path / name), sane=lambda _: False)  # type: ignore[misc]


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_a_tar_whose_header_asks_for_all_of_a_bomb_is_refused(tmp_path: Path, pack: Any) -> None:
    """A long name is read in full before any entry is seen: this one claims eight gigabytes."""
    block = bytearray(tarfile.TarInfo("a").tobuf())
    block[124:136] = b"77777777777\0"
    block[156:157] = b"L"
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    zeros = pack(b"\0" * (1 << 25))
    (tmp_path / "a.tar").write_bytes(pack(bytes(block)) + zeros * 24)
    guarded("cifar archive", tmp_path, lambda: cifar._members(tmp_path / "a.tar", CIFAR10), sane=lambda _: False)


_OPCODES = st.sampled_from(
    [
        b"}", b"]", b")", b"(", b"N", b"\x88", b"K\x05", b"J\xff\xff\xff\x7f",
        b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\xff", b"X\x01\x00\x00\x00a", b"U\x04data",
        b"T\xff\xff\xff\x7f", b"B\x02\x00\x00\x00ab", b"\x8e\xff\xff\xff\xff\xff\xff\xff\xff", b"q\x00",
        b"h\x00", b"r\x00\x00\x01\x00", b"s", b"u", b"a", b"e", b"t", b"\x85", b"\x86", b"\x87", b"R", b"b",
        b"0", b"2", b"1", b"Q", b"P0\n", b"\x93", b"o", b"\x81", b"\x92", b"i0\n1\n", b"\x82\x01",
        b"\x95\xff\xff\xff\xff\xff\xff\xff\xff", b"\x97", b"\x98", b"\x96\x02\x00\x00\x00\x00\x00\x00\x00ab",
        b"cos\nsystem\n", b"cposix\nsystem\n", b"cbuiltins\neval\n", b"cbuiltins\nopen\n",
        b"csubprocess\nPopen\n", b"cnumpy.core.multiarray\n_reconstruct\n", b"cnumpy\nndarray\n",
        b"cnumpy\ndtype\n", b"ctorch._utils\n_rebuild_tensor_v2\n", b"cnumpy\nload\n",
        b"ccollections\nOrderedDict\n", b"U\x0btouch proof", b"U\x02u1", b"U\x01O", b"K\x00", b"C\x01b",
    ]
)  # fmt: skip

pickles = st.lists(_OPCODES, min_size=1, max_size=24).map(lambda parts: b"\x80\x02" + b"".join(parts) + b".")


@given(raw=pickles)
@few(300)
def test_pickles_of_cifar(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    here = _here(tmp_path_factory)
    guarded("cifar pickle", here, lambda: cifar._opened(raw, here), sane=lambda found: isinstance(found, dict))


@given(edits=byte_edits, cut=st.integers(0, 10))
@few(150)
def test_edited_pickles_of_cifar(tmp_path_factory: pytest.TempPathFactory, edits: list[Edit], cut: int) -> None:
    sound = pickle.dumps({"data": np.arange(24, dtype=np.uint8).reshape(2, 12), "labels": [1, 2]}, protocol=2)
    here = _here(tmp_path_factory)
    raw = mutated(sound, edits)
    guarded("cifar pickle", here, lambda: cifar._opened(raw, here), sane=lambda found: isinstance(found, dict))


def _tar(draw: random.Random, mode: str) -> bytes:
    """An archive with the set's files and strange entries between them."""
    buffer = io.BytesIO()
    kinds = (
        tarfile.REGTYPE,
        tarfile.SYMTYPE,
        tarfile.LNKTYPE,
        tarfile.FIFOTYPE,
        tarfile.DIRTYPE,
        b"S",
        b"L",
        b"K",
        b"x",
        b"g",
    )
    names = ("../../outside", "/etc/outside", "a" * 300, "cifar-10-batches-py/data_batch_1", "\udcff", "")
    with tarfile.open(fileobj=buffer, mode=mode, format=draw.choice((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT))) as tar:  # type: ignore[call-overload]
        for name in CIFAR10.files:
            if draw.random() < 0.3:
                strange = tarfile.TarInfo(draw.choice(names))
                strange.type, strange.linkname = draw.choice(kinds), draw.choice(names)
                strange.size = draw.choice((0, 5, 600))
                if draw.random() < 0.3:
                    strange.pax_headers = {
                        draw.choice(("size", "path", "GNU.sparse.size")): draw.choice(("9" * 30, "-1", ".."))
                    }
                tar.addfile(strange, io.BytesIO(b"7" * 600))
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = 4
            tar.addfile(member, io.BytesIO(b"data"))
    return buffer.getvalue()


@given(seed=st.integers(0, 2**32), edits=byte_edits, mode=st.sampled_from(("w:", "w:", "w:gz", "w:bz2", "w:xz")))
@few(250)
def test_archives(tmp_path_factory: pytest.TempPathFactory, seed: int, edits: list[Edit], mode: str) -> None:
    sums = {name: hashlib.md5(b"data").hexdigest() for name in CIFAR10.files}
    what = dataclasses.replace(
        CIFAR10, train={n: sums[n] for n in CIFAR10.train}, test={n: sums[n] for n in CIFAR10.test}, meta={
            n: sums[n] for n in CIFAR10.meta
        }
    )  # fmt: skip
    path = _here(tmp_path_factory) / "a.tar"
    path.write_bytes(mutated(_tar(random.Random(seed), mode), edits[1:]))
    guarded("cifar archive", path.parent, lambda: cifar._members(path, what), sane=lambda found: len(found) == 7)


@given(
    edits=byte_edits,
    values=json_edits,
    kind=st.sampled_from(("csv", "metadata.csv", "metadata.jsonl")),
    training=st.booleans(),
)
@few(300)
def test_tables(
    tmp_path_factory: pytest.TempPathFactory, edits: list[Edit], values: list[Edit], kind: str, *, training: bool
) -> None:
    folder = _here(tmp_path_factory) / "photos"
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    for name in ("1.jpg", "2.jpg"):
        (folder / name).write_bytes(b"")
    if kind.endswith("jsonl"):
        rows = [{"file_name": "1.jpg", "label": "a", "split": "train"}, {"file_name": "2.jpg", "label": 3}]
        text = changed(rows[0], values) + b"\n" + json.dumps(rows[1]).encode() + b"\n"
    else:
        text = b'path,label,split\n1.jpg,a,train\n"2.jpg",b,train\n'
    table = folder / ("t.csv" if kind == "csv" else kind)
    table.write_bytes(mutated(text, edits[1:]) if kind.endswith("jsonl") else mutated(text, edits))

    def read() -> Any:
        if kind == "csv":
            return open_table(table, training=training)
        return open_metadata(folder, training=training)

    def sane(source: Any) -> bool:
        inside = [
            file.resolve().is_relative_to(folder.resolve()) for x in source.splits.values() for file in x.files or ()
        ]
        for images in source.splits.values():
            for file, name in zip(images.files or (), images.names, strict=True):
                name.encode()
                try:
                    header(file, name)
                except BadImage:
                    continue
        return kind == "csv" or all(inside)

    guarded("table", folder, read, sane=sane)


@given(edits=byte_edits)
@few(150)
def test_records(tmp_path_factory: pytest.TempPathFactory, edits: list[Edit]) -> None:
    folder = _here(tmp_path_factory)
    write_record(folder, [Row("a, b.jpg", "a", "train", "0" * 16), Row('"花".jpg', "b", "val", "f" * 16)])
    (folder / RECORD).write_bytes(mutated((folder / RECORD).read_bytes(), edits))
    guarded(
        "images.csv",
        folder,
        lambda: read_record(folder),
        sane=lambda rows: {row.split for row in rows} <= {"train", "val", "before"},
    )


@given(edits=byte_edits, header_edits=json_edits, inside=st.booleans())
@few(200)
def test_packs(
    tmp_path_factory: pytest.TempPathFactory, edits: list[Edit], header_edits: list[Edit], *, inside: bool
) -> None:
    about, folder = versions((2, 2, 1), "crop"), _here(tmp_path_factory)
    columns = {name: np.zeros(3, dtype) for name, dtype in FIELDS.items()}
    facts = Facts(columns, np.tile(np.array([[4, 6]]), (3, 1, 1)), {1: BadImage("truncated", "b.jpg", "it ends")})
    write_index(folder, Index("abc", ("a.jpg", "b.jpg", "c.jpg"), facts, np.arange(3), np.zeros(3, np.uint32)), about)
    assert read_index(folder, about, 1) is not None
    whole = (folder / FILE).read_bytes()
    (folder / FILE).write_bytes(with_header(whole, header_edits) if inside else mutated(whole, edits))

    def sane(found: Index | None) -> bool:
        return found is None or (len(found) == len(set(found.names)) == len(found.facts) and found.token.isalnum())

    guarded("pack", folder, lambda: read_index(folder, about, 1), sane=sane)


def _here(factory: pytest.TempPathFactory) -> Path:
    folder = factory.getbasetemp() / "here"
    folder.mkdir(exist_ok=True)
    return folder
