"""Another classifier on top of a network: a support-vector machine, a decision tree, a forest or nearest neighbours.

It is fitted on the network's features, which are what goes into its last fully connected layer. A head stands in that
layer's place and keeps its weights, so that a network with a head is asked, evaluated and verified like any other. Its
logits are the logarithms of its probabilities. `pellucid.bundle.head_file` keeps heads on disk.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pellucid.bundle.fit import heads
from pellucid.bundle.recogniser import infer
from pellucid.data.images import Lazy
from pellucid.data.preprocess import Preprocess
from pellucid.errors import DataError, PellucidError, UsageError, did_you_mean
from pellucid.recipe import HeadKind

Kind = HeadKind

#: The least probability whose logarithm is taken: a tree may be certain, and one mistake must not cost infinitely much.
FLOOR = 1e-6
#: Neighbours that vote.
NEIGHBOURS = 5
#: Parts of the training pictures, each of which judges an SVM fitted on the others.
FOLDS = 3


@dataclass(frozen=True)
class Head:
    """A fitted classifier on features."""

    kind: Kind
    estimator: Any
    """scikit-learn's."""
    classes: int
    """Of the network; those that no training picture showed have probability 0."""
    features: int
    seed: int
    scale: float = 1.0
    """What an SVM's margins are multiplied by before their softmax."""

    def probabilities(self, features_nd: NDArray[np.float32]) -> NDArray[np.float64]:
        """Class probabilities (N, classes) of features (N, D).

        A tree gives the shares of the training pictures in the leaf, a forest their mean over its trees, neighbours
        the shares among the five nearest. An SVM gives the softmax of its margins times `scale`, so that the class it
        names is the one of the largest margin. Raises DataError for features of another length or no numbers.
        """
        features_nd = _checked(features_nd, self.features)
        shares_nk = np.zeros((len(features_nd), self.classes))
        if len(features_nd):
            known = (
                _softmax(self.scale * _margins(self.estimator, features_nd))
                if self.kind == "svm"
                else self.estimator.predict_proba(features_nd)
            )
            shares_nk[:, self.estimator.classes_] = known
        return shares_nk

    def logits(self, features_nd: NDArray[np.float32]) -> NDArray[np.float64]:
        """The logarithms of the probabilities (N, classes), none below that of one in a million."""
        return np.log(np.maximum(self.probabilities(features_nd), FLOOR))


class HeadLayer(nn.Linear):
    """A network's last fully connected layer, its weights kept under their names, with a head answering in its place.

    No gradient goes through it.
    """

    def __init__(self, linear: nn.Linear, head: Head) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=linear.bias is not None, device="meta")
        self.weight, self.bias, self.head = linear.weight, linear.bias, head

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002
        """(N, D) to the head's logits (N, classes), float64 where the device has it."""
        logits_nk = self.head.logits(input.detach().to("cpu", torch.float32).numpy())
        wide = torch.float32 if input.device.type == "mps" else torch.float64
        return torch.from_numpy(logits_nk).to(input.device, wide)

    def extra_repr(self) -> str:
        """Its kind too."""
        return f"{super().extra_repr()}, head={self.head.kind}"


def features(model: nn.Module, preprocess: Preprocess, pixels_nhwc: NDArray[np.uint8] | Lazy) -> NDArray[np.float32]:
    """What goes into the network's last fully connected layer (N, D), for pictures as `preprocess` gives them.

    Computed as predictions are; the network is afterwards as it was. Raises UsageError for a network that does not end
    in such a layer.
    """
    layer = _last(model)[1]
    seen: list[NDArray[np.float32]] = []
    answers: list[NDArray[np.float64]] = []

    def keep(_layer: nn.Module, inputs: tuple[torch.Tensor, ...], answer: torch.Tensor) -> None:
        seen.append(inputs[0].detach().to("cpu", torch.float32).numpy().copy())
        answers.append(answer.detach().to("cpu", torch.float64).numpy())

    hook = layer.register_forward_hook(keep)
    try:
        logits_nk = infer(model, preprocess, pixels_nhwc)
    finally:
        hook.remove()
    if not seen:
        return np.zeros((0, layer.in_features), np.float32)
    features_nd = np.concatenate(seen)
    if features_nd.ndim != 2 or not np.array_equal(np.concatenate(answers), logits_nk):
        raise UsageError(
            "--head: the network's last fully connected layer does not give its logits, so nothing can stand in its "
            "place; end the network in FC(classes)"
        )
    return features_nd


