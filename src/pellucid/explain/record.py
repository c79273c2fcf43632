"""Recording: one pass of a PyTorch model, operation by operation, as a tape of plain arrays.

The model is exported to its graph of ATen operations (`torch.export`), and the graph is run here, each operation by the
engine itself, so that the logits are those of `model(images)`, bit for bit on a processor, and the gradients those of
`backward()`. Nothing is hooked or patched, and the model is afterwards as it was: parameters, buffers, gradients, modes
and the state of the random numbers.

- Operations in place become the operations that give a new value; where that would change the result, because an alias
  is read later, the graph is first freed of them as a whole (`run_decompositions`).
- The mask of a dropout is drawn from torch's generator as torch's own dropout draws it, and kept as a constant.
  `pellucid.nets`' faster dropout draws other masks when it trains; exported it is torch's, and is recorded so.
- Recurrent operations keep the engine's outputs; what their cells computed is added from the textbook's pass.

This is the one module of the room that needs torch.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from torch.export import ExportedProgram
from torch.nn.parameter import is_lazy
from torch.utils import _pytree as pytree

from pellucid.errors import UsageError
from pellucid.explain import blame, graph
from pellucid.explain.cache import PROGRAMS, fingerprint, forget
from pellucid.explain.finite import not_finite
from pellucid.explain.inside import open_up
from pellucid.explain.names import joined
from pellucid.explain.node import Array, Clipping, Pixels, Update
from pellucid.explain.request import check_inputs, check_labels, check_request, clipping_of
from pellucid.explain.run import Run, UnsafeError
from pellucid.explain.settings import step_of
from pellucid.explain.tape import Tape

if TYPE_CHECKING:
    from pellucid.explain.graph import Program

__all__ = ["forget", "record"]

Tensor = torch.Tensor
Loss = Callable[..., Tensor]
Model = nn.Module | ExportedProgram

#: Whose lines of code are not the user's.
_OTHERS = (str(Path(torch.__file__).parent), str(Path(__file__).parent))
#: Who reports, at length, an error that is raised as well.
_LOUD = ("_subclasses.fake_tensor", "fx.experimental.symbolic_shapes", "export", "_export")
_WIDENED = (torch.bfloat16, torch.float16)


def record(
    model: Model,
    images: Any,
    label: Any = None,
    *,
    loss: Loss | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    clip: Mapping[str, float] | None = None,
    training: bool = False,
    pixels: Pixels | None = None,
) -> Tape:
    """The pass of `model` on `images`; with a label or a loss also its gradients, with an optimiser also its step.

    - `images`: a tensor or an array (N, C, H, W), or whatever tensor or tuple of tensors the model takes. An array of
      floats gets the type of the model's parameters, and any array their device.
    - `label`: one class number an image, for the mean cross-entropy. `loss`: another one, called as
      `loss(logits, label)`, or `loss(logits)` without a label, that gives a single number. Gradients are those of every
      value and parameter, frozen ones included.
    - `optimizer`: one over the model's parameters, as it stands; its next step is taken on a copy. `clip`: {"norm": c}
      or {"value": c}, how the gradients of all parameters are clipped before it, as by torch.nn.utils.
    - `training`: the training pass, with the statistics of the batch, and dropout's masks from the generator as it
      stands. A model that is in the mode asked for is recorded as it is, its frozen parts in their own mode.
    - `pixels`: the pictures before preprocessing, to be kept beside the input.

    A model and shapes that were recorded before are not exported again, see `forget`. Raises UsageError for a model
    that cannot be exported, images that do not fit it, labels outside its classes, and contradicting requests.
    """
    check_request(label, loss, optimizer, clip)
    clipping = None if clip is None else clipping_of(clip)
    wants_loss = label is not None or loss is not None
    grad_mode = _grad_mode(wants_loss)
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.inference_mode(mode=False))
        stack.enter_context(torch.set_grad_enabled(grad_mode))
        arguments = _arguments(model, images)
        rewind = stack.enter_context(_undisturbed(model, training, arguments))
        request = _Request(model, arguments, training, wants_loss, _leaves(model, wants_loss), rewind)
        run, logits = _passed(request)
        if wants_loss:
            _lose(run, request, logits, label, loss)
        gradients = _gradients(run) if wants_loss else {}
        tape = _tape(run, gradients, training)
        tape.output, tape.pixels = run.ref(logits).name, pixels
        if optimizer is not None:
            _step(tape, request, gradients, optimizer, clipping)
    return tape


# --- what was asked for -------------------------------------------------------------------------------------------


def _grad_mode(wants_loss: bool) -> bool:
    if torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda"):
        raise UsageError(
            "record() was called inside torch.autocast, which hides its casts: write the autocast into the model's "
            "forward, and call record() outside"
        )
    return wants_loss or torch.is_grad_enabled()


def _arguments(model: Model, images: Any) -> tuple[Tensor, ...]:
    """The model's arguments; tensors of the user's are copied, since the tape keeps them."""
    given = tuple(images) if isinstance(images, (tuple, list)) else (images,)
    if any(is_lazy(tensor) for named in _named(model) for tensor in named.values()):
        raise UsageError("the model has layers that take their size from a first batch: call model(images) once first")
    like = next((p for p in _named(model)[0].values() if p.is_floating_point()), torch.empty(0))
    made = []
    for one in given:
        if isinstance(one, Tensor):
            made.append(one.detach().clone())
        elif isinstance(one, np.ndarray):
            tensor = torch.tensor(one)
            kind = like.dtype if tensor.is_floating_point() else tensor.dtype
            made.append(tensor.to(device=like.device, dtype=kind))
        else:
            raise UsageError(f"images is of {type(one).__name__}, which is no tensor or array: give (N, C, H, W)")
    return tuple(made)


def _named(model: Model) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The model's live parameters and buffers by every name they have."""
    if isinstance(model, nn.Module):
        return dict(model.named_parameters(remove_duplicate=False)), dict(model.named_buffers(remove_duplicate=False))
    state = {**model.constants, **model.state_dict}
    signature = model.graph_signature
    return {name: state[name] for name in signature.parameters}, {name: state[name] for name in signature.buffers}


