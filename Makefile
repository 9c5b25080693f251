# make train       install, train on synthetic rooms, print the table, draw predictions
# make test        install, run all tests
# make lint        install, run ruff and mypy
# make format      install, format the code
# make benchmark   install, train all decoders on small synthetic rooms, write a report
# make demo        install, run RUN (or the shipped model) on four photographs, draw into build/demo
# make docs        install, build the documentation into build/docs
# make speed       install, measure the speed of data, training step, evaluation and inference

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
CONFIG ?= configs/synthetic/quick.yaml
RUN ?= densemtl/lite0-six
SUITE ?= benchmarks/quick.yaml

export NO_ALBUMENTATIONS_UPDATE := 1
# Without bytecode files, every process compiles all imported modules, which dominates the tests.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: train test lint format benchmark demo docs speed install clean

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

demo: $(INSTALLED)
	$(BIN)/python examples/public_photos.py build/demo/photos
	$(BIN)/python tools/demo.py $(RUN) build/demo/photos --output build/demo $(ARGS)

docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 OMP_NUM_THREADS=1 $(BIN)/mkdocs build --strict --quiet
	@echo "documentation: build/docs/index.html"

# Packages that only the documentation needs.
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

# Install by uv if it is available or can be installed, otherwise by pip. The headless OpenCV is
# installed last, as it shares the folder cv2/ with opencv-python but does not need libGL.
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
