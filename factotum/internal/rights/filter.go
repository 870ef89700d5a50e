package rights

import (
	"fmt"

	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Offsets in struct seccomp_data of seccomp(2); both architectures are
// little-endian.
const (
	offNumber = 0
	offArch   = 4
	offArgs   = 16
)

// namespaces are the flags of clone(2) that make one.
const namespaces = unix.CLONE_NEWCGROUP | unix.CLONE_NEWIPC | unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWTIME | unix.CLONE_NEWUSER | unix.CLONE_NEWUTS

// families are those of the sockets that may be made.
var families = []uint32{unix.AF_UNIX, unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK}

func fails(e unix.Errno) bpf.RetConstant {
	return bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(e)}
}

// arg loads the low half of an argument.
func arg(n uint32) bpf.Instruction { return bpf.LoadAbsolute{Off: offArgs + 8*n, Size: 4} }

// filter is the seccomp filter for an architecture. What it refuses fails, and
// kills nobody: PAM modules try things and do without. System calls of another
// architecture, which have other numbers, do not exist.
func filter(a *arch.Info) ([]bpf.Instruction, error) {
	allow := bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW}
	p := []bpf.Instruction{
		bpf.LoadAbsolute{Off: offArch, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(a.ID), SkipTrue: 1},
		fails(unix.ENOSYS),
		bpf.LoadAbsolute{Off: offNumber, Size: 4},
	}
	if a.ID == arch.X86_64.ID {
		p = append(p, bpf.JumpIf{Cond: bpf.JumpLessThan, Val: uint32(arch.X32.SeccompMask), SkipTrue: 1}, fails(unix.ENOSYS))
	}
	// call adds what is done with one system call, or nothing if there is no such.
	call := func(name string, then ...bpf.Instruction) {
		n, ok := a.SyscallNames[name]
		if ok {
			p = append(p, bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(n), SkipFalse: uint8(len(then))})
			p = append(p, then...)
		}
	}
	for _, names := range [][]string{denied, extra} {
		for _, n := range names {
			call(n, fails(unix.EPERM))
		}
	}
	// No namespaces are made, but for one of mounts: see pam_namespace in p9auth(7). The
	// flags of clone3 are in memory, where a filter does not look, and libraries use clone
	// where there is no clone3.
	noNamespace := []bpf.Instruction{arg(0), bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: namespaces, SkipFalse: 1}, fails(unix.EPERM), allow}
	call("clone", noNamespace...)
	mounts := []bpf.Instruction{arg(0), bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.CLONE_NEWNS, SkipFalse: 1}, allow}
	call("unshare", append(mounts, noNamespace...)...)
	call("clone3", fails(unix.ENOSYS))
	// One of the network may be entered: see NetworkNamespace in factotum.conf(5).
	call("setns", arg(1), bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.CLONE_NEWNET, SkipTrue: 1}, fails(unix.EPERM), allow)
	socket := []bpf.Instruction{arg(0)}
	for i, f := range families {
		socket = append(socket, bpf.JumpIf{Cond: bpf.JumpEqual, Val: f, SkipTrue: uint8(len(families) - i)})
	}
	call("socket", append(socket, fails(unix.EAFNOSUPPORT), allow)...)
	p = append(p, allow)
	if len(p) > 4096 { // BPF_MAXINSNS
		return nil, fmt.Errorf("the filter has %d instructions", len(p))
	}
	return p, nil
}
