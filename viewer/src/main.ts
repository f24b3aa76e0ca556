// The page starts here: an address without a case shows the list, one with a case opens it.

import { Gone, isUp, openCase } from "./api.ts";
import { el, fill } from "./dom.ts";
import { homePage } from "./home.ts";
import { showKeys } from "./keys.ts";
import { ReadingPage, applyTheme } from "./reading.ts";
import { Room } from "./room.ts";

const page = document.getElementById("page")!;
let room: Room | null = null;
let reading: ReadingPage | null = null;

const caseInAddress = (): string => decodeURIComponent(/^#case\/(.+)$/.exec(location.hash)?.[1] ?? "");
const open = (id: string): void => {
  location.hash = `case/${encodeURIComponent(id)}`;
};
const leave = (): void => {
  location.hash = "";
};

async function show(): Promise<void> {
  room?.close();
  room = reading = null;
  const id = caseInAddress();
  document.title = "Reading room";
  if (!id) return fill(page, homePage(open));
  fill(page, el("p", { class: "opening", role: "status" }, "Opening the case …"));
  try {
    const view = await openCase(id);
    if (caseInAddress() !== id) return;
    room = new Room(view);
    reading = new ReadingPage(room, leave);
    document.title = `${view.title} – reading room`;
    fill(page, reading.element);
    room.changed("case");
  } catch (problem) {
    const text = problem instanceof Error ? problem.message : String(problem);
    fill(page, el("p", { class: "opening bad", role: "alert" }, text), el("p", { class: "opening" }, el("button", { type: "button", onclick: leave }, "All cases")));
    if (problem instanceof Gone) void again(id);
  }
}

async function again(id: string): Promise<void> {
  while (caseInAddress() === id && !(await isUp())) await new Promise((later) => setTimeout(later, 1000));
  if (caseInAddress() === id) await show();
}

// The token came with the address once; the browser keeps it as a cookie, and it need not be seen any longer.
if (location.search) history.replaceState(null, "", location.pathname + location.hash);
applyTheme();
matchMedia("(prefers-color-scheme: light)").addEventListener("change", applyTheme);
addEventListener("hashchange", () => void show());
addEventListener("keydown", (event) => {
  if (reading) reading.press(event);
  else if (event.key === "?") showKeys();
});
addEventListener("focus", () => void room?.refresh());
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "visible") void room?.refresh();
});
void show();