def fit_head(
    kind: str,
    features_nd: NDArray[np.float32],
    labels_n: NDArray[np.int64],
    seed: int,
    *,
    classes: int | None = None,
) -> Head:
    """A classifier fitted on features (N, D) and labels (N,); the same one for the same seed.

    `svm`: features standardised, then scikit-learn's LinearSVC, one class against the others, and a scale for its
    margins (see `Head.probabilities`) found by cross-validation. `tree`, `forest`, `knn`: DecisionTreeClassifier,
    RandomForestClassifier and KNeighborsClassifier as they come. `classes` is the number the network tells apart, one
    more than the largest label unless given.

    Raises UsageError for an unknown kind, DataError for pictures of fewer than two classes.
    """
    if kind not in get_args(Kind):
        raise UsageError(f"--head {kind!r} is not known: {did_you_mean(kind, get_args(Kind))}")
    known: Kind = kind  # type: ignore[assignment]
    labels_n = np.asarray(labels_n, np.int64)
    features_nd = _checked(features_nd, None)
    if len(features_nd) != len(labels_n) or len(np.unique(labels_n)) < 2:
        raise DataError(
            f"--head {kind}: {len(features_nd)} pictures with {len(labels_n)} labels of {len(np.unique(labels_n))} "
            "classes; give pictures of at least two classes"
        )
    classes = int(labels_n.max()) + 1 if classes is None else classes
    if labels_n.min() < 0 or labels_n.max() >= classes:
        raise DataError(f"--head {kind}: labels from {labels_n.min()} to {labels_n.max()}, of {classes} classes")
    estimator = make(known, seed, len(labels_n))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        estimator.fit(features_nd, labels_n)
        scale = _scale(estimator, features_nd, labels_n, seed) if kind == "svm" else 1.0
    if any("converge" in str(warning.message) for warning in caught):
        raise PellucidError(f"--head {kind}: no solution after many rounds; look at the features, or try --head forest")
    return Head(known, estimator, classes, features_nd.shape[1], seed, scale)


def make(kind: Kind, seed: int, pictures: int) -> Any:
    """scikit-learn's classifier of that kind, not yet fitted; `pictures` is how many it will be fitted on."""
    # They take a second or two to import, and a network without a head needs none of them.
    from sklearn.ensemble import RandomForestClassifier  # noqa: PLC0415
    from sklearn.neighbors import KNeighborsClassifier  # noqa: PLC0415
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415
    from sklearn.preprocessing import StandardScaler  # noqa: PLC0415
    from sklearn.svm import LinearSVC  # noqa: PLC0415
    from sklearn.tree import DecisionTreeClassifier  # noqa: PLC0415

    match kind:
        case "svm":
            # The primal problem has no random order of pictures, and its solver always gets there.
            return make_pipeline(StandardScaler(), LinearSVC(dual=False, random_state=seed))
        case "tree":
            return DecisionTreeClassifier(random_state=seed)
        case "forest":
            return RandomForestClassifier(random_state=seed)
        case "knn":
            # Without an index, whose stored tree could lead a reader of a forged file outside its memory.
            return KNeighborsClassifier(min(NEIGHBOURS, pictures), algorithm="brute")


