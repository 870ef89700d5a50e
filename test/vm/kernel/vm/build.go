package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// A builder makes what a guest consists of, in build/vm.
type builder struct {
	top    string // the source tree
	dir    string
	faults string // the arguments of test/faults, where that is what runs
}

// arm64 says that a kernel, as fetch names it, is for that machine.
func arm64(version string) bool { return strings.HasPrefix(version, "arm64-") }

// bin is where the suite for a kernel's machine is.
func (b *builder) bin(version string) string {
	if arm64(version) {
		return filepath.Join(b.dir, "arm64-bin")
	}
	return filepath.Join(b.dir, "bin")
}

// user is the root of the system that the guest's other programs come from.
func (b *builder) user(version string) string {
	if arm64(version) {
		return filepath.Join(b.dir, "arm64-user")
	}
	return "/"
}

func (b *builder) root(version string) string { return filepath.Join(b.dir, version, "root") }

// release is the kernel's release, as in /lib/modules.
func (b *builder) release(version string) string {
	r, _ := os.ReadFile(filepath.Join(b.dir, version, "release"))
	return strings.TrimSpace(string(r))
}

// run runs a command in the source tree and shows what it says if it fails.
func (b *builder) run(argv ...string) error {
	c := exec.Command(argv[0], argv[1:]...)
	c.Dir = b.top
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(argv, " "), err, out)
	}
	return nil
}

