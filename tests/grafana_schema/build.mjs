// Write a JSON Schema for each type that is exported by types.ts, all in schema.json.
import { writeFileSync } from "node:fs";
import { createGenerator } from "ts-json-schema-generator";

const types = ["Board", "heatmap", "stat", "table", "timeseries", "xychart"];

function build(type) {
  // By itself, since several panels have a type of the name Options.
  const generator = createGenerator({
    path: "types.ts",
    tsconfig: "tsconfig.json",
    type: type.replace("-", "_"),
    jsDoc: "none",
    expose: type === "Board" ? "export" : "none",
    skipTypeCheck: true,
  });
  return generator.createSchema(type.replace("-", "_"));
}

// A line for each, so that a change shows where it is.
const lines = types.map((type) => `${JSON.stringify(type)}: ${JSON.stringify(build(type))}`);
writeFileSync("schema.json", `{\n${lines.join(",\n")}\n}\n`);
