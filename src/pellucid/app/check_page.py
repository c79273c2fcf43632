"""The report of `pellucid check` as a page of one file: no script, no font, no picture from elsewhere."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from PIL import Image

from pellucid import __version__
from pellucid.app.template import data_url, rendered
from pellucid.data.audit import KINDS, Audit
from pellucid.data.decode import BadImage, decode_reduced
from pellucid.data.images import Images
from pellucid.data.reading import read_file
from pellucid.files import write_text

#: The longer side of a thumbnail, in pixels.
SIDE = 112

#: Problems of each kind that are shown with their pictures; of more, the names alone.
PICTURED = 200

#: Problems of each kind that are listed at all.
LISTED = 2000


def write_page(path: str | os.PathLike[str], report: dict[str, Any], images: Images, audit: Audit) -> None:
    """Write the page. Raises PellucidError when the file cannot be written."""
    groups = []
    wanted = [row["example"] for row in report["classes"].values() if row["example"]]
    for kind in KINDS:
        problems = [problem for problem in audit.problems if problem.kind == kind]
        if problems:
            groups.append((kind, problems))
            wanted += [name for problem in problems[:PICTURED] for name in (problem.file, problem.other) if name]
    page = rendered(
        "check",
        report=report,
        splits=[key for key in next(iter(report["classes"].values())) if key not in {"median_size", "example"}],
        groups=[(kind, problems[:LISTED], len(problems)) for kind, problems in groups],
        thumbnails=thumbnails(images, wanted),
        version=__version__,
    )
    write_text(path, page)


def thumbnails(images: Images, names: Iterable[str]) -> dict[str, str]:
    """Small pictures as data URLs, by name; without those that cannot be decoded or are not known."""
    place = {name: n for n, name in enumerate(images.names)}
    wanted = [name for name in dict.fromkeys(names) if name in place]

    def one(name: str) -> str | None:
        n = place[name]
        try:
            if images.files is not None:
                image = Image.fromarray(decode_reduced(read_file(images.files[n], name)[0], name, SIDE).pixels)
            else:
                assert images.pixels is not None
                x = images.pixels[n]
                image = Image.fromarray(np.ascontiguousarray(x[:, :, 0] if x.shape[2] == 1 else x))
        except BadImage:
            return None
        image.thumbnail((SIDE, SIDE))
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=80)
        return data_url(buffer.getvalue(), "jpeg")

    with ThreadPoolExecutor() as pool:
        made = zip(wanted, pool.map(one, wanted), strict=True)
        return {name: url for name, url in made if url is not None}
