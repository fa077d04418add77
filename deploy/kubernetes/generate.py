"""Make prometheus-rule.yaml of the rules for Prometheus: python deploy/kubernetes/generate.py.

The rules stay where they are, in prometheus/rules, and are copied here as they are, since
kustomize cannot put a file into an object of the Prometheus Operator. Those of monitoring.yml are
not: the Prometheus of a cluster has its own.
"""

from __future__ import annotations

from pathlib import Path

HERE = Path(__file__).parent
RULES = HERE.parents[1] / "prometheus" / "rules"
OUTPUT = HERE / "prometheus-rule.yaml"

HEAD = """\
# Generated from prometheus/rules by `make kubernetes`: change it there.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: dllogger
spec:
  groups:
"""


def prometheus_rule() -> str:
    """Return the object, with the comments of the rules."""
    text = HEAD
    for name in ("alerts.yml", "dashboards.yml", "goodput.yml", "recording.yml"):
        _, marker, groups = (RULES / name).read_text(encoding="utf-8").partition("\ngroups:\n")
        if not marker:
            raise ValueError(f"{name} has no groups")
        lines = [f"  {line}" if line else line for line in groups.rstrip("\n").split("\n")]
        text += "\n".join(lines) + "\n"
    return text


if __name__ == "__main__":
    OUTPUT.write_text(prometheus_rule(), encoding="utf-8")
