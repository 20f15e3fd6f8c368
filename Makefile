# What one does with Millstream. `make help` lists it.
SHELL := bash
.DELETE_ON_ERROR:

FUNCTIONS := $(notdir $(wildcard functions/*))
SYSTEMS := $(notdir $(wildcard events/*))
TOOLS := target/tools/bin
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

bench: tools ## The table of the README; PART=append for a part of it
	$(CARGO) build --release --workspace
	./target/release/bench $(PART)

replay: tools ## Your own data: EVENT=my.ndjson, or a Lambda event; CONFIG=my.toml, FUNCTION=kinesis-ingest; REPLAY_EXIT=1 exits at the end
	$(CARGO) build --workspace --locked
	@./target/debug/replay $(if $(FUNCTION),--function $(FUNCTION)) $(if $(CONFIG),--config "$(CONFIG)") \
	    $(if $(REPLAY_EXIT),--exit) $(if $(EVENT),"$(EVENT)")

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
