# Every command that people and CI run. `make` lists them.
.NOTPARALLEL:
.PHONY: help setup demo test unit integration check format bench chaos lock clean
PYTHON ?= python3
BIN := .venv/bin
CHAOS_RESULTS := $(CURDIR)/benchmarks/results/reliability-chaos.jsonl

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup:  ## make .venv and install the pinned CPU environment (2 minutes the first time)
	@PYTHON="$(PYTHON)" packaging/setup.sh

demo: setup  ## answer a sample archive with a tiny model, on this machine's CPU
	@$(BIN)/lsi demo

test: setup check unit integration  ## everything that CI runs

unit: setup  ## the tests without Ray and vLLM (under a minute)
	@echo "unit tests, and the simulation of faults by seed"
	@$(BIN)/pytest -q tests/unit tests/simulation

integration: setup  ## the tests with real Ray, vLLM and S3 on this machine
	@echo "integration tests: real Ray and vLLM start many times, this takes minutes"
	@$(BIN)/pytest tests/integration

check: setup  ## formatting, lint, types
	@echo "ruff format, ruff check, mypy"
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy --no-error-summary

format: setup  ## let ruff format and mend
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: setup  ## measure lsi beside its peers and against its bars (30 minutes on 2 quiet cores; MINUTES=120 for more)
	@$(BIN)/python benchmarks/all.py --minutes $(or $(MINUTES),30)

chaos: setup  ## faults at length: 10,000 simulated seeds, storms of kill -9 on real Ray (under an hour); a table of results
	@$(BIN)/python benchmarks/reliability.py
	@rm -f $(CHAOS_RESULTS)
	@LSI_CHAOS_RESULTS=$(CHAOS_RESULTS) $(BIN)/pytest tests/chaos; code=$$?; \
		$(BIN)/python benchmarks/reliability_table.py && exit $$code

lock: setup  ## resolve requirements/cpu.txt again; `make lock UPGRADE=1` takes newer versions
	@$(BIN)/python packaging/lock.py $(if $(UPGRADE),--upgrade)

clean:  ## remove caches and the demo's output; .venv stays
	@rm -rf build demo *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
