package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"p9auth/internal/capuse"
)

const (
	caphash = "/dev/caphash"
	capuser = "/dev/capuse"
)

// The test of a tracer needs the first thread of its process: another one that is traced
// is a zombie when it has ended, until its tracer, which is our parent, waits for it by
// its number. It waits for the process, which does not end meanwhile.
func init() {
	if len(os.Args) > 1 && os.Args[1] == "traceme" {
		runtime.LockOSThread()
	}
}

// helper is a process that a test starts as another user, or elsewhere.
func helper(mode string, args []string) {
	switch mode {
	case "redeem": // CAPABILITY SCRIPT: as login does
		var nproc *[2]uint64
		if os.Getenv("NPROC") != "" {
			nproc = &[2]uint64{1, 1}
		}
		if os.Getenv("NNP") != "" {
			runtime.LockOSThread()
			unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
		}
		err := capuse.Exec(capuser, args[0], capuse.Target{
			Path: "/bin/sh", Argv: []string{"sh", "-c", args[1]}, Env: []string{"PATH=/usr/bin:/bin"}, Dir: "/", NProc: nproc,
		})
		fmt.Println(err)
		os.Exit(1)
	case "refused": // with a limit, and what the limit is afterwards
		var before, after unix.Rlimit
		unix.Getrlimit(unix.RLIMIT_NPROC, &before)
		err := capuse.Exec(capuser, "1500@0@0@"+strings.Repeat("A", 43), capuse.Target{Argv: []string{"x"}, NProc: &[2]uint64{1, 1}})
		unix.Getrlimit(unix.RLIMIT_NPROC, &after)
		if errors.Is(err, unix.EPERM) && after == before {
			err = errors.New("operation not permitted, as before")
		}
		fmt.Println(err)
	case "redeem-bad": // CAPABILITY
		err := capuse.Exec(capuser, args[0], capuse.Target{Path: "/no/such", Argv: []string{"x"}})
		fmt.Println(err)
		os.Exit(1)
	case "write": // each line of standard input to a file, one write each
		runtime.LockOSThread()
		fd, err := unix.Open(args[0], unix.O_WRONLY, 0)
		if err != nil {
			fmt.Println("open:", err)
			return
		}
		b, _ := io.ReadAll(os.Stdin)
		for s := range strings.SplitSeq(string(b), "\x01") {
			if _, err = unix.Write(fd, []byte(s)); err != nil {
				fmt.Println(err)
				continue
			}
			fmt.Println("ok", rawUID())
		}
	case "writefd": // HEX standard input to descriptor 3, as whoever we are
		b, _ := io.ReadAll(os.Stdin)
		_, err := unix.Write(3, b)
		fmt.Println(errName(err))
	case "openhash":
		_, err := unix.Open(caphash, unix.O_WRONLY, 0)
		fmt.Println(errName(err))
	case "traceme": // on the first thread, see init
		unix.RawSyscall(unix.SYS_PTRACE, unix.PTRACE_TRACEME, 0, 0)
		helper("write", []string{capuser})
	case "fuzz":
		fuzz(args[0])
	case "userns":
		insideUserNS()
	case "denyns":
		insideDenyNS()
	case "bounded":
		becomeBounded(args)
	case "uring":
		uring(args[0])
	case "stress":
		stressUser()
	default:
		fmt.Println("unknown mode", mode)
		os.Exit(2)
	}
}

// rawUID is the calling thread's real uid.
func rawUID() int {
	r, _, _ := unix.RawSyscall(unix.SYS_GETUID, 0, 0, 0)
	return int(r)
}

func errName(err error) string {
	if err == nil {
		return "ok"
	}
	if e, ok := err.(syscall.Errno); ok {
		return unix.ErrnoName(e)
	}
	return err.Error()
}

// as is a helper that runs as a user without rights.
func as(uid int, args ...string) *exec.Cmd {
	c := exec.Command("/proc/self/exe", args...)
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	c.Env = []string{"PATH=/usr/bin:/bin"}
	return c
}

func output(c *exec.Cmd) string {
	out, _ := c.CombinedOutput()
	return strings.TrimSpace(string(out))
}

// redeem redeems a capability as uid and returns what the script prints as
// the new user, or the error.
func redeem(uid int, capability, script string) string {
	return output(as(uid, "redeem", capability, script))
}

// write writes to capuse as uid, once for each text, in one process. It
// returns a line for each.
func write(uid int, texts ...string) string {
	c := as(uid, "write", capuser)
	c.Stdin = bytes.NewReader([]byte(strings.Join(texts, "\x01")))
	return output(c)
}
