// What leaves the room, with one button.

import { dialog, el, fill } from "./dom.ts";
import type { Room } from "./room.ts";

const OBJECTS: [string, string, boolean][] = [
  ["dicom-seg", "DICOM SEG (outlines)", true],
  ["dicom-sr", "DICOM SR (measurements)", true],
  ["rtstruct", "DICOM RT structure set", false],
  ["nrrd", "NRRD for 3D Slicer", false],
  ["sdtm", "SDTM tables for trials", false],
];
const CRITERIA: [string, string][] = [
  ["recist-1.1", "RECIST 1.1"],
  ["recist-1.1-confirmed", "RECIST 1.1 with confirmation"],
  ["irecist", "iRECIST"],
  ["percist-1.0", "PERCIST 1.0"],
  ["volume", "Volume"],
];

/** Asks what is wanted, has it written, and hands it out. */
export function exportDialog(room: Room): void {
  const boxes = OBJECTS.map(([value, , isOn]) => el("input", { type: "checkbox", value, checked: isOn }));
  const criteria = el("select", {}, ...CRITERIA.map(([value, text]) => el("option", { value }, text)));
  const result = el("div", { class: "result", role: "status" });
  const go = el("button", { type: "button", class: "primary", onclick: () => void write() }, "Export");
  const opened = dialog(
    "Export",
    el("p", {}, "Outlines (NIfTI), tables of lesions and of their course, and the report are always written."),
    el("fieldset", {}, el("legend", {}, "Also"), ...OBJECTS.map(([, text], at) => el("label", {}, boxes[at]!, ` ${text}`))),
    el("label", {}, "Response by ", criteria),
    go,
    result,
  );

  async function write(): Promise<void> {
    go.disabled = true;
    fill(result, el("p", {}, "Writing …"));
    const wanted = boxes.filter((box) => box.checked).map((box) => box.value);
    const { isDone, notes } = await room.export(wanted, criteria.value);
    go.disabled = false;
    if (!opened.isConnected) return;
    const base = `/api${room.path}`;
    fill(
      result,
      isDone
        ? el(
            "p",
            { class: "row" },
            el("a", { class: "button", href: `${base}/report.html`, target: "_blank", rel: "noopener" }, "Open the report"),
            el("a", { class: "button", href: `${base}/result.zip`, download: "" }, "Download everything (zip)"),
          )
        : el("p", { class: "bad" }, room.notice?.text ?? "Nothing was written."),
      notes.length ? el("ul", { class: "notes" }, ...notes.map((note) => el("li", {}, ...inShort(note)))) : null,
    );
  }
}

/** What was not written in one line, and all that the program says of it behind. */
function inShort(note: string): (string | HTMLElement)[] {
  const kind = OBJECTS.find(([value]) => note.startsWith(`${value}:`));
  if (!kind) return [note];
  const why = note.includes(" 0 DICOM series") ? "not written, as the scans of this case are no DICOM series." : "not all of it could be written.";
  return [`${kind[1]}: ${why}`, el("details", {}, el("summary", {}, "More"), note)];
}
