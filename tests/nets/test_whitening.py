"""Patch whitening against scikit-learn's PCA."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.decomposition import PCA

from pellucid.nets.whitening import FLOOR, whitening


def images(channels: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    x_nchw = torch.randn(50, channels, 13, 13, generator=generator)
    return torch.nn.functional.avg_pool2d(x_nchw, 3, 1) * 2 + 5


def patches(x_nchw: torch.Tensor, kernel: int, step: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Each patch as a row, cut out one by one."""
    rows = [
        x_chw[:, i : i + kernel, j : j + kernel].flatten()
        for x_chw in x_nchw
        for i in range(0, x_nchw.shape[2] - kernel + 1, step)
        for j in range(0, x_nchw.shape[3] - kernel + 1, step)
    ]
    return torch.stack(rows).double().numpy()


def test_equals_the_principal_components_of_scikit_learn() -> None:
    x_nchw = images()
    rows_pd = patches(x_nchw, 4, 2)
    pca = PCA().fit(rows_pd)
    # scikit-learn divides by one patch fewer.
    variance_d = pca.explained_variance_ * (len(rows_pd) - 1) / len(rows_pd)
    found_od = whitening(x_nchw, 4, 6).flatten(1).numpy()
    expected_od = pca.components_[:6] / np.sqrt(variance_d[:6, None] + FLOOR * variance_d.mean())
    signs_o1 = np.sign((found_od * expected_od).sum(1, keepdims=True))
    np.testing.assert_allclose(found_od, expected_od * signs_o1, rtol=1e-4, atol=1e-5)
    assert ((found_od**3).sum(1) >= 0).all()


def test_the_sign_does_not_depend_on_the_images_order() -> None:
    x_nchw = images()
    torch.testing.assert_close(whitening(x_nchw.flip(0), 2, 8), whitening(x_nchw, 2, 8))


def test_a_direction_without_any_spread_is_not_blown_up() -> None:
    x_nchw = images(1).repeat(1, 2, 1, 1)
    filters_od = whitening(x_nchw, 2, 8).flatten(1)
    variance = float(patches(x_nchw, 2, 1).var(0).mean())
    # The two channels are equal, so half of the directions have none; the floor alone is under the root.
    assert filters_od.isfinite().all()
    np.testing.assert_allclose(filters_od[4:].norm(dim=1).numpy(), 1 / np.sqrt(FLOOR * variance), rtol=1e-3)


def test_images_without_any_spread_give_finite_filters() -> None:
    assert whitening(torch.ones(3, 1, 8, 8), 2, 4).isfinite().all()
