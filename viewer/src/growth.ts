// How a lesion grew: its volume in every scan, as a small curve.

import { svg } from "./dom.ts";
import type { CaseView, LesionView } from "./types.ts";
import { mergedInto } from "./words.ts";

const [WIDTH, HEIGHT, LEFT, BOTTOM, TOP] = [300, 140, 40, 22, 26];

/** A curve with one point for each scan in which the lesion was measured or is gone. */
export function growthCurve(view: CaseView, lesionId: string, colour: string): SVGElement {
  const points = view.scans.flatMap((scan, at) => {
    const volume = mergedInto(view, at, lesionId) ? null : volumeOf(scan.lesions.find((lesion) => lesion.lesion_id === lesionId));
    return volume === null ? [] : [{ at, volume, name: scan.name, date: scan.date }];
  });
  const days = view.scans.map((scan) => (scan.date ? Date.parse(isoDate(scan.date)) / 864e5 : NaN));
  const isDated = days.length > 1 && days.every((day, at) => Number.isFinite(day) && (at === 0 || day > days[at - 1]!));
  const when = (at: number): number => (isDated ? (days[at]! - days[0]!) / (days.at(-1)! - days[0]!) : at / Math.max(days.length - 1, 1));
  const most = Math.max(...points.map((point) => point.volume), 1e-3);
  const x = (at: number): number => LEFT + 10 + when(at) * (WIDTH - LEFT - 30);
  const y = (volume: number): number => HEIGHT - BOTTOM - (volume / most) * (HEIGHT - BOTTOM - TOP);
  const said = points.map((point) => `${point.name}: ${amount(point.volume)} ml`).join(", ");
  const text = (content: string, px: number, py: number, anchor = "middle"): SVGElement =>
    svg("text", { x: px, y: py, "text-anchor": anchor, class: "curve-text" }, content);
  return svg(
    "svg",
    { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "curve", role: "img", "aria-label": `Volume over time. ${said}` },
    svg("line", { x1: LEFT, y1: HEIGHT - BOTTOM, x2: WIDTH - 6, y2: HEIGHT - BOTTOM, class: "axis" }),
    svg("line", { x1: LEFT, y1: TOP, x2: LEFT, y2: HEIGHT - BOTTOM, class: "axis" }),
    text(amount(most), LEFT - 4, TOP + 4, "end"),
    text("0", LEFT - 4, HEIGHT - BOTTOM + 3, "end"),
    text("ml", LEFT - 4, (HEIGHT - BOTTOM + TOP) / 2 + 4, "end"),
    svg("polyline", {
      points: points.map((point) => `${x(point.at)},${y(point.volume)}`).join(" "),
      fill: "none",
      stroke: colour,
      "stroke-width": 2.5,
    }),
    ...points.map((point) =>
      svg("circle", { cx: x(point.at), cy: y(point.volume), r: 4, fill: point.volume ? colour : "none", stroke: colour, "stroke-width": 2 }),
    ),
    ...points.map((point) => text(amount(point.volume), x(point.at), y(point.volume) - 8)),
    ...view.scans.map((scan, at) => text(shortened(scan.date ? isoDate(scan.date) : scan.name, view.scans.length), x(at) + (at === 0 ? -8 : at === view.scans.length - 1 ? 10 : 0), HEIGHT - 6, anchorOf(at, view.scans.length))),
  );
}

/** The first and the last name stay inside the drawing. */
function anchorOf(at: number, count: number): string {
  return at === 0 ? "start" : at === count - 1 ? "end" : "middle";
}

function volumeOf(lesion: LesionView | undefined): number | null {
  if (!lesion) return null;
  return lesion.status === "absent" ? 0 : lesion.volume_ml;
}

/** A number with as many digits as one needs. */
export const amount = (value: number): string => value.toFixed(value >= 100 ? 0 : value >= 10 ? 1 : 2);

/** A date as DICOM or as people write it, as people write it. */
export const isoDate = (date: string): string => date.replace(/^(\d{4})(\d{2})(\d{2})$/, "$1-$2-$3");

function shortened(name: string, count: number): string {
  const most = Math.max(4, Math.floor(40 / count));
  return name.length > most ? `${name.slice(0, most - 1)}…` : name;
}
