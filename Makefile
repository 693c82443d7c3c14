# A new clone needs only `make demo`; .ci/run runs `make test COVERAGE=1`, then `make long-test`.
PYTHON ?= python3.11
VENV := .venv/bin
# uv does not read pip's find-links and index; where pip has none, these lines change nothing.
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
ifdef PIP_INDEX_URL
export UV_DEFAULT_INDEX ?= $(PIP_INDEX_URL)
endif

.PHONY: demo photo test long-test lint install ui up down status mlflow browse tiny-backbone photo-backbone docs examples chaos clean

demo: install
	$(VENV)/python -m flows.pipeline

# FOD_A is the folder of the photographs, and is needed once.
photo: install  # runs the whole pipeline on photographs, in projects/photo: make photo FOD_A=DIR
	$(if $(FOD_A),ln -sfn $(abspath $(FOD_A)) projects/photo/data/fod-a)
	cd projects/photo && ../../$(VENV)/python -m flows.pipeline

# COVERAGE=1 also measures the covered lines, which takes a third more time.
PYTEST := $(VENV)/pytest -n logical --dist loadfile --no-loadscope-reorder

test: lint
	$(PYTEST) -m "not long" $(if $(COVERAGE),--cov --cov-report=term:skip-covered)

long-test: install  # trainings on Ray, runs that are killed, and clusters of several nodes
	$(PYTEST) -m long

lint: install
	$(VENV)/ruff check .
	$(VENV)/ruff format --check .
	$(VENV)/mypy --num-workers auto
	$(VENV)/lint-imports

# Compiles bytecode once: with PYTHONDONTWRITEBYTECODE set, every process would otherwise compile for 20 s.
install: .venv/.installed

.venv/.installed: constraints.txt pyproject.toml
	test -x $(VENV)/python || $(PYTHON) -m venv .venv
	test -x $(VENV)/uv || $(VENV)/python -m pip install --quiet uv
	$(VENV)/uv pip install --compile-bytecode --python $(VENV)/python -r constraints.txt
	$(VENV)/uv pip install --python $(VENV)/python --no-deps -e .
	touch $@

ui: install  # Prefect's UI at http://127.0.0.1:4200, where you can start the pipeline
	$(VENV)/python -m flows.pipeline --serve

mlflow: install  # runs and registered models at http://127.0.0.1:5000
	$(VENV)/python -m flows.mlflow_server

# Prefect with a worker and the deployments of prefect.yaml, MLflow, the painting page and the reports, in the background.
# FIFTYONE=1 adds FiftyOne's App, and FLAGS="--mlflow-port 5001" moves a port.
up: install
	$(VENV)/python -m flows.services up $(if $(FIFTYONE),--fiftyone) $(FLAGS)

down:  # stops the runs and all services
	$(VENV)/python -m flows.services down

status:  # which services answer
	$(VENV)/python -m flows.services status

browse: install  # the curated images in FiftyOne's App
	$(VENV)/pbe browse

tiny-backbone: install  # retrains the bundled weights by their recorded recipe
	$(VENV)/python -m pbe.demo.weights --out data/tiny

# The photographs are packed into data/photographs.zip once; a run that was killed resumes with the same bits.
photo-backbone: install  # retrains data/photo by its recorded recipe: make photo-backbone FOD_A=DIR PHOTOS=DIR
	@test -f data/photographs.zip || test -n "$(FOD_A)" -a -n "$(PHOTOS)" || { \
	  echo "name the folders of the photographs: make photo-backbone FOD_A=DIR PHOTOS=DIR (docs/photographs-backbone.md)"; exit 2; }
	$(VENV)/python -m pbe.demo.photo_weights --out data/photo --packed data/photographs.zip \
	  $(if $(FOD_A),--fod-a "$(FOD_A)") $(if $(PHOTOS),--photos "$(PHOTOS)")

docs: install  # this project's documentation as a site, site/index.html; broken links and anchors are errors
	NO_MKDOCS_2_WARNING=1 PYTHONPATH=. $(VENV)/mkdocs build --strict --quiet
	@echo site/index.html

examples: install  # paints docs/examples with the bundled painter of photographs
	$(VENV)/python docs/examples/paint.py

chaos: install  # disturbs every stage at random moments for at most an hour: make chaos FLAGS="--seed 1 --minutes 10"
	$(VENV)/python -m benchmarks.chaos $(FLAGS)

clean:  # deletes all outputs, DVC's cache, the registry with its models, and Prefect's and FiftyOne's databases; keeps .venv
	if test -d .pbe/services; then $(VENV)/python -m flows.services down; fi
	rm -rf data/world-bucket data/raw data/boxes data/curated data/latents data/bench data/*.aside models reports/index.html reports/gallery.png reports/models \
	  reports/evaluation reports/registered.json reports/*.aside .dvc/cache .dvc/tmp .prefect .fiftyone .pbe mlruns mlflow.db site
	for made in data/raw data/boxes data/curated data/latents data/bench models reports/evaluation reports/index.html \
	  reports/gallery.png reports/models reports/registered.json .prefect .fiftyone .pbe mlruns mlflow.db; do rm -rf projects/*/$$made; done
