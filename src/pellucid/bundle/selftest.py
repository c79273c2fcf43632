"""What a bundle's self-test expects: a checksum of every file that decides what it answers, and logits of pictures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pellucid.bundle import head_file
from pellucid.errors import DataError, VerificationError
from pellucid.files import checksum, read_json

#: Where it stands in a bundle.
EXPECTED = "selftest/expected.json"
#: The files that decide what a bundle answers, where they are there.
FILES = ("config.json", "preprocessor_config.json", "model.safetensors", head_file.SKOPS, head_file.JSON)


def sums(bundle: Path) -> dict[str, str]:
    """The checksum of every file of a bundle that decides what it answers, and of its self-test's pictures."""
    own = [bundle / name for name in FILES if (bundle / name).exists()]
    pictures = [path for path in (bundle / "selftest").iterdir() if path != bundle / EXPECTED and path.name[0] != "."]
    return {path.relative_to(bundle).as_posix(): checksum(path) for path in sorted([*own, *pictures])}


def expectation(path: Path) -> tuple[dict[str, str], list[tuple[str, NDArray[np.float64]]]]:
    """The checksums and the logits that a bundle's self-test expects."""
    expected = read_json(path)
    try:
        listed = {str(file): str(value) for file, value in expected["sha256"].items()}
        entries = expected["pictures"]
        pairs = [(str(entry["file"]), np.array(entry["logits"], dtype=np.float64)) for entry in entries]
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise DataError(
            f"{path}: not a self-test that can be read here ({error!r:.200}); take another copy, or train again"
        ) from error
    if not pairs:
        raise DataError(f"{path}: this bundle carries no pictures to test itself with; take another copy")
    for file, _ in pairs:
        if Path(file).name != file:
            raise DataError(f"{path}: {file!r:.80} lies outside the self-test's folder; take another copy")
        if f"selftest/{file}" not in listed:
            raise DataError(f"{path}: has no checksum of {file!r:.80}; take another copy")
    return listed, pairs


def compare(bundle: Path, expected: Mapping[str, str]) -> None:
    """Raise VerificationError for a file that is not the one that was saved, is missing, or was added."""
    found = sums(bundle)
    for file in sorted(expected.keys() | found.keys()):
        if file not in found:
            raise VerificationError(f"{bundle}: {file!r:.80} is missing: copy the bundle whole")
        if file not in expected:
            raise VerificationError(f"{bundle / file}: is no part of the bundle as it was saved: take it away")
        if found[file] != expected[file]:
            raise VerificationError(
                f"{bundle / file}: is not the file that was saved with this bundle (its SHA-256 begins with "
                f"{found[file][:8]}, not {expected[file][:8]!r}): copy the bundle again"
            )
