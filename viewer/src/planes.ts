// Where a picture's pixels are in the patient: three planes along the scan's own grid, in radiological order.

import type { PlaneName, ScanView, Vec3 } from "./types.ts";

/** One way of looking at a scan. Pixels (u to the right, v down) are voxels of two array axes, flipped where needed. */
export interface Plane {
  name: PlaneName;
  fixed: number;
  u: number;
  v: number;
  flipU: boolean;
  flipV: boolean;
  /** Screen direction follows growing (+1) or falling (-1) position along `fixed` when one pages forward. */
  width: number;
  height: number;
  pixelU: number;
  pixelV: number;
  depth: number;
  /** Letters at the left, right, top and bottom edge. */
  letters: [string, string, string, string];
}

const PERMUTATIONS: Vec3[] = [
  [0, 1, 2],
  [0, 2, 1],
  [1, 0, 2],
  [1, 2, 0],
  [2, 0, 1],
  [2, 1, 0],
];

/** A scan's grid: array indices (d, h, w) to LPS millimetres and back. */
export class Grid {
  readonly shape: Vec3;
  readonly spacing: Vec3;
  readonly planes: Record<PlaneName, Plane>;
  private readonly to: number[][];
  private readonly back: number[][];

  constructor(scan: ScanView) {
    this.shape = scan.shape_dhw;
    this.spacing = scan.spacing_mm;
    this.to = scan.affine_dhw_to_lps;
    this.back = inverse3(this.to);
    this.planes = this.findPlanes();
  }

  toWorld([d, h, w]: Vec3): Vec3 {
    return this.to.slice(0, 3).map((row) => row[0]! * d + row[1]! * h + row[2]! * w + row[3]!) as Vec3;
  }

  toIndex(at: Vec3): Vec3 {
    const moved = at.map((value, r) => value - this.to[r]![3]!);
    return this.back.map((row) => row[0]! * moved[0]! + row[1]! * moved[1]! + row[2]! * moved[2]!) as Vec3;
  }

  /** The voxel at a place, or the nearest one of the scan. */
  toVoxel(at: Vec3): Vec3 {
    return this.toIndex(at).map((value, k) => clamp(Math.round(value), 0, this.shape[k]! - 1)) as Vec3;
  }

  contains(at: Vec3): boolean {
    return this.toIndex(at).every((value, k) => value > -0.5 && value < this.shape[k]! - 0.5);
  }

  centre(): Vec3 {
    return this.toWorld(this.shape.map((n) => Math.floor(n / 2)) as Vec3);
  }

  private findPlanes(): Record<PlaneName, Plane> {
    const along = (world: number, axis: number): number => this.to[world]![axis]! / this.spacing[axis]!;
    const score = (order: Vec3): number => order.reduce((sum, axis, world) => sum + Math.abs(along(world, axis)), 0);
    const [x, y, z] = PERMUTATIONS.reduce((best, one) => (score(one) > score(best) + 1e-9 ? one : best));
    const make = (name: PlaneName, fixed: number, u: [number, number], v: [number, number], ends: string): Plane => {
      const [uWorld, uAxis] = u;
      const [vWorld, vAxis] = v;
      // The screen's right is the patient's left or back; its bottom is the back or the feet.
      const flipU = along(uWorld, uAxis) < 0;
      const flipV = vWorld === 2 ? along(2, vAxis) > 0 : along(vWorld, vAxis) < 0;
      return {
        name,
        fixed,
        u: uAxis,
        v: vAxis,
        flipU,
        flipV,
        width: this.shape[uAxis]!,
        height: this.shape[vAxis]!,
        pixelU: this.spacing[uAxis]!,
        pixelV: this.spacing[vAxis]!,
        depth: this.shape[fixed]!,
        letters: ends.split("") as [string, string, string, string],
      };
    };
    return {
      axial: make("axial", z, [0, x], [1, y], "RLAP"),
      coronal: make("coronal", y, [0, x], [2, z], "RLSI"),
      sagittal: make("sagittal", x, [1, y], [2, z], "APSI"),
    };
  }
}

/** Continuous pixel position (a pixel's centre is at +0.5) of an array index. */
export function toPixel(plane: Plane, index: Vec3): [number, number] {
  const u = index[plane.u]! + 0.5;
  const v = index[plane.v]! + 0.5;
  return [plane.flipU ? plane.width - u : u, plane.flipV ? plane.height - v : v];
}

/** Array index of a pixel position on a slice. */
export function toArray(plane: Plane, slice: number, u: number, v: number): Vec3 {
  const index: Vec3 = [0, 0, 0];
  index[plane.fixed] = slice;
  index[plane.u] = (plane.flipU ? plane.width - u : u) - 0.5;
  index[plane.v] = (plane.flipV ? plane.height - v : v) - 0.5;
  return index;
}

export const clamp = (value: number, low: number, high: number): number => Math.min(Math.max(value, low), high);

function inverse3(m: number[][]): number[][] {
  const [[a, b, c], [d, e, f], [g, h, i]] = m as unknown as [Vec3, Vec3, Vec3];
  const det = a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g);
  return [
    [(e * i - f * h) / det, (c * h - b * i) / det, (b * f - c * e) / det],
    [(f * g - d * i) / det, (a * i - c * g) / det, (c * d - a * f) / det],
    [(d * h - e * g) / det, (b * g - a * h) / det, (a * e - b * d) / det],
  ];
}
