"""Stand for a program that cannot do its work here: check what it is told, and do nothing.

usage: NAME ARGUMENT...     (it goes by the name of the program that it stands for)

What looks like a path of the repository must exist, and an image must be one of the stack's; what
docker compose is told about profiles, services and files of the environment must be in its files.
"""

import re
import subprocess
import sys
from pathlib import Path

import yaml


def main() -> int:
    """Return 1 and say why if an argument leads nowhere."""
    name, arguments = Path(sys.argv[0]).name, sys.argv[1:]
    missing = [
        path
        for argument in arguments
        if (path := argument.rpartition("=")[2]).startswith(("deploy/", "grafana/", "prometheus/"))
        and not (is_image(path) if ":" in path else Path(path).exists())
    ]
    if missing:
        print(f"{name}: no {', '.join(missing)} in the repository")
        return 1
    if name == "docker" and arguments[:1] == ["compose"]:
        return check_compose(arguments[1:])
    if name == "sbatch":
        return subprocess.run(["bash", "-n", arguments[-1]], check=False).returncode
    return 0


def is_image(name: str) -> bool:
    """Return whether the stack has this image with this version."""
    return f"{name}}}" in Path("docker-compose.yml").read_text()


def check_compose(arguments: list[str]) -> int:
    """Return 1 if there is not such a profile or service."""
    services = yaml.safe_load(Path("docker-compose.yml").read_text())["services"]
    profiles = {profile for one in services.values() for profile in one.get("profiles", ())}
    told = re.findall(r"--profile[ =](\S+)", " ".join(arguments))
    if set(told) - profiles:
        print(f"docker: no profile {set(told) - profiles}; there are {profiles}")
        return 1
    words = [one for one in arguments if not one.startswith("-")]
    for command, position in (("exec", 0), ("restart", 0), ("logs", 0), ("kill", -1)):
        if command in words:
            service = words[words.index(command) + 1 :][position]
            if service not in services:
                print(f"docker: no service {service}; there are {', '.join(services)}")
                return 1
    return 0


sys.exit(main())
