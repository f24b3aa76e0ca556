"""Shapes of lesions as drawn values: lobed, spiculated, ringed, branched, in parts; the same on any grid.

A shape lives in its own unit space: the lesion lies roughly within the unit ball and never reaches beyond 1.6 radii,
and a grid that shows it only says where its voxels are in that space. All that was drawn is plain numbers (noise is
held as its seed), so a shape can be written to JSON and painted again.
"""

from __future__ import annotations

import base64
import zlib
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Float32, Int8
from scipy import ndimage

from lesionlocator.synth.lattice import Axis, along, spline_matrix

Axes = tuple[Axis, Axis, Axis]
Level = Float32[np.ndarray, "d h w"]
"""Negative inside, positive outside, in units of the lesion's radius: about the distance from the border."""
Three = tuple[float, float, float]

KINDS = (
    "lobed",
    "spiculated",
    "ring",
    "branch",
    "parts",
    "fragments",
    "cystic",
    "necrotic",
    "calcified",
)
READER = "reader"
"""The kind of a shape that somebody drew: not in `KINDS`, as it cannot be made up."""
_REACH = 2.0
_BOUND = 1.6
"""Nothing of a shape lies further out than so many radii."""
_OUTLINE_REACH, _OUTLINE_SIDE, _OUTLINE_STEP = 1.7, 19, 0.02
"""Of an outline that was drawn: how many radii its grid covers, its nodes along each axis, and radii to a step."""
_OUTLINE_ENDS = 1.45
_FLECK = np.float32(0.08)
"""Noise to distance: how fast a fleck's border falls off."""
_SPLINE_SD = 0.4795 ** (3 / 2)


@dataclass(frozen=True)
class Noise:
    """A smooth random field of unit standard deviation, `cells` waves to a radius."""

    seed: int
    cells: float

    def on(self, axes: Axes) -> Level:
        count = int(np.ceil(2 * _REACH * self.cells)) + 3
        draw = np.random.default_rng(self.seed).standard_normal((count, count, count), np.float32)
        matrices = [spline_matrix(1 + (np.clip(a, -_REACH, _REACH) + _REACH) * self.cells, count) for a in axes]
        return along(draw / np.float32(_SPLINE_SD), matrices)


@dataclass(frozen=True)
class Capsule:
    """A tube with round ends, thick `from_radius` at `start` and `to_radius` at `stop`; a ball when they coincide."""

    start: Three
    stop: Three
    from_radius: float
    to_radius: float

    def level(self, axes: Axes) -> Level:
        a, b, c = (float(q - p) for p, q in zip(self.start, self.stop, strict=True))
        z, y, x = _spread(axes, self.start)
        t = np.clip((z * a + y * b + x * c) * (1 / max(a * a + b * b + c * c, 1e-9)), 0, 1)
        away = np.sqrt((z - t * a) ** 2 + (y - t * b) ** 2 + (x - t * c) ** 2)
        return (away - (self.from_radius + t * (self.to_radius - self.from_radius))).astype(np.float32, copy=False)


@dataclass(frozen=True)
class Body:
    """A filled body: a turned, bent (super-)ellipsoid whose border waves."""

    radii: Three
    turn: tuple[Three, Three, Three]
    boxy: float
    bend: float
    lobes: float
    lobe_noise: Noise
    ripples: float
    ripple_noise: Noise
    spikes: tuple[Three, ...] = ()
    spike_length: float = 0.0
    spike_sharpness: float = 20.0

    def level(self, axes: Axes) -> Level:
        z, y, x = _spread(axes, (0.0, 0.0, 0.0))
        matrix = np.array(self.turn, np.float32) / np.array(self.radii, np.float32)[:, None]
        u, v, w = (matrix[i, 0] * z + matrix[i, 1] * y + matrix[i, 2] * x for i in range(3))
        if self.bend:
            u = u + np.float32(self.bend) * (w * w - 0.4)
        squares = (u * u, v * v, w * w)
        radius = np.sqrt(squares[0] + squares[1] + squares[2])
        level = radius
        if self.boxy:
            corner = np.sqrt(np.sqrt(squares[0] ** 2 + squares[1] ** 2 + squares[2] ** 2))
            level = radius + np.float32(self.boxy) * (corner - radius)
        level = level - 1 - np.float32(self.lobes) * self.lobe_noise.on(axes)
        if self.ripples:
            level -= np.float32(self.ripples) * self.ripple_noise.on(axes)
        if self.spikes:
            level -= self._spiked(u, v, w, radius)
        return (level * np.float32(np.mean(self.radii))).astype(np.float32, copy=False)

    def _spiked(self, u: Level, v: Level, w: Level, radius: Level) -> Level:
        away = np.stack([u.ravel(), v.ravel(), w.ravel()]) / np.maximum(radius.ravel(), 1e-3)
        towards = (np.array(self.spikes, np.float32) @ away).max(axis=0)
        # Beyond its length a spike ends, so that it tapers instead of running on.
        boost = np.float32(self.spike_length) * np.exp(np.float32(self.spike_sharpness) * (towards - 1))
        return boost.reshape(radius.shape).astype(np.float32)


