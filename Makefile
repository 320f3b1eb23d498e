PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help demo test check docs bench clean

help: ## show this
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST)

$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,bench]'
	touch $@

demo: $(INSTALLED) ## build resnet20 INT8 for both CPU runtimes from shipped weights, and compare
	$(BIN)/qzoo build resnet20 --int8 --target onnxruntime --target openvino

test: $(INSTALLED) ## run the tests
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --maxprocesses 4 --dist worksteal

check: $(INSTALLED) ## lint, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy qzoo plugins/qzoo_mfcnn plugins/qzoo_mobilenet plugins/qzoo_resnet plugins/qzoo_timm weights benchmarks
	$(BIN)/lint-imports

docs: $(INSTALLED) ## build the pages into docs/_build, warnings as errors
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build

bench: $(INSTALLED) ## measure against the peers on this machine
	$(BIN)/python benchmarks/peers.py

clean: ## remove the virtual environment and caches
	rm -rf docs/_build $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
