"""Weights trained elsewhere: read from a file, a hub or a run. `pellucid.bundle.fit` puts them into a network.

Nothing that is read here can run code: safetensors hold numbers alone, and of torch's own files only those open that
`weights_only` understands.
"""

from __future__ import annotations

import hashlib
import os
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from pellucid.bundle.folder import find, read_config
from pellucid.data.preprocess import Preprocess
from pellucid.data.record import FILE, Row, read_record
from pellucid.errors import DataError, PellucidError, UsageError
from pellucid.files import checksum, read_json, read_tensors

#: Mean and standard deviation of ImageNet's channels (0…1), by which the images of nearly all published weights of VGG,
#: GoogLeNet and ResNet were normalised.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

#: The largest file of weights that is opened, in bytes.
LIMIT = 16 << 30

#: A place, and the checksum of what was found there.
_PINNED = re.compile(r"(?P<place>.*)#sha256:(?P<checksum>[0-9a-f]{64})", re.DOTALL)

#: What a checkpoint of somebody's training keeps its weights under, beside its epoch and its optimiser's state.
_WRAPPERS = ("state_dict", "model")

_EXPECTED = "expected a .safetensors, .pth or .pt file, a run folder or a bundle, or hf:owner/name"


@dataclass(frozen=True)
class Published:
    """Weights as they were found."""

    tensors: dict[str, torch.Tensor]
    """By the names they have there; half precision has become float32."""
    origin: str
    """Where they are from, for messages and the model card."""
    classes: tuple[str, ...] | None = None
    """The names of the classes that their classifier tells apart; None where nobody says."""
    network: str | None = None
    """The network they are of, as `pellucid.nets.build` takes it; None where nobody says."""
    preprocess: Preprocess | None = field(default=None, compare=False)
    """What their network was shown; None where nobody says."""
    pinned: str = field(default="", compare=False)
    """The place in full, and a checksum of all that was read there, `PLACE#sha256:HEX`: what a recipe writes down."""
    record: tuple[Row, ...] = field(default=(), compare=False)
    """The pictures they were trained and selected on, where a run says so."""
    head: bool = False
    """Whether another classifier stands on top of their network; it is not among the tensors."""


def read_weights(where: str | os.PathLike[str]) -> Published:
    """The weights in a file (.safetensors, .pth, .pt), in a run folder or a bundle, or at `hf:owner/name[@revision]`.

    The network is asked for in the last case alone, and only safetensors are fetched. A place may end in the checksum
    that `Published.pinned` has. Raises UsageError for what is no such place, DataError for a file that is missing,
    damaged, too large, would run code or has another checksum, and PellucidError where the hub does not answer.
    """
    text = os.fspath(where)
    pinned = _PINNED.fullmatch(text)
    found = _read(text if pinned is None else pinned["place"])
    if pinned is not None and not found.pinned.endswith(pinned["checksum"]):
        raise DataError(
            f"{pinned['place']}: these are not the weights that the recipe was written for (their checksum begins "
            f"with {found.pinned[-64:-56]}, not {pinned['checksum'][:8]}): put the old ones back, or give these anew "
            "with --weights"
        )
    return found


def _read(text: str) -> Published:
    if text.startswith("hf:"):
        return _hub(text)
    path = Path(text)
    if path.is_dir():
        return _run(path)
    match path.suffix.lower():
        case ".safetensors":
            return Published(_safetensors(path), text, pinned=_pinned(path, [path]))
        case ".pth" | ".pt":
            return Published(_torch_file(path), text, pinned=_pinned(path, [path]))
    if not path.exists():
        raise DataError(f"{text}: no such file or folder; {_EXPECTED}")
    raise UsageError(f"{text}: {_EXPECTED}")


def _pinned(place: Path | str, files: Sequence[Path]) -> str:
    """The place, with the files' checksum: of one its own, of several that of the list that `sha256sum` prints."""
    sums = [checksum(file) for file in files]
    listed = "".join(f"{own}  {file.name}\n" for own, file in zip(sums, files, strict=True))
    whole = sums[0] if len(sums) == 1 else hashlib.sha256(listed.encode()).hexdigest()
    return f"{place.absolute() if isinstance(place, Path) else place}#sha256:{whole}"


