// The list of lesions, and all about the one that is chosen.

import { colourOf } from "./colours.ts";
import { el, fill } from "./dom.ts";
import { amount, growthCurve } from "./growth.ts";
import type { Room } from "./room.ts";
import type { LesionView } from "./types.ts";
import { changeOf, decisionOf, eventOf, sureness } from "./words.ts";

/** The panel at the right. */
export class LesionPanel {
  readonly element = el("aside", { class: "lesions", "aria-label": "Lesions" });

  constructor(private readonly room: Room) {}

  draw(): void {
    const { room } = this;
    const scan = room.view.scans[room.shown.scan]!;
    // While somebody types a note, nothing is taken from under the hands.
    if (this.element.querySelector("textarea:focus")) return;
    fill(
      this.element,
      el("h2", {}, "Lesions in ", el("span", { class: "scan-name" }, scan.name)),
      room.lesionIds.length ? this.table() : el("p", { class: "hint" }, "None yet. Choose a tool, then click on a lesion or draw a box around it."),
      el(
        "div",
        { class: "row" },
        el("button", { type: "button", "data-key": "new", title: "New lesion (L)", onclick: () => newLesion(room) }, "New lesion"),
        el("button", { type: "button", "data-key": "next", title: "Next unsure lesion (N)", onclick: () => room.nextUnsure() }, `Next unsure (${room.unsure.length})`),
      ),
      room.selected ? this.detail(room.selected) : null,
    );
  }

  private table(): HTMLElement {
    const heads = ["Lesion", "Volume ml", "Diameter mm", "Change", "Sure", "What happened"];
    return el(
      "div",
      { class: "scroll" },
      el(
        "table",
        {},
        el("thead", {}, el("tr", {}, ...heads.map((head) => el("th", { scope: "col" }, head)))),
        el("tbody", {}, ...this.room.lesionIds.map((id) => this.row(id))),
      ),
    );
  }

  private row(id: string): HTMLElement {
    const { room } = this;
    const { scan } = room.shown;
    const lesion = room.lesion(scan, id);
    const waits = room.pending.some((one) => one.lesionId === id && one.scan === scan);
    const name = el(
      "button",
      { type: "button", class: "lesion-name", "data-key": `lesion ${id}`, "data-lesion": id, onclick: () => room.select(id) },
      el("span", { class: "dot", style: `background:${colourOf(id)}` }),
      id,
    );
    const said = waits ? "being outlined …" : lesion ? [eventOf(room.view, scan, lesion), decisionOf(lesion)].filter(Boolean).join(", ") : "not in this scan";
    const cells = lesion ? [number(lesion.volume_ml), diameter(lesion), changeOf(room.view, scan, lesion), sureness(lesion.confidence), said] : ["", "", "", "", said];
    return el(
      "tr",
      { class: id === room.selected ? "selected" : "", "aria-selected": id === room.selected, onclick: () => room.select(id) },
      el("th", { scope: "row" }, name),
      ...cells.map((text) => el("td", {}, text)),
    );
  }

  private detail(id: string): HTMLElement {
    const { room } = this;
    const { scan } = room.shown;
    const lesion = room.lesion(scan, id);
    return el(
      "section",
      { class: "detail", "aria-label": `Lesion ${id}` },
      el("h3", {}, el("span", { class: "dot", style: `background:${colourOf(id)}` }), `Lesion ${id}`),
      room.view.scans.length > 1 ? growthCurve(room.view, id, colourOf(id)) : null,
      lesion ? this.numbers(lesion) : el("p", { class: "hint" }, "Not in this scan. Click on it with the tool ‘Click in’ to place it here, or say what became of it."),
      lesion ? this.decisions(lesion) : this.ending(id),
      lesion || room.wasSeenBefore(scan, id) ? this.relations(id, lesion) : null,
      lesion ? this.note(lesion) : null,
    );
  }

