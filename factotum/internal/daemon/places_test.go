package daemon

import (
	"os"
	"testing"

	"p9auth/capproto"
	"p9auth/factotum/internal/config"
	"p9auth/internal/proc"
)

// take takes sessions for a user until there are no more, and returns how many it
// got. They have one process, as none of them ends.
func take(t *testing.T, s *sessions, frontEnd, user uint32, c config.Config, most int) int {
	t.Helper()
	h, err := proc.Open(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	for n := range most {
		if _, err := s.add(frontEnd, &person{uid: user}, h, c); err != nil {
			if capproto.CodeOf(err) != capproto.CodeLimit {
				t.Fatal(err)
			}
			return n
		}
	}
	return most
}

func TestAUserWithManySessionsLeavesSomeToOthersAndToRoot(t *testing.T) {
	c := config.Default()
	c.MaxSessions = 512 // of which a front end has 448, and 28 are for root, 28 for new users
	var s sessions
	if n := take(t, &s, uidSSH, uidAlice, c, 1000); n != 392 {
		t.Errorf("alice has %d", n)
	}
	for user := range uint32(28) {
		if n := take(t, &s, uidSSH, 10000+user, c, 2); n != 1 {
			t.Fatalf("new user %d has %d", user, n)
		}
	}
	if n := take(t, &s, uidSSH, 20000, c, 1); n != 0 {
		t.Error("there is a session for one more")
	}
	if n := take(t, &s, uidSSH, 0, c, 1000); n != 28 {
		t.Errorf("root has %d", n)
	}
	if n := take(t, &s, uidLogin, uidAlice, c, 1); n != 1 {
		t.Error("alice cannot log in at the console")
	}
}

func TestFiveThousandSessionsOfOneUserAreWithinTheDefaults(t *testing.T) {
	var s sessions
	if n := take(t, &s, uidSSH, uidAlice, config.Default(), 5000); n != 5000 {
		t.Errorf("only %d", n)
	}
}

func TestMaxSessionsPerUserIsForEachUser(t *testing.T) {
	c := config.Default()
	c.MaxSessionsPerUser = 3
	var s sessions
	for _, user := range []uint32{uidAlice, uidStranger, 0} {
		if n := take(t, &s, uidSSH, user, c, 10); n != 3 {
			t.Errorf("uid %d has %d", user, n)
		}
	}
}

// TestAnOpenSessionHoldsNoConversationsPlace counts while a login by ssh goes on.
// The process that speaks SSH keeps its conversation for later key exchanges.
func TestAnOpenSessionHoldsNoConversationsPlace(t *testing.T) {
	b := newBench(host().gen)
	var places places
	enter := func(f *front) {
		t.Helper()
		f.c.place, _ = places.take(bound{everybody{}, 3})
	}
	leave := func(f *front) {
		f.hangUp()
		f.c.place.leave()
	}
	want := func(what string, conversations, sessions int) {
		t.Helper()
		if _, n := b.sessions.list(); places.count(everybody{}) != conversations || n != sessions {
			t.Errorf("%s: %d conversations and %d sessions, not %d and %d", what, places.count(everybody{}), n, conversations, sessions)
		}
	}
	f := admitBySSH(t, b, "alice")
	enter(f)
	token := f.want("ok", msg("ticket")).Get("ticket")
	want("handed over", 1, 0)
	s := b.dial(t, uidSSH, uidSSH, 201)
	enter(s)
	s.want("ok", msg("attach", "ticket", token))
	s.want("ok", msg("session"))
	s.want("done", msg("read"))
	want("open", 0, 1)
	f.want("ok", msg("nonce"))
	f.want("ok", f.signMsg()) // a later key exchange
	leave(s)
	want("become the user", 0, 1)
	f.want("ok", msg("nonce"))
	f.want("ok", f.signMsg())

	// Its place is that of the session, which ends when both have.
	b.workers[0].session.end()
	want("over, but for the one that speaks SSH", 0, 1)
	if open, _ := b.sessions.list(); len(open) != 0 {
		t.Errorf("the status has %v", open)
	}
	leave(f)
	want("over", 0, 0)

	// Where the speaker ends first, the session goes on.
	f = admitBySSH(t, b, "alice")
	enter(f)
	token = f.want("ok", msg("ticket")).Get("ticket")
	s = b.dial(t, uidSSH, uidSSH, 202)
	enter(s)
	s.want("ok", msg("attach", "ticket", token))
	s.want("ok", msg("session"))
	s.want("done", msg("read"))
	leave(f)
	leave(s)
	want("without the one that speaks SSH", 0, 1)
	b.workers[len(b.workers)-1].session.end()
	want("over again", 0, 0)

	// A session that has ended before the speaker was told takes no place over.
	x := &session{of: &b.sessions, over: true}
	place, _ := places.take(bound{everybody{}, 3})
	lone := &speaker{place: place}
	lone.joins(x)
	want("joined too late", 1, 0)
	lone.end()
	place.leave()
	place.leave()
	want("left twice", 0, 0)
}
