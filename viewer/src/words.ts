// Words for what the program found and what a reader said.

import type { CaseView, LesionView } from "./types.ts";

const EVENTS: Record<string, string> = {
  same: "followed",
  new: "new",
  vanished: "vanished",
  outside: "outside the scan",
  split: "split",
  merged: "merged",
  unsure: "unsure",
};
const STATUSES: Record<LesionView["status"], string> = {
  asked: "not outlined yet",
  outlined: "",
  absent: "vanished",
  outside: "outside the scan",
  failed: "no outline found",
};
const DECISIONS = { accepted: "accepted", moved: "placed by you", rejected: "rejected" };

/** What happened to a lesion on the way to this scan. */
export function eventOf(view: CaseView, scan: number, lesion: LesionView): string {
  const name = view.scans[scan]!.name;
  const link = view.links.find(
    (one) => one.to_scan === name && (one.to_lesion_id === lesion.lesion_id || (!one.to_lesion_id && one.lesion_id === lesion.lesion_id)),
  );
  const gone = view.links.find((one) => one.to_scan === name && one.lesion_id === lesion.lesion_id);
  const status = STATUSES[lesion.status];
  if (gone?.event === "merged" && gone.to_lesion_id && gone.to_lesion_id !== lesion.lesion_id) return `merged into ${gone.to_lesion_id}`;
  if (link?.event === "split" && link.lesion_id && link.lesion_id !== lesion.lesion_id) return `part of ${link.lesion_id}`;
  if (status) return status;
  return EVENTS[link?.event ?? ""] ?? "";
}

export const decisionOf = (lesion: LesionView): string => (lesion.decision ? DECISIONS[lesion.decision] : "");

export function changeOf(lesion: LesionView): string {
  const percent = lesion.change?.volume_from_baseline_percent ?? null;
  return percent === null ? "" : `${percent > 0 ? "+" : percent < 0 ? "−" : ""}${Math.abs(percent).toFixed(0)} %`;
}

/** From nought to one as a reader says it. */
export const sureness = (confidence: number | null): string => (confidence === null ? "" : `${Math.round(confidence * 100)} %`);
