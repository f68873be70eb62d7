# Everything this repository can do. `make help` lists it; the first call of any target sets up what it needs.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PROTOS := $(wildcard protos/*/v1/*.proto)
STUBS := build/stubs.stamp
PACKAGES := mesh coordinator cli order_svc inventory_svc payment_svc fulfillment_svc local
CODE := $(PACKAGES) bench tests

## help: list the targets
.PHONY: help
help:
	@sed -n 's/^## //p' $(MAKEFILE_LIST) | awk -F': ' '{ printf "  %-18s %s\n", $$1, $$2 }'

# --- set-up -----------------------------------------------------------------

## setup: virtual environment, pinned dependencies, generated stubs
.PHONY: setup
setup: $(VENV)/ready $(STUBS)

$(VENV)/ready: requirements-dev.lock
	@echo "Installing pinned dependencies into $(VENV) (once)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@

## proto: generate the Python stubs from protos/
.PHONY: proto
proto: $(STUBS)

$(STUBS): $(PROTOS) | $(VENV)/ready
	@mkdir -p build
	@$(MAKE) --no-print-directory stubs PY=$(BIN)/python
	@touch $@

# The Dockerfile runs this same step with its own Python.
PY ?= $(BIN)/python
.PHONY: stubs
stubs:
	@$(PY) -m grpc_tools.protoc -I. -I"$$($(PY) -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')" \
	  --python_out=. --pyi_out=. --grpc_python_out=. $(PROTOS)

# Drives the services from outside, as their users do; nothing else needs Go.
GRPCURL := build/bin/grpcurl
## build/bin/grpcurl: the client that `make up` prints commands for; needs Go
$(GRPCURL):
	@echo "Installing grpcurl into $(@D) (once)"
	@mkdir -p $(@D)
	@GOBIN="$(CURDIR)/$(@D)" go install github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.3

## lock: pin the newest allowed versions of all dependencies, with hashes
.PHONY: lock
lock: $(VENV)/ready
	@$(BIN)/pip install --quiet uv
	@for extra in "" dev; do $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --upgrade --generate-hashes --no-annotate \
	  --no-header --no-emit-index-url $${extra:+--extra $$extra} pyproject.toml -o requirements$${extra:+-$$extra}.lock; done
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --upgrade --generate-hashes --no-annotate \
	  --no-header --no-emit-index-url bench/peers/requirements.in -o bench/peers/requirements.txt

# Not even `kill -9` of make leaves a process of the mesh behind.
LEASH := $(BIN)/python -I -S local/leash.py

# --- checks -----------------------------------------------------------------

## check: format, lint, types, imports, protos, generated documents
.PHONY: check
check: fmt-check lint types imports proto-lint proto-breaking docs-check

## fmt: format the code
.PHONY: fmt
fmt: setup
	@$(BIN)/ruff format --quiet . && $(BIN)/ruff check --quiet --fix-only .

.PHONY: fmt-check
fmt-check: setup
	@$(BIN)/ruff format --check .

## lint: ruff with the house rules
.PHONY: lint
lint: setup
	@$(BIN)/ruff check .

## types: mypy --strict
.PHONY: types
types: setup
	@$(BIN)/mypy $(CODE)

## imports: the direction of the layers
.PHONY: imports
imports: setup
	@PYTHONPATH=. $(BIN)/lint-imports

## proto-lint: buf lint over the contracts
.PHONY: proto-lint
proto-lint: setup
	@$(BIN)/buf lint

build/contracts.binpb: $(PROTOS) | $(VENV)/ready
	@mkdir -p build
	@$(BIN)/python -m grpc_tools.protoc -Iprotos -Ithird_party --include_imports --include_source_info -o $@ $(PROTOS)

## proto-breaking: the contracts against the committed descriptor set
.PHONY: proto-breaking
proto-breaking: setup build/contracts.binpb
	@$(BIN)/buf breaking build/contracts.binpb --against protos/contracts.binpb

## proto-accept: make the present contracts the ones that later changes are held against
.PHONY: proto-accept
proto-accept: setup
	@$(BIN)/python -m grpc_tools.protoc -Iprotos -Ithird_party --include_imports -o protos/contracts.binpb $(PROTOS)

