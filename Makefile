# SPDX-License-Identifier: MIT
#
# The short way to everything; Meson and Ninja do the work. `make help` lists the targets.

BUILD ?= build
PYTHON ?= /usr/bin/python3
PYTEST_ARGS ?= -n auto
DEMO_ARGS ?=
FUZZ_SECONDS ?= 60
BENCH_ARGS ?=
MESON_ARGS ?=

.PHONY: all deps demo test test-long e2e bench bench-instructions soak lint coverage fuzz install clean help
.DEFAULT_GOAL := all

all: deps ## build build/culvert (the default)
	@tools/build $(BUILD) $(MESON_ARGS)

deps: ## install the Debian packages that the build needs, if any are missing
	@tools/deps build

demo: all ## build, then relay, agent and a model in one go; DEMO_ARGS=--once ends by itself
	$(BUILD)/culvert demo $(DEMO_ARGS)

test: ## build, unit tests, end-to-end tests with real peers
	@tools/deps build test
	@tools/build $(BUILD) $(MESON_ARGS)
	meson test -C $(BUILD) --no-rebuild --print-errorlogs
	CULVERT_BUILD=$(abspath $(BUILD)) $(PYTHON) -m pytest $(PYTEST_ARGS) tests

test-long: ## the end-to-end tests that move gigabytes
	@tools/deps build test
	@tools/build $(BUILD) $(MESON_ARGS)
	$(BUILD)/tests/sim/link_sim_test offsets 1
	CULVERT_BUILD=$(abspath $(BUILD)) $(PYTHON) -m pytest -m long tests

bench: ## measure against OpenSSH, no tunnel and the floor (15 minutes); writes docs/performance.md
	@tools/deps build bench
	@tools/build build-bench --buildtype=release
	$(PYTHON) tests/bench/run.py --build build-bench --out docs/performance.md $(BENCH_ARGS)

bench-instructions: ## instructions per request, MiB and token; fails when they have risen by 5 %
	@tools/deps build bench
	@tools/build build-bench --buildtype=release
	$(PYTHON) tests/bench/instructions.py --build build-bench

soak: ## 30 minutes of mixed load with cuts, churn and slow readers; memory and descriptors stay
	@tools/deps build test bench
	@tools/build build-bench --buildtype=release
	$(PYTHON) tests/load/soak.py --build build-bench --json build-bench/soak.json

lint: ## formatting, static analysis, layers, spelling; silent when all is well
	@tools/deps build lint test
	@tools/lint

coverage: ## line coverage of unit and end-to-end tests, at least 80 %
	@tools/deps build lint test
	@tools/coverage all build-coverage

fuzz: ## run every fuzzer for FUZZ_SECONDS each
	@tools/deps build lint
	@tools/fuzz build-fuzz $(FUZZ_SECONDS)

install: all ## install into the prefix that Meson was given (MESON_ARGS=--prefix=…)
	meson install -C $(BUILD)

clean: ## remove all build folders
	rm -rf build build-*

help: ## this text
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1@\2/p' $(MAKEFILE_LIST) | column -t -s@ 2>/dev/null || \
	    sed -n 's/^\([a-z-]*\):.*## /  \1: /p' $(MAKEFILE_LIST)
