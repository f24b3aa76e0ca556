// The page of one open case: tools on top, two scans side by side, the lesions at the right.

import { dialog, el, fill } from "./dom.ts";
import { exportDialog } from "./export.ts";
import { isoDate } from "./growth.ts";
import { type Doors, press, showKeys } from "./keys.ts";
import { LesionPanel } from "./lesions.ts";
import { Pane } from "./pane.ts";
import type { Room } from "./room.ts";
import type { PlaneName, ToolName } from "./types.ts";

const PLANES: PlaneName[] = ["axial", "coronal", "sagittal"];
const TOOLS: [ToolName, string, string][] = [
  ["look", "Look", "Move the cursor (V)"],
  ["in", "Click in", "This belongs to the lesion (C)"],
  ["out", "Click out", "This does not belong to it (X)"],
  ["box", "Box", "Draw a box around the lesion (B)"],
  ["brush", "Brush", "Paint (P)"],
  ["wipe", "Wipe", "Wipe off (E)"],
  ["line", "Diameter", "Set the diameter by hand (D)"],
  ["move", "Move", "Click where the lesion really is (M)"],
];

/** Everything that is on show of a case. */
export class ReadingPage {
  readonly element: HTMLElement;
  private readonly bar = el("div", { class: "bar", role: "toolbar", "aria-label": "Tools" });
  private readonly status = el("div", { class: "status", role: "status", "aria-live": "polite" });
  private readonly heads: HTMLElement[] = [];
  private readonly feet: HTMLElement[] = [];
  private readonly panes: Pane[][] = [];
  private readonly grids: HTMLElement[] = [];
  private readonly panel: LesionPanel;
  private readonly doors: Doors;

  constructor(
    private readonly room: Room,
    private readonly leave: () => void,
  ) {
    this.panel = new LesionPanel(room);
    const sides = room.sides.map((_, at) => this.makeSide(at));
    this.element = el(
      "div",
      { class: "reading" },
      el("header", {}, this.title(), this.bar),
      this.warnings(),
      el("main", { class: `sides count-${sides.length}` }, ...sides),
      this.panel.element,
      this.status,
    );
    this.doors = { exportCase: () => exportDialog(room), nextWindow: () => this.nextWindow(), nextPlane: () => this.nextPlane() };
    room.listen((what) => this.draw(what));
    this.draw("case");
  }

  press(event: KeyboardEvent): void {
    press(event, this.room, this.doors);
  }

  private title(): HTMLElement {
    return el(
      "div",
      { class: "title" },
      el("button", { type: "button", class: "quiet", onclick: this.leave, title: "All cases" }, "‹ Cases"),
      el("h1", {}, this.room.view.title),
    );
  }

  private warnings(): HTMLElement | null {
    const { warnings } = this.room.view;
    if (!warnings.length) return null;
    return el("details", { class: "warnings" }, el("summary", {}, `${warnings.length} to know before reading`), ...warnings.map((text) => el("p", {}, text)));
  }

  private makeSide(at: number): HTMLElement {
    const enlarge = (name: PlaneName): void => {
      this.room.sides[at]!.large = name;
      this.room.changed("case");
    };
    const panes = PLANES.map((name) => new Pane(this.room, at, name, enlarge));
    const [head, foot, grid] = [
      el("div", { class: "side-head" }),
      el("div", { class: "side-foot" }),
      el("div", { class: "panes" }, ...panes.map((pane) => pane.element)),
    ];
    this.heads.push(head);
    this.feet.push(foot);
    this.panes.push(panes);
    this.grids.push(grid);
    return el("section", { class: "side", "data-side": at, "aria-label": at ? "Second scan" : "First scan" }, head, grid, foot);
  }

  private draw(what: "case" | "cursor" | "notice"): void {
    if (what === "case") {
      this.drawBar();
      this.heads.forEach((head, at) => this.drawHead(head, at));
      this.panel.draw();
    }
    this.grids.forEach((grid, at) => this.arrange(grid, at));
    if (what !== "notice") {
      this.panes.flat().forEach((pane) => pane.draw());
      this.feet.forEach((foot, at) => this.drawFoot(foot, at));
    }
    this.drawStatus();
  }