@dataclass(frozen=True)
class Outline:
    """A lesion as somebody drew it: distances from its border on a small grid over its unit space, packed as text."""

    packed: str

    def level(self, axes: Axes) -> Level:
        inner = _OUTLINE_REACH * (1 - 2 / (_OUTLINE_SIDE - 1))
        d, h, w = (np.clip(a, -inner, inner) for a in axes)
        at = (d, h, w)
        matrices = [spline_matrix((a / _OUTLINE_REACH + 1) * (_OUTLINE_SIDE - 1) / 2, _OUTLINE_SIDE) for a in at]
        z, y, x = _spread((axes[0] - d, axes[1] - h, axes[2] - w), (0.0, 0.0, 0.0))
        return along(self._splines, matrices) + np.sqrt(z * z + y * y + x * x)

    def turned(self, rng: np.random.Generator) -> Outline:
        """Seen from another side: axes exchanged and mirrored."""
        grid = self._steps.transpose(rng.permutation(3))
        return Outline(_packed(np.flip(grid, tuple(axis for axis in range(3) if rng.random() < 0.5))))

    @cached_property
    def _steps(self) -> Int8[np.ndarray, "n n n"]:
        return np.frombuffer(zlib.decompress(base64.b64decode(self.packed)), np.int8).reshape((_OUTLINE_SIDE,) * 3)

    @cached_property
    def _splines(self) -> Level:
        return ndimage.spline_filter(self._steps * np.float32(_OUTLINE_STEP), 3, np.float32, "mirror")


def outline_of(array: Bool[np.ndarray, "d h w"], spacing_mm: Float[np.ndarray, "3"]) -> Outline:
    """The shape of a mask about its centroid, in units of the ball of its volume, or smaller where it is very long."""
    points_mm = np.argwhere(array) * spacing_mm
    middle_mm = points_mm.mean(axis=0)
    furthest_mm = float(np.linalg.norm(points_mm - middle_mm, axis=1).max() + spacing_mm.max() / 2)
    radius_mm = max(float(len(points_mm) * np.prod(spacing_mm) * 3 / 4 / np.pi) ** (1 / 3), furthest_mm / _OUTLINE_ENDS)
    # As far as the grid reaches on either side of the middle, and no further.
    before, reach = middle_mm / spacing_mm, _OUTLINE_REACH * radius_mm / spacing_mm
    after = np.array(array.shape) - 1 - before
    low, high = (np.ceil(np.maximum(reach - room, 0)).astype(int) + 1 for room in (before, after))
    inside = np.pad(array, list(zip(low.tolist(), high.tolist(), strict=True)))
    away = ndimage.distance_transform_edt(~inside, sampling=spacing_mm)
    deep = ndimage.distance_transform_edt(inside, sampling=spacing_mm)
    half = float(spacing_mm.min()) / 2
    nodes = np.linspace(-_OUTLINE_REACH, _OUTLINE_REACH, _OUTLINE_SIDE) * radius_mm
    at = [(nodes + m) / s + n for m, s, n in zip(middle_mm, spacing_mm, low, strict=True)]
    level_mm = np.where(inside, half - deep, away - half)
    level = ndimage.map_coordinates(level_mm, np.meshgrid(*at, indexing="ij"), order=1) / radius_mm
    return Outline(_packed(np.clip(np.rint(level / _OUTLINE_STEP), -127, 127).astype(np.int8)))


def _packed(steps: Int8[np.ndarray, "n n n"]) -> str:
    return base64.b64encode(zlib.compress(np.ascontiguousarray(steps).tobytes(), 9)).decode("ascii")


