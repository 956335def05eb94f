# Two commands do everything: `make run` and `make test`. PYTHON picks the interpreter.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUN ?=
# `--no-compile` leaves alone what nothing imports; what is imported is compiled once, so let it be kept.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: run test coverage test-models test-container check bench-live bench-overload bench-talk bench-jobs bench-idle bench-fair bench-engines docs web-vendor screenshots lock clean

run: $(VENV)/run.done
	@PATH="$(abspath $(BIN)):$$PATH" exec $(BIN)/voxray run $(RUN)

test: $(VENV)/test.done $(VENV)/clients.done $(VENV)/web.done
	$(BIN)/python -m $(if $(TESTS),pytest $(TESTS),tests.suite)

# Of the tests without Ray, which runs the application in processes of its own. It doubles their CPU time.
coverage: $(VENV)/test.done $(VENV)/clients.done
	$(BIN)/python -m pytest -m "not ray and not cluster and not container" -n 2 --dist loadfile --tb=native \
	  --cov --cov-report=term:skip-covered

# The real models, tiny, through the real libraries: an environment of its own, without a GPU.
test-models: $(VENV)/models.done
	$(VENV)/models/bin/pytest $(or $(TESTS),tests/real_engines)

# Builds the image without a registry and runs it: minutes, as root, with Debian's buildah, mmdebstrap and runc.
test-container: $(VENV)/test.done
	$(BIN)/python -m pytest -m container -o faulthandler_timeout=2000 tests/deploy

check: $(VENV)/test.done $(VENV)/web.done
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	tests/web/node_modules/.bin/tsc -p tests/web/tsconfig.json
	tests/web/node_modules/.bin/biome check --error-on-warnings .

bench-live: $(VENV)/test.done
	$(BIN)/python -m loadtest.bench_live $(BENCH)

bench-overload: $(VENV)/test.done
	$(BIN)/python -m loadtest.bench_overload $(BENCH)

bench-talk: $(VENV)/test.done
	$(BIN)/python -m loadtest.bench_talk $(BENCH)

bench-idle: $(VENV)/test.done
	$(BIN)/python -m loadtest.bench_idle $(BENCH)

bench-fair: $(VENV)/test.done
	$(BIN)/python -m loadtest.bench_fair $(BENCH)

bench-engines: $(VENV)/models.done
	$(VENV)/models/bin/python -m loadtest.bench_engines $(BENCH)

bench-jobs: $(VENV)/test.done
	$(BIN)/python -m loadtest.bench_jobs $(BENCH)

docs: $(VENV)/test.done
	$(BIN)/python -m docs.generate

# Puts the libraries of tests/web/package.json into the page.
web-vendor: $(VENV)/web.done
	node tests/web/vendor.mjs

# The pictures of README and docs, with Chromium.
screenshots: $(VENV)/test.done
	$(BIN)/python -m docs.screenshots

clean:
	rm -rf $(VENV) tests/clients/node_modules tests/web/node_modules

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "voxray needs Python 3.11 or newer; this is $$($(PYTHON) --version). Try: make run PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# The exact versions of `requirements/`, each file's hash checked. They are all that is needed: with `--no-deps` pip does not
# look for newer ones of what is named with an extra. Then this checkout, which the build tool there builds.
define install
$(BIN)/pip install --quiet $(1) --disable-pip-version-check --no-deps --require-hashes --requirement $(2)
$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
endef

$(VENV)/run.done: requirements/run.txt pyproject.toml | $(BIN)/python
	$(call install,,requirements/run.txt)
	@touch $@

$(VENV)/test.done: requirements/test.txt pyproject.toml | $(BIN)/python
	$(call install,--no-compile,requirements/test.txt)
	@touch $@ $(VENV)/run.done

# The versions that `run` and `test` share are the same. LOCK=--upgrade takes newer ones.
UV = $(VENV)/lock/bin/uv pip compile --quiet --python-version 3.11 --generate-hashes --no-annotate \
  --custom-compile-command "make lock" --default-index https://pypi.org/simple --group build pyproject.toml --extra all

# `gpu.txt` is for the container on Linux; vLLM wants other versions of what it shares with the rest.
lock: $(VENV)/lock/bin/uv
	$(UV) --universal $(LOCK) --extra loadtest --extra test --output-file requirements/test.txt
	$(UV) --universal --constraint requirements/test.txt --output-file requirements/run.txt
	$(UV) --python-platform x86_64-manylinux_2_28 $(LOCK) --extra gpu --extra kokoro --output-file requirements/gpu.txt

$(VENV)/lock/bin/uv: | $(BIN)/python
	$(PYTHON) -m venv $(VENV)/lock
	$(VENV)/lock/bin/pip install --quiet --disable-pip-version-check uv==0.13.9

# torch first: its CPU build; PyPI's torchvision, torchaudio and torchcodec are CUDA's and break it.
$(VENV)/models.done: pyproject.toml | $(BIN)/python
	$(PYTHON) -m venv $(VENV)/models
	$(VENV)/models/bin/pip install --quiet --no-compile --disable-pip-version-check torch==2.13.0
	$(VENV)/models/bin/pip install --quiet --no-compile --disable-pip-version-check \
	  --editable '.[all,transformers,kokoro,test-models,test]'
	$(VENV)/models/bin/pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch $@

# What checks the page; users of it need no Node.
$(VENV)/web.done: tests/web/package.json tests/web/package-lock.json | $(BIN)/python
	cd tests/web && npm ci --silent --no-audit --no-fund
	@touch $@

# Other people's clients pin what voxray pins otherwise; where they do not install, their tests are skipped.
$(VENV)/clients.done: tests/clients/requirements.txt tests/clients/package.json | $(BIN)/python
	cd tests/clients && npm install --silent --no-audit --no-fund --no-package-lock || true
	$(PYTHON) -m venv $(VENV)/clients && \
	  $(VENV)/clients/bin/pip install --quiet --no-compile --disable-pip-version-check -r $< || rm -rf $(VENV)/clients
	@touch $@
