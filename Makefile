# Everyday commands. `make help` lists them.
SHELL := bash
.DELETE_ON_ERROR:

FUNCTIONS := $(notdir $(wildcard functions/*))
SYSTEMS := $(notdir $(wildcard events/*))
TOOLS := target/tools/bin
# The programs of each system's demo.
DEMO_sportsbook := demo kinesis-ingest recompute
DEMO_replica := demo kinesis-ingest dynamodb-sync backfill
DEMO_portfolio := demo kinesis-ingest recompute
ADVISORIES := https://github.com/RustSec/advisory-db
# A Lambda variable would redirect the programs to another endpoint.
CARGO := env -u AWS_ENDPOINT_URL cargo

.PHONY: help demo test accept bench replay status plan redrive verify maintain backfill catalogue lint build deploy tools tools-demo tools-test tools-build clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*##/ { printf "%-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: tools-demo ## Run a demo on a real PostgreSQL: SYSTEM=sportsbook (a Super Bowl evening), replica or portfolio; DEMO_EXIT=1 exits at the end
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
	    echo "These tests were skipped, at least in part, because a program is not installed. To run them: infra/local/install pgbouncer chromium."; \
	    sort -u target/skipped-tests | sed 's/^/    /'; \
	fi

accept: tools-test ## Accept the output of the golden tests as expected; review the diff
	-$(CARGO) build --workspace --locked && $(CARGO) test --workspace --locked -- golden
	find tests/golden -name '*.found' -exec sh -c 'mv "$$1" "$${1%.found}.expected"' _ {} \;

bench: tools-demo ## Measure and write the figures of docs/benchmarks.md and README.md; PART=append only prints that part
	$(CARGO) build --release --workspace --locked
	./target/release/bench $(PART)

replay: tools-demo ## Load your own data: EVENT=my.ndjson, or a Lambda event; CONFIG=my.toml, FUNCTION=kinesis-ingest; REPLAY_EXIT=1 exits at the end
	@[ -n "$(EVENT)" ] || { echo "usage: make replay EVENT=my.ndjson [CONFIG=my.toml] [FUNCTION=kinesis-ingest]" >&2; exit 1; }
	@[ -e target/debug/replay ] || echo "Building the replay: about 3 minutes the first time, 1 after the demo"
	@$(CARGO) build --quiet --workspace --locked $(addprefix --bin ,replay kinesis-ingest dynamodb-sync $(FUNCTION))
	@./target/debug/replay $(if $(FUNCTION),--function $(FUNCTION)) $(if $(CONFIG),--config "$(CONFIG)") \
	    $(if $(REPLAY_EXIT),--exit) $(if $(EVENT),"$(EVENT)")

status: ## Show each source's last commit, lag, rows and partitions, and the queues (of the system in the environment)
plan: ## Dry run of the configuration or of events: ARGS='--event events/sportsbook/bet-life.json'
redrive: ## Reprocess dead letters and discarded batches: ARGS='--dry-run', ARGS='--reason does_not_fit --limit 10'
verify: ## Compare DynamoDB tables with their replicas: ARGS='--source shop'
maintain: ## Create future partitions and drop expired ones, as the scheduled function does
backfill: ## Fill tables from the backup, an export or a scan: ARGS='scan --source shop --table Orders'
status plan redrive verify maintain backfill:
	@[ -e target/debug/millstream ] || echo "Building the program: about 3 minutes the first time"
	@$(CARGO) build --quiet --workspace --locked --bin millstream
	@./target/debug/millstream $@ $(ARGS)

catalogue: ## Write each system's page, events/SYSTEM/CATALOGUE.md, from its configuration and its stacks
	$(CARGO) build --workspace --locked --bin millstream
	for system in $(SYSTEMS); do \
	    ./target/debug/millstream catalogue --config events/$$system/millstream.toml \
	        $$(ls infra/parameters/$$system.toml 2>/dev/null | sed 's/^/--parameters /') > events/$$system/CATALOGUE.md || exit 1; \
	done

lint: tools-test ## Check formatting, clippy, and the templates of infra/ as CloudFormation receives them
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	$(TOOLS)/python infra/local/lint.py

.PHONY: deny
deny: ## Check licences, bans and sources of dependencies, and advisories where their database can be reached (needs cargo-deny)
	@command -v cargo-deny >/dev/null || { echo "cargo-deny is not installed: run cargo install --locked cargo-deny" >&2; exit 1; }
	$(CARGO) deny check licenses bans sources
	@if GIT_TERMINAL_PROMPT=0 git ls-remote --quiet $(ADVISORIES) HEAD >/dev/null 2>&1; then $(CARGO) deny check advisories; \
	else echo "advisories were not checked: $(ADVISORIES) cannot be reached"; fi

build: tools-build ## Build all functions for Lambda, x86_64 and arm64, as zip files under target/lambda
	for architecture in x86-64 arm64; do \
	    if [ $$architecture = arm64 ] && ! rustup target list --installed | grep -q aarch64-unknown-linux-gnu \
	        && ! rustup target add aarch64-unknown-linux-gnu 2>/dev/null; then \
	        echo "skipping arm64: this toolchain has no target aarch64-unknown-linux-gnu"; continue; \
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

clean: ## Remove everything built and installed under target/
	rm -rf target
