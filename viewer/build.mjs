// Makes the page: bundles src/ into one folder (default: the server's page folder) with an index.html that names the files.
import { build } from "esbuild";
import { mkdir, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const out = resolve(process.argv[2] ?? join(here, "../src/lesionlocator/server/page"));

await rm(out, { recursive: true, force: true });
const made = await build({
  absWorkingDir: here,
  entryPoints: ["src/main.ts", "src/style.css"],
  outdir: join(out, "assets"),
  bundle: true,
  splitting: true,
  format: "esm",
  target: "es2022",
  minify: true,
  legalComments: "none",
  entryNames: "[name]-[hash]",
  chunkNames: "[name]-[hash]",
  metafile: true,
  logLevel: "warning",
});
const outputs = Object.entries(made.metafile.outputs);
const named = (source) => basename(outputs.find(([, one]) => one.entryPoint === source)[0]);
const page = (await readFile(join(here, "src/index.html"), "utf8"))
  .replace("main.ts", named("src/main.ts"))
  .replace("style.css", named("src/style.css"));
await mkdir(out, { recursive: true });
await writeFile(join(out, "index.html"), page);

// Whoever gets the page gets the licences of what is in it.
const packages = new Set(
  Object.keys(made.metafile.inputs).flatMap((path) => /^.*node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(path)?.[0] ?? []),
);
const licences = await Promise.all([...packages].sort().map(licenceOf));
await writeFile(join(out, "assets", "licences.txt"), licences.join("\n\n"));

async function licenceOf(folder) {
  const { name, version, license } = JSON.parse(await readFile(join(here, folder, "package.json"), "utf8"));
  const file = (await readdir(join(here, folder))).find((entry) => /^licen[cs]e/i.test(entry));
  // A package that comes without its licence has it in our folder.
  const path = file ? join(here, folder, file) : join(here, "licences", `${basename(name)}.txt`);
  const text = await readFile(path, "utf8");
  return `${name} ${version} (${license})\n\n${text}`;
}