@contextlib.contextmanager
def _undisturbed(model: Model, training: bool, arguments: Sequence[Tensor]) -> Iterator[Callable[[], None]]:
    """The model in the mode that is asked for, and a way back to the random numbers as they stood; all undone after."""
    modules = list(model.modules()) if isinstance(model, nn.Module) else []
    modes = [(module, module.training) for module in modules]
    devices = {t.device for t in (*arguments, *_named(model)[0].values()) if t.device.type == "cuda"}
    cpu, cuda = torch.get_rng_state(), {device: torch.cuda.get_rng_state(device) for device in devices}

    def rewind() -> None:
        torch.set_rng_state(cpu)
        for device, state in cuda.items():
            torch.cuda.set_rng_state(state, device)

    try:
        if modes and modes[0][1] != training:
            # Set one by one: a model may override train().
            for module in modules:
                module.training = training
        yield rewind
    finally:
        for module, mode in modes:
            module.training = mode
        rewind()


# --- exporting and running ----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Request:
    """What is recorded: `leaves` copy parameters and buffers, `rewind` sets the random numbers as they stood."""

    model: Model
    arguments: tuple[Tensor, ...]
    training: bool
    wants_loss: bool
    leaves: dict[str, Tensor]
    rewind: Callable[[], None]


def _leaves(model: Model, wants_loss: bool) -> dict[str, Tensor]:
    """Copies of the parameters and buffers by every name; what is one tensor in the model is one here.

    They are copies because the tape keeps them, and views of them, and the user may step afterwards.
    """
    parameters, buffers = _named(model)
    copies: dict[int, Tensor] = {}
    leaves = {}
    for name, tensor in (*parameters.items(), *buffers.items()):
        if id(tensor) not in copies:
            wanted = wants_loss and name in parameters and tensor.is_floating_point()
            copies[id(tensor)] = tensor.detach().clone().requires_grad_(wanted or tensor.requires_grad)
        leaves[name] = copies[id(tensor)]
    return leaves


