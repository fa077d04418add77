"""The Compose files as Compose would read them.

There may be no Docker here, so this does what Compose would do: it fills in variables, merges
one file into the other and follows the mounts.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import yaml

from tests.support.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping

COMPOSE, DESKTOP = "docker-compose.yml", "deploy/docker-desktop.yml"
COLLECTOR = ROOT / "deploy/otel-collector.yml"
LOOPBACK = "127.0.0.1"


# The steps of Compose.


class MissingError(Exception):
    """A variable is not set that must be."""


def interpolate(text: str, variables: Mapping[str, str]) -> str:
    """Fill in variables as Compose does: ``$A``, ``${A}``, ``${A:-b}``, ``$$`` and the like.

    A default may contain further variables. ``https://docs.docker.com/reference/compose-file/interpolation/``
    """
    done, position = "", 0
    while (dollar := text.find("$", position)) >= 0:
        done += text[position:dollar]
        if text.startswith("$$", dollar):
            done, position = f"{done}$", dollar + 2
        elif plain := re.compile(r"\$([A-Za-z_]\w*)").match(text, dollar):
            done, position = done + variables.get(plain[1], ""), plain.end()
        else:
            end = _closing_brace(text, dollar)
            inner = re.fullmatch(r"([A-Za-z_]\w*)(:?[-?])?(.*)", text[dollar + 2 : end], re.DOTALL)
            assert inner, f"not understood: {text!r}"
            name, operator, default = inner.groups()
            assert operator or not default, f"not understood: {text!r}"
            is_set = bool(variables.get(name)) if operator in (":-", ":?") else name in variables
            if operator in (":?", "?") and not is_set:
                raise MissingError(f"required variable {name} is missing a value: {default}")
            done += variables.get(name, "") if is_set else interpolate(default, variables)
            position = end + 1
    return done + text[position:]


def _closing_brace(text: str, dollar: int) -> int:
    assert text.startswith("${", dollar), f"not understood: {text!r}"
    depth = 0
    for position in range(dollar + 1, len(text)):
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if depth == 0:
            return position
    raise AssertionError(f"no closing brace: {text!r}")


def fill_in(value: Any, variables: Mapping[str, str]) -> Any:
    """Fill in the variables of every string in a document."""
    if isinstance(value, dict):
        return {key: fill_in(one, variables) for key, one in value.items()}
    if isinstance(value, list):
        return [fill_in(one, variables) for one in value]
    return interpolate(value, variables) if isinstance(value, str) else value


def lay_over(below: Any, above: Any, key: str = "") -> Any:
    """Merge an override as Compose does: mappings by key, lists appended, commands replaced."""
    if isinstance(below, dict) and isinstance(above, dict):
        merged = {name: lay_over(below.get(name), one, name) for name, one in above.items()}
        return {**below, **merged}
    if isinstance(below, list) and key not in ("command", "entrypoint", "test"):
        return below + above
    return above


@dataclass(frozen=True)
class Stack:
    """A stack of Compose files, as ``docker compose`` sees it."""

    files: tuple[str, ...] = (COMPOSE,)
    env_file: str | None = None
    profiles: tuple[str, ...] = ()

    def variables(self) -> dict[str, str]:
        lines = (ROOT / self.env_file).read_text().splitlines() if self.env_file else []
        return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))

    def model(self, **variables: str) -> dict[str, Any]:
        merged: Any = None
        for file in self.files:
            merged = lay_over(merged, yaml.safe_load((ROOT / file).read_text()))
        session = {"XDG_RUNTIME_DIR": os.environ["XDG_RUNTIME_DIR"]}
        return fill_in(merged, {**session, **self.variables(), **variables})

    def services(self, **variables: str) -> dict[str, dict[str, Any]]:
        """Return the services that run."""
        on = {*self.variables().get("COMPOSE_PROFILES", "").split(","), *self.profiles}
        return {
            name: service
            for name, service in self.model(**variables)["services"].items()
            if on.intersection(service.get("profiles", on))
            if str(service.get("scale", 1)) != "0"
        }


STACKS = {
    "default": Stack(),
    "otlp": Stack(env_file="deploy/otlp.env"),
    "scale": Stack(env_file="deploy/scale.env"),
    "desktop": Stack(files=(COMPOSE, DESKTOP)),
    "alerts": Stack(profiles=("alerts",)),
    "desktop-alerts": Stack(files=(COMPOSE, DESKTOP), profiles=("alerts",)),
}


def binds(service: dict[str, Any]) -> dict[PurePosixPath, Path]:
    """Return the host's files and folders that a service mounts, by their path inside it."""
    return {
        PurePosixPath(volume["target"]): ROOT / volume["source"]
        for volume in service.get("volumes", [])
        if isinstance(volume, dict)
    }


def on_host(service: dict[str, Any], path: str) -> Path:
    """Return the path on the host of a path inside the container."""
    inside = PurePosixPath(path)
    for target, source in binds(service).items():
        if inside.is_relative_to(target):
            return source / inside.relative_to(target)
    raise AssertionError(f"{path} is in no mount: {binds(service)}")


def flags(service: dict[str, Any]) -> dict[str, str]:
    """Return a command's flags and values; a flag without a value has an empty one."""
    command = service.get("command", [])
    return {name: value for name, _, value in (flag.partition("=") for flag in command)}


def addresses(service: dict[str, Any]) -> list[str]:
    """Return the addresses on which a service listens, as ``host:port``."""
    all_flags = flags(service).items()
    found = [value for name, value in all_flags if "listen" in name.lower() and value]
    environment = service.get("environment", {})
    if "GF_SERVER_HTTP_ADDR" in environment:
        port = environment["GF_SERVER_HTTP_PORT"]
        found.append(f"{environment['GF_SERVER_HTTP_ADDR']}:{port}")
    if "--config=/etc/otelcol/config.yaml" in service.get("command", []):
        protocols = collector()["receivers"]["otlp"]["protocols"]
        found += [protocol["endpoint"] for protocol in protocols.values()]
    return found


def collector() -> dict[str, Any]:
    return yaml.safe_load(COLLECTOR.read_text())
