# What one does with Millstream. `make help` lists it.
SHELL := bash
.DELETE_ON_ERROR:

FUNCTIONS := $(notdir $(wildcard functions/*))
SYSTEMS := $(notdir $(wildcard events/*))
TOOLS := target/tools/bin
ADVISORIES := https://github.com/RustSec/advisory-db
# Lambda's own variables would lead the programs elsewhere.
CARGO := env -u AWS_ENDPOINT_URL cargo

.PHONY: help demo test accept bench replay status plan redrive verify maintain backfill catalogue lint build deploy tools clean

help: ## This list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 12

demo: tools ## A system on real parts: SYSTEM=sportsbook (a Super Bowl evening) or replica; DEMO_EXIT=1 ends by itself
	$(CARGO) build --release --workspace
	./target/release/demo $(SYSTEM) $(if $(DEMO_EXIT),--exit)

test: tools ## Every test, on real parts
	$(CARGO) build --workspace --all-targets
	$(CARGO) test --workspace

accept: tools ## Takes what the golden tests find as what is expected; look at the diff
	-$(CARGO) build --workspace && $(CARGO) test --workspace -- golden
	find tests/golden -name '*.found' -exec sh -c 'mv "$$1" "$${1%.found}.expected"' _ {} \;

bench: tools ## Measure and write the figures of docs/benchmarks.md and README.md; PART=append only prints that part
	$(CARGO) build --release --workspace
	./target/release/bench $(PART)

replay: tools ## One event through cargo lambda: FUNCTION=kinesis-ingest EVENT=events/sportsbook/bet-placed.json
	$(CARGO) build --workspace
	env PATH="$(CURDIR)/$(TOOLS):$$PATH" ./target/debug/replay $(FUNCTION) $(EVENT)

status: ## How each source is: last commit, lag, rows, partitions; and the queues (the environment says which system)
plan: ## Dry run of the configuration, or of events: ARGS='--event events/sportsbook/bet-life.json'
redrive: ## Dead letters back in: ARGS='--dry-run', ARGS='--reason does_not_fit --limit 10'
verify: ## Compares DynamoDB tables with their replicas: ARGS='--source shop'
maintain: ## Partitions ahead, expired ones dropped: what the scheduled function does
backfill: ## Tables from a backup, an export, a scan: ARGS='scan --source shop --table Orders'
status plan redrive verify maintain backfill:
	@$(CARGO) build --quiet --workspace
	@./target/debug/millstream $@ $(ARGS)

catalogue: ## Writes each system's page, events/SYSTEM/CATALOGUE.md, from its configuration and its stacks
	$(CARGO) build --workspace
	for system in $(SYSTEMS); do \
	    ./target/debug/millstream catalogue --config events/$$system/millstream.toml \
	        $$(ls infra/parameters/$$system.toml 2>/dev/null | sed 's/^/--parameters /') > events/$$system/CATALOGUE.md || exit 1; \
	done

lint: tools ## Formatting, clippy, and the templates of infra/ as CloudFormation gets them
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(TOOLS)/python infra/local/lint.py

.PHONY: deny
deny: ## Check licences, bans and sources of dependencies, and advisories where their database can be reached (needs cargo-deny)
	@command -v cargo-deny >/dev/null || { echo "cargo-deny is not installed: run cargo install --locked cargo-deny" >&2; exit 1; }
	$(CARGO) deny check licenses bans sources
	@if GIT_TERMINAL_PROMPT=0 git ls-remote --quiet $(ADVISORIES) HEAD >/dev/null 2>&1; then $(CARGO) deny check advisories; \
	else echo "advisories were not checked: $(ADVISORIES) cannot be reached"; fi

build: tools ## Every function for Lambda, x86_64 and arm64, as zip files under target/lambda
	for architecture in x86-64 arm64; do \
	    if [ $$architecture = arm64 ] && ! rustup target list --installed | grep -q aarch64-unknown-linux-gnu \
	        && ! rustup target add aarch64-unknown-linux-gnu 2>/dev/null; then \
	        echo "arm64 is left out: this toolchain has no target aarch64-unknown-linux-gnu"; continue; \
	    fi; \
	    env PATH="$(CURDIR)/$(TOOLS):$$PATH" cargo lambda build --release --$$architecture --output-format zip \
	        --lambda-dir target/lambda/$$architecture $(addprefix -p ,$(FUNCTIONS)) || exit 1; \
	done
	@ls -l target/lambda/*/*/bootstrap.zip

deploy: tools ## A system to AWS: SYSTEM=sportsbook, by infra/parameters/sportsbook.toml; STACK=database for one of its stacks
	infra/deploy $(SYSTEM) $(STACK)

tools:
	@infra/local/install

clean: ## Removes what was built and installed under target/
	rm -rf target
