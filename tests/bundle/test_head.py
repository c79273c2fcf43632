from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier
from torch import nn
from torch.nn import functional

from pellucid import nets
from pellucid.bundle.head import FLOOR, Head, attach, features, fit_head, head_of
from pellucid.bundle.recogniser import BATCH, Recogniser, infer
from pellucid.data import open_source
from pellucid.data.preprocess import Preprocess
from pellucid.errors import DataError, UsageError

KINDS = ("svm", "tree", "forest", "knn")
PREPROCESS = Preprocess((8, 8), "crop", 1, (0.3,), (0.37,))


class Digits:
    """A small network trained for a moment on real digits, and its features of all of them."""

    def __init__(self) -> None:
        splits = open_source("digits").splits
        assert splits["train"].pixels is not None
        assert splits["test"].pixels is not None
        self.x, self.y = splits["train"].pixels, splits["train"].labels
        self.test_x, self.test_y = splits["test"].pixels, splits["test"].labels
        self.model = nets.build("quick(32)", 10, (1, 8, 8), seed=0)
        optimizer = torch.optim.Adam(self.model.parameters(), 0.003)
        for step in range(40):
            at = np.random.default_rng(step).integers(0, len(self.x), 64)
            logits = self.model(PREPROCESS.normalise(torch.from_numpy(self.x[at])))
            loss = functional.cross_entropy(logits, torch.from_numpy(self.y[at]))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        self.model.eval()
        self.features = features(self.model, PREPROCESS, self.x)
        self.test_features = features(self.model, PREPROCESS, self.test_x)


@pytest.fixture(scope="module")
def digits() -> Digits:
    return Digits()


@pytest.fixture(scope="module")
def fitted(digits: Digits) -> Callable[[str], Head]:
    found: dict[str, Head] = {}

    def fit(kind: str) -> Head:
        if kind not in found:
            found[kind] = fit_head(kind, digits.features, digits.y, 0)
        return found[kind]

    return fit


def test_features_are_what_goes_into_the_last_layer(digits: Digits) -> None:
    body = nn.Sequential(*list(digits.model.children())[:-1]).eval()
    some = digits.test_x[: BATCH + 3]
    with torch.no_grad():
        expected = body(PREPROCESS.normalise(torch.from_numpy(some))).numpy()
    found = features(digits.model, PREPROCESS, some)
    assert found.dtype == np.float32
    assert found == pytest.approx(expected, abs=1e-5)
    # The layer made of them what the network says.
    last = digits.model.get_submodule("head")
    with torch.no_grad():
        logits = last(torch.from_numpy(found)).numpy()
    assert logits == pytest.approx(infer(digits.model, PREPROCESS, some), abs=1e-4)


def test_looking_at_features_leaves_the_network_as_it_was(digits: Digits) -> None:
    model = copy.deepcopy(digits.model).train()
    before = copy.deepcopy(model.state_dict())
    features(model, PREPROCESS, digits.x[:5])
    assert model.training
    assert all(not module._forward_hooks for module in model.modules())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    with pytest.raises(RuntimeError):
        features(model, PREPROCESS, np.zeros((1, 1, 1, 9), np.uint8))
    assert all(not module._forward_hooks for module in model.modules())
    assert features(model, PREPROCESS, digits.x[:0]).shape == (0, 128)


