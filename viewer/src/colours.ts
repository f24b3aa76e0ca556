// Colours of lesions: eight that most colour-blind readers can tell apart, and that stand out on grey.

const COLOURS = ["#ffb000", "#56b4e9", "#ff6e9c", "#4fd6a5", "#f0e442", "#ff8552", "#b79cff", "#8fe3ff"];

/** The colour of a lesion, the same in every scan. */
export function colourOf(lesionId: string): string {
  const number = /^\d+$/.test(lesionId)
    ? Number(lesionId) - 1
    : [...lesionId].reduce((sum, letter) => (sum * 31 + letter.charCodeAt(0)) % 997, 7);
  return COLOURS[((number % COLOURS.length) + COLOURS.length) % COLOURS.length]!;
}

/** A heat scale for what is laid over a scan: transparent at nothing, through red and yellow to white. */
export const HEAT = Uint32Array.from({ length: 256 }, (_, level) => {
  const part = (start: number): number => Math.round(Math.min(Math.max((level / 255 - start) * 3, 0), 1) * 255);
  const alpha = Math.round(Math.min(level / 80, 1) * 165);
  return ((alpha << 24) | (part(0.66) << 16) | (part(0.33) << 8) | part(0)) >>> 0;
});
