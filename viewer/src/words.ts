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

/** The lesion that this one has become a part of by this scan. */
export function mergedInto(view: CaseView, scan: number, lesionId: string): string | null {
  const link = view.links.find((one) => one.to_scan === view.scans[scan]!.name && one.lesion_id === lesionId);
  return link?.event === "merged" && link.to_lesion_id && link.to_lesion_id !== lesionId ? link.to_lesion_id : null;
}

/** What happened to a lesion on the way to this scan. */
export function eventOf(view: CaseView, scan: number, lesion: LesionView): string {
  const name = view.scans[scan]!.name;
  const link = view.links.find(
    (one) => one.to_scan === name && (one.to_lesion_id === lesion.lesion_id || (!one.to_lesion_id && one.lesion_id === lesion.lesion_id)),
  );
  const status = STATUSES[lesion.status];
  const other = mergedInto(view, scan, lesion.lesion_id);
  if (other) return `merged into ${other}`;
  if (link?.event === "split" && link.lesion_id && link.lesion_id !== lesion.lesion_id) return `part of ${link.lesion_id}`;
  if (status) return status;
  return EVENTS[link?.event ?? ""] ?? "";
}

export function decisionOf(lesion: LesionView): string {
  if (!lesion.decision) return "";
  // What is gone or merged into another lesion was neither placed nor rejected: a reader has said so.
  return lesion.has_outline ? DECISIONS[lesion.decision] : "said by you";
}

/** Its volume against that in the first scan; of what is in another lesion now, nothing can be said. */
export function changeOf(view: CaseView, scan: number, lesion: LesionView): string {
  if (mergedInto(view, scan, lesion.lesion_id)) return "";
  const percent = lesion.change?.volume_from_baseline_percent ?? null;
  return percent === null ? "" : `${percent > 0 ? "+" : percent < 0 ? "−" : ""}${Math.abs(percent).toFixed(0)} %`;
}

/** From nought to one as a reader says it. */
export const sureness = (confidence: number | null): string => (confidence === null ? "" : `${Math.round(confidence * 100)} %`);
