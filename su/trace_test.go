package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"p9auth/test/testbed"
)

// Another process of the caller's uid, or a caller who traces, against su and the like.

// lookInto tries to get at a process of the same uid in each way that the kernel has, and
// prints those that work.
func lookInto(args []string) {
	runtime.LockOSThread()
	pid, _ := strconv.Atoi(args[0])
	for _, file := range []string{"mem", "environ", "auxv", "syscall", "maps"} {
		if f, err := os.Open(fmt.Sprintf("/proc/%d/%s", pid, file)); err == nil {
			// Some of these can be opened by anybody, and have nothing for them.
			if n, err := f.ReadAt(make([]byte, 64), 0); n > 0 || err == nil || file == "mem" {
				fmt.Println("it reads", file)
			}
		}
	}
	if _, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid)); err == nil {
		fmt.Println("it lists the descriptors")
	}
	if h, err := unix.PidfdOpen(pid, 0); err != nil {
		fmt.Println("there is no process", pid)
	} else if _, err := unix.PidfdGetfd(h, 3, 0); err == nil || err == unix.EBADF {
		fmt.Println("it takes descriptor 3")
	}
	if err := unix.PtraceSeize(pid); err == nil {
		fmt.Println("it traces")
	}
	if err := unix.PtraceAttach(pid); err == nil {
		fmt.Println("it attaches")
	}
}

// traceFromTheStart executes a program under a tracer, and prints what the tracer can
// read of its memory before its first instruction. Then the program goes on, traced.
func traceFromTheStart(args []string) {
	runtime.LockOSThread()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true}
	must(0, cmd.Start())
	pid := cmd.Process.Pid
	var ws unix.WaitStatus
	must(unix.Wait4(pid, &ws, 0, nil))
	var regs syscall.PtraceRegs
	must(0, syscall.PtraceGetRegs(pid, &regs))
	if _, err := unix.PtracePeekText(pid, uintptr(regs.PC()), make([]byte, 8)); err == nil {
		fmt.Println("its memory is read")
	}
	for sig := 0; ; {
		must(0, unix.PtraceCont(pid, sig))
		must(unix.Wait4(pid, &ws, 0, nil))
		if sig = 0; !ws.Stopped() {
			fmt.Println("status", ws.ExitStatus())
			return
		}
		if s := ws.StopSignal(); s != unix.SIGTRAP {
			sig = int(s)
		}
	}
}

// TestNobodyLooksIntoAProgramThatHoldsAPassword or a capability: nobody of the same uid.
func TestNobodyLooksIntoAProgramThatHoldsAPassword(t *testing.T) {
	b := testbed.Up(t)
	b.Local(t, "FrontEnd * su su", "FrontEnd * doas doas", "FrontEnd * passwd passwd")
	b.Write(t, "/etc/doas.conf", "permit alice\n")
	b.Sh(t, "chmod 644 /etc/doas.conf; [ -e /etc/pam.d/doas ] || printf '@include common-auth\n@include common-account\n' >/etc/pam.d/doas")
	// On a FIFO that nobody writes to, a program waits for its input.
	waits := `mkfifo -m 600 $HOME/fifo; exec 3<>$HOME/fifo; rm $HOME/fifo; echo assword:; exec `
	for what, argv := range map[string][]string{
		"su":                                   {b.Bin("su"), "bob"},
		"doas":                                 {b.Bin("doas"), "id"},
		"passwd":                               {b.Bin("passwd")},
		"su's child, which waits for its word": {"bash", "-c", waits + b.Bin("redeem") + ` 3 /run/factotum/cap/capuse`},
		"unix_chkpwd":                          {"bash", "-c", waits + b.Bin("unix_chkpwd") + ` alice nullok <&3`},
	} {
		term := b.Start(t, append([]string{"env", "HOME=/home/alice"}, testbed.AsPerson("alice", argv...)...)...)
		term.Expect("assword: ?")
		name := argv[0]
		if name == "bash" { // it executes the program
			if !testbed.Eventually(func() bool {
				exe := b.Sh(t, fmt.Sprintf("readlink /proc/%d/exe", term.PID()))
				return strings.HasPrefix(exe, b.Bin(""))
			}) {
				t.Fatalf("%s does not start: %s", what, term.Screen())
			}
		}
		if got := as(t, b, "alice", "look-into", fmt.Sprint(term.PID())); got != "" {
			t.Errorf("%s: %s", what, got)
		}
		if out, err := b.Command(testbed.AsPerson("alice", "kill", "-0", fmt.Sprint(term.PID()))...).CombinedOutput(); err != nil {
			t.Errorf("%s is no process of alice's: %s", what, out)
		}
	}
	// The same ways work where nothing keeps anybody away.
	sleep := b.Command(testbed.AsPerson("alice", "sleep", "100")...)
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	defer sleep.Wait()
	defer sleep.Process.Kill()
	if !testbed.Eventually(func() bool {
		return strings.HasSuffix(b.Sh(t, fmt.Sprintf("readlink /proc/%d/exe", sleep.Process.Pid)), "/sleep")
	}) {
		t.Fatal("sleep does not start")
	}
	got := as(t, b, "alice", "look-into", fmt.Sprint(sleep.Process.Pid))
	for _, want := range []string{"reads mem", "reads environ", "lists the descriptors", "takes descriptor 3", "it traces"} {
		if !strings.Contains(got, want) {
			t.Errorf("into sleep: %s, want %s", got, want)
		}
	}
}

