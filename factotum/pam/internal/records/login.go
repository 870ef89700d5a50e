package records

import (
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"p9auth/factotum/pam/internal/log"
	"p9auth/internal/logindefs"
)

// SSHTTY is PAM_TTY of an SSH connection, which has no terminal yet.
const SSHTTY = "ssh"

// Places are where records are written. A file that does not exist is not made.
type Places struct {
	Utmp, Wtmp, Btmp, Lastlog string
	Wtmpdb                    string // the database of wtmpdb(8)
	Audit                     bool   // the kernel's audit
}

// Debian returns the places of Debian.
func Debian() Places {
	return Places{
		Utmp: "/run/utmp", Wtmp: "/var/log/wtmp", Btmp: "/var/log/btmp", Lastlog: "/var/log/lastlog",
		Wtmpdb: "/var/lib/wtmpdb/wtmp.db", Audit: true,
	}
}

// A Login is one login as far as the records are about it. They are what login(1)
// and sshd(8) write. Modules (pam_lastlog, pam_wtmpdb) may do some of it; what
// they did is not done again. No record that cannot be written fails a login: that
// is logged.
type Login struct {
	Places  Places
	Service string // of PAM
	TTY     string // PAM_TTY: a terminal, or SSHTTY
	SSH     bool   // by SSH: sshd(8) records each terminal, and no connection without one
	Local   bool   // by su(1) or the like, which records failures alone
	RHost   string // PAM_RHOST: the remote host
	User    string
	UID     uint32
	PID     int // of the session's process
}

// line is the terminal's name in the records, or "" if there is none.
func (l Login) line() string {
	if l.TTY == SSHTTY {
		return ""
	}
	return strings.TrimPrefix(l.TTY, "/dev/")
}

// recordID is ut_id for the line, as login(1) and sshd(8) have it.
func (l Login) recordID() string {
	line := l.line()
	if !l.SSH && len(line) > 3 {
		line = line[3:]
	}
	return line[max(0, len(line)-4):]
}

// process is whose id the records have. sshd(8) writes that of its privileged process,
// and not of the user's: it leads the session of systemd-logind(8), which finds the
// session's terminal by that. This is the like of it.
func (l Login) process() int {
	if l.SSH {
		return os.Getpid()
	}
	return l.PID
}

// endInUtmp marks our record in utmp as dead. Another worker may have written it, which
// died; but a record of our own comes first, as one of a login that was at this terminal
// before may still be there, too.
func (l Login) endInUtmp(now time.Time) error {
	found, err := End(l.Places.Utmp, func(pid int) bool { return pid == l.process() }, l.line(), now)
	if found || err != nil || !l.SSH {
		return err
	}
	_, err = End(l.Places.Utmp, func(pid int) bool { return unix.Kill(pid, 0) == unix.ESRCH }, l.line(), now)
	return err
}

func complain(what string, err error) {
	if err != nil {
		log.Warn("no record in "+what, "error", err.Error())
	}
}

// A Before is what the records said before the modules opened or closed the
// session: it shows what they have written themselves.
type Before struct {
	wtmp int64 // its length
	last Last
}

// BeforeBegin reads what Begin and Last compare with.
func (l Login) BeforeBegin() Before {
	last, err := LastLogin(l.Places.Lastlog, l.UID)
	complain(l.Places.Lastlog, err)
	return Before{Size(l.Places.Wtmp), last}
}

// BeforeEnd reads what End compares with.
func (l Login) BeforeEnd() Before { return Before{wtmp: Size(l.Places.Wtmp)} }

// Begin records a session that is open, but for lastlog.
func (l Login) Begin(before Before, now time.Time) {
	if l.Local {
		return
	}
	l.audit(fmt.Sprintf("id=%d", l.UID), "success")
	l.enter(before, now)
}

// BeginTerminal records a terminal that a session by SSH has opened, but for lastlog.
func (l Login) BeginTerminal(now time.Time) { l.enter(l.BeforeEnd(), now) }

