# Two commands for a newcomer: `make demo` and `make test`. Both set up everything they need.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
EXTRAS := $(VENV)/.installed-extras
# Debian's packages for `make test-extras`, beside pip's: servers, a cluster, a browser, LaTeX
DEBIAN := postgresql slurm-client slurmctld slurmd munge chromium texlive-latex-base texlive-latex-recommended
# One process for each core; more than eight only wait for each other
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist worksteal

.PHONY: demo test test-extras bench ui clean

demo: $(STAMP)
	$(BIN)/python sweeps/run.py ablation=stm

test: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(PYTEST)

# What needs a server, a cluster or a browser. Installs them: as root, or with sudo; EXTRAS_REQUIRED=0 skips what is not
# there instead of failing.
test-extras: $(EXTRAS)
	EXTRAS_REQUIRED=$${EXTRAS_REQUIRED-1} OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile tests/extras

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

$(EXTRAS): $(STAMP) Makefile
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test,slurm,ray,postgres,browser]'
	ROOT="$$(test $$(id -u) = 0 || echo sudo) env DEBIAN_FRONTEND=noninteractive"; \
	dpkg-query -W $(DEBIAN) >/dev/null 2>&1 || test "$$EXTRAS_REQUIRED" = 0 || \
	  { $$ROOT apt-get update -q && $$ROOT apt-get install -q -y --no-install-recommends $(DEBIAN); }
	touch $@

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache *.egg-info