def attach(model: nn.Module, head: Head) -> nn.Module:
    """Put the head in the place of the network's last fully connected layer, and return the network.

    Raises DataError for a head of other features or classes than that layer has.
    """
    name, layer = _last(model)
    if (head.features, head.classes) != (layer.in_features, layer.out_features):
        raise DataError(
            f"the head is for {head.features} features and {head.classes} classes, and {name} of the network has "
            f"{layer.in_features} and {layer.out_features}: fit it on this network"
        )
    model.set_submodule(name, HeadLayer(layer, head))
    return model


def detach(model: nn.Module) -> Head | None:
    """Put the network's own last layer back in the place of a head; returns the head, if there was one."""
    for name, module in model.named_modules():
        if isinstance(module, HeadLayer):
            linear = nn.Linear(module.in_features, module.out_features, module.bias is not None, device="meta")
            linear.weight, linear.bias = module.weight, module.bias
            model.set_submodule(name, linear.train(module.training))
            return module.head
    return None


def head_of(model: nn.Module) -> Head | None:
    """The head on top of a network, if it has one."""
    return next((module.head for module in model.modules() if isinstance(module, HeadLayer)), None)


def _last(model: nn.Module) -> tuple[str, nn.Linear]:
    names = heads(model)
    layer = model.get_submodule(names[-1]) if names else None
    if not isinstance(layer, nn.Linear) or layer is model:
        raise UsageError("--head: the network does not end in a fully connected layer, FC(classes); give it one")
    return names[-1], layer


def _checked(features_nd: NDArray[np.float32], length: int | None) -> NDArray[np.float32]:
    features_nd = np.ascontiguousarray(features_nd, np.float32)
    if features_nd.ndim != 2 or length not in {None, features_nd.shape[1]}:
        raise DataError(f"features of shape {features_nd.shape}: expected pictures × {length or 'features'}")
    if not np.isfinite(features_nd).all():
        raise DataError("the network's features hold values that are no numbers: train again at a lower rate")
    return features_nd


def _margins(estimator: Any, features_nd: NDArray[np.float32]) -> NDArray[np.float64]:
    """(N, classes seen in training); of two classes, scikit-learn gives the margin of the second alone."""
    return _columns(estimator.decision_function(features_nd))


def _columns(margins: NDArray[np.float64]) -> NDArray[np.float64]:
    margins = np.asarray(margins, np.float64)
    return margins if margins.ndim == 2 else np.stack([-margins, margins], axis=1)


def _softmax(logits_nk: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(logits_nk - logits_nk.max(1, keepdims=True))
    shares: NDArray[np.float64] = powers / powers.sum(1, keepdims=True)
    return shares


def _scale(estimator: Any, features_nd: NDArray[np.float32], labels_n: NDArray[np.int64], seed: int) -> float:
    """The scale of margins under which the right classes of pictures not fitted on are likeliest.

    Temperature scaling (Guo et al., "On calibration of modern neural networks", 2017). 1 where a class has one picture
    alone, which cannot both teach and judge.
    """
    from scipy.optimize import minimize_scalar  # noqa: PLC0415
    from sklearn.base import clone  # noqa: PLC0415
    from sklearn.model_selection import StratifiedKFold, cross_val_predict  # noqa: PLC0415

    place_n = np.searchsorted(estimator.classes_, labels_n)
    folds = min(FOLDS, int(np.bincount(place_n).min()))
    if folds < 2:
        return 1.0
    split = StratifiedKFold(folds, shuffle=True, random_state=seed)
    judged = cross_val_predict(clone(estimator), features_nd, place_n, cv=split, method="decision_function")
    margins_nk = _columns(judged)
    everyone = np.arange(len(place_n))

    def surprise(log_scale: float) -> float:
        shares_nk = _softmax(np.exp(log_scale) * margins_nk)
        return -float(np.log(np.maximum(shares_nk[everyone, place_n], FLOOR)).mean())

    return float(np.exp(minimize_scalar(surprise, bounds=(-5, 5), method="bounded").x))
