"""What GitHub and other services read of the project is valid, and runs what developers run."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
import yaml

from tests.support.paths import ROOT
from tests.support.pyproject import PROJECT

pytestmark = pytest.mark.newest_only

GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
FORMS = sorted(path for path in (GITHUB / "ISSUE_TEMPLATE").glob("*.yml") if path.stem != "config")
JOBS = {
    f"{path.stem}/{name}": job
    for path in WORKFLOWS
    for name, job in yaml.safe_load(path.read_text())["jobs"].items()
}
COMMANDS = [step["run"] for job in JOBS.values() for step in job["steps"] if "run" in step]
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
if not (ROOT / "mkdocs.yml").exists():
    TARGETS.add("docs")  # which builds that site


@pytest.mark.parametrize(
    ("schema", "files"),
    [
        ("github-workflows", WORKFLOWS),
        ("dependabot", [GITHUB / "dependabot.yml"]),
        ("github-issue-config", [GITHUB / "ISSUE_TEMPLATE" / "config.yml"]),
        ("github-issue-forms", FORMS),
        ("citation-file-format", [ROOT / "CITATION.cff"]),
    ],
)
def test_each_file_fits_the_schema_of_its_kind(schema, files):
    """The schemas are those that check-jsonschema brings along."""
    assert files
    command = ["-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", *files]
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_a_job_runs_what_is_in_the_project(command):
    """Each target of make is in the Makefile, and each script can be run."""
    assert set(re.findall(r"^make ([a-z-]+)", command, re.MULTILINE)) <= TARGETS
    for script in re.findall(r"(?:scripts|\.ci)/[\w-]+", command):
        assert (ROOT / script).stat().st_mode & 0o100 or f"bash {script}" in command


@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS)
def test_a_job_is_bounded_and_may_do_little(job):
    """It ends, holds no secret, and keeps no credentials in the checkout."""
    assert job["timeout-minutes"] <= 90
    assert "secrets." not in yaml.safe_dump(job)
    for step in job["steps"]:
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_starts_with_least_permissions(path):
    """A job that needs more says so, which only publishing does."""
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] in ({}, {"contents": "read"})
    assert "group" in workflow["concurrency"]
    for name, job in workflow["jobs"].items():
        allowed = {"id-token": "write"} if name == "publish" else {"contents": "read"}
        assert job.get("permissions", allowed) == allowed


def test_every_python_that_is_promised_is_tested():
    """Those of the classifiers, and one that is not promised yet at most."""
    promised = {
        found[1]
        for one in PROJECT["classifiers"]
        if (found := re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", one))
    }
    tested = set(JOBS["ci/unit"]["strategy"]["matrix"]["python"])
    assert promised <= tested
    assert len(tested - promised) <= 1
