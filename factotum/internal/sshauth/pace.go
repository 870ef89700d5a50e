package sshauth

import "time"

// A Pace holds back what is asked for too often: the key exchanges of one
// connection, each of which costs a signature. The zero Pace has not been asked.
type Pace struct{ paid time.Time }

// ExchangesAtOnce is how many key exchanges go without a pause, beyond one for
// each ExchangeEvery. A client that exchanges keys for each 16 kilobytes still
// gets along.
const (
	ExchangesAtOnce = 256
	ExchangeEvery   = 50 * time.Millisecond
)

// Next counts one at that time, and returns how long it is to wait.
func (p *Pace) Next(now time.Time) time.Duration {
	if full := now.Add(-ExchangesAtOnce * ExchangeEvery); p.paid.Before(full) {
		p.paid = full
	}
	p.paid = p.paid.Add(ExchangeEvery)
	return max(0, p.paid.Sub(now))
}
