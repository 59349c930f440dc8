# Two commands set up everything: `make demo` shows the main job, `make test` runs the tests.
# Everything is installed into .venv; nothing outside this directory is touched.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# torch is pinned so that pip takes one build everywhere and does not pull a newer one with a GPU stack.
TORCH := torch==2.13.0

.PHONY: demo test test-slow test-light check lint types imports format clean chromium screenshots

demo: $(VENV)/.train
	$(BIN)/genrec demo

test: $(VENV)/.dev chromium
	$(BIN)/pytest -m "not slow" --durations=20

test-slow: $(VENV)/.dev
	$(BIN)/pytest -m slow

# The promise of the light install: index and search work with torch not installed, and so does what was
# exported where it is.
test-light: .venv-light/.ready $(VENV)/.dev
	$(BIN)/python -m tests.write_light_bundles .venv-light/bundles
	.venv-light/bin/python tests/light_install.py .venv-light/bundles

# The browser that tests of the playground run in: Debian's, taken where there is none and we may. Where neither
# holds, those tests say why they are skipped.
chromium:
	@command -v chromium chromium-browser google-chrome >/dev/null \
	  || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
	    && { apt-get install -y -qq chromium >/dev/null || { apt-get update -qq && apt-get install -y -qq chromium >/dev/null; }; }; } \
	  || echo "no chromium: the tests of the playground will be skipped; install Debian's package chromium to run them"

# The three pictures of README, of the demo's bundle (`make demo` writes it) or of BUNDLE.
screenshots: $(VENV)/.dev chromium
	$(BIN)/genrec export $(or $(BUNDLE),runs/demo/works) --quiet
	$(BIN)/python -m benchmarks.screenshots $(or $(BUNDLE),runs/demo/works)

check: lint types imports

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

imports: $(VENV)/.dev
	$(BIN)/lint-imports

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) .venv-light .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

$(VENV)/bin/pip:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip

$(VENV)/.train: $(VENV)/bin/pip pyproject.toml
	$(BIN)/pip install --quiet $(TORCH)
	$(BIN)/pip install --quiet --editable '.[train]'
	touch $@

$(VENV)/.dev: $(VENV)/.train
	$(BIN)/pip install --quiet --editable '.[train,text,dev]'
	# Pyserini for its jar of Lucene; the sixty packages it asks for besides are not used.
	$(BIN)/pip install --quiet --no-deps pyserini==1.6.0
	touch $@

.venv-light/.ready: pyproject.toml
	$(PYTHON) -m venv .venv-light
	.venv-light/bin/pip install --quiet --upgrade pip
	.venv-light/bin/pip install --quiet --editable '.[serve]'
	touch $@
