"""The dashboards, as code: ``python -m grafana.source`` writes ``grafana/dashboards``.

They keep the rules of Grafana's dashboard-linter
(https://github.com/grafana/dashboard-linter/blob/main/docs/index.md), as
``tests/support/dashboards.py`` checks, with these exceptions:

- ``template-instance-rule``, ``target-instance-rule``: a rank is known by job, run and rank. Its
  instance is another one after a restart.
- ``target-job-rule`` in the row Machines: exporters have jobs of their own, and are found by host.
- ``target-counter-agg-rule`` in "Ranks behind": the steps themselves say which rank is last.
- ``target-rate-interval-rule`` where the rules have the rate: they have windows of their own.

The smallest interval of a panel is that of the data source, which is the scrape interval.
"""
