# `make help` says what there is. Every target sets up what it needs, and does so again
# only when pyproject.toml or the constraints change.

SHELL := /bin/bash
.DEFAULT_GOAL := help

# Tests and demo find the prometheus of the machine, and the programs of the environment.
export PATH := $(CURDIR)/.venv/bin:$(PATH)

ARGS ?=

# The oldest versions are about OpenTelemetry and prometheus-client. These files take
# most of the time of the tests and touch neither, so they run against the newest alone.
SLOW_AND_ELSEWHERE := test_endpoint test_discovery test_topology test_append_file test_example \
	test_dashboards test_preview_dashboard test_preview test_rules test_scale test_stack \
	test_stack_end_to_end test_backfill_openmetrics test_backfill_prometheus \
	test_backfill_victoriametrics test_external_sort test_identity test_origin test_reader \
	test_bridge_command test_bridge_expire test_bridge_restart test_delivery
OLDEST_ARGS := $(SLOW_AND_ELSEWHERE:%=--ignore=tests/%.py) -m 'not slow'

.PHONY: help demo test test-newest test-oldest bench dashboards pictures lint clean

help: ## Say what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1|/' | \
		while IFS='|' read -r name text; do printf '  make %-12s %s\n' "$$name" "$$text"; done

demo: .venv/.demo ## Show a training run live; options in ARGS="..."
	@scripts/install-missing prometheus || echo 'make: going on without Prometheus'
	.venv/bin/otel-dllogger demo $$(command -v prometheus >/dev/null && echo --with-prometheus) $(ARGS)

test: test-newest test-oldest ## Run the tests, on the newest OpenTelemetry and on the oldest

test-newest: .venv/.dev .venv-example/.done ## The newest only, with coverage; ARGS="-k name"
	@scripts/install-missing prometheus promtool vmagent vmalert victoria-metrics systemd-analyze
	@scripts/fetch-victoriametrics
	@rm -f .coverage .coverage.*
	.venv/bin/python -m pytest $(ARGS) --cov --cov-report=term $(if $(ARGS),,--cov-fail-under=95)

test-oldest: .venv-oldest/.done ## The oldest only
	@scripts/install-missing prometheus promtool
	.venv-oldest/bin/python -m pytest $(ARGS) $(OLDEST_ARGS)

bench: .venv/.dev ## Measure; options in ARGS="..."
	.venv/bin/python -m benchmarks $(ARGS)

dashboards: .venv/.dev ## Write grafana/dashboards from grafana/source
	.venv/bin/python -m grafana.source

pictures: .venv/.dev ## Train, draw what the dashboards show; ARGS="--seconds 60 --ranks 4"
	@scripts/install-missing prometheus
	.venv/bin/python -m grafana.preview $(ARGS)

lint: .venv/.dev ## Check style and types
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/mypy --python-version 3.11 -p grafana.source -p grafana.preview

clean: ## Remove environments, caches and results
	rm -rf .venv .venv-oldest .venv-example build dist demo-run .coverage .coverage.* \
		.mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.demo: pyproject.toml scripts/environment
	scripts/environment .venv -e '.[demo]'
	@touch $@

.venv/.dev: pyproject.toml scripts/environment
	scripts/environment .venv --upgrade --upgrade-strategy eager -e '.[dev]'
	@touch $@

.venv-oldest/.done: pyproject.toml constraints/oldest.txt scripts/environment
	scripts/environment .venv-oldest -c constraints/oldest.txt -e '.[demo,otlp,test]'
	@touch $@

# PyTorch is a gigabyte that the package does not need: in an environment of its own, for
# the test of the example. Where this Python has no such build, that test says it is skipped.
.venv-example/.done: pyproject.toml constraints/example.txt scripts/environment
	scripts/environment .venv-example -c constraints/example.txt -e '.[examples]' || \
		{ [ -z "$(EXAMPLE_REQUIRED)" ] && rm -rf .venv-example && mkdir .venv-example && \
		echo 'make: no PyTorch for this Python, the example will not be tested'; }
	@touch $@
