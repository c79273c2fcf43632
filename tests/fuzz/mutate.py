"""Hostile variants of sound files: a few edits each, of bytes and of JSON, drawn by Hypothesis so that they shrink."""

from __future__ import annotations

import copy
import json
import random
import struct
from typing import Any

from hypothesis import strategies as st

#: One edit: what, and what it is drawn from.
Edit = tuple[str, int]

_BYTES = ("flip", "byte", "cut", "drop", "twice", "insert", "number", "splice")
_JSON = ("value", "value", "value", "remove", "again", "wrap", "swap", "key", "number")

byte_edits = st.lists(st.tuples(st.sampled_from(_BYTES), st.integers(0, 2**32)), min_size=1, max_size=4)
json_edits = st.lists(st.tuples(st.sampled_from(_JSON), st.integers(0, 2**32)), min_size=1, max_size=4)

_NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1)


class Raw:
    """A piece of text that stands in the JSON as it is, sound or not."""

    def __init__(self, text: str) -> None:
        self.text = text


HOSTILE: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 2, 3, 64, 1 << 20, 2**31, 2**53, 2**62, 2**63, 2**64, 10**18, 10**99, 0.5, -0.0,
    1e-320, 1e308, -1e308, "", " ", "a", "0", "../../x", "/etc/passwd", "..", ".", "a\0b", "\ud800", "\udc80",
    "a" * 10_000, "nan", "__class__", "float32", [], {}, [[]], [0], [1, 2], [-1], [10**18, 10**18], ["a"], {"a": 1},
    {"$float": "nan"}, {"$float": []}, {"height": 4096, "width": 4096}, [2**62, 4], [None], {"": None},
    Raw("NaN"), Raw("-Infinity"), Raw("1e999"), Raw("9" * 5000), Raw("[" * 100 + "]" * 100), Raw('{"a":1,"a":2}'),
    Raw('"\\ud800\\ud800"'), Raw("[" * 3000), Raw("'"), Raw(""),
)  # fmt: skip


def mutated(data: bytes, edits: list[Edit], other: bytes = b"") -> bytes:
    """The bytes after the edits; `other` is what pieces are taken from for a splice."""
    found = bytearray(data)
    for kind, seed in edits:
        draw = random.Random(seed)
        size = len(found)
        at = draw.randrange(size + 1) if draw.random() < 0.5 else draw.randrange(min(size, 200) + 1)
        length = min(size - at, draw.choice((1, 2, 4, 8, 16, 64, 1000)))
        if kind == "flip" and at < size:
            found[at] ^= 1 << draw.randrange(8)
        elif kind == "byte" and at < size:
            found[at] = draw.choice((0, 1, 0x7F, 0x80, 0xFE, 0xFF, draw.randrange(256)))
        elif kind == "cut":
            del found[at:]
        elif kind == "drop":
            del found[at : at + length]
        elif kind == "twice":
            found[at:at] = found[at : at + length] * draw.choice((1, 2, 100))
        elif kind == "insert":
            found[at:at] = draw.choice(
                (b"\0", b"\xff" * 8, draw.randbytes(length), b"[" * 2000, b"\n" * 2000, b"\xff\xda")
            )
        elif kind == "number":
            form = draw.choice(("<B", "<H", ">H", "<I", ">I", "<Q", ">Q"))
            number = struct.pack(form, draw.choice(_NUMBERS) % (1 << 8 * struct.calcsize(form)))
            found[at : at + len(number)] = number
        elif kind == "splice" and (other or data):
            source = other or data
            start = draw.randrange(len(source))
            found[at : at + length] = source[start : start + length]
    return bytes(found)


def changed(value: Any, edits: list[Edit]) -> bytes:
    """The JSON of a value after the edits, which is not always JSON any more."""
    root = [copy.deepcopy(value)]
    for kind, seed in edits:
        draw = random.Random(seed)
        places = _places(root)
        holder, key = places[draw.randrange(len(places))]
        if kind == "value":
            # A copy, which later edits change.
            holder[key] = copy.deepcopy(draw.choice(HOSTILE))
        elif kind == "number" and type(holder[key]) in {int, float}:
            holder[key] = draw.choice((-holder[key], holder[key] + 1, holder[key] - 1, holder[key] * 2, 2**63, 1e300))
        elif kind == "remove" and holder is not root:
            del holder[key]
        elif kind == "again" and isinstance(holder, list):
            holder.append(copy.deepcopy(holder[key]) if holder is not root else None)
        elif kind == "wrap":
            holder[key] = [holder[key]]
        elif kind == "swap":
            other, where = places[draw.randrange(len(places))]
            if not _within(holder[key], other) and not _within(other[where], holder):
                holder[key], other[where] = other[where], holder[key]
        elif kind == "key" and isinstance(holder, dict):
            holder[draw.choice([one for one in HOSTILE if isinstance(one, str)])] = holder.pop(key)
    return _text(root[0]).encode("utf-8", "surrogatepass")


def _within(value: Any, wanted: Any) -> bool:
    if value is wanted:
        return True
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(_within(one, wanted) for one in inner)


def _places(root: list[Any]) -> list[tuple[Any, Any]]:
    """Every value of a tree, as the container it stands in and its key there."""
    found: list[tuple[Any, Any]] = []
    waiting: list[Any] = [root]
    while waiting:
        holder = waiting.pop()
        for key in list(holder) if isinstance(holder, dict) else range(len(holder)):
            found.append((holder, key))
            if isinstance(holder[key], (dict, list)):
                waiting.append(holder[key])
    return found


def _text(value: Any) -> str:
    if isinstance(value, Raw):
        return value.text
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(key)}:{_text(one)}" for key, one in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(_text, value)) + "]"
    return json.dumps(value)


def with_header(data: bytes, edits: list[Edit]) -> bytes:
    """A safetensors file whose header is changed, and its length with it."""
    length = int.from_bytes(data[:8], "little")
    header = changed(json.loads(data[8 : 8 + length]), edits)
    return len(header).to_bytes(8, "little") + header + data[8 + length :]
