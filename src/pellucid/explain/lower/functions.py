"""Rules for what works on each number by itself: activations, arithmetic, casts; and for products of matrices."""

from __future__ import annotations

from pellucid.explain.lower.call import FLOATS, Call, Lowered, Ref, Rule, Rules, is_float, keeps_type

#: From here on softplus is a straight line in the engine; the curve is within e⁻²⁰ (2e-9) of it.
STRAIGHT = 20.0


def unary(op: str, /, name: str = "self", **settings: str) -> Rule:
    """A function of one array; `settings` maps the textbook's names to the engine's."""

    def rule(call: Call) -> Lowered | None:
        if not is_float(call[name]):
            return None
        return Lowered(op, (call[name],), {ours: call[theirs] for ours, theirs in settings.items()})

    return rule


def is_number(tensor: object) -> bool:
    """Whether a tensor holds numbers that add up as the textbook's do: no truth values, no complex ones."""
    return is_float(tensor) or (isinstance(tensor, Ref) and "int" in tensor.dtype)


def binary(op: str, /, turned: bool = False) -> Rule:
    """A function of two arrays, either of which may be a plain number; `turned`: the second one comes first."""

    def rule(call: Call) -> Lowered | None:
        if call.get("alpha", 1) != 1 or call.get("rounding_mode") is not None:
            return None
        both = (call["self"], call["other"])
        if any(isinstance(value, bool | complex) for value in both) or not any(is_number(value) for value in both):
            return None
        if op == "divide" and not any(is_float(value) for value in both):
            return None  # of whole numbers the engine gives fractions
        return Lowered(op, both[::-1] if turned else both, {})

    return rule


def power(call: Call) -> Lowered | None:
    """A fixed power; of whole numbers the engine would give whole numbers."""
    exponent = call["exponent"]
    if not is_float(call["self"]) or isinstance(exponent, Ref | bool | complex):
        return None
    return Lowered("power", (call["self"],), {"exponent": float(exponent)})


def fixed_power(exponent: float) -> Rule:
    """A function that is a power: a square, a root."""

    def rule(call: Call) -> Lowered | None:
        return Lowered("power", (call["self"],), {"exponent": exponent}) if is_float(call["self"]) else None

    return rule


def elu(call: Call) -> Lowered | None:
    """ELU as published; the engine's has two scales more."""
    if call["scale"] != 1 or call["input_scale"] != 1:
        return None
    return Lowered("elu", (call["self"],), {"alpha": float(call["alpha"])})


def softplus(call: Call) -> Lowered | None:
    """Softplus, unless it is made straight where it is still curved."""
    if call["threshold"] < STRAIGHT:
        return None
    return Lowered("softplus", (call["self"],), {"beta": float(call["beta"])})


def hard_tanh(call: Call) -> Lowered | None:
    """Held between two limits; between 0 and 6 it has a name of its own."""
    low, high = float(call["min_val"]), float(call["max_val"])
    if (low, high) == (0.0, 6.0):
        return Lowered("relu6", (call["self"],), {})
    return Lowered("hard_tanh", (call["self"],), {"low": low, "high": high}) if low < high else None


def clamp(call: Call) -> Lowered | None:
    """Held between limits that are plain numbers, or missing."""
    low, high = call.get("min"), call.get("max")
    if not is_float(call["self"]) or isinstance(low, Ref) or isinstance(high, Ref):
        return None
    limits = {name: None if limit is None else float(limit) for name, limit in (("low", low), ("high", high))}
    return Lowered("clamp", (call["self"],), limits)


def choice(op: str) -> Rule:
    """The larger or the smaller of two tensors."""

    def rule(call: Call) -> Lowered | None:
        both = (call["self"], call["other"])
        return Lowered(op, both, {}) if all(is_float(value) for value in both) else None

    return rule


def where(call: Call) -> Lowered | None:
    """One of two, tensors or plain numbers, by a condition."""
    if not any(is_float(call[name]) for name in ("self", "other")):
        return None
    return Lowered("where", (call["condition"], call["self"], call["other"]), {})


def matmul(second: str) -> Rule:
    """A product of matrices, or of stacks of them; of vectors it is another operation."""

    def rule(call: Call) -> Lowered | None:
        if min(len(call.shape("self")), len(call.shape(second))) < 2 or not is_float(call["self"]):
            return None
        return Lowered("matmul", (call["self"], call[second]), {})

    return rule


def binary_of(op: str, first: str, second: str) -> Rule:
    """A function of two tensors."""

    def rule(call: Call) -> Lowered | None:
        return Lowered(op, (call[first], call[second]), {}) if is_float(call[first]) else None

    return rule


