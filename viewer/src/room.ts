// The case that is open: what the server says of it, what is selected, and every step that a reader takes.

import { Gone, Refused, findPlace, get, isUp, openCase, post, runJob } from "./api.ts";
import { type Outline, fetchOutline, signature } from "./outline.ts";
import { Grid } from "./planes.ts";
import { type Scan, type Window, fetchScan } from "./scan.ts";
import type { CaseView, LesionView, PlaneName, Prompt, ToolName, Vec3 } from "./types.ts";

/** One of the two scans on show. */
export interface Side {
  scan: number;
  cursor: Vec3;
  large: PlaneName;
  window: Window | null;
  overlay: number | null;
}

export type Notice = { kind: "good" | "bad" | "busy"; text: string };
type Listener = (what: "case" | "cursor" | "notice") => void;

const SCANS_KEPT_BYTES = 1_500_000_000;

/** All that the page knows, and the steps. Panels listen and draw themselves. */
export class Room {
  sides: Side[] = [];
  active = 0;
  selected: string | null = null;
  tool: ToolName = "look";
  brushMm = 4;
  /** Where the last box was drawn: a box on another plane keeps the depth of it. */
  boxPlane: PlaneName | null = null;
  linked = true;
  byAnatomy = false;
  notice: Notice | null = null;
  offline = false;
  busy = 0;
  /** Shares of scans on their way. */
  readonly loading = new Map<number, number>();
  readonly scans = new Map<number, Scan>();
  /** What was pointed at and is not outlined yet. */
  pending: { scan: number; lesionId: string; prompts: Prompt[] }[] = [];
  readonly grids: Grid[];
  private readonly outlines = new Map<string, { signature: string; outline: Outline | null }>();
  private readonly listeners: Listener[] = [];
  private chain: Promise<unknown> = Promise.resolve();
  private aligned = new Set<string>();
  private closed = false;

  constructor(public view: CaseView) {
    this.grids = view.scans.map((scan) => new Grid(scan));
    const last = view.scans.length - 1;
    for (const scan of last > 0 ? [0, 1] : [0]) this.sides.push(this.side(scan));
    this.recall();
    void this.loadShown().then(() => this.bringTogether());
    void this.fetchOutlines();
  }

  private side(scan: number): Side {
    return { scan, cursor: this.grids[scan]!.centre(), large: "axial", window: null, overlay: null };
  }

  listen(listener: Listener): void {
    this.listeners.push(listener);
  }

  changed(what: "case" | "cursor" | "notice"): void {
    if (this.closed) return;
    for (const listener of this.listeners) listener(what);
    this.keep();
  }

  close(): void {
    this.closed = true;
  }

  get path(): string {
    return `/cases/${encodeURIComponent(this.view.id)}`;
  }

  // What one asks of it ------------------------------------------------------------------------------------------

  get shown(): Side {
    return this.sides[this.active]!;
  }

  lesion(scan: number, lesionId: string | null): LesionView | undefined {
    return this.view.scans[scan]?.lesions.find((lesion) => lesion.lesion_id === lesionId);
  }

  /** Ids of all lesions, in the order of the first scan that shows them. */
  get lesionIds(): string[] {
    const ids = this.view.scans.flatMap((scan) => scan.lesions.map((lesion) => lesion.lesion_id));
    return [...new Set([...ids, ...this.pending.map((one) => one.lesionId)])];
  }

  /** Whether an earlier scan has an outline of it. */
  wasSeenBefore(scan: number, lesionId: string): boolean {
    return this.view.scans.slice(0, scan).some((_, before) => this.lesion(before, lesionId)?.has_outline);
  }

  outline(scan: number, lesionId: string): Outline | null {
    return this.outlines.get(`${scan}/${lesionId}`)?.outline ?? null;
  }

  /** Whether every outline of a scan that the case has is here to be drawn. */
  isDrawn(scan: number): boolean {
    const lesions = this.view.scans[scan]?.lesions ?? [];
    return lesions.every(
      (one) => !one.has_outline || this.outlines.get(`${scan}/${one.lesion_id}`)?.signature === signature(one),
    );
  }

