# Every command of the project. `make` alone lists them.
#
# All targets use the release profile, so that the demo, the tests and the benchmarks share one build.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

CARGO_FLAGS := --release --locked
GGUF := .cache/gguf/SmolLM2-135M-Instruct.Q4_1.gguf
MODEL := .cache/models/smollm2-135m-instruct
# Tools that `make tools` installs. Tools of the machine take precedence.
export PATH := $(PATH):$(CURDIR)/.cache/tools/bin

.PHONY: help
help: ## List the commands
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | \
	  while IFS=$$'\t' read -r name text; do printf '  make %-14s %s\n' "$$name" "$$text"; done

.PHONY: prerequisites
prerequisites:
	@for tool in cargo c++ python3; do command -v $$tool >/dev/null || \
	  { echo "error: $$tool is missing: see 'What the machine must have' in README.md" >&2; exit 1; }; done

.PHONY: fetch
fetch: prerequisites
	@scripts/setup

.PHONY: build
build: fetch ## Build the two services, after downloading missing files
	cargo build $(CARGO_FLAGS) --workspace

.PHONY: retriever
retriever: ## Build the retriever alone, without libtorch
	cargo build $(CARGO_FLAGS) --package retriever-server

.PHONY: setup
setup: build ## Download libraries, models and data, build, convert the model; skips finished steps
	target/release/trainer convert $(GGUF) $(MODEL)

.PHONY: demo
demo: setup ## Index, warm-start, evaluate, train, evaluate again; the report is runs/demo/report.html
	scripts/demo $(DEMO_ARGUMENTS)

.PHONY: test
test: setup test-scripts ## Run all tests; needs no network after set-up
	OMP_NUM_THREADS=1 scripts/run-tests

.PHONY: test-scripts
test-scripts:
	python3 -B -m unittest discover --start-directory scripts/tests

.PHONY: test-instructions
test-instructions: setup ## Run the numeric tests again, once for each narrower level of vector instructions
	scripts/test-instruction-sets --numeric --narrower

.PHONY: test-docs
test-docs: setup ## Run the commands of README.md and docs/, and compare their output
	scripts/run-docs

.PHONY: test-containers
test-containers: ## Build the images and test compose.yaml: start, query, swap, break, stop, resume
	scripts/test-containers

.PHONY: check
check: fetch ## Check formatting, lints, documentation and dependencies; a warning fails
	cargo fmt --all --check
	cargo clippy $(CARGO_FLAGS) --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc $(CARGO_FLAGS) --workspace --no-deps
	scripts/check-dependencies

.PHONY: configuration
configuration: build ## Write docs/configuration.md, .env.example and compose.yaml's variables from the code
	scripts/configuration-page >docs/configuration.md
	scripts/env-example >.env.example
	scripts/compose-variables

.PHONY: bench
bench: setup ## Measure the retriever and the trainer on this machine
	scripts/bench

.PHONY: bench-gpu
bench-gpu: ## Check search on an NVIDIA GPU and measure it; without a GPU, print the reason
	cargo run $(CARGO_FLAGS) --package retriever-server --example gpu_bench -- $(BENCH_GPU_ARGUMENTS)

.PHONY: check-kernels
check-kernels: ## Compile the CUDA kernels without a GPU, with the NVRTC in the folder NVRTC
	scripts/check-kernels $(NVRTC)

.PHONY: bench-retrieval
bench-retrieval: setup ## Compare the retriever with its peers, and write docs/benchmarks.md
	cargo build $(CARGO_FLAGS) --workspace --examples
	scripts/bench-retrieval

.PHONY: bench-rollout
bench-rollout: setup ## Compare rollouts with transformers, and write docs/benchmarks.md
	cargo build $(CARGO_FLAGS) --workspace --examples
	scripts/bench-rollout

.PHONY: bench-learning
bench-learning: setup ## Train with every algorithm from one warm start, and write docs/algorithms.md
	scripts/bench-learning

.PHONY: bench-memory
bench-memory: setup ## Train for 200 short steps, and write the memory used into docs/benchmarks.md
	scripts/bench-memory

.PHONY: bench-quality
bench-quality: setup ## Score every back end on questions with known passages, and write docs/benchmarks.md
	scripts/bench-quality $(BENCH_QUALITY_FOLDERS)

.PHONY: bench-training
bench-training: setup ## Compare an update with TRL and transformers, and write docs/benchmarks.md
	cargo build $(CARGO_FLAGS) --workspace --examples
	scripts/bench-training $(BENCH_TRAINING_ARGUMENTS)

.PHONY: tools
tools: ## Install cargo-nextest and cargo-deny into .cache/tools if they are missing
	scripts/install-tools

.PHONY: clean
clean: ## Remove builds and runs; downloads stay in .cache
	rm -rf target runs
