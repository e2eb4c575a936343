# make bench        set up and run the main sweep; ARGS="stage=3 gpus=2" adds overrides
# make test         set up and run all checks
# make exhaustive   the combinations of settings that make test leaves out
# make check        the quick ones: lint, types, architecture and unit tests, on two cores at once
# make ui           open MLflow's UI on the store of the sweeps
# make setup        only install, from uv.lock into .venv
# make claims       measure what is said about DDP and ZeRO; ARGS="A16" only one claim
# make gate         count every engine and stage, against results/reference/cpu-gloo/exact.json
# make nightly      what a GPU runner does each night; without a GPU, the same in small
# make cluster-lab  emulated nodes of a cluster on this machine; ARGS="up 2", "at n1 COMMAND", "die n2" or down
# make docs         build the documents as a site in site/, with all links checked
# make microbench   time the suite's own hot paths
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
UV := uv==0.13.8
SYNC := $(VENV)/bin/uv sync --frozen --inexact --extra accelerate --extra deepspeed --extra fabric --extra hf --extra timm --compile-bytecode --quiet --python $(RUN)
ARGS ?=

.PHONY: bench test exhaustive check ui setup dependencies format lint claims gate nightly cluster-lab microbench docs clean

bench: setup
	$(RUN) -m bench experiment=default $(ARGS)

BESIDE := --numprocesses 2 --dist loadfile --no-loadscope-reorder  # else the longest files would come last
TYPES := $(RUN) -m mypy & types=$$!  # on one core, while tests run
ALONE := $$(grep -rl --include='test_*.py' pytest.mark.alone tests)  # only these are imported
test: format
	$(TYPES); \
	$(RUN) -m pytest $(BESIDE) -m "not alone and not exhaustive"; beside=$$?; \
	wait $$types; types=$$?; \
	$(RUN) -m pytest $(ALONE) -m "alone and not exhaustive" && exit $$((beside + types))

exhaustive: setup
	$(RUN) -m pytest $(BESIDE) -m exhaustive

check: format
	$(TYPES); \
	$(RUN) -m pytest tests/architecture tests/unit $(BESIDE) -m "not exhaustive"; tests=$$?; \
	wait $$types && exit $$tests

ui: setup
	@$(RUN) -m bench.tracking.ui $(ARGS)

lint: format
	$(RUN) -m mypy

format: setup
	$(RUN) -m ruff check
	$(RUN) -m ruff format --check

claims: setup
	$(RUN) -m claims $(ARGS)

EXACT := results/runs/exact-$(shell date +%Y-%m-%d_%H-%M-%S)
gate: setup
	$(RUN) -m bench experiment=exact hydra.sweep.dir=$(EXACT) || true
	$(RUN) -m analysis gate $(EXACT) --baseline results/reference/cpu-gloo/exact.json $(ARGS)

nightly: setup
	scripts/nightly.sh

cluster-lab: setup
	$(RUN) -m tests.cluster_lab $(ARGS)

microbench: setup
	$(RUN) -m pytest benchmarks --benchmark-only

docs: setup
	$(SYNC) --group docs
	$(RUN) scripts/reference_pages.py
	$(VENV)/bin/mkdocs build

setup: $(VENV)/.ready

$(VENV)/.ready: $(VENV)/bin/uv pyproject.toml uv.lock
	$(SYNC)
	touch $@

dependencies: $(VENV)/bin/uv
	$(SYNC) --no-install-project

$(VENV)/bin/uv:
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check $(UV)

clean:
	rm -rf $(VENV)
