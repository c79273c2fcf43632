from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from pellucid.data import decode as decode_module
from pellucid.data.decode import BadImage, decode
from pellucid.data.markers import ends, ends_early, scans


def jpeg(**options: object) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    Image.fromarray(pixels).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def counted(raw: bytes) -> int:
    """The scans of a JPEG by its start-of-scan markers, which stand nowhere else in one without thumbnails."""
    return raw.count(b"\xff\xda")


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"progressive": True, "quality": 100}, {"restart_marker_blocks": 3}]
)
def test_scans_are_counted(options: dict[str, object]) -> None:
    raw = jpeg(**options)
    assert scans(raw) == counted(raw)
    assert (scans(raw) > 5) == ("progressive" in options)


def test_what_follows_the_picture_does_not_count() -> None:
    raw = jpeg(progressive=True)
    assert scans(raw + raw * 50) == scans(raw)


def test_a_jpeg_that_goes_through_itself_too_often_is_refused_at_once() -> None:
    raw = jpeg(progressive=True)
    last = raw.rindex(b"\xff\xda")
    # The last scan again and again: a decoder goes through the whole picture for each.
    many = raw[:last] + raw[last:-2] * 200 + raw[-2:]
    assert scans(many) > decode_module.MAX_SCANS
    with pytest.raises(BadImage, match=r"it is a JPEG of 2\d\d scans, and 100 is the most that is decoded"):
        decode(many, "it")
    assert decode(raw, "it").shape == (40, 50, 3)


def test_where_a_jpeg_ends() -> None:
    raw = jpeg()
    assert ends(raw)
    assert ends(raw + b"\0" * 100)
    assert not ends(raw[:-200] + b"\0" * 500)
    assert ends_early(raw[:-2])
    assert not ends_early(raw)
