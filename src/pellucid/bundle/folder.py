"""A recogniser to and from its folder of plain files."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from pellucid.bundle.card import card
from pellucid.bundle.head import attach, head_of
from pellucid.bundle.head_file import load_head, save_head
from pellucid.bundle.rebuild import built, refuse_misfit
from pellucid.bundle.recogniser import Recogniser, infer
from pellucid.bundle.selftest import EXPECTED, compare, expectation, sums
from pellucid.data.preprocess import Preprocess
from pellucid.data.reading import read_file
from pellucid.errors import DataError, UsageError, VerificationError
from pellucid.files import (
    make_folder,
    read_json,
    read_tensors,
    write_bytes,
    write_json,
    write_tensors,
    write_text,
)

#: Pictures that a bundle carries to test itself with.
SELFTEST = 8
#: How far a logit may lie from the one recorded, relative to the largest: another processor sums in another order.
TOLERANCE = 1e-3


def save(
    recogniser: Recogniser,
    folder: Path,
    *,
    examples: Sequence[tuple[str, bytes]],
    facts: Mapping[str, Any],
) -> None:
    """Write the bundle: model.safetensors, config.json, preprocessor_config.json, README.md and selftest/.

    A head on top of the network is kept beside it, in head.skops and head.json.

    `examples` are raw picture files, name and bytes, whose logits are computed and kept beside them, with a checksum of
    every file but the model card, which one may edit; `facts` go into the card. Raises PellucidError when the disk
    refuses.
    """
    make_folder(folder / "selftest")
    parameter = next(recogniser.model.parameters())
    image = (recogniser.preprocess.channels, *recogniser.preprocess.size)
    write_tensors(folder / "model.safetensors", tensors(recogniser.model), {"format": "pt"})
    head = head_of(recogniser.model)
    if head is not None:
        save_head(head, folder)
    write_json(folder / "preprocessor_config.json", recogniser.preprocess.to_config())
    write_json(
        folder / "config.json",
        {
            "model_type": "pellucid",
            "network": recogniser.network,
            "image": list(image),
            "dtype": str(parameter.dtype).removeprefix("torch."),
            "id2label": {str(i): name for i, name in enumerate(recogniser.classes)},
            "label2id": {name: i for i, name in enumerate(recogniser.classes)},
        },
    )
    write_text(folder / "README.md", card(recogniser, facts))
    pictures = []
    for i, (name, raw) in enumerate(examples[:SELFTEST]):
        file = f"{i}{Path(name).suffix.lower() or '.png'}"
        write_bytes(folder / "selftest" / file, raw)
        pixels_hwc = recogniser.preprocess.pixels(raw, name)
        logits_k = infer(recogniser.model, recogniser.preprocess, pixels_hwc[None])[0]
        pictures.append({"file": file, "logits": [float(v) for v in logits_k]})
    write_json(folder / EXPECTED, {"sha256": sums(folder), "pictures": pictures})


def load(run: str | os.PathLike[str], *, net: nn.Module | None = None) -> Recogniser:
    """The recogniser of a run folder or of a bundle.

    `net` is needed for a network of one's own, which a bundle cannot build: the same module, of any weights.
    Raises DataError for a folder that holds none, or one that is damaged or does not fit together.
    """
    folder = find(run)
    network, dtype, classes = read_config(folder / "config.json")
    shown = folder / "preprocessor_config.json"
    preprocess = Preprocess.from_config(read_json(shown), str(shown))
    if network == "custom" and net is None:
        raise UsageError(
            f"{os.fspath(run)}: holds a network of your own; give it too: pellucid.load(run, net=MyNetwork())"
        )
    weights = folder / "model.safetensors"
    arrays = read_tensors(weights)
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise DataError(
                f"{weights}: {name!r:.80} holds what is no finite number; take another copy, or train again"
            )
    model = net if net is not None else built(network, preprocess, classes, folder, arrays)
    fill(model.to(dtype), arrays, weights)
    model = model.to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    head = load_head(folder)
    if head is not None:
        attach(model, head)
    return Recogniser(model, classes, preprocess, network)


def read_config(path: Path) -> tuple[str, torch.dtype, tuple[str, ...]]:
    """The network, its numbers' type and its classes, from a bundle's `config.json`.

    Raises DataError for one that is not as `save` writes it: the two maps between classes and their numbers must agree.
    """
    config = read_json(path)
    try:
        network, dtype = config["network"], {"float32": torch.float32, "float64": torch.float64}[config["dtype"]]
        id2label, label2id = config["id2label"], config["label2id"]
        classes = tuple(id2label[str(i)] for i in range(len(id2label)))
        # What is no text, or half a character, fails here, and not when it is to be shown.
        "".join((network, *classes)).encode("utf-8")
        if label2id != {name: i for i, name in enumerate(classes)} or len(label2id) != len(classes):
            raise ValueError("its id2label and label2id do not agree")  # noqa: TRY301
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"{path}: not a bundle's configuration ({error!r:.200}); take another copy, or train again"
        ) from error
    return network, dtype, classes


def find(run: str | os.PathLike[str]) -> Path:
    """The bundle in a run folder, or the folder itself if it is one."""
    run = Path(run)
    for folder in (run / "bundle", run):
        if (folder / "config.json").is_file() and (folder / "model.safetensors").is_file():
            return folder
    if not run.exists():
        raise DataError(
            f"{run}: no such folder; RUN is a folder that `pellucid train` made, such as runs/digits-lenet5-1"
        )
    below = sorted(run.glob("*/bundle/config.json"))
    hint = f"; did you mean one of the runs in it, such as {below[0].parent.parent}?" if below else ""
    raise DataError(
        f"{run}: no trained model in this folder; expected bundle/config.json and bundle/model.safetensors{hint}"
    )


def verify(run: str | os.PathLike[str], *, net: nn.Module | None = None) -> float:
    """Compare a bundle's files with their checksums, decode the raw pictures it carries, and compare their logits.

    Returns the largest difference, relative to the largest logit. Raises VerificationError for a file that is not as it
    was saved, or a difference beyond 1e-3; DataError for a bundle that does not open, or has no self-test.
    """
    recogniser, bundle = load(run, net=net), find(run)
    folder = bundle / "selftest"
    listed, pairs = expectation(bundle / EXPECTED)
    compare(bundle, listed)
    worst = 0.0
    for file, logits_k in pairs:
        raw, _ = read_file(folder / file, str(folder / file))
        found_k = infer(recogniser.model, recogniser.preprocess, recogniser.preprocess.pixels(raw, file)[None])[0]
        if found_k.shape != logits_k.shape:
            raise VerificationError(f"{folder / file}: {found_k.size} logits, expected {logits_k.size}")
        difference = float(np.abs(found_k - logits_k).max() / max(np.abs(logits_k).max(), 1e-12))
        worst = max(worst, difference)
        if not difference <= TOLERANCE:
            raise VerificationError(
                f"{folder / file}: logits differ from those recorded by {difference:.2g} of the largest, "
                f"more than {TOLERANCE:g}: the weights, the decoder or the arithmetic are not those of the training"
            )
    return worst


def tensors(model: nn.Module) -> dict[str, NDArray[Any]]:
    """A model's parameters and buffers as arrays in their logical order, whatever their layout in memory."""
    return {name: tensor.detach().cpu().contiguous().numpy() for name, tensor in model.state_dict().items()}


def png(pixels_hwc: NDArray[np.uint8]) -> bytes:
    """A picture as the bytes of a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels_hwc.squeeze(-1) if pixels_hwc.shape[-1] == 1 else pixels_hwc).save(buffer, "PNG")
    return buffer.getvalue()


def fill(model: nn.Module, arrays: Mapping[str, NDArray[Any]], place: Path) -> None:
    """Put the arrays into the model, strictly: every name and every shape."""
    refuse_misfit(model, arrays, place)
    model.load_state_dict({name: torch.from_numpy(np.array(arrays[name])) for name in model.state_dict()})
