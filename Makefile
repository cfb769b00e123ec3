# make demo and make test set up all that they need, from a fresh clone on Debian with Python 3.11 on.
SHELL := /bin/bash
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help demo test lint format bench fuzz reliability proto setup clean

help:  ## what there is
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.simlink-demo  ## run the main job: make data, send it, prove that it arrived
	$(BIN)/simlink demo $(ARGS)

test: setup  ## run the whole suite, on real brokers; ARGS="-k tcp" or ARGS=tests/unit chooses
	scripts/run-tests $(BIN)/pytest $(ARGS)

lint: $(VENV)/.simlink-all  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.simlink-all  ## let ruff fix and lay out the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup .venv-peers  ## print the bench table, ours beside floor and peer; ARGS="--quick" for a look
	$(BIN)/python bench/all.py $(ARGS)

fuzz: $(VENV)/.simlink-all  ## fuzz every decoder; ARGS="--seconds 600 --keep" goes on for longer and keeps what it found
	$(BIN)/python -m tests.fuzz $(ARGS)

reliability: setup  ## break every transport in every way, and keep what came of it in docs/reliability.md
	$(BIN)/python -m tests.faults --write docs/reliability.md

proto: $(VENV)/.simlink-all  ## make the committed Protobuf code again
	$(BIN)/python scripts/make-protos

setup: $(VENV)/.simlink-all  ## install everything: Python packages, brokers and build tools (the latter as root)
	scripts/setup-debian brokers java clients
	@# Kafka's jars: here, where a slow network is in nobody's way. What is missing is told, and tests that need it skip.
	@$(BIN)/python -m simlink.testing.brokers || true

clean:  ## remove the virtual environment and what tools left
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis dist examples/spring-receiver/target

# What is installed depends on pyproject.toml only; the package itself is installed editable.
$(VENV)/.simlink-demo: pyproject.toml scripts/setup-venv
	PYTHON=$(PYTHON) scripts/setup-venv $(VENV) cli
	@touch $@

$(VENV)/.simlink-all: pyproject.toml scripts/setup-venv
	PYTHON=$(PYTHON) scripts/setup-venv $(VENV) all test lint
	@touch $@ $(VENV)/.simlink-demo

# Generators that ours is measured beside want versions of their own of what it uses too.
.venv-peers: bench/peers.txt
	$(PYTHON) -m venv $@
	$@/bin/python -m pip install --quiet --requirement bench/peers.txt
	@touch $@
