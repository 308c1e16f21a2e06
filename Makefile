# Everything here works as root on a Debian 12 machine with Go, gcc and make; make
# test also wants HAProxy.
SHELL := /bin/bash

# The one place where the BPF compiler is pinned.
CLANG_VERSION         := 19
export BPF2GO_CC      := clang-$(CLANG_VERSION)
export BPF2GO_CFLAGS  := -O2 -g -Wall -Wextra -Werror -mcpu=v3

TESTFLAGS ?= -shuffle=on
ROUNDS    ?= 7
ONLY      ?=
FUZZTIME  ?= 60s

.PHONY: build
build: ## bin/ebb
	go build -o bin/ebb ./cmd/ebb

.PHONY: demo
demo: build ## a rolling update and a killed agent on real traffic, no cluster needed
	./bin/ebb demo $(DEMOFLAGS)

.PHONY: test
test: ## every test; needs root and haproxy, and fails where a privileged test would be skipped
	@[ "$$(id -u)" = 0 ] || { echo "make test needs root: it loads programs and makes network namespaces" >&2; exit 1; }
	go vet ./...
	go test -timeout 10m $(TESTFLAGS) ./...

.PHONY: cluster-test
cluster-test: ## the agent beside a real Kubernetes control plane; RUN chooses tests, see docs/cluster-tests.md
	@[ "$$(id -u)" = 0 ] || { echo "make cluster-test needs root: it makes network namespaces" >&2; exit 1; }
	cd tests/cluster && go vet ./... && go run ./binaries/build && go test -v -timeout 15m $(TESTFLAGS) -run '$(RUN)' ./...

.PHONY: bench
bench: ## ns per packet beside floor programs, in one interleaved run
	go test -run '^$$' -bench . -benchtime 1x -timeout 30m ./tests/bench -args -rounds=$(ROUNDS) -only="$(ONLY)"

.PHONY: bench-sockets
bench-sockets: ## what programs in a pod get through a Service, beside the same by the pod's address
	go test -run '^$$' -bench . -benchtime 1x ./tests/sockets

.PHONY: bench-scale
bench-scale: ## many services: first sync, latency of changes, beside the writes alone
	go run ./tests/scale $(SCALEFLAGS)

.PHONY: fuzz
fuzz: ## odd frames, the programs against the Go reference; FUZZTIME=0: until interrupted
	go test -run '^$$' -fuzz FuzzTranslate $(if $(filter-out 0,$(FUZZTIME)),-fuzztime $(FUZZTIME)) ./tests/fuzz

# Kernels of make vmtest, see docs/contributing.md. LEVELS and RUN choose less.
KERNELS ?= 6.1 6.12

.PHONY: vmtest
vmtest: ## the tests that need a kernel, in virtual machines with KERNELS
	go run ./tests/vm -kernels "$(KERNELS)" -levels "$(LEVELS)" -run '$(RUN)' -docs '$(DOCS)'

.PHONY: vmshell
vmshell: ## a shell in a virtual machine with the first of KERNELS
	tests/vm/shell.sh $(firstword $(KERNELS))

.PHONY: generate
generate: ## regenerate bpf/*_bpfel.{go,o} (needs clang)
	go generate ./bpf ./tests/bench

.PHONY: check-generate
check-generate: generate ## fail if what is committed is not what the sources give
	git diff --exit-code -- bpf tests/bench

.PHONY: lint
lint: ## formatting, staticcheck, import directions
	@out=$$(gofmt -l $$(git ls-files '*.go')); [ -z "$$out" ] || { echo "gofmt: $$out" >&2; exit 1; }
	clang-format-$(CLANG_VERSION) --dry-run -Werror bpf/*.[ch] tests/bench/*.c
	go tool staticcheck ./...
	staticcheck="$$(go tool -n staticcheck)" && cd tests/cluster && "$$staticcheck" ./...
	go run ./tests/imports
