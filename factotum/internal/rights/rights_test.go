package rights

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"p9auth/test/manual"
)

// TestMain is also a process that gives its rights up, and tries something.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "give up" {
		try(os.Args[2])
		return
	}
	os.Exit(m.Run())
}

func errno(_, _ uintptr, e syscall.Errno) error {
	if e == 0 {
		return nil
	}
	return e
}

// attempts are what a factotum that has been taken over, or a PAM module, would try.
var attempts = map[string]struct {
	do   func() error
	want error
}{
	"trace a process":                {func() error { return unix.PtraceAttach(os.Getppid()) }, unix.EPERM},
	"load a module":                  {func() error { return errno(syscall.RawSyscall(unix.SYS_INIT_MODULE, 0, 0, 0)) }, unix.EPERM},
	"load a program into the kernel": {func() error { return errno(syscall.RawSyscall(unix.SYS_BPF, 0, 0, 0)) }, unix.EPERM},
	"io_uring":                       {func() error { return errno(syscall.RawSyscall(unix.SYS_IO_URING_SETUP, 1, 0, 0)) }, unix.EPERM},
	"set the clock":                  {func() error { return unix.Settimeofday(&unix.Timeval{}) }, unix.EPERM},
	"make a namespace":               {func() error { return unix.Unshare(unix.CLONE_NEWUSER) }, unix.EPERM},
	"make a namespace with clone3":   {func() error { return errno(syscall.RawSyscall(unix.SYS_CLONE3, 0, 0, 0)) }, unix.ENOSYS},
	"enter a mount namespace": {func() error {
		fd, err := unix.Open("/proc/self/ns/mnt", unix.O_RDONLY, 0)
		if err != nil {
			return err
		}
		return unix.Setns(fd, unix.CLONE_NEWNS)
	}, unix.EPERM},
	"a packet socket": {func() error {
		_, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
		return err
	}, unix.EAFNOSUPPORT},
	"a raw socket": {func() error {
		_, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP)
		return err
	}, unix.EPERM},
	"make a device": {func() error { return unix.Mknod(filepath.Join(os.TempDir(), "device"), unix.S_IFBLK, 0x100) }, unix.EPERM},
	"read another's file": {func() error {
		_, err := os.ReadFile(os.Getenv("ANOTHERS"))
		return err
	}, unix.EACCES},
	"become another user": {func() error { return syscall.Setresuid(1, 1, 1) }, unix.EPERM},
	"give a file away":    {func() error { return os.Chown(os.Getenv("ANOTHERS"), 2, 2) }, unix.EPERM},
	"nothing":             {func() error { return nil }, nil},
	"a worker that reads another's file": {func() error {
		out, err := exec.Command("cat", os.Getenv("ANOTHERS")).CombinedOutput()
		if err != nil || string(out) != "secret" {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}, nil},
	"a worker that has what the table says": {func() error {
		out, err := exec.Command("grep", "-E", "^(CapPrm|CapEff|CapBnd|NoNewPrivs|Seccomp)", "/proc/self/status").CombinedOutput()
		if err != nil {
			return err
		}
		set, _, _ := strings.Cut(strings.TrimPrefix(string(out), "CapPrm:\t"), "\n")
		want := fmt.Sprintf("CapPrm:\t%[1]s\nCapEff:\t%[1]s\nCapBnd:\t%[1]s\nNoNewPrivs:\t1\nSeccomp:\t2\n", set)
		var has uint64
		fmt.Sscanf(set, "%x", &has)
		if !strings.HasPrefix(string(out), want) || has == 0 || has&^all() != 0 {
			return errors.New(string(out))
		}
		return nil
	}, nil},
}

// try gives up the rights and makes an attempt, in a thread that was there before.
func try(what string) {
	work, result := make(chan func() error), make(chan error)
	go func() {
		runtime.LockOSThread()
		for f := range work {
			result <- f()
		}
	}()
	work <- func() error { return nil }
	<-result
	if err := Enter(slog.New(slog.DiscardHandler), true); err != nil {
		fmt.Println("give up rights:", err)
		return
	}
	a := attempts[what]
	work <- a.do
	if err := <-result; !errors.Is(err, a.want) {
		fmt.Printf("%v, not %v\n", err, a.want)
	}
}

