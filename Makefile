# What a newcomer needs: make demo, make test. `make help` prints the rest.

GO      ?= go
BIN     := bin
CMDS    := ambit ambitd ztunnel waypoint ambit-node ambit-cni ambit-sample
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X main.version=$(VERSION)
HUB     ?= localhost/ambit
ARCH    ?= amd64 arm64
COMMIT  := $(shell git log -1 --format=%H 2>/dev/null)
DATE    := $(or $(shell git log -1 --format=%ct 2>/dev/null),0)
TOOL    := $(GO) tool -modfile=tools.mod

.DEFAULT_GOAL := help
.PHONY: help build test check demo race bench microbench interop test-kubernetes kind fuzz deps gen images clean

help: ## print this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build every binary into bin/
	@command -v $(GO) >/dev/null || { echo "ambit needs Go 1.26 or newer on the PATH: see https://go.dev/doc/install"; exit 1; }
	@mkdir -p $(BIN)
	CGO_ENABLED=0 $(GO) build -tags grpcnotrace -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/ $(addprefix ./cmd/,$(CMDS))

demo: build ## run a whole ambient mesh on this machine and walk through it
	@$(BIN)/ambit demo $(DEMOFLAGS)

test: build ## run every test
	$(GO) test -timeout 5m ./...

check: test ## everything that must hold: tests, formatting, linters, race detector, generated code, vulnerabilities
	@test/check.sh

race: ## run the tests of every package under the race detector (needs a C compiler)
	@command -v $(or $(CC),cc) >/dev/null || { echo "the race detector needs a C compiler: install gcc or clang"; exit 1; }
	$(GO) test -race -timeout 10m $$($(GO) list ./... | grep -v /test/)

bench: build ## measure beside a plain copy, and beside Istio's ztunnel if ZTUNNEL_BIN names it; SHORT=1: a minute, UPDATE=1: into docs/performance.md
	@$(GO) run ./test/bench -bin $(BIN) $(if $(ZTUNNEL_BIN),-peer $(abspath $(ZTUNNEL_BIN))) $(if $(SHORT),-short) $(if $(UPDATE),-record docs/performance.md) $(BENCHFLAGS)

microbench: ## run the benchmarks of packages
	$(GO) test -run '^$$' -bench . -benchmem ./hbone/... ./authz/... ./collection/...

interop: ## run beside Istio's own ztunnel, the file that ZTUNNEL_BIN names
	@test -x "$(ZTUNNEL_BIN)" || { echo "make interop needs Istio's ztunnel: build it from its repository and say ZTUNNEL_BIN=/path/to/ztunnel (docs/interoperability.md tells how)"; exit 1; }
	@$(MAKE) -s build
	AMBIT_BIN=$(CURDIR)/$(BIN) ZTUNNEL_BIN=$(abspath $(ZTUNNEL_BIN)) $(GO) test -count=1 -timeout 10m -v ./test/interop

test-kubernetes: ## run the mesh on a real Kubernetes: a cluster of its own (needs root), or that of KUBECONFIG
	@MAKE='$(MAKE)' test/kubernetes/run

kind: ## create a kind cluster of three nodes (or use it), load the images and install the mesh; needs kind, Docker and kubectl
	@MAKE='$(MAKE)' test/kubernetes/kind

images: ## pack every component and sample into container images, dist/images*.tar, without Docker; ARCH=amd64: for one architecture
	@for arch in $(ARCH); do mkdir -p dist/bin/linux-$$arch && \
		CGO_ENABLED=0 GOOS=linux GOARCH=$$arch $(GO) build -buildvcs=false -tags grpcnotrace -trimpath -ldflags '$(LDFLAGS)' \
			-o dist/bin/linux-$$arch/ $(addprefix ./cmd/,$(CMDS)) || exit 1; done
	@$(GO) run ./manifests/images -hub $(HUB) -tag $(VERSION) -revision '$(COMMIT)' -created $(DATE) $(ARCH)

fuzz: ## run every fuzz target for FUZZTIME (30s)
	@test/fuzz.sh $(or $(FUZZTIME),30s)

deps: ## rewrite cmd/*/deps.txt, to be read before it is committed
	$(GO) test -run TestLinkedModules -update .

gen: ## generate code from .proto files
	@test/gen.sh

clean: ## remove what was built
	rm -rf $(BIN) dist
