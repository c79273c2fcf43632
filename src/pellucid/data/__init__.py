"""Pictures on disk to labels, and on to batches of uint8.

Opening and splitting are here. What needs torch is imported from its own module, so that a command that only looks at
pictures does not wait for it (`preprocess`, `load`, `augment`, `batches`); `decode.decode` likewise, whose name here
would hide its module.
"""

from pellucid.data.decode import BadImage, Header, header
from pellucid.data.images import Images, Source, Split
from pellucid.data.source import Understanding, open_source, understood
from pellucid.data.split import digest, digests, sample, stratified

__all__ = [
    "BadImage",
    "Header",
    "Images",
    "Source",
    "Split",
    "Understanding",
    "digest",
    "digests",
    "header",
    "open_source",
    "sample",
    "stratified",
    "understood",
]
