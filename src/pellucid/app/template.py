"""Pages of one file, made from the templates in `pages`: no script, no font, no picture from elsewhere."""

from __future__ import annotations

import base64
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

_PAGES = Environment(
    loader=PackageLoader("pellucid.app", "pages"),
    # File and class names are a stranger's, and stay text.
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def rendered(page: str, **values: Any) -> str:
    """A page by the name of its template, with these values in it."""
    return _PAGES.get_template(f"{page}.html").render(**values)


def data_url(raw: bytes, kind: str) -> str:
    """An image file ("png", "jpeg") as an address that holds it."""
    return f"data:image/{kind};base64," + base64.b64encode(raw).decode("ascii")
