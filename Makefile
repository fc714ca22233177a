# One command each; `make help` lists them. Everything built lands in bin/.

CONTAINERD_VERSION  := v2.4.2
REGISTRY_VERSION    := v3.1.2
CONFORMANCE_VERSION := v0.0.0-20260831232431-97274622c111
GOLANGCI_VERSION    := v2.15.0

BIN      := $(CURDIR)/bin
VERSION  := $(shell git describe --always --dirty 2>/dev/null || echo unknown)
FUZZTIME ?= 5s

# One set of build flags for everything but the race detector: what one target
# compiled, the next finds in Go's cache.
export CGO_ENABLED := 0
export GOFLAGS     := $(GOFLAGS) -trimpath -buildvcs=false

# Programs of others, built from their Go modules. A stamp carries the version,
# so that a new version builds anew and a second run does nothing.
INSTALL := GOFLAGS=-trimpath GOWORK=off GOBIN=$(BIN) go install
TOOLS   := $(BIN)/.containerd-$(CONTAINERD_VERSION) $(BIN)/.registry-$(REGISTRY_VERSION) \
           $(BIN)/.conformance-$(CONFORMANCE_VERSION)
LINTER  := $(BIN)/.golangci-lint-$(GOLANGCI_VERSION)

# Debian packages: the programs that must be there, and who brings them.
NEEDED   := runc gcc
PACKAGES := runc gcc libc6-dev ca-certificates

UNIT        = $$(go list ./... | grep -v /integration)
INTEGRATION = ./integration/...

.DEFAULT_GOAL := build
.PHONY: help build tools deps test unit integration race lint vet fmt fmt-check tidy-check fuzz demo clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## bin/larder, one static binary
	@mkdir -p $(BIN)
	go build -ldflags '-s -w -X main.version=$(VERSION)' -o $(BIN)/larder ./cmd/larder

tools: $(TOOLS) ## containerd, a registry and the OCI conformance suite, pinned, in bin/

$(BIN)/.containerd-$(CONTAINERD_VERSION):
	@echo "building containerd $(CONTAINERD_VERSION) (once, about two minutes)"
	@mkdir -p $(BIN)
	@$(INSTALL) github.com/containerd/containerd/v2/cmd/containerd@$(CONTAINERD_VERSION) \
		github.com/containerd/containerd/v2/cmd/ctr@$(CONTAINERD_VERSION) \
		github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2@$(CONTAINERD_VERSION)
	@rm -f $(BIN)/.containerd-* && touch $@

$(BIN)/.registry-$(REGISTRY_VERSION):
	@echo "building distribution registry $(REGISTRY_VERSION) (once)"
	@mkdir -p $(BIN)
	@$(INSTALL) github.com/distribution/distribution/v3/cmd/registry@$(REGISTRY_VERSION)
	@rm -f $(BIN)/.registry-* && touch $@

$(BIN)/.conformance-$(CONFORMANCE_VERSION):
	@echo "building the OCI conformance suite (once)"
	@mkdir -p $(BIN)
	@$(INSTALL) github.com/opencontainers/distribution-spec/conformance@$(CONFORMANCE_VERSION)
	@rm -f $(BIN)/.conformance-* && touch $@

$(LINTER):
	@echo "building golangci-lint $(GOLANGCI_VERSION) (once, about two minutes)"
	@mkdir -p $(BIN)
	@$(INSTALL) github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)
	@rm -f $(BIN)/.golangci-lint-* && touch $@

deps: ## Debian packages that the tests need; installs them when root
	@missing=; for p in $(NEEDED); do command -v $$p >/dev/null || missing="$$missing $$p"; done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then \
		echo "missing:$$missing. As root: apt-get install $(PACKAGES)" >&2; exit 1; fi; \
	echo "installing:$$missing"; \
	apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(PACKAGES) >/dev/null

test: unit integration ## all tests: units under the race detector, and the real parts

unit: deps ## unit tests, under the race detector
	CGO_ENABLED=1 go test -race -shuffle=on -timeout 10m $(UNIT)

race: unit ## the same as unit

integration: build tools deps ## larder against real containerd, registry and faults; needs root
	@[ "$$(id -u)" = 0 ] || { echo "the integration tests run containerd: they need root" >&2; exit 1; }
	go test -v -count=1 -parallel 6 -timeout 15m $(INTEGRATION)

lint: $(LINTER) ## golangci-lint, settings in .golangci.yml
	$(BIN)/golangci-lint run --allow-parallel-runners ./...

vet: ## go vet
	go vet ./...

fmt: ## format all Go files
	gofmt -w $$(git ls-files -co --exclude-standard '*.go')

fmt-check: ## fail on a file that gofmt would change
	@bad=$$(gofmt -l $$(git ls-files -co --exclude-standard '*.go')); \
	if [ -n "$$bad" ]; then echo "not gofmt'd:"; echo "$$bad"; exit 1; fi

tidy-check: ## fail when go mod tidy would change something
	go mod tidy -diff

fuzz: ## run every fuzz target for FUZZTIME (5s)
	@grep -rl '^func Fuzz' --include='*_test.go' . | sort | while read -r file; do \
		for target in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' "$$file"); do \
			echo "== $$target in $$(dirname "$$file")"; \
			go test -run='^$$' -fuzz="^$$target\$$" -fuzztime=$(FUZZTIME) "$$(dirname "$$file")" || exit 1; \
		done; \
	done

demo: build tools deps ## the story in one minute: pull, lose the upstream, pull again
	@go build -o $(BIN)/demo ./integration/demo
	@$(BIN)/demo

clean: ## remove bin/
	rm -rf $(BIN)
