# Every target works on a fresh clone: what is missing is installed first. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.ONESHELL:

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest
RUN_STAMP := $(VENV)/.runtime-installed
DEV_STAMP := $(VENV)/.development-installed

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

.PHONY: run
run: packages-run $(RUN_STAMP) guest-program ## boot a VM, show its kernel and system, remove it
	@# A daemon that was not there before goes again, and the bridge with it; unless somebody has begun to use it.
	leave() { case "$$($(BIN)/banger daemon status --json)" in *'"running": 0'*) $(BIN)/banger daemon stop >&2 ;; esac; }
	$(BIN)/banger daemon status >/dev/null 2>&1 || trap leave EXIT
	$(BIN)/banger vm run --rm -- sh -c 'uname -a; cat /etc/os-release'

.PHONY: check
check: $(DEV_STAMP) guest-program ## linters, types, layers, generated files, unit tests (three minutes)
	@$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/generate.py --check
	$(PYTEST) tests/unit tests/contracts -m "not vm and not host and not lab and not native and not load" -n 2 -q

.PHONY: test
test: SOAK_S = 600
test: packages-test packages-lab check test-load test-native test-host test-vm soak-beside-lab-states lab ## everything: an hour and a quarter on two cores

.PHONY: test-unit
test-unit: $(DEV_STAMP) guest-program ## pure rules, services on fakes: no privileges, no guests
	@$(PYTEST) tests/unit tests/contracts -m "not vm and not host and not lab and not native and not load" -n 2

.PHONY: test-host
test-host: packages-test $(DEV_STAMP) guest-program ## the host tier: the root helper, bridges, nftables, guests on them; in namespaces of its own
	@$(PYTEST) tests -m host

SIDE_BY_SIDE := $(addprefix tests/load/test_,crash_matrix.py state_machine.py random_repositories.py workspaces.py)
.PHONY: test-load
test-load: $(DEV_STAMP) guest-program ## minutes on fakes: malformed frames, many calls at once, crashes after each step
	@$(PYTEST) $(SIDE_BY_SIDE) -m load -p no:randomly -n 2
	$(PYTEST) tests/load -m load -p no:randomly $(addprefix --ignore ,$(SIDE_BY_SIDE))

SOAK_S ?= 3600
.PHONY: soak
soak: packages-test $(DEV_STAMP) guest-program ## an hour of life cycles, on the fake and in QEMU: nothing grows (SOAK_S=600 for ten minutes)
	@$(BIN)/python -m tests.support.load.soak $(SOAK_S)

.PHONY: soak-beside-lab-states
soak-beside-lab-states:
	@$(MAKE) --no-print-directory -j 2 SOAK_S=$(SOAK_S) soak lab-states

.PHONY: crash-table
crash-table: $(DEV_STAMP) ## docs/reference/crash-matrix.md out of the last test-load, test-vm and lab
	@$(BIN)/python tools/crash_table.py

.PHONY: test-native
test-native: packages-test $(DEV_STAMP) ## the real Firecracker with a guest of a few instructions, where /dev/kvm runs one
	@$(PYTEST) tests -m native -p no:randomly

.PHONY: test-vm
test-vm: packages-test $(DEV_STAMP) guest-program ## real guests under QEMU
	@$(PYTEST) tests -m vm -p no:randomly -n 2 --dist loadfile

.PHONY: lab
lab: packages-lab $(DEV_STAMP) guest-program ## a whole virtual host with KVM and systemd, banger installed in it (tests/lab/README.md)
	@$(PYTEST) tests/lab -m lab -p no:randomly -n 2 --dist loadfile --junitxml=build/lab-logs/junit.xml $(ARGS) ||
	  $(BIN)/python -m tools.lab.rerun build/lab-logs/junit.xml

.PHONY: lab-states
lab-states: packages-lab $(DEV_STAMP) guest-program ## the states that `make lab` restores; it makes them itself where they are missing (four minutes)
	@$(BIN)/python -m tools.lab build

.PHONY: lab-shell
lab-shell: packages-lab $(DEV_STAMP) guest-program ## a shell in such a host
	@$(BIN)/python -m tools.lab shell

.PHONY: bench
bench: packages-run $(DEV_STAMP) guest-program ## measure against references; table and build/bench.json
	@$(BIN)/python -m tools.bench

.PHONY: bench-lab
bench-lab: packages-lab $(DEV_STAMP) guest-program ## measure Firecracker in the lab; build/bench-lab.json
	@$(BIN)/python -m tools.bench.lab

.PHONY: generate
generate: $(DEV_STAMP) ## rewrite the generated files
	@$(BIN)/python tools/generate.py

.PHONY: format
format: $(DEV_STAMP) ## format and fix what a tool can
	@$(BIN)/ruff format . ; $(BIN)/ruff check --fix .

.PHONY: pins
pins: $(DEV_STAMP) ## renew requirements/*.txt (hashes, no download addresses)
	@for name in runtime build development lab; do
	  $(BIN)/pip-compile -q --generate-hashes --allow-unsafe --strip-extras --no-emit-index-url --no-emit-find-links \
	    --no-header --no-annotate --upgrade -o requirements/$$name.txt requirements/$$name.in
	done

.PHONY: guest-program
guest-program: $(RUN_STAMP) ## the static init and agent, for both architectures
	@$(BIN)/python guest-agent/build.py src/banger/guest/bin

.PHONY: wheel
wheel: $(RUN_STAMP) ## dist/*.whl
	@$(BIN)/python -m hatchling build -t wheel

.PHONY: packages-run packages-test packages-lab
packages-run: ; @tools/packages run
packages-test: ; @tools/packages test
packages-lab: ; @tools/packages lab

$(VENV)/bin/python: | packages-run
	@echo '• virtual environment in $(VENV)' >&2
	$(PYTHON) -m venv $(VENV)

$(RUN_STAMP): requirements/runtime.txt requirements/build.txt pyproject.toml | $(VENV)/bin/python
	@echo '• Python packages to run banger (about two minutes: a C compiler is among them)' >&2
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/build.txt -r requirements/runtime.txt
	$(BIN)/python guest-agent/build.py src/banger/guest/bin
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

$(DEV_STAMP): requirements/development.txt $(RUN_STAMP)
	@echo '• Python packages to test banger' >&2
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/development.txt
	touch $@

.PHONY: clean
clean: ## remove what make made, the environment included
	@rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache
