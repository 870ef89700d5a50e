package listener

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"sync"
	"time"

	"p9auth/internal/sockets"
	"p9auth/internal/sshdconf"
	"p9auth/sshfront/internal/sshlog"
)

// A connection or a session process has a pipe to the listener as its standard error,
// and the listener writes its lines to the log. An attacker who has taken one over
// can write anything there, but not so that it passes for another process's line:
// what sshd says at the end of a connection goes into the log as it is, if it names
// this connection's own address; before everything else stands who says it. The flags
// of the log's own descriptor are out of reach.

// Bounds of what is logged for one process.
const (
	maxRelayed = 2100 // bytes of a line: sshlog's, and its first words
	burst      = 200  // lines at once
	perSecond  = 20   // lines
)

// A relay logs what one process says.
type relay struct {
	pid     int
	who     string // the process in the log's words
	address string // the client's, with its port, in sshd's words
	free    bool   // debugging: any number of lines

	left    float64 // lines that may be logged at once
	last    time.Time
	dropped int
}

// relayOf makes the relay of a process. The caller holds the listener's lock.
func (c *child) relayOf(mode string, pid int) *relay {
	return &relay{
		pid: pid, who: fmt.Sprintf("%s process %d for %s", mode, pid, c.id()),
		address: sockets.HostPort(c.remote),
		free:    c.l.opts.logLevel(c.l.conf) >= sshdconf.LogDebug1, left: burst, last: time.Now(),
	}
}

// run logs what the process writes to its pipe, until the pipe's other end is closed.
func (r *relay) run(pipe *os.File) {
	defer pipe.Close()
	defer r.dropping()
	in := bufio.NewReaderSize(pipe, maxRelayed)
	for {
		line, err := in.ReadSlice('\n')
		if len(line) > 0 {
			r.line(string(line))
		}
		for errors.Is(err, bufio.ErrBufferFull) { // the rest of a line that is too long
			_, err = in.ReadSlice('\n')
		}
		if err != nil {
			return
		}
	}
}

// ownWords match what sshd says of a connection at its end (OpenSSH's packet.c, kex.c,
// serverloop.c). The zero byte, which no line has, stands for the client's address and
// port.
var ownWords = sync.OnceValue(func() *regexp.Regexp {
	const who = `(?:(?:(?:authenticating|invalid) )?user [!-~]{1,256} )?`
	return regexp.MustCompile(`^(?:` +
		`(?:Connection (?:closed|reset) by|Disconnected from|Disconnecting|Timeout, client not responding from|terminating inactive connection from|(?:ssh_dispatch_run_fatal|ssh_packet_write_poll): Connection from) ` + who + `\x00` +
		`|(?:Unable to negotiate with|Received disconnect from|Read error from remote host|banner exchange: Connection from) \x00` +
		`)(?:$| \[preauth\]$|:[0-9 ].*$)` +
		`|^(?:error: )?kex_exchange_identification: `)
})

// own reports whether a line, which is printable, says so of this connection, and of
// no other one.
func (r *relay) own(line string) bool {
	return ownWords().MatchString(strings.Replace(line, r.address, "\x00", 1))
}

// line logs one line, which sshlog has written, or something else.
func (r *relay) line(text string) {
	if !r.allow(time.Now()) {
		r.dropped++
		return
	}
	r.dropping()
	text = strings.TrimSuffix(text, "\n")
	priority := 3
	if len(text) > 3 && text[0] == '<' && text[2] == '>' && text[1] >= '2' && text[1] <= '7' {
		priority, text = int(text[1]-'0'), text[3:]
	}
	text = printable(text)
	if !r.own(text) {
		text = r.who + " says: " + text
	}
	sshlog.Relay(r.pid, priority, text)
}

// allow counts a line, and says whether it may be logged.
func (r *relay) allow(now time.Time) bool {
	r.left = min(burst, r.left+perSecond*now.Sub(r.last).Seconds())
	r.last = now
	if r.left < 1 && !r.free {
		return false
	}
	r.left--
	return true
}

// dropping says how many lines were left out.
func (r *relay) dropping() {
	if r.dropped > 0 {
		sshlog.Printf(sshdconf.LogError, "%s says too much: %d lines are left out", r.who, r.dropped)
		r.dropped = 0
	}
}

// printable escapes what sshlog lets nobody write, and no backslash, which sshlog has
// escaped.
func printable(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' {
			fmt.Fprintf(&b, `\%03o`, c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}
