"""What a picture file's bytes tell before a decoder is asked: where it should end, how often it is gone through."""

from __future__ import annotations

import re

#: A marker in a JPEG's scan that ends it: none of those that stand for a byte 255 or restart the decoder.
_SCAN_ENDS = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")

_START_OF_SCAN, _END = 0xDA, 0xD9


def ends_early(raw: bytes) -> bool:
    """Whether a file that could not be read ends before the place that its own first bytes point to."""
    if raw.startswith(b"\xff\xd8\xff"):
        return raw.find(b"\xff\xd9") < 0
    if raw.startswith(b"\x89PNG\r\n\x1a\n"):
        return raw.find(b"IEND") < 0
    if raw[:4] == b"RIFF" and raw[8:12] == b"WEBP":
        return len(raw) < 8 + int.from_bytes(raw[4:8], "little")
    if raw[:4] in {b"II*\x00", b"MM\x00*"}:
        return len(raw) <= int.from_bytes(raw[4:8], "little" if raw[:1] == b"I" else "big")
    return raw[:6] in {b"GIF87a", b"GIF89a"} and not raw.endswith(b";")


def ends(raw: bytes) -> bool:
    """Whether a JPEG has an end marker after the beginning of its scan.

    An interrupted copy is often filled up with zeros, which the decoder takes for pixels.
    """
    if raw.endswith(b"\xff\xd9"):
        return True  # as nearly all do
    at = 2
    while at + 4 <= len(raw) and raw[at] == 0xFF:
        if raw[at + 1] == _START_OF_SCAN:
            return raw.rfind(b"\xff\xd9", at) >= 0  # from the end, where it stands as a rule
        at = _after(raw, at)
    return True


def scans(raw: bytes) -> int:
    """How many scans a JPEG's picture has; what follows it in the file (another picture, a film) does not count."""
    at, count = 2, 0
    while at + 4 <= len(raw) and raw[at] == 0xFF and raw[at + 1] != _END:
        is_scan = raw[at + 1] == _START_OF_SCAN
        at = _after(raw, at)
        if is_scan:
            count += 1
            end = _SCAN_ENDS.search(raw, at)
            at = len(raw) if end is None else end.start()
    return count


def _after(raw: bytes, at: int) -> int:
    """Where what follows the segment at `at` begins; a marker may be filled up with bytes 255."""
    return at + 1 if raw[at + 1] == 0xFF else at + 2 + int.from_bytes(raw[at + 2 : at + 4], "big")
