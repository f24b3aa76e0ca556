// One picture: a plane of a scan with its outlines, and what a reader does on it with the mouse or the keyboard.

import { HEAT, colourOf } from "./colours.ts";
import { el } from "./dom.ts";
import { type Plane, clamp, toArray, toPixel } from "./planes.ts";
import type { Room, Side } from "./room.ts";
import type { Scan } from "./scan.ts";
import type { PlaneName, Prompt, Vec3 } from "./types.ts";

type Screen = [number, number];
interface Drag {
  kind: "tool" | "pan" | "window" | "cursor";
  from: Screen;
  to: Screen;
  start: Vec3;
  points: Vec3[];
  was: { panU: number; panV: number; low: number; high: number };
}

const FAR = 4;

/** A canvas that shows one plane of one side of the room. */
export class Pane {
  readonly element: HTMLElement;
  private readonly canvas: HTMLCanvasElement;
  private readonly label: HTMLElement;
  private readonly picture = document.createElement("canvas");
  private readonly wash = document.createElement("canvas");
  private painted = "";
  private washed = "";
  private zoom = 1;
  private panU = 0;
  private panV = 0;
  private drag: Drag | null = null;
  private corner: Vec3 | null = null;
  private hover: Screen | null = null;
  private waiting = false;

  constructor(
    private readonly room: Room,
    private readonly sideIndex: number,
    private name: PlaneName,
    private readonly enlarge: ((name: PlaneName) => void) | null,
  ) {
    this.canvas = el("canvas", { tabindex: "0", role: "application", "data-side": sideIndex, "data-plane": name });
    this.label = el("div", { class: "pane-label" });
    this.element = el("div", { class: "pane" }, this.canvas, this.label);
    this.listen();
    new ResizeObserver(() => this.draw()).observe(this.canvas);
  }

  set plane(name: PlaneName) {
    if (name === this.name) return;
    this.name = name;
    this.canvas.dataset.plane = name;
    this.zoom = 1;
    this.panU = this.panV = 0;
    this.draw();
  }

  get plane(): PlaneName {
    return this.name;
  }

  fit(): void {
    this.zoom = 1;
    this.panU = this.panV = 0;
    this.draw();
  }

  private get side(): Side {
    return this.room.sides[this.sideIndex]!;
  }
  private get scan(): Scan | undefined {
    return this.room.scans.get(this.side.scan);
  }
  private get geometry(): Plane {
    return this.room.grids[this.side.scan]!.planes[this.name];
  }
  private get slice(): number {
    return this.room.grids[this.side.scan]!.toVoxel(this.side.cursor)[this.geometry.fixed]!;
  }

  // Where things are ---------------------------------------------------------------------------------------------

  /** Screen pixels for one pixel of the picture, both ways, and where its corner is. */
  private frame(): { scaleU: number; scaleV: number; left: number; top: number } {
    const { width, height, pixelU, pixelV } = this.geometry;
    const [across, down] = [this.canvas.clientWidth, this.canvas.clientHeight];
    const perMm = Math.min(across / (width * pixelU), down / (height * pixelV)) * this.zoom;
    const [scaleU, scaleV] = [perMm * pixelU, perMm * pixelV];
    return {
      scaleU,
      scaleV,
      left: (across - width * scaleU) / 2 + this.panU,
      top: (down - height * scaleV) / 2 + this.panV,
    };
  }

  private toScreen(at: Vec3): Screen {
    const { scaleU, scaleV, left, top } = this.frame();
    const [u, v] = toPixel(this.geometry, this.room.grids[this.side.scan]!.toIndex(at));
    return [left + u * scaleU, top + v * scaleV];
  }

  private toWorld([x, y]: Screen): Vec3 {
    const { scaleU, scaleV, left, top } = this.frame();
    const index = toArray(this.geometry, this.slice, (x - left) / scaleU, (y - top) / scaleV);
    return this.room.grids[this.side.scan]!.toWorld(index);
  }

