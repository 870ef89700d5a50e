package main

import (
	"encoding/base64"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/msteinert/pam/v2"
	"golang.org/x/sys/unix"

	"p9auth/capproto"
	"p9auth/factotum/pam/internal/records"
	"p9auth/internal/logindefs"
)

// What login(1) and sshd(8) write into utmp, wtmp, btmp and lastlog. Modules
// (pam_lastlog, pam_wtmpdb) may do some of it; what they did is not done again.
// Nothing of it can fail a login.

// sshTTY is what PAM_TTY is for an SSH connection, which is no terminal.
const sshTTY = "ssh"

// line is the terminal's name in the records. An SSH connection has one record,
// whatever terminals its user opens later: they are the user's own doing.
func (w *worker) line(pid int) string {
	if w.ttyName == sshTTY {
		return records.SSHLine(pid)
	}
	return strings.TrimPrefix(w.ttyName, "/dev/")
}

// recordID is ut_id for a line: as login has it, or a number that no two
// processes share.
func recordID(line string, pid int) string {
	if records.IsSSH(line) {
		return base64.RawURLEncoding.EncodeToString([]byte{byte(pid >> 16), byte(pid >> 8), byte(pid)})
	}
	if len(line) > 3 {
		line = line[3:]
	}
	return line[max(0, len(line)-4):]
}

func complain(what string, err error) {
	if err != nil {
		slog.Warn("no record in "+what, "error", err.Error())
	}
}

// A history is what was known before the session's modules ran.
type history struct {
	wtmp int64
	last records.Last
}

func (w *worker) history() history {
	last, err := records.LastLogin(records.LastlogPath, w.acct.uid)
	complain(records.LastlogPath, err)
	return history{records.Size(records.WtmpPath), last}
}

// recordLogin writes the records of a session that is open.
func (w *worker) recordLogin(pid int, before history, defs logindefs.Defs) {
	w.auditLogin(w.acct.uid, "", true)
	line := w.line(pid)
	if line == "" {
		return
	}
	now := time.Now()
	sid, _ := unix.Getsid(pid)
	r := records.Record{Type: records.UserProcess, PID: pid, Line: line, ID: recordID(line, pid), User: w.acct.name, Host: w.rhost, SID: sid, Time: now}
	complain(records.UtmpPath, records.Put(records.UtmpPath, r))
	if !recorded(before.wtmp, records.UserProcess, line) {
		complain(records.WtmpPath, records.Append(records.WtmpPath, r))
	}
	if w.inWtmpdb() {
		complain(wtmpdbPath, wtmpdbLogin(w.acct.name, line, w.rhost, now))
	}
	if w.ttyName == sshTTY {
		w.lastLogin(before.last, now, defs)
	}
}

// lastLogin tells the user of their last login and notes this one. At the
// console that is a module's, as with Debian's login.
func (w *worker) lastLogin(before records.Last, now time.Time, defs logindefs.Defs) {
	if last, err := records.LastLogin(records.LastlogPath, w.acct.uid); err != nil || last != before {
		return
	}
	if most := defs.Int("LASTLOG_UID_MAX", -1); most >= 0 && int64(w.acct.uid) > int64(most) {
		return
	}
	if !before.Time.IsZero() && w.printLast && w.silent == 0 {
		text := "Last login: " + before.Time.Format("Mon Jan _2 15:04:05 2006")
		if before.Host != "" {
			text += " from " + before.Host
		}
		w.conn.Send(capproto.NewMsg("prompt", "style", string(capproto.Info), "text", clean(text, 512)))
	}
	complain(records.LastlogPath, records.SetLastLogin(records.LastlogPath, w.acct.uid, records.Last{Line: sshTTY, Host: w.rhost, Time: now}))
}

// recordLogout ends the records of a session whose modules have closed it.
func (w *worker) recordLogout(pid int, wtmp int64) {
	line := w.line(pid)
	if line == "" {
		return
	}
	now := time.Now()
	if w.inWtmpdb() {
		complain(wtmpdbPath, wtmpdbLogout(line, now))
	}
	complain(records.UtmpPath, records.End(records.UtmpPath, pid, line, now))
	if !recorded(wtmp, records.DeadProcess, line) {
		complain(records.WtmpPath, records.Append(records.WtmpPath, records.Record{Type: records.DeadProcess, PID: pid, Line: line, ID: recordID(line, pid), Time: now}))
	}
}

// recorded says whether wtmp got such a record since it had a length.
func recorded(since int64, typ int, line string) bool {
	for _, r := range records.Since(records.WtmpPath, since) {
		if r.Type == typ && r.Line == line {
			return true
		}
	}
	return false
}

// nameForLog is a name that was typed at a console as logs may have it: one that
// nobody has may be a password typed too early. See LOG_UNKFAIL_ENAB in
// login.defs(5).
func nameForLog(name string) string {
	if name == "" {
		return ""
	}
	if _, err := lookup(name); err == nil {
		return name
	}
	if defs, err := logindefs.Read(logindefs.Path); err == nil && defs.Bool("LOG_UNKFAIL_ENAB", false) {
		return name
	}
	return "UNKNOWN"
}

// recordFailure writes what lastb(1) shows of a password that was wrong.
func (w *worker) recordFailure() {
	name, err := w.tx.GetItem(pam.User)
	if err != nil || w.ttyName == "" {
		return
	}
	line := "ssh:notty"
	if w.ttyName != sshTTY {
		line = w.line(0)
		name = nameForLog(name)
	}
	w.auditLogin(0, name, false)
	complain(records.BtmpPath, records.Append(records.BtmpPath, records.Record{Type: records.LoginProcess, PID: os.Getpid(), Line: line, User: name, Host: w.rhost, Time: time.Now()}))
}

// auditLogin tells the kernel's audit of a login or of a failed one, in the
// form of audit_log_acct_message(3).
func (w *worker) auditLogin(uid uint32, name string, ok bool) {
	who, res := fmt.Sprintf("id=%d", uid), "success"
	if !ok {
		who, res = "acct="+auditString(name), "failed"
	}
	or := func(s string) string {
		if s == "" {
			return "?"
		}
		return s
	}
	addr, host := w.rhost, "?"
	if !strings.ContainsAny(addr, ".:") || auditString(addr)[0] != '"' {
		addr = ""
	}
	exe, _ := os.Executable()
	text := fmt.Sprintf("op=login %s exe=%q hostname=%s addr=%s terminal=%s res=%s", who, exe, host, or(addr), or(strings.TrimPrefix(w.ttyName, "/dev/")), res)
	if err := audit(auditUserLogin, text); err != nil {
		slog.Debug("audit", "error", err.Error())
	}
}
