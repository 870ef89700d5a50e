package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

func TestTheFiltersOfTheTreeAreThoseOfThePolicy(t *testing.T) {
	for goarch := range arches {
		want, err := generate(goarch)
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join("../..", dir, fileName(goarch)))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is not what go run ./tools/filter makes", fileName(goarch))
		}
	}
}

func TestEverySystemCallExistsOnSomeArchitecture(t *testing.T) {
	for _, names := range [][]string{allowed, perhaps, {"mmap", "mprotect", "tgkill", "prctl", "fcntl", "setsockopt", "clone"}} {
		for _, n := range names {
			found := false
			for _, a := range arches {
				_, ok := a.SyscallNames[n]
				found = found || ok
			}
			if !found {
				t.Errorf("no architecture has %s", n)
			}
		}
	}
}

// TestTheFilterDecidesByEachArgument runs the filters of both architectures, in a
// machine that is not the kernel's.
func TestTheFilterDecidesByEachArgument(t *testing.T) {
	for goarch, a := range arches {
		p, err := policy(a)
		if err != nil {
			t.Fatal(err)
		}
		vm, err := bpf.NewVM(p)
		if err != nil {
			t.Fatal(err)
		}
		decide := func(id, nr uint32, args ...uint64) int {
			// The machine loads numbers in the order of the network.
			data := make([]byte, 64)
			put := func(off int, v uint32) {
				for i := range 4 {
					data[off+i] = byte(v >> (24 - 8*i))
				}
			}
			put(offNumber, nr)
			put(offArch, id)
			for i, v := range args {
				put(offArgs+8*i, uint32(v))
				put(offArgs+8*i+4, uint32(v>>32))
			}
			r, err := vm.Run(data)
			if err != nil {
				t.Fatal(err)
			}
			return r
		}
		const high = 1 << 32
		yes, no, perm := int(unix.SECCOMP_RET_ALLOW), int(unix.SECCOMP_RET_KILL_PROCESS), int(unix.SECCOMP_RET_ERRNO|uint32(unix.EPERM))
		thread := uint64(threadFlags)
		if goarch == "amd64" {
			thread |= unix.CLONE_SETTLS
		}
		for _, c := range []struct {
			name string
			args []uint64
			want int
		}{
			{"read", nil, yes}, {"ppoll", nil, yes}, {"recvmsg", nil, yes},
			{"sendmsg", nil, no}, {"execve", nil, no}, {"connect", nil, no}, {"socket", nil, no}, {"ptrace", nil, no}, {"kill", nil, no}, {"clone3", nil, no},
			{"epoll_create1", nil, no}, {"dup", nil, no}, {"dup3", nil, no}, {"socketpair", nil, no}, {"bpf", nil, no}, {"io_uring_setup", nil, no},
			{"openat", nil, perm}, {"epoll_ctl", nil, perm}, {"ioctl", nil, perm},
			{"mmap", []uint64{0, 4096, unix.PROT_READ | unix.PROT_WRITE}, yes}, {"mmap", []uint64{0, 4096, unix.PROT_READ | unix.PROT_EXEC}, no},
			{"mprotect", []uint64{0, 4096, unix.PROT_EXEC}, no}, {"mprotect", []uint64{0, 4096, unix.PROT_READ}, yes},
			{"tgkill", []uint64{ownPID, 1, 23}, yes}, {"tgkill", []uint64{1, ownPID, 23}, no}, {"tgkill", []uint64{ownPID + high, 1, 23}, no},
			{"prctl", []uint64{unix.PR_SET_VMA}, yes}, {"prctl", []uint64{unix.PR_SET_DUMPABLE, 1}, no},
			{"fcntl", []uint64{3, unix.F_SETFL}, yes}, {"fcntl", []uint64{3, unix.F_GETFD}, yes}, {"fcntl", []uint64{3, unix.F_DUPFD}, no}, {"fcntl", []uint64{3, unix.F_SETOWN}, no},
			{"fcntl", []uint64{unix.F_SETFL, unix.F_DUPFD_CLOEXEC}, no},
			{"setsockopt", []uint64{3, unix.IPPROTO_TCP, unix.TCP_NODELAY}, yes}, {"setsockopt", []uint64{3, unix.IPPROTO_IPV6, unix.IPV6_TCLASS}, yes},
			{"setsockopt", []uint64{3, unix.SOL_SOCKET, unix.SO_MARK}, no}, {"setsockopt", []uint64{3, unix.IPPROTO_IP, unix.TCP_KEEPCNT}, no},
			{"setsockopt", []uint64{3, unix.SOL_SOCKET + high, unix.SO_KEEPALIVE}, no},
			{"clone", []uint64{thread}, perm}, {"clone", []uint64{uint64(unix.SIGCHLD)}, no}, {"clone", []uint64{thread | unix.CLONE_NEWUSER}, no},
		} {
			nr, ok := a.SyscallNames[c.name]
			if !ok {
				t.Fatalf("%s has no %s", goarch, c.name)
			}
			if got := decide(uint32(a.ID), uint32(nr), c.args...); got != c.want {
				t.Errorf("%s: %s %#x: %#x, want %#x", goarch, c.name, c.args, got, c.want)
			}
			for other, b := range arches {
				if other != goarch {
					if got := decide(uint32(b.ID), uint32(nr), c.args...); got != no {
						t.Errorf("%s: %s of %s: %#x", goarch, c.name, other, got)
					}
				}
			}
		}
		if got := decide(uint32(a.ID), 1<<30); got != no { // the x32 calls of amd64
			t.Errorf("%s: a call of another ABI: %#x", goarch, got)
		}
	}
}

// TestTheNumbersOfSystemCallsAreTheKernels compares the tables that the filters are made by
// with the kernel's headers, for both architectures.
func TestTheNumbersOfSystemCallsAreTheKernels(t *testing.T) {
	define := regexp.MustCompile(`(?m)^#define __NR(\w*?)_(\w+) (.+)$`)
	for goarch, cc := range map[string]string{"amd64": "x86_64-linux-gnu-gcc", "arm64": "aarch64-linux-gnu-gcc"} {
		if _, err := exec.LookPath(cc); err != nil {
			t.Skipf("needs %s: run scripts/deps", cc)
		}
		cmd := exec.Command(cc, "-E", "-dM", "-")
		cmd.Stdin = strings.NewReader("#include <asm/unistd.h>\n")
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s: %v", cmd, err)
		}
		numbers := map[string]string{}
		for _, m := range define.FindAllStringSubmatch(string(out), -1) {
			if n := m[3]; m[1] == "3264" || numbers[m[2]] == "" && !strings.HasPrefix(n, "__NR") {
				numbers[m[2]] = n // those of 3264 have other names on machines of 32 bits
			}
		}
		compared := 0
		for name, n := range arches[goarch].SyscallNames {
			if want, ok := numbers[name]; ok {
				compared++
				if strconv.Itoa(n) != want {
					t.Errorf("%s: %s is %d, the kernel's headers have %s", goarch, name, n, want)
				}
			}
		}
		if compared < 250 {
			t.Errorf("%s: only %d system calls", goarch, compared)
		}
	}
}