  private screenOf(event: MouseEvent): Screen {
    const box = this.canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  // Drawing ------------------------------------------------------------------------------------------------------

  /** Draws with the next frame, once however often it is asked for. */
  draw(): void {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      this.drawNow();
    });
  }

  private drawNow(): void {
    const { canvas, scan } = this;
    const ratio = window.devicePixelRatio || 1;
    const [across, down] = [canvas.clientWidth, canvas.clientHeight];
    if (!across || !down) return;
    if (canvas.width !== Math.round(across * ratio)) canvas.width = Math.round(across * ratio);
    if (canvas.height !== Math.round(down * ratio)) canvas.height = Math.round(down * ratio);
    const context = canvas.getContext("2d")!;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.fillStyle = "#000";
    context.fillRect(0, 0, across, down);
    this.describe();
    if (!scan) {
      delete canvas.dataset.step;
      return;
    }
    this.drawPicture(context, scan);
    this.drawOutlines(context);
    this.drawPrompts(context);
    this.drawLines(context);
    this.drawCursor(context);
    this.drawLetters(context, across, down);
    this.drawDrag(context);
    if (this.room.isDrawn(this.side.scan)) canvas.dataset.step = String(this.room.view.revision);
    else delete canvas.dataset.step;
  }

  private describe(): void {
    const view = this.room.view.scans[this.side.scan]!;
    const share = this.room.loading.get(this.side.scan);
    const text = this.scan
      ? `${this.name} ${this.slice + 1}/${this.geometry.depth}`
      : share === undefined
        ? "no picture"
        : `opening … ${Math.round(share * 100)} %`;
    if (this.label.textContent !== text) this.label.textContent = text;
    this.canvas.setAttribute("aria-label", `${view.name}, ${text}`);
    this.canvas.dataset.slice = String(this.slice);
  }

  private drawPicture(context: CanvasRenderingContext2D, scan: Scan): void {
    const { geometry, slice } = this;
    const shades = this.side.window ?? scan.windows[0]!;
    const name = [this.side.scan, geometry.name, slice, shades.low, shades.high].join(" ");
    if (name !== this.painted) {
      paintOn(this.picture, geometry, (pixels) => scan.paint(geometry, slice, shades, pixels));
      this.painted = name;
    }
    const { scaleU, scaleV, left, top } = this.frame();
    context.imageSmoothingEnabled = true;
    context.imageSmoothingQuality = "high";
    context.drawImage(this.picture, left, top, geometry.width * scaleU, geometry.height * scaleV);
    const over = this.side.overlay === null ? undefined : this.room.scans.get(this.side.overlay);
    if (!over) return;
    const washName = [name, this.side.overlay].join(" ");
    if (washName !== this.washed) {
      paintOn(this.wash, geometry, (pixels) => this.paintOver(over, pixels));
      this.washed = washName;
    }
    context.drawImage(this.wash, left, top, geometry.width * scaleU, geometry.height * scaleV);
  }

  /** The other scan where it lies over this slice, as heat: SUV up to 10, anything else over its own range. */
  private paintOver(over: Scan, pixels: Uint32Array): void {
    const { geometry, slice } = this;
    const grid = this.room.grids[this.side.scan]!;
    const place = (u: number, v: number): Vec3 => over.grid.toIndex(grid.toWorld(toArray(geometry, slice, u + 0.5, v + 0.5)));
    const [origin, right, below] = [place(0, 0), place(1, 0), place(0, 1)];
    const automatic = over.windows.find((one) => one.name === "Automatic")!;
    const [low, high] = over.modality === "PT" ? [0, 10] : [automatic.low, automatic.high];
    for (let v = 0, out = 0; v < geometry.height; v++) {
      for (let u = 0; u < geometry.width; u++, out++) {
        const index = origin.map((n, k) => Math.round(n + u * (right[k]! - n) + v * (below[k]! - n))) as Vec3;
        const isInside = index.every((n, k) => n >= 0 && n < over.grid.shape[k]!);
        const level = isInside ? ((over.valueAt(index) - low) / (high - low)) * 255 : 0;
        pixels[out] = HEAT[clamp(Math.round(level), 0, 255)]!;
      }
    }
  }

  private drawOutlines(context: CanvasRenderingContext2D): void {
    const { geometry, slice, room } = this;
    const { scaleU, scaleV, left, top } = this.frame();
    for (const lesion of room.view.scans[this.side.scan]!.lesions) {
      const outline = lesion.has_outline ? room.outline(this.side.scan, lesion.lesion_id) : null;
      const border = outline?.border(geometry, slice);
      if (!border?.length) continue;
      const isSelected = lesion.lesion_id === room.selected;
      context.beginPath();
      for (let at = 0; at < border.length; at += 4) {
        context.moveTo(left + border[at]! * scaleU, top + border[at + 1]! * scaleV);
        context.lineTo(left + border[at + 2]! * scaleU, top + border[at + 3]! * scaleV);
      }
      context.lineCap = "round";
      if (isSelected) stroke(context, "rgba(0,0,0,.55)", 4.5);
      stroke(context, colourOf(lesion.lesion_id), isSelected ? 2.5 : 1.5);
    }
  }

  private drawPrompts(context: CanvasRenderingContext2D): void {
    const { room } = this;
    const lesion = room.lesion(this.side.scan, room.selected);
    const prompts = [
      ...(lesion?.prompts ?? []).map((prompt) => ({ prompt, waits: false })),
      ...room.pending
        .filter((one) => one.scan === this.side.scan)
        .flatMap((one) => one.prompts.map((prompt) => ({ prompt, waits: true }))),
    ];
    for (const { prompt, waits } of prompts) this.drawPrompt(context, prompt, waits);
  }

  private drawPrompt(context: CanvasRenderingContext2D, prompt: Prompt, waits: boolean): void {
    context.globalAlpha = waits ? 1 : 0.8;
    context.setLineDash(waits ? [3, 3] : []);
    if (prompt.kind === "click" && this.isNear(prompt.at)) {
      const [x, y] = this.toScreen(prompt.at);
      context.beginPath();
      context.arc(x, y, 5, 0, 7);
      context.moveTo(x - 3, y);
      context.lineTo(x + 3, y);
      if (prompt.positive) {
        context.moveTo(x, y - 3);
        context.lineTo(x, y + 3);
      }
      stroke(context, "#000", 3.5);
      stroke(context, prompt.positive ? "#5dff7f" : "#ff5a5a", 1.8);
    }
    if (prompt.kind === "box") this.drawBox(context, prompt.min, prompt.max);
    context.setLineDash([]);
    context.globalAlpha = 1;
  }

  private drawBox(context: CanvasRenderingContext2D, low: Vec3, high: Vec3): void {
    const middle = low.map((value, k) => (value + high[k]!) / 2) as Vec3;
    const here = this.room.grids[this.side.scan]!.toWorld(this.at(this.slice, middle));
    if (here.some((value, k) => value < low[k]! - 1e-3 || value > high[k]! + 1e-3)) return;
    const [a, b] = [this.toScreen(low), this.toScreen(high)];
    context.beginPath();
    context.rect(Math.min(a[0], b[0]), Math.min(a[1], b[1]), Math.abs(a[0] - b[0]), Math.abs(a[1] - b[1]));
    stroke(context, "rgba(255,255,255,.75)", 1);
  }

  /** The same place on another slice of this plane, as array index. */
  private at(slice: number, place: Vec3): Vec3 {
    const index = this.room.grids[this.side.scan]!.toIndex(place);
    index[this.geometry.fixed] = slice;
    return index;
  }

  private isNear(place: Vec3): boolean {
    const index = this.room.grids[this.side.scan]!.toIndex(place);
    return Math.abs(index[this.geometry.fixed]! - this.slice) < 0.75;
  }

  private drawLines(context: CanvasRenderingContext2D): void {
    for (const lesion of this.room.view.scans[this.side.scan]!.lesions) {
      if (!lesion.line || !this.isNear(lesion.line.from)) continue;
      this.drawLine(context, lesion.line.from, lesion.line.to, `${lesion.line.length_mm.toFixed(1)} mm`);
    }
  }

  private drawLine(context: CanvasRenderingContext2D, from: Vec3, to: Vec3, text: string): void {
    const [a, b] = [this.toScreen(from), this.toScreen(to)];
    context.beginPath();
    context.moveTo(...a);
    context.lineTo(...b);
    stroke(context, "#000", 4);
    stroke(context, "#fff", 1.6);
    write(context, text, [Math.max(a[0], b[0]) + 6, a[0] > b[0] ? a[1] : b[1]], "left");
  }

  private drawCursor(context: CanvasRenderingContext2D): void {
    const [x, y] = this.toScreen(this.side.cursor);
    const [across, down] = [this.canvas.clientWidth, this.canvas.clientHeight];
    context.beginPath();
    for (const [x1, y1, x2, y2] of [
      [0, y, x - 12, y],
      [x + 12, y, across, y],
      [x, 0, x, y - 12],
      [x, y + 12, x, down],
    ] as const) {
      context.moveTo(x1, y1);
      context.lineTo(x2, y2);
    }
    stroke(context, this.sideIndex === this.room.active ? "rgba(120,200,255,.55)" : "rgba(255,255,255,.3)", 1);
  }

  private drawLetters(context: CanvasRenderingContext2D, across: number, down: number): void {
    const [left, right, top, bottom] = this.geometry.letters;
    write(context, left, [6, down / 2], "left");
    write(context, right, [across - 6, down / 2], "right");
    write(context, top, [across / 2, 12], "center");
    write(context, bottom, [across / 2, down - 10], "center");
  }

  private drawDrag(context: CanvasRenderingContext2D): void {
    const { drag, room, hover } = this;
    const isBrush = room.tool === "brush" || room.tool === "wipe";
    const radius = (room.brushMm * this.frame().scaleU) / this.geometry.pixelU;
    if (isBrush && drag?.kind === "tool") {
      context.beginPath();
      drag.points.forEach((point, at) => (at ? context.lineTo(...this.toScreen(point)) : context.moveTo(...this.toScreen(point))));
      context.lineJoin = context.lineCap = "round";
      stroke(context, room.tool === "brush" ? "rgba(93,255,127,.4)" : "rgba(255,90,90,.4)", 2 * radius);
    }
    if (isBrush && hover) {
      context.beginPath();
      context.arc(hover[0], hover[1], radius, 0, 7);
      stroke(context, room.tool === "brush" ? "#5dff7f" : "#ff5a5a", 1.2);
    }
    const from = drag?.kind === "tool" ? drag.from : this.corner && this.toScreen(this.corner);
    const to = drag?.kind === "tool" ? drag.to : this.toScreen(this.side.cursor);
    if (from && room.tool === "box") {
      context.beginPath();
      context.rect(from[0], from[1], to[0] - from[0], to[1] - from[1]);
      stroke(context, "#fff", 1.4);
    }
    if (from && room.tool === "line") this.drawLine(context, this.toWorld(from), this.toWorld(to), `${this.lengthOf(from, to)} mm`);
  }

  private lengthOf(from: Screen, to: Screen): string {
    const [a, b] = [this.toWorld(from), this.toWorld(to)];
    return Math.hypot(a[0] - b[0], a[1] - b[1], a[2] - b[2]).toFixed(1);
  }

  // Mouse --------------------------------------------------------------------------------------------------------

  private listen(): void {
    const { canvas } = this;
    canvas.addEventListener("pointerdown", (event) => this.press(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    canvas.addEventListener("pointerup", (event) => this.release(event));
    canvas.addEventListener("pointercancel", () => this.stop());
    canvas.addEventListener("pointerleave", () => {
      this.hover = null;
      this.draw();
    });
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("dblclick", () => this.enlarge?.(this.name));
    canvas.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    canvas.addEventListener("keydown", (event) => this.key(event));
    canvas.addEventListener("focus", () => this.room.activate(this.sideIndex));
  }

  private press(event: PointerEvent): void {
    if (!this.scan) return;
    this.canvas.focus({ preventScroll: true });
    this.room.activate(this.sideIndex);
    this.room.hold(this.sideIndex);
    this.canvas.setPointerCapture(event.pointerId);
    const at = this.screenOf(event);
    const isPan = event.button === 1 || (event.button === 0 && event.ctrlKey);
    const kind = isPan ? "pan" : event.button === 2 ? "window" : this.room.tool === "look" || event.shiftKey ? "cursor" : "tool";
    const { low, high } = this.side.window ?? this.scan.windows[0]!;
    const start = this.toWorld(at);
    this.drag = { kind, from: at, to: at, start, points: [start], was: { panU: this.panU, panV: this.panV, low, high } };
    if (kind === "cursor") this.room.moveCursor(this.sideIndex, start);
    event.preventDefault();
  }

  private move(event: PointerEvent): void {
    const at = this.screenOf(event);
    this.hover = at;
    const { drag } = this;
    if (!drag) {
      if (this.room.tool === "brush" || this.room.tool === "wipe") this.draw();
      return;
    }
    drag.to = at;
    const [right, down] = [at[0] - drag.from[0], at[1] - drag.from[1]];
    if (drag.kind === "pan") [this.panU, this.panV] = [drag.was.panU + right, drag.was.panV + down];
    if (drag.kind === "cursor") this.room.moveCursor(this.sideIndex, this.toWorld(at));
    if (drag.kind === "window") this.shade(drag, right, down);
    if (drag.kind === "tool") drag.points.push(this.toWorld(at));
    this.draw();
  }

  /** To the right is more contrast range, down is darker, as on other workstations. */
  private shade({ was }: Drag, right: number, down: number): void {
    const width = Math.max((was.high - was.low) * Math.exp(right / 200), 1e-3);
    const middle = (was.low + was.high) / 2 + ((was.high - was.low) * down) / 300;
    this.side.window = { name: "Own", low: middle - width / 2, high: middle + width / 2 };
    this.room.changed("case");
  }

  private release(event: PointerEvent): void {
    const { drag } = this;
    if (!drag) return;
    drag.to = this.screenOf(event);
    this.drag = null;
    if (drag.kind === "tool") this.use(drag);
    this.draw();
  }

  private stop(): void {
    this.drag = null;
    this.corner = null;
    this.draw();
  }

  private use(drag: Drag): void {
    const { room } = this;
    const { scan } = this.side;
    const end = this.toWorld(drag.to);
    const far = Math.hypot(drag.to[0] - drag.from[0], drag.to[1] - drag.from[1]) > FAR;
    if (room.tool === "brush" || room.tool === "wipe") return room.paint(scan, [...drag.points, end], room.tool === "brush");
    if (room.tool === "box") return far ? this.box(drag.start, end) : room.say("bad", "Draw the box from one corner to the other.");
    if (room.tool === "line") {
      return far ? room.measure(scan, [drag.start, end]) : room.say("bad", "Draw the diameter from one end to the other.");
    }
    this.click(end);
  }

  private click(at: Vec3): void {
    const { room } = this;
    if (!room.grids[this.side.scan]!.contains(at)) return room.say("bad", "That is beside the scan.");
    room.moveCursor(this.sideIndex, at);
    if (room.tool === "move") {
      if (!room.selected) return room.say("bad", "Choose the lesion to move first.");
      room.point(this.side.scan, { kind: "click", at, positive: true }, true);
      return room.setTool("in");
    }
    room.point(this.side.scan, { kind: "click", at, positive: room.tool !== "out" });
  }

  /** A box from two corners on this slice. How deep it is comes from a box drawn before on another plane, else from
   * its smaller side. */
  private box(from: Vec3, to: Vec3): void {
    const { geometry, slice, room } = this;
    const grid = room.grids[this.side.scan]!;
    const [a, b] = [grid.toIndex(from), grid.toIndex(to)];
    const low = a.map((n, k) => Math.min(n, b[k]!)) as Vec3;
    const high = a.map((n, k) => Math.max(n, b[k]!)) as Vec3;
    const sides = [geometry.u, geometry.v].map((k) => (high[k]! - low[k]!) * grid.spacing[k]!);
    const half = Math.max(Math.min(...sides) / grid.spacing[geometry.fixed]! / 2, 0.6);
    low[geometry.fixed] = slice - half;
    high[geometry.fixed] = slice + half;
    const before = room.lesion(this.side.scan, room.selected)?.prompts.find((one) => one.kind === "box");
    if (before?.kind === "box" && room.boxPlane !== geometry.name) {
      const ends = [grid.toIndex(before.min), grid.toIndex(before.max)].map((end) => end[geometry.fixed]!);
      if (slice >= Math.min(...ends) && slice <= Math.max(...ends)) {
        [low[geometry.fixed], high[geometry.fixed]] = [Math.min(...ends), Math.max(...ends)];
      }
    }
    room.boxPlane = geometry.name;
    const corners = [0, 1, 2, 3, 4, 5, 6, 7].map((n) =>
      grid.toWorld([n & 1 ? high[0] : low[0], n & 2 ? high[1] : low[1], n & 4 ? high[2] : low[2]]),
    );
    const bound = (pick: (...values: number[]) => number): Vec3 => [0, 1, 2].map((k) => pick(...corners.map((one) => one[k]!))) as Vec3;
    room.moveCursor(this.sideIndex, grid.toWorld(low.map((n, k) => (n + high[k]!) / 2) as Vec3));
    room.point(this.side.scan, { kind: "box", min: bound(Math.min), max: bound(Math.max) });
  }

  private wheel(event: WheelEvent): void {
    event.preventDefault();
    if (event.ctrlKey) return this.zoomAt(this.screenOf(event), Math.exp(-event.deltaY / 300));
    this.page(Math.sign(event.deltaY));
  }

  private zoomAt([x, y]: Screen, factor: number): void {
    const before = this.frame();
    this.zoom = clamp(this.zoom * factor, 0.5, 20);
    const after = this.frame();
    const stay = (at: number, start: number, now: number): number => at - ((at - start) * this.zoomRatio(before, after)) - now;
    this.panU += stay(x, before.left, after.left);
    this.panV += stay(y, before.top, after.top);
    this.draw();
  }

  private zoomRatio(before: { scaleU: number }, after: { scaleU: number }): number {
    return after.scaleU / before.scaleU;
  }

  // Keyboard -----------------------------------------------------------------------------------------------------

  /** Some slices on; forward is towards the feet, the back or the left. */
  page(slices: number): void {
    const { fixed, depth } = this.geometry;
    const grid = this.room.grids[this.side.scan]!;
    const index = grid.toVoxel(this.side.cursor);
    const next = [...index] as Vec3;
    next[fixed] = 1;
    const ahead = [...index] as Vec3;
    ahead[fixed] = 0;
    const world = { axial: 2, coronal: 1, sagittal: 0 }[this.name];
    const grows = grid.toWorld(next)[world]! > grid.toWorld(ahead)[world]! ? 1 : -1;
    const direction = world === 2 ? -grows : grows;
    const exact = grid.toIndex(this.side.cursor);
    exact[fixed] = clamp(index[fixed]! + slices * direction, 0, depth - 1);
    this.room.moveCursor(this.sideIndex, grid.toWorld(exact));
  }

  private key(event: KeyboardEvent): void {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const far = event.shiftKey ? 10 : 1;
    const steps: Record<string, () => void> = {
      ArrowLeft: () => this.nudge(-far, 0),
      ArrowRight: () => this.nudge(far, 0),
      ArrowUp: () => this.nudge(0, -far),
      ArrowDown: () => this.nudge(0, far),
      PageUp: () => this.page(-far),
      PageDown: () => this.page(far),
      "+": () => this.zoomAt([this.canvas.clientWidth / 2, this.canvas.clientHeight / 2], 1.25),
      "-": () => this.zoomAt([this.canvas.clientWidth / 2, this.canvas.clientHeight / 2], 0.8),
      "0": () => this.fit(),
      Enter: () => this.act(),
      " ": () => this.act(),
      Escape: () => this.stop(),
    };
    const step = steps[event.key];
    if (!step) return;
    event.preventDefault();
    if (event.key !== "Escape") event.stopPropagation();
    step();
  }

  private nudge(right: number, down: number): void {
    const { geometry } = this;
    const grid = this.room.grids[this.side.scan]!;
    const [u, v] = toPixel(geometry, grid.toVoxel(this.side.cursor));
    const index = toArray(geometry, this.slice, clamp(u + right, 0.5, geometry.width - 0.5), clamp(v + down, 0.5, geometry.height - 0.5));
    this.room.moveCursor(this.sideIndex, grid.toWorld(index));
  }

  /** Uses the tool where the cursor is; box and diameter need a second place. */
  private act(): void {
    const { room } = this;
    const at = this.side.cursor;
    if (room.tool === "brush" || room.tool === "wipe") return room.paint(this.side.scan, [at], room.tool === "brush");
    if (room.tool !== "box" && room.tool !== "line") return room.tool === "look" ? undefined : this.click(at);
    if (!this.corner) {
      this.corner = at;
      return room.say("busy", "Go to the other corner or end and press Enter again.");
    }
    const from = this.corner;
    this.corner = null;
    if (room.tool === "box") this.box(from, at);
    else room.measure(this.side.scan, [from, at]);
  }
}

function paintOn(canvas: HTMLCanvasElement, plane: Plane, paint: (pixels: Uint32Array) => void): void {
  canvas.width = plane.width;
  canvas.height = plane.height;
  const image = new ImageData(plane.width, plane.height);
  paint(new Uint32Array(image.data.buffer));
  canvas.getContext("2d")!.putImageData(image, 0, 0);
}

function stroke(context: CanvasRenderingContext2D, colour: string, width: number): void {
  context.strokeStyle = colour;
  context.lineWidth = width;
  context.stroke();
}

function write(context: CanvasRenderingContext2D, text: string, [x, y]: Screen, align: CanvasTextAlign): void {
  context.font = "600 13px system-ui, sans-serif";
  context.textAlign = align;
  context.textBaseline = "middle";
  context.lineWidth = 3;
  context.strokeStyle = "rgba(0,0,0,.8)";
  context.strokeText(text, x, y);
  context.fillStyle = "#d7e3ee";
  context.fillText(text, x, y);
}