def _passed(request: _Request) -> tuple[Run, Tensor]:
    """The model's graph, run, and its logits; exported unless it was before."""
    model, arguments = request.model, request.arguments
    kept: dict[Any, Program] = {}
    key = None
    if isinstance(model, nn.Module):
        kept, key = PROGRAMS.setdefault(model, {}), (fingerprint(model, arguments), torch.is_grad_enabled())
    program = kept.get(key)
    if program is not None:
        run, outputs = _ran(request, program)
        return run, _logits(program, outputs)
    exported = _exported(model, arguments)
    program = graph.program_of(exported, _OTHERS)
    check_inputs(program, arguments, request.training, loaded=isinstance(model, ExportedProgram))
    try:
        # Without a region of another kind, which only the freed graph lacks.
        made = _ran(request, program) if program.regions <= {graph.GRAD_REGION} else None
    except UnsafeError:
        made = None
    except (RuntimeError, IndexError) as error:
        raise _engines_refusal(model, arguments, error) from error
    if made is None:
        program = _freed(exported, program)
        made = _ran(request, program)
        _check_freed(request, exported, made[1])
    if key is not None:
        kept[key] = program
    return made[0], _logits(program, made[1])


def _engines_refusal(model: Model, arguments: tuple[Tensor, ...], error: Exception) -> Exception:
    """Export goes by shapes, and may pass what the engine then refuses: types, or indices out of range."""
    own = _own_error(model, arguments) if isinstance(model, nn.Module) else error
    # What the model itself can do is not the user's mistake.
    if own is None:
        return error
    names = {id(m): name for name, m in reversed(list(model.named_modules()))} if isinstance(model, nn.Module) else {}
    return blame.misfit(own, names, arguments, getattr(model, "image", None), *_OTHERS)


def _check_freed(request: _Request, exported: ExportedProgram, outputs: list[Tensor | None]) -> None:
    """Refuse a graph that was freed of operations in place and now computes something else than it did before.

    torch frees it wrongly where a dropout at rest hands its input on and that is changed in place, for one.
    """
    request.rewind()
    copies = {id(leaf): leaf.clone() for leaf in request.leaves.values()}
    images = iter(request.arguments)
    given = []
    for spec in exported.graph_signature.input_specs:
        kind, target = spec.kind.name, str(spec.target)
        if kind == "USER_INPUT":
            given.append(next(images).clone())
        elif kind in {"PARAMETER", "BUFFER"}:
            given.append(copies[id(request.leaves[target])])
        else:
            given.append(exported.constants[target].detach().clone())
    before = torch.fx.Interpreter(exported.graph_module).run(*given)
    for old, new in zip(before, outputs, strict=True):
        if isinstance(new, Tensor) and not torch.equal(old.nan_to_num(), new.nan_to_num()):
            raise UsageError(
                "the model changes a value in place that it reads again under another name, in a way that torch loses "
                "track of: replace x += y by x = x + y, and x.relu_() by x.relu()"
            )


