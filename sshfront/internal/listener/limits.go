package listener

import (
	"math/rand/v2"
	"net/netip"
	"time"

	"p9auth/internal/sshdconf"
	"p9auth/internal/words"
	"p9auth/sshfront/internal/sshlog"
)

// limits decides which connections are let in, as sshd's srclimit.c and
// drop_connection do: MaxStartups, PerSourceMaxStartups, PerSourcePenalties.
// Its tables are bounded: by MaxStartups' full, and by max-sources4 and
// max-sources6. The caller locks.
type limits struct {
	conf   *sshdconf.Listen
	now    func() time.Time
	random func(n int) int // from 0 to n-1

	startups  int // connections that have not authenticated
	perSource map[netip.Prefix]int
	penalties [2]penalties // of IPv4 and IPv6 sources

	// Since when MaxStartups drops connections; zero when it does not.
	throttling time.Time
	logged     time.Time
	dropped    int
}

func newLimits(conf *sshdconf.Listen) *limits {
	l := &limits{conf: conf, now: time.Now, random: rand.IntN, perSource: map[netip.Prefix]int{}}
	for i := range l.penalties {
		l.penalties[i].bySource = map[netip.Prefix]*penalty{}
	}
	return l
}

// throttleLog is how often a long time of dropping is logged.
const throttleLog = 5 * time.Minute

// source is the network that an address counts for.
func (l *limits) source(addr netip.Addr) netip.Prefix {
	bits := l.conf.PerSourceNetBlockSize.V6
	if addr.Is4() {
		bits = l.conf.PerSourceNetBlockSize.V4
	}
	p, _ := addr.WithZone("").Prefix(bits) // an address with a zone has no prefix
	return p
}

// A place is what an admitted connection takes up until it is done.
type place struct{ source netip.Prefix }

// admit decides about a connection from remote to local and logs a refusal.
// done must be called with the place.
func (l *limits) admit(remote, local netip.AddrPort) (place, bool) {
	addr := remote.Addr()
	drop := func(level sshdconf.LogLevel, reason string) (place, bool) {
		sshlog.Printf(level, "drop connection #%d from [%s]:%d on [%s]:%d %s",
			l.startups, addr, remote.Port(), local.Addr(), local.Port(), reason)
		return place{}, false
	}
	if reason := l.penalized(addr); reason != "" {
		return drop(sshdconf.LogInfo, reason)
	}
	p := place{l.source(addr)}
	if !l.full() && l.perSource[p.source] < l.conf.PerSourceMaxStartups {
		if !l.throttling.IsZero() && l.startups < l.conf.MaxStartups.Begin-1 {
			sshlog.Printf(sshdconf.LogInfo, "exited MaxStartups throttling after %s, %d connections dropped",
				words.Seconds(l.now().Sub(l.throttling)), l.dropped)
			l.throttling = time.Time{}
		}
		l.startups++
		l.perSource[p.source]++
		return p, true
	}
	level, now := sshdconf.LogVerbose, l.now()
	switch {
	case l.throttling.IsZero():
		sshlog.Printf(sshdconf.LogError, "beginning MaxStartups throttling")
		level, l.throttling, l.logged, l.dropped = sshdconf.LogInfo, now, now, 0
	case now.Sub(l.logged) > throttleLog:
		sshlog.Printf(sshdconf.LogError, "in MaxStartups throttling for %s, %d connections dropped",
			words.Seconds(now.Sub(l.throttling)), l.dropped+1)
		level, l.logged = sshdconf.LogInfo, now
	}
	l.dropped++
	return drop(level, "past MaxStartups")
}

// done gives a place back.
func (l *limits) done(p place) {
	l.startups--
	if l.perSource[p.source]--; l.perSource[p.source] <= 0 {
		delete(l.perSource, p.source)
	}
}

// full is MaxStartups' random early drop.
func (l *limits) full() bool {
	m := l.conf.MaxStartups
	switch {
	case l.startups < m.Begin:
		return false
	case l.startups >= m.Full || m.Rate == 100:
		return true
	}
	p := (100-m.Rate)*(l.startups-m.Begin)/(m.Full-m.Begin) + m.Rate
	return l.random(100) < p
}
