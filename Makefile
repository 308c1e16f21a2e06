# Everything here works as root on a Debian 12 machine with Go, gcc and make; make
# test also wants HAProxy, nftables and iptables.
SHELL := /bin/bash

# The one place where the BPF compiler is pinned.
CLANG_VERSION         := 19
export BPF2GO_CC      := clang-$(CLANG_VERSION)
export BPF2GO_CFLAGS  := -O2 -g -Wall -Wextra -Werror -mcpu=v3

TESTFLAGS ?= -shuffle=on
ROUNDS    ?= 7
ONLY      ?=
FUZZTIME  ?= 60s
SOAKTIME  ?= 60s

# Of images and releases; empty: appVersion of deploy/helm/ebb/Chart.yaml.
VERSION    ?=
REPOSITORY ?= ebb-lb.dev/ebb

.PHONY: build
build: ## bin/ebb
	@echo "building; the first time this takes a minute or two and says nothing" >&2
	CGO_ENABLED=0 go build -trimpath -o bin/ebb ./cmd/ebb

.PHONY: help
help: ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | sort | while IFS="$$(printf '\t')" read -r name what; do printf '%-16s %s\n' "$$name" "$$what"; done

.PHONY: image
image: ## bin/ebb-image.tar for containerd, Podman and Docker, amd64 and arm64; VERSION, REPOSITORY
	@mkdir -p bin
	cd tools && go run ./image -version "$(VERSION)" -repository "$(REPOSITORY)" -out ../bin/ebb-image.tar

.PHONY: release
release: ## bin/release: archives, image, chart, SBOMs, checksums; VERSION=v1.2.3
	@rm -rf bin/release
	cd tools && go run ./release -version "$(VERSION)" -repository "$(REPOSITORY)" -out ../bin/release

.PHONY: manifests
manifests: ## check the chart; make deploy/manifests, docs/values.md and docs/configuration.md
	cd tools && go run ./chart
	go test -count=1 ./agent/config -run TestTheDocument -update

.PHONY: tools-test
tools-test: ## what builds images, charts and releases; also builds the image twice and compares
	cd tools && go vet ./... && go test $(TESTFLAGS) ./...

.PHONY: demo
demo: build ## a rolling update and a killed agent on real traffic, no cluster needed
	./bin/ebb demo $(DEMOFLAGS)

.PHONY: test
test: ## every test; needs root, haproxy, nftables and iptables, and fails where a privileged test would be skipped
	@[ "$$(id -u)" = 0 ] || { echo "make test needs root: it loads programs and makes network namespaces" >&2; exit 1; }
	go vet ./...
	go test -timeout 20m $(TESTFLAGS) ./...

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

.PHONY: bench-net
bench-net: ROUNDS = 21
bench-net: build ## ebb, kube-proxy's nftables rules and plain routing in turns, real traffic; NETFLAGS: see docs/performance.md
	@[ "$$(id -u)" = 0 ] || { echo "make bench-net needs root: it loads programs and makes network namespaces" >&2; exit 1; }
	go run ./tests/benchnet -rounds $(ROUNDS) -only "$(ONLY)" $(NETFLAGS)

.PHONY: soak
soak: ## short connections and closes at the rates of busy nodes, each for SOAKTIME
	@[ "$$(id -u)" = 0 ] || { echo "make soak needs root: it loads programs and makes network namespaces" >&2; exit 1; }
	go test -count=1 -timeout 6h -v ./tests/topology -run TestRates -args -rates.for $(SOAKTIME)

.PHONY: fuzz
fuzz: ## odd frames against the Go reference, then two ends in any order against their model; each for FUZZTIME
	go test -run '^$$' -fuzz FuzzTranslate $(if $(filter-out 0,$(FUZZTIME)),-fuzztime $(FUZZTIME)) ./tests/fuzz
	go test -run '^$$' -fuzz FuzzState $(if $(filter-out 0,$(FUZZTIME)),-fuzztime $(FUZZTIME)) ./tests/statefuzz

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
check-generate: generate manifests ## fail if what is committed is not what the sources give
	git diff --exit-code -- bpf tests/bench deploy/manifests docs/values.md docs/configuration.md
	@untracked=$$(git ls-files --others --exclude-standard deploy/manifests); [ -z "$$untracked" ] || { echo "not committed: $$untracked" >&2; exit 1; }

.PHONY: lint
lint: ## formatting, staticcheck, import directions
	@out=$$(gofmt -l $$(git ls-files '*.go')); [ -z "$$out" ] || { echo "gofmt: $$out" >&2; exit 1; }
	clang-format-$(CLANG_VERSION) --dry-run -Werror bpf/*.[ch] bpf/{abi,wire,route,flow,skb}/*.h tests/bench/*.c
	go tool staticcheck ./...
	staticcheck="$$(go tool -n staticcheck)" && cd tests/cluster && "$$staticcheck" ./...
	go run ./tests/imports
