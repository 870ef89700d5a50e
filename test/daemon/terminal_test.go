package daemon

import (
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"p9auth/capproto"
	"p9auth/test/testbed"
)

// proves is alice, with the terminal that the liar has.
func proves() *talk {
	signal.Ignore(syscall.SIGHUP) // the kernel's, to a session that loses its terminal
	t := dial()
	must(t.Send(capproto.NewMsg("start", "proto", "pam", "user", "alice"), os.Stdin))
	if m := t.hear(); m.Verb != capproto.VerbOK {
		panic(m.Get("text"))
	}
	t.ask("read")
	t.ask("write", "data", password)
	t.ask("read")
	t.ask("session")
	return t
}

// losesLate gives the terminal up while PAM opens the session.
func losesLate([]string) {
	t := proves()
	must(unix.IoctlSetInt(0, unix.TIOCNOTTY, 0))
	fmt.Println("lost")
	must(t.Send(capproto.NewMsg("read")))
	t.wantEnd("read", capproto.CodeAccount)
}

// losesOpen gives the terminal up when the session is open, and stays.
func losesOpen([]string) {
	t := proves()
	if m := t.ask("read"); m.Verb != capproto.VerbDone {
		panic(m.Verb)
	}
	must(unix.IoctlSetInt(0, unix.TIOCNOTTY, 0))
	fmt.Println("lost")
	select {}
}

func TestATerminalIsItsSessionsAlone(t *testing.T) {
	b := up(t)
	t.Run("given up while PAM opens the session, it is not made the user's", func(t *testing.T) {
		release := b.hold(t, "open_session")
		term := b.startLiar(t, "_login", "loses-late")
		tty, logged := term.TTY(), b.logged("conversation ended: protocol violation")
		was := stat(t, tty)
		term.Expect("lost")
		b.waitHeld(t, "open_session")
		release()
		b.wantLiar(t, term, logged)
		b.wantNoWorker(t)
		wantStat(t, tty, was)
	})
	t.Run("given to another since, it stays theirs", func(t *testing.T) {
		term := b.startLiar(t, "_login", "loses-open")
		term.Expect("lost")
		tty := term.TTY()
		b.Sh(t, "chown bob "+tty+"; chmod 620 "+tty) // as when bob logs in there
		bobs := stat(t, tty)
		term.Cmd.Process.Kill()
		b.wantNoWorker(t)
		wantStat(t, tty, bobs)
	})
}

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
	b.write(t, "/home/alice/keeper", keeper)
	term := b.in(t, "alice")
	term.Send("/usr/bin/python3 /home/alice/keeper $(tty) /home/alice/kept\n")
	term.Expect("keeps")
	worker := b.worker(t)
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
