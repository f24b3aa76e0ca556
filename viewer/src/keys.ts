// What each key does: one table for the keyboard and for the page that shows it.

import { dialog, el } from "./dom.ts";
import { newLesion } from "./lesions.ts";
import type { Room } from "./room.ts";
import type { ToolName } from "./types.ts";

/** Things that belong to the whole page and not to the case. */
export interface Doors {
  exportCase: () => void;
  nextWindow: () => void;
  nextPlane: () => void;
}

interface Key {
  keys: string[];
  shown: string;
  says: string;
  act?: (room: Room, doors: Doors) => void;
}

const tool = (key: string, name: ToolName, says: string): Key => ({
  keys: [key],
  shown: key.toUpperCase(),
  says,
  act: (room) => room.setTool(name),
});

const GROUPS: [string, Key[]][] = [
  [
    "Check",
    [
      { keys: ["n"], shown: "N", says: "Next unsure lesion", act: (room) => room.nextUnsure() },
      { keys: ["a"], shown: "A", says: "Accept", act: (room) => room.decide("accept") },
      { keys: ["m"], shown: "M", says: "Move: then click where the lesion is", act: (room) => room.setTool("move") },
      { keys: ["r"], shown: "R", says: "Reject: gone; in the first scan: not a lesion", act: (room) => room.decide("reject") },
      { keys: ["j"], shown: "J", says: "Next lesion of the list", act: (room) => step(room, 1) },
      { keys: ["k"], shown: "K", says: "Lesion before", act: (room) => step(room, -1) },
    ],
  ],
  [
    "Tools",
    [
      tool("v", "look", "Look: move the cursor"),
      tool("c", "in", "Click in: this belongs to the lesion"),
      tool("x", "out", "Click out: this does not"),
      tool("b", "box", "Box around the lesion"),
      tool("p", "brush", "Brush"),
      tool("e", "wipe", "Wipe"),
      tool("d", "line", "Diameter by hand"),
      { keys: ["l"], shown: "L", says: "New lesion", act: newLesion },
      { keys: ["["], shown: "[", says: "Smaller brush", act: (room) => brush(room, 1 / 1.25) },
      { keys: ["]"], shown: "]", says: "Larger brush", act: (room) => brush(room, 1.25) },
    ],
  ],
  [
    "Case",
    [
      { keys: ["f"], shown: "F", says: "Follow all lesions to the later scans", act: (room) => room.followAll() },
      { keys: ["z"], shown: "Z or Ctrl Z", says: "Undo", act: (room) => room.undo() },
      { keys: ["y"], shown: "Y or Ctrl Y", says: "Redo", act: (room) => room.redo() },
      { keys: ["s"], shown: "S", says: "Export", act: (_, doors) => doors.exportCase() },
    ],
  ],
  [
    "Picture",
    [
      { keys: ["w"], shown: "W", says: "Next window", act: (_, doors) => doors.nextWindow() },
      { keys: ["g"], shown: "G", says: "Next plane: axial, coronal, sagittal", act: (_, doors) => doors.nextPlane() },
      { keys: ["t"], shown: "T", says: "The other scan", act: (room) => room.activate(1 - room.active) },
      { keys: [], shown: "Page ↑ ↓, wheel", says: "Slice up or down (with Shift: ten)" },
      { keys: [], shown: "← ↑ → ↓", says: "Cursor by a voxel (with Shift: ten)" },
      { keys: [], shown: "Enter", says: "Use the tool at the cursor" },
      { keys: [], shown: "+ − 0, Ctrl wheel", says: "Larger, smaller, whole picture" },
      { keys: [], shown: "Right button", says: "Window by dragging" },
      { keys: [], shown: "Middle button, Ctrl", says: "Shift the picture by dragging" },
      { keys: [], shown: "Shift", says: "Move the cursor with any tool" },
      { keys: ["?"], shown: "?", says: "These keys", act: () => showKeys() },
    ],
  ],
];
const BY_KEY = new Map(GROUPS.flatMap(([, keys]) => keys).flatMap((one) => one.keys.map((key) => [key, one] as const)));

/** Does what a key says, unless somebody is typing. */
export function press(event: KeyboardEvent, room: Room, doors: Doors): void {
  const target = event.target as HTMLElement;
  if (/^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName) || document.querySelector("dialog[open]")) return;
  const withControl = event.ctrlKey || event.metaKey;
  let key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (withControl && key === "z" && event.shiftKey) key = "y";
  if (event.altKey || (withControl && !["z", "y"].includes(key))) return;
  if (key === "Escape") return room.setTool("look");
  const found = BY_KEY.get(key);
  if (!found?.act) return;
  event.preventDefault();
  found.act(room, doors);
}

/** All keys, in a dialog. */
export function showKeys(): void {
  dialog(
    "Keys",
    el(
      "div",
      { class: "keys" },
      ...GROUPS.map(([title, keys]) =>
        el("section", {}, el("h3", {}, title), el("dl", {}, ...keys.flatMap((one) => [el("dt", {}, el("kbd", {}, one.shown)), el("dd", {}, one.says)]))),
      ),
    ),
  );
}

function step(room: Room, by: number): void {
  const ids = room.lesionIds;
  if (!ids.length) return;
  const now = ids.indexOf(room.selected ?? "");
  room.select(ids[(now + by + ids.length + (now < 0 && by < 0 ? 1 : 0)) % ids.length]!);
}

function brush(room: Room, factor: number): void {
  room.brushMm = Math.min(Math.max(room.brushMm * factor, 0.5), 60);
  room.changed("case");
}