  /** Lesions of later scans that nobody has decided about, least sure first. */
  get unsure(): { scan: number; lesion: LesionView }[] {
    const doubt = (lesion: LesionView): number => (lesion.status === "failed" ? -1 : (lesion.confidence ?? 0));
    return this.view.scans
      .flatMap((one, scan) => one.lesions.map((lesion) => ({ scan, lesion })))
      .filter(({ scan, lesion }) => scan > 0 && !lesion.decision && lesion.status !== "asked")
      .sort((a, b) => doubt(a.lesion) - doubt(b.lesion));
  }

  // Looking ------------------------------------------------------------------------------------------------------

  say(kind: Notice["kind"], text: string): void {
    // That nothing can be done now is not talked over.
    if (this.offline) return;
    this.notice = { kind, text };
    this.changed("notice");
  }

  setTool(tool: ToolName): void {
    this.tool = tool;
    this.changed("case");
  }

  activate(side: number): void {
    if (side >= this.sides.length || side === this.active) return;
    this.active = side;
    this.changed("case");
  }

  show(side: number, scan: number): void {
    Object.assign(this.sides[side]!, { scan, window: null, overlay: null, cursor: this.grids[scan]!.centre() });
    this.changed("case");
    void this.loadShown().then(() => this.bringTogether());
    void this.follow(1 - side);
  }

  /** Moves a cursor, and the other one with it. */
  moveCursor(side: number, at: Vec3): void {
    this.sides[side]!.cursor = at;
    this.changed("cursor");
    void this.follow(side);
  }

  /** Whether the other cursor is still on its way to the place that belongs to this one. */
  isLinking = false;
  private asked: number | null = null;
  private held: number | null = null;

  /** A hand is on this side's picture: its slice stays, whatever is still on its way to it. */
  hold(side: number): void {
    this.held = side;
  }

  /** The other side's cursor goes where this side's is; only the latest wish is asked for. */
  private async follow(from: number): Promise<void> {
    const [here, there] = [this.sides[from], this.sides[1 - from]];
    if (!here || !there || !this.linked) return;
    this.asked = from;
    if (this.isLinking) return;
    this.isLinking = true;
    this.changed("notice");
    try {
      while (this.asked !== null) {
        const side: number = this.asked;
        this.asked = null;
        this.held = null;
        const [a, b] = [this.sides[side]!, this.sides[1 - side]!];
        const found = await findPlace(this.view.id, a.scan, b.scan, a.cursor);
        this.byAnatomy = found !== null;
        if (this.asked === null && this.held !== 1 - side) b.cursor = found ?? a.cursor;
        this.changed("cursor");
      }
    } catch (problem) {
      this.failed(problem);
    } finally {
      this.isLinking = false;
      this.changed("notice");
    }
  }

  select(lesionId: string | null, scan = this.shown.scan): void {
    this.selected = lesionId;
    const lesion = this.lesion(scan, lesionId);
    const side = this.sides.findIndex((one) => one.scan === scan);
    if (lesion && side >= 0 && lesion.centre_x_mm !== null) {
      this.moveCursor(side, [lesion.centre_x_mm, lesion.centre_y_mm!, lesion.centre_z_mm!]);
    } else if (lesionId !== null) this.lookWhereItWas(scan, lesionId);
    this.changed("case");
  }

  nextUnsure(): void {
    const waiting = this.unsure;
    if (!waiting.length) return this.say("good", "No lesion waits for a decision.");
    const now = waiting.findIndex(({ scan, lesion }) => scan === this.shown.scan && lesion.lesion_id === this.selected);
    const { scan, lesion } = waiting[(now + 1) % waiting.length]!;
    if (!this.sides.some((side) => side.scan === scan)) {
      this.show(0, scan - 1);
      this.show(1, scan);
    }
    this.active = this.sides.findIndex((side) => side.scan === scan);
    this.select(lesion.lesion_id, scan);
  }