  private arrange(grid: HTMLElement, at: number): void {
    const { large } = this.room.sides[at]!;
    grid.parentElement!.classList.toggle("active", at === this.room.active && this.room.sides.length > 1);
    this.panes[at]!.forEach((pane) => pane.element.classList.toggle("large", pane.plane === large));
  }

  private drawBar(): void {
    const { room } = this;
    const { view } = room;
    const button = (key: string, text: string, title: string, act: () => void, isOff = false): HTMLElement =>
      el("button", { type: "button", "data-key": key, title, disabled: isOff, onclick: act }, text);
    const hasAsked = view.scans[0]!.lesions.some((lesion) => lesion.status === "asked" && lesion.prompts.length);
    const hasOutline = view.scans[0]!.lesions.some((lesion) => lesion.has_outline);
    fill(
      this.bar,
      el(
        "div",
        { class: "group", role: "group", "aria-label": "Pointing" },
        ...TOOLS.map(([name, text, title]) =>
          el("button", { type: "button", "data-key": name, "data-tool": name, title, "aria-pressed": String(room.tool === name), onclick: () => room.setTool(name) }, text),
        ),
      ),
      ["brush", "wipe"].includes(room.tool) ? this.brushSize() : null,
      el(
        "div",
        { class: "group" },
        button("undo", "Undo", `Undo: ${view.last_action} (Z)`, () => room.undo(), !view.can_undo),
        button("redo", "Redo", "Redo (Y)", () => room.redo(), !view.can_redo),
      ),
      el(
        "div",
        { class: "group" },
        hasAsked ? button("asked", "Outline all", "Outline every lesion that was marked in the case", () => room.outlineAsked()) : null,
        view.scans.length > 1 ? button("follow", "Follow", "Follow all lesions to the later scans (F)", () => room.followAll(), !hasOutline) : null,
        button("export", "Export", "Outlines, tables, DICOM and the report (S)", () => exportDialog(room)),
      ),
      el(
        "div",
        { class: "group" },
        button("three", "3D", "The scan and its lesions in space", () => void this.showSpace()),
        button("history", "History", "All that was done", () => void this.showHistory()),
        button("keys", "?", "Keys", showKeys),
        button("theme", "◐", "Light or dark", switchTheme),
      ),
    );
  }

  private brushSize(): HTMLElement {
    const { room } = this;
    const shown = el("output", {}, `${room.brushMm.toFixed(1)} mm`);
    const range = el("input", { type: "range", min: 0.5, max: 30, step: 0.5, value: room.brushMm, "data-key": "size", "aria-label": "Radius of the brush" });
    range.addEventListener("input", () => {
      room.brushMm = Number(range.value);
      shown.textContent = `${room.brushMm.toFixed(1)} mm`;
    });
    return el("label", { class: "group size" }, range, shown);
  }

  private drawHead(head: HTMLElement, at: number): void {
    const { room } = this;
    const side = room.sides[at]!;
    const scan = room.scans.get(side.scan);
    const select = (label: string, key: string, options: [string, string, boolean][], act: (value: string) => void): HTMLElement =>
      el(
        "select",
        { "aria-label": label, "data-key": key, title: label, onchange: (event: Event) => act((event.target as HTMLSelectElement).value) },
        ...options.map(([value, text, isChosen]) => el("option", { value, selected: isChosen }, text)),
      );
    const scans = room.view.scans.map((one, index): [string, string, boolean] => [
      String(index),
      `${index + 1}. ${one.name}${one.date ? `, ${isoDate(one.date)}` : ""}`,
      index === side.scan,
    ]);
    const chosen = side.window ?? scan?.windows[0];
    const windows = (scan?.windows ?? []).map((one): [string, string, boolean] => [one.name, one.name, one.name === chosen?.name]);
    if (chosen && !windows.some(([, , isChosen]) => isChosen)) windows.push(["own", "Own", true]);
    const others = room.view.scans.map((one, index): [string, string, boolean] => [String(index), `with ${one.name} over it`, index === side.overlay]);
    fill(
      head,
      select("Scan", "scan", scans, (value) => room.show(at, Number(value))),
      select("Window", "window", windows, (value) => {
        side.window = scan?.windows.find((one) => one.name === value) ?? side.window;
        room.changed("case");
      }),
      select(
        "Large plane",
        "plane",
        PLANES.map((name) => [name, name, name === side.large]),
        (value) => {
          side.large = value as PlaneName;
          room.changed("case");
        },
      ),
      room.view.scans.length > 1
        ? select("Other scan laid over, PET as SUV", "overlay", [["", "nothing over it", side.overlay === null], ...others.filter(([value]) => Number(value) !== side.scan)], (value) =>
            room.setOverlay(at, value === "" ? null : Number(value)),
          )
        : null,
    );
  }