@dataclass(frozen=True)
class Shape:
    """What a lesion's outline looks like: a body or capsules, perhaps a core inside, perhaps broken into fragments.

    The core is what looks different inside: the middle below a wall, or flecks of calcium.
    """

    kind: str
    body: Body | None = None
    capsules: tuple[Capsule, ...] = ()
    roughness: float = 0.0
    rough_noise: Noise | None = None
    wall: float = 0.0
    wall_variation: float = 0.0
    wall_noise: Noise | None = None
    flecks: float = 0.0
    fleck_noise: Noise | None = None
    broken: float | None = None
    broken_noise: Noise | None = None
    outline: Outline | None = None

    @staticmethod
    def draw(rng: np.random.Generator, kind: str = "lobed") -> Shape:
        """A new shape of one of the `KINDS`."""
        return _DRAWERS[kind](rng, kind)

    def levels(self, axes: Axes) -> tuple[Level, Level | None]:
        """Level of the whole lesion and, when it has one, of its core (which lies within)."""
        whole = self.outline or self.body
        level = whole.level(axes) if whole is not None else None
        for capsule in self.capsules:
            part = capsule.level(axes)
            level = part if level is None else np.minimum(level, part, out=level)
        if level is None:
            raise ValueError("a shape needs an outline, a body or capsules")
        if self.rough_noise is not None:
            level = level - np.float32(self.roughness) * self.rough_noise.on(axes)
        z, y, x = _spread(axes, (0.0, 0.0, 0.0))
        level = np.maximum(level, np.sqrt(z * z + y * y + x * x) - np.float32(_BOUND))
        core = None
        if self.wall_noise is not None:
            depth = np.float32(self.wall) * np.exp(np.float32(self.wall_variation) * self.wall_noise.on(axes))
            core = level + depth
        if self.fleck_noise is not None:
            fleck = _FLECK * (np.float32(self.flecks) - self.fleck_noise.on(axes))
            core = np.maximum(level + np.float32(0.06), fleck)
        if self.broken is not None and self.broken_noise is not None:
            level = np.maximum(level, np.float32(0.25) * (np.float32(self.broken) - self.broken_noise.on(axes)))
        return level.astype(np.float32, copy=False), core


def occupancy(level: Level, voxels_per_radius: float) -> Level:
    """How much of each voxel is inside, from 0 to 1, the border taken as flat within a voxel."""
    return np.clip(np.float32(0.5) - level * np.float32(voxels_per_radius), 0, 1).astype(np.float32, copy=False)


def _spread(
    axes: Axes, origin: Three
) -> tuple[Float32[np.ndarray, "d 1 1"], Float32[np.ndarray, "1 h 1"], Float32[np.ndarray, "1 1 w"]]:
    z, y, x = (np.asarray(a - o, np.float32) for a, o in zip(axes, origin, strict=True))
    return z[:, None, None], y[None, :, None], x[None, None, :]


def draw_rotation(rng: np.random.Generator) -> tuple[Three, Three, Three]:
    """Any rotation, all equally likely (from a random unit quaternion)."""
    a, b, c, d = (q := rng.standard_normal(4)) / np.linalg.norm(q)
    return (
        (a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)),
        (2 * (b * c + a * d), a * a - b * b + c * c - d * d, 2 * (c * d - a * b)),
        (2 * (b * d - a * c), 2 * (c * d + a * b), a * a - b * b - c * c + d * d),
    )


def _noise(rng: np.random.Generator, low: float, high: float) -> Noise:
    return Noise(int(rng.integers(2**31)), float(rng.uniform(low, high)))


def _body(rng: np.random.Generator, lobes: float, ripples: float) -> Body:
    radii = np.sort(rng.uniform(0.5, 1.0, 3))
    radii = rng.permutation(radii / radii.max())
    return Body(
        radii=(float(radii[0]), float(radii[1]), float(radii[2])),
        turn=draw_rotation(rng),
        boxy=float(rng.choice([0.0, 0.0, rng.uniform(0.2, 1.0)])),
        bend=float(rng.choice([0.0, rng.normal(0, 0.5)])),
        lobes=float(lobes * rng.uniform(0.2, 1.0)),
        lobe_noise=_noise(rng, 0.7, 1.6),
        ripples=float(ripples * rng.uniform(0.0, 1.0)),
        ripple_noise=_noise(rng, 2.0, 4.5),
    )


def _lobed(rng: np.random.Generator, kind: str) -> Shape:
    return Shape(kind, _body(rng, 0.3, 0.08))


