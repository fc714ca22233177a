# One command each; `make help` lists them. Everything built lands in bin/.

CONTAINERD_VERSION   := v2.4.2
CONTAINERD17_VERSION := v1.7.35
CONTAINERD16_VERSION := v1.6.20
REGISTRY_VERSION     := v3.1.2
CONFORMANCE_VERSION  := v0.0.0-20260831232431-97274622c111
GOLANGCI_VERSION     := v2.15.0
GOVULNCHECK_VERSION  := v1.9.0
BENCHSTAT_VERSION    := v0.0.0-20260908200009-22c9c6c9d4da

BIN      := $(CURDIR)/bin
VERSION  := $(shell git describe --always --dirty 2>/dev/null || echo unknown)
FUZZTIME ?= 5s
LENGTH   ?= 10m
CUTS     ?= 1000
KILLS    ?= 1000

# One set of build flags for everything but the race detector: what one target
# compiled, the next finds in Go's cache.
export CGO_ENABLED := 0
# Without grpcnotrace gRPC links html/template for its debug pages, which nobody serves
# here, and that calls methods by name: the linker then keeps every method of
# everything, 6 MB more, of which a part is resident.
export GOFLAGS     := $(GOFLAGS) -trimpath -buildvcs=false -tags=grpcnotrace

# Programs of others, built from their Go modules. A stamp carries the version,
# so that a new version builds anew and a second run does nothing.
INSTALL := GOFLAGS=-trimpath GOWORK=off GOBIN=$(BIN) go install
TOOLS   := $(BIN)/.containerd-$(CONTAINERD_VERSION) $(BIN)/.registry-$(REGISTRY_VERSION) \
           $(BIN)/.conformance-$(CONFORMANCE_VERSION)
OLD     := $(BIN)/.old-1.7-$(CONTAINERD17_VERSION) $(BIN)/.old-1.6-$(CONTAINERD16_VERSION)
LINTER  := $(BIN)/.golangci-lint-$(GOLANGCI_VERSION)
VULN    := $(BIN)/.govulncheck-$(GOVULNCHECK_VERSION)
STAT    := $(BIN)/.benchstat-$(BENCHSTAT_VERSION)

# Debian packages: the programs that must be there, and who brings them.
# The network tools cut lines, the file systems and the tracer break disks.
NEEDED   := runc gcc nft ip mkfs.ext4 mkfs.xfs strace
PACKAGES := runc gcc libc6-dev ca-certificates nftables iproute2 e2fsprogs xfsprogs strace

UNIT        = $$(go list ./... | grep -v /integration)
INTEGRATION = ./integration/...

.DEFAULT_GOAL := build
.PHONY: help build embedded tools deps test unit integration nightly crash soak bench bench-go bench-durability bench-unpack bench-plugin bench-space profile allocs race lint vet vuln fmt fmt-check tidy-check fuzz demo clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## bin/larder, one static binary
	@mkdir -p $(BIN)
	go build -ldflags '-s -w -X main.version=$(VERSION)' -o $(BIN)/larder ./cmd/larder

embedded: ## bin/containerd-larder, a containerd with larder's store built in
	@mkdir -p $(BIN)
	go build -C plugin/builtin/example -o $(BIN)/containerd-larder .

tools: $(TOOLS) $(OLD) ## containerd of 2.x, 1.7 and 1.6, a registry and the OCI conformance suite, pinned, in bin/

$(BIN)/.containerd-$(CONTAINERD_VERSION):
	@echo "building containerd $(CONTAINERD_VERSION) (once, about two minutes)"
	@mkdir -p $(BIN)
	@$(INSTALL) github.com/containerd/containerd/v2/cmd/containerd@$(CONTAINERD_VERSION) \
		github.com/containerd/containerd/v2/cmd/ctr@$(CONTAINERD_VERSION) \
		github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2@$(CONTAINERD_VERSION)
	@rm -f $(BIN)/.containerd-* && touch $@

