"""The queries of a dashboard, sent as Grafana sends them: variables, intervals, data source."""
