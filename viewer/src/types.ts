// The server's answers, as types.

export type Vec3 = [number, number, number];

export interface Said {
  found: string;
  needed: string;
  do: string;
  revision?: number;
}

export interface CaseListed {
  id: string;
  title: string;
  scans: string[];
}

export interface ClickPrompt {
  kind: "click";
  at: Vec3;
  positive: boolean;
}
export interface BoxPrompt {
  kind: "box";
  min: Vec3;
  max: Vec3;
}
export interface LinePrompt {
  kind: "line";
  from: Vec3;
  to: Vec3;
}
export type Prompt = ClickPrompt | BoxPrompt | LinePrompt | { kind: "mask" };

export interface Change {
  volume_from_baseline_percent: number | null;
  long_axis_from_baseline_percent: number | null;
}

export interface LesionView {
  lesion_id: string;
  status: "asked" | "outlined" | "absent" | "outside" | "failed";
  reason: string;
  confidence: number | null;
  volume_ml: number | null;
  long_axis_mm: number | null;
  short_axis_mm: number | null;
  mean: number | null;
  min: number | null;
  max: number | null;
  unit: string;
  centre_x_mm: number | null;
  centre_y_mm: number | null;
  centre_z_mm: number | null;
  note: string;
  prompts: Prompt[];
  decision: "accepted" | "moved" | "rejected" | null;
  line: { from: Vec3; to: Vec3; length_mm: number } | null;
  change: Change | null;
  has_outline: boolean;
}

export interface ScanView {
  name: string;
  date: string | null;
  shape_dhw: Vec3;
  spacing_mm: Vec3;
  affine_dhw_to_lps: number[][];
  lesions: LesionView[];
}

export interface LinkView {
  lesion_id: string;
  from_scan: string;
  to_scan: string;
  to_lesion_id: string;
  event: string;
  reason: string;
  confidence: number | null;
  decided_by: string;
}

export interface CaseView {
  id: string;
  title: string;
  revision: number;
  last_action: string;
  can_undo: boolean;
  can_redo: boolean;
  scans: ScanView[];
  links: LinkView[];
  warnings: string[];
  next_lesion_id: string;
}

export interface JobState {
  id: string;
  state: "waiting" | "running" | "done" | "failed" | "cancelled";
  lines: string[];
  answer: unknown;
  error: Said | null;
}

export type PlaneName = "axial" | "coronal" | "sagittal";
export type ToolName = "look" | "in" | "out" | "box" | "brush" | "wipe" | "line" | "move";