def _ran(request: _Request, program: Program) -> tuple[Run, list[Tensor | None]]:
    """A pass with its parameters, buffers, constants and inputs as leaves."""
    if request.wants_loss and program.gradients_lost:
        raise UsageError(
            "the model turns gradients off for a part of its pass and changes values in place (or has an autocast) as "
            "well, which cannot be recorded together: replace torch.no_grad() by .detach(), or x += y by x = x + y"
        )
    request.rewind()
    run, leaves = Run(torch), request.leaves
    for names, kind in zip(_named(request.model), ("parameter", "buffer"), strict=True):
        for name in names:
            if id(leaves[name]) in run.refs:
                run.aliases[name] = run.ref(leaves[name]).name
            else:
                run.leaf(name, kind, leaves[name], name.rpartition(".")[0])
    values: dict[Any, Tensor] = {}
    images = iter(request.arguments)
    for node, kind, name in program.inputs:
        if kind == "USER_INPUT":
            # Fresh: a pass that was broken off must leave no trace in the one that follows.
            image = next(images).detach()
            values[node] = image.requires_grad_(request.wants_loss and image.is_floating_point())
            run.leaf("input" if len(request.arguments) == 1 else name, "input", image)
        elif kind == "PARAMETER":
            values[node] = leaves[name]
        elif kind == "BUFFER":
            # Batch normalisation writes into the one it is given, whatever its schema says.
            values[node] = run.stand_in(leaves[name], leaves[name].clone())
        elif kind == "CONSTANT_TENSOR":
            values[node] = program.constants[name].detach().clone()
            run.leaf(name, "constant", values[node], name.rpartition(".")[0])
        else:
            raise UsageError(f"the model takes {name} ({kind.lower()}) into its pass, which is no tensor: leave it out")
    return run, run.walk(program, values)


def _exported(model: Model, arguments: tuple[Tensor, ...]) -> ExportedProgram:
    """The model's graph of ATen operations. Raises UsageError with torch's reason, the module and the remedy."""
    if isinstance(model, ExportedProgram):
        return model
    try:
        with _quiet():
            return torch.export.export(model, arguments, strict=False)
    except Exception as error:
        names = {id(module): name for name, module in reversed(list(model.named_modules()))}
        own = _own_error(model, arguments)
        if own is not None:
            raise blame.misfit(own, names, arguments, getattr(model, "image", None), *_OTHERS) from error
        raise blame.unexportable(error, names, type(model).__name__, *_OTHERS) from error


