# Everything a contributor does, `make` says what. Set-up is a prerequisite: nothing has to be installed beforehand.
export PATH := $(PATH):/usr/local/sbin:/usr/sbin:/sbin
PYTHON_OF := .venv/bin/python
PYTEST := $(PYTHON_OF) -m pytest
GENERATED := build/generated
# Who has it set compiles everything anew at every start of Python, of which the tests make dozens.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo lab-demo test quick check generate bench soak clean packages

help: ## print this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: .venv/.ready ## interrupt three peers on this machine and see it measured, up to the alerts; ARGS=--help says more
	.venv/bin/ovnwatch demo $(ARGS)

lab-demo: .venv/.ready ## as root: a migration to a real OVN on this machine, and the report of it
	.venv/bin/ovnwatch lab demo $(ARGS)

test: .venv/.ready ## all tests: first the rest on three workers, then, one by one, those that break networks and measure it
	$(PYTEST) -n 3 --dist loadgroup -m "not needs_root or beside" $(ARGS); first=$$?; \
	$(PYTEST) -m "needs_root and not beside" $(ARGS) && exit $$first

quick: .venv/.ready ## the tests that need neither root, nor a system package, nor patience
	$(PYTEST) -q -n 2 --hypothesis-profile=quick -m "not slow and not needs_root and not system" $(ARGS)

check: .venv/.ready ## style, types, import directions, and that generated files are what would be generated
	$(PYTHON_OF) -m ruff check
	$(PYTHON_OF) -m ruff format --check
	$(PYTHON_OF) -m mypy
	.venv/bin/lint-imports --no-logo
	rm -rf $(GENERATED)
	$(PYTHON_OF) -m alerts.command --output-dir $(GENERATED)/rules
	diff -ru alerts/rules $(GENERATED)/rules
	$(PYTHON_OF) -m alerts.command check --rules-dir alerts/rules
	$(PYTHON_OF) -m alerts.reference --output $(GENERATED)/metrics.md
	diff -u docs/metrics.md $(GENERATED)/metrics.md
	$(PYTHON_OF) -m grafana --output-dir $(GENERATED)/dashboards
	diff -ru grafana/dashboards $(GENERATED)/dashboards
	$(PYTHON_OF) -m manifests --check

generate: .venv/.ready ## write generated files anew
	$(PYTHON_OF) -m alerts.command
	$(PYTHON_OF) -m alerts.reference
	$(PYTHON_OF) -m grafana
	$(PYTHON_OF) -m manifests

bench: .venv/.ready ## what it costs, as ratios to what others need on the same machine; into build/bench.json too
	$(PYTHON_OF) -m tests.bench $(ARGS)

soak: .venv/.ready ## hundreds of interruptions of each kind, ten thousand streams, two hundred crashes: hours
	OVNWATCH_INJECTIONS=100 OVNWATCH_STREAMS=10000 OVNWATCH_SCALE_FOR=1 $(PYTEST) -m needs_root $(ARGS)
	OVNWATCH_KILLS=200 $(PYTEST) tests/test_crash.py -m "not needs_root" $(ARGS)
	.venv/bin/ovnwatch lab alarms --quiet=1800
	.venv/bin/ovnwatch calibrate --method=relay --injections=300
	.venv/bin/ovnwatch calibrate --method=namespaces --injections=300

clean: ## remove what make and its tools wrote, .venv too
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find exporters alerts grafana lab manifests tests -name __pycache__ -prune -exec rm -rf {} +

packages:
	@lab/setup.sh packages

.venv/.ready: requirements/dev.lock pyproject.toml lab/setup.sh | packages
	lab/setup.sh environment
