"""Files that are either whole or not there: atomic writes, readers with limits, checksums, new folders.

What is read may come from anywhere, so every reader says how much it takes and refuses damage with a DataError that
names the place. What is written replaces the old file in one step, so a full disk or lost power leaves the old one.
"""

from pellucid.files.folders import make_folder, new_folder
from pellucid.files.read import checksum, read_bytes, read_json, read_lines
from pellucid.files.tensors import read_tensors, read_tensors_metadata, write_tensors
from pellucid.files.write import append_line, write_bytes, write_json, write_text

__all__ = [
    "append_line",
    "checksum",
    "make_folder",
    "new_folder",
    "read_bytes",
    "read_json",
    "read_lines",
    "read_tensors",
    "read_tensors_metadata",
    "write_bytes",
    "write_json",
    "write_tensors",
    "write_text",
]
