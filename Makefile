# p9auth: see README.md.
GO      ?= go
BACKEND ?=
HOST    := $(shell dpkg --print-architecture 2>/dev/null)
ARCH    := $(HOST)
TARGET  :=
# For another machine than this one, in build/arm64: make ARCH=arm64, or make deb
# ARCH=arm64, after scripts/deps-arm64.
ifneq ($(ARCH),$(HOST))
ifneq ($(ARCH),arm64)
$(error Programs for $(ARCH) are built on $(ARCH) only)
endif
BIN     ?= build/$(ARCH)/bin
OUT     ?= build/$(ARCH)
CC       = aarch64-linux-gnu-gcc
OBJCOPY  = aarch64-linux-gnu-objcopy
PAM      = $(CURDIR)/build/$(ARCH)/pam
TARGET   = GOARCH=$(ARCH) CC='$(CC)'
HAVECFLAGS  = -idirafter $(PAM)/usr/include
HAVELDFLAGS = -L$(PAM)/usr/lib/aarch64-linux-gnu -Wl,-rpath-link,$(PAM)/lib/aarch64-linux-gnu
endif
OBJCOPY ?= objcopy
# For the one program that is linked dynamically, with C in it.
HARDENED = CGO_CFLAGS='-O2 -g -fstack-protector-strong $(HAVECFLAGS)' CGO_CPPFLAGS='-D_FORTIFY_SOURCE=2' \
	CGO_LDFLAGS='-O2 -g -Wl,-z,relro,-z,now $(HAVELDFLAGS)'
BIN     ?= bin
TAGS    := $(BACKEND)
TESTFLAGS ?=
# More flags for the programs: scripts/cover has some.
BUILDFLAGS ?=
BUILD    = $(TARGET) $(GO) build -trimpath -tags '$(TAGS)' -ldflags '$(LDFLAGS)' $(BUILDFLAGS)
STATIC   = CGO_ENABLED=0 $(BUILD)
# What -V prints and the package is called. Between releases the package's
# version counts commits; "~" sorts before the release (deb-version(7)).
VERSION ?= $(shell cat VERSION)
DEBVERSION = $(subst -,~,$(VERSION))$(if $(findstring -dev,$(VERSION)),.$(shell git rev-list --count HEAD 2>/dev/null || echo 0))
COMMIT  := $(shell git describe --always --dirty --abbrev=12 --exclude='*' 2>/dev/null)
LDFLAGS  = -s -w -X p9auth/internal/version.number=$(VERSION) -X p9auth/internal/version.commit=$(COMMIT)
GOFILES  = $$(git ls-files '*.go')
# All that a shell runs, by the first line.
SCRIPTS  = $$(git ls-files -z | xargs -0 awk 'FNR == 1 && /^\#!\/bin\/(ba)?sh/ { print FILENAME } { nextfile }')
# Packages whose tests run under the race detector: those that need no testbed.
RACE     = ./capproto ./factotum/... ./internal/... ./sshfront/internal/... ./tools/sshpatch
# The golang.org/x/crypto that go.mod replaces the module by: nothing compiles
# without it.
CRYPTO   = build/made-by-make/crypto/go.mod
SSHPATCH = $(GO) run -modfile=tools/sshpatch/pin/go.mod ./tools/sshpatch
LINT     = $(GO) tool -modfile=tools/lint/go.mod
# Who runs these cannot read them: so the kernel keeps others of that user away from
# their processes, from the first instruction on (execve(2)).
UNREADABLE = $(addprefix $(BIN)/,login sshfront su redeem doas passwd unix_chkpwd)

all: $(CRYPTO)
	mkdir -p $(BIN)
	$(STATIC) -o $(BIN)/factotum ./factotum
	CC='$(CC)' VERSION='$(VERSION)' COMMIT='$(COMMIT)' internal/become/build $(BIN)/become
	$(STATIC) -o $(BIN)/login ./login
	$(STATIC) -o $(BIN)/su ./su
	CC='$(CC)' VERSION='$(VERSION)' COMMIT='$(COMMIT)' internal/become/build $(BIN)/redeem redeem
	$(STATIC) -o $(BIN)/doas ./doas
	$(STATIC) -o $(BIN)/passwd ./passwd
	$(STATIC) -o $(BIN)/unix_chkpwd ./chkpwd
	$(STATIC) -o $(BIN)/sshfront ./sshfront
	CGO_ENABLED=1 $(HARDENED) $(BUILD) -buildmode=pie -o $(BIN)/factotum-pam ./factotum/pam
	$(OBJCOPY) --remove-section=.comment $(BIN)/factotum-pam
	chmod 711 $(UNREADABLE)