def _own_error(model: nn.Module, arguments: tuple[Tensor, ...]) -> Exception | None:
    """What the model raises by itself on these images, its buffers spared; None where it runs."""
    buffers = {name: buffer.detach().clone() for name, buffer in model.named_buffers()}
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.func.functional_call(model, buffers, tuple(argument.clone() for argument in arguments))
    except Exception as error:  # noqa: BLE001  what any model raises is the answer
        return error
    return None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's own report of an error that is about to be raised, and without two of its warnings."""
    loggers = [logging.getLogger(f"torch.{name}") for name in _LOUD]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL + 1)
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            # Of torch's recurrent layers, which keep their weights in a list as well; no result depends on it.
            warnings.filterwarnings("ignore", r"The tensor attributes? .*_flat_weights", UserWarning)
            # Of torch's own code, when it copies a program to decompose it.
            warnings.filterwarnings("ignore", r".*LeafSpec", FutureWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _freed(exported: ExportedProgram, program: Program) -> Program:
    """The graph without operations in place and without autocast regions, whose casts become operations."""
    with _quiet():
        freed = graph.program_of(exported.run_decompositions({}), _OTHERS)
    freed.gradients_lost = graph.GRAD_REGION in program.regions
    graph.take_places(freed, program)
    if freed.regions:
        kinds = ", ".join(sorted(freed.regions))
        raise UsageError(f"the model contains {kinds}, which cannot be recorded: take it out")
    return freed


def _logits(program: Program, outputs: list[Tensor | None]) -> Tensor:
    """What the model gives under the name logits, else its first tensor."""
    given = pytree.tree_unflatten(outputs, program.spec)
    named = given.get("logits") if isinstance(given, Mapping) else getattr(given, "logits", None)
    first = named if isinstance(named, Tensor) else next((t for t in outputs if isinstance(t, Tensor)), None)
    if first is None:
        raise UsageError("the model gives no tensor, so there are no logits to explain: let forward return them")
    return first


# --- the loss and its gradients -----------------------------------------------------------------------------------


class _Loss(nn.Module):
    """A loss as a module, so that it can be exported; one that is a module itself keeps its parameters."""

    def __init__(self, function: Loss) -> None:
        super().__init__()
        self.function = function

    def forward(self, *given: Tensor) -> Tensor:
        """The loss of the logits and, where there is one, the label."""
        return self.function(*given)


_CROSS_ENTROPY = _Loss(F.cross_entropy)


def _lose(run: Run, request: _Request, logits: Tensor, label: Any, loss: Loss | None) -> None:
    """Export the loss and run it on the logits: its last value is the node `loss`, others are `loss.<operation>`."""
    given: list[Tensor] = [logits]
    if label is not None:
        target = torch.as_tensor(label, device=logits.device)
        target = target.reshape(1) if target.ndim == 0 and not isinstance(label, Tensor) else target.detach().clone()
        if loss is None:
            target = check_labels(target, tuple(logits.shape)).long()
        given.append(target)
    function = _CROSS_ENTROPY if loss is None else _Loss(loss)
    program = _exported_loss(function, tuple(one.detach() for one in given))
    values: dict[Any, Tensor] = {}
    arrays, named = iter(given), dict(function.named_parameters()) | dict(function.named_buffers())
    shared = {_memory(live): request.leaves[name] for names in _named(request.model) for name, live in names.items()}
    for node, kind, name in program.inputs:
        if kind == "USER_INPUT":
            values[node] = next(arrays)
            if values[node] is not logits:
                run.leaf("label", "constant", values[node])
            continue
        live = named[name] if kind in {"PARAMETER", "BUFFER"} else program.constants[name]
        if _memory(live) in shared:
            # The model's own, as in a penalty on its weights.
            values[node] = shared[_memory(live)]
            continue
        values[node] = live.detach().clone().requires_grad_(kind == "PARAMETER")
        op = kind.lower() if kind in {"PARAMETER", "BUFFER"} else "constant"
        run.leaf(joined("loss", name.removeprefix("function").lstrip(".")), op, values[node], "loss")
    scalar, *_ = run.walk(program, values, final="loss")
    if scalar is None or scalar.numel() != 1 or not scalar.is_floating_point():
        shape = "no tensor" if scalar is None else f"shape {tuple(scalar.shape)} ({scalar.dtype})"
        raise UsageError(f"the loss gives {shape}, and gradients are of a single number: end it in a mean or a sum")
    run.close_loss(scalar)


def _exported_loss(function: _Loss, given: tuple[Tensor, ...]) -> Program:
    # What a loss of the user's reads besides its arguments may have changed since the last time.
    kept = PROGRAMS.setdefault(function, {}) if function is _CROSS_ENTROPY else {}
    key = fingerprint(function, given)
    if key not in kept:
        kept[key] = _fresh_loss(function, given)
    return kept[key]


def _fresh_loss(function: _Loss, given: tuple[Tensor, ...]) -> Program:
    try:
        with _quiet():
            exported = torch.export.export(function, given, strict=False)
    except Exception as error:
        own = _own_error(function, given)
        names = {id(module): name for name, module in function.named_modules() if name}
        if own is not None:
            raise blame.loss_misfit(own, names, given, *_OTHERS) from error
        raise blame.unexportable(error, names, "the loss", *_OTHERS) from error
    program = graph.program_of(exported, _OTHERS, root="loss", without="function")
    if program.regions - {graph.GRAD_REGION}:
        program = graph.program_of(exported.run_decompositions({}), _OTHERS, root="loss", without="function")
    return program


def _memory(tensor: Tensor) -> tuple[Any, ...]:
    return (tensor.data_ptr() or id(tensor), tensor.shape, tensor.stride(), tensor.dtype)


def _gradients(run: Run) -> dict[str, Tensor]:
    """The gradient of the loss for every value that it depends on, all from one walk back."""
    loss = run.tensors["loss"]
    wanted = {name: tensor for name, tensor in run.tensors.items() if tensor.requires_grad}
    if not loss.requires_grad:
        run.notes.append("no gradient passes from the loss to any value")
        return {}
    found: tuple[Tensor | None, ...] = torch.autograd.grad(loss, list(wanted.values()), allow_unused=True)
    return {name: slope for name, slope in zip(wanted, found, strict=True) if slope is not None}


# --- the tape -----------------------------------------------------------------------------------------------------


def _array(tensor: Tensor) -> Array:
    """A tensor as an array, without copying where it is the processor's; bfloat16 and float16 as float32."""
    tensor = tensor.detach().cpu()
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    if tensor.dtype in _WIDENED:
        tensor = tensor.float()
    return np.asarray(tensor.resolve_conj().resolve_neg().numpy())


def _tape(run: Run, gradients: Mapping[str, Tensor], training: bool) -> Tape:
    """The pass as arrays."""
    kinds = {str(tensor.dtype).removeprefix("torch.") for tensor in run.tensors.values() if tensor.is_floating_point()}
    precision = next((kind for kind in ("bfloat16", "float16") if kind in kinds), None)
    tape = Tape(
        nodes=[*run.leaves, *run.operations],
        values={name: _array(tensor) for name, tensor in run.tensors.items()},
        gradients={name: _array(tensor) for name, tensor in gradients.items()},
        precision=precision or ("float64" if kinds == {"float64"} else "float32"),
        training=training,
        inputs=tuple(node.name for node in run.leaves if node.op == "input"),
        loss="loss" if "loss" in run.tensors else None,
        notes=run.notes,
        aliases={alias: name for alias, name in run.aliases.items() if name in run.tensors},
    )
    tape.notes[:0] = not_finite(tape)
    open_up(tape)
    return tape


def _step(
    tape: Tape,
    request: _Request,
    gradients: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    clipping: Clipping | None,
) -> None:
    """The optimiser's next step, taken on copies of the parameters and of the optimiser."""
    live = {id(p): name for name, p in reversed(_named(request.model)[0].items())}
    held = [p for group in optimizer.param_groups for p in group["params"]]
    strange = next((p for p in held if id(p) not in live), None)
    if strange is not None:
        raise UsageError(
            f"the optimizer holds a parameter of shape {tuple(strange.shape)} that is none of the model's: make it "
            "over the parameters of the model that is recorded"
        )
    names = {name: p for name, p in _named(request.model)[0].items() if live[id(p)] == name}
    moved, mover = copy.deepcopy((names, optimizer))
    for name, p in moved.items():
        p.grad = gradients[name].clone() if name in gradients and p.requires_grad else None
    if clipping is not None and clipping.kind == "norm":
        norm = nn.utils.clip_grad_norm_(list(moved.values()), clipping.limit)
        clipping = replace(clipping, norm=float(norm))
    elif clipping is not None:
        nn.utils.clip_grad_value_(list(moved.values()), clipping.limit)
    kind = str(getattr(optimizer, "textbook_rule", ""))
    if type(optimizer) is getattr(torch.optim, type(optimizer).__name__, None):
        kind = type(optimizer).__name__
    steps = {}
    for group in optimizer.param_groups:
        for p in group["params"]:
            name = live[id(p)]
            if moved[name].grad is not None:
                state = {
                    key: _array(torch.as_tensor(value).clone())
                    for key, value in optimizer.state.get(p, {}).items()
                    if isinstance(value, (Tensor, int, float))
                }
                steps[name] = step_of(kind, group, state, tape.values[name])
    try:
        mover.step()
    except TypeError as error:
        raise UsageError(
            f"{type(optimizer).__name__} needs more than gradients for a step ({blame.sentence(error)}): give record() "
            "an optimizer whose step() takes no arguments"
        ) from error
    tape.update = Update(steps, clipping)
    tape.after = {name: _array(p) for name, p in moved.items()}