func TestNeitherFactotumNorAWorkerCanDoMoreThanTheTableSays(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root has rights to give up")
	}
	// As the program, without cgo: with it a process cannot change all of its threads.
	dir := t.TempDir()
	program := filepath.Join(dir, "rights")
	build := exec.Command("go", "test", "-c", "-o", program, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	anothers := filepath.Join(dir, "anothers")
	if err := errors.Join(os.WriteFile(anothers, []byte("secret"), 0o600), os.Chown(anothers, 1, 1)); err != nil {
		t.Fatal(err)
	}
	for what := range attempts {
		t.Run(what, func(t *testing.T) {
			cmd := exec.Command(program, "give up", what)
			cmd.Env = append(os.Environ(), "ANOTHERS="+anothers)
			if out, err := cmd.CombinedOutput(); err != nil || len(out) != 0 {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}

// TestTheFilterRefusesWhatItShouldOnEachArchitecture runs it, for numbers and
// arguments as the kernel would give them.
func TestTheFilterRefusesWhatItShouldOnEachArchitecture(t *testing.T) {
	for _, a := range []*arch.Info{arch.X86_64, arch.AARCH64} {
		program, err := filter(a)
		if err != nil {
			t.Fatal(err)
		}
		vm, err := bpf.NewVM(program)
		if err != nil {
			t.Fatal(err)
		}
		verdict := func(id uint32, number int, args ...uint32) uint32 {
			// The machine for tests loads in network order, the kernel in the host's.
			b := make([]byte, offArgs+8*6)
			put := func(off int, n uint32) {
				b[off], b[off+1], b[off+2], b[off+3] = byte(n>>24), byte(n>>16), byte(n>>8), byte(n)
			}
			put(offNumber, uint32(number))
			put(offArch, id)
			for i, n := range args {
				put(offArgs+8*i, n)
			}
			n, err := vm.Run(b)
			if err != nil {
				t.Fatal(err)
			}
			return uint32(n)
		}
		fails := func(e unix.Errno) uint32 { return unix.SECCOMP_RET_ERRNO | uint32(e) }
		const allow = unix.SECCOMP_RET_ALLOW
		id, n := uint32(a.ID), a.SyscallNames
		for _, c := range []struct {
			what      string
			got, want uint32
		}{
			{"read", verdict(id, n["read"]), allow},
			{"read of another architecture", verdict(id+1, n["read"]), fails(unix.ENOSYS)},
			{"ptrace", verdict(id, n["ptrace"]), fails(unix.EPERM)},
			{"userfaultfd", verdict(id, n["userfaultfd"]), fails(unix.EPERM)},
			{"a new thread", verdict(id, n["clone"], unix.CLONE_VM|unix.CLONE_THREAD), allow},
			{"a new mount namespace", verdict(id, n["clone"], unix.CLONE_NEWNS), fails(unix.EPERM)},
			{"unshare, which shares on", verdict(id, n["unshare"], unix.CLONE_FS), allow},
			{"unshare, of mounts", verdict(id, n["unshare"], unix.CLONE_NEWNS), allow},
			{"unshare, of mounts and users", verdict(id, n["unshare"], unix.CLONE_NEWNS|unix.CLONE_NEWUSER), fails(unix.EPERM)},
			{"unshare, with one of many", verdict(id, n["unshare"], unix.CLONE_FS|unix.CLONE_NEWPID), fails(unix.EPERM)},
			{"clone3", verdict(id, n["clone3"]), fails(unix.ENOSYS)},
			{"a network namespace", verdict(id, n["setns"], 5, unix.CLONE_NEWNET), allow},
			{"all namespaces of a process", verdict(id, n["setns"], 5, unix.CLONE_NEWNET|unix.CLONE_NEWNS), fails(unix.EPERM)},
			{"any namespace", verdict(id, n["setns"], 5, 0), fails(unix.EPERM)},
			{"a unix socket", verdict(id, n["socket"], unix.AF_UNIX), allow},
			{"a netlink socket", verdict(id, n["socket"], unix.AF_NETLINK), allow},
			{"an encryption socket", verdict(id, n["socket"], unix.AF_ALG), fails(unix.EAFNOSUPPORT)},
		} {
			if c.got != c.want {
				t.Errorf("%s: %s: %#x, not %#x", a.Name, c.what, c.got, c.want)
			}
		}
		if a.ID == arch.X86_64.ID {
			if got := verdict(id, int(arch.X32.SeccompMask)|n["ptrace"]); got != fails(unix.ENOSYS) {
				t.Errorf("x32: %#x", got)
			}
		}
	}
}

// TestTheUnitAndTheManualHaveTheTable with its reasons.
func TestTheUnitAndTheManualHaveTheTable(t *testing.T) {
	unit := unit(t)
	var want, page strings.Builder
	for _, r := range Table {
		fmt.Fprintf(&want, "# %s:\nCapabilityBoundingSet=CAP_%s\n", strings.ToUpper(r.For[:1])+r.For[1:], r.Name)
		fmt.Fprintf(&page, ".It Dv CAP_%s\n%s\n", r.Name, r.For)
	}
	if !strings.Contains(unit, "#\n"+want.String()) || strings.Count(unit, "\nCapabilityBoundingSet=") != len(Table) {
		t.Errorf("factotum.service should have\n%s", &want)
	}
	if got := manual.Section(t, "factotum.8", "SECURITY CONSIDERATIONS"); !strings.Contains(got, page.String()) || strings.Count(got, ".It Dv CAP_") != len(Table) {
		t.Errorf("factotum(8) should have\n%s", &page)
	}
	if filter := "SystemCallFilter=~" + strings.Join(extra, " ") + "\n"; !strings.Contains(unit, filter) {
		t.Errorf("factotum.service should have\n%s", filter)
	}
}

// TestTheListOfSystemCallsHasThoseOfTheUnitsSets as systemd knows them.
func TestTheListOfSystemCallsHasThoseOfTheUnitsSets(t *testing.T) {
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("needs systemd-analyze")
	}
	m := regexp.MustCompile(`(?m)^SystemCallFilter=~(@.*)$`).FindStringSubmatch(unit(t))
	if m == nil {
		t.Fatal("the unit has no sets")
	}
	out, err := exec.Command("systemd-analyze", append([]string{"--no-pager", "syscall-filter"}, strings.Fields(m[1])...)...).Output()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(out)) {
		name := strings.TrimSpace(line)
		_, amd64 := arch.X86_64.SyscallNames[name]
		_, arm64 := arch.AARCH64.SyscallNames[name]
		if !amd64 && !arm64 {
			continue // a set, a comment, another machine's
		}
		n++
		if !slices.Contains(denied, name) {
			t.Errorf("%s is missing", name)
		}
	}
	if n < 20 {
		t.Errorf("%d system calls:\n%s", n, out)
	}
}

// TestTheManualGoesThroughTheSecurityScore: p9auth-install(7) has an item for all that
// systemd-analyze finds missing in the unit, and the number.
func TestTheManualGoesThroughTheSecurityScore(t *testing.T) {
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("needs systemd-analyze")
	}
	if v, err := exec.Command("systemd-analyze", "--version").Output(); err != nil || !strings.HasPrefix(string(v), "systemd 252 ") {
		t.Skip("the score in the manual is systemd 252's")
	}
	page := manual.Section(t, "p9auth-install.7", "The security score")
	for _, service := range []string{"factotum.service", "p9auth-ssh.service"} {
		path := filepath.Join(manual.Top(), "dist", "systemd", service)
		out, err := exec.Command("systemd-analyze", "security", "--offline=true", "--no-pager", path).Output()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		score := regexp.MustCompile(`Overall exposure level for \S+: [0-9.]+ [A-Z]+`).FindString(string(out))
		if score == "" || !strings.Contains(page, "\n"+score+"\n") {
			t.Errorf("the manual does not have %q", score)
		}
		if service != "factotum.service" {
			continue
		}
		out, err = exec.Command("systemd-analyze", "security", "--offline=true", "--json=short", path).Output()
		var lines []struct {
			Set      *bool
			Name     string
			Exposure *string
		}
		if err == nil {
			err = json.Unmarshal(out, &lines)
		}
		if err != nil || len(lines) < 50 {
			t.Fatalf("%v: %s", err, out)
		}
		for _, l := range lines {
			if l.Set != nil && !*l.Set && l.Exposure != nil && !strings.Contains(page, "\n.It Li "+l.Name+"\n") {
				t.Errorf("p9auth-install(7) does not say why there is no %s", l.Name)
			}
		}
	}
}

func unit(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(manual.Top(), "dist", "systemd", "factotum.service"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
