# Two commands for everyone: `make demo` and `make test`. `make check` is for those who change the code.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: help demo test slow check bench clean

help:
	@echo "make demo    make an environment, train LeNet-5 on real handwritten digits, say where to look"
	@echo "make test    make an environment and run the tests"
	@echo "make check   lint, types, contracts and docs"
	@echo "make slow    the tests that take minutes"
	@echo "make bench   the benchmarks (with Keras, in an environment of their own)"

# The stamps say which pins were installed, so a changed pin reinstalls and an unchanged one costs nothing.
$(VENV)/python.ok:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Pellucid needs Python 3.11 or newer; this is %s. Try: make PYTHON=python3.12" % sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/run.ok: $(VENV)/python.ok pyproject.toml constraints.txt
	$(PIP) install -q -c constraints.txt --editable .
	@touch $@

$(VENV)/dev.ok: $(VENV)/run.ok
	$(PIP) install -q -c constraints.txt --editable '.[dev]'
	@# An oracle for the tests. Alone, since what it would bring is another build of torch.
	$(PIP) install -q --no-deps torchvision==0.29.2
	@touch $@

$(VENV)/networks.ok: $(VENV)/dev.ok
	$(PIP) install -q -c constraints.txt --editable '.[networks]'
	@touch $@

demo: $(VENV)/run.ok
	$(BIN)/pellucid train digits --net lenet5

# One thread a process: two test processes with two threads each would wait for each other at every barrier.
test: $(VENV)/dev.ok
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n 2 --dist worksteal -q $(ARGS)

slow: $(VENV)/networks.ok
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow -q $(ARGS)

check: $(VENV)/dev.ok
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/contracts

bench:
	$(MAKE) -C benchmarks PYTHON=$(PYTHON)

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
