package listener

import (
	"container/heap"
	"fmt"
	"math"
	"net/netip"
	"time"

	"p9auth/internal/match"
	"p9auth/internal/sshdconf"
	"p9auth/sshfront/internal/sshlog"
)

// An offence is what PerSourcePenalties has a penalty for.
type offence int

const (
	offenceCrash offence = iota
	offenceAuthFail
	offenceInvalidUser
	offenceNoAuth
	offenceGrace
	offenceRefused
)

// of is the penalty for an offence, and sshd's words for it.
func (o offence) of(p *sshdconf.Penalties) (time.Duration, string) {
	switch o {
	case offenceCrash:
		return p.Crash, "penalty: caused crash"
	case offenceAuthFail:
		return p.AuthFail, "penalty: failed authentication"
	case offenceInvalidUser:
		return p.InvalidUser, "penalty: attempted authentication by invalid user"
	case offenceGrace:
		return p.Grace, "penalty: exceeded LoginGraceTime"
	case offenceRefused:
		return p.RefusedConn, "penalty: connection prohibited by RefuseConnection"
	}
	return p.NoAuth, "penalty: connections without attempting authentication"
}

// A penalty keeps a source out until it expires, once it is active.
type penalty struct {
	source netip.Prefix
	expiry time.Time
	active bool // has been more than PerSourcePenalties' min
	reason string
	index  int // in the heap
}

// penalties are those of one address family, the next to expire first.
type penalties struct {
	heap     penaltyHeap
	bySource map[netip.Prefix]*penalty
}

// expire forgets what is over at the time, and whatever is more than max.
func (p *penalties) expire(now time.Time, max int) {
	for len(p.heap) > 0 && (p.heap[0].expiry.Before(now) || len(p.heap) > max) {
		delete(p.bySource, heap.Pop(&p.heap).(*penalty).source)
	}
}

// family returns the penalties for addresses like addr, how many there may be,
// and whether everybody is kept out when there are as many.
func (l *limits) family(addr netip.Addr) (p *penalties, max int, denyAll bool) {
	c := &l.conf.PerSourcePenalties
	if addr.Is4() {
		return &l.penalties[0], c.MaxSources4, c.DenyAll4
	}
	return &l.penalties[1], c.MaxSources6, c.DenyAll6
}

// exempt says whether PerSourcePenaltyExemptList has the address.
func (l *limits) exempt(addr netip.Addr) bool {
	list := l.conf.PerSourcePenaltyExemptList
	if list == "" {
		return false
	}
	r, err := match.Addr(addr, list)
	return err == nil && r == match.Matched
}

// penalized says why an address may not connect, or nothing.
func (l *limits) penalized(addr netip.Addr) string {
	if !l.conf.PerSourcePenalties.Enabled || l.exempt(addr) {
		return ""
	}
	p, max, denyAll := l.family(addr)
	p.expire(l.now(), math.MaxInt)
	if denyAll && len(p.heap) >= max {
		return "too many penalised addresses"
	}
	if x := p.bySource[l.source(addr)]; x != nil && x.active {
		return x.reason
	}
	return ""
}

// penalize adds to the penalty of an address.
func (l *limits) penalize(addr netip.Addr, o offence) {
	c := &l.conf.PerSourcePenalties
	d, reason := o.of(c)
	if !c.Enabled || d <= 0 || l.exempt(addr) {
		return
	}
	p, max, denyAll := l.family(addr)
	now, source := l.now(), l.source(addr)
	p.expire(now, math.MaxInt)
	x := p.bySource[source]
	if x == nil {
		if denyAll && len(p.heap) >= max {
			sshlog.Printf(sshdconf.LogVerbose, "penalty table full, cannot penalise %s for %s", source, reason)
			return
		}
		x = &penalty{source: source, expiry: now.Add(d), active: d > c.Min, reason: reason}
		heap.Push(&p.heap, x)
		p.bySource[source] = x
		level, what := sshdconf.LogVerbose, "deferred"
		if x.active {
			level, what = sshdconf.LogInfo, "active"
		}
		sshlog.Printf(level, "new %s %s penalty of %s seconds for %s", source, what, secs(d), reason)
		p.expire(now, max)
		return
	}
	x.expiry = x.expiry.Add(d)
	if most := now.Add(c.Max); x.expiry.After(most) {
		x.expiry = most
	}
	if left := x.expiry.Sub(now); left > c.Min && !x.active {
		sshlog.Printf(sshdconf.LogInfo, "activating %s penalty of %s seconds for %s", source, secs(left), reason)
		x.active = true
	}
	x.reason = reason
	heap.Fix(&p.heap, x.index)
}

func secs(d time.Duration) string { return fmt.Sprintf("%.3f", d.Seconds()) }

// penaltyHeap is for container/heap.
type penaltyHeap []*penalty

func (h penaltyHeap) Len() int           { return len(h) }
func (h penaltyHeap) Less(i, j int) bool { return h[i].expiry.Before(h[j].expiry) }
func (h penaltyHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}
func (h *penaltyHeap) Push(x any) {
	p := x.(*penalty)
	p.index = len(*h)
	*h = append(*h, p)
}
func (h *penaltyHeap) Pop() any {
	old := *h
	p := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return p
}
