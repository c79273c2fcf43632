"""Knowledge distillation: a network learns what another one answers, besides the labels (Hinton et al. 2015).

What a trained network thinks of the wrong classes (a boot is rather like a sandal, and nothing like a bag) tells more
of a picture than its label does. A temperature above 1 brings these small probabilities out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from pellucid.bundle.folder import load
from pellucid.data.preprocess import Preprocess
from pellucid.errors import UsageError

#: What both networks' logits are divided by before the softmax. The paper tried 1 to 20 and found that a small student
#: learns best from low ones; the gradient grows with it, and 4 was too much for the usual rates.
TEMPERATURE = 2.0

#: What the teacher's answer weighs in the loss; the labels have the rest, "a considerably lower weight" as the paper
#: has it.
SHARE = 0.9

#: Weights of red, green and blue in grey (ITU-R 601), as where pictures are decoded.
_LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Teacher:
    """A trained network that is asked about the very pictures a student sees: changed, mixed, whatever they became."""

    model: nn.Module
    preprocess: Preprocess
    columns: tuple[int, ...]
    """For each class of the student its place among the teacher's."""

    def __call__(self, x_nhwc: torch.Tensor) -> torch.Tensor:
        """Logits (N, classes of the student) for the student's uint8 pictures (N, H, W, C), without gradients."""
        parameter = next(self.model.parameters())
        with torch.no_grad():
            logits_nk = self.model(self.preprocess.normalise(self._fitted(x_nhwc), parameter.dtype))
            return torch.stack([logits_nk[:, column] for column in self.columns], 1)

    def _fitted(self, x_nhwc: torch.Tensor) -> torch.Tensor:
        """The pictures in the teacher's size and colours, uint8."""
        channels = x_nhwc.shape[3]
        if channels == 3 and self.preprocess.channels == 1:
            x_nhwc = (x_nhwc.float() @ x_nhwc.new_tensor(_LUMA, dtype=torch.float32)).round().to(torch.uint8)[..., None]
        elif channels == 1 and self.preprocess.channels == 3:
            x_nhwc = x_nhwc.expand(-1, -1, -1, 3)
        if tuple(x_nhwc.shape[1:3]) == self.preprocess.size:
            return x_nhwc
        x_nchw = x_nhwc.permute(0, 3, 1, 2).float()
        x_nchw = functional.interpolate(x_nchw, self.preprocess.size, mode="bilinear", antialias=True)
        return x_nchw.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


def open_teacher(run: str, classes: Sequence[str], preprocess: Preprocess) -> Teacher:
    """The network of a run or a bundle as a teacher of these classes, matched by name.

    It may know more classes, which are left away, and may have been shown pictures of another size or colour, which the
    student's are then brought to. Raises UsageError for a teacher that lacks a class or takes pictures of another
    shape, and DataError for a folder that holds none.
    """
    try:
        found = load(run)
    except UsageError as error:
        raise UsageError(
            f"--teacher {run}: holds a network of one's own, which its files cannot build; train a named one as teacher"
        ) from error
    missing = [name for name in classes if name not in found.classes]
    if missing:
        raise UsageError(
            f"--teacher {run}: knows nothing of {missing[0]!r}{f' and {len(missing) - 1} more' if missing[1:] else ''} "
            f"(its classes: {', '.join(found.classes[:12])}); take one that was trained on these classes"
        )
    (height, width), (its_height, its_width) = preprocess.size, found.preprocess.size
    if height * its_width != width * its_height:
        raise UsageError(
            f"--teacher {run}: sees pictures of {its_width}×{its_height}, which {width}×{height} cannot be scaled to; "
            "choose a --size of the same proportions"
        )
    columns = tuple(found.classes.index(name) for name in classes)
    return Teacher(found.model.eval().requires_grad_(False), found.preprocess, columns)


def soft_loss(logits_nk: torch.Tensor, teacher_nk: torch.Tensor, temperature: float = TEMPERATURE) -> torch.Tensor:
    """T² times the mean divergence KL(p ‖ q), p the teacher's softmax(logits/T) and q the student's; a scalar.

    T² makes up for the gradient, which falls as 1/T² (section 2 of the paper), so that its weight against the labels
    means the same at any temperature.
    """
    log_q_nk = (logits_nk / temperature).log_softmax(1)
    log_p_nk = (teacher_nk.to(logits_nk.dtype) / temperature).log_softmax(1)
    return temperature**2 * (log_p_nk.exp() * (log_p_nk - log_q_nk)).sum(1).mean()


def distilled(loss: torch.Tensor, logits_nk: torch.Tensor, teacher_nk: torch.Tensor, part: float = 1.0) -> torch.Tensor:
    """What is made small with a teacher: its share of `soft_loss`, and the rest of the loss against the labels.

    Where the pictures are `part` of a batch, so is this; the loss against the labels comes as that part already.
    """
    return (1 - SHARE) * loss + SHARE * part * soft_loss(logits_nk, teacher_nk)
