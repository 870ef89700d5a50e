# p9auth: see README.md.
GO      ?= go
BACKEND ?=
BIN     ?= bin
TAGS    := $(BACKEND)
TESTFLAGS ?=
STATIC   = CGO_ENABLED=0 $(GO) build -trimpath -tags '$(TAGS)' -ldflags '-s -w'
# What hands SSH signatures to factotum, and uses the copy of golang.org/x/crypto
# that internal/sshpatch makes.
SSHTAGS  = sshsig $(TAGS)
SSHSIG   = -modfile=build/go.mod -tags '$(SSHTAGS)'
STATICSSH = CGO_ENABLED=0 $(GO) build -trimpath $(SSHSIG) -ldflags '-s -w'
GOFILES  = $$(git ls-files '*.go')

all: build/go.mod
	mkdir -p $(BIN)
	$(STATIC) -o $(BIN)/factotum ./factotum
	$(STATIC) -o $(BIN)/become ./internal/become
	$(STATIC) -o $(BIN)/login ./login
	$(STATICSSH) -o $(BIN)/sshfront ./sshfront
	CGO_ENABLED=1 $(GO) build -trimpath -tags '$(TAGS)' -ldflags '-s -w' -o $(BIN)/factotum-pam ./factotum/pam

build/go.mod: go.mod go.sum internal/sshpatch/main.go internal/sshpatch/patch.go
	mkdir -p build
	$(GO) run ./internal/sshpatch -out build

# What building needs comes before what is built.
deps:
	scripts/deps

test: deps
	$(MAKE) all
	$(GO) test -count=1 $(TESTFLAGS) -tags '$(TAGS)' ./...
	$(GO) test -count=1 $(TESTFLAGS) $(SSHSIG) ./sshfront ./internal/sshpatch

check: build/go.mod
	@test -z "$$(gofmt -l $(GOFILES))" || { gofmt -d $(GOFILES); exit 1; }
	$(GO) vet ./...
	$(GO) vet $(SSHSIG) ./sshfront ./internal/sshpatch
	$(GO) tool staticcheck ./...
	@out=$$(mandoc -Tlint -W warning $$(git ls-files 'man/*')) && test -z "$$out" || { echo "$$out"; exit 1; }

demo: deps
	$(MAKE) all
	$(STATIC) -o build/demo ./internal/demo
	scripts/demo

# The kernel module under Debian's kernels in qemu, see kernel/README.md.
vm-test:
	$(GO) run ./kernel/test/vm $(VMFLAGS)

# A kernel with CAP_GRANT_ID, from Debian's linux-source: ten minutes and more.
kernel-grantid:
	scripts/deps kernel
	kernel/test/fetch build/vm
	kernel/test/grantid build/vm
	$(GO) run ./kernel/test/vm -kernels grantid $(VMFLAGS)

# Timings, of which nothing is asserted: see scripts/bench-ssh.
bench: all
	$(GO) test -run '^$$' -bench . -benchtime 100x ./login
	scripts/bench-ssh

clean:
	rm -rf bin build

.PHONY: all deps test check demo bench vm-test kernel-grantid clean
