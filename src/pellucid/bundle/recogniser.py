"""A network with all it needs to be shown a picture: its classes and its preprocessing."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pellucid.data.decode import BadImage
from pellucid.data.images import Lazy
from pellucid.data.memory import out_of_memory
from pellucid.data.preprocess import Preprocess
from pellucid.data.reading import read_file
from pellucid.errors import DataError, PellucidError
from pellucid.scores import softmax

#: Pictures a step of inference: enough to fill the cores, small enough for a cache; and the most pixels of a step.
BATCH, PIXELS = 128, 128 * 256 * 256


def infer(
    model: nn.Module, preprocess: Preprocess, pixels_nhwc: NDArray[np.uint8] | Lazy, which: slice | None = None
) -> NDArray[np.float64]:
    """Logits (N, classes) of pictures as `preprocess` gives them: the one path of val, eval, predict and verify.

    Of all of them, or of those from `which.start` to `which.stop`. In the parameters' own precision (never below
    float32), channels last, without gradients; the model's mode is as before afterwards. Fewer pictures are asked about
    at a time where memory runs out. Raises PellucidError where it has no room for one.
    """
    start, stop, _ = (which or slice(None)).indices(len(pixels_nhwc))
    was_training, size = model.training, _step(*preprocess.size)
    model.eval()
    answers = []
    try:
        while start < stop:
            logits_nk = _asked(model, preprocess, pixels_nhwc[start : min(start + size, stop)], last=size == 1)
            if logits_nk is None:
                size //= 2
                continue
            answers.append(logits_nk)
            start += len(logits_nk)
    finally:
        model.train(was_training)
    return np.concatenate(answers) if answers else np.zeros((0, 0))


def _asked(
    model: nn.Module, preprocess: Preprocess, pixels_nhwc: NDArray[np.uint8], *, last: bool
) -> NDArray[np.float64] | None:
    """Logits of a batch; None where memory has no room for it. At `last` that is an error."""
    parameter = next(model.parameters())
    try:
        with torch.inference_mode():
            x_nhwc = torch.from_numpy(pixels_nhwc).to(parameter.device)
            answer: NDArray[np.float64] = (
                model(preprocess.normalise(x_nhwc, parameter.dtype)).to("cpu", torch.float64).numpy()
            )
            return answer
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        if last:
            height, width = preprocess.size
            raise PellucidError(
                f"memory has no room for this network's answer to one picture of {width}×{height} pixels: end what "
                "else runs on this machine, or take a smaller network or --size"
            ) from error
        return None


def _step(height: int, width: int) -> int:
    return max(1, min(BATCH, PIXELS // (height * width)))


@dataclass(frozen=True)
class Prediction:
    """What a network says of one picture."""

    file: str
    label: str
    probability: float
    probabilities: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """One line of `pellucid predict --json`."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Recogniser:
    """A trained network, ready to be asked."""

    model: nn.Module
    classes: tuple[str, ...]
    preprocess: Preprocess
    network: str
    """The network's name or notation; `custom` for one's own module."""

    def predict(self, pictures: Iterable[str | os.PathLike[str]] | str | os.PathLike[str]) -> list[Prediction]:
        """What the network sees in each file.

        Raises DataError for a file that cannot be read as a picture, naming it; `predict_each` goes on past those.
        """
        answers = []
        for answer in self.predict_each(pictures):
            if isinstance(answer, DataError):
                raise answer
            answers.append(answer)
        return answers

    def predict_each(
        self, pictures: Iterable[str | os.PathLike[str]] | str | os.PathLike[str]
    ) -> Iterator[Prediction | BadImage]:
        """An answer for each file, in order: a prediction, or the error that says why there is none."""
        files = [pictures] if isinstance(pictures, (str, os.PathLike)) else list(pictures)
        step = _step(*self.preprocess.size)
        for start in range(0, len(files), step):
            shown: list[NDArray[np.uint8] | BadImage] = [self._try(file) for file in files[start : start + step]]
            readable = [image for image in shown if not isinstance(image, BadImage)]
            rows: Iterator[NDArray[np.float64]] = iter(self.probabilities(np.stack(readable)) if readable else ())
            for file, image in zip(files[start : start + step], shown, strict=True):
                yield image if isinstance(image, BadImage) else self._prediction(os.fspath(file), next(rows))

    def probabilities(self, pixels_nhwc: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Class probabilities (N, classes) of pictures as `self.preprocess` gives them.

        Raises PellucidError where the network's answer is no finite number.
        """
        logits_nk = infer(self.model, self.preprocess, pixels_nhwc)
        if not np.isfinite(logits_nk).all():
            raise PellucidError(
                "the network answers with what is no finite number: its weights are damaged, or overflow; train again"
            )
        return softmax(logits_nk)

    def read(self, file: str | os.PathLike[str]) -> NDArray[np.uint8]:
        """A picture file as the network sees it before normalisation: uint8 H×W×C. Raises BadImage, naming the file."""
        return self.preprocess.pixels(read_file(Path(file), os.fspath(file))[0], os.fspath(file))

    def input(self, pixels_hwc: NDArray[np.uint8]) -> torch.Tensor:
        """A picture, as `read` gives it, as the network's input (1, C, H, W), in its parameters' type."""
        parameter = next(self.model.parameters())
        x_nhwc = torch.from_numpy(pixels_hwc[None]).to(parameter.device)
        return self.preprocess.normalise(x_nhwc, parameter.dtype)

    def _try(self, file: str | os.PathLike[str]) -> NDArray[np.uint8] | BadImage:
        try:
            return self.read(file)
        except BadImage as error:
            return error

    def _prediction(self, file: str, probability_k: Sequence[float] | NDArray[np.float64]) -> Prediction:
        best = int(np.argmax(probability_k))
        probabilities = {name: float(p) for name, p in zip(self.classes, probability_k, strict=True)}
        return Prediction(file, self.classes[best], float(probability_k[best]), probabilities)
