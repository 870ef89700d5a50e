package daemon

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"p9auth/capproto"
	"p9auth/factotum/internal/pamwire"
	"p9auth/factotum/internal/status"
)

func TestAPlaceIsOneOfEachKeyOrNone(t *testing.T) {
	var p places
	a, _ := p.take(bound{"x", 2}, bound{1, 1})
	if _, full := p.take(bound{"x", 2}, bound{1, 1}); full != 1 {
		t.Errorf("%v is full", full)
	}
	b, _ := p.take(bound{"x", 2}, bound{2, 1})
	if _, full := p.take(bound{"x", 2}, bound{3, 1}); full != "x" {
		t.Errorf("%v is full", full)
	}
	a.leave()
	a.leave()
	if n := p.count("x"); n != 1 || p.count(1) != 0 || p.count(3) != 0 {
		t.Errorf("%d are left", n)
	}
	b.leave()
	(*place)(nil).leave()
	if len(p.n) != 0 {
		t.Errorf("the table has %v", p.n)
	}
}

func TestASourceIsWhatOneMachineMayHave(t *testing.T) {
	for addr, want := range map[string]string{
		"192.0.2.7": "192.0.2.7/32", "::ffff:192.0.2.7": "192.0.2.7/32", "127.1.2.3": "127.0.0.0/8", "::1": "127.0.0.0/8",
		"2001:db8:1:2:3:4:5:6": "2001:db8:1:2::/64", "fe80::1%eth0": "fe80::/64",
	} {
		if got := network(netip.MustParseAddr(addr)); got.String() != want {
			t.Errorf("%s is of %s", addr, got)
		}
	}
}

func TestGuessesCostTimeWhereTheyComeFrom(t *testing.T) {
	var g guesses
	now := time.Unix(1e9, 0)
	for range 60 {
		if w := g.wait("a", now); w != 0 {
			t.Fatalf("it has to wait for %s", w)
		}
		g.wrong("a", now, 60)
	}
	g.wrong("a", now, 60)
	g.wrong("a", now, 60)
	if w := g.wait("a", now); w != 2*time.Second {
		t.Errorf("after 62 it has to wait for %s", w)
	}
	if w := g.wait("b", now); w != 0 {
		t.Errorf("another has to wait for %s", w)
	}
	if w := g.wait("a", now.Add(time.Second)); w != time.Second {
		t.Errorf("a second later it has to wait for %s", w)
	}
	// However many sources there are, the table is bounded, and the others share a row.
	for i := range 2 * maxSources {
		g.wrong(i, now, 60)
	}
	if n := len(g.paid); n > maxSources+1 {
		t.Errorf("the table has %d rows", n)
	}
	if w := g.wait("c", now); w == 0 {
		t.Error("one for whom there is no row does not wait for the others of the row")
	}
	later := now.Add(time.Hour * 24 * 30)
	g.wrong("c", later, 60)
	if n := len(g.paid); n > 2 {
		t.Errorf("a month later the table has %d rows", n)
	}
}

// refusing has PAM refuse what is typed.
func refusing(_ *fakeWorker, r pamwire.Request) []pamwire.Event {
	if _, ok := r.(pamwire.Answer); ok {
		return []pamwire.Event{pamwire.Refused{Code: capproto.CodeDenied, Text: "no"}}
	}
	return obliging(nil, r)
}

