"""Which pixels a class depends on: a saliency map, and Grad-CAM without choosing a layer.

**Saliency** (Simonyan, Vedaldi & Zisserman 2014) is the size of the logit's gradient with respect to each pixel, the
largest over the channels. **Grad-CAM** (Selvaraju et al. 2017) takes the last feature maps A before the places are
pooled or flattened away, weighs each by the mean of the logit's gradient over its places, and keeps what speaks for the
class, ReLU(Σ_c α_c·A_c), brought to the picture's size.

Both are of one logit, not of the loss: its gradient is computed here from the recorded values, by `backward_from`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pellucid.errors import UsageError
from pellucid.explain.address import spelled
from pellucid.explain.backward import backward_from
from pellucid.explain.node import LEAVES, Array, Node
from pellucid.explain.walk import COPIES, Walk, channel_axis

if TYPE_CHECKING:
    from pellucid.explain.tape import Tape


def saliency(
    tape: Tape, label: int | None = None, *, image: int = 0, times_input: bool = False, of: str = "logit"
) -> Array:
    """How much each pixel (H, W) of an image moves the logit of class `label` (by default the largest): |gradient|.

    Of the channels the largest. With `times_input` it is |pixel · gradient|, a pixel's first-order contribution. `of`
    may be "loss": the gradient that the tape recorded, whatever class it pulls towards. Raises UsageError for a tape
    without images, an image or a class that it does not have, and an operation without a rule on the way.
    """
    source = _pictures(tape)
    _checked_image(tape, image)
    if of == "loss":
        if source not in tape.gradients:
            raise UsageError("the tape has no gradient of a loss: record with a label or a loss, or ask of='logit'")
        gradient = tape.gradients[source][image]
    elif of == "logit":
        gradient = backward_from(tape, _logit(tape, label, image), [source]).get(source)
        gradient = np.zeros_like(tape.values[source][image]) if gradient is None else gradient[image]
    else:
        raise UsageError(f"of is {of!r}, but a saliency map is of the 'logit' or of the 'loss'")
    size = np.abs(gradient * tape.values[source][image]) if times_input else np.abs(gradient)
    return np.asarray(size.max(axis=0))


def grad_cam(tape: Tape, label: int | None = None, *, image: int = 0) -> Array:
    """Where in an image (H, W) the last feature maps speak for class `label` (by default the largest logit); ≥ 0.

    Raises UsageError for a tape without images or without feature maps on the way to the logits, an image or a class
    that it does not have, and an operation without a rule on the way.
    """
    source = _pictures(tape)
    _checked_image(tape, image)
    layer = cam_layer(tape)
    gradient = backward_from(tape, _logit(tape, label, image), [layer.name]).get(layer.name)
    maps_cij = tape.values[layer.name][image]
    if gradient is None:
        return np.zeros(tape.values[source].shape[2:], dtype=maps_cij.dtype)
    weights_c = gradient[image].mean(axis=(1, 2))
    heat_ij = np.maximum(np.tensordot(weights_c, maps_cij, axes=1), 0)
    high, wide = tape.values[source].shape[2:]
    return enlarged(heat_ij, high, wide)


def cam_layer(tape: Tape) -> Node:
    """The last feature maps (N, C, I, J), I·J > 1, that the output was computed from.

    Raises UsageError where there are none.
    """
    walk = Walk(tape)
    before = walk.before(_output(tape))
    for node in reversed(tape.nodes):
        on_the_way = node.name in before and node.name in walk.live and node.op not in LEAVES
        is_spatial = len(node.shape) == 4 and node.shape[2] * node.shape[3] > 1
        moved = node.op in COPIES and node.op != "concatenate"
        if on_the_way and is_spatial and not moved and channel_axis(tape, node) == 1:
            return node
    raise UsageError(
        f"no value on the way to {tape.output} is feature maps (N, C, I, J) with more than one place: "
        "Grad-CAM needs a convolutional network; take the saliency map"
    )


def enlarged(heat_ij: Array, high: int, wide: int) -> Array:
    """Bilinear, to (high, wide): pixels are squares, and their middles are what is interpolated between."""
    down, across = _weights(heat_ij.shape[0], high), _weights(heat_ij.shape[1], wide)
    return np.asarray((down @ heat_ij @ across.T).astype(heat_ij.dtype))


def _weights(size: int, wanted: int) -> Array:
    """Row h: how much of each of `size` numbers is in number h of `wanted`."""
    middle = np.clip((np.arange(wanted) + 0.5) * size / wanted - 0.5, 0, size - 1)
    lower = np.minimum(middle.astype(np.int64), max(size - 2, 0))
    part = middle - lower
    weights = np.zeros((wanted, size))
    weights[np.arange(wanted), lower] += 1 - part
    weights[np.arange(wanted), np.minimum(lower + 1, size - 1)] += part
    return weights


def _pictures(tape: Tape) -> str:
    """The name of the input, which must be images."""
    for name in tape.inputs:
        if len(tape.node(name).shape) == 4:
            return name
    shapes = ", ".join(f"{name} {tape.node(name).shape}" for name in tape.inputs) or "none"
    raise UsageError(f"the tape's inputs are {shapes}, but a map of pixels needs images (N, C, H, W)")


def _output(tape: Tape) -> str:
    """The name of the logits, which must be (N, classes)."""
    shape = tape.node(tape.output).shape if tape.output else ()
    if len(shape) != 2:
        raise UsageError(f"the output {tape.output!r} has shape {shape}, but a class needs logits (N, classes)")
    return tape.node(tape.output).name


def _checked_image(tape: Tape, image: int) -> None:
    count = tape.node(_pictures(tape)).shape[0]
    if not 0 <= image < count:
        raise UsageError(f"image is {image}, but the tape has {count}: name one of 0 to {count - 1}")


def _logit(tape: Tape, label: int | None, image: int) -> str:
    """The address of the logit meant."""
    logits = tape.values[_output(tape)]
    if label is None:
        label = int(logits[image].argmax())
    if not 0 <= label < logits.shape[1]:
        raise UsageError(f"label is {label}, but the network has {logits.shape[1]} classes, 0 to {logits.shape[1] - 1}")
    return spelled(_output(tape), (image, label))
