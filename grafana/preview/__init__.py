"""Pictures of the dashboards: ``python -m grafana.preview`` writes ``docs/images``.

The data are real: a training of several processes, a Prometheus with the shipped configuration,
and the queries of each panel as Grafana sends them. The pictures are drawn with matplotlib in
Grafana's style; every picture says so.
"""