  /** For a lesion that has no outline in this scan: where it was before; the linked cursor shows where that is now. */
  private lookWhereItWas(scan: number, lesionId: string): void {
    for (let before = scan - 1; before >= 0; before--) {
      const lesion = this.lesion(before, lesionId);
      const side = this.sides.findIndex((one) => one.scan === before);
      if (lesion && lesion.centre_x_mm !== null && side >= 0) {
        return this.moveCursor(side, [lesion.centre_x_mm, lesion.centre_y_mm!, lesion.centre_z_mm!]);
      }
    }
  }

  // Steps --------------------------------------------------------------------------------------------------------

  /** A click or box for the selected lesion of a scan, or for a new one. */
  point(scan: number, prompt: Prompt, afresh = false): void {
    const lesionId = this.selected ?? this.freshId();
    this.selected = lesionId;
    const waiting = { scan, lesionId, prompts: [prompt] };
    this.pending.push(waiting);
    this.changed("case");
    this.step(async () => {
      try {
        if (prompt.kind === "click" && !afresh && this.lesion(scan, lesionId)?.has_outline) {
          await this.job("correct", { scan, lesion_id: lesionId, clicks: [prompt] }, `Correcting lesion ${lesionId}`);
        } else {
          const prompts = afresh ? [prompt] : this.promptsWith(scan, lesionId, prompt);
          await this.job("outline", { scan, lesion_id: lesionId, prompts }, `Outlining lesion ${lesionId}`);
        }
      } finally {
        this.pending = this.pending.filter((one) => one !== waiting);
        if (!this.lesionIds.includes(lesionId) && this.selected === lesionId) this.selected = null;
        this.changed("case");
      }
      void this.bringTogether();
    });
  }

  private freshId(): string {
    const used = new Set(this.lesionIds);
    let id = this.view.next_lesion_id;
    while (used.has(id)) id = String(Number(id) + 1);
    return id;
  }

  /** All that was pointed at for this lesion; the last box counts. */
  private promptsWith(scan: number, lesionId: string, prompt: Prompt): Prompt[] {
    const before = (this.lesion(scan, lesionId)?.prompts ?? []).filter((one) => one.kind !== "mask");
    return [...(prompt.kind === "box" ? before.filter((one) => one.kind !== "box") : before), prompt];
  }

  outlineAsked(): void {
    this.step(async () => {
      await this.job("outline-asked", {}, "Outlining all lesions that came with the case");
      void this.bringTogether();
    });
  }

  followAll(): void {
    this.step(async () => {
      await this.job("follow", {}, "Following all lesions to the later scans");
      void this.follow(this.active);
    });
  }

  decide(say: "accept" | "reject" | "remove"): void {
    const words = { accept: "accepted", reject: "rejected", remove: "removed" };
    const { scan } = this.shown;
    const lesionId = this.selected;
    const isKnown = lesionId && (this.lesion(scan, lesionId) || (say === "reject" && this.wasSeenBefore(scan, lesionId)));
    if (!isKnown) {
      return this.say("bad", `Choose a lesion of ${this.view.scans[scan]!.name} first.`);
    }
    this.edit("decide", { scan, lesion_id: lesionId, say }, `Lesion ${lesionId} ${words[say]}.`);
  }

  relate(say: "merged_into" | "part_of", otherId: string): void {
    const body = { scan: this.shown.scan, lesion_id: this.selected, say, other_id: otherId };
    const words = say === "part_of" ? "is a part of what was lesion" : "merged into lesion";
    this.edit("relate", body, `Lesion ${this.selected} ${words} ${otherId}.`);
  }

  note(note: string): void {
    this.edit("note", { scan: this.shown.scan, lesion_id: this.selected, note }, "Note saved.");
  }

  measure(scan: number, ends: [Vec3, Vec3] | null): void {
    if (!this.selected || !this.lesion(scan, this.selected)) return this.say("bad", "Choose the lesion to measure first.");
    const line = ends && { kind: "line", from: ends[0], to: ends[1] };
    this.edit("measure", { scan, lesion_id: this.selected, line }, ends ? "Diameter saved." : "Own diameter removed.");
  }

  paint(scan: number, points: Vec3[], adds: boolean): void {
    const lesionId = this.selected ?? this.freshId();
    if (!adds && !this.lesion(scan, lesionId)) return this.say("bad", "Choose the lesion to wipe from first.");
    this.selected = lesionId;
    this.edit("paint", { scan, lesion_id: lesionId, points, radius_mm: this.brushMm, adds }, adds ? "Painted." : "Wiped.");
  }

