package daemon

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	"p9auth/capproto"
	"p9auth/factotum/internal/status"
)

// What those have who have proven nobody yet: conversations with a worker, and
// guesses. They are counted by where the person is, and by the front end, in the
// kernel's words, so that who uses up his own locks out nobody elsewhere.

var errTooMany = &capproto.Error{Code: capproto.CodeLimit, Text: "too many logins at once; try again later"}

// startUp counts a conversation that is to have its first worker, before there is a
// proof.
func (c *conversation) startUp() error {
	if err := c.paceWorkers(); err != nil {
		return err
	}
	if c.startup != nil || c.user != nil {
		return nil
	}
	bounds := []bound{{c.peer.Uid, c.gen.conf.MaxStartups}}
	if c.local && c.peer.Uid != 0 {
		bounds = []bound{{locals{}, localStartups}, {localCaller(c.peer.Uid), localStartupsPerUID}}
	}
	source, isAddr := c.source().(netip.Prefix)
	if isAddr {
		bounds = append(bounds, bound{source, c.gen.conf.MaxStartupsPerSource})
	}
	var full any
	if c.startup, full = c.startups.take(bounds...); c.startup != nil {
		return nil
	}
	if full == source {
		return &fatal{&capproto.Error{Code: capproto.CodeLimit, Text: fmt.Sprintf("too many logins at once from %s; try again later", source)}}
	}
	return &fatal{errTooMany}
}

// maxUserName bounds the name of an account, in bytes.
const maxUserName = 256

func possibleName(user string) bool {
	return len(user) <= maxUserName && !strings.ContainsAny(user, "\n\r")
}

// source is where the person is, as far as the kernel or root says so: a network, a
// terminal that is not anybody's for the asking, a host's name; or else the front end.
func (c *conversation) source() any {
	if l, ok := c.proto.(*sshProto); ok && l.remote.IsValid() {
		return network(l.remote.Addr())
	}
	switch {
	case c.rhost != "":
		return c.rhost
	case c.tty != nil && !c.tty.isPTY():
		return c.tty.name
	}
	return c.peer.Uid
}

// network is what one machine may have as addresses: a prefix of 64 bits of IPv6, and
// what is this machine's own.
func network(a netip.Addr) netip.Prefix {
	a = a.Unmap().WithZone("")
	bits := 32
	switch {
	case a.IsLoopback():
		return netip.MustParsePrefix("127.0.0.0/8")
	case a.Is6():
		bits = 64
	}
	p, _ := a.Prefix(bits) // an address without a zone has one
	return p
}

// guesses counts wrong passwords by their source. Its zero value is ready.
type guesses struct {
	mu    sync.Mutex
	paid  map[any]time.Time // until when what was guessed is paid for
	swept time.Time         // when the rows that are over were last taken out
}

const (
	// maxSources bounds the table. Those that it has no room for share one row.
	maxSources = 16384
	// sweepEvery is how often a full table is looked through, which takes a while.
	sweepEvery = time.Second
	// maxPause is how long a guess is held back. What had to wait longer is refused.
	maxPause = 10 * time.Second
)

// wait is how long a source has to wait before the next guess: those of a minute may
// come at once.
func (g *guesses) wait(source any, now time.Time) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	return max(0, g.paid[g.row(source)].Sub(now.Add(time.Minute)))
}

// wrong counts a guess, or whatever else is counted so, of which perMinute are free.
func (g *guesses) wrong(source any, now time.Time, perMinute int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.paid == nil {
		g.paid = map[any]time.Time{}
	}
	if len(g.paid) >= maxSources && now.Sub(g.swept) >= sweepEvery {
		g.swept = now
		for s, until := range g.paid {
			if until.Before(now) {
				delete(g.paid, s)
			}
		}
	}
	source = g.row(source)
	paid := g.paid[source]
	if paid.Before(now) {
		paid = now
	}
	g.paid[source] = paid.Add(time.Minute / time.Duration(perMinute))
}

// row is where a source is counted. The caller locks.
func (g *guesses) row(source any) any {
	if _, ok := g.paid[source]; !ok && len(g.paid) >= maxSources {
		return everybody{}
	}
	return source
}

// mayGuess is called before PAM asks for a proof. It holds back those who have guessed
// wrong too often.
func (c *conversation) mayGuess() error {
	return c.pause(c.guesses.wait(c.source(), time.Now()), "too many wrong passwords; try again later")
}

// pause waits, if that is not for too long: then it fails with the text.
func (c *conversation) pause(wait time.Duration, text string) error {
	switch {
	case wait == 0:
		return nil
	case wait > maxPause:
		return &fatal{&capproto.Error{Code: capproto.CodeLimit, Text: text}}
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-c.grace.C:
		return errGrace
	case err := <-c.gone:
		return err
	}
}

// guessedWrong counts a wrong password.
func (c *conversation) guessedWrong() {
	c.guesses.wrong(c.source(), time.Now(), c.gen.conf.MaxGuesses)
}

// spoiled is the log for the end of a conversation by such an error. There may be as
// many ends as a front end likes, so not every one is in the log.
func (c *conversation) spoiled(code string) status.Log {
	if code == capproto.CodeDenied || code == capproto.CodeAccount {
		return c.log
	}
	ok, dropped := c.lines.Allow(c.peer.Uid, time.Now())
	switch {
	case !ok:
		return c.log.Muted()
	case dropped > 0:
		return c.log.With("unlogged_before", dropped)
	}
	return c.log
}