crypto: $(CRYPTO)

$(CRYPTO): go.mod tools/sshpatch/main.go tools/sshpatch/apply.go $(wildcard tools/sshpatch/pin/* tools/sshpatch/patches tools/sshpatch/patches/*)
	$(SSHPATCH)

# What building and testing needs of Debian. It says what it installs before it
# does; "scripts/deps -n" only says it.
deps:
	scripts/deps

# What building needs comes before what is built. The last line has the number of
# attacks that were tried, see test/attack/README.md. Tests of logins wait most of their
# time, for a delay of PAM's or a grace time, so there is a package more than there are
# processors. The one that takes longest comes first.
PACKAGES ?= $(shell expr 1 + $$(nproc))
test: deps
	$(MAKE) all
	$(GO) run ./tools/attacks $(GO) test -p $(PACKAGES) -timeout 20m -count=1 -shuffle=on $(TESTFLAGS) -tags '$(TAGS)' ./sshfront ./...

race: $(CRYPTO)
	$(GO) test -count=1 -shuffle=on -race -short $(TESTFLAGS) $(RACE)

# Each value of each keyword of sshd_config(5), with each release of sshd.
test-config: deps
	$(MAKE) all
	$(GO) test -count=1 $(TESTFLAGS) ./test/config -all

# How much of what ships is run by all tests together.
cover: deps
	scripts/cover

# Each fuzz target for a while.
FUZZTIME ?= 30s
fuzz: $(CRYPTO)
	@for f in $$(git grep -l '^func Fuzz' -- '*_test.go'); do \
		for t in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' $$f); do \
			echo "$$t in $$f"; \
			$(GO) test -run '^$$' -fuzz "^$$t\$$" -fuzztime $(FUZZTIME) ./$$(dirname $$f) || exit 1; \
		done; \
	done

# p9auth-site(7), with servers that run in a testbed.
test-site: deps
	scripts/deps-site
	$(MAKE) all
	$(GO) test -count=1 $(TESTFLAGS) -tags 'site $(TAGS)' -v ./test/site

# OpenSSH's own tests, of Debian 12 and 13, see test/openssh; OPENSSHFLAGS are for
# the test, such as -test.run Suite/script/rekey.
OPENSSHFLAGS ?=
test-openssh: deps
	for s in $(SUITES); do scripts/deps-openssh $$s || exit 1; done
	$(MAKE) all
	$(STATIC) -o build/intree ./test/openssh/intree
	CGO_ENABLED=0 $(GO) test -c -o build/openssh.test ./test/openssh
	status=0; for s in $(SUITES); do \
		echo "OpenSSH's tests of Debian $$s"; \
		build/intree build/openssh/$$s build/openssh.test -test.v -test.timeout 3h -all -keep build/openssh/$$s.logs $(OPENSSHFLAGS) >build/openssh/$$s.out 2>&1 || status=1; \
		grep -Ev '^(=== |[[:space:]]*--- PASS: )' build/openssh/$$s.out; \
	done; exit $$status

# What people's SSH clients do with sshfront and with sshd.
test-clients: deps
	scripts/deps-clients
	$(MAKE) all
	P9AUTH_CLIENTS=all $(GO) test -count=1 -timeout 60m $(TESTFLAGS) -tags '$(TAGS)' -v ./test/clients

check: $(CRYPTO)
	@test -z "$$(gofmt -l $(GOFILES))" || { gofmt -d $(GOFILES); exit 1; }
	$(GO) vet ./...
	$(GO) vet -tags capdev ./...
	$(GO) vet -tags cover ./internal/version
	$(GO) vet -tags site ./test/site
	$(GO) vet -tags cross ./test/package
	$(GO) vet -tags containers ./test/container
	$(LINT) staticcheck ./...
	$(LINT) staticcheck -tags site ./test/site
	$(LINT) staticcheck -tags containers ./test/container
	shellcheck $(SCRIPTS)
	shellcheck -s bash dist/completions/p9auth.bash
	$(GO) mod verify
	$(GO) mod tidy -diff
	cd tools/sshpatch/pin && $(GO) mod verify
	cd tools/lint && $(GO) mod verify
	@out=$$(mandoc -Tlint -W warning $$(git ls-files 'man/*')) && test -z "$$out" || { echo "$$out"; exit 1; }

demo: deps
	$(MAKE) all
	$(STATIC) -o build/demo ./tools/demo
	scripts/demo

# The kernel module under Debian's kernels in qemu, see kernel/README.md.
vm-test: $(CRYPTO)
	$(GO) run ./test/vm/kernel/vm $(VMFLAGS)

# The same on arm64.
vm-test-arm64: $(CRYPTO)
	scripts/deps arm64
	scripts/deps-arm64
	$(GO) run ./test/vm/kernel/vm -kernels arm64-6.1,arm64-6.12,arm64-7.3 $(VMFLAGS)

# The same on a current kernel, whose compiler is fetched with it.
vm-test-current: $(CRYPTO)
	scripts/deps vm
	$(GO) run ./test/vm/kernel/vm -kernels 7.3 $(VMFLAGS)

# A Debian with the package, booted with systemd in qemu, see test/vm/debian.
SUITES  ?= bookworm trixie
vm-boot:
	scripts/deps boot
	$(MAKE) deb
	for s in $(SUITES); do \
		test/vm/debian/image build/boot/$$s $$s build/p9auth_$(DEBVERSION)_$(ARCH).deb && \
		$(GO) run ./test/vm/debian -dir build/boot/$$s $(VMFLAGS) || exit 1; \
	done

# What test/vm/debian/realm needs.
KDC = krb5-kdc,krb5-admin-server,krb5-user

# The same where SELinux is enforced, with Debian's policy and dist/selinux.
vm-selinux:
	scripts/deps boot
	$(MAKE) deb
	SELINUX=yes PACKAGES=selinux-policy-default,selinux-policy-dev,policycoreutils,policycoreutils-python-utils,make,m4,$(KDC) \
		test/vm/debian/image build/boot/selinux bookworm build/p9auth_$(DEBVERSION)_$(ARCH).deb
	$(GO) run ./test/vm/debian -dir build/boot/selinux -only selinux $(VMFLAGS)

# A Debian with the package, booted with systemd in a container, see test/container. With
# P9AUTH_CUTS=all and TESTFLAGS="-run Port22 -timeout 3h", each cut of each switch.
test-containers: deps
	scripts/deps containers
	$(MAKE) deb
	for s in $(SUITES); do \
		PACKAGES=$(KDC) test/vm/debian/image -t build/containers/$$s $$s build/p9auth_$(DEBVERSION)_$(ARCH).deb && \
		P9AUTH_CONTAINER=$(CURDIR)/build/containers/$$s $(GO) test -count=1 -timeout 30m $(TESTFLAGS) -tags containers -v ./test/container || exit 1; \
	done

# Logins by a Kerberos ticket, beside Debian's sshd: each way, of which make test has some.
test-gssapi: deps
	$(MAKE) all
	$(GO) test -count=1 $(TESTFLAGS) -run Ticket ./test/modules -all

# As test-containers, with a domain controller of Samba's and sssd.
test-domain: deps
	scripts/deps containers
	$(MAKE) deb
	PACKAGES=samba-ad-dc,samba-dsdb-modules,samba-vfs-modules,samba-ad-provision,winbind,sssd-ad,sssd-tools,sssd-krb5,libnss-sss,libpam-sss,krb5-user,ldb-tools,libsasl2-modules-gssapi-mit \
		test/vm/debian/image -t build/containers/domain bookworm build/p9auth_$(DEBVERSION)_$(ARCH).deb
	P9AUTH_CONTAINER=$(CURDIR)/build/containers/domain $(GO) test -count=1 -timeout 30m $(TESTFLAGS) -tags containers -v -run Domain ./test/container

# A kernel with CAP_GRANT_ID, from Debian's linux-source, 6.1 or 7.3: ten minutes and more.
GRANTID ?= 6.1
kernel-grantid: $(CRYPTO)
	scripts/deps kernel
	for v in $(GRANTID); do \
		test/vm/kernel/grantid build/vm $$v && \
		$(GO) run ./test/vm/kernel/vm -kernels grantid-$$v $(VMFLAGS) || exit 1; \
	done

# As many sessions of one user at once: each takes some 7 MB of memory, 30 threads of
# kernel.pid_max, and 5 of the descriptors that factotum may have.
N ?= 5000
many-sessions: all
	P9AUTH_SESSIONS=$(N) $(GO) test -count=1 -timeout 60m -v ./test/many

# Logins where there is no room for another process or thread, for memory or descriptors,
# at each limit: of tasks those of LIMITS, so that it can be done in parts.
LIMITS ?= 10-400
test-limits: all
	P9AUTH_LIMITS=$(LIMITS) $(GO) test -count=1 -timeout 3h -v -run '$(or $(LACK),LackOf)' ./test/daemon

# Faults at random steps of a login, FAULTS by each front end: 20000 are all. Two a second.
FAULTS ?= 400
test-faults: all
	$(GO) test -count=1 -timeout 6h -v -run AnyStep ./test/faults -faults $(FAULTS)

# The same with the kernel device, under Debian 12's kernel in qemu, where each takes up to
# ten seconds: one at each call of each kind of process.
FAULTSFLAGS ?= -each
test-faults-device: $(CRYPTO)
	scripts/deps vm
	$(GO) run ./test/vm/kernel/vm -kernels 6.1 -faults '$(FAULTSFLAGS)' $(VMFLAGS)

# Logins while programs are killed and replaced: make soak SOAK=20000.
SOAK ?= 2000
soak: all
	$(GO) test -count=1 -timeout 12h -v -run NoLoginIsLost ./test/faults -soak $(SOAK)

# The switch of port 22, cut before each of its commands.
test-switch: all
	P9AUTH_CUTS=all $(GO) test -count=1 -timeout 30m -v -run Port22 ./test/script

# What Debian's checker of packages says beyond dist/debian/lintian-overrides: nothing.
# Go's linker puts strings next to each other, in which it finds words that nobody wrote.
lintian: deb
	lintian --display-info --tag-display-limit 0 --allow-root --suppress-tags spelling-error-in-binary \
		--fail-on error,warning,info $(OUT)/p9auth_$(DEBVERSION)_$(ARCH).deb

# The package for arm64, made on this machine, and what of its programs qemu runs.
test-arm64: deps
	scripts/deps-arm64
	$(GO) test -count=1 $(TESTFLAGS) -tags cross -v -run ARM64 ./test/package

# Timings, of which nothing is asserted: see tools/bench and scripts/bench-sftp.
bench: all
	$(GO) test -run '^$$' -bench . -benchtime 100x ./login
	$(GO) run ./tools/bench $(BENCHFLAGS)
	scripts/bench-sftp

# With another PREFIX than /usr or /usr/local, systemd has to be told of the
# units: systemctl link.
PREFIX  ?= /usr
DESTDIR ?=
MAINTAINER ?= p9auth developers <p9auth@localhost>
TOP      = $(DESTDIR)$(PREFIX)
LIB      = $(TOP)/lib/p9auth
# Those that Go's linker made.
PROGRAMS = $(addprefix $(BIN)/,doas factotum factotum-pam login passwd sshfront su unix_chkpwd)
# What names places: programs find each other by themselves.
TEXTS    = $(LIB)/console-dropin $(LIB)/runit/*/run $(TOP)/lib/systemd/system/*factotum* $(TOP)/lib/systemd/system/p9auth* $(TOP)/sbin/p9auth-switch $(TOP)/share/doc/p9auth/examples/selinux/p9auth.fc $$(for p in man/*.[1-9]; do echo $(TOP)/share/man/man$${p\#\#*.}/$${p\#\#*/}; done)

