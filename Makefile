# Everything runs in a virtual environment that the first target sets up.
PYTHON ?= python3
VENV ?= .venv

BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
CPP := $(wildcard csrc/*.cc csrc/*/*.cc csrc/*/*.h)

.PHONY: demo test gpu-check gpu-bench lint format bench clean

demo: $(INSTALLED)  ## score real groups with the embedded inverter
	$(BIN)/flipfast demo

test: $(INSTALLED)  ## all tests
	$(BIN)/pytest

gpu-check: $(INSTALLED)  ## the tests that need a CUDA device
	$(BIN)/pytest -m gpu

lint: $(INSTALLED)  ## what CI checks besides the tests
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/clang-format --dry-run --Werror $(CPP)
	$(BIN)/mypy

format: $(INSTALLED)  ## mend what lint can mend by itself
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/clang-format -i $(CPP)

bench: $(INSTALLED)  ## benchmarks; results go to the terminal
	$(BIN)/pytest bench

gpu-bench: $(INSTALLED)  ## the benchmarks that need a CUDA device
	$(BIN)/pytest bench -m gpu

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .benchmarks

# An editable install: Python changes act at once, C++ changes rebuild here.
$(INSTALLED): pyproject.toml constraints.txt CMakeLists.txt $(CPP)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt \
		$(BIN)/python -m pip install -e '.[dev]'
	touch $@
