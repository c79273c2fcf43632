"""Filters that whiten the patches of given images: their numbers are uncorrelated and have variance 1."""

from __future__ import annotations

import torch

#: What is added to each direction's variance, as a share of the mean of all, so that a direction in which the patches
#: hardly differ is not blown up to noise.
FLOOR = 5e-4


def whitening(x_nchw: torch.Tensor, kernel: int, directions: int) -> torch.Tensor:
    """The filters (O, C, K, K) of the `directions` in which the K×K patches of some images (N, C, H, W) differ most.

    They are the eigenvectors of the patches' covariance, the largest eigenvalue first, each divided by the root of its
    eigenvalue plus a floor (Kessy et al., "Optimal whitening and decorrelation", 2018: PCA whitening). float32, on the
    processor. The sign of an eigenvector is free: here its sum of cubes is not negative.
    """
    patches_pd = x_nchw.detach().cpu().double()
    # Every patch half a patch further: those between are much like them.
    for axis in (2, 3):
        patches_pd = patches_pd.unfold(axis, kernel, max(1, kernel // 2))
    patches_pd = patches_pd.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(0, 2)
    patches_pd = patches_pd - patches_pd.mean(0)
    covariance_dd = patches_pd.T @ patches_pd / len(patches_pd)
    variance_d, vectors_dd = torch.linalg.eigh(covariance_dd)
    variance_o, vectors_od = variance_d.flip(0)[:directions], vectors_dd.T.flip(0)[:directions]
    floor = max(FLOOR * float(variance_d.mean()), torch.finfo(torch.float32).tiny)
    vectors_od = vectors_od * torch.where((vectors_od**3).sum(1, keepdim=True) < 0, -1.0, 1.0)
    filters_od: torch.Tensor = vectors_od / (variance_o.clamp(min=0) + floor).sqrt().unsqueeze(1)
    return filters_od.float().reshape(-1, x_nchw.shape[1], kernel, kernel)
