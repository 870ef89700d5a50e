// Package sibling attacks the processes of sshfront from another process of the
// same uid: an attacker who has taken over one connection process, and has somehow
// left its sandbox, or a program that an administrator runs as _sshfront. It has
// tests only.
package sibling

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"p9auth/test/testbed"
)

func TestMain(m *testing.M) { testbed.Main(m, testbed.Programs{"trace": trace}) }

// trace is the sibling. It watches for processes that a listener starts, and tries
// in a tight loop to trace each and to open its memory. It ends when it has caught one,
// which it names, or when its standard input does.
//
//	trace LISTENER     (a pid)
func trace(args []string) {
	listener := args[0]
	runtime.LockOSThread() // a tracer is a thread
	go func() {
		os.Stdin.Read(make([]byte, 1))
		os.Exit(0)
	}()
	fmt.Println("ready")
	young := map[int]time.Time{}
	last := newest()
	for {
		now := newest()
		for pid := last + 1; pid <= now; pid++ {
			young[pid] = time.Now()
		}
		last = now
		for pid, since := range young {
			if time.Since(since) > 500*time.Millisecond {
				delete(young, pid)
				continue
			}
			stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
			if err != nil {
				continue
			}
			_, rest, _ := bytes.Cut(stat, []byte(") "))
			if f := bytes.Fields(rest); len(f) < 2 || string(f[1]) != listener {
				continue // not the listener's: leave it alone
			}
			if _, _, e := unix.RawSyscall6(unix.SYS_PTRACE, unix.PTRACE_SEIZE, uintptr(pid), 0, 0, 0, 0); e == 0 {
				fmt.Println("traced", pid)
				return
			} else if fd, err := unix.Open(fmt.Sprintf("/proc/%d/mem", pid), unix.O_RDWR, 0); err == nil {
				fmt.Println("opened the memory of", pid)
				unix.Close(fd)
				return
			}
		}
	}
}

// newest is the pid that the kernel gave last: proc_loadavg(5).
func newest() int {
	b, _ := os.ReadFile("/proc/loadavg")
	f := strings.Fields(string(b))
	n, _ := strconv.Atoi(f[len(f)-1])
	return n
}

// A listener is an sshfront of the test.
type listener struct {
	b    *testbed.Bed
	pid  int
	port string
}

// listen starts the program as a listener.
func listen(t *testing.T, b *testbed.Bed, program string) listener {
	t.Helper()
	l := listener{b: b, port: testbed.FreePort(t)}
	cmd := b.Command(program, "-D", "-e", "-p", l.port, "-o", "MaxStartups=1000", "-o", "PerSourcePenalties=no")
	log, err := os.Create(filepath.Join(t.TempDir(), "log")) // its processes keep it open
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	l.pid = cmd.Process.Pid
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	if !testbed.Eventually(func() bool {
		c, err := net.Dial("tcp", "127.0.0.1:"+l.port)
		if err == nil {
			c.Close()
		}
		return err == nil
	}) {
		text, _ := os.ReadFile(log.Name())
		t.Fatalf("%s does not listen: %s", program, text)
	}
	return l
}

// watched runs f while a process of the user tries to trace what the listener
// starts. It returns what that process says.
func (l listener) watched(t *testing.T, user string, f func()) []string {
	t.Helper()
	cmd := l.b.Command(testbed.As(user, l.b.Self(t), "trace", strconv.Itoa(l.pid))...)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd.Stdout, cmd.Stderr = w, &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	ready := make([]byte, len("ready\n"))
	if _, err := r.Read(ready); err != nil || string(ready) != "ready\n" {
		t.Fatalf("the tracer: %v: %q: %s", err, ready, &errs)
	}
	f()
	in.Close()
	if _, err := out.ReadFrom(r); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("the tracer: %v: %s", err, &errs)
	}
	return strings.FieldsFunc(out.String(), func(r rune) bool { return r == '\n' })
}

