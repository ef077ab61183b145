# Two commands do everything on a fresh machine with Python >= 3.11: `make demo` and `make test`.
# uv is used where it is installed; pip does otherwise.
PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready

.PHONY: demo test lint clean

demo: $(READY)
	$(VENV)/bin/ptychrome demo $(ARGS)

# Two files at a time: tests of beamlines and of whole sessions wait much.
# pytest-xdist would wait for ever for the file of a process that died and was replaced.
test: $(READY)
	$(VENV)/bin/python -m pytest -n 2 --dist loadfile --max-worker-restart=0 $(ARGS)

# mypy and import-linter follow files, not the finder of an editable install: they see a regular one.
lint: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	rm -rf build $(VENV)/lint && $(VENV)/bin/python -m pip install --quiet --no-deps --target $(VENV)/lint .
	PYTHONPATH=$(VENV)/lint $(VENV)/bin/lint-imports
	MYPYPATH=$(VENV)/lint $(VENV)/bin/mypy

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "ptychrome needs Python 3.11 or newer; $(PYTHON) is older: run make PYTHON=python3.x"; exit 1; }
	@echo "setting up $(VENV): about two minutes"
	@if command -v uv >/dev/null; then \
		uv venv --quiet --allow-existing --python $(PYTHON) $(VENV) && \
		uv pip install --quiet --python $(VENV)/bin/python -e '.[dev]'; \
	else \
		$(PYTHON) -m venv $(VENV) && $(VENV)/bin/python -m pip install --quiet -e '.[dev]'; \
	fi
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info
