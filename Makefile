# `make demo` is all a new clone needs; `make test` is what .ci/run runs.
PYTHON ?= python3.11
VENV := .venv/bin
# uv looks into neither pip's find-links nor its index; where pip has none these change nothing.
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
ifdef PIP_INDEX_URL
export UV_DEFAULT_INDEX ?= $(PIP_INDEX_URL)
endif

.PHONY: demo test lint install ui mlflow browse tiny-backbone clean

demo: install
	$(VENV)/python -m flows.pipeline

test: lint
	$(VENV)/pytest -n logical --dist loadfile --no-loadscope-reorder --cov --cov-report=term:skip-covered

lint: install
	$(VENV)/ruff check .
	$(VENV)/ruff format --check .
	$(VENV)/mypy
	$(VENV)/lint-imports

# Bytecode is written once here: where PYTHONDONTWRITEBYTECODE is set, every process would compile anew for 20 s.
install: .venv/.installed

.venv/.installed: constraints.txt pyproject.toml
	test -x $(VENV)/python || $(PYTHON) -m venv .venv
	test -x $(VENV)/uv || $(VENV)/python -m pip install --quiet uv
	$(VENV)/uv pip install --compile-bytecode --python $(VENV)/python -r constraints.txt
	$(VENV)/uv pip install --python $(VENV)/python --no-deps -e .
	touch $@

ui: install  # Prefect's pages at http://127.0.0.1:4200, the pipeline ready to be started from there
	$(VENV)/python -m flows.pipeline --serve

mlflow: install  # runs and registered models at http://127.0.0.1:5000
	MLFLOW_DISABLE_TELEMETRY=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false $(VENV)/mlflow server \
	  --backend-store-uri sqlite:///mlflow.db --host 127.0.0.1 --port 5000 --workers 1

browse: install  # the curated pictures in FiftyOne's App
	$(VENV)/pbe browse

tiny-backbone: install  # retrain the bundled weights by their recorded recipe
	$(VENV)/python -m pbe.demo.weights --out data/tiny

clean:  # everything the pipeline made, DVC's cache and the registry included; .venv stays
	rm -rf data/world-bucket data/raw data/boxes data/curated data/latents data/bench models reports/index.html reports/gallery.png \
	  .dvc/cache .dvc/tmp .prefect .fiftyone .pbe mlruns mlflow.db