install: all
	install -d $(LIB) $(TOP)/bin $(TOP)/sbin $(TOP)/lib/systemd/system $(TOP)/lib/sysusers.d
	install -m 755 $(BIN)/factotum $(BIN)/factotum-pam $(BIN)/become $(LIB)/
	install -m 711 $(UNREADABLE) $(LIB)/
	install -m 755 dist/console-dropin $(LIB)/
	install -m 644 dist/systemd/factotum.service dist/systemd/factotum.socket dist/systemd/p9auth-hostkeys.service dist/systemd/p9auth-ssh.service dist/systemd/p9auth-ssh.socket $(TOP)/lib/systemd/system/
	install -m 644 dist/sshd_config $(LIB)/
	install -m 644 dist/sysusers.conf $(TOP)/lib/sysusers.d/p9auth.conf
	install -D -m 755 dist/p9auth-switch $(TOP)/sbin/p9auth-switch
	sed -i 's/@VERSION@/$(VERSION)/' $(TOP)/sbin/p9auth-switch
	ln -sf ../lib/p9auth/factotum ../lib/p9auth/sshfront $(TOP)/sbin/
	# By the names of their manual pages, beside the system's.
	for p in doas login passwd su; do ln -sf ../lib/p9auth/$$p $(TOP)/bin/p9$$p; done
	install -D -m 644 dist/completions/p9auth.bash $(TOP)/share/bash-completion/completions/p9auth
	for p in factotum sshfront p9auth-switch p9doas p9passwd p9su; do ln -sf p9auth $(TOP)/share/bash-completion/completions/$$p; done
	install -D -m 644 dist/completions/_p9auth $(TOP)/share/zsh/$(if $(filter /usr,$(PREFIX)),vendor-completions,site-functions)/_p9auth
	install -D -m 755 dist/fleet $(TOP)/share/doc/p9auth/examples/fleet
	for f in dist/selinux/p9auth.*; do install -D -m 644 $$f $(TOP)/share/doc/p9auth/examples/selinux/$${f##*/}; done
	$(GO) run ./tools/licences LICENSE $(PROGRAMS) >$(TOP)/share/doc/p9auth/copyright.new
	mv $(TOP)/share/doc/p9auth/copyright.new $(TOP)/share/doc/p9auth/copyright
	for s in factotum p9auth-ssh p9auth-getty; do install -D -m 755 dist/runit/$$s/run $(LIB)/runit/$$s/run; done
	install -d $(DESTDIR)/etc/p9auth
	# Without a sshd_config here, sshd's own holds.
	test -e $(DESTDIR)/etc/p9auth/factotum.conf || install -m 644 dist/factotum.conf $(DESTDIR)/etc/p9auth/
	for p in man/*.[1-9]; do install -D -m 644 $$p $(TOP)/share/man/man$${p##*.}/$${p##*/}; done
	test $(PREFIX) = /usr || sed -i 's,/usr/\(lib/p9auth\|lib/systemd/system\|lib/sysusers.d\|sbin/p9auth-switch\|bin/p9\|share/doc/p9auth\),$(PREFIX)/\1,g' $(TEXTS)

