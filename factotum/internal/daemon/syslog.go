package daemon

import (
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"p9auth/internal/journal"
	"p9auth/internal/sshdconf"
)

// A syslog writes lines as sshd would, for programs such as fail2ban that read
// them. It speaks RFC 3164 to a unix datagram socket; what the socket does not
// take at once is lost.
type syslog struct {
	path string
	log  *slog.Logger
	same bool // it is the journal that factotum's log goes to

	mu   sync.Mutex
	conn net.Conn
}

func newSyslog(path string, log *slog.Logger) *syslog {
	return &syslog{path: path, log: log, same: reachesJournal(path, log)}
}

// isLog reports whether factotum's own log goes there with fields, so that a line must
// be written once only.
func (s *syslog) isLog() bool { return s != nil && s.same }

// write sends one line. pid is the process that speaks to the client.
func (s *syslog) write(level slog.Level, f sshdconf.Facility, pid int, line string) {
	if s == nil || s.path == "" {
		return
	}
	severity := 6 // informational
	switch {
	case level >= slog.LevelError:
		severity = 3
	case level >= slog.LevelWarn:
		severity = 4
	case level < slog.LevelInfo:
		severity = 7
	}
	s.send(fmt.Appendf(nil, "<%d>%s sshd[%d]: %s", int(f)<<3|severity, time.Now().Format(time.Stamp), pid, line))
}

// notice sends one line as su(1) does: of LOG_AUTH and LOG_NOTICE.
func (s *syslog) notice(program string, pid int, line string) {
	const authNotice = 4<<3 | 5
	if s != nil && s.path != "" {
		s.send(fmt.Appendf(nil, "<%d>%s %s[%d]: %s", authNotice, time.Now().Format(time.Stamp), program, pid, line))
	}
}

func (s *syslog) send(b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for range 2 { // again if the daemon has been restarted
		if s.conn == nil {
			c, err := net.DialTimeout("unixgram", s.path, journal.Patience)
			if err != nil {
				s.log.Debug("syslog", "error", err.Error())
				return
			}
			s.conn = c
		}
		s.conn.SetWriteDeadline(time.Now().Add(journal.Patience))
		if _, err := s.conn.Write(b); err == nil {
			return
		}
		s.conn.Close()
		s.conn = nil
	}
}
