# make train   install, train on synthetic rooms, print the table, draw predictions
# make test    install, run all tests
# make lint    install, ruff and mypy
# make benchmark   install, train all architectures on small synthetic rooms, write a report
# make docs    install, build the site into build/docs
# make speed   install, measure what data, training step, evaluation and inference cost

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
CONFIG ?= configs/synthetic/quick.yaml
SUITE ?= benchmarks/quick.yaml

export NO_ALBUMENTATIONS_UPDATE := 1
# Where it is set, every process compiles torch and all the rest anew: longer than most tests take.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: train test lint format benchmark docs speed install clean

train: $(INSTALLED)
	$(BIN)/python tools/train.py $(CONFIG) $(ARGS)

test: $(INSTALLED)
	$(BIN)/python -m pytest -n 2 --dist worksteal $(ARGS)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

benchmark: $(INSTALLED)
	$(BIN)/python tools/benchmark.py $(SUITE) $(ARGS)

docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 OMP_NUM_THREADS=1 $(BIN)/mkdocs build --strict --quiet
	@echo "site: build/docs/index.html"

# Packages of the site alone; nobody else needs them.
$(VENV)/.docs: $(INSTALLED)
	@set -e; \
	uv=$$(command -v uv || command -v $(BIN)/uv || true); \
	if [ -n "$$uv" ]; then install="$$uv pip install --quiet --python $(BIN)/python"; \
	else install="$(BIN)/python -m pip install --quiet"; fi; \
	$$install -e ".[docs]"
	@touch $@

speed: $(INSTALLED)
	$(BIN)/python tools/benchmark_speed.py $(CONFIG) $(ARGS)

install: $(INSTALLED)

# uv where it is there or can be had, else pip. The headless OpenCV is laid down last: it shares the
# folder cv2/ with opencv-python and, unlike it, needs no libGL.
$(INSTALLED): setup.cfg pyproject.toml
	@echo "installing into $(VENV) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@command -v uv >/dev/null || $(BIN)/python -m pip install --quiet uv || true
	@set -e; \
	uv=$$(command -v uv || command -v $(BIN)/uv || true); \
	if [ -n "$$uv" ]; \
	then install="$$uv pip install --quiet --python $(BIN)/python"; again=--reinstall; \
	else install="$(BIN)/python -m pip install --quiet"; again=--force-reinstall; fi; \
	$$install -e ".[dev]"; \
	version=$$($(BIN)/python -c \
	'from importlib.metadata import version; print(version("opencv-python-headless"))'); \
	$$install $$again --no-deps "opencv-python-headless==$$version"
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
