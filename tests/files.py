"""Made-up visits as files, the way a user has them."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np

from lesionlocator.geometry import Geometry
from lesionlocator.volume import Volume
from visits import Ball, ball_mask, grid, scan

LEFT, RIGHT, LOW = Ball(-30, 0, 10, 9), Ball(28, -5, 0, 8), Ball(0, -20, -40, 8)


def ras_affine(geometry: Geometry) -> np.ndarray:
    """The NIfTI affine of a grid of ours: (i, j, k) to RAS."""
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ geometry.affine[:, [2, 1, 0, 3]]


def save_nifti(path: Path, array: np.ndarray, geometry: Geometry) -> Path:
    """An array (d, h, w) as NIfTI, written by nibabel and not by us."""
    nib.save(nib.Nifti1Image(array.T, ras_affine(geometry)), path)
    return path


def save_scan(path: Path, balls: list[Ball], seed: int, geometry: Geometry | None = None) -> Path:
    volume: Volume = scan(balls, geometry or grid(), seed)
    return save_nifti(path, np.asarray(volume.array), volume.geometry)


def save_labels(path: Path, balls: dict[int, Ball], geometry: Geometry | None = None) -> Path:
    geometry = geometry or grid()
    labels = np.zeros(geometry.shape, np.uint8)
    for label, ball in balls.items():
        labels[ball_mask(ball, geometry).on(geometry)] = label
    return save_nifti(path, labels, geometry)


def box_of(ball: Ball) -> dict[str, list[float]]:
    centre = np.array([ball.x, ball.y, ball.z], float)
    return {"min": (centre - ball.radius).tolist(), "max": (centre + ball.radius).tolist()}


def save_prompts(path: Path, lesions: list[dict], **changes) -> Path:
    content = {"version": 1, "space": "world", "frame": "LPS", "lesions": lesions, **changes}
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
    return path