  undo(): void {
    if (this.view.can_undo) this.edit("undo", {}, "One step back.");
  }

  redo(): void {
    if (this.view.can_redo) this.edit("redo", {}, "One step forward.");
  }

  /** Has everything written; the notes say what could not be. */
  async export(to: string[], criteria: string): Promise<{ isDone: boolean; notes: string[] }> {
    let notes: string[] = [];
    const isDone = await this.step(async () => {
      const answer = await this.job("export", { to, criteria }, "Writing outlines, tables and report");
      notes = answer.warnings ?? [];
    });
    return { isDone, notes };
  }

  journal(): Promise<{ at: string; what: string }[]> {
    return get(`${this.path}/journal`);
  }

  private edit(path: string, body: object, done: string): void {
    this.step(async () => {
      this.take(await post<CaseView>(`${this.path}/${path}`, { revision: this.view.revision, ...body }));
      this.say("good", done);
    });
  }

  private async job(path: string, body: object, what: string): Promise<{ warnings?: string[] }> {
    this.say("busy", `${what} …`);
    const tell = (line: string): void => this.say("busy", `${what}: ${line} …`);
    const answer = await runJob<CaseView>(`${this.path}/${path}`, { revision: this.view.revision, ...body }, tell);
    if (answer.scans) this.take(answer);
    this.say("good", `${what}: done.`);
    return answer;
  }

  /** One step after the other: each is sent with what the one before has come to. */
  private step(work: () => Promise<void>): Promise<boolean> {
    this.busy += 1;
    const done = this.chain.then(async () => {
      try {
        await work();
        return true;
      } catch (problem) {
        await this.failed(problem);
        return false;
      } finally {
        this.busy -= 1;
        this.changed("notice");
      }
    });
    this.chain = done;
    return done;
  }

  // The server ---------------------------------------------------------------------------------------------------

  take(view: CaseView): void {
    this.view = view;
    if (this.selected && !this.lesionIds.includes(this.selected)) this.selected = null;
    this.changed("case");
    void this.fetchOutlines();
  }

  /** Looks whether the case was changed elsewhere. */
  async refresh(): Promise<void> {
    if (this.busy) return;
    try {
      const view = await openCase(this.view.id);
      if (view.revision === this.view.revision) return;
      this.take(view);
      this.say("good", `The case was changed in another window (${view.last_action}) and is shown as it is now.`);
    } catch (problem) {
      await this.failed(problem);
    }
  }

  private async failed(problem: unknown): Promise<void> {
    if (problem instanceof Gone) return this.waitForServer();
    if (problem instanceof Refused && problem.isConflict) {
      const view = await openCase(this.view.id).catch(() => null);
      if (view) this.take(view);
      return this.say(
        "bad",
        `Conflict: ${problem.said.found}. Your last step was not made; the case is shown as it is now. Look, then try again.`,
      );
    }
    this.say("bad", problem instanceof Error ? problem.message : String(problem));
  }

  private async waitForServer(): Promise<void> {
    if (this.offline) return;
    this.say("bad", "The server does not answer. Every finished step is saved; this page goes on as soon as it is back.");
    this.offline = true;
    while (!this.closed && !(await isUp())) await new Promise((later) => setTimeout(later, 1000));
    this.offline = false;
    this.aligned.clear();
    try {
      this.take(await openCase(this.view.id));
      this.say("good", "The server is back. The case is shown as it was saved.");
      await this.loadShown();
    } catch (problem) {
      const known = problem instanceof Refused && problem.status === 401;
      this.say("bad", known ? "The server was started anew. Open the address that it printed to go on; nothing saved is lost." : String(problem));
    }
  }

  private async loadShown(): Promise<void> {
    const wanted = [...new Set(this.sides.flatMap((side) => (side.overlay === null ? [side.scan] : [side.scan, side.overlay])))];
    await Promise.all(wanted.map((index) => this.load(index)));
  }