def softmax(op: str) -> Rule:
    """Along one axis, in the tensor's own type."""

    def rule(call: Call) -> Lowered | None:
        if not keeps_type(call) or call.get("half_to_float", False) or not call.shape("self"):
            return None
        return Lowered(op, (call["self"],), {"axis": call.axis()})

    return rule


def same(name: str = "self") -> Rule:
    """A copy, a view, another layout: the numbers are the tensor's own."""

    def rule(call: Call) -> Lowered | None:
        return Lowered("identity", (call[name],), {})

    return rule


def cast(call: Call) -> Lowered | None:
    """A cast to a type with a fraction: the same numbers, rounded."""
    other = call.get("other")
    target = other.dtype if isinstance(other, Ref) else call.get("dtype")
    kind = call["self"].dtype if target is None else str(target)
    return Lowered("identity", (call["self"],), {}) if kind.removeprefix("torch.") in FLOATS else None


RULES: Rules = {
    "aten.relu.default": unary("relu"),
    "aten.relu6.default": unary("relu6"),
    "aten.sigmoid.default": unary("sigmoid"),
    "aten.tanh.default": unary("tanh"),
    "aten.silu.default": unary("silu"),
    "aten.hardswish.default": unary("hard_swish"),
    "aten.hardsigmoid.default": unary("hard_sigmoid"),
    "aten.hardtanh.default": hard_tanh,
    "aten.gelu.default": unary("gelu", approximate="approximate"),
    "aten.leaky_relu.default": unary("leaky_relu", slope="negative_slope"),
    "aten.elu.default": elu,
    "aten.softplus.default": softplus,
    "aten.exp.default": unary("exp"),
    "aten.log.default": unary("log"),
    "aten.log1p.default": unary("log1p"),
    "aten.expm1.default": unary("expm1"),
    "aten.sin.default": unary("sine"),
    "aten.cos.default": unary("cosine"),
    "aten.abs.default": unary("absolute"),
    "aten.neg.default": unary("negative"),
    "aten.erf.default": unary("erf"),
    "aten.log_sigmoid.default": unary("log_sigmoid"),
    "aten.mish.default": unary("mish"),
    "aten.selu.default": unary("selu"),
    "aten.prelu.default": binary_of("prelu", "self", "weight"),
    "aten.clamp.default": clamp,
    "aten.clamp_min.default": clamp,
    "aten.clamp_max.default": clamp,
    "aten.maximum.default": choice("maximum"),
    "aten.minimum.default": choice("minimum"),
    "aten.where.self": where,
    "aten.where.ScalarOther": where,
    "aten.where.ScalarSelf": where,
    "aten.matmul.default": matmul("other"),
    "aten.mm.default": matmul("mat2"),
    "aten.bmm.default": matmul("mat2"),
    "aten.softmax.int": softmax("softmax"),
    "aten._softmax.default": softmax("softmax"),
    "aten.log_softmax.int": softmax("log_softmax"),
    "aten._log_softmax.default": softmax("log_softmax"),
    "aten.add.Tensor": binary("add"),
    "aten.add.Scalar": binary("add"),
    "aten.sub.Tensor": binary("subtract"),
    "aten.sub.Scalar": binary("subtract"),
    "aten.rsub.Tensor": binary("subtract", turned=True),
    "aten.rsub.Scalar": binary("subtract", turned=True),
    "aten.mul.Tensor": binary("multiply"),
    "aten.mul.Scalar": binary("multiply"),
    "aten.div.Tensor": binary("divide"),
    "aten.div.Scalar": binary("divide"),
    "aten.div.Tensor_mode": binary("divide"),
    "aten.true_divide.Tensor": binary("divide"),
    "aten.pow.Tensor_Scalar": power,
    "aten.square.default": fixed_power(2.0),
    "aten.sqrt.default": fixed_power(0.5),
    "aten.rsqrt.default": fixed_power(-0.5),
    "aten.reciprocal.default": fixed_power(-1.0),
    "aten.clone.default": same(),
    "aten.contiguous.default": same(),
    "aten.alias.default": same(),
    "aten.lift_fresh_copy.default": same(),
    # No gradient goes back through it: what it gives has none on the tape.
    "aten.detach.default": same(),
    "aten.to.dtype": cast,
    "aten.to.dtype_layout": cast,
    "aten.to.device": cast,
    "aten.to.other": cast,
    "aten._to_copy.default": cast,
    "aten.type_as.default": cast,
}