def _spiculated(rng: np.random.Generator, kind: str) -> Shape:
    body = _body(rng, 0.2, 0.08)
    directions = rng.standard_normal((int(rng.integers(6, 20)), 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    spikes: tuple[Three, ...] = tuple((float(d[0]), float(d[1]), float(d[2])) for d in directions)
    smaller: Three = (body.radii[0] * 0.75, body.radii[1] * 0.75, body.radii[2] * 0.75)
    length, sharpness = float(rng.uniform(0.4, 1.0)), float(rng.uniform(15, 60))
    spiked = replace(body, radii=smaller, spikes=spikes, spike_length=length, spike_sharpness=sharpness)
    return Shape(kind, spiked)


def _ring(rng: np.random.Generator, kind: str) -> Shape:
    broken = rng.random() < 0.3
    return Shape(
        kind,
        _body(rng, 0.4, 0.15),
        wall=float(np.exp(rng.uniform(np.log(0.08), np.log(0.3)))),
        wall_variation=float(rng.uniform(0.1, 0.6)),
        wall_noise=_noise(rng, 0.8, 2.0),
        broken=float(rng.uniform(-1.3, -0.6)) if broken else None,
        broken_noise=_noise(rng, 0.8, 1.8) if broken else None,
    )


def _hollow(rng: np.random.Generator, kind: str) -> Shape:
    """A filled body with a core of its own look: cystic (thin wall) or necrotic (thick, ragged wall)."""
    thin = kind == "cystic"
    return Shape(
        kind,
        _body(rng, 0.2 if thin else 0.3, 0.03 if thin else 0.08),
        wall=float(rng.uniform(0.06, 0.2) if thin else rng.uniform(0.2, 0.5)),
        wall_variation=float(rng.uniform(0.0, 0.2) if thin else rng.uniform(0.3, 0.8)),
        wall_noise=_noise(rng, 0.8, 2.5),
    )


def _calcified(rng: np.random.Generator, kind: str) -> Shape:
    """A body with flecks of calcium, few or many, as its core."""
    return Shape(kind, _body(rng, 0.3, 0.08), flecks=float(rng.uniform(0.9, 1.7)), fleck_noise=_noise(rng, 2.5, 5.0))


def _branch(rng: np.random.Generator, kind: str) -> Shape:
    thick = float(rng.uniform(0.1, 0.25))
    points = [np.zeros(3)]
    capsules: list[Capsule] = []
    for _ in range(int(rng.integers(3, 8))):
        start = points[int(rng.integers(len(points)))]
        step = rng.standard_normal(3)
        stop = start + step / np.linalg.norm(step) * rng.uniform(0.4, 0.9)
        stop /= max(1.0, float(np.linalg.norm(stop)))
        points.append(stop)
        radii = thick * rng.uniform(0.5, 1.2, 2)
        capsules.append(Capsule(_three(start), _three(stop), float(radii[0]), float(radii[1])))
    return Shape(kind, None, tuple(capsules), float(rng.uniform(0.0, 0.06)), _noise(rng, 1.5, 3.0))


def _parts(rng: np.random.Generator, kind: str) -> Shape:
    capsules: list[Capsule] = []
    for _ in range(int(rng.integers(2, 10))):
        centre = rng.standard_normal(3)
        centre *= rng.random() ** (1 / 3) * 0.85 / np.linalg.norm(centre)
        away = centre + rng.normal(0, 0.15, 3)
        radius = float(rng.uniform(0.12, 0.38))
        capsules.append(Capsule(_three(centre), _three(away), radius, radius * float(rng.uniform(0.6, 1.2))))
    return Shape(kind, None, tuple(capsules), float(rng.uniform(0.02, 0.1)), _noise(rng, 1.0, 3.0))


def _fragments(rng: np.random.Generator, kind: str) -> Shape:
    broken, noise = float(rng.uniform(-0.4, 0.6)), _noise(rng, 1.5, 3.5)
    return Shape(kind, _body(rng, 0.3, 0.1), broken=broken, broken_noise=noise)


def _three(values: np.ndarray) -> Three:
    return float(values[0]), float(values[1]), float(values[2])


_DRAWERS = {
    "lobed": _lobed,
    "spiculated": _spiculated,
    "ring": _ring,
    "branch": _branch,
    "parts": _parts,
    "fragments": _fragments,
    "cystic": _hollow,
    "necrotic": _hollow,
    "calcified": _calcified,
}
