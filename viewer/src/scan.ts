// Voxels of a scan, and slices of them as grey pictures.

import { fetchBytes } from "./api.ts";
import { Grid, type Plane } from "./planes.ts";
import type { ScanView, Vec3 } from "./types.ts";

/** From black to white. */
export interface Window {
  name: string;
  low: number;
  high: number;
}

export const CT_WINDOWS: Window[] = [
  { name: "Soft tissue", low: -160, high: 240 },
  { name: "Lung", low: -1350, high: 150 },
  { name: "Bone", low: -450, high: 1050 },
  { name: "Liver", low: -20, high: 180 },
  { name: "Brain", low: 0, high: 80 },
];

type Voxels = Int16Array | Uint8Array | Float32Array;
const HEADER_BYTES = 352;

/** A scan whose voxels are here. */
export class Scan {
  readonly windows: Window[];

  constructor(
    readonly grid: Grid,
    readonly voxels: Voxels,
    readonly modality: string,
    readonly unit: string,
  ) {
    this.windows = modality === "CT" ? [...CT_WINDOWS, this.automatic()] : [this.automatic()];
    if (modality === "PT") this.windows.push({ name: "SUV 0 to 5", low: 0, high: 5 }, { name: "SUV 0 to 10", low: 0, high: 10 });
  }

  get bytes(): number {
    return this.voxels.byteLength;
  }

  valueAt([d, h, w]: Vec3): number {
    const [, height, width] = this.grid.shape;
    return this.voxels[(d * height + h) * width + w] ?? NaN;
  }

  /** From the first to the 99th percentile of some ten thousand voxels; PET from zero. */
  private automatic(): Window {
    const step = Math.max(1, Math.floor(this.voxels.length / 40_000));
    const some: number[] = [];
    for (let at = 0; at < this.voxels.length; at += step) {
      const value = this.voxels[at]!;
      if (Number.isFinite(value)) some.push(value);
    }
    some.sort((a, b) => a - b);
    const at = (share: number): number => some[Math.floor(share * (some.length - 1))] ?? 0;
    const low = this.modality === "PT" ? 0 : at(0.01);
    const high = at(this.modality === "PT" ? 0.998 : 0.995);
    return { name: "Automatic", low, high: high > low ? high : low + 1 };
  }

  /** Paints one slice into `pixels` (RGBA, the plane's width times height). */
  paint(plane: Plane, slice: number, window: Window, pixels: Uint32Array): void {
    const shade = this.shades(window);
    const [, height, width] = this.grid.shape;
    const strides = [height * width, width, 1];
    const stepU = strides[plane.u]! * (plane.flipU ? -1 : 1);
    const stepV = strides[plane.v]! * (plane.flipV ? -1 : 1);
    let row = slice * strides[plane.fixed]!;
    if (plane.flipU) row += (plane.width - 1) * strides[plane.u]!;
    if (plane.flipV) row += (plane.height - 1) * strides[plane.v]!;
    let out = 0;
    for (let v = 0; v < plane.height; v++, row += stepV) {
      for (let u = 0, at = row; u < plane.width; u++, at += stepU) pixels[out++] = shade(this.voxels[at]!);
    }
  }

  private shades({ low, high }: Window): (value: number) => number {
    const grey = (value: number): number => {
      const level = Math.min(Math.max(Math.round(((value - low) / (high - low)) * 255), 0), 255) || 0;
      return (0xff000000 | (level << 16) | (level << 8) | level) >>> 0;
    };
    if (!(this.voxels instanceof Int16Array)) return grey;
    const table = tableOf(low, high, grey);
    return (value) => table[value + 32768]!;
  }
}

let lastTable: { low: number; high: number; table: Uint32Array } | undefined;

function tableOf(low: number, high: number, grey: (value: number) => number): Uint32Array {
  if (lastTable?.low === low && lastTable.high === high) return lastTable.table;
  const table = Uint32Array.from({ length: 65536 }, (_, at) => grey(at - 32768));
  lastTable = { low, high, table };
  return table;
}

/** Fetches a scan of a case. */
export async function fetchScan(caseId: string, index: number, view: ScanView, tell: (share: number) => void): Promise<Scan> {
  const { bytes, headers } = await fetchBytes(`/cases/${encodeURIComponent(caseId)}/scans/${index}/image.nii`, tell);
  const modality = headers.get("X-Modality") ?? "MR";
  return new Scan(new Grid(view), voxelsOf(bytes), modality, headers.get("X-Unit") ?? "");
}

/** The voxels after a NIfTI header of the kinds that the server sends. */
export function voxelsOf(bytes: ArrayBuffer): Voxels {
  const code = new DataView(bytes).getInt16(70, true);
  if (code === 4) return new Int16Array(bytes, HEADER_BYTES);
  return code === 16 ? new Float32Array(bytes, HEADER_BYTES) : new Uint8Array(bytes, HEADER_BYTES);
}