func (l Login) enter(before Before, now time.Time) {
	line := l.line()
	if line == "" {
		return
	}
	sid, _ := unix.Getsid(l.PID)
	r := Record{Type: UserProcess, PID: l.process(), Line: line, ID: l.recordID(), User: l.User, Host: l.RHost, SID: sid, Time: now}
	complain(l.Places.Utmp, Put(l.Places.Utmp, r, !l.SSH))
	if !l.recorded(before, UserProcess) {
		complain(l.Places.Wtmp, Append(l.Places.Wtmp, r))
	}
	if l.inWtmpdb() {
		complain(l.Places.Wtmpdb, wtmpdbLogin(l.User, line, l.RHost, now))
	}
}

// Last notes this login in lastlog and returns the line that tells the user of
// their last one, or "". At a terminal that is a module's business, as with
// Debian's login.
func (l Login) Last(before Before, defs logindefs.Defs, now time.Time) (text string) {
	if !l.SSH || l.line() == "" {
		return ""
	}
	if last, err := LastLogin(l.Places.Lastlog, l.UID); err != nil || last != before.last {
		return ""
	}
	if most := defs.Int("LASTLOG_UID_MAX", -1); most >= 0 && int64(l.UID) > int64(most) {
		return ""
	}
	if !before.last.Time.IsZero() {
		text = "Last login: " + before.last.Time.Format("Mon Jan _2 15:04:05 2006")
		if before.last.Host != "" {
			text += " from " + before.last.Host
		}
	}
	complain(l.Places.Lastlog, SetLastLogin(l.Places.Lastlog, l.UID, Last{Line: l.line(), Host: l.RHost, Time: now}))
	return text
}

// End ends the records of a session that its modules have closed.
func (l Login) End(before Before, now time.Time) {
	if l.Local {
		return
	}
	line := l.line()
	if line == "" {
		return
	}
	if l.inWtmpdb() {
		complain(l.Places.Wtmpdb, wtmpdbLogout(line, now))
	}
	complain(l.Places.Utmp, l.endInUtmp(now))
	if !l.recorded(before, DeadProcess) {
		complain(l.Places.Wtmp, Append(l.Places.Wtmp, Record{Type: DeadProcess, PID: l.process(), Line: line, ID: l.recordID(), Time: now}))
	}
}

// recorded says whether wtmp has got such a record since, by a module: it names this
// process or the session's. Another session may have ended at the same line meanwhile.
func (l Login) recorded(before Before, typ int) bool {
	for _, r := range Since(l.Places.Wtmp, before.wtmp) {
		if r.Type == typ && r.Line == l.line() && (r.PID == l.PID || r.PID == os.Getpid()) {
			return true
		}
	}
	return false
}

// Failed writes what lastb(1) shows of a proof that was wrong. User is the name
// as logs may have it.
func (l Login) Failed(now time.Time) {
	if l.TTY == "" && !l.Local {
		return
	}
	line, id := "ssh:notty", ""
	if l.TTY != SSHTTY {
		line = l.line()
	}
	if l.Local {
		id = l.recordID()
	} else {
		l.audit("acct="+auditString(l.User), "failed")
	}
	complain(l.Places.Btmp, Append(l.Places.Btmp, Record{Type: LoginProcess, PID: os.Getpid(), Line: line, ID: id, User: l.User, Host: l.RHost, Time: now}))
}

// inWtmpdb reports whether it is for us to write this login into the database.
func (l Login) inWtmpdb() bool {
	if !l.SSH || l.Service != wtmpdbService {
		return false
	}
	_, err := os.Stat(l.Places.Wtmpdb)
	return err == nil
}

// audit tells the kernel's audit of a login or of a failed one. who is id= or
// acct=.
func (l Login) audit(who, res string) {
	if !l.Places.Audit {
		return
	}
	exe, _ := os.Executable()
	sendAudit(auditUserLogin, auditText(who, exe, l.TTY, l.RHost, res)) // an error says that the kernel keeps no audit here
}
