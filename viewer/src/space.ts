// The scan and its lesions in space, drawn by NiiVue; fetched only when it is asked for.

import { NVImage, Niivue, SLICE_TYPE } from "@niivue/niivue";
import { fetchBytes } from "./api.ts";
import { colourOf } from "./colours.ts";
import { dialog, el } from "./dom.ts";
import type { Room } from "./room.ts";

/** Opens a dialog with the scan on show, to be turned with the mouse or the arrow keys. */
export async function showSpace(room: Room): Promise<void> {
  const { scan } = room.shown;
  const canvas = el("canvas", { class: "space", tabindex: "0", "aria-label": "The scan in space" });
  const said = el("p", { class: "hint", role: "status" }, "Opening …");
  const opened = dialog(`${room.view.scans[scan]!.name} in space`, el("div", { class: "space-frame" }, canvas), said);
  const viewer = new Niivue({ backColor: [0, 0, 0, 1], show3Dcrosshair: false, isOrientCube: true, loadingText: "", dragAndDropEnabled: false, isResizeCanvas: true });
  try {
    await viewer.attachToCanvas(canvas);
    const kind = room.scans.get(scan);
    const automatic = kind?.windows.find((one) => one.name === "Automatic");
    const look = kind?.modality === "CT" ? { colormap: "ct_bones", cal_min: 130, cal_max: 1000 } : { colormap: "gray", cal_min: automatic?.low, cal_max: automatic?.high };
    const base = await NVImage.loadFromUrl({ url: await bytesOf(`${room.path}/scans/${scan}/image.nii`), name: "scan.nii", ...look });
    viewer.addVolume(base);
    for (const lesion of room.view.scans[scan]!.lesions.filter((one) => one.has_outline)) {
      const path = `${room.path}/scans/${scan}/lesions/${encodeURIComponent(lesion.lesion_id)}/outline.nii`;
      const label = `lesion ${lesion.lesion_id}`;
      viewer.addColormap(label, plain(colourOf(lesion.lesion_id)));
      viewer.addVolume(await NVImage.loadFromUrl({ url: await bytesOf(path), name: `${lesion.lesion_id}.nii`, colormap: label, opacity: 1, cal_min: 0.5, cal_max: 1 }));
    }
    viewer.setSliceType(SLICE_TYPE.RENDER);
    said.textContent = "Drag to turn; wheel to come closer.";
    canvas.dataset.ready = "yes";
  } catch (problem) {
    opened.close();
    throw problem;
  }
  opened.addEventListener("close", () => viewer.gl.getExtension("WEBGL_lose_context")?.loseContext());
}

async function bytesOf(path: string): Promise<ArrayBuffer> {
  return (await fetchBytes(path, () => undefined)).bytes;
}

function plain(colour: string): { R: number[]; G: number[]; B: number[]; A: number[]; I: number[] } {
  const [r, g, b] = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16)) as [number, number, number];
  return { R: [r, r], G: [g, g], B: [b, b], A: [0, 255], I: [0, 255] };
}
