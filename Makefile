# What a newcomer runs: make demo, make test, make up. Everything they need is installed first,
# into this folder: .venv, node_modules and .rowhouse.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help install demo up down test check chaos bench docs lock clean

BIN := .venv/bin

help: ## Show this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

install: ## Install what the project needs, into the project
	@mkdir -p .rowhouse && flock .rowhouse/install.lock $(MAKE) --silent --no-print-directory .venv/installed node_modules/installed .rowhouse/deno/installed

.venv/installed: requirements.lock pyproject.toml
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Rowhouse needs Python 3.11 or later as python3." >&2; exit 1; }
	@python3 -c 'import ensurepip' 2>/dev/null || { [ "$$(id -u)" = 0 ] && apt-get install -qq -y python3-venv >/dev/null; } \
		|| { echo "Python cannot make virtual environments: install the package python3-venv." >&2; exit 1; }
	@echo "Installing Python packages …"
	@python3 -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

node_modules/installed: package-lock.json package.json .npmrc
	@command -v node >/dev/null && node -e 'process.exit(+(process.versions.node.split(".")[0] < 20))' || { echo "Rowhouse needs Node 20 or later." >&2; exit 1; }
	@echo "Installing npm packages …"
	@npm ci --silent
	@touch $@

.rowhouse/deno/installed: supabase/functions/deno.lock supabase/functions/deno.json .venv/installed
	@echo "Installing the edge functions' packages …"
	@mkdir -p .rowhouse/deno
	@DENO_DIR=$(CURDIR)/.rowhouse/deno $(BIN)/deno cache --quiet --frozen --config supabase/functions/deno.json supabase/functions/*/index.ts
	@touch $@

demo: install ## Take the tour: a platform of its own, nothing left running
	@$(BIN)/rowhouse local demo

up: install ## Start the local platform and keep it running
	@$(BIN)/rowhouse local up

down: ## Stop the local platform
	@if [ -x $(BIN)/rowhouse ]; then $(BIN)/rowhouse local down; else echo "Nothing was running."; fi

test: check ## Run every check and every test
	@$(BIN)/pytest -n 2 --dist loadgroup

check: install ## Run the static half: linters, types, SQL checks, advisors
	@$(BIN)/python -m tests.checks

chaos: install ## Let everything go wrong for some minutes, and count the effects
	@$(BIN)/python -m tests.chaos

bench: install ## Measure, and write docs/performance.md
	@$(BIN)/python -m bench

docs: install ## Write docs/reference from the database
	@$(BIN)/python -m tests.reference

lock: ## Resolve the versions of requirements.lock and package-lock.json anew
	uv pip compile --universal --python-version 3.11 --extra local --extra sms --extra development --generate-hashes \
		--no-header --no-annotate --quiet pyproject.toml -o requirements.lock
	npm install --package-lock-only

clean: down ## Remove what was installed and the local platform's data
	rm -rf .venv node_modules .rowhouse
