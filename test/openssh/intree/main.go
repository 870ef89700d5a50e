// Intree runs a command, as root, with a Debian that debootstrap has made as its root
// directory, as a whole machine would have it.
//
//	intree TREE CMD...
//
// The command has a mount namespace of its own, whose root is the tree (pivot_root(2)):
// what enters that namespace later finds the tree, and not the host. It shares the host's
// network, pids and devices, and sees the current directory, which is where p9auth's
// source is, at the path that it has on the host. Nothing that it writes elsewhere but
// below /run and /tmp outlives it: an overlay takes it.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: intree TREE CMD...")
		os.Exit(2)
	}
	if err := enter(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "intree:", err)
		os.Exit(1)
	}
}

// enter becomes the command; it returns if that fails.
func enter(tree string, argv []string) error {
	top, err := os.Getwd()
	if err != nil {
		return err
	}
	if tree, err = filepath.Abs(tree); err != nil {
		return err
	}
	runtime.LockOSThread() // the namespace is the thread's, and exec keeps it
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return os.NewSyscallError("unshare", err)
	}
	// A place for the root and what is written, which vanishes with the namespace.
	place := "/mnt"
	root := place + "/root"
	mounts := []struct {
		source, target, kind string
		flags                uintptr
		data                 string
	}{
		{"", "/", "", unix.MS_PRIVATE | unix.MS_REC, ""},
		{"intree", place, "tmpfs", 0, "mode=755"},
		{"intree", root, "overlay", 0, "lowerdir=" + tree + ",upperdir=" + place + "/up,workdir=" + place + "/work"},
		{"/dev", root + "/dev", "", unix.MS_BIND | unix.MS_REC, ""},
		{"/proc", root + "/proc", "", unix.MS_BIND | unix.MS_REC, ""},
		{"/sys", root + "/sys", "", unix.MS_BIND | unix.MS_REC, ""},
		{"intree", root + "/run", "tmpfs", 0, "mode=755"},
		{"intree", root + "/tmp", "tmpfs", 0, "mode=1777"},
		{top, root + top, "", unix.MS_BIND | unix.MS_REC, ""},
	}
	for _, m := range mounts {
		if m.target == root {
			for _, d := range []string{"root", "up", "work"} {
				if err := os.Mkdir(filepath.Join(place, d), 0o755); err != nil {
					return err
				}
			}
		}
		if err := os.MkdirAll(m.target, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.source, m.target, m.kind, m.flags, m.data); err != nil {
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	if err := unix.Chdir(root); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return os.NewSyscallError("pivot_root", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return os.NewSyscallError("umount", err)
	}
	if err := os.Chdir(top); err != nil {
		return err
	}
	const path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	if err := os.Setenv("PATH", path); err != nil {
		return err
	}
	if err := os.Setenv("TMPDIR", "/tmp"); err != nil {
		return err
	}
	program, err := exec.LookPath(argv[0])
	if err != nil {
		return err
	}
	return syscall.Exec(program, argv, os.Environ())
}
