"""How good a recogniser is: accuracy with its interval, per-class figures, ROC-AUC, and two runs compared.

A figure that is not defined (the recall of a class without images, a ROC-AUC with one class only) is None, never NaN
and never a silent 0, so that it goes to JSON as null and is left out of means.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np

from pellucid.errors import DataError, PellucidError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray


def wilson(correct: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """The interval in which the true accuracy lies when `correct` of `n` images were right.

    Unlike the textbook's p ± 1.96·√(p(1−p)/n), it holds for few images and for accuracies near 0 and 1 (E. B. Wilson,
    "Probable inference, the law of succession, and statistical inference", 1927; no continuity correction).

    Raises UsageError unless 0 ≤ correct ≤ n, 1 ≤ n and 0 < confidence < 1.
    """
    if not (0 <= correct <= n and n > 0):
        raise UsageError(f"{correct} right of {n} images: expected at least one image, and as many right at most")
    if not 0 < confidence < 1:
        raise UsageError(f"confidence {confidence:g}: expected a number between 0 and 1, such as 0.95")
    return _wilson(correct / n, n, confidence)


def confusion(labels: ArrayLike, predictions: ArrayLike, classes: int) -> NDArray[np.int64]:
    """How often each class was taken for each: int64 (classes, classes), a row for each true class.

    `labels` and `predictions` are (N,) whole numbers from 0 up to but not including `classes`. Raises UsageError
    otherwise.
    """
    truth = _indices("labels", labels, classes)
    guess = _indices("predictions", predictions, classes)
    if truth.size != guess.size:
        raise UsageError(f"{truth.size} labels and {guess.size} predictions: expected one prediction for each label")
    counts = np.bincount(truth * classes + guess, minlength=classes * classes)
    return counts.reshape(classes, classes).astype(np.int64)


def per_class(counts: NDArray[np.int64]) -> list[dict[str, float | int | None]]:
    """Precision, recall, F1 and support (number of images) of each class, in order, from a confusion matrix.

    And recall_low and recall_high, the 95 % interval (`wilson`) of the recall, which is an accuracy like any other.
    Precision (the share of its predictions that were right) is None for a class never predicted, recall (the share of
    its images that were found) for a class without images, and F1 = 2·TP / (2·TP + FP + FN) for a class with neither.
    """
    right = np.diag(counts)
    predicted = counts.sum(axis=0)
    support = counts.sum(axis=1)
    return [
        {
            "precision": _share(int(r), int(p)),
            "recall": _share(int(r), int(s)),
            "f1": _share(2 * int(r), int(p) + int(s)),
            "support": int(s),
            **dict(zip(("recall_low", "recall_high"), wilson(int(r), int(s)) if s else (None, None), strict=True)),
        }
        for r, p, s in zip(right, predicted, support, strict=True)
    ]


def balanced_accuracy(counts: NDArray[np.int64]) -> float | None:
    """The mean recall over the classes that have images, so that a large class counts no more than a small one.

    None where no class has any.
    """
    support = counts.sum(axis=1)
    present = support > 0
    if not present.any():
        return None
    return float(np.mean(np.diag(counts)[present] / support[present]))


def balanced_interval(counts: NDArray[np.int64]) -> tuple[float, float] | tuple[None, None]:
    """The 95 % interval of the balanced accuracy; None twice where no class has images.

    A mean over classes is an estimate from a stratified sample, and its interval is Wilson's for as many images as
    would give one share of all the same variance (C. Franco, R. J. A. Little, T. A. Louis and E. V. Slud, "Comparative
    study of confidence intervals for proportions in complex sample surveys", 2019). The variance of each recall is that
    of (right + 1/2) / (images + 1), since a class found without a mistake is not known to have none. With one class it
    is that class's interval.
    """
    support = counts.sum(axis=1)
    n = support[support > 0].astype(np.float64)
    if not n.size:
        return None, None
    right = np.diag(counts)[support > 0]
    mean, likely = float((right / n).mean()), (right + 0.5) / (n + 1)
    variance = float((likely * (1 - likely) / n).sum()) / n.size**2
    middle = float(likely.mean())
    return _wilson(mean, max(mean * (1 - mean), middle * (1 - middle)) / variance, 0.95)


def auc(labels: ArrayLike, probabilities: ArrayLike) -> float | None:
    """Area under the ROC curve: how surely the probability of a class ranks its images above the others.

    It is the chance that an image of the class gets a higher probability for it than one of another class, where ties
    count half. `labels` is (N,), `probabilities` (N, classes). With two classes this is the usual figure of the second
    one; with more, the mean over the classes that some but not all images belong to (one against the rest, macro). None
    where there is no such class, or a probability is not a finite number.
    """
    scores = np.asarray(probabilities, dtype=np.float64)
    if scores.ndim != 2:
        raise UsageError(f"probabilities of shape {scores.shape}: expected (images, classes)")
    classes = scores.shape[1]
    truth = _indices("labels", labels, classes)
    if truth.size != len(scores):
        raise UsageError(f"{truth.size} labels and {len(scores)} rows of probabilities: expected one row a label")
    if not np.isfinite(scores).all():
        return None
    areas = [_area(scores[:, c], truth == c) for c in ([1] if classes == 2 else range(classes))]
    defined = [area for area in areas if area is not None]
    return sum(defined) / len(defined) if defined else None


def softmax(logits: ArrayLike) -> NDArray[np.float64]:
    """Probabilities from logits (N, classes), in float64 and without overflow: exp(x − max x), divided by its sum."""
    shifted = _shifted(logits)
    powers = np.exp(shifted)
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def cross_entropy(logits: ArrayLike, labels: ArrayLike) -> float:
    """The mean over the images of −log(probability of the true class), in float64, from logits (N, classes).

    Raises DataError where there are no images.
    """
    shifted = _shifted(logits)
    truth = _indices("labels", labels, shifted.shape[1])
    _check_rows(truth, shifted)
    log_sum = np.log(np.exp(shifted).sum(axis=1))
    return float(np.mean(log_sum - shifted[np.arange(truth.size), truth]))


def evaluation(logits: ArrayLike, labels: ArrayLike, classes: Sequence[str]) -> dict[str, Any]:
    """Every figure of an evaluation as plain JSON values, from logits (N, classes) and labels (N,).

    The keys: n, loss (cross-entropy), accuracy, accuracy_low and accuracy_high (its 95 % interval, `wilson`), baseline
    (the accuracy of always naming the commonest of these labels), balanced_accuracy, balanced_accuracy_low and
    balanced_accuracy_high (`balanced_interval`), auc, per_class (for each class: class, precision, recall, f1, support,
    recall_low, recall_high) and confusion (rows: true classes). None stands for what is not defined.

    Raises DataError where there are no images, and PellucidError for logits that are not numbers.
    """
    outputs = np.asarray(logits, dtype=np.float64)
    if outputs.ndim != 2 or outputs.shape[1] != len(classes):
        raise UsageError(f"logits of shape {outputs.shape}: expected (images, {len(classes)}), a column for each class")
    truth = _indices("labels", labels, len(classes))
    _check_rows(truth, outputs)
    broken = int(np.isnan(outputs).any(axis=1).sum())
    if broken:
        raise PellucidError(
            f"the network's outputs for {broken} of {truth.size} images are not numbers (NaN): the training diverged; "
            "train again with a lower --lr"
        )
    counts = confusion(truth, outputs.argmax(axis=1), len(classes))
    right = int(np.trace(counts))
    low, high = wilson(right, truth.size)
    balanced_low, balanced_high = balanced_interval(counts)
    probabilities = softmax(outputs)
    return {
        "n": int(truth.size),
        "loss": _finite(cross_entropy(outputs, truth)),
        "accuracy": right / truth.size,
        "accuracy_low": low,
        "accuracy_high": high,
        "baseline": int(np.bincount(truth).max()) / truth.size,
        "balanced_accuracy": balanced_accuracy(counts),
        "balanced_accuracy_low": balanced_low,
        "balanced_accuracy_high": balanced_high,
        "auc": auc(truth, probabilities),
        "per_class": [{"class": name, **row} for name, row in zip(classes, per_class(counts), strict=True)],
        "confusion": counts.tolist(),
    }


def mcnemar(correct_a: ArrayLike, correct_b: ArrayLike) -> float:
    """How often chance alone would make two equally good recognisers differ this much on the same images: p-value.

    `correct_a` and `correct_b` are (N,) booleans, whether each was right on each image. Only the images on which they
    differ count; under the null hypothesis each is a fair coin (Q. McNemar 1947; the exact two-sided binomial test). 1
    where they differ nowhere.
    """
    from scipy.special import bdtr  # noqa: PLC0415  (loads slowly, and few commands compare runs)

    a, b = _answers(correct_a, correct_b)
    only_a, only_b = int((a & ~b).sum()), int((~a & b).sum())
    if only_a == only_b:
        return 1.0
    return min(1.0, 2 * float(bdtr(min(only_a, only_b), only_a + only_b, 0.5)))


def paired_difference(correct_a: ArrayLike, correct_b: ArrayLike) -> tuple[float, float, float]:
    """How much more accurate B is than A on the same images, with its 95 % interval: difference, low, high.

    `correct_a` and `correct_b` are as for `mcnemar`. The interval is made of those of the two accuracies (`wilson`) and
    of how far the runs are right on the same images (R. G. Newcombe, "Improved confidence intervals for the difference
    between binomial proportions based on paired data", 1998, method 10). Near p = 0.05 it may hold 0 where the test
    says otherwise, or leave it out: they are two approximations of one question.
    """
    a, b = _answers(correct_a, correct_b)
    if not a.size:
        raise DataError("no images to compare two runs on: name a folder or a split that has some")
    both, neither = int((a & b).sum()), int((~a & ~b).sum())
    only_a, only_b = int((a & ~b).sum()), int((~a & b).sum())
    (low_a, high_a), (low_b, high_b) = wilson(int(a.sum()), a.size), wilson(int(b.sum()), a.size)
    share_a, share_b = float(a.mean()), float(b.mean())
    together = float(both * neither - only_a * only_b)
    if together > 0:
        together = max(0.0, together - a.size / 2)
    norm = math.sqrt(float(a.sum() * (~a).sum()) * float(b.sum() * (~b).sum()))
    phi = together / norm if norm else 0.0
    difference = (only_b - only_a) / a.size
    return (
        difference,
        difference - _hypotenuse(share_b - low_b, high_a - share_a, phi),
        difference + _hypotenuse(high_b - share_b, share_a - low_a, phi),
    )


def spread(values: Sequence[float]) -> dict[str, float | int]:
    """Mean and standard deviation of a figure over runs that differ in their seeds alone.

    The keys: n; mean; sd (with n − 1 in the divisor); low and high, the 95 % interval of the mean (Student 1908).

    Raises UsageError for fewer than two values.
    """
    from scipy.special import stdtrit  # noqa: PLC0415  (as in mcnemar)

    numbers = np.asarray(values, dtype=np.float64)
    if numbers.size < 2:
        raise UsageError(f"{numbers.size} values: a spread is of at least two")
    mean, sd = float(numbers.mean()), float(numbers.std(ddof=1))
    half = float(stdtrit(numbers.size - 1, 0.975)) * sd / math.sqrt(numbers.size)
    return {"n": int(numbers.size), "mean": mean, "sd": sd, "low": mean - half, "high": mean + half}


def _wilson(share: float, n: float, confidence: float) -> tuple[float, float]:
    """Wilson's interval for a share of n images, which need not be a whole number."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    middle = share + z * z / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    # At the ends the formula gives 0 and 1 but for rounding, and an accuracy below 0 would look like a defect.
    return 0.0 if share <= 0 else (middle - half) / scale, 1.0 if share >= 1 else (middle + half) / scale


def _answers(correct_a: ArrayLike, correct_b: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    a, b = np.asarray(correct_a, dtype=bool), np.asarray(correct_b, dtype=bool)
    if a.shape != b.shape or a.ndim != 1:
        raise UsageError(f"answers of shapes {a.shape} and {b.shape}: expected one for each image from both runs")
    return a, b


def _hypotenuse(one: float, other: float, phi: float) -> float:
    """Of a triangle with these sides and this cosine between them; rounding must not put a −0 under the root."""
    return math.sqrt(max(0.0, one * one - 2 * phi * one * other + other * other))


def _area(scores: NDArray[np.float64], belongs: NDArray[np.bool_]) -> float | None:
    """Mann and Whitney's count of the pairs in which the image of the class scores higher, as a share of all pairs."""
    inside, outside = scores[belongs], np.sort(scores[~belongs])
    pairs = inside.size * outside.size
    if not pairs:
        return None
    lower = int(np.searchsorted(outside, inside, side="left").sum())
    lower_or_equal = int(np.searchsorted(outside, inside, side="right").sum())
    return (lower + lower_or_equal) / (2 * pairs)


def _shifted(logits: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(logits, dtype=np.float64)
    if values.ndim != 2 or not values.shape[1]:
        raise UsageError(f"logits of shape {values.shape}: expected (images, classes)")
    with np.errstate(invalid="ignore"):  # ∞ − ∞, of a network that diverged, is the NaN that says so
        return np.asarray(values - values.max(axis=1, keepdims=True))


def _indices(what: str, values: ArrayLike, classes: int) -> NDArray[np.int64]:
    array = np.asarray(values)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise UsageError(f"{what} of shape {array.shape} and type {array.dtype}: expected one whole number an image")
    if array.size and not (array.min() >= 0 and array.max() < classes):
        wrong = array.min() if array.min() < 0 else array.max()
        raise UsageError(f"{what}: {wrong} is no class: expected whole numbers from 0 to {classes - 1}")
    return array.astype(np.int64)


def _check_rows(truth: NDArray[np.int64], logits: NDArray[np.float64]) -> None:
    if truth.size != len(logits):
        raise UsageError(f"{truth.size} labels and {len(logits)} rows of logits: expected one row for each label")
    if not truth.size:
        raise DataError("no images to evaluate: name a folder or a split that has some")


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None
