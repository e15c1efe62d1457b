# The commands of the README. Everything they make lies under .venv and build.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help
UV_VERSION := 0.13.9
VENV := $(CURDIR)/.venv
UV := build/uv/bin/uv
COLLECTION := build/collections/ansible_collections/iopaint/fleet
export PATH := $(VENV)/bin:$(CURDIR)/build/uv/bin:$(PATH)
export ANSIBLE_COLLECTIONS_PATH := $(CURDIR)/build/collections
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg
export ANSIBLE_HOME := $(CURDIR)/build/ansible
export PYTHONDONTWRITEBYTECODE := 1
# Removing a host with an engine inside takes longer than the minute that the modules wait.
export DOCKER_TIMEOUT := 300

# The longest first, as two run at once. By their names: image-gpu takes gigabytes, bundle and registry-build ten minutes each.
SCENARIO ?= registry default fleet provision provision-ubuntu gpu site data image operations

.PHONY: help env demo demo-down lint unit scenarios test bench bench-fleet constraints modules
help: ## list the commands
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/  make \1	\2/p' $(MAKEFILE_LIST) | expand -t 22

env: .venv/.pinned ## .venv with every tool pinned, collections included

.venv/.pinned: requirements/dev.txt scripts/packages
	@scripts/packages
	[ -x $(UV) ] || { python3 -m venv build/uv && build/uv/bin/pip install -q uv==$(UV_VERSION); }
	[ -x .venv/bin/python ] || $(UV) venv -q --python 3.11 --no-python-downloads .venv || $(UV) venv -q --no-python-downloads .venv
	$(UV) pip install -q --python .venv/bin/python --require-hashes -r requirements/dev.txt
	mkdir -p $(dir $(COLLECTION))
	ln -sfn ../../../.. $(COLLECTION)
	touch $@

lint: env ## yamllint, ansible-lint (profile production), ruff, role arguments
	yamllint --strict .
	ansible-lint
	scripts/role-arguments
	scripts/readme-variables --check
	ruff check .
	ruff format --check .

unit: env ## unit tests of plugins and docker/entrypoint
	pytest -q

demo: env ## IOPaint on a test host on this machine, on http://127.0.0.1:8080
	@scripts/demo up

demo-down: env ## remove what `make demo` made
	@scripts/demo down

scenarios: env
	scripts/scenarios $(SCENARIO)

test: lint unit scenarios ## lint, unit tests and all scenarios; SCENARIO=default runs one
	@echo "make test: lint, unit tests and scenarios passed: $(SCENARIO)"

bench: env ## docker/ against the plain design: sizes, times and ratios; BENCH_OPTIONS="--runs 1"
	scripts/bench $(BENCH_OPTIONS)

bench-fleet: env ## status, an idle deploy and an idle upgrade at 1 to 20 hosts; BENCH_OPTIONS="--hosts 1 5"
	scripts/bench-fleet $(BENCH_OPTIONS)

constraints: env ## pin requirements/dev.txt and docker/constraints anew
	$(UV) pip compile -q --upgrade --generate-hashes --python-version 3.11 --no-emit-index-url --custom-compile-command "make constraints" \
	  requirements/dev.in -o requirements/dev.txt
	scripts/constraints

modules: ## docker/packages/modules.txt anew, from one image of each variant after `make constraints`; IMAGES="iopaint:cpu-latest …"
	scripts/modules $(IMAGES)