// connect has the listener start n connection processes, one after the other.
func (l listener) connect(t *testing.T, n int) {
	t.Helper()
	for range n {
		c, err := net.Dial("tcp", "127.0.0.1:"+l.port)
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(testbed.Patience))
		if b := make([]byte, 8); true {
			if _, err := c.Read(b); err != nil || string(b) != "SSH-2.0-" {
				t.Fatalf("the connection process says %q, %v", b, err)
			}
		}
		c.Close()
	}
}

// login logs alice in by ssh, n times.
func (l listener) login(t *testing.T, n int) {
	t.Helper()
	for range n {
		ctx, cancel := context.WithTimeout(context.Background(), testbed.Patience)
		out, err := exec.CommandContext(ctx, "ssh", "-F", "none", "-p", l.port, "-i", filepath.Join(l.b.Dir, "keys", "alice"), "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
			"-o", "LogLevel=ERROR", "-o", "BatchMode=yes", "alice@127.0.0.1", "id -un").CombinedOutput()
		cancel()
		if err != nil || string(out) != "alice\n" {
			t.Fatalf("login: %v: %s", err, out)
		}
	}
}

// TestNobodyTracesAProcessFromItsFirstInstruction tries it with connection and
// session processes as _sshfront, and with user processes as the user. That the
// attacker could do it is seen where the file is readable, so that only
// PR_SET_DUMPABLE protects a process, some hundred microseconds later.
func TestNobodyTracesAProcessFromItsFirstInstruction(t *testing.T) {
	b := testbed.Up(t)
	l := listen(t, b, b.Bin("sshfront"))
	caught := l.watched(t, "_sshfront", func() {
		l.connect(t, 100)
		l.login(t, 5)
	})
	caught = append(caught, l.watched(t, "alice", func() { l.login(t, 5) })...)
	if len(caught) != 0 {
		t.Errorf("an attacker has %q", caught)
	}

	readable := filepath.Join(b.Dir, "readable")
	b.Sh(t, fmt.Sprintf("install -m 755 %s %s", b.Bin("sshfront"), readable))
	l = listen(t, b, readable)
	n := 0
	for caught = nil; len(caught) == 0 && n < 1000; n += 50 {
		caught = l.watched(t, "_sshfront", func() { l.connect(t, 50) })
	}
	if len(caught) == 0 {
		t.Errorf("of %d processes of a readable file an attacker has none: this test sees nothing", n)
	}
	t.Logf("of %d processes of a readable file an attacker has %q", n, caught)
}

// TestAFileThatLetsItsProcessesBeTracedIsNamed by the programs' -t, and by factotum
// when it starts.
func TestAFileThatLetsItsProcessesBeTracedIsNamed(t *testing.T) {
	b := testbed.Up(t)
	dir := filepath.Join(b.Dir, "programs")
	b.Sh(t, fmt.Sprintf("cp -r %s %s", filepath.Dir(b.Bin("sshfront")), dir))
	complaints := func() []string {
		out, err := b.Command("sh", "-ec", dir+"/factotum -t; "+dir+"/sshfront -t").CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		said := strings.FieldsFunc(string(out), func(r rune) bool { return r == '\n' })
		slices.Sort(said)
		return said
	}
	if said := complaints(); len(said) != 0 {
		t.Errorf("as they are installed: %q", said)
	}
	b.Sh(t, fmt.Sprintf("cd %s; chmod 755 sshfront; chown _login login", dir))
	want := []string{
		fmt.Sprintf("factotum: warning: %[1]s/login belongs to _login, whose processes could change it: chown root %[1]s/login", dir),
		fmt.Sprintf("factotum: warning: %[1]s/sshfront can be read by _sshfront, so that a process of _sshfront can trace another one that starts: chmod 0711 %[1]s/sshfront", dir),
		fmt.Sprintf("sshfront: warning: %[1]s/sshfront can be read by _sshfront, so that a process of _sshfront can trace another one that starts: chmod 0711 %[1]s/sshfront", dir),
	}
	if said := complaints(); !slices.Equal(said, want) {
		t.Errorf("%q", said)
	}
	b.Sh(t, fmt.Sprintf("cd %s; chmod 750 sshfront; chgrp _sshfront sshfront", dir))
	if said := complaints(); !slices.Equal(said, want) {
		t.Errorf("readable by the group: %q", said)
	}
}