  private drawFoot(foot: HTMLElement, at: number): void {
    const { room } = this;
    const side = room.sides[at]!;
    const read = (index: number): string => {
      const scan = room.scans.get(index);
      if (!scan?.grid.contains(side.cursor)) return "";
      const value = scan.valueAt(scan.grid.toVoxel(side.cursor));
      return `${scan.modality === "PT" ? "SUV " : ""}${value.toFixed(scan.modality === "CT" ? 0 : 2)} ${scan.modality === "CT" ? "HU" : ""}`.trim();
    };
    const [x, y, z] = side.cursor;
    const place = [x > 0 ? "L" : "R", y > 0 ? "P" : "A", z > 0 ? "S" : "I"].map((letter, k) => `${letter} ${Math.abs(side.cursor[k]!).toFixed(0)}`).join("  ");
    const over = side.overlay === null ? "" : ` · over it ${read(side.overlay)}`;
    void [x, y, z];
    const text = `${read(side.scan)}${over} · ${place} mm`;
    if (foot.textContent !== text) foot.textContent = text;
  }

  private drawStatus(): void {
    const { room } = this;
    const linked = room.sides.length < 2 ? "" : !room.linked ? "Cursors not linked" : room.byAnatomy ? "Cursors linked by anatomy" : "Cursors linked by position on the table";
    this.status.className = `status ${room.notice?.kind ?? ""}`;
    this.status.dataset.busy = String(room.busy > 0 || room.isLinking);
    fill(
      this.status,
      el("span", { class: "notice" }, room.notice?.text ?? "Every step is saved as soon as it is made."),
      room.sides.length > 1
        ? el(
            "button",
            {
              type: "button",
              class: "quiet",
              "data-key": "link",
              "aria-pressed": String(room.linked),
              onclick: () => {
                room.linked = !room.linked;
                room.changed("notice");
              },
            },
            linked,
          )
        : null,
    );
  }

  private nextWindow(): void {
    const side = this.room.shown;
    const windows = this.room.scans.get(side.scan)?.windows ?? [];
    const now = windows.findIndex((one) => one.name === (side.window ?? windows[0])?.name);
    side.window = windows[(now + 1) % windows.length] ?? null;
    this.room.changed("case");
  }

  private nextPlane(): void {
    const side = this.room.shown;
    side.large = PLANES[(PLANES.indexOf(side.large) + 1) % PLANES.length]!;
    this.room.changed("case");
  }

  private async showSpace(): Promise<void> {
    try {
      const { showSpace } = await import("./space.ts");
      await showSpace(this.room);
    } catch (problem) {
      this.room.say("bad", `3D cannot be shown here: ${problem instanceof Error ? problem.message : String(problem)}`);
    }
  }

  private async showHistory(): Promise<void> {
    const steps = await this.room.journal();
    dialog("History", el("ol", { class: "history" }, ...steps.map((step) => el("li", {}, el("time", {}, step.at.replace("T", " ").slice(0, 19)), ` ${step.what}`))));
  }
}

/** Light to dark and back; what was chosen is kept. */
export function switchTheme(): void {
  const isDark = getComputedStyle(document.documentElement).colorScheme.includes("dark");
  localStorage.setItem("theme", isDark ? "light" : "dark");
  applyTheme();
}

/** What was chosen, else what the system says. */
export function applyTheme(): void {
  const chosen = localStorage.getItem("theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
  else document.documentElement.dataset.theme = matchMedia("(prefers-color-scheme: light)").matches ? "light" : "dark";
}
