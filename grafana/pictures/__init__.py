"""Pictures of the dashboards: ``python -m grafana.pictures`` writes ``docs/images``.

The data are real: a Prometheus with the shipped configuration and rules has scraped ranks, and
answers the queries of each panel, sent as by Grafana. What is drawn with them is drawn by Grafana's
own components, from its packages ``@grafana/ui`` and ``@grafana/data``, in a headless Chromium.
"""
