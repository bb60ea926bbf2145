# Mailrace. A bare `make` prints what can be made.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

# smtp-source and smtp-sink live here, which is not in every user's path.
export PATH := $(PATH):/usr/sbin

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null)
# Packages that `make race` tests: all but the ones that start whole programs.
RACE ?= ./bench/... ./engine/... ./proto/... ./router/... ./spool/...
FUZZTIME ?= 30s
# For the fuzz targets that read nothing from strangers.
RESTTIME ?= $(FUZZTIME)
BENCHTIME ?= 1s
# What `make bench-compare` compares with, and of it.
BASE ?= HEAD
PACKAGES ?= ./...
BENCHES ?= .
COMPARETIME ?= 200ms
COMPAREFLAGS ?=
# Kills of `make crash`.
ROUNDS ?= 20
DURATION ?= 4h
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2

.PHONY: help build run deps test soak crash queue smoke race fuzz bench bench-compare lint clean

help: ## print this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

build: ## build bin/mailrace
	go build -trimpath -ldflags '-X main.version=$(VERSION)' -o bin/mailrace ./cmd/mailrace

run: build ## build, then show it at work: a node, a sink and a load, until Ctrl-C
	@bin/mailrace demo

deps: ## install what the tests talk to: Postfix, Dovecot, Exim, OpenSMTPD, Haraka, swaks, msmtp, Python, nodemailer
	@.ci/deps

test: deps ## run go vet and every test
	go vet ./...
	go test -timeout 20m ./...

soak: ## hold spools against a model of what is promised, through crashes, faults and reshardings, for DURATION (4h)
	@.ci/soak $(DURATION)

crash: deps ## kill a node under load ROUNDS times (20) and print what arrived, what twice, what never, what was listed as in doubt
	go test -count 1 -v -timeout 60m -run '^Test(Kill|Doubts)' ./cmd/mailrace -kill.rounds $(ROUNDS)

queue: ## start a node on a spool with a million messages, and print when it listens, when it knows them all, and what memory it takes
	go test -count 1 -v -timeout 30m -run '^TestLongQueue$$' ./engine -queue 1000000

smoke: build ## run each bench scenario for a moment, for its accounting and the memory of connections
	bin/mailrace bench all --smoke --html bin/smoke.html

race: ## run the tests of the packages under the race detector
	go test -race -timeout 20m $(RACE)

fuzz: ## run every fuzz target for FUZZTIME (30s), those that read nothing from strangers for RESTTIME (as long)
	@.ci/fuzz $(FUZZTIME) $(RESTTIME)

bench: build ## run the benchmarks of the packages, then every scenario in ten minutes, with its report in bin/bench.html
	go test -run '^$$' -bench . -benchmem -benchtime $(BENCHTIME) ./...
	bin/mailrace bench all --quick --html bin/bench.html

bench-compare: ## compare this tree with revision BASE: benchmarks (of PACKAGES, matching BENCHES) by benchstat, and accept and relay
	@BENCHTIME=$(COMPARETIME) .ci/compare $(BASE) "$(PACKAGES)" "$(BENCHES)" $(COMPAREFLAGS)

lint: ## check format, go vet and staticcheck
	@unformatted=$$(gofmt -l .); if [[ -n $$unformatted ]]; then echo "gofmt is needed by:"; echo "$$unformatted"; exit 1; fi
	go vet ./...
	go run $(STATICCHECK) ./...

clean: ## remove what was built
	rm -rf bin
