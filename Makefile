# The commands of README.md and CONTRIBUTING.md. Everything they make lies under .venv and build.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help
MERMAID_VERSION := 11.17.2
MERMAID_SHA256 := 6ad2f42c3fc26bbf9e45cbb6d11898972573ea52b33a5f4ff51952899f950ffd
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

# The longest first, as two run at once. By their names: image-gpu takes gigabytes; bundle, collection-upgrade, models, provision-ubuntu,
# registry-build ten minutes each.
SCENARIO ?= gateway data fleet default registry provision gpu site image operations

.PHONY: help env demo demo-down lint unit conformance release supported scenarios test docs pictures bench bench-fleet bench-gateway constraints models
help: ## list the commands
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/  make \1	\2/p' $(MAKEFILE_LIST) | expand -t 22

env: .venv/.pinned ## .venv with every tool pinned, collections included

.venv/.pinned: requirements/dev.txt docker/constraints/tools.txt scripts/packages
	@scripts/packages
	[ -x $(UV) ] || { python3 -m venv build/uv && build/uv/bin/pip install -q --require-hashes -r docker/constraints/tools.txt; }
	[ -x .venv/bin/python ] || $(UV) venv -q --python 3.11 --no-python-downloads .venv || $(UV) venv -q --no-python-downloads .venv
	$(UV) pip install -q --compile-bytecode --python .venv/bin/python --require-hashes -r requirements/dev.txt
	mkdir -p $(dir $(COLLECTION))
	ln -sfn ../../../.. $(COLLECTION)
	touch $@

lint: env ## yamllint, ansible-lint (profile production), ruff, role arguments
	yamllint --strict .
	ansible-lint
	scripts/role-arguments
	scripts/role-docs --check
	scripts/models --check
	ruff check .
	ruff format --check .

# In an environment of its own, as its linters are tied to other versions of the same libraries.
build/conformance/venv/.pinned: requirements/conformance.txt | env
	[ -x build/conformance/venv/bin/python ] || $(UV) venv -q --python 3.11 --no-python-downloads build/conformance/venv
	$(UV) pip sync -q --python build/conformance/venv/bin/python --require-hashes requirements/conformance.txt
	touch $@

conformance: env build/conformance/venv/.pinned ## the built collection against ansible-test, galaxy-importer, antsibull; CHECKS="artifact sanity" runs some
	scripts/conformance $(CHECKS)

release: env build/conformance/venv/.pinned ## the release of the version in galaxy.yml, all but the push: changelog, checks, tarball, tag
	scripts/release $(CHECKS)

supported: env ## the supported releases of ansible-core: playbooks parse, sanity, unit tests; RELEASES=newest tries one
	scripts/supported try $(RELEASES)

unit: env ## unit tests of plugins and docker/image/entrypoint
	pytest -q -n auto

demo: env ## IOPaint on a test host on this machine, on https://127.0.0.1:8443 with a login
	@scripts/demo up

demo-down: env ## remove what `make demo` made
	@scripts/demo down

scenarios: env
	scripts/scenarios $(SCENARIO)

test: lint unit scenarios ## lint, unit tests and all scenarios; SCENARIO=default runs one
	@echo "make test: lint, unit tests and scenarios passed: $(SCENARIO)"

# The pages' script would load Mermaid from another site, so the site has its own copy, from the npm registry.
docs: env ## the pages of docs/ as a site in build/site, links checked; needs npm
	@scripts/role-docs --check
	[ -x build/docs-venv/bin/python ] || $(UV) venv -q --no-python-downloads build/docs-venv
	$(UV) pip install -q --python build/docs-venv/bin/python --require-hashes -r requirements/docs.txt
	if ! [ -f build/mermaid.tgz ] || ! echo "$(MERMAID_SHA256)  build/mermaid.tgz" | sha256sum --status --check; then
	  npm pack --silent --pack-destination build mermaid@$(MERMAID_VERSION) >/dev/null
	  mv build/mermaid-$(MERMAID_VERSION).tgz build/mermaid.tgz
	  echo "$(MERMAID_SHA256)  build/mermaid.tgz" | sha256sum --quiet --check
	fi
	NO_MKDOCS_2_WARNING=1 build/docs-venv/bin/mkdocs build --strict
	tar -xzf build/mermaid.tgz -C build/site/assets/javascripts --strip-components 2 package/dist/mermaid.min.js
	scripts/translations
	echo "make docs: open build/site/index.html"

pictures: env ## docs/images: recordings of a deploy and an upgrade, and the status page, from a demo made for them; needs Chromium
	scripts/pictures

bench: env ## docker/ against the plain design: sizes, times and ratios; BENCH_OPTIONS="--runs 1"
	scripts/bench $(BENCH_OPTIONS)

bench-fleet: env ## status, an idle deploy and an idle upgrade at 1 to 20 hosts; BENCH_OPTIONS="--hosts 1 5"
	scripts/bench-fleet $(BENCH_OPTIONS)

bench-gateway: env ## what a gateway and the guard cost a request; BENCH_OPTIONS="--seconds 2"
	scripts/bench-gateway $(BENCH_OPTIONS)

constraints: env ## pin requirements/*.txt and docker/constraints anew
	$(UV) pip compile -q --upgrade --generate-hashes --python-version 3.11 --no-emit-index-url --custom-compile-command "make constraints" \
	  requirements/dev.in -o requirements/dev.txt
	$(UV) pip compile -q --upgrade --generate-hashes --python-version 3.11 --no-emit-index-url --custom-compile-command "make constraints" \
	  requirements/conformance.in -o requirements/conformance.txt
	scripts/supported pin
	scripts/constraints

models: env ## take commits and sizes of the known models anew from the hub; MODELS="owner/name" some, HF_ENDPOINT a mirror
	scripts/models --refresh $(MODELS)
