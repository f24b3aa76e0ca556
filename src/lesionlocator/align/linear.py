"""Rigid and affine alignment of two views, by mutual information from coarse to fine (SimpleITK)."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk
from jaxtyping import Float
from scipy import ndimage

from lesionlocator.align.view import View
from lesionlocator.geometry import AffineMap

_SAMPLES = 60_000
"""Places looked at per step: enough for twelve numbers."""
_SEED = 1
_BLUR = 0.7
"""In voxels. Without it mutual information likes shifts by half a voxel, where interpolation averages noise away."""


def rigid(baseline: View, followup: View, start: AffineMap, factors: tuple[int, ...]) -> AffineMap:
    """The rotation and shift that brings both views together, from a start that is right to some centimetres.

    `factors` are the coarsenings to work on, coarsest first. Mutual information after Mattes et al., IEEE Trans. Med.
    Imaging 2003, doi 10.1109/TMI.2003.809072. Raises RuntimeError when the views stop overlapping.
    """
    transform = sitk.Euler3DTransform()
    _place(transform, baseline, start, orthogonal=True)
    for factor in factors:
        _improve(transform, baseline.coarser(factor), followup.coarser(factor))
    return _to_map(transform)


def affine(baseline: View, followup: View, start: AffineMap) -> AffineMap:
    """As `rigid`, with stretch and shear, from a rigid start."""
    transform = sitk.AffineTransform(3)
    _place(transform, baseline, start, orthogonal=False)
    for factor in (2, 1):
        _improve(transform, baseline.coarser(factor), followup.coarser(factor))
    return _to_map(transform)


def stretch(point_map: AffineMap) -> float:
    """The largest factor by which any direction is stretched or squeezed, 1 or more."""
    factors = np.linalg.svd(point_map.matrix[:3, :3], compute_uv=False)
    return float(max(factors.max(), 1 / max(factors.min(), 1e-6)))


def _improve(transform: sitk.Transform, baseline: View, followup: View) -> None:
    method = sitk.ImageRegistrationMethod()
    # One thread: sums of floats depend on how many take part, and a repeated run has to give the same bits.
    method.SetNumberOfThreads(1)
    method.SetMetricAsMattesMutualInformation(32)
    method.SetMetricFixedMask(_image(baseline.body.astype(np.uint8), baseline))
    method.SetMetricMovingMask(_image(followup.seen.astype(np.uint8), followup))
    share = min(1.0, _SAMPLES / max(1, int(baseline.body.sum())))
    if share < 1:
        method.SetMetricSamplingStrategy(method.REGULAR)
        method.SetMetricSamplingPercentage(share, _SEED)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=baseline.spacing_mm,
        minStep=baseline.spacing_mm / 200,
        numberOfIterations=80,
        relaxationFactor=0.6,
        gradientMagnitudeTolerance=1e-6,
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetInitialTransform(transform, inPlace=True)
    method.Execute(*(_image(ndimage.gaussian_filter(view.array, _BLUR), view) for view in (baseline, followup)))


def _image(array: Float[np.ndarray, "d h w"] | np.ndarray, view: View) -> sitk.Image:
    image = sitk.GetImageFromArray(array)
    image.SetOrigin(view.geometry.affine[:3, 3].tolist())
    image.SetSpacing([view.spacing_mm] * 3)
    return image


def _place(
    transform: sitk.Euler3DTransform | sitk.AffineTransform, baseline: View, start: AffineMap, *, orthogonal: bool
) -> None:
    centre = baseline.centre_mm
    matrix = start.matrix[:3, :3]
    if orthogonal:
        left, _, right = np.linalg.svd(matrix)
        matrix = left @ right
    transform.SetCenter(centre.tolist())
    transform.SetMatrix(matrix.ravel().tolist())
    transform.SetTranslation((start(centre[None])[0] - centre).tolist())


def _to_map(transform: sitk.Euler3DTransform | sitk.AffineTransform) -> AffineMap:
    matrix = np.eye(4)
    matrix[:3, :3] = np.reshape(transform.GetMatrix(), (3, 3))
    matrix[:3, 3] = np.array(transform.TransformPoint((0.0, 0.0, 0.0)))
    return AffineMap(matrix)
