"""The variables at the top of the dashboards; each is narrowed by those before it."""

from __future__ import annotations

from grafana.source.panels import DATASOURCE
from grafana.source.promql import RUNS
from grafana.source.sdk import dashboard, models

ALL = models.VariableOption(selected=True, text=["All"], value=["$__all"])
_RUN_QUERY = (
    "query_result(sort_desc(max by (run) (max_over_time("
    'dllogger_run_start_timestamp_seconds{job=~"$job"}[$__range]))))'
)


def datasource() -> dashboard.DatasourceVariable:
    """Choose the Prometheus, or a compatible data source."""
    return dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus")


def job() -> dashboard.QueryVariable:
    """Choose the scrape job, in case there are several clusters."""
    return _labels("job", "Job", "dllogger_rank_info").current(ALL)


def run(*, several: bool) -> dashboard.QueryVariable:
    """Choose the run; the newest comes first.

    If a variable offers All, Grafana begins with All unless it is given a default that exists,
    and the name of the newest run is not known here. So All is offered only where all runs are
    wanted.

    Args:
        several: Begin with all runs instead of with the newest.
    """
    variable = _query("run", "Run", _RUN_QUERY).sort(models.VariableSort.DISABLED)
    variable.regex('/run="(.+)"\\}/').description("Runs of the time range, newest first")
    return variable.current(ALL) if several else variable.include_all(False)


def stage() -> dashboard.QueryVariable:
    """Choose train, val or test; metrics without a stage appear only under All."""
    return _labels("stage", "Stage", f"run:dl:median{{{RUNS}}}").all_value(".*").current(ALL)


def granularity() -> dashboard.QueryVariable:
    """Choose metrics logged per iteration, per epoch, per validation or once per run."""
    matchers = f'run:dl:median{{{RUNS}, stage=~"$stage"}}'
    return _labels("granularity", "Granularity", matchers).current(ALL)


def metric() -> dashboard.QueryVariable:
    """Choose metrics by the names under which they were logged."""
    matchers = f'run:dl:median{{{RUNS}, stage=~"$stage", granularity=~"$granularity"}}'
    return _labels("metric", "Metric", matchers).current(ALL)


def rank() -> dashboard.QueryVariable:
    """Choose single ranks to draw beside the band of all ranks; by default rank 0."""
    variable = _labels("rank", "Rank", f"dllogger_rank_info{{{RUNS}}}")
    variable.sort(models.VariableSort.NUMERICAL_ASC)
    return variable.current(models.VariableOption(selected=True, text=["0"], value=["0"]))


def how_many(name: str, label: str, description: str) -> dashboard.CustomVariable:
    """Choose how many lines are drawn where there could be thousands.

    Args:
        name: The name of the variable.
        label: What it counts.
        description: The same in a sentence.
    """
    variable = dashboard.CustomVariable(name).label(label).values("5,10,20")
    variable.description(description)
    return variable.current(models.VariableOption(selected=True, text="5", value="5"))


def _labels(name: str, label: str, selector: str) -> dashboard.QueryVariable:
    query = _query(name, label, f"label_values({selector}, {name})")
    return query.sort(models.VariableSort.NATURAL_ASC)


def _query(name: str, label: str, query: str) -> dashboard.QueryVariable:
    variable = dashboard.QueryVariable(name).label(label).datasource(DATASOURCE)
    variable.query({"query": query, "refId": "PrometheusVariableQueryEditor-VariableQuery"})
    variable.definition(query).refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
    return variable.multi(True).include_all(True).all_value(".+")
