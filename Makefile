# p9auth: see README.md.
GO      ?= go
BACKEND ?=
TAGS    := $(BACKEND)
STATIC   = CGO_ENABLED=0 $(GO) build -trimpath -tags '$(TAGS)' -ldflags '-s -w'
GOFILES  = $$(git ls-files '*.go')

all:
	mkdir -p bin
	$(STATIC) -o bin/factotum ./factotum
	$(STATIC) -o bin/become ./internal/become
	$(STATIC) -o bin/login ./login
	$(STATIC) -o bin/sshfront ./sshfront
	CGO_ENABLED=1 $(GO) build -trimpath -tags '$(TAGS)' -ldflags '-s -w' -o bin/factotum-pam ./factotum/pam

test: all
	scripts/deps
	$(GO) test -count=1 -tags '$(TAGS)' ./...

check:
	@test -z "$$(gofmt -l $(GOFILES))" || { gofmt -d $(GOFILES); exit 1; }
	$(GO) vet ./...
	$(GO) tool staticcheck ./...
	@out=$$(mandoc -Tlint -W warning $$(git ls-files 'man/*')) && test -z "$$out" || { echo "$$out"; exit 1; }

demo: all
	$(STATIC) -o build/demo ./internal/demo
	scripts/demo

clean:
	rm -rf bin build

.PHONY: all test check demo clean