def imagenet_preprocess(size: tuple[int, int], resize: str = "crop") -> Preprocess:
    """What a network with ImageNet's weights is to be shown: colour, normalised by ImageNet's mean and deviation.

    torchvision's GoogLeNet was trained on other numbers, and turns these into its own: see `published_net` in
    `pellucid.bundle.fit`. Raises DataError for a size or a way to resize that is none.
    """
    # An unknown word is refused by Preprocess itself, with the nearest known one.
    return Preprocess(size, resize, 3, IMAGENET_MEAN, IMAGENET_STD)  # type: ignore[arg-type]


def _run(folder: Path) -> Published:
    """The weights of a bundle, with all that it knows about them."""
    bundle = find(folder)
    tensors = _safetensors(bundle / "model.safetensors")
    config, preprocess = read_json(bundle / "config.json"), bundle / "preprocessor_config.json"
    # The record too: it decides which pictures a run that begins here holds out.
    files = [bundle / "model.safetensors", bundle / "config.json", preprocess, folder / FILE]
    pinned = _pinned(folder, [file for file in files if file.exists()])
    if not isinstance(config, dict) or config.get("model_type") != "pellucid":
        # Somebody else's model in the same layout: its numbers can be taken, and its own words mean other things.
        return Published(tensors, os.fspath(folder), pinned=pinned)
    network, _, classes = read_config(bundle / "config.json")
    shown = Preprocess.from_config(read_json(preprocess), str(preprocess))
    return Published(
        tensors,
        os.fspath(folder),
        classes,
        None if network == "custom" else network,
        shown,
        pinned,
        tuple(read_record(folder) or ()),
        head=(bundle / "head.json").exists(),
    )


def _safetensors(path: Path) -> dict[str, torch.Tensor]:
    if not path.is_file() or "BF16" not in _types(path):
        # NumPy has no bfloat16, and everything else is read by the reader that checks every byte range.
        arrays = read_tensors(path, limit=LIMIT)
        return {name: _single(torch.from_numpy(array)) for name, array in arrays.items()}
    try:
        tensors = safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError, KeyError) as error:
        raise DataError(f"{path}: not a sound safetensors file: {error}: take another copy") from error
    return {name: _single(tensors[name]) for name in sorted(tensors)}


def _types(path: Path) -> set[str]:
    """The number formats in a safetensors file; none where it cannot be opened, which `read_tensors` explains."""
    if path.stat().st_size > LIMIT:
        return set()
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (safetensors.SafetensorError, OSError, ValueError, KeyError):
        return set()


def _torch_file(path: Path) -> dict[str, torch.Tensor]:
    """The tensors in a file of `torch.save`, opened so that nothing in it can run."""
    if not path.is_file():
        raise DataError(f"{path}: there is no such file: check the path")
    if path.stat().st_size > LIMIT:
        raise DataError(f"{path}: has {path.stat().st_size:,} bytes, and {LIMIT:,} is the most that is opened")
    _refuse_unpacking(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a hostile file can make the reader fail in any way, and none may end in a traceback
        first = str(error).strip().partition("\n")[0]
        raise DataError(
            f"{path}: cannot be opened as weights alone, without running code from it ({first:.160}); have whoever "
            "made it save model.state_dict(), or better a .safetensors file"
        ) from error
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    found = _checked(path, content)
    stored = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in found.values()}
    if sum(stored.values()) > path.stat().st_size:
        # The older format says how much room a tensor takes, and need not fill it.
        raise DataError(
            f"{path}: its tensors take {sum(stored.values()):,} bytes, more than the file has; take another"
        )
    return {name: _single(tensor) for name, tensor in found.items()}


def _refuse_unpacking(path: Path) -> None:
    """Refuse an archive whose parts unpack to more than they take in it; `torch.save` compresses nothing."""
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return  # the format before archives, or damage: the reader tells
    if any(part.compress_type != zipfile.ZIP_STORED for part in parts) or (
        sum(part.file_size for part in parts) > path.stat().st_size
    ):
        raise DataError(
            f"{path}: unpacks to more than it is, as no file of torch.save does: have whoever made it save "
            "model.state_dict() anew, or better a .safetensors file"
        )


