// Outlines of lesions: crops of the scan's grid, and their borders as lines on a slice.

import { fetchBytes } from "./api.ts";
import { type Grid, type Plane, toPixel } from "./planes.ts";
import { voxelsOf } from "./scan.ts";
import type { LesionView, Vec3 } from "./types.ts";

/** Line segments in pixel positions of a plane: u1, v1, u2, v2, and so on. */
export type Segments = Float32Array;

/** The outline of one lesion in one scan. */
export class Outline {
  private readonly drawn = new Map<string, Segments>();

  constructor(
    private readonly inside: Uint8Array,
    private readonly shape: Vec3,
    private readonly start: Vec3,
  ) {}

  /** First and last voxel of its crop, along each array axis. */
  get bounds(): [Vec3, Vec3] {
    return [this.start.map((n) => n + 1) as Vec3, this.start.map((n, k) => n + this.shape[k]! - 2) as Vec3];
  }

  /** Its border on a slice; nothing where it does not reach. */
  border(plane: Plane, slice: number): Segments {
    const key = `${plane.name}${slice}`;
    let found = this.drawn.get(key);
    if (!found) this.drawn.set(key, (found = this.trace(plane, slice)));
    return found;
  }

  private at(index: Vec3): boolean {
    const [d, h, w] = index.map((n, k) => n - this.start[k]!) as Vec3;
    const [depth, height, width] = this.shape;
    if (d < 0 || h < 0 || w < 0 || d >= depth || h >= height || w >= width) return false;
    return this.inside[(d * height + h) * width + w] !== 0;
  }

  /** Marching squares between voxel centres: the border runs half way between a voxel inside and one outside. */
  private trace(plane: Plane, slice: number): Segments {
    const k = slice - this.start[plane.fixed]!;
    if (k < 0 || k >= this.shape[plane.fixed]!) return new Float32Array(0);
    const found: number[] = [];
    const index: Vec3 = [0, 0, 0];
    index[plane.fixed] = slice;
    const corner = (a: number, b: number): boolean => {
      index[plane.u] = a;
      index[plane.v] = b;
      return this.at(index);
    };
    const push = (a: number, b: number, c: number, d: number): void => {
      for (const [x, y] of [
        [a, b],
        [c, d],
      ] as const) {
        const point: Vec3 = [0, 0, 0];
        point[plane.fixed] = slice;
        point[plane.u] = x;
        point[plane.v] = y;
        found.push(...toPixel(plane, point));
      }
    };
    const [u0, v0] = [this.start[plane.u]! - 1, this.start[plane.v]! - 1];
    for (let b = v0; b < v0 + this.shape[plane.v]! + 1; b++) {
      for (let a = u0; a < u0 + this.shape[plane.u]! + 1; a++) {
        const kind = +corner(a, b) | (+corner(a + 1, b) << 1) | (+corner(a + 1, b + 1) << 2) | (+corner(a, b + 1) << 3);
        if (kind === 0 || kind === 15) continue;
        const [top, right] = [[a + 0.5, b] as const, [a + 1, b + 0.5] as const];
        const [bottom, left] = [[a + 0.5, b + 1] as const, [a, b + 0.5] as const];
        if ([1, 14, 5].includes(kind)) push(...left, ...top);
        if ([2, 13, 10].includes(kind)) push(...top, ...right);
        if ([4, 11, 5].includes(kind)) push(...right, ...bottom);
        if ([8, 7, 10].includes(kind)) push(...bottom, ...left);
        if ([3, 12].includes(kind)) push(...left, ...right);
        if ([6, 9].includes(kind)) push(...top, ...bottom);
      }
    }
    return Float32Array.from(found);
  }
}

/** What tells one outline of a lesion from its next one. */
export function signature(lesion: LesionView): string {
  const { volume_ml, mean, min, max, centre_x_mm, centre_y_mm, centre_z_mm } = lesion;
  return [volume_ml, mean, min, max, centre_x_mm, centre_y_mm, centre_z_mm].join(" ");
}

/** Fetches the outline of a lesion in a scan. */
export async function fetchOutline(caseId: string, scan: number, lesionId: string, grid: Grid): Promise<Outline> {
  const path = `/cases/${encodeURIComponent(caseId)}/scans/${scan}/lesions/${encodeURIComponent(lesionId)}/outline.nii`;
  const { bytes } = await fetchBytes(path, () => undefined);
  const head = new DataView(bytes);
  const shape: Vec3 = [head.getInt16(46, true), head.getInt16(44, true), head.getInt16(42, true)];
  // The position of its first voxel; NIfTI's world is RAS.
  const first: Vec3 = [-head.getFloat32(292, true), -head.getFloat32(308, true), head.getFloat32(324, true)];
  const start = grid.toIndex(first).map(Math.round) as Vec3;
  return new Outline(voxelsOf(bytes) as Uint8Array, shape, start);
}
