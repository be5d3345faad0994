# Two commands for a newcomer: `make demo` and `make test`. Both set up everything they need.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: demo test bench ui clean

demo: $(STAMP)
	$(BIN)/python sweeps/run.py ablation=stm

test: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest

bench: $(STAMP)
	$(BIN)/python -m tests.benchmarks

# MLflow's pages over the records of $(RUNS), on this machine only: http://127.0.0.1:$(PORT)
RUNS ?= runs
PORT ?= 5000
ui: $(STAMP)
	@test -f $(RUNS)/mlflow/mlflow.db || { echo "error: $(RUNS): nothing to show yet; run make demo, or RUNS=DIR"; exit 2; }
	MLFLOW_DISABLE_TELEMETRY=true $(BIN)/python -m mlflow ui --host 127.0.0.1 --port $(PORT) --workers 1 \
		--backend-store-uri sqlite:///$(abspath $(RUNS))/mlflow/mlflow.db

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	touch $@

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache *.egg-info
