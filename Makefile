# Headwater. `make` alone prints this list. `run` and `test` install what the machine lacks.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
# One recipe at a time: two would only fight over cargo's lock and the cores.
.NOTPARALLEL:

# Behind the user's own PATH: where rustup and `cargo install` put things.
export PATH := $(PATH):$(if $(CARGO_HOME),$(CARGO_HOME),$(HOME)/.cargo)/bin

CARGO ?= cargo
# The whole of the tests, building included. A stuck one is a bug; it must not hold a build machine.
TEST_LIMIT ?= 65m
FUZZ_SECONDS ?= 60
ARGS ?=

.PHONY: help run test test-pure check bench fuzz golden

help: ## print this list
	@printf 'Headwater, a live-video origin: RTMP in, HLS and DASH out.\n\n'
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

run: ## build, and serve the bundled film: prints the page to open and what to type into OBS
	@scripts/setup.sh run
	@$(CARGO) build --release --locked
	@exec target/release/headwater serve --demo $(ARGS)

test: ## every test that a merge needs, the players included
	@scripts/setup.sh test
	@scripts/test.sh $(TEST_LIMIT) $(ARGS)

test-pure: ## the tests that need no GStreamer: fast enough to run at every save
	@scripts/setup.sh pure
	@$(CARGO) test --locked --no-default-features --lib $(ARGS)

check: ## format, lints, documentation, licences
	@scripts/setup.sh check
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	$(CARGO) clippy --locked --all-targets --no-default-features -- -D warnings
	scripts/doc.sh
	$(CARGO) deny --locked check --hide-inclusion-graph licenses bans sources

bench: ## the figures, as ratios within one run
	@scripts/setup.sh bench
	@scripts/npm_tools.sh
	@$(CARGO) bench --locked $(ARGS)

fuzz: ## each parser of untrusted bytes, for FUZZ_SECONDS each (60)
	@scripts/setup.sh run
	@scripts/fuzz.sh $(FUZZ_SECONDS)

golden: ## rewrite fixtures/golden from what the code does now; review the difference
	@scripts/setup.sh test
	@HEADWATER_UPDATE_GOLDEN=1 $(CARGO) test --locked --test golden $(ARGS)
	@HEADWATER_UPDATE_GOLDEN=1 $(CARGO) test --locked --test inspect the_list $(ARGS)
	@git --no-pager diff --stat -- fixtures/golden docs/inspect.md