  private async load(index: number): Promise<void> {
    if (this.scans.has(index) || this.loading.has(index)) return;
    this.loading.set(index, 0);
    this.changed("cursor");
    try {
      const tell = (share: number): void => {
        this.loading.set(index, share);
        this.changed("cursor");
      };
      this.scans.set(index, await fetchScan(this.view.id, index, this.view.scans[index]!, tell));
      this.makeRoom();
    } catch (problem) {
      void this.failed(problem);
    } finally {
      this.loading.delete(index);
      this.changed("case");
    }
  }

  private makeRoom(): void {
    const shown = new Set(this.sides.flatMap((side) => [side.scan, side.overlay]));
    const total = (): number => [...this.scans.values()].reduce((sum, scan) => sum + scan.bytes, 0);
    for (const index of [...this.scans.keys()]) {
      if (total() > SCANS_KEPT_BYTES && !shown.has(index)) this.scans.delete(index);
    }
  }

  setOverlay(side: number, scan: number | null): void {
    this.sides[side]!.overlay = scan;
    this.changed("case");
    void this.loadShown();
  }

  /** Asks for the alignment of the two scans on show, once there is an outline: before, a first click goes first. */
  private async bringTogether(): Promise<void> {
    const [here, there] = this.sides;
    if (!here || !there || here.scan === there.scan || !this.view.scans.some((scan) => scan.lesions.length)) return;
    const [first, last] = [Math.min(here.scan, there.scan), Math.max(here.scan, there.scan)];
    if (this.aligned.has(`${first} ${last}`)) return;
    this.aligned.add(`${first} ${last}`);
    try {
      await runJob(`${this.path}/align`, { first, last }, () => undefined);
      await this.follow(this.active);
      this.changed("case");
    } catch (problem) {
      this.aligned.delete(`${first} ${last}`);
      if (problem instanceof Gone) void this.failed(problem);
    }
  }

  private async fetchOutlines(): Promise<void> {
    const missing = this.view.scans.flatMap((one, scan) =>
      one.lesions
        .filter((lesion) => this.outlines.get(`${scan}/${lesion.lesion_id}`)?.signature !== outlineName(lesion))
        .map((lesion) => ({ scan, lesion })),
    );
    const shown = new Set(this.sides.map((side) => side.scan));
    missing.sort((a, b) => Number(shown.has(b.scan)) - Number(shown.has(a.scan)));
    for (let at = 0; at < missing.length; at += 4) {
      await Promise.all(missing.slice(at, at + 4).map(({ scan, lesion }) => this.fetchOutline(scan, lesion)));
      this.changed("cursor");
    }
    if (missing.length) this.changed("case");
  }

  private async fetchOutline(scan: number, lesion: LesionView): Promise<void> {
    const key = `${scan}/${lesion.lesion_id}`;
    const entry = { signature: outlineName(lesion), outline: null as Outline | null };
    try {
      if (lesion.has_outline) entry.outline = await fetchOutline(this.view.id, scan, lesion.lesion_id, this.grids[scan]!);
      this.outlines.set(key, entry);
    } catch (problem) {
      if (problem instanceof Gone) void this.failed(problem);
    }
  }

  // A reload comes back to the same place ------------------------------------------------------------------------

  private keep(): void {
    const { selected, active } = this;
    const sides = this.sides.map(({ scan, cursor, large }) => ({ scan, cursor, large }));
    sessionStorage.setItem(`room ${this.view.id}`, JSON.stringify({ selected, active, sides }));
  }

  private recall(): void {
    try {
      const kept = JSON.parse(sessionStorage.getItem(`room ${this.view.id}`) ?? "null") as Room | null;
      if (!kept || kept.sides.length !== this.sides.length) return;
      if (kept.sides.some((side) => !this.view.scans[side.scan])) return;
      kept.sides.forEach((side, at) => Object.assign(this.sides[at]!, side));
      this.selected = this.lesionIds.includes(kept.selected ?? "") ? kept.selected : null;
      this.active = kept.active;
    } catch {
      // Nothing to come back to.
    }
  }
}

const outlineName = (lesion: LesionView): string => (lesion.has_outline ? signature(lesion) : "");
