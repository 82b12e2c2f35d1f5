# Short names for the commands of tools/ (docs/tools.md lists both), and for the checks.
# What .venv is made with: the functions' own version if it is here, otherwise what there is. Looked for only then.
PYTHON ?= $(shell .ci/find-python 3.13 || echo python3)
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
export PYTHONPATH := src:.
.DEFAULT_GOAL := help
# An id copied from a log is anybody's text: make expands nothing in it, and a recipe has it from the environment.
$(foreach name,SOURCE FILE HEADERS URL NAME REASON STACK ID HOURS SEED MINUTES MODULE,$(if $(filter undefined,$(origin $(name))),,$(eval override $(name) := $$(value $(name)))$(eval export $(name))))

.PHONY: help setup demo test local logs pictures send preview new-sender redrive chaos secrets try check costs lint ci bench fuzz mutants requirements audit
help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(STAMP) ## [VENV=.venv] [PYTHON=]: install what the tools need into .venv, once
$(STAMP): pyproject.toml src/requirements.txt
	@echo "setting up $(VENV) (once, a minute or two) ..."
	@# One that is there keeps its Python: a venv made over another's belongs to neither.
	@$(BIN)/python -c '' 2>/dev/null || { python="$(PYTHON)"; \
		$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or later is needed: make PYTHON=python3.13 ..."; exit 1; }; \
		$$python -m venv --clear $(VENV); }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check "pip==26.0"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --group dev
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r src/requirements.txt
	@touch $@

demo: $(STAMP) ## send every sample through the whole stack
	@$(BIN)/python -m tools demo

test: $(STAMP) ## [TESTS=]: run all the tests, or those of a folder or file
	@$(BIN)/python -m pytest -n 2 --dist loadgroup $(TESTS)

local: $(STAMP) ## run the stack until Ctrl-C
	@$(BIN)/python -m tools local

send: $(STAMP) ## SOURCE= FILE= [HEADERS=] [URL=]: sign a payload and post it
	@$(BIN)/python -m tools send "$$SOURCE" "$$FILE" $(if $(HEADERS),--headers="$$HEADERS") $(if $(URL),--url="$$URL")

preview: $(STAMP) ## SOURCE= FILE= [HEADERS=]: show what a payload becomes, without a stack
	@$(BIN)/python -m tools preview "$$SOURCE" "$$FILE" $(if $(HEADERS),"$$HEADERS")

new-sender: $(STAMP) ## NAME= FILE= [HEADERS=]: write a first TOML file for a sender, guessed from one delivery
	@$(BIN)/python -m tools new-sender "$$NAME" "$$FILE" $(if $(HEADERS),"$$HEADERS")

redrive: $(STAMP) ## [SOURCE=] [REASON=] [STACK=] [GO=1|DROP=1]: list parked messages; GO=1 re-queues them, DROP=1 deletes them
	@$(BIN)/python -m tools redrive $(if $(STACK),--stack="$$STACK") $(if $(SOURCE),--source="$$SOURCE") $(if $(REASON),--reason="$$REASON") $(if $(GO),--go) $(if $(DROP),--drop)

chaos: $(STAMP) ## [SEED=] [MINUTES=5] [STORMS=1]: inject faults from a seed and account for every event
	@$(BIN)/python -m tools chaos $(if $(SEED),--seed="$$SEED") $(if $(MINUTES),--minutes="$$MINUTES") $(if $(STORMS),--storms)

pictures: $(STAMP) ## retake the README screenshots
	@$(BIN)/python -m tools pictures

logs: $(STAMP) ## [ID=] [SOURCE=] [PARKED=1] [REFUSED=1] [RATE=1] [STACK=] [HOURS=]: show the relay's log lines, or what they say about an event
	@$(BIN)/python -m tools logs $(if $(ID),--id="$$ID") $(if $(SOURCE),--source="$$SOURCE") $(if $(PARKED),--parked) \
		$(if $(REFUSED),--refused) $(if $(RATE),--rate) $(if $(STACK),--stack="$$STACK") $(if $(HOURS),--hours="$$HOURS")

secrets: $(STAMP) ## STACK= [SOURCE=]: prompt for the secrets of a deployed stack and store them
	@$(BIN)/python -m tools secrets --stack="$$STACK" $(if $(SOURCE),--source="$$SOURCE")

try: $(STAMP) ## STACK= [SOURCE=]: send a signed sample to a deployed stack and follow it to Klaviyo
	@$(BIN)/python -m tools try --stack="$$STACK" $(if $(SOURCE),--source="$$SOURCE")

check: $(STAMP) ## STACK=: report what a deployed stack lacks
	@$(BIN)/python -m tools check --stack="$$STACK"

costs: $(STAMP) ## [PARAMETERS="Name=value ..."] [FLOOD=]: estimate what a stack costs a month without webhooks; FLOOD=500: an hour of 500 forged ones a second
	@$(BIN)/python -m $(if $(FLOOD),bench.flood "$$FLOOD",bench.standing $(PARAMETERS))

lint: $(STAMP) ## check code, types, the template, spelling and the senders' files
	@$(BIN)/ruff check --quiet . && $(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy
	@$(BIN)/cfn-lint template.yaml
	@$(BIN)/codespell && $(BIN)/python -m tools words
	@$(BIN)/python -m tools lint
	@echo "lint: no problems (code, template, spelling, sender files)"

ci: ## everything that a change has to pass, on Python 3.13 and 3.11
	@.ci/run

BENCH_STAMP := $(VENV)/.bench-ready
$(BENCH_STAMP): $(STAMP)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --group bench
	@touch $@

bench: $(BENCH_STAMP) ## [PART=]: benchmark against the usual alternatives
	@$(BIN)/python -m bench $(PART)

FUZZ_STAMP := $(VENV)/.fuzz-ready
$(FUZZ_STAMP): $(STAMP)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --group fuzz
	@touch $@

fuzz: $(FUZZ_STAMP) ## [SECONDS=60]: fuzz the parsers with atheris, watching memory
	@$(BIN)/python -m fuzz.parsers -max_total_time=$(or $(SECONDS),60) -verbosity=0

MUTANTS_STAMP := $(VENV)/.mutants-ready
$(MUTANTS_STAMP): $(STAMP)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --group mutants
	@touch $@

mutants: $(MUTANTS_STAMP) ## [MODULE=]: list the changes of crashes, blame and pacing that no test notices, in 30 minutes at most
	@$(BIN)/python -m tools mutants $(if $(MODULE),--module="$$MODULE")

UPKEEP_STAMP := $(VENV)/.upkeep-ready
$(UPKEEP_STAMP): $(STAMP)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --group upkeep
	@touch $@

# boto3 is not packed: the Lambda runtime has it.
requirements: $(UPKEEP_STAMP) ## pin the functions' libraries at their latest releases, with hashes
	@$(BIN)/python -c 'import tomllib; print(*(one for one in tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"] if not one.startswith("boto3")), sep="\n")' \
		| $(BIN)/pip-compile --quiet --upgrade --generate-hashes --strip-extras --no-header --no-annotate \
			--no-emit-index-url --no-emit-find-links --output-file src/requirements.txt -

audit: $(UPKEEP_STAMP) ## check packaged libraries for known vulnerabilities; needs the network
	@$(BIN)/python -m tools audit