// TestACallerWhoTracesGetsNothing, neither the memory nor what was permitted.
func TestACallerWhoTracesGetsNothing(t *testing.T) {
	b := testbed.Up(t)
	b.Local(t, "FrontEnd * su su", "FrontEnd * doas doas")
	b.Write(t, "/etc/doas.conf", "permit nopass alice\n")
	b.Sh(t, "chmod 644 /etc/doas.conf; [ -e /etc/pam.d/doas ] || printf '@include common-auth\n@include common-account\n' >/etc/pam.d/doas")
	const say = "echo I am $(id -un), traced by $(awk '/TracerPid/ { print $2 }' /proc/$$/status)"
	for what, argv := range map[string][]string{
		"su, with its child":             {"strace", "-qqfo/dev/null", b.Bin("su"), "-c", say, "bob"},
		"doas":                           {"strace", "-qqfo/dev/null", b.Bin("doas"), "sh", "-c", say},
		"doas, from the first step on":   {b.Self(t), "trace-from-the-start", b.Bin("doas"), "sh", "-c", say},
		"passwd, from the first step on": {b.Self(t), "trace-from-the-start", b.Bin("passwd"), "-V"},
	} {
		cmd := b.Command(testbed.AsPerson("alice", argv...)...)
		cmd.Stdin = strings.NewReader(testbed.Password + "\n")
		out, _ := cmd.CombinedOutput()
		// The tracer from the first step on has the first thread. It loses that if another
		// one redeems, and then the command is what was permitted, and nobody traces it.
		refused, untraced := strings.Contains(string(out), "the capability was refused"), what == "doas, from the first step on" && strings.Contains(string(out), "I am root, traced by 0\n")
		if strings.Contains(string(out), "its memory is read") || !refused && !untraced && argv[2] != b.Bin("passwd") {
			t.Errorf("%s: %s", what, out)
		}
	}
	if n := b.Logged("the process is traced"); n < 2 {
		t.Errorf("the log says %d times that a process is traced", n)
	}
	out, _ := b.Command(testbed.AsPerson("alice", b.Self(t), "trace-from-the-start", b.Self(t), "nothing")...).CombinedOutput()
	if !strings.Contains(string(out), "its memory is read") {
		t.Errorf("the tracer does not work: %s", out)
	}
}

// typeInto pushes a line into the input of standard input's terminal, as if it was typed.
func typeInto(args []string) {
	for _, c := range []byte(args[0] + "\n") {
		if _, _, e := unix.Syscall(unix.SYS_IOCTL, 0, unix.TIOCSTI, uintptr(unsafe.Pointer(&c))); e != 0 {
			fmt.Println("TIOCSTI:", e)
			return
		}
	}
}

// TestWhatIsTypedForTheCallerReachesThemNoMoreThanWithUtilLinuxs, and not at all
// with -P, or where the command has a session of its own.
func TestWhatIsTypedForTheCallerReachesThemNoMoreThanWithUtilLinuxs(t *testing.T) {
	b := up(t)
	utilLinux := real(t, b)
	for _, r := range []struct {
		options string
		never   bool
	}{{"-P -c", true}, {"-c", true}, {"--session-command", false}, {"-P --session-command", true}, {"-P -l -c", true}} {
		became := map[string]bool{}
		for name, su := range map[string]string{"util-linux": utilLinux, "ours": b.Bin("su")} {
			term := b.Start(t, testbed.AsPerson("alice", "/bin/sh")...)
			term.Send("PS1='> '\n")
			term.Send(fmt.Sprintf("%s %s \"%s type-into 'echo it-is-\\$((40+2))-\\$(id -un)'\" bob; echo su-has-ended-$?\n", su, r.options, b.Self(t)))
			term.Expect("assword: ")
			term.Send(testbed.Password + "\n")
			term.Expect(`su-has-ended-\d`)
			term.Send("echo and-now-$((1+1))\n")
			term.Expect("and-now-2")
			became[name] = strings.Contains(term.Screen(), "it-is-42-alice")
			if r.never && strings.Contains(term.Screen(), "it-is-42") && name == "ours" {
				t.Errorf("%s: %s", r.options, term.Screen())
			}
		}
		if became["util-linux"] != became["ours"] {
			t.Errorf("%s: the line is executed: %v", r.options, became)
		}
		t.Logf("%s: %v", r.options, became)
	}
}
