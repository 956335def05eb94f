/**
 * Puts the libraries of package.json into the page, one file each, with their licences and hashes: `make web-vendor`.
 * tests/web/test_files.py checks the hashes.
 */
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const TARGET = fileURLToPath(new URL("../../serve_app/web/vendor/", import.meta.url));
const MODULES = fileURLToPath(new URL("node_modules/", import.meta.url));

/** What a module of the page may import from each library (and what `tsc` finds of it), and which style sheet is needed. */
const LIBRARIES = {
  lit: {
    exports: `export * from "lit";
      export { repeat } from "lit/directives/repeat.js";
      export { live } from "lit/directives/live.js";
      export { guard } from "lit/directives/guard.js";
      export { ref, createRef } from "lit/directives/ref.js";
      export { classMap } from "lit/directives/class-map.js";
      export { ifDefined } from "lit/directives/if-defined.js";`,
  },
  uplot: { exports: `export { default } from "uplot";`, sheet: "dist/uPlot.min.css" },
  wavesurfer: { package: "wavesurfer.js", exports: `export { default } from "wavesurfer.js";` },
};

const sha256 = (bytes) => createHash("sha256").update(bytes).digest("hex");

async function bundled(exports) {
  const stdin = { contents: exports, resolveDir: MODULES, loader: "js" };
  const options = { bundle: true, format: "esm", minify: true, legalComments: "none", target: "es2022" };
  const { outputFiles } = await build({ stdin, ...options, conditions: ["production"], write: false });
  return outputFiles[0].contents;
}

/** Writes the library's files; what vendor.json says of it. */
async function vendored(name, { package: from = name, exports, sheet }) {
  const { version, license } = JSON.parse(readFileSync(`${MODULES}${from}/package.json`, "utf8"));
  const types = exports.replaceAll(/^ +/gm, "");
  const files = {
    [`${name}.d.ts`]: `${types}\n`,
    [`${name}.js`]: await bundled(exports),
    [`${name}.LICENSE`]: readFileSync(`${MODULES}${from}/LICENSE`),
  };
  if (sheet) files[`${name}.css`] = readFileSync(`${MODULES}${from}/${sheet}`);
  for (const [file, bytes] of Object.entries(files)) writeFileSync(TARGET + file, bytes);
  const hashes = Object.entries(files).map(([file, bytes]) => [file, sha256(bytes)]);
  return { name: from, version, license, files: Object.fromEntries(hashes) };
}

rmSync(TARGET, { recursive: true, force: true });
mkdirSync(TARGET);
const all = [];
for (const [name, library] of Object.entries(LIBRARIES)) all.push(await vendored(name, library));
writeFileSync(`${TARGET}vendor.json`, `${JSON.stringify(all, null, 2)}\n`);