  private numbers(lesion: LesionView): HTMLElement {
    const spread = lesion.mean === null ? "" : `${lesion.mean.toFixed(1)} (${lesion.min!.toFixed(1)} to ${lesion.max!.toFixed(1)}) ${lesion.unit}`;
    const rows: [string, string][] = [
      ["Volume", lesion.volume_ml === null ? "" : `${amount(lesion.volume_ml)} ml`],
      ["Longest diameter", lesion.long_axis_mm === null ? "" : `${lesion.long_axis_mm.toFixed(1)} mm`],
      ["Short axis", lesion.short_axis_mm === null ? "" : `${lesion.short_axis_mm.toFixed(1)} mm`],
      ["Diameter by hand", lesion.line ? `${lesion.line.length_mm.toFixed(1)} mm` : ""],
      ["Mean (range)", spread],
      ["Why", lesion.reason],
    ];
    return el("dl", {}, ...rows.filter(([, value]) => value).flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
  }

  private button(key: string, text: string, title: string, act: () => void): HTMLElement {
    return el("button", { type: "button", "data-key": key, class: key, title, onclick: act }, text);
  }

  private gone(): HTMLElement {
    return this.button("reject", "Gone", "Vanished: not there any more (R)", () => this.room.decide("reject"));
  }

  /** A lesion of an earlier scan that nobody has looked for here yet. */
  private ending(id: string): HTMLElement | null {
    return this.room.wasSeenBefore(this.room.shown.scan, id) ? el("div", { class: "row" }, this.gone()) : null;
  }

  private decisions(lesion: LesionView): HTMLElement {
    const { room } = this;
    const isFirst = room.shown.scan === 0;
    const button = this.button.bind(this);
    return el(
      "div",
      { class: "row" },
      button("accept", "Accept", lesion.has_outline ? "The outline is right (A)" : "It is gone indeed (A)", () => room.decide("accept")),
      button("move", "Move", "Click where the lesion really is (M)", () => room.setTool("move")),
      isFirst
        ? button("reject", "Reject", "Not a lesion: taken out of all scans (R)", () => room.decide("reject"))
        : this.gone(),
      isFirst ? null : button("remove", "Not a lesion", "Taken out of this scan", () => room.decide("remove")),
      lesion.line ? button("unmeasure", "Remove own diameter", "Back to the measured one", () => room.measure(room.shown.scan, null)) : null,
    );
  }

  /** What a reader may say of it beside another one: only what can be, so that no choice is refused. */
  private relations(id: string, lesion: LesionView | undefined): HTMLElement | null {
    const { room } = this;
    const { scan } = room.shown;
    const others = room.lesionIds.filter((other) => other !== id);
    const targets = room.wasSeenBefore(scan, id) ? others.filter((other) => room.lesion(scan, other)?.has_outline) : [];
    const parents = lesion?.has_outline ? others.filter((other) => room.wasSeenBefore(scan, other)) : [];
    if (!targets.length && !parents.length) return null;
    const choice = (label: string, say: "merged_into" | "part_of", choices: string[]): HTMLElement | null =>
      choices.length === 0 ? null : el(
        "label",
        {},
        label,
        el(
          "select",
          {
            "data-key": say,
            onchange: (event: Event) => {
              const { value } = event.target as HTMLSelectElement;
              if (value) room.relate(say, value);
            },
          },
          el("option", { value: "" }, "…"),
          ...choices.map((other) => el("option", { value: other }, `lesion ${other}`)),
        ),
      );
    return el("div", { class: "row" }, choice("Merged into ", "merged_into", targets), choice("Split off from ", "part_of", parents));
  }

  private note(lesion: LesionView): HTMLElement {
    const area = el("textarea", {
      rows: 2,
      maxlength: 4000,
      "aria-label": "Note",
      placeholder: "Note",
      onchange: () => {
        if (area.value !== lesion.note) this.room.note(area.value);
      },
      onblur: () => setTimeout(() => this.draw()),
    });
    area.value = lesion.note;
    return area;
  }
}

/** The next click or box is for a lesion of its own. */
export function newLesion(room: Room): void {
  room.selected = null;
  if (!["in", "box", "brush"].includes(room.tool)) room.tool = "in";
  room.say("good", "New lesion: click on it, draw a box around it, or paint it.");
  room.changed("case");
}

const number = (value: number | null): string => (value === null ? "" : amount(value));
const diameter = (lesion: LesionView): string => {
  const length = lesion.line?.length_mm ?? lesion.long_axis_mm;
  return length === null || length === undefined ? "" : `${length.toFixed(1)}${lesion.line ? " ✎" : ""}`;
};
