from __future__ import annotations

import json
import math
import warnings
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.special import log_softmax
from scipy.stats import binomtest, sem
from scipy.stats import t as student
from sklearn.metrics import (
    balanced_accuracy_score,
    confusion_matrix,
    log_loss,
    precision_recall_fscore_support,
    roc_auc_score,
)

from pellucid.errors import DataError, PellucidError, UsageError
from pellucid.scores import (
    auc,
    balanced_accuracy,
    balanced_interval,
    confusion,
    cross_entropy,
    evaluation,
    mcnemar,
    paired_difference,
    per_class,
    softmax,
    spread,
    wilson,
)

KEYS = [
    "n", "loss", "accuracy", "accuracy_low", "accuracy_high", "baseline", "balanced_accuracy", "balanced_accuracy_low",
    "balanced_accuracy_high", "auc", "per_class", "confusion",
]  # fmt: skip


@st.composite
def answers(draw: st.DrawFn, least: int = 1) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Labels (N,) and logits (N, classes); few distinct values, so that ties and missing classes are common."""
    classes = draw(st.integers(2, 5))
    n = draw(st.integers(least, 30))
    labels = draw(hnp.arrays(np.int64, n, elements=st.integers(0, classes - 1)))
    logits = draw(hnp.arrays(np.float64, (n, classes), elements=st.sampled_from([-3.0, -0.5, 0.0, 0.1, 1.0, 40.0])))
    return labels, logits


# The Wilson interval


@pytest.mark.parametrize(
    ("correct", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_newcombe_s_table(correct: int, n: int, low: float, high: float) -> None:
    """R. G. Newcombe, "Two-sided confidence intervals for the single proportion", 1998, table I, method 3."""
    found = wilson(correct, n)
    assert found == pytest.approx((low, high), abs=5e-5)


@settings(max_examples=200, deadline=None)
@given(n=st.integers(1, 10**6), share=st.floats(0, 1), confidence=st.floats(0.01, 0.999))
def test_wilson_agrees_with_scipy(n: int, share: float, confidence: float) -> None:
    correct = round(share * n)
    low, high = wilson(correct, n, confidence)
    expected = binomtest(correct, n).proportion_ci(confidence, method="wilson")
    assert (low, high) == pytest.approx((expected.low, expected.high), rel=1e-9, abs=1e-12)
    assert 0 <= low <= correct / n <= high <= 1


def test_wilson_at_the_ends() -> None:
    assert wilson(0, 10)[0] == 0.0
    assert wilson(10, 10)[1] == 1.0
    for correct, n in ((1, 0), (0, 0), (-1, 5), (6, 5)):
        with pytest.raises(UsageError, match=rf"{correct} right of {n} images"):
            wilson(correct, n)
    for confidence in (0.0, 1.0, 95.0, math.nan):
        with pytest.raises(UsageError, match="between 0 and 1"):
            wilson(1, 2, confidence)


# Confusion and per-class figures


@settings(max_examples=200, deadline=None)
@given(case=answers())
def test_confusion_and_per_class_agree_with_sklearn(case: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]) -> None:
    labels, logits = case
    classes = logits.shape[1]
    guesses = logits.argmax(axis=1)
    counts = confusion(labels, guesses, classes)
    np.testing.assert_array_equal(counts, confusion_matrix(labels, guesses, labels=range(classes)))
    assert counts.dtype == np.int64
    expected = precision_recall_fscore_support(labels, guesses, labels=range(classes), zero_division=np.nan)
    for key, column in zip(("precision", "recall", "f1", "support"), expected, strict=True):
        found = np.array([row[key] for row in per_class(counts)], dtype=np.float64)
        np.testing.assert_allclose(found, column, rtol=1e-12, equal_nan=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sklearn warns of classes that were predicted but are not there
        assert balanced_accuracy(counts) == pytest.approx(balanced_accuracy_score(labels, guesses), rel=1e-12)


def test_undefined_figures_are_none() -> None:
    # Class 1 has images and is never named; class 2 has none and is named; class 3 has and is nothing.
    rows = per_class(confusion([0, 0, 1], [0, 2, 2], 4))
    none = {"recall_low": None, "recall_high": None}
    low, high = wilson(0, 1)
    assert rows[1] == {
        "precision": None, "recall": 0.0, "f1": 0.0, "support": 1, "recall_low": low, "recall_high": high,
    }  # fmt: skip
    assert rows[2] == {"precision": 0.0, "recall": None, "f1": 0.0, "support": 0, **none}
    assert rows[3] == {"precision": None, "recall": None, "f1": None, "support": 0, **none}
    low, high = wilson(1, 2)
    assert rows[0] == {
        "precision": 1.0, "recall": 0.5, "f1": 2 / 3, "support": 2, "recall_low": low, "recall_high": high,
    }  # fmt: skip
    assert balanced_accuracy(np.zeros((3, 3), np.int64)) is None
    assert balanced_interval(np.zeros((3, 3), np.int64)) == (None, None)
    assert balanced_accuracy(np.array([[1, 3, 0], [0, 8, 0], [0, 0, 0]])) == (0.25 + 1) / 2


@pytest.mark.parametrize(
    ("labels", "predictions", "words"),
    [
        ([0, 3], [0, 0], "labels: 3 is no class: expected whole numbers from 0 to 2"),
        ([0, 1], [0, -1], "predictions: -1 is no class"),
        ([0, 1], [0], "2 labels and 1 predictions"),
        ([0.0, 1.0], [0, 1], "labels of shape .* expected one whole number an image"),
        ([[0], [1]], [0, 1], "labels of shape"),
        ([True, False], [0, 1], "labels of shape .* and type bool"),
    ],
)
def test_labels_that_cannot_be(labels: Any, predictions: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        confusion(labels, predictions, 3)


@settings(max_examples=200, deadline=None)
@given(right=st.integers(0, 400), wrong=st.integers(0, 400))
def test_of_one_class_the_balanced_accuracy_is_the_accuracy(right: int, wrong: int) -> None:
    counts = np.array([[right, wrong + (right + wrong == 0)], [0, 0]], np.int64)
    assert balanced_interval(counts) == pytest.approx(wilson(right, int(counts.sum())), rel=1e-12)


@settings(max_examples=200, deadline=None)
@given(case=answers())
def test_the_balanced_accuracy_lies_in_its_interval(case: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]) -> None:
    labels, logits = case
    counts = confusion(labels, logits.argmax(axis=1), logits.shape[1])
    low, high = balanced_interval(counts)
    middle = balanced_accuracy(counts)
    assert low is not None
    assert high is not None
    assert middle is not None
    assert 0 <= low <= middle <= high <= 1


@pytest.mark.parametrize(
    ("recalls", "images"),
    [
        ([0.87] * 10, [14] * 10),
        ([0.98] * 10, [14] * 10),
        ([0.8, 0.9, 0.7, 0.95, 0.99], [20] * 5),
        ([0.99, 0.3], [500, 10]),
        ([0.98] * 50, [50] * 50),
        ([0.6] * 10, [5] * 10),
    ],
)
def test_how_often_the_interval_of_the_balanced_accuracy_holds_the_truth(
    recalls: list[float], images: list[int]
) -> None:
    """By simulation: 95 % is promised. Adding up the intervals of the recalls would hold it in 86 % of the second."""
    random = np.random.default_rng(0)
    inside = 0
    for _ in range(1000):
        right = random.binomial(images, recalls)
        counts = np.diag(right)
        counts[:, 0] += np.array(images) - right
        # What class 0 was not taken for is put where it is wrong too.
        counts[0, 0] = right[0]
        counts[0, 1] += images[0] - right[0]
        low, high = balanced_interval(counts)
        assert low is not None
        assert high is not None
        inside += bool(low <= np.mean(recalls) <= high)
    assert 0.925 <= inside / 1000 <= 0.985


# ROC-AUC


@settings(max_examples=300, deadline=None)
@given(case=answers())
def test_auc_agrees_with_sklearn(case: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]) -> None:
    labels, logits = case
    probabilities = softmax(logits)
    classes = logits.shape[1]
    areas = [
        roc_auc_score(labels == c, probabilities[:, c])
        for c in ([1] if classes == 2 else range(classes))
        if 0 < np.count_nonzero(labels == c) < labels.size
    ]
    found = auc(labels, probabilities)
    assert found == (pytest.approx(np.mean(areas), rel=1e-12) if areas else None)


def test_auc_is_sklearn_s_one_vs_rest_macro_where_every_class_is_there() -> None:
    random = np.random.default_rng(0)
    labels = np.arange(500) % 7
    probabilities = softmax(random.normal(size=(500, 7)) + 0.7 * np.eye(7)[labels]).round(2)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    expected = roc_auc_score(labels, probabilities, multi_class="ovr", average="macro")
    assert auc(labels, probabilities) == pytest.approx(expected, rel=1e-12)


def test_auc_by_hand() -> None:
    # Pairs (class 1, class 0): 0.8 > 0.4, 0.8 > 0.3, 0.4 = 0.4, 0.4 > 0.3: (3 + 1/2) / 4.
    probabilities = np.array([[0.6, 0.4], [0.7, 0.3], [0.2, 0.8], [0.6, 0.4]])
    assert auc([0, 0, 1, 1], probabilities) == 3.5 / 4
    assert auc([0, 0, 1, 1], probabilities[::-1]) == 0.5 / 4
    assert auc([1, 1], probabilities[:2]) is None
    assert auc([], np.zeros((0, 3))) is None
    assert auc([0, 1], [[math.nan, 0.5], [0.5, 0.5]]) is None
    with pytest.raises(UsageError, match="expected one row a label"):
        auc([0], probabilities)
    with pytest.raises(UsageError, match="expected \\(images, classes\\)"):
        auc([0], [0.5])


# Probabilities and loss


@settings(max_examples=200, deadline=None)
@given(case=answers())
def test_softmax_and_cross_entropy(case: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]) -> None:
    labels, logits = case
    np.testing.assert_allclose(softmax(logits), np.exp(log_softmax(logits, axis=1)), rtol=1e-13)
    expected = -log_softmax(logits, axis=1)[np.arange(labels.size), labels].mean()
    assert cross_entropy(logits, labels) == pytest.approx(expected, rel=1e-12, abs=1e-15)


def test_cross_entropy_is_sklearn_s_log_loss_and_the_paper_s_number() -> None:
    random = np.random.default_rng(1)
    logits, labels = random.normal(size=(50, 4)), np.arange(50) % 4
    assert cross_entropy(logits, labels) == pytest.approx(log_loss(labels, softmax(logits)), rel=1e-12)
    # Ten classes, nothing known yet: log 10.
    assert cross_entropy(np.zeros((3, 10)), [0, 5, 9]) == pytest.approx(math.log(10), rel=1e-15)


def test_float32_logits_of_any_size() -> None:
    logits = np.array([[1e4, 0, -1e4], [-1e30, 1e30, 0]], np.float32)
    np.testing.assert_array_equal(softmax(logits), [[1, 0, 0], [0, 1, 0]])
    assert softmax(logits).dtype == np.float64
    assert cross_entropy(logits, [1, 1]) == pytest.approx(5000, rel=1e-12)


# The whole evaluation


def test_evaluation_by_hand() -> None:
    logits = np.log([[0.7, 0.2, 0.1], [0.5, 0.4, 0.1], [0.1, 0.8, 0.1], [0.2, 0.7, 0.1]])
    result = evaluation(logits, [0, 1, 1, 1], ["daisy", "花", "rose"])
    assert list(result) == KEYS
    assert result["n"] == 4
    assert result["loss"] == pytest.approx(-np.mean(np.log([0.7, 0.4, 0.8, 0.7])), rel=1e-12)
    assert result["accuracy"] == 0.75
    assert (result["accuracy_low"], result["accuracy_high"]) == wilson(3, 4)
    assert result["baseline"] == 0.75
    assert result["balanced_accuracy"] == pytest.approx((1 + 2 / 3) / 2)
    assert result["auc"] == 1.0
    assert result["per_class"][0] == {
        "class": "daisy", "precision": 0.5, "recall": 1.0, "f1": pytest.approx(2 / 3), "support": 1,
        "recall_low": pytest.approx(wilson(1, 1)[0]), "recall_high": 1.0,
    }  # fmt: skip
    assert result["per_class"][2] == {
        "class": "rose", "precision": None, "recall": None, "f1": None, "support": 0,
        "recall_low": None, "recall_high": None,
    }  # fmt: skip
    assert result["confusion"] == [[1, 0, 0], [1, 2, 0], [0, 0, 0]]


@settings(max_examples=100, deadline=None)
@given(case=answers())
def test_evaluation_is_plain_json(case: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]) -> None:
    labels, logits = case
    names = [f"c{n}" for n in range(logits.shape[1])]
    result = evaluation(logits.astype(np.float32), labels, names)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert result["accuracy_low"] <= result["accuracy"] <= result["accuracy_high"]
    assert sum(row["support"] for row in result["per_class"]) == result["n"] == labels.size
    assert result["baseline"] == max(row["support"] for row in result["per_class"]) / labels.size


def test_evaluation_refuses() -> None:
    with pytest.raises(DataError, match="no images to evaluate"):
        evaluation(np.zeros((0, 2)), [], ["a", "b"])
    with pytest.raises(UsageError, match=r"expected \(images, 3\)"):
        evaluation(np.zeros((2, 2)), [0, 1], ["a", "b", "c"])
    with pytest.raises(UsageError, match="2 labels and 3 rows"):
        evaluation(np.zeros((3, 2)), [0, 1], ["a", "b"])
    with pytest.raises(PellucidError, match=r"2 of 3 images are not numbers .* lower --lr") as caught:
        evaluation([[math.nan, 0.0], [0.0, math.nan], [0.0, 1.0]], [0, 0, 0], ["a", "b"])
    assert caught.value.exit_code == 1


def test_infinite_logits_leave_the_loss_undefined() -> None:
    result = evaluation([[math.inf, 0.0], [0.0, 1.0]], [0, 1], ["a", "b"])
    assert (result["accuracy"], result["loss"], result["auc"]) == (1.0, None, None)
    result = evaluation([[-math.inf, 0.0], [0.0, 1.0]], [0, 1], ["a", "b"])
    assert (result["accuracy"], result["loss"], result["auc"]) == (0.5, None, 0.0)


# Two runs compared


@settings(max_examples=200, deadline=None)
@given(only_a=st.integers(0, 60), only_b=st.integers(0, 60), both=st.integers(0, 5))
def test_mcnemar_is_the_exact_binomial_test(only_a: int, only_b: int, both: int) -> None:
    a = np.array([True] * only_a + [False] * only_b + [True] * both, dtype=bool)
    b = np.array([False] * only_a + [True] * only_b + [True] * both, dtype=bool)
    differ = only_a + only_b
    expected = binomtest(only_a, differ).pvalue if differ else 1.0
    assert mcnemar(a, b) == pytest.approx(expected, rel=1e-11)
    tail = Fraction(sum(math.comb(differ, k) for k in range(min(only_a, only_b) + 1)), 2**differ)
    assert mcnemar(b, a) == pytest.approx(float(min(Fraction(1), 2 * tail)), rel=1e-11)


def test_two_runs_of_different_images_are_refused() -> None:
    for compared in (mcnemar, paired_difference):
        with pytest.raises(UsageError, match="expected one for each image from both runs"):
            compared([True, False], [True])
    with pytest.raises(DataError, match="no images to compare two runs on"):
        paired_difference([], [])


def pair(both: int, only_a: int, only_b: int, neither: int) -> tuple[list[bool], list[bool]]:
    """Answers of two runs, from counts."""
    a = [True] * (both + only_a) + [False] * (only_b + neither)
    b = [True] * both + [False] * only_a + [True] * only_b + [False] * neither
    return a, b


@pytest.mark.parametrize("table", [(14, 5, 0, 22), (36, 12, 2, 0), (20, 12, 2, 16), (0, 3, 4, 1), (90, 4, 20, 30)])
def test_the_interval_of_a_difference_is_newcombe_s_of_scipy_s_wilson(table: tuple[int, int, int, int]) -> None:
    """Method 10 of Newcombe 1998, written out here from scipy's intervals of the two shares and Pearson's φ."""
    both, only_a, only_b, neither = table
    a, b = pair(*table)
    n = sum(table)
    ends = [binomtest(sum(answers), n).proportion_ci(method="wilson") for answers in (a, b)]
    share_a, share_b = sum(a) / n, sum(b) / n
    phi = np.nan_to_num(np.corrcoef(a, b)[0, 1]) if 0 < sum(a) < n and 0 < sum(b) < n else 0.0
    if phi > 0:
        phi *= max(both * neither - only_a * only_b - n / 2, 0) / (both * neither - only_a * only_b)
    below, above = (
        np.array([share_b - ends[1].low, ends[1].high - share_b]),
        np.array([ends[0].high - share_a, share_a - ends[0].low]),
    )
    reach = np.sqrt(below**2 - 2 * phi * below * above + above**2)
    expected = (share_b - share_a, share_b - share_a - reach[0], share_b - share_a + reach[1])
    assert paired_difference(a, b) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@settings(max_examples=200, deadline=None)
@given(table=st.tuples(*[st.integers(0, 40)] * 4).filter(any))
def test_a_difference_turns_round_with_the_runs(table: tuple[int, int, int, int]) -> None:
    a, b = pair(*table)
    difference, low, high = paired_difference(a, b)
    assert difference == pytest.approx(np.mean(b) - np.mean(a), abs=1e-12)
    assert -1 <= low <= difference <= high <= 1
    assert paired_difference(b, a) == pytest.approx((-difference, -high, -low), abs=1e-12)


def test_how_often_the_interval_of_a_difference_holds_the_truth() -> None:
    random = np.random.default_rng(1)
    chances = [0.8, 0.07, 0.03, 0.1]  # the truth: B is worse by 0.04
    inside = 0
    for table in random.multinomial(200, chances, size=1000):
        _, low, high = paired_difference(*pair(*table.tolist()))
        inside += low <= -0.04 <= high
    assert 0.925 <= inside / 1000 <= 0.985


def test_the_spread_over_seeds_is_scipy_s() -> None:
    values = [0.91, 0.93, 0.9, 0.95]
    found = spread(values)
    assert found["n"] == 4
    assert found["mean"] == pytest.approx(np.mean(values))
    assert found["sd"] == pytest.approx(np.std(values, ddof=1))
    expected = student.interval(0.95, 3, np.mean(values), sem(values))
    assert (found["low"], found["high"]) == pytest.approx(expected, rel=1e-9)
    with pytest.raises(UsageError, match="a spread is of at least two"):
        spread([0.9])
