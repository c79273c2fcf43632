"""Files that are either whole or not there: atomic writes, readers with limits, checksums, new folders.

What is read may come from anywhere, so every reader says how much it takes and refuses damage with a DataError that
names the place. What is written replaces the old file in one step, so a full disk or lost power leaves the old one.
"""

from pellucid.files.folders import alone_in, make_folder, put, put_new, staged
from pellucid.files.read import checksum, read_bytes, read_json, read_lines
from pellucid.files.tensors import read_tensors, read_tensors_metadata, write_tensors
from pellucid.files.write import append_line, clear_unfinished, write_bytes, write_json, write_text

__all__ = [
    "alone_in",
    "append_line",
    "checksum",
    "clear_unfinished",
    "make_folder",
    "put",
    "put_new",
    "read_bytes",
    "read_json",
    "read_lines",
    "read_tensors",
    "read_tensors_metadata",
    "staged",
    "write_bytes",
    "write_json",
    "write_tensors",
    "write_text",
]
