# p9auth: see README.md. Targets: all check test clean.
GO      ?= go
BACKEND ?=
TAGS    := $(BACKEND)

all:
	$(GO) build -tags '$(TAGS)' ./...

test:
	scripts/deps
	$(GO) test -count=1 -tags '$(TAGS)' ./...

check:
	@test -z "$$(gofmt -l $$(git ls-files "*.go"))" || { gofmt -d $$(git ls-files "*.go"); exit 1; }
	$(GO) vet ./...
	$(GO) tool staticcheck ./...

clean:
	rm -rf bin build

.PHONY: all test check clean
