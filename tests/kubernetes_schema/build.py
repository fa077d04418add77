"""Make schema.json: python tests/kubernetes_schema/build.py SCHEMAS CRDS (see README.md)."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

PREFIX = "#/definitions/"


def strict(schema: Any) -> Any:
    """Leave the prose out, and allow no field that is not there: it would be a misspelt one."""
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {}
    for key, value in schema.items():
        if key == "properties":
            made[key] = {name: strict(one) for name, one in value.items()}
        elif key == "$ref":
            made[key] = PREFIX + value.rpartition("/")[2]
        elif key != "description" and not key.startswith("x-kubernetes"):
            made[key] = strict(value)
    if "properties" in made:
        made.setdefault("additionalProperties", False)
    return made


def references(schema: Any) -> set[str]:
    if isinstance(schema, list):
        return set().union(*map(references, schema))
    if not isinstance(schema, dict):
        return set()
    found = set().union(*map(references, schema.values()))
    if isinstance(schema.get("$ref"), str):
        found.add(schema["$ref"].removeprefix(PREFIX))
    return found


def main(schemas: Path, crds: Path) -> None:
    """Write what the kinds in use need."""
    kinds = {}
    for kind, name in (
        ("Job", "job-batch-v1"),
        ("Service", "service-v1"),
        ("ConfigMap", "configmap-v1"),
    ):
        kinds[kind] = strict(json.loads((schemas / f"{name}.json").read_text()))
    for kind in ("PodMonitor", "PrometheusRule"):
        crd = json.loads((crds / f"{kind.lower()}s-crd.json").read_text())
        (version,) = crd["spec"]["versions"]
        assert version["name"] == "v1"
        kinds[kind] = strict(version["schema"]["openAPIV3Schema"])
    every = json.loads((schemas / "_definitions.json").read_text())["$defs"]
    definitions: dict[str, Any] = {}
    while missing := references([kinds, definitions]) - definitions.keys():
        definitions |= {name: strict(every[name]) for name in missing}
    document = {"kinds": kinds, "definitions": dict(sorted(definitions.items()))}
    output = Path(__file__).parent / "schema.json"
    output.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