## docs: generate the state diagrams from the transition tables
.PHONY: docs
docs: setup
	@$(BIN)/python -m docs.states --write docs/states.md

.PHONY: docs-check
docs-check: setup
	@$(BIN)/python -m docs.states --check docs/states.md

# --- tests ------------------------------------------------------------------

# Tests wait more than they work: one worker more than there are cores, but no more than four, for
# each has databases of its own.
PARALLEL = -n $(shell cores=$$(nproc); echo $$((cores < 4 ? cores + 1 : 4)))

## test: every test there is to run on this machine
.PHONY: test
test: setup $(if $(shell command -v go),$(GRPCURL))
	@$(BIN)/pytest $(PARALLEL)

## test/unit: the pure tests, in seconds
.PHONY: test/unit
test/unit: setup
	@$(BIN)/pytest tests/unit

## test/contract: one suite for every journal and every barrier
.PHONY: test/contract
test/contract: setup
	@$(BIN)/pytest tests/contract

## test/integration: services on embedded databases
.PHONY: test/integration
test/integration: setup
	@$(BIN)/pytest tests/integration

## simulate: SEEDS=n simulated worlds (20,000), or world SEED=n again, with its trace
.PHONY: simulate
simulate: setup
	@SEEDS=$(or $(SEEDS),20000) $(if $(SEED),SEED=$(SEED)) $(BIN)/pytest $(PARALLEL) tests/simulation -k promise

## crash-points: a coordinator killed at every write and every send of every story
.PHONY: crash-points
crash-points: setup
	@$(BIN)/pytest tests/crash_points -m ''

## e2e: real processes, public API and grpcurl
.PHONY: e2e
e2e: setup $(if $(shell command -v go),$(GRPCURL))
	@$(BIN)/pytest tests/e2e

## chaos: MINUTES=n of faults under orders (1), with SEED=n and RATE=orders a second
.PHONY: chaos
chaos: setup
	@$(LEASH) $(BIN)/python -m tests.chaos --minutes $(or $(MINUTES),1) --rate $(or $(RATE),5) $(if $(SEED),--seed $(SEED))

## chaos/check: the history in FOLDER=..., checked again
.PHONY: chaos/check
chaos/check: setup
	@$(BIN)/python -m tests.chaos --check $(FOLDER)

# --- speed ------------------------------------------------------------------

BENCH := $(LEASH) $(BIN)/python -m bench

## bench: how fast it is, in bench/results/latest.json; FULL=1 with 10 M finished sagas; needs Go
.PHONY: bench
bench: setup
	@$(BENCH) $(if $(FULL),--full)

## bench-peers: the same with DTM, DBOS and Temporal taking turns; builds them into build/peers
.PHONY: bench-peers
bench-peers: setup
	@$(BENCH) --peers $(if $(FULL),--full)

## bench-two-phase: the same order by PREPARE TRANSACTION and by a saga, and a coordinator that dies in it
.PHONY: bench-two-phase
bench-two-phase: setup
	@$(BENCH).two_phase

## bench-quick: fails when a saga costs a quarter more than bench/baseline.json says; needs Go
.PHONY: bench-quick
bench-quick: setup
	@$(BENCH).quick

## bench-accept: make the present cost the one that later changes are held against
.PHONY: bench-accept
bench-accept: setup
	@$(BENCH).quick --accept

# --- run --------------------------------------------------------------------

## demo: the whole mesh, five orders, five promises checked in the databases
.PHONY: demo
demo: setup
	@$(LEASH) $(BIN)/python -m local demo

## up: the whole mesh with COORDINATORS=n (1), to stay; prints grpcurl commands
.PHONY: up
up: setup
	@$(LEASH) $(BIN)/python -m local up --coordinators $(or $(COORDINATORS),1)

## clean-data: remove what `make up` has stored
.PHONY: clean-data
clean-data:
	@rm -rf data

## clean: remove everything that was built, the virtual environment too
.PHONY: clean
clean:
	@rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find . -name '*_pb2*.py*' -not -path './.venv/*' -delete
