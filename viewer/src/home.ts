// The first page: which cases there are, and how another one comes in.

import { Gone, get, listCases, runJob, upload } from "./api.ts";
import { el, fill } from "./dom.ts";
import { showKeys } from "./keys.ts";
import { switchTheme } from "./reading.ts";
import type { CaseListed } from "./types.ts";

interface About {
  version: string;
  model: { title: string; licence: string };
  upload_mb: number;
}

/** The list of cases; `open` is told the id of the one that is wanted. */
export function homePage(open: (id: string) => void): HTMLElement {
  const list = el("ul", { class: "cases", "aria-label": "Cases" }, el("li", { class: "hint" }, "Looking for cases …"));
  const status = el("p", { class: "status", role: "status", "aria-live": "polite" });
  const about = el("p", { class: "hint" });
  const say = (text: string, kind = ""): void => {
    status.className = `status ${kind}`;
    status.textContent = text;
  };
  const attempt = async (work: () => Promise<void>): Promise<void> => {
    try {
      await work();
    } catch (problem) {
      say(problem instanceof Error ? problem.message : String(problem), "bad");
      if (problem instanceof Gone) setTimeout(() => void refresh(), 2000);
    }
  };
  const refresh = (): Promise<void> =>
    attempt(async () => {
      const cases = await listCases();
      const entries = cases.map((one) => entry(one, open));
      fill(list, ...(entries.length ? entries : [el("li", { class: "hint" }, "No case in this folder. Upload scans, or open the demo case.")]));
      if (status.classList.contains("bad")) say("");
    });
  const take = (files: FileList | null): void => {
    if (!files?.length) return;
    void attempt(async () => {
      say("Sending …", "busy");
      open(await upload([...files], (share) => say(share < 1 ? `Sending … ${Math.round(share * 100)} %` : "Checking …", "busy")));
    });
  };
  const chosen = el("input", { type: "file", multiple: true, id: "files", class: "unseen", accept: ".nii,.gz,.nrrd,.mha,.zip", onchange: () => take(chosen.files) });
  const demo = el("button", {
    type: "button",
    onclick: () =>
      void attempt(async () => {
        demo.disabled = true;
        try {
          say("Making the demo case …", "busy");
          open((await runJob<{ id: string }>("/demo", {}, (line) => say(`${line} …`, "busy"))).id);
        } finally {
          demo.disabled = false;
        }
      }),
  }, "Open the demo case");
  const drop = el(
    "label",
    { for: "files", class: "drop" },
    chosen,
    el("strong", {}, "Upload scans"),
    el("span", {}, "Choose or drop NIfTI, NRRD or MetaImage files, or a zip file of DICOM for each visit: one patient, oldest first by name."),
  );
  drop.addEventListener("dragover", (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    take(event.dataTransfer?.files ?? null);
  });
  void refresh();
  void attempt(async () => {
    const { version, model } = await get<About>("/about");
    about.textContent = `Model: ${model.title} (${model.licence}). Version ${version}. For research; not a medical device.`;
  });
  return el(
    "div",
    { class: "home" },
    el(
      "header",
      {},
      el("h1", {}, "Reading room"),
      el("div", { class: "group" }, el("button", { type: "button", title: "Keys", onclick: showKeys }, "?"), el("button", { type: "button", title: "Light or dark", onclick: switchTheme }, "◐")),
    ),
    status,
    el("h2", {}, "Cases"),
    list,
    el("div", { class: "row" }, drop, el("div", { class: "drop" }, el("strong", {}, "Nothing at hand?"), demo)),
    about,
  );
}

function entry(one: CaseListed, open: (id: string) => void): HTMLElement {
  const scans = `${one.scans.length} ${one.scans.length === 1 ? "scan" : "scans"}: ${one.scans.join(", ")}`;
  return el("li", {}, el("button", { type: "button", class: "case", "data-key": one.id, onclick: () => open(one.id) }, el("strong", {}, one.title), el("span", {}, scans)));
}
