"""The page of `pellucid explain --html`: one file that needs nothing else, neither network nor scripts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pellucid.app.explained import PATCHES, TERMS, check, computed, sum_rows, term_rows
from pellucid.app.template import data_url, rendered
from pellucid.bundle.folder import png
from pellucid.draw import colours, tiles
from pellucid.errors import UsageError
from pellucid.explain import Explanation, Tape
from pellucid.explain.address import find
from pellucid.explain.node import Node
from pellucid.explain.patches import Patch, patches

if TYPE_CHECKING:
    from pellucid.app.explain import Asked

#: Maps of a layer that are drawn, and the width in CSS pixels that a sheet of them is brought to.
MAPS, WIDTH = 64, 420


def page(asked: Asked, address: str = "") -> str:
    """The page, as text: the picture, the number asked for (else the logit), its path, gradient, a weight, all layers.

    Raises UsageError for an address that the tape does not have.
    """
    tape = asked.tape
    number = tape.why(address or asked.logit)
    is_value = not find(tape, number.address).what
    chains = tape.path(number.address, 1) if is_value and number.made is not None else []
    links = chains[0].links if chains else ()
    chain = [_step(tape, link.address, link.share if depth else None) for depth, link in enumerate(links)]
    gradient_at = _beside(number.address, "grad")
    has_gradient = is_value and _has(tape, gradient_at)
    of, weight = _weight(tape, [number.address, *(link["address"] for link in chain)]) if is_value else ("", [])
    share_k = asked.probability_k
    best = np.argsort(-share_k)[:8]
    height, width = asked.pixels_hwc.shape[:2]
    return rendered(
        "explain",
        title=f"{Path(asked.file).name}: {asked.classes[int(best[0])]}",
        about=f"{asked.run}, {asked.file}",
        picture=_image(asked.pixels_hwc),
        picture_width=_shown_width(width, height, 260),
        answers=[(asked.classes[k], f"{share_k[k]:.1%}", round(200 * share_k[k])) for k in best.tolist()],
        notes=asked.notes,
        number=_explained(number),
        path=chain,
        strength=f"{chains[0].strength:.2g}" if chains else "",
        gradient=_explained(tape.why(gradient_at)) if has_gradient else None,
        weight=weight,
        weight_of=of if of != number.address else "",
        layers=[_layer(tape, node) for node in (*map(tape.node, tape.inputs), *computed(tape)) if len(node.shape) > 1],
    )


def _explained(explanation: Explanation) -> dict[str, Any]:
    shown = patches(explanation)[:PATCHES]
    return {
        "address": explanation.address,
        "value": f"{explanation.value:.7g}",
        "op": explanation.op,
        "formula": explanation.formula,
        "numbers": explanation.numbers,
        "details": explanation.details,
        "patches": [_patch(patch) for patch in shown],
        "sums": sum_rows(explanation, shown),
        "terms": term_rows(explanation),
        "check": check(explanation) if explanation.made is not None else "",
    }


def _patch(patch: Patch) -> dict[str, Any]:
    grids = ((patch.title, patch.value), (patch.factor or "slope", patch.coefficient), ("product", patch.contribution))
    return {"grids": [_grid(title, numbers) for title, numbers in grids], "total": f"{patch.total:.6g}"}


def _grid(title: str, numbers: NDArray[Any]) -> dict[str, Any]:
    """A table of numbers on their colours, paler than those of the maps so that they can be read."""
    shades = (colours(numbers).astype(int) + 2 * 255) // 3
    return {
        "title": title,
        "rows": [
            [
                {"text": f"{number + 0.0:.3g}", "colour": f"rgb({shade[0]}, {shade[1]}, {shade[2]})"}
                for number, shade in zip(row, tints, strict=True)
            ]
            for row, tints in zip(numbers.tolist(), shades.tolist(), strict=True)
        ],
    }


def _step(tape: Tape, address: str, share: float | None) -> dict[str, Any]:
    return {**_explained(tape.why(address)), "share": "" if share is None else f"{share:.1%}"}


def _weight(tape: Tape, addresses: Sequence[str]) -> tuple[str, list[dict[str, Any]]]:
    """The first of these numbers that was made with weights, and the largest of them: its gradient and next step."""
    for address in addresses:
        factors = [term for term in tape.why(address).largest(TERMS) if term.factor is not None]
        if factors:
            weight = str(factors[0].factor)
            asked = [("Its gradient", _beside(weight, "grad")), ("After the optimiser's step", _beside(weight, "next"))]
            found = [(heading, place) for heading, place in asked if _has(tape, place)]
            return address, [{**_explained(tape.why(place)), "heading": heading} for heading, place in found]
    return "", []


def _has(tape: Tape, address: str) -> bool:
    try:
        tape.value(address)
    except UsageError:
        return False
    return True


def _beside(address: str, what: str) -> str:
    """`conv1[0,1,2,3]` to `conv1.grad[0,1,2,3]`."""
    name, bracket, index = address.partition("[")
    return f"{name}.{what}{bracket}{index}"


def _layer(tape: Tape, node: Node) -> dict[str, Any]:
    value = tape.values[node.name]
    about = [node.module, node.source, f"largest |value| {np.abs(value).max(initial=0):.3g}"]
    images = []
    weight = next((name for name in node.inputs[1:2] if name is not None), None)
    if weight is not None and len(tape.node(weight).shape) == 4:
        images.append(_kernels(weight, tape.values[weight]))
    images.append(_maps(value[0]))
    return {
        "name": node.name,
        "op": node.op,
        "shape": "×".join(map(str, node.shape)),
        "about": " · ".join(filter(None, about)),
        "images": images,
    }


def _kernels(name: str, w_ockl: NDArray[Any]) -> dict[str, Any]:
    """The kernels of a convolution: each filter's channels side by side."""
    shown = w_ockl[:MAPS, : MAPS // 4]
    filters, channels = shown.shape[:2]
    beside = max(1, round(math.sqrt(filters / channels)))
    sheet = tiles(shown.reshape(-1, *shown.shape[2:]), columns=beside * channels)
    row = "a row each" if beside == 1 else f"{beside} in a row"
    filters_of, channels_of = _count(filters, len(w_ockl), "filters"), _count(channels, w_ockl.shape[1], "channels")
    return _figure(sheet, f"{name}: {filters_of} of {channels_of}, {row}")


def _maps(values: NDArray[Any]) -> dict[str, Any]:
    """Feature maps side by side; of a flat layer a strip of numbers."""
    flat = values.reshape(1, 1, -1) if values.ndim < 3 else values.reshape(-1, *values.shape[-2:])
    if values.ndim == 2:
        flat = values[None]
    if flat.shape[-1] > 8 * WIDTH or flat.shape[-2] > 8 * WIDTH:
        flat = flat[..., : 8 * WIDTH, : 8 * WIDTH]
    shown = flat[:MAPS]
    what = _count(len(shown), len(flat), "maps") if len(flat) > 1 else f"{values.size:,} numbers"
    return _figure(tiles(shown), what)


def _count(shown: int, all_of_them: int, what: str) -> str:
    return f"{all_of_them} {what}" if shown == all_of_them else f"{shown} of {all_of_them} {what}"


def _figure(sheet: NDArray[np.uint8], title: str) -> dict[str, Any]:
    return {"source": _image(sheet), "width": _shown_width(sheet.shape[1], sheet.shape[0], WIDTH), "title": title}


def _shown_width(width: int, height: int, most: int) -> int:
    """The width to show a picture at: whole multiples of its own, as large as `most` allows on both sides."""
    return width * max(1, most // max(width, height))


def _image(pixels_hwc: NDArray[np.uint8]) -> str:
    return data_url(png(pixels_hwc), "png")
