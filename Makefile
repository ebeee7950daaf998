# Everything starts here; `make help` lists it. The environment (.venv) makes itself.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PY := .venv/bin/python
# Test processes side by side, each with servers of its own; 0 is none but pytest itself.
J ?= 2
export PYTHONDONTWRITEBYTECODE ?=

.PHONY: help
help:  ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

.PHONY: env dev
env:  ## .venv with what running needs
	@scripts/bootstrap.sh run
dev:  ## .venv with tests and linters too
	@scripts/bootstrap.sh dev

.PHONY: demo
demo: env  ## example photos → four images and a zip, in out/demo/
	@.venv/bin/contentshop demo

.PHONY: up
up: env  ## the four services in one process; state in ./data
	@.venv/bin/contentshop up

.PHONY: test
test: dev  ## every suite, with private PostgreSQL, RabbitMQ and S3
	@scripts/install-servers.sh
	@$(PY) -m pytest -n $(J) --dist loadfile --no-loadscope-reorder $(ARGS)

.PHONY: attacks
attacks: dev  ## the API's suites with row-level security alone: no team in any statement
	@scripts/install-servers.sh
	@$(PY) -m pytest -n $(J) --dist loadfile --no-loadscope-reorder tests/attacks \
	  tests/integration/enqueue tests/integration/assets tests/integration/packager \
	  -k "postgres and not read_no_more_than_they_give" --team-filter=off $(ARGS)

.PHONY: test-unit
test-unit: dev  ## the fast ones: no servers
	@$(PY) -m pytest tests/unit tests/architecture -q $(ARGS)

.PHONY: mutate
mutate: dev  ## small faults in what jobs and credits rest on: which survive; ARGS="--only ledger"
	@$(PY) -m tests.mutation $(ARGS)

.PHONY: lint
lint: dev  ## ruff, mypy strict, import-linter, buf, generated code up to date
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	.venv/bin/buf lint
	@scripts/check-gen.sh

.PHONY: format
format: dev  ## ruff's fixes and format
	.venv/bin/ruff check --fix-only .
	.venv/bin/ruff format .

.PHONY: protos
protos: dev  ## gen/ from protos/
	@scripts/generate-protos.sh gen

.PHONY: bench
bench: dev  ## ratios against the machine's own limits; JSON in out/bench/
	@scripts/install-servers.sh
	@$(PY) -m tests.benchmarks $(ARGS)

.PHONY: sim
sim: dev  ## histories with crashes out of seeds; ARGS="--seeds 5000" (or --minutes 60, --house)
	@$(PY) -m tests.simulation $(ARGS)

.PHONY: soak
soak: dev  ## a steady load, and whether anything grows; ARGS="--minutes 60", or --real
	@scripts/install-servers.sh
	@$(PY) -m tests.soak $(ARGS)

.PHONY: chaos
chaos: dev  ## real processes killed under load, for ARGS="--minutes 60 --seed 1"; figures in out/chaos/
	@scripts/install-servers.sh
	@$(PY) -m tests.chaos $(ARGS)

.PHONY: fuzz
fuzz: dev  ## random calls and broken pictures; ARGS="--minutes 20 --seed N --json FILE"
	@scripts/install-servers.sh
	@$(PY) -m tests.fuzz $(ARGS)

.PHONY: lock
lock: dev  ## requirements/*.txt from *.in
	@scripts/lock.sh

.PHONY: clean
clean:  ## what the above made, .venv apart
	rm -rf out data .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