// prepare fetches the kernels and builds the suite.
func (b *builder) prepare(kernels []string) error {
	fmt.Println("vm-test: fetching kernels, building the suite")
	fetch, suites := []string{"test/vm/kernel/fetch", b.dir}, map[bool]bool{}
	for _, k := range kernels {
		suites[arm64(k)] = true
		if !strings.HasPrefix(k, "grantid") {
			fetch = append(fetch, k)
		}
	}
	if len(fetch) > 2 {
		if err := b.run(fetch...); err != nil {
			return err
		}
	}
	for arm := range suites {
		bin, arch := "build/vm/bin", "amd64"
		if arm {
			bin, arch = "build/vm/arm64-bin", "arm64"
		}
		// A make that runs us hands its variables down; ours are named here.
		if err := b.run("make", "BACKEND=capdev", "ARCH="+arch, "BIN="+bin); err != nil {
			return err
		}
		if err := b.run("env", "CGO_ENABLED=0", "GOARCH="+arch, "go", "build", "-trimpath", "-tags", "capdev", "-o", bin+"/guest", "./test/vm/kernel/guest"); err != nil {
			return err
		}
	}
	if b.faults != "" {
		// Without -trimpath: the test finds the source tree by its own path.
		return b.run("env", "CGO_ENABLED=0", "go", "test", "-c", "-tags", "capdev", "-o", "build/vm/faults.test", "./test/faults")
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// module builds the module for a kernel and returns its path.
func (b *builder) module(version string) (string, error) {
	root := b.root(version)
	own := exists(filepath.Join(root, "usr/bin/make")) // the kernel comes with its compiler
	dir := filepath.Join(b.dir, version, "p9auth")
	if own {
		dir = filepath.Join(root, "p9auth")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	for _, name := range []string{"p9auth.c", "Kbuild"} {
		src, err := os.ReadFile(filepath.Join(b.top, "kernel", "p9auth", name))
		if err != nil {
			return "", err
		}
		// Left alone if unchanged, for make's sake.
		dst := filepath.Join(dir, name)
		if old, err := os.ReadFile(dst); err == nil && bytes.Equal(old, src) {
			continue
		}
		if err := os.WriteFile(dst, src, 0o644); err != nil {
			return "", err
		}
	}
	headers := "/usr/src/linux-headers-" + b.release(version)
	// Type information for BPF would need pahole, and the kernel's vmlinux.
	flags := []string{"CONFIG_DEBUG_INFO_BTF_MODULES=", "W=1", "KCFLAGS=-Werror"}
	if arm64(version) {
		flags = append(flags, "ARCH=arm64", "CROSS_COMPILE=aarch64-linux-gnu-")
	}
	var err error
	if own {
		// Debian's headers for these kernels lack what C=2 needs.
		argv := []string{"unshare", "-rm", "sh", "-ec", `mount --rbind /dev "$0/dev"; mount --rbind /proc "$0/proc"; exec chroot "$0" "$@"`,
			root, "/usr/bin/make", "-C", headers, "M=/p9auth"}
		err = b.run(append(append(argv, flags...), "modules")...)
	} else {
		// C=2 has sparse(1) look at what is compiled, and at what was.
		flags = append(flags, "C=2", "CHECK=sparse -Wsparse-error")
		argv := []string{"make", "-C", filepath.Join(root, headers), "M=" + dir}
		err = b.run(append(append(argv, flags...), "modules")...)
	}
	return filepath.Join(dir, "p9auth.ko"), err
}

// Programs that the guest has, besides ours.
var programs = strings.Fields(`
	/bin/bash /bin/sh /bin/cat /bin/chmod /bin/chown /bin/grep /bin/ls /bin/mkdir /bin/mktemp /bin/rm /bin/sed /bin/sleep
	/bin/stty /bin/true /usr/bin/basenc /usr/bin/env /usr/bin/head /usr/bin/id /usr/bin/od /usr/bin/openssl /usr/bin/printf
	/usr/bin/setpriv /usr/bin/stat /usr/bin/touch /usr/bin/tr /usr/bin/tty /usr/bin/wc /usr/bin/xxd /sbin/agetty /sbin/unix_chkpwd
	/usr/bin/ssh /usr/bin/ssh-keygen /bin/su /bin/ps /bin/uname /usr/bin/paste /lib/x86_64-linux-gnu/security /lib/terminfo/l/linux`)

// Files of this machine that are the same on another.
var settings = strings.Fields(`
	/etc/login.defs /etc/nsswitch.conf /etc/pam.d /etc/security /etc/services /etc/protocols /etc/ssl/openssl.cnf
	/usr/lib/ssl/openssl.cnf /etc/environment`)

// addPrograms adds this machine's programs, and the libraries that they load.
func (b *builder) addPrograms(a *archive) error {
	var elf []string
	for _, p := range programs {
		if err := a.below("/", p, func(f string) { elf = append(elf, f) }); err != nil {
			return err
		}
	}
	for _, lib := range libraries(append(elf, filepath.Join(b.dir, "bin", "factotum-pam"))) {
		if err := a.below("/", lib, nil); err != nil {
			return err
		}
	}
	return nil
}

// initramfs packs the guest's root file system and returns its path. What comes first
// stays: our accounts and settings.
func (b *builder) initramfs(version string) (string, error) {
	ko, err := b.module(version)
	if err != nil {
		return "", err
	}
	a := newArchive()
	for _, d := range []string{"dev", "proc", "sys", "run", "tmp", "root", "home", "etc/p9auth", "etc/ssh", "var/log", "var/mail", "usr/lib/p9auth"} {
		a.dir(d, 0o755, 0)
	}
	a.link("/var/run", "/run")
	// As on the host, /bin and the like may be links into /usr.
	for _, l := range []string{"/bin", "/sbin", "/lib", "/lib64"} {
		if to, err := os.Readlink(filepath.Join(b.user(version), l)); err == nil {
			a.link(l, to)
		}
	}
	// That of the patches with which test/vm/kernel/grantid has built the kernel.
	if test := filepath.Join(b.dir, version, "selftest", "test_grant_id"); exists(test) {
		if err := a.copy("/selftest/test_grant_id", test, 0o755); err != nil {
			return "", err
		}
	}
	// Where FUSE is not in the kernel itself, fetch has its module.
	if fuse := filepath.Join(b.dir, version, "fuse.ko"); exists(fuse) {
		if err := a.copy("/lib/fuse.ko", fuse, 0o644); err != nil {
			return "", err
		}
	}
	if err := b.accounts(a); err != nil {
		return "", err
	}
	for _, f := range settings {
		if err := a.below("/", f, nil); err != nil {
			return "", err
		}
	}
	if arm64(version) {
		err = a.below(b.user(version), "/", nil)
	} else {
		err = b.addPrograms(a)
	}
	if err != nil {
		return "", err
	}
	for _, p := range []string{"factotum", "factotum-pam", "login", "sshfront", "become"} {
		if err := a.copy("/usr/lib/p9auth/"+p, filepath.Join(b.bin(version), p), 0o755); err != nil {
			return "", err
		}
	}
	if err := a.copy("/init", filepath.Join(b.bin(version), "guest"), 0o755); err != nil {
		return "", err
	}
	if err := a.copy("/lib/p9auth.ko", ko, 0o644); err != nil {
		return "", err
	}
	if err := b.examples(a); err != nil {
		return "", err
	}
	if b.faults != "" {
		if err := b.addFaults(a, version); err != nil {
			return "", err
		}
	}
	path := filepath.Join(b.dir, version, "initrd")
	return path, os.WriteFile(path, a.bytes(), 0o600)
}

// libraries are what dynamic programs among the files load, by ldd(1).
func libraries(elf []string) []string {
	out, _ := exec.Command("ldd", elf...).Output() // fails on what is not dynamic
	seen := map[string]bool{}
	var libs []string
	for _, m := range regexp.MustCompile(`(?m)^\s+(?:\S+ => )?(/\S+) \(0x`).FindAllSubmatch(out, -1) {
		lib := string(m[1])
		if seen[lib] {
			continue
		}
		seen[lib] = true
		libs = append(libs, lib)
		if real, err := filepath.EvalSymlinks(lib); err == nil && real != lib {
			libs = append(libs, real)
		}
	}
	return libs
}

const password = "open-sesame"

// accounts writes the guest's users: the front ends, alice, and ltp of the
// historical test.
func (b *builder) accounts(a *archive) error {
	hash, err := exec.Command("openssl", "passwd", "-6", password).Output()
	if err != nil {
		return fmt.Errorf("openssl passwd: %w", err)
	}
	a.file("/etc/passwd", 0o644, `root:x:0:0:root:/root:/bin/bash
_login:x:101:101::/nonexistent:/usr/sbin/nologin
_sshfront:x:102:102::/nonexistent:/usr/sbin/nologin
alice:x:1000:1000::/home/alice:/bin/bash
ltp:x:1600:1600::/home/ltp:/bin/bash
`)
	a.file("/etc/group", 0o644, "root:x:0:\ntty:x:5:\nshadow:x:42:\n_login:x:101:\n_sshfront:x:102:\nalice:x:1000:\nwizards:x:1100:alice\nltp:x:1600:\n")
	a.file("/etc/shadow", 0o600, "root:*:19000:0:99999:7:::\n_login:!:19000::::::\n_sshfront:!:19000::::::\nalice:"+
		strings.TrimSpace(string(hash))+":19000:0:99999:7:::\nltp:!:19000:0:99999:7:::\n")
	a.file("/etc/shells", 0o644, "/bin/sh\n/bin/bash\n/bin/rbash\n")
	a.file("/etc/hosts", 0o644, "127.0.0.1 localhost guest\n")
	a.file("/etc/p9auth/factotum.conf", 0o644, "FrontEnd _login login\nFrontEnd _sshfront sshd ssh\n")
	a.file("/etc/p9auth/sshd_config", 0o644, "Subsystem sftp internal-sftp\n")
	a.file("/etc/security/limits.d/alice.conf", 0o644, "alice - nproc 40\n")
	a.dir("home/alice", 0o700, 1000)
	return nil
}
