"""Rules for layers: convolution, pooling, linear, normalisation, dropout, recurrent networks; and for losses."""

from __future__ import annotations

from typing import Any

from pellucid.explain.lower.call import Call, Lowered, Rule, Rules, repeated

#: The engine's numbers for how the losses of a batch become one.
REDUCTIONS = {1: "mean", 2: "sum"}

#: The class that the engine leaves out of a loss unless told: no label has it.
NO_CLASS = -100


# --- convolution and linear ---------------------------------------------------------------------------------------


def convolution(call: Call) -> Lowered | None:
    """Two-dimensional, of a batch; padding as numbers, or "same" and "valid"."""
    if len(call.shape("input")) != 4:
        return None
    if call.get("transposed", False):
        return transposed(call)
    dilation = repeated(call["dilation"], 2)
    padding: list[Any]
    if call["padding"] == "valid":
        padding = [0, 0]
    elif call["padding"] == "same":
        # What an even reach has over goes to the bottom and right.
        reach = [d * (k - 1) for d, k in zip(dilation, call.shape("weight")[2:], strict=True)]
        padding = [[r // 2, r - r // 2] for r in reach]
    else:
        padding = list(repeated(call["padding"], 2))
    settings = {
        "stride": list(repeated(call["stride"], 2)),
        "padding": padding,
        "dilation": list(dilation),
        "groups": int(call["groups"]),
    }
    return Lowered("convolution", (call["input"], call["weight"], call["bias"]), settings)


def transposed(call: Call) -> Lowered | None:
    """A transposed convolution of a batch of images."""
    if len(call.shape("input")) != 4:
        return None
    pairs = {name: list(repeated(call[name], 2)) for name in ("stride", "padding", "dilation", "output_padding")}
    settings = {**pairs, "groups": int(call["groups"])}
    return Lowered("transposed_convolution", (call["input"], call["weight"], call["bias"]), settings)


def linear(call: Call) -> Lowered | None:
    """A linear layer; one output without an axis (a weight of one axis) is not the textbook's."""
    if len(call.shape("weight")) != 2:
        return None
    return Lowered("linear", (call["input"], call["weight"], call["bias"]), {})


# --- pooling ------------------------------------------------------------------------------------------------------


def windows(call: Call, axes: int) -> dict[str, Any]:
    """Kernel, stride (the kernel's unless given), padding, and whether a window may run over the edge."""
    kernel = repeated(call["kernel_size"], axes)
    return {
        "kernel": list(kernel),
        "stride": list(repeated(call["stride"] or kernel, axes)),
        "padding": list(repeated(call["padding"], axes)),
        "ceil": bool(call["ceil_mode"]),
    }


def max_pool(call: Call) -> Lowered | None:
    """The maximum of each window of a batch."""
    if len(call.shape("self")) != 4:
        return None
    return Lowered("max_pool", (call["self"],), {**windows(call, 2), "dilation": list(repeated(call["dilation"], 2))})


def average_pool(op: str, axes: int) -> Rule:
    """The mean of each window of a batch, over as many axes; the divisor is the window's own."""

    def rule(call: Call) -> Lowered | None:
        shape = call.shape("self")
        if len(shape) != axes + 2 or call["divisor_override"] is not None:
            return None
        settings = windows(call, axes)
        whole = all(k >= size for k, size in zip(settings["kernel"], shape[2:], strict=True))
        if whole and axes == 2 and settings["ceil"] and not any(settings["padding"]):
            # A kernel that hangs over the map counts no more than the map: one mean of all of it.
            return Lowered("global_average_pool", (call["self"],), {})
        return Lowered(op, (call["self"],), {**settings, "count_padding": bool(call["count_include_pad"])})

    return rule


def adaptive_average(call: Call) -> Lowered | None:
    """Means over bins, to a given size."""
    if len(call.shape("self")) != 4:
        return None
    size = list(repeated(call["output_size"], 2))
    if size == [1, 1]:
        return Lowered("global_average_pool", (call["self"],), {})
    return Lowered("adaptive_average_pool", (call["self"],), {"size": size}) if min(size) > 0 else None


def adaptive_max(call: Call) -> Lowered | None:
    """Maxima over bins, to a given size."""
    size = list(repeated(call["output_size"], 2))
    if len(call.shape("self")) != 4 or min(size) < 1:
        return None
    return Lowered("adaptive_max_pool", (call["self"],), {"size": size})


# --- normalisation and dropout ------------------------------------------------------------------------------------


def batch_norm(training: bool | None = None, running: bool = True) -> Rule:
    """Batch normalisation; overloads without a flag, or without running averages, say so here."""

    def rule(call: Call) -> Lowered | None:
        names = ("input", "weight", "bias", *(("running_mean", "running_var") if running else ()))
        arrays = [call[name] for name in names] + [None] * (0 if running else 2)
        flag = bool(call["training"]) if training is None else training
        settings = {"training": flag, "momentum": float(call["momentum"]), "eps": float(call["eps"])}
        return Lowered("batch_norm", tuple(arrays), settings, output="y")

    return rule


def layer_norm(call: Call) -> Lowered | None:
    """Over the last axes, as many as the shape that is given."""
    settings = {"axes": len(call["normalized_shape"]), "eps": float(call["eps"])}
    return Lowered("layer_norm", (call["input"], call["weight"], call["bias"]), settings)


def group_norm(groups: str) -> Rule:
    """Over groups of channels; the overloads name their number differently."""

    def rule(call: Call) -> Lowered | None:
        settings = {"groups": int(call[groups]), "eps": float(call["eps"])}
        return Lowered("group_norm", (call["input"], call["weight"], call["bias"]), settings)

    return rule


def instance_norm(call: Call) -> Lowered | None:
    """Each channel of each image by its own numbers: as many groups as channels."""
    if not call["use_input_stats"] or len(call.shape("input")) < 3:
        return None
    settings = {"groups": call.shape("input")[1], "eps": float(call["eps"])}
    return Lowered("group_norm", (call["input"], call["weight"], call["bias"]), settings)


def weight_norm(call: Call) -> Lowered | None:
    """A weight as length and direction, a length for each place of one axis."""
    shape, axis = call.shape("v"), call.axis("dim", of="v")
    if call["dim"] < 0 or call.shape("g") != tuple(size if a == axis else 1 for a, size in enumerate(shape)):
        return None  # −1 means one length for all
    return Lowered("weight_norm", (call["v"], call["g"]), {"axis": axis})


def dropout(call: Call) -> Lowered | None:
    """With the mask that was drawn; at rest, and at p = 0, x itself."""
    # The variant in place, which a recorder may have come from, calls its tensor by another name.
    x, p, mask = call.get("input", call.get("self")), float(call["p"]), call.get("mask")
    if not call["train"] or p == 0:
        return Lowered("identity", (x,), {})
    if mask is None or p >= 1:
        return None
    return Lowered("dropout", (x, mask), {"p": p, "training": True})


# --- recurrent ----------------------------------------------------------------------------------------------------


def recurrent(op: str, states: int) -> Rule:
    """A stack of cells, one way, batch first, nothing dropped between layers."""

    def rule(call: Call) -> Lowered | None:
        dropped = call["train"] and call["dropout"] > 0 and call["num_layers"] > 1
        if dropped or call["bidirectional"] or not call["batch_first"] or len(call.shape("input")) != 3:
            return None
        start = list(call["hx"]) if states > 1 else [call["hx"]]
        each = 4 if call["has_biases"] else 2
        params = list(call["params"])
        if len(start) != states or len(params) != each * call["num_layers"]:
            return None  # a projection has a fifth weight
        layers = [[*params[at : at + each], *(None,) * (4 - each)] for at in range(0, len(params), each)]
        return Lowered(op, (call["input"], *start, *(w for layer in layers for w in layer)), {}, output="y")

    return rule


# --- losses -------------------------------------------------------------------------------------------------------


def cross_entropy(call: Call) -> Lowered | None:
    """Of scores (N, C) and one class an image; classes left out, and targets as probabilities, are not the page's."""
    reduction = REDUCTIONS.get(call["reduction"])
    target = call["target"]
    if len(call.shape("self")) != 2 or len(call.shape("target")) != 1 or reduction is None:
        return None
    if call["ignore_index"] != NO_CLASS or "int" not in target.dtype:
        return None
    settings = {"smoothing": float(call["label_smoothing"]), "reduction": reduction}
    return Lowered("cross_entropy", (call["self"], target, call["weight"]), settings)


def squared_error(call: Call) -> Lowered | None:
    """The mean or the sum of squared differences."""
    reduction = REDUCTIONS.get(call["reduction"])
    if reduction is None or call.shape("self") != call.shape("target"):
        return None
    return Lowered("mean_squared_error", (call["self"], call["target"]), {"reduction": reduction})


RULES: Rules = {
    "aten.conv2d.default": convolution,
    "aten.conv2d.padding": convolution,
    "aten.convolution.default": convolution,
    "aten.conv_transpose2d.input": transposed,
    "aten.linear.default": linear,
    "aten.max_pool2d.default": max_pool,
    "aten.max_pool2d_with_indices.default": max_pool,
    "aten.avg_pool2d.default": average_pool("average_pool", 2),
    "aten.avg_pool3d.default": average_pool("average_pool_3d", 3),
    "aten.adaptive_avg_pool2d.default": adaptive_average,
    "aten._adaptive_avg_pool2d.default": adaptive_average,
    "aten.adaptive_max_pool2d.default": adaptive_max,
    "aten._weight_norm.default": weight_norm,
    "aten._weight_norm_interface.default": weight_norm,
    "aten.batch_norm.default": batch_norm(),
    "aten.native_batch_norm.default": batch_norm(),
    "aten._native_batch_norm_legit.default": batch_norm(),
    "aten._native_batch_norm_legit_functional.default": batch_norm(),
    "aten._native_batch_norm_legit.no_stats": batch_norm(running=False),
    "aten._native_batch_norm_legit_no_training.default": batch_norm(training=False),
    "aten._batch_norm_with_update_functional.default": batch_norm(training=True),
    "aten.layer_norm.default": layer_norm,
    "aten.native_layer_norm.default": layer_norm,
    "aten.group_norm.default": group_norm("num_groups"),
    "aten.native_group_norm.default": group_norm("group"),
    "aten.instance_norm.default": instance_norm,
    "aten.dropout.default": dropout,
    "aten.native_dropout.default": dropout,
    "aten.feature_dropout.default": dropout,
    "aten.lstm.input": recurrent("lstm", 2),
    "aten.rnn_tanh.input": recurrent("rnn", 1),
    "aten.cross_entropy_loss.default": cross_entropy,
    "aten.mse_loss.default": squared_error,
}
