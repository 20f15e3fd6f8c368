# What one does with Millstream. `make help` lists it.
SHELL := bash
.DELETE_ON_ERROR:

FUNCTIONS := $(notdir $(wildcard functions/*))
SYSTEMS := $(notdir $(wildcard events/*))
TOOLS := target/tools/bin
# The programs of each system's demo.
DEMO_sportsbook := demo kinesis-ingest
DEMO_replica := demo kinesis-ingest dynamodb-sync backfill
# Lambda's own variables would lead the programs elsewhere.
CARGO := env -u AWS_ENDPOINT_URL cargo

.PHONY: help demo test accept bench replay status plan redrive verify maintain backfill catalogue lint build deploy tools tools-demo tools-test tools-build clean

help: ## This list
	@awk -F ':.*## ' '/^[a-z]+:.*##/ { printf "%-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: tools-demo ## Run a demo on a real PostgreSQL: SYSTEM=sportsbook (a Super Bowl evening) or replica; DEMO_EXIT=1 exits at the end
	@[ -e target/debug/demo ] || echo "Building the demo: about 3 minutes the first time"
	$(CARGO) build --workspace --locked $(addprefix --bin ,$(or $(DEMO_$(SYSTEM)),$(DEMO_sportsbook)))
	./target/debug/demo $(SYSTEM) $(if $(DEMO_EXIT),--exit)

test: tools-test ## Run all tests, on a real PostgreSQL; MILLSTREAM_TEST_PG=/usr/lib/postgresql/15/bin chooses another version
	@infra/local/install pgbouncer
	@ls target/debug/deps/tests-* >/dev/null 2>&1 || echo "Building the tests: about 5 minutes the first time, 2 after the demo"
	@rm -f target/skipped-tests
	$(CARGO) build --workspace --bins --locked
	$(CARGO) test --workspace --locked
	@if [ -e target/skipped-tests ]; then \
	    echo "PgBouncer is not installed: these tests were skipped, at least in part. To run them, install its package, pgbouncer."; \
	    sort -u target/skipped-tests | sed 's/^/    /'; \
	fi

accept: tools-test ## Accept the output of the golden tests as expected; review the diff
	-$(CARGO) build --workspace --locked && $(CARGO) test --workspace --locked -- golden
	find tests/golden -name '*.found' -exec sh -c 'mv "$$1" "$${1%.found}.expected"' _ {} \;

bench: tools-demo ## Measure the table in the README; PART=append measures one part
	$(CARGO) build --release --workspace --locked
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
	@[ -e target/debug/millstream ] || echo "Building the program: about 3 minutes the first time"
	@$(CARGO) build --quiet --workspace --locked --bin millstream
	@./target/debug/millstream $@ $(ARGS)

catalogue: ## Writes each system's page, events/SYSTEM/CATALOGUE.md, from its configuration and its stacks
	$(CARGO) build --workspace --locked --bin millstream
	for system in $(SYSTEMS); do \
	    ./target/debug/millstream catalogue --config events/$$system/millstream.toml \
	        $$(ls infra/parameters/$$system.toml 2>/dev/null | sed 's/^/--parameters /') > events/$$system/CATALOGUE.md || exit 1; \
	done

lint: tools-test ## Check formatting, clippy, and the templates of infra/ as CloudFormation receives them
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	$(TOOLS)/python infra/local/lint.py

build: tools-build ## Build all functions for Lambda, x86_64 and arm64, as zip files under target/lambda
	for architecture in x86-64 arm64; do \
	    if [ $$architecture = arm64 ] && ! rustup target list --installed | grep -q aarch64-unknown-linux-gnu \
	        && ! rustup target add aarch64-unknown-linux-gnu 2>/dev/null; then \
	        echo "arm64 is left out: this toolchain has no target aarch64-unknown-linux-gnu"; continue; \
	    fi; \
	    env PATH="$(CURDIR)/$(TOOLS):$$PATH" cargo lambda build --locked --release --$$architecture --output-format zip \
	        --lambda-dir target/lambda/$$architecture $(addprefix -p ,$(FUNCTIONS)) || exit 1; \
	done
	@ls -l target/lambda/*/*/bootstrap.zip

deploy: tools-test ## Deploy a system to AWS: SYSTEM=sportsbook, with infra/parameters/sportsbook.toml; STACK=database for one of its stacks
	infra/deploy $(SYSTEM) $(STACK)

tools: tools-test tools-build

tools-demo tools-test tools-build:
	@infra/local/install $(@:tools-%=%)

clean: ## Removes what was built and installed under target/
	rm -rf target