# OUT is where the package and what goes into it are made.
OUT     ?= build
# The time of the package and of all files in it, in seconds.
EPOCH    = $${SOURCE_DATE_EPOCH:-$$(git log -1 --format=%ct 2>/dev/null || date +%s)}

deb: all
	rm -rf $(OUT)/deb $(OUT)/p9auth_*.deb
	$(MAKE) install DESTDIR=$(OUT)/deb/root PREFIX=/usr
	find $(OUT)/deb/root/usr/share/man -type f -exec gzip -9n {} +
	install -D -m 644 README.md $(OUT)/deb/root/usr/share/doc/p9auth/README.md
	gzip -9nc CHANGELOG.md >$(OUT)/deb/root/usr/share/doc/p9auth/CHANGELOG.md.gz
	printf '%s\n' 'p9auth ($(DEBVERSION)) unstable; urgency=medium' '' '  * What changed is in CHANGELOG.md.gz beside this file.' '' \
		" -- $(MAINTAINER)  $$(date -R -u -d @$(EPOCH))" |\
		gzip -9n >$(OUT)/deb/root/usr/share/doc/p9auth/changelog.gz
	install -D -m 644 dist/debian/lintian-overrides $(OUT)/deb/root/usr/share/lintian/overrides/p9auth
	install -d $(OUT)/deb/root/DEBIAN
	install -D -m 644 dist/debian/pam $(OUT)/deb/root/etc/pam.d/p9auth-sshd
	install -m 644 dist/debian/pam-doas $(OUT)/deb/root/etc/pam.d/p9auth-doas
	install -m 755 dist/debian/postinst dist/debian/prerm dist/debian/postrm $(OUT)/deb/root/DEBIAN/
	install -m 644 dist/debian/conffiles $(OUT)/deb/root/DEBIAN/
	sed 's/@VERSION@/$(DEBVERSION)/; s/@ARCH@/$(ARCH)/; s/@MAINTAINER@/$(MAINTAINER)/' dist/debian/control.in >$(OUT)/deb/root/DEBIAN/control
	cd $(OUT)/deb/root && find . -path ./DEBIAN -prune -o -type f -printf '%P\0' | LC_ALL=C sort -z | xargs -0 md5sum >DEBIAN/md5sums
	# Whatever the umask and the clock.
	find $(OUT)/deb/root -type d -exec chmod 755 {} +
	chmod 644 $(OUT)/deb/root/DEBIAN/control $(OUT)/deb/root/DEBIAN/md5sums
	find $(OUT)/deb/root/usr/share/doc/p9auth -maxdepth 1 -type f -exec chmod 644 {} +
	find $(OUT)/deb/root -exec touch -h -d @$(EPOCH) {} +
	SOURCE_DATE_EPOCH=$(EPOCH) dpkg-deb --root-owner-group -b $(OUT)/deb/root $(OUT)/p9auth_$(DEBVERSION)_$(ARCH).deb

clean:
	rm -rf bin build

.PHONY: all crypto deps test test-config race cover fuzz many-sessions test-limits test-faults test-faults-device soak test-switch test-arm64 test-site test-openssh test-clients check demo bench vm-test vm-test-arm64 vm-test-current vm-boot vm-selinux test-containers test-domain test-gssapi kernel-grantid install deb lintian clean
