# Everything a developer does, by name. `make help` lists it.
SHELL := /bin/bash
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
TORCH := torch==2.13.0
# Where torch's CPU build comes from; empty means pip's own settings (see README).
TORCH_INDEX_URL ?=
WORKERS ?= 4

.PHONY: help setup demo test check unit local observability chaos nightly chart cluster cluster-oldest cluster-prometheus bench bench-compression recovery generate format lock clean
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  \1\t/' | expand -t 14

setup: $(STAMP) ## make .venv with everything in it

$(STAMP): pyproject.toml requirements/lock.txt scripts/setup.sh
	PYTHON="$(PYTHON)" VENV="$(VENV)" TORCH="$(TORCH)" TORCH_INDEX_URL="$(TORCH_INDEX_URL)" scripts/setup.sh
	@touch $@

demo: $(STAMP) ## train the digits example with 4 processes of this machine
	$(BIN)/shardwise run manifests/examples/digits.yaml --workers $(WORKERS) --output out/digits

test: $(STAMP) ## everything that must pass: checks, unit, local, chart, real cluster
	scripts/test.sh

check: $(STAMP) ## format, lint, types, architecture, generated files
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile
	$(BIN)/python -m shardwise.api.crd --check
	$(BIN)/python manifests/generate.py --check
	$(BIN)/python -m shardwise_operator.dashboards --check

unit: $(STAMP) ## unit and property tests
	$(BIN)/python -m pytest tests/unit

local: $(STAMP) ## end-to-end tests with processes of this machine
	$(BIN)/python -m pytest tests/local

observability: $(STAMP) ## dashboards and alerts against a real Prometheus
	$(BIN)/python -m pytest tests/observability

chaos: $(STAMP) ## all the faults that the promise says, on processes of this machine (an hour)
	SHARDWISE_CHAOS=full $(BIN)/python -m pytest tests/local/test_chaos.py tests/local/test_network.py \
		tests/local/test_same_bytes.py

nightly: $(STAMP) cluster-oldest ## the protocol and the decisions against 10,000 random histories; 1,000 faults here, 300 on a cluster; a job on v1.20
	HYPOTHESIS_PROFILE=nightly $(BIN)/python -m pytest --timeout 7200 \
		tests/unit/coordinator/test_group_machine.py tests/unit/operator/test_decide_machine.py
	SHARDWISE_CHAOS=nightly $(BIN)/python -m pytest tests/local/test_chaos.py -k "many_blows and mix"
	SHARDWISE_FAULTS=300 $(BIN)/python -m pytest tests/cluster/test_random_faults.py

chart: $(STAMP) ## the Helm chart, rendered by the real helm
	$(BIN)/python -m pytest tests/chart

cluster: $(STAMP) ## a real two-node Kubernetes, real images, the chart installed (needs root)
	$(BIN)/python -m pytest tests/cluster

cluster-oldest: $(STAMP) ## of these, install and run a job on Debian's Kubernetes v1.20, which is built once
	KUBE_LAB_NODES=1 KUBE_LAB_SERVERS=debian $(BIN)/python -m pytest tests/cluster -m every_version

cluster-prometheus: $(STAMP) ## a real Prometheus on that cluster, every panel
	$(BIN)/python -m pytest tests/cluster/test_prometheus.py

bench-compression: $(STAMP) ## how much faster compressed models are, and how calibration scales
	$(BIN)/python tests/benchmarks/compression_scaling.py
	$(BIN)/python -m pytest -s tests/benchmarks/test_compression.py

bench: $(STAMP) ## benchmarks: ratios against named peers
	$(BIN)/python tests/benchmarks/exchange.py

recovery: $(STAMP) ## benchmark: from a kill to the next step beside torchrun and torchft; goodput
	$(BIN)/python tests/benchmarks/recovery/run.py
	$(BIN)/python tests/benchmarks/recovery/goodput.py

generate: $(STAMP) ## write the generated files: CRD, its reference, manifests, dashboards, metrics' docs
	$(BIN)/python -m shardwise.api.crd
	$(BIN)/python manifests/generate.py
	$(BIN)/python -m shardwise_operator.dashboards

format: $(STAMP) ## format and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: $(STAMP) ## write requirements/lock.txt from what .venv holds
	scripts/lock.sh

clean: ## remove what these targets made
	rm -rf $(VENV) out .mypy_cache .ruff_cache .pytest_cache .hypothesis
