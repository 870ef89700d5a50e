package daemon

import (
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
