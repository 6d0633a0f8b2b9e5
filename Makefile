# Needs Python 3.11 or later with pip. Another Python than python3: make test PYTHON=python3.12
PYTHON ?= python3
VENV := .venv
RUN := runs/first

.DEFAULT_GOAL := help
.PHONY: help discover test check

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | expand -t 10

discover: $(VENV)/installed ## search for an optimizer; repeated, it goes on, or prints the finished table
	@if [ -e $(RUN)/run.sqlite ]; then $(VENV)/bin/evolion resume $(RUN); else $(VENV)/bin/evolion search --out $(RUN); fi

test: $(VENV)/installed-test ## run the tests
	$(VENV)/bin/pytest --numprocesses auto --maxprocesses 4 --dist loadscope --durations 15

check: $(VENV)/installed-test ## lint, types and import contracts
	@rm -rf build # setuptools would install deleted modules from there
	$(VENV)/bin/python -m pip install --quiet --no-deps --upgrade --target $(VENV)/check .
	bash .ci/check $(VENV)/bin $(VENV)/check

# The installs are editable: a stamp is out of date when pyproject.toml has changed, not when a source has.
# venv needs ensurepip, which Debian packages apart, only to bring pip in: the pip of PYTHON does that as well.
$(VENV)/installed: pyproject.toml
	$(call install,.)

$(VENV)/installed-test: pyproject.toml
	$(call install,.[test])
	@touch $(VENV)/installed

define install
@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "Evolion needs Python 3.11 or later, this is " + sys.version.split()[0] + ": try make PYTHON=python3.12")'
@echo "setting up $(VENV) (once, some minutes) ..."
@$(PYTHON) -m venv --without-pip $(VENV)
@$(PYTHON) -m pip --python $(VENV)/bin/python install --quiet --disable-pip-version-check pip --editable '$(1)'
@touch $@
endef
