package daemon

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"p9auth/test/testbed"
)

// keeper is a program that a user leaves behind. It opens the terminal again and
// again, as long as it may, also after the end of the user's session. Some seconds
// later it notes of how many descriptors of the terminal it could still read
// what others type there.
const keeper = `
import os, signal, sys, termios, time
signal.signal(signal.SIGHUP, signal.SIG_IGN)
if os.fork(): os._exit(0)
os.setsid()
tty, out = sys.argv[1:]
kept = []
def alive(fd):
    try: termios.tcgetattr(fd); return True
    except termios.error: return False
for i in range(500):
    try: kept.append(os.open(tty, os.O_RDWR | os.O_NOCTTY))
    except OSError: break
    if i == 0: print("keeps", flush=True)
    time.sleep(0.02)
time.sleep(3)
with open(out + ".new", "w") as f: f.write("%d %d" % (len(kept), sum(map(alive, kept))))
os.rename(out + ".new", out)
`

func TestWhoHasLoggedOutDoesNotKeepTheTerminal(t *testing.T) {
	b := up(t)
	b.Write(t, "/home/alice/keeper", keeper)
	term := b.In(t, "alice")
	term.Send("/usr/bin/python3 /home/alice/keeper $(tty) /home/alice/kept\n")
	term.Expect("keeps")
	worker := b.Worker(t)
	// A busy machine: the end of the session is not seen at once.
	if err := syscall.Kill(worker, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	term.Send("exit\n")
	term.Wait()
	b.Sh(t, "sleep 0.2")
	syscall.Kill(worker, syscall.SIGCONT)
	kept := ""
	if !testbed.Eventually(func() bool {
		kept = b.Sh(t, "cat /home/alice/kept 2>/dev/null || true")
		return kept != ""
	}) {
		t.Fatal("the program does not end")
	}
	n, alive, _ := strings.Cut(kept, " ")
	if k, _ := strconv.Atoi(n); k < 2 {
		t.Error("the terminal was not opened again, so nothing was tried")
	}
	if k, err := strconv.Atoi(alive); err != nil || k != 0 {
		t.Errorf("a program of a user who has logged out has the terminal open: %s descriptors of %s", alive, n)
	}
}

// A pty outlives a session where a container's getty prompts there again at once. What
// the last user has left behind there must not read what the next one types, and
// the end of the last session must not end the next prompt.
func TestTheNextPromptOnAPtyStaysAndIsTheNextUsersAlone(t *testing.T) {
	b := up(t)
	b.Sh(t, "rm -f /home/alice/got; install -o alice -m 600 /dev/null /home/alice/got")
	// sleep keeps the line open until the first login.
	term := b.Start(t, "sleep", "1000")
	tty := term.TTY()
	next := func(user string) *exec.Cmd {
		line, err := os.OpenFile(tty, os.O_RDWR|syscall.O_NOCTTY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer line.Close()
		cmd := b.Command(b.Bin("login"), user)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = line, line, line
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
		term.Expect("Password: ")
		term.Send(testbed.Password + "\n")
		testbed.Shell(t, term, user)
		return cmd
	}
	// The session of sleep gives the terminal up: login leads the one that has it then.
	b.Sh(t, fmt.Sprintf("kill -9 %d", term.PID()))
	term.Cmd.Wait()
	cmd := next("alice")
	term.Send("setsid -f sh -c 'sleep 0.2; exec cat' <$(tty) >/home/alice/got; exit\n")
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	cmd = next("bob") // sooner than the last session's worker hangs the line up
	b.Sh(t, "sleep 1")
	for range 10 {
		term.Run("echo a-secret-of-bobs")
	}
	if got := b.Sh(t, "cat /home/alice/got"); strings.Contains(got, "secret") || strings.Contains(got, testbed.Password) {
		t.Errorf("alice's program has read what bob typed: %q", got)
	}
	term.Send("exit\n")
	if err := cmd.Wait(); err != nil {
		t.Errorf("bob's session ended with %v", err)
	}
}
