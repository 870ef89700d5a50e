package daemon

import (
	"os/exec"
	"testing"
	"time"

	"github.com/creack/pty"

	"p9auth/capproto"
	"p9auth/internal/proc"
)

// A command is one that runs until the test ends, with a handle on its process.
type command struct {
	*exec.Cmd
	*proc.Handle
}

// sleeping starts a process that leads a session at a terminal of its own.
func sleeping(t *testing.T, argv ...string) command {
	t.Helper()
	c := command{Cmd: exec.Command(argv[0], argv[1:]...)}
	master, err := pty.Start(c.Cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Cmd.Process.Kill()
		c.Cmd.Wait()
		master.Close()
		c.Handle.Close()
	})
	if c.Handle, err = proc.Open(c.Cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestATicketIsOfOneUserAndSession(t *testing.T) {
	var all tickets
	a, b := sleeping(t, "sleep", "100"), sleeping(t, "sleep", "100")
	if all.valid(a.Handle, uidBob) {
		t.Error("there is a ticket before a proof")
	}
	all.give(a.Handle, uidBob)
	for who, got := range map[string]bool{"the caller": all.valid(a.Handle, uidBob), "another user in that session": all.valid(a.Handle, uidAlice), "another session": all.valid(b.Handle, uidBob)} {
		if want := who == "the caller"; got != want {
			t.Errorf("%s: %v", who, got)
		}
	}
	all.drop(b.Handle, uidBob)
	all.drop(a.Handle, uidAlice)
	if !all.valid(a.Handle, uidBob) {
		t.Error("others take the ticket back")
	}
	all.drop(a.Handle, uidBob)
	if all.valid(a.Handle, uidBob) {
		t.Error("it is good after it was taken back")
	}
}

func TestATicketExpires(t *testing.T) {
	var all tickets
	a := sleeping(t, "sleep", "100")
	all.give(a.Handle, uidBob)
	for key, x := range all.of {
		if left := x.expires - sinceBoot(); left > ticketLifetime || left < ticketLifetime-time.Minute {
			t.Errorf("it is good for %v", left)
		}
		all.of[key].expires = sinceBoot()
	}
	if all.valid(a.Handle, uidBob) {
		t.Error("it is good after its time")
	}
	all.give(a.Handle, uidBob)
	if !all.valid(a.Handle, uidBob) || len(all.of) != 1 {
		t.Error("a new proof gives no new ticket")
	}
}

// TestATicketIsGoneWithTheSessionsLeader though another process of the session lives on,
// and another process may get the leader's pid.
func TestATicketIsGoneWithTheSessionsLeader(t *testing.T) {
	var all tickets
	leader := sleeping(t, "sh", "-c", "trap '' HUP; sleep 100 & wait")
	all.give(leader.Handle, uidBob)
	key, h, ok := sessionOf(leader.Handle, uidBob)
	if !ok || !all.valid(leader.Handle, uidBob) {
		t.Fatal("no ticket")
	}
	h.Close()
	leader.Process.Kill()
	leader.Cmd.Wait()
	if all.valid(leader.Handle, uidBob) {
		t.Error("it is good after the leader's end")
	}
	// As if a new session had the same pid, time of start and terminal.
	next := sleeping(t, "sleep", "100")
	again, h, ok := sessionOf(next.Handle, uidBob)
	if !ok {
		t.Fatal("no session")
	}
	h.Close()
	if again == key {
		t.Fatal("two sessions are one")
	}
	all.of[again] = all.of[key]
	if all.valid(next.Handle, uidBob) {
		t.Error("a session that has a former one's pid has its ticket")
	}
}

// TestACallerWhoHasEndedIsNobody, whoever has got the pid.
func TestACallerWhoHasEndedIsNobody(t *testing.T) {
	for _, next := range []string{capproto.VerbRead, capproto.VerbAttr, capproto.VerbRun} {
		b := localBench(nil)
		caller := sleeping(t, "sleep", "100")
		f := b.dial(t, uidBob, uidBob, int32(caller.PID))
		f.want("ok", suMsg("start"))
		caller.Process.Kill()
		caller.Cmd.Wait()
		f.wantCode(capproto.CodeProtocol, msg(next))
	}
	b := localBench(nil)
	caller := sleeping(t, "true")
	caller.Cmd.Wait()
	b.dial(t, uidBob, uidBob, int32(caller.PID)).wantCode(capproto.CodeProtocol, suMsg("start"))
	if len(b.workers) != 0 {
		t.Error("a process that has ended gets a worker")
	}
}