# go install refuses these modules for their exclude and replace directives, so each is
# built as the main module, where Go keeps it. -mod=mod, for what there is of a vendor
# folder in a module, would write into its go.mod: it gets a copy. Each release has a
# shim of its own, in a folder named after it. $(1) is the release, $(2) the version.
define build_old
	@echo "building containerd $(2), too (once, some minutes)"
	@mkdir -p $(BIN)/$(1)
	@cd / && GOWORK=off go mod download github.com/containerd/containerd@$(2)
	@mod=$$(mktemp -d) && trap 'rm -rf "$$mod"' EXIT && \
	cd "$$(go env GOMODCACHE)/github.com/containerd/containerd@$(2)" && cp go.mod go.sum "$$mod" && chmod u+w "$$mod"/* && \
	for p in containerd:containerd-$(1) ctr:ctr-$(1) containerd-shim-runc-v2:$(1)/containerd-shim-runc-v2; do \
		GOFLAGS='-trimpath -buildvcs=false' GOWORK=off go build -mod=mod -modfile="$$mod/go.mod" -o $(BIN)/$${p#*:} ./cmd/$${p%:*} || exit 1; \
	done
	@rm -f $(BIN)/.old-$(1)-* && touch $@
endef

$(BIN)/.old-1.7-$(CONTAINERD17_VERSION):
	$(call build_old,1.7,$(CONTAINERD17_VERSION))

# Debian 12's.
$(BIN)/.old-1.6-$(CONTAINERD16_VERSION):
	$(call build_old,1.6,$(CONTAINERD16_VERSION))

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

$(VULN):
	@mkdir -p $(BIN)
	@$(INSTALL) golang.org/x/vuln/cmd/govulncheck@$(GOVULNCHECK_VERSION)
	@rm -f $(BIN)/.govulncheck-* && touch $@

$(STAT):
	@mkdir -p $(BIN)
	@$(INSTALL) golang.org/x/perf/cmd/benchstat@$(BENCHSTAT_VERSION)
	@rm -f $(BIN)/.benchstat-* && touch $@

deps: ## Debian packages that the tests need; installs them when root
	@PATH="$$PATH:/usr/sbin:/sbin"; missing=; for p in $(NEEDED); do command -v $$p >/dev/null || missing="$$missing $$p"; done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then \
		echo "missing:$$missing. As root: apt-get install $(PACKAGES)" >&2; exit 1; fi; \
	echo "installing:$$missing"; \
	apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(PACKAGES) >/dev/null

test: unit integration ## all tests: units under the race detector, and the real parts

unit: deps ## unit tests, under the race detector
	CGO_ENABLED=1 go test -race -shuffle=on -timeout 20m $(UNIT)

nightly: build tools embedded deps ## the long runs: full counts, minutes of waiting, longer fuzzing
	LARDER_TEST_NIGHTLY=1 LARDER_TEST_LOSS=30 LARDER_SOAK=10m LARDER_TEST_CLIENT_COUNT=10000 LARDER_TEST_NAME_COUNT=100000 LARDER_TEST_STORM=200 LARDER_TEST_PROXY_KILLS=100 LARDER_TEST_PROXY_HANGS=1 LARDER_TEST_SEEDS=501 \
		go test -v -count=1 -parallel 6 -timeout 60m $(INTEGRATION)
	$(MAKE) crash
	$(MAKE) fuzz FUZZTIME=5m

race: unit ## the same as unit

allocs: ## that hot functions allocate no more than their tests say; without the race detector, which allocates, too
	LARDER_TEST_ALLOCS=1 go test -count=1 -run '^TestAllocations' ./cache ./remotes ./plugin/mirror

integration: build tools embedded deps ## larder against real containerd, registry and faults; needs root
	@[ "$$(id -u)" = 0 ] || { echo "the integration tests run containerd: they need root" >&2; exit 1; }
	go test -v -count=1 -parallel 6 -timeout 15m $(INTEGRATION)

soak: ## a day of a store's life in LENGTH (10m): budget, memory, goroutines, files
	LARDER_SOAK=$(LENGTH) go test -v -count=1 -timeout 60m -run '^TestSoak$$' ./integration/library

crash: build deps ## CUTS power cuts and KILLS kills under load (1000 each); needs root
	@[ "$$(id -u)" = 0 ] || { echo "power cuts are made on loop devices: they need root" >&2; exit 1; }
	LARDER_CUTS=$(CUTS) LARDER_KILLS=$(KILLS) go test -v -count=1 -parallel 6 -timeout 90m \
		-run '^(TestPowerCuts|TestKills|TestKilledAtRename)$$' ./integration

bench-durability: ## what fsync costs a store below TMPDIR; reports, and bounds nothing
	go test -run='^$$' -bench='^BenchmarkDurability/small$$' -benchtime=1000x ./cache
	go test -run='^$$' -bench='^BenchmarkDurability/large$$' -benchtime=10x ./cache

lint: $(LINTER) ## golangci-lint, settings in .golangci.yml
	$(BIN)/golangci-lint run --allow-parallel-runners ./...

vet: ## go vet
	go vet ./...

vuln: $(VULN) ## known vulnerabilities in what larder calls; asks vuln.go.dev, so that it needs the internet
	$(BIN)/govulncheck ./...

fmt: ## format all Go files
	gofmt -w $$(git ls-files -co --exclude-standard '*.go')

fmt-check: ## fail on a file that gofmt would change
	@bad=$$(gofmt -l $$(git ls-files -co --exclude-standard '*.go')); \
	if [ -n "$$bad" ]; then echo "not gofmt'd:"; echo "$$bad"; exit 1; fi

tidy-check: ## fail when go mod tidy would change something
	go mod tidy -diff
	go mod tidy -C plugin/builtin/example -diff

fuzz: ## run every fuzz target for FUZZTIME (5s)
	@grep -rl '^func Fuzz' --include='*_test.go' . | sort | while read -r file; do \
		for target in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' "$$file"); do \
			echo "== $$target in $$(dirname "$$file")"; \
			go test -run='^$$' -fuzz="^$$target\$$" -fuzztime=$(FUZZTIME) "$$(dirname "$$file")" || exit 1; \
		done; \
	done

ROUNDS ?= 5
BENCH_REPORT ?= $(BIN)/bench
bench: build $(TOOLS) ## larder beside nginx, distribution and containerd alone; ROWS=regexp ROUNDS=5, report in bin/bench; pulls need root
	@go build -o $(BIN)/larder-bench ./integration/bench
	$(BIN)/larder-bench -rows '$(ROWS)' -rounds $(ROUNDS) -report $(BENCH_REPORT) $(BENCHFLAGS)

COUNT ?= 6
BENCH ?= ^Benchmark(Hot|ServeHTTP|ParseRequest|Locate|PoliciesFor|Decode|FillReader|FillAppend|Fill|Copy|Open|Tag|PutTag|PinsOf|Blob|PlainGet)$$
bench-go: $(STAT) ## Go benchmarks of single functions (BENCH), COUNT (6) times, by benchstat; EARLIER=file compares with an earlier run
	@mkdir -p $(BENCH_REPORT)
	go test -run='^$$' -bench='$(BENCH)' -benchmem -count=$(COUNT) ./cache/... ./remotes/... ./plugin/... >$(BENCH_REPORT)/go.txt || { cat $(BENCH_REPORT)/go.txt; exit 1; }
	$(BIN)/benchstat $(EARLIER) $(BENCH_REPORT)/go.txt

bench-unpack: deps ## larder's unpacking against containerd's own, in ROUNDS (5), and its stages; needs igzip (Debian: isal) and root
	LARDER_BENCH_UNPACK=$(ROUNDS) go test -v -count=1 -timeout 60m -run '^TestFigures$$' ./plugin/unpack
	go test -run '^$$' -bench '^BenchmarkStages$$' -benchtime 3x ./plugin/unpack

bench-plugin: build tools embedded deps ## warm pulls with and without larder's plugins, in ROUNDS (5); takes 20 GB in TMPDIR, and root
	LARDER_BENCH_PLUGIN=$(ROUNDS) go test -v -count=1 -timeout 120m -run '^TestPluginFigures$$' ./integration | grep -v ' INFO '

BENCH_BLOBS ?= 1000000
bench-space: ## figures of a store of BENCH_BLOBS (1000000) blobs: start, choice, eviction of 10 GiB; takes 20 GB in TMPDIR
	LARDER_BENCH_SPACE=$(BENCH_BLOBS) go test -v -count=1 -timeout 60m -run '^TestSpaceFigures$$' ./cache | grep -v ' INFO '

ROW     ?= head
CLIENTS ?= 32
PROFILES ?= $(BIN)/profiles
profile: build ## CPU and heap profiles of larder under load (ROW=head, manifest or blob; CLIENTS=32), in PROFILES (bin/profiles)
	go run ./integration/profile -rows $(ROW) -clients $(CLIENTS) -out $(PROFILES)

demo: build $(TOOLS) deps ## the story in one minute: pull, lose the upstream, pull again
	@go build -o $(BIN)/demo ./integration/demo
	@$(BIN)/demo

clean: ## remove bin/
	rm -rf $(BIN)