def _checked(path: Path, content: Any) -> dict[str, torch.Tensor]:
    """The state dict that `content` is, if it is one: a name for each tensor, and plain tensors."""
    if not isinstance(content, Mapping) or not content:
        raise DataError(
            f"{path}: holds {_kind(content)} and not a network's weights by name; save model.state_dict() there"
        )
    for name, tensor in content.items():
        if not isinstance(name, str):
            raise DataError(f"{path}: the name {name!r:.80} is no text; save model.state_dict() there")
        if not isinstance(tensor, torch.Tensor):
            raise DataError(
                f"{path}: {name!r:.80} is {_kind(tensor)} and no tensor; save model.state_dict() there, alone or "
                f"under {_WRAPPERS[0]!r}"
            )
        # A few stored numbers can claim to be a tensor of any size; it would be made whole when it is converted.
        plain = tensor.layout == torch.strided and not tensor.is_quantized and not tensor.is_complex()
        if not plain or tensor.device.type != "cpu" or tensor.nbytes > tensor.untyped_storage().nbytes():
            raise DataError(f"{path}: {name!r:.80} is not a plain tensor (sparse, quantised, complex or repeated)")
    return dict(content)


def _kind(value: object) -> str:
    return f"an empty {type(value).__name__}" if value in ({}, [], ()) else f"a {type(value).__name__}"


def _single(tensor: torch.Tensor) -> torch.Tensor:
    """Half precision as float32, which is exact; everything else as it is, on its own."""
    tensor = tensor.detach()
    return tensor.float() if tensor.dtype in {torch.float16, torch.bfloat16} else tensor


def _hub(text: str) -> Published:
    repository, _, revision = text.removeprefix("hf:").partition("@")
    owner, _, name = repository.partition("/")
    if not owner or not name or "/" in name:
        raise UsageError(f"{text}: expected hf:owner/name or hf:owner/name@revision, as in hf:timm/resnet18.a1_in1k")
    try:
        # An extra: most never need it, and it takes a while to import.
        import huggingface_hub  # noqa: PLC0415
    except ImportError as error:
        raise UsageError(
            f"{text}: fetching from a hub needs huggingface_hub, which is not installed: pip install 'pellucid[hub]'"
        ) from error
    try:
        present = huggingface_hub.list_repo_files(repository, revision=revision or None)
        tensors: dict[str, torch.Tensor] = {}
        paths = []
        for file in _shards(text, present):
            paths.append(Path(huggingface_hub.hf_hub_download(repository, file, revision=revision or None)))
            _add(tensors, _safetensors(paths[-1]), text)
    except PellucidError:
        raise
    except Exception as error:  # the hub's client raises whatever its transport does
        first = str(error).strip().partition("\n")[0]
        raise PellucidError(
            f"{text}: could not be fetched ({type(error).__name__}: {first:.160}); check the name and the connection, "
            "or fetch the file yourself and give its path"
        ) from error
    # The client keeps files in a folder called after their commit, which stays what it is when the branch moves on.
    commit = paths[0].parent.name
    place = f"hf:{repository}@{commit}" if re.fullmatch("[0-9a-f]{40}", commit) else text
    return Published(tensors, text, pinned=_pinned(place, paths))


def _add(tensors: dict[str, torch.Tensor], more: Mapping[str, torch.Tensor], text: str) -> None:
    for name, tensor in more.items():
        if name in tensors:
            raise DataError(f"{text}: {name} stands in two of its files; fetch the right one and give its path")
        tensors[name] = tensor


def _shards(text: str, present: Sequence[str]) -> list[str]:
    """The files of a repository to fetch: `model.safetensors`, or its numbered parts, or the only one there is."""
    files = sorted(file for file in present if file.endswith(".safetensors") and "/" not in file)
    if "model.safetensors" in files:
        return ["model.safetensors"]
    parts = [file for file in files if file.startswith("model-") and "-of-" in file]
    if parts:
        return parts
    if len(files) != 1:
        found = f"{len(files)} of them ({', '.join(files[:3])})" if files else "none"
        raise DataError(
            f"{text}: expected one .safetensors file, model.safetensors, and found {found}; another kind of file is "
            "not opened from a hub: fetch one yourself and give its path"
        )
    return files