func TestWhoGuessesTooOftenIsRefusedAndOthersAreNot(t *testing.T) {
	gen := *host().gen
	gen.conf.MaxGuesses = 3
	gen.conf.MaxAuthTries = 100
	b := newBench(&gen)
	b.reply = refusing
	// Over several conversations, of which each has its own count.
	for range 4 {
		f := b.dial(t, uidLogin, uidLogin, 100)
		f.want("ok", startMsg("pam", "user", "alice"))
		f.want("ok", msg("read"))
		f.want("ok", msg("write", "data", typed))
		f.want("error", msg("read"))
		f.hangUp()
	}
	// It would have to wait for 20 s, the fourth one's part of a minute.
	b.dial(t, uidLogin, uidLogin, 100).wantEnd(capproto.CodeLimit, startMsg("pam", "user", "bob"))
	if !strings.Contains(b.log.String(), "too many wrong passwords") {
		t.Error("nothing is in the log")
	}
	b.reply = obliging
	// A login that root has started, and one by ssh, are elsewhere.
	f := b.dial(t, uidLogin, 0, 100)
	f.want("ok", startMsg("pam", "user", "alice"))
	admitBySSH(t, b, "alice").hangUp()

	// A short pause is waited for.
	gen.conf.MaxGuesses = 6000
	b = newBench(&gen)
	c := newConversation(&b.core, &gen, newFakeWire(), f.c.peer)
	c.grace = time.NewTimer(time.Hour)
	for range 6010 {
		c.guessedWrong()
	}
	began := time.Now()
	if err := c.mayGuess(); err != nil || time.Since(began) < 50*time.Millisecond {
		t.Errorf("after %s: %v", time.Since(began), err)
	}
	for range 500 {
		c.guessedWrong()
	}
	c.grace.Reset(0)
	if err := c.mayGuess(); err != errGrace {
		t.Errorf("the time is over: %v", err)
	}
	c.gone <- fmt.Errorf("gone")
	c.grace.Reset(time.Hour)
	if err := c.mayGuess(); err == nil || err.Error() != "gone" {
		t.Errorf("the front end has gone: %v", err)
	}
}

func TestWorkersWithoutAProofAreBounded(t *testing.T) {
	gen := *host().gen
	gen.conf.MaxStartups, gen.conf.MaxStartupsPerSource = 3, 2
	b := newBench(&gen)
	begin := func() *front {
		f := b.dial(t, uidSSH, uidSSH, 100)
		f.want("ok", startMsg("ssh"), socket())
		f.want("ok", f.signMsg())
		return f
	}
	one, two := begin(), begin()
	one.want("ok", msg("user", "name", "alice"))
	two.want("ok", msg("user", "name", "bob"))
	begin().wantEnd(capproto.CodeLimit, msg("user", "name", "alice"))
	if len(b.workers) != 2 || !strings.Contains(b.log.String(), "too many logins at once from 127.0.0.0/8") {
		t.Errorf("%d workers; the log: %s", len(b.workers), b.log.String())
	}
	// At the console there is room, up to the front end's own limit.
	for range 3 {
		b.dial(t, uidLogin, uidLogin, 100).want("ok", startMsg("pam", "user", "alice"))
	}
	b.dial(t, uidLogin, uidLogin, 100).wantEnd(capproto.CodeLimit, startMsg("pam", "user", "alice"))
	b.dial(t, uidLogin, 0, 100).want("ok", startMsg("pam", "user", "alice"))
	// A proof, or the end, makes room.
	two.hangUp()
	for b.startups.count(uint32(uidSSH)) != 1 {
		time.Sleep(time.Millisecond)
	}
	admitBySSH(t, b, "alice")
	begin().want("ok", msg("user", "name", "alice"))
}

func TestAFrontEndThatSpoilsConversationsDoesNotFillTheLog(t *testing.T) {
	b := newBench(host().gen)
	b.lines.PerUID = 5
	b.lines.InAll = 8
	for range 20 {
		b.dial(t, uidSSH, uidSSH, 100).wantEnd(capproto.CodeProtocol, msg("mount"))
	}
	const line = "conversation ended: protocol violation"
	if n := strings.Count(b.log.String(), line); n < 5 || n > 10 { // of one second, or two
		t.Errorf("%d lines are logged", n)
	}
	if n := b.stats.Of(status.Violation); n != 20 {
		t.Errorf("%d are counted", n)
	}
	logged := strings.Count(b.log.String(), line)
	b.dial(t, uidLogin, uidLogin, 100).wantEnd(capproto.CodeProtocol, msg("mount"))
	if n := strings.Count(b.log.String(), line); n != logged+1 {
		t.Error("another's is not in the log")
	}
}