def by_hand(kind: str) -> Any:
    return {
        "svm": make_pipeline(StandardScaler(), LinearSVC(dual=False, random_state=0)),
        "tree": DecisionTreeClassifier(random_state=0),
        "forest": RandomForestClassifier(random_state=0),
        "knn": KNeighborsClassifier(),
    }[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_a_head_is_what_scikit_learn_makes_by_hand_and_far_above_chance(
    digits: Digits, fitted: Callable[[str], Head], kind: str
) -> None:
    head, hand = fitted(kind), by_hand(kind).fit(digits.features, digits.y)
    probabilities = head.probabilities(digits.test_features)
    assert np.array_equal(probabilities.argmax(1), hand.predict(digits.test_features))
    if kind != "svm":
        assert np.array_equal(probabilities, hand.predict_proba(digits.test_features))
    assert probabilities.sum(1) == pytest.approx(1)
    # A tenth of the digits are each digit.
    assert (probabilities.argmax(1) == digits.test_y).mean() > (0.6 if kind == "tree" else 0.85)


def test_an_svms_probabilities_are_the_softmax_of_its_margins(digits: Digits, fitted: Callable[[str], Head]) -> None:
    head = fitted("svm")
    margins = head.estimator.decision_function(digits.test_features)
    powers = np.exp(head.scale * margins)
    expected = powers / powers.sum(1, keepdims=True)
    found = head.probabilities(digits.test_features)
    assert found == pytest.approx(expected)
    # Calibrated: on pictures it has not seen, as sure as it is right, and surer than with the bare margins.
    right = found.argmax(1) == digits.test_y
    assert found.max(1).mean() == pytest.approx(right.mean(), abs=0.06)
    bare = np.exp(margins) / np.exp(margins).sum(1, keepdims=True)
    everyone = np.arange(len(right))
    assert -np.log(found[everyone, digits.test_y]).mean() < -np.log(bare[everyone, digits.test_y]).mean()


@pytest.mark.parametrize("kind", KINDS)
def test_two_classes_with_a_third_that_no_picture_showed(digits: Digits, kind: str) -> None:
    keep = np.isin(digits.y, [3, 8])
    labels = np.where(digits.y[keep] == 3, 0, 2)
    head = fit_head(kind, digits.features[keep], labels, 0, classes=4)
    found = head.probabilities(digits.features[keep])
    assert found.shape == (keep.sum(), 4)
    assert (found[:, [1, 3]] == 0).all()
    assert (found.argmax(1) == labels).mean() > 0.95


@pytest.mark.parametrize("kind", KINDS)
def test_equal_seeds_give_equal_heads(digits: Digits, kind: str) -> None:
    one, two = (fit_head(kind, digits.features[:300], digits.y[:300], 7) for _ in range(2))
    assert one.scale == two.scale
    assert np.array_equal(one.probabilities(digits.test_features), two.probabilities(digits.test_features))


def test_the_seed_decides_a_forest(digits: Digits) -> None:
    one, two = (fit_head("forest", digits.features[:300], digits.y[:300], seed) for seed in (0, 1))
    assert not np.array_equal(one.probabilities(digits.test_features), two.probabilities(digits.test_features))


@pytest.mark.parametrize("kind", KINDS)
def test_one_picture_a_class_is_enough(digits: Digits, kind: str) -> None:
    first = [int(np.flatnonzero(digits.y == label)[0]) for label in (0, 1, 2)]
    head = fit_head(kind, digits.features[first], digits.y[first], 0)
    assert head.probabilities(digits.features[first]).shape == (3, 3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_head_answers_in_the_networks_place(digits: Digits, fitted: Callable[[str], Head], kind: str) -> None:
    model = attach(copy.deepcopy(digits.model), fitted(kind))
    logits = infer(model, PREPROCESS, digits.test_x)
    expected = fitted(kind).probabilities(digits.test_features)
    assert np.array_equal(logits, np.log(np.maximum(expected, FLOOR)))
    recogniser = Recogniser(model, tuple("0123456789"), PREPROCESS, "quick(32)")
    found = recogniser.probabilities(digits.test_x)
    assert found == pytest.approx(expected, abs=1e-5)
    assert np.isfinite(logits).all()
    # The network's own weights, under their own names, and the same features still.
    assert model.state_dict().keys() == digits.model.state_dict().keys()
    assert np.array_equal(features(model, PREPROCESS, digits.test_x), digits.test_features)
    assert head_of(model) == fitted(kind)
    assert head_of(digits.model) is None
    assert f"head={kind}" in repr(model)


def test_a_head_that_does_not_fit_is_refused(digits: Digits, fitted: Callable[[str], Head]) -> None:
    with pytest.raises(DataError, match="the head is for 128 features and 10 classes, and head of the network has"):
        attach(nets.build("quick(32)", 3, (1, 8, 8)), fitted("tree"))
    with pytest.raises(DataError, match=r"features of shape \(2, 5\): expected pictures × 128"):
        fitted("tree").probabilities(np.zeros((2, 5), np.float32))
    with pytest.raises(DataError, match="hold values that are no numbers"):
        fitted("svm").probabilities(np.full((2, 128), np.nan, np.float32))


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Conv2d(1, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        nn.Sequential(nn.Flatten()),
    ],
)
def test_a_network_that_does_not_end_in_a_fully_connected_layer_is_refused(model: nn.Module) -> None:
    model.register_parameter("own", nn.Parameter(torch.zeros(1)))
    with pytest.raises(UsageError, match="does not end in a fully connected layer"):
        features(model, PREPROCESS, np.zeros((2, 8, 8, 1), np.uint8))


def test_something_behind_the_last_layer_is_refused() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3), nn.Tanh())
    with pytest.raises(UsageError, match="does not give its logits"):
        features(model, PREPROCESS, np.ones((2, 8, 8, 1), np.uint8))


def test_what_no_head_can_be_fitted_on_is_refused(digits: Digits) -> None:
    few = digits.features[:6]
    with pytest.raises(UsageError, match="--head 'svn' is not known: did you mean 'svm'"):
        fit_head("svn", few, digits.y[:6], 0)
    for labels in (np.zeros(6, np.int64), np.arange(5)):
        with pytest.raises(DataError, match="give pictures of at least two classes"):
            fit_head("tree", few, labels, 0)
    with pytest.raises(DataError, match="labels from 0 to 5, of 3 classes"):
        fit_head("tree", few, np.arange(6), 0, classes=3)


def shown(pixels: NDArray[np.uint8], path: Path) -> Path:
    from PIL import Image

    Image.fromarray(pixels[:, :, 0]).save(path)
    return path


def test_a_head_predicts_files(digits: Digits, fitted: Callable[[str], Head], tmp_path: Path) -> None:
    model = attach(copy.deepcopy(digits.model), fitted("knn"))
    recogniser = Recogniser(model, tuple("0123456789"), PREPROCESS, "quick(32)")
    files = [shown(digits.x[i], tmp_path / f"{i}.png") for i in range(5)]
    answers = recogniser.predict(files)
    assert [answer.label for answer in answers] == [str(label) for label in digits.y[:5]]
    assert all(sum(answer.probabilities.values()) == pytest.approx(1) for answer in answers)
