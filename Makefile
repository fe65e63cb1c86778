# Everything from a fresh clone. It needs Python 3.11 or newer (with venv) and make.
# `make help` lists what there is.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo docs gallery test fuzz lowest lint sbom bench clean

# The first interpreter that is new enough; override with PYTHON=/path/to/python3.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$p"; break; }; done)

DEMO := .venv/demo
TEST := .venv/test
LOWEST := .venv/lowest
DOCS := .venv/docs
SITE := site
DEMO_VIDEO := demo/sonomime-demo.mp4
PIP_INSTALL := bin/python -m pip install --disable-pip-version-check --quiet -c constraints.txt
# The environments depend on these; the code itself is used in place (editable).
INSTALL_INPUTS := pyproject.toml constraints.txt Makefile
# The user's shell must not lend the environments packages that they lack.
unexport PYTHONPATH PYTHONHOME

help:
	@echo 'make demo    animate the sample stills with the sample clips -> $(DEMO_VIDEO), -2.mp4'
	@echo 'make docs    the pages of docs/ as a site that needs no network -> $(SITE)/index.html'
	@echo 'make gallery make the moving pictures of docs/gallery/ again, from the samples'
	@echo 'make test    ruff, mypy, import rules, tests (all but those that need a GPU; JOBS=2 processes)'
	@echo 'make fuzz    feed ten thousand damaged files of each kind to their readers (about an hour)'
	@echo 'make lowest  the runtime with the oldest versions that it supports (Python 3.11 or 3.12)'
	@echo 'make lint    the checks of make test without the tests'
	@echo 'make sbom    sbom.json: every package of constraints.txt, for CycloneDX'
	@echo 'make bench   time a frame, stage by stage (BENCH="--frames 300 --json FILE")'
	@echo 'make clean   remove environments, caches and results'

define need_python
	@test -n '$(PYTHON)' || { echo 'error: no Python 3.11 or newer was found'; \
		echo 'hint: install one, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3'; exit 1; }
endef
define make_venv
	@$(or $(2),$(PYTHON)) -m venv $(1) || { echo 'error: cannot make the environment $(dir $@)'; \
		echo 'hint: on Debian and Ubuntu: apt install python3-venv'; exit 1; }
endef

# Made again when its inputs change, so that nothing is left in it that is no longer listed.
$(DEMO)/.installed: $(INSTALL_INPUTS)
	$(need_python)
	@echo 'Setting up $(DEMO): the runtime and ONNX Runtime, no torch'
	$(call make_venv,--clear $(DEMO))
	@$(DEMO)/$(PIP_INSTALL) -e '.[cpu]'
	@touch $@

$(TEST)/.installed: $(INSTALL_INPUTS)
	$(need_python)
	@echo 'Setting up $(TEST): this downloads torch and takes some minutes the first time'
	$(call make_venv,$(TEST))
	@$(TEST)/$(PIP_INSTALL) -e '.[cpu,openvino,train,dev,rtx,dicom,nrrd,live]'
	@mkdir -p .venv/link && ln -sfn ../.. .venv/link/sonomime
	@touch $@

# The oldest numpy has no wheel for 3.13. Then numpy>=1.26 becomes numpy~=1.26.0: the last of 1.26.
OLD_PYTHON ?= $(shell for p in python3.11 python3.12 python3; do "$$p" -c 'import sys; \
	sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null && { echo "$$p"; break; }; done)
$(LOWEST)/.installed: $(INSTALL_INPUTS)
	@test -n '$(OLD_PYTHON)' || { echo 'error: the oldest versions need Python 3.11 or 3.12'; \
		echo 'hint: install one, or name it: make lowest OLD_PYTHON=/path/to/python3.12'; exit 1; }
	@echo 'Setting up $(LOWEST): the oldest versions of what the runtime needs'
	$(call make_venv,--clear $(LOWEST),$(OLD_PYTHON))
	@$(LOWEST)/bin/python -c 'import tomllib; \
		p = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
		extras = [r for name in ("cpu", "openvino", "dicom", "nrrd", "live") for r in p["optional-dependencies"][name]]; \
		print(*(r.replace(">=", "~=") + ".0" for r in p["dependencies"] + extras), sep="\n")' \
		> $(LOWEST)/oldest.txt
	@$(LOWEST)/bin/python -m pip install --disable-pip-version-check --quiet -c $(LOWEST)/oldest.txt \
		-e '.[cpu,openvino,dicom,nrrd,live]' hypothesis onnx pytest pyyaml
	@touch $@

demo: $(DEMO)/.installed
	@mkdir -p $(dir $(DEMO_VIDEO))
	@$(DEMO)/bin/sonomime demo -o $(DEMO_VIDEO)
	@$(DEMO)/bin/python -c 'import importlib.util as u, sys; \
		sys.exit("error: torch is installed in $(DEMO)" if u.find_spec("torch") else 0)'
	@echo "$(CURDIR)/$(DEMO_VIDEO)"
	@echo "$(CURDIR)/$(DEMO_VIDEO:.mp4=-2.mp4)"

$(DOCS)/.installed: $(INSTALL_INPUTS)
	$(need_python)
	@echo 'Setting up $(DOCS): the runtime and Sphinx'
	$(call make_venv,--clear $(DOCS))
	@$(DOCS)/$(PIP_INSTALL) -e '.[docs]'
	@touch $@

# Every warning is an error: a link or anchor that leads nowhere, a page that no menu has.
docs: $(DOCS)/.installed
	@rm -rf $(SITE)
	@$(DOCS)/bin/sphinx-build --builder html --fresh-env --fail-on-warning --keep-going --quiet \
		--doctree-dir $(DOCS)/doctrees docs $(SITE)
	@echo "$(CURDIR)/$(SITE)/index.html"

# GALLERY=FOLDER keeps the simulated clips, which take most of the time.
gallery: $(DEMO)/.installed
	@$(DEMO)/bin/python docs/make_gallery.py $(GALLERY)

lint: $(TEST)/.installed
	$(TEST)/bin/ruff check .
	$(TEST)/bin/ruff format --check .
	$(TEST)/bin/mypy
	$(TEST)/bin/lint-imports

# Processes that share the tests, file by file. Each has one thread (tests/conftest.py) and takes up to 2 GB.
JOBS ?= 2
test: lint
	$(TEST)/bin/pytest -n $(JOBS) --dist loadfile -m 'not gpu'

fuzz: $(TEST)/.installed
	SONOMIME_FUZZ=10000 $(TEST)/bin/pytest -n $(JOBS) -o faulthandler_timeout=0 tests/fuzz

# The kernels' tests compare with torch, which is not installed there.
lowest: $(LOWEST)/.installed
	$(LOWEST)/bin/python -m pytest -m 'not gpu' tests/runtime --ignore=tests/runtime/csrc \
		--ignore=tests/runtime/backends/test_composer_faked.py

sbom:
	$(need_python)
	$(call make_venv,--clear .venv/sbom)
	@.venv/sbom/bin/python -m pip install --disable-pip-version-check --quiet 'cyclonedx-bom>=7.5,<8'
	@.venv/sbom/bin/cyclonedx-py requirements constraints.txt --pyproject pyproject.toml \
		--output-reproducible --of JSON -o sbom.json
	@echo '$(CURDIR)/sbom.json'

bench: $(TEST)/.installed
	$(TEST)/bin/sonomime bench $(BENCH)

clean:
	rm -rf .venv demo $(SITE) sbom.json build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
