package main

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"p9auth/test/testbed"
)

// What people see at the beginning of a session, and what the log says of it, beside
// Debian's sshd.

// A twin is a site with a sshd of the same configuration.
type twin struct {
	*site
	theirs *testbed.SSHD
}

func newTwin(t *testing.T, conf string) *twin {
	t.Helper()
	need(t, "ssh", "sshpass", "/usr/sbin/sshd")
	s := newSite(t)
	const both = "PrintMotd no\nSubsystem sftp internal-sftp\n"
	s.Configure(t, "PerSourcePenalties no\n"+both+conf)
	return &twin{s, s.SSHD(t, "UsePAM yes\nKbdInteractiveAuthentication yes\n"+both+conf)}
}

var blank = regexp.MustCompile(`\n{2,}`)

// both runs a script with each server's $port, after a preparation, and returns what it
// prints, without what differs from run to run.
func (w *twin) both(t *testing.T, prepare, script string) (ours, theirs string) {
	t.Helper()
	run := func(port string) string {
		if prepare != "" {
			w.Sh(t, prepare)
		}
		out, err := w.run(t, "port="+port+"; "+strings.ReplaceAll(script, "$ssh", "timeout 40 ssh -p $port ${options/LogLevel=ERROR/LogLevel=INFO}"))
		out = regexp.MustCompile(`(?m)^Warning: Permanently added .*\n`).ReplaceAllString(out, "")
		out = regexp.MustCompile(`(?m)^bash: line .* Killed .*\n`).ReplaceAllString(out, "")
		out = regexp.MustCompile(`(?m)^Last login: .*\n|\r`).ReplaceAllString(out, "")
		out = blank.ReplaceAllString(strings.ReplaceAll(out, "port "+port, "port PORT"), "\n")
		return fmt.Sprintf("%s(%v)", out, err)
	}
	return run(w.port), run(w.theirs.Port)
}

var byMethod = map[string]string{
	"key":                  "$ssh -n -o BatchMode=yes",
	"password":             "sshpass -p open-sesame $ssh -n -o PubkeyAuthentication=no -o PreferredAuthentications=password",
	"keyboard-interactive": "sshpass -p open-sesame $ssh -n -o PubkeyAuthentication=no -o PreferredAuthentications=keyboard-interactive",
}

// sshd's end of a refused account at "Access denied", without a line about the
// connection.
func TestARefusedAccountIsToldWhyAndSentAwayAsBySshd(t *testing.T) {
	w := newTwin(t, "")
	for _, c := range []struct{ name, begin, end, says string }{
		{"nologin", "echo closed for repair >/etc/nologin", "rm /etc/nologin", "closed for repair\n"},
		{"an expired account", "chage -E 0 alice", "chage -E -1 alice", "Your account has expired; please contact your system administrator.\n"},
		{"no access", `sed -i '1i account required pam_access.so' /etc/pam.d/sshd; echo '-:alice:ALL' >/etc/security/access.conf`,
			"sed -i 1d /etc/pam.d/sshd; : >/etc/security/access.conf", ""},
	} {
		w.Sh(t, c.begin)
		for method, ssh := range byMethod {
			log := w.Log()
			ours, theirs := w.both(t, "", ssh+" alice@127.0.0.1 true")
			if c.says == "" { // sshd leaves the person without a reason
				ours = strings.Replace(ours, "Permission denied\n", "", 1)
			}
			if ours != theirs || !strings.HasPrefix(theirs, c.says+"Connection closed by 127.0.0.1 port PORT\n(exit status 255)") {
				t.Errorf("%s, %s: %q, sshd %q", c.name, method, ours, theirs)
			}
			log = strings.TrimPrefix(w.Log(), log)
			if !strings.Contains(log, "Access denied for user alice by PAM account configuration") || strings.Contains(log, "Accepted ") ||
				strings.Contains(log, "Failed password for alice") != (method == "password") {
				t.Errorf("%s, %s: the log: %s", c.name, method, log)
			}
		}
		w.Sh(t, c.end)
	}
	if log := w.Sh(t, "cat "+w.Dir+"/log/sshfront"); regexp.MustCompile(`ssh_dispatch_run_fatal|Disconnecting`).MatchString(log) {
		t.Errorf("sshfront's log: %s", log)
	}
	for _, line := range []string{"Access denied for user alice by PAM account configuration", "Failed password for alice from"} {
		if !strings.Contains(w.theirs.Log.String(), line) {
			t.Errorf("sshd does not log %q: %s", line, w.theirs.Log.String())
		}
	}
}

func TestAShellWithoutATerminalShowsWhatPAMSays(t *testing.T) {
	w := newTwin(t, "")
	w.Sh(t, "echo THE NEWS >/etc/motd")
	for script, want := range map[string]bool{
		"echo exit | $ssh -T alice@127.0.0.1":              true,
		"$ssh -T alice@127.0.0.1 true </dev/null":          false,
		"echo exit | $ssh -tt alice@127.0.0.1 | grep NEWS": true,
		// It is shown to the first program of a connection.
		"ssh -fNM -o ControlPersist=9 -S $tmp/m$port -p $port ${options/-o ControlPath=none/} alice@127.0.0.1 >/dev/null 2>&1; for c in true ''; do echo exit | ssh -T -S $tmp/m$port alice@127.0.0.1 $c; done; ssh -S $tmp/m$port -O exit alice@127.0.0.1 2>/dev/null": false,
		"ssh -fNM -o ControlPersist=9 -S $tmp/n$port -p $port ${options/-o ControlPath=none/} alice@127.0.0.1 >/dev/null 2>&1; for c in 1 2; do echo exit | ssh -T -S $tmp/n$port alice@127.0.0.1; echo; done; ssh -S $tmp/n$port -O exit alice@127.0.0.1 2>/dev/null":  true,
	} {
		for _, hush := range []string{"touch /home/alice/.hushlogin", "rm /home/alice/.hushlogin"} {
			w.Sh(t, hush)
			ours, theirs := w.both(t, "", script)
			if ours != theirs || strings.Contains(theirs, "THE NEWS\n") != (want && strings.HasPrefix(hush, "rm")) {
				t.Errorf("%s, %s: %q, sshd %q", hush, script, ours, theirs)
			}
		}
	}
}

// Terminals are in utmp under their names, and others can write to them, as with sshd.
func TestATerminalIsRecordedAndReachedAsOneOfSshd(t *testing.T) {
	need(t, "w", "who", "wall", "mesg", "last", "utmpdump", "lastlog")
	w := newTwin(t, "")
	same := func(what, script, want string) {
		t.Helper()
		w.Sh(t, "for f in /run/utmp /var/log/wtmp /var/log/lastlog; do : >$f; done")
		ours, theirs := w.both(t, "", script)
		theirs = strings.TrimSpace(theirs)
		if ours = strings.TrimSpace(ours); ours != theirs || !regexp.MustCompile(want).MatchString(theirs) {
			t.Errorf("%s: %q, sshd %q, want %s", what, ours, theirs, want)
		}
	}
	// What differs between two runs: the number of the terminal, and times.
	const tidy = ` 2>&1 | tr -d '\r' | sed -E 's#pts/[0-9]+#pts/N#g; s#ts/[0-9]+|s/[0-9]+#ID#g; s#[0-9]+:[0-9]+(:[0-9]+)?#TIME#g; s#[A-Z][a-z]{2} [A-Z][a-z]{2} +[0-9]+|[A-Z][a-z]{2} [0-9]+ #DAY #g'`
	same("who -m", `$ssh -n -tt alice@127.0.0.1 who -m`+tidy, `alice +pID.*\(127\.0\.0\.1\)|alice +pts/N.*\(127\.0\.0\.1\)`)
	same("w", `$ssh -n -tt alice@127.0.0.1 'w -h | grep -c "^alice *pts/[0-9]* *127.0.0.1"'`, `^1\n`)
	same("mesg", `$ssh -n -tt alice@127.0.0.1 'mesg; stat -c "%U %G %a" $(tty); mesg n; mesg; stat -c "%U %G %a" $(tty)'`, `is y\nalice tty 620\nis n\nalice tty 600`)
	same("a terminal alone", `$ssh -n alice@127.0.0.1 'who /run/utmp'`, `^\(<nil>\)$`)
	const now = `ssh -fNM -o ControlPersist=20 -S $tmp/ctl$port -p $port ${options/-o ControlPath=none/} alice@127.0.0.1 >/dev/null 2>&1; s="ssh -S $tmp/ctl$port alice@127.0.0.1"; `
	const over = `; ssh -S $tmp/ctl$port -O exit alice@127.0.0.1 2>/dev/null`
	// Two terminals of one connection, of which one ends.
	same("two terminals", now+`$s -n -tt sleep 3 >/dev/null 2>&1 & sleep 1; $s -n -tt 'who /run/utmp | grep -c ^alice'; sleep 0.5; $s -n 'who /run/utmp | grep -c ^alice'; wait; sleep 0.5; $s -n 'who /run/utmp | grep -c ^alice'`+over, `^2\n(.*\n)*1\n0\n`)
	// wall(1) reaches who has left messages on.
	same("wall", `$ssh -n -tt alice@127.0.0.1 sleep 3 >$tmp/wall$port 2>/dev/null & sleep 1; ssh -n -p $port $options alice@127.0.0.1 'echo ATTENTION | wall'; wait; grep -c ATTENTION $tmp/wall$port`, `^1\n`)
	// A client that goes without a word.
	same("a client that is killed", `timeout -s KILL 2 ssh -tt -p $port $options alice@127.0.0.1 'sleep 60' </dev/null >/dev/null 2>&1 || sleep 1; ssh -n -p $port $options alice@127.0.0.1 'who /run/utmp; last -w -f /var/log/wtmp | grep -c "^alice .*still logged in"'`, `0\n\(exit status 1\)$`)
	for _, port := range []string{w.port, w.theirs.Port} {
		w.Sh(t, "for f in /run/utmp /var/log/wtmp /var/log/lastlog; do : >$f; done")
		if out, err := w.run(t, "port="+port+"; ssh -n -tt -p $port $options alice@127.0.0.1 tty"); err != nil {
			t.Fatal(err, out)
		}
		var dump string
		if !testbed.Eventually(func() bool {
			dump = w.Sh(t, "utmpdump /var/log/wtmp 2>/dev/null; utmpdump /run/utmp 2>/dev/null; lastlog -u alice")
			return strings.Count(dump, "[8]") == 2
		}) || !regexp.MustCompile(`(?s)^\[7\] \[\d+\] \[ts/\d+ *\] \[alice   \] \[(pts/\d+) *\] \[127\.0\.0\.1 .*\n\[8\] .*\n\[8\] .*\nalice +pts/\d+ +127\.0\.0\.1`).MatchString(dump) {
			t.Errorf("port %s: %s", port, dump)
		}
	}
}

func TestAnExpiredPasswordIsChangedInTheSessionAsWithSshd(t *testing.T) {
	w := newTwin(t, "")
	const old = "echo alice:open-sesame | chpasswd -c SHA512 -s 1000; chage -d 0 alice"
	const banner = "You are required to change your password immediately (administrator enforced).\n"
	const typed = "(sleep 2; for w in open-sesame entirely-other-words-17 entirely-other-words-17; do echo $w; sleep 1; done; sleep 2) | "
	for _, c := range []struct{ name, script, want string }{
		{"a command", byMethod["key"] + " alice@127.0.0.1 id", banner + "WARNING: Your password has expired.\nPassword change required but no TTY available.\n(exit status 1)"},
		{"a password", byMethod["password"] + " alice@127.0.0.1 id", banner + "WARNING: Your password has expired.\nPassword change required but no TTY available.\n(exit status 1)"},
		{"a shell without a terminal", byMethod["key"] + " -T alice@127.0.0.1", banner + "WARNING: Your password has expired.\nPassword change required but no TTY available.\n(exit status 1)"},
		{"a shell", typed + "$ssh -tt alice@127.0.0.1", "passwd: password updated successfully\nConnection to 127.0.0.1 closed.\n(<nil>)"},
		{"a command at a terminal", typed + "$ssh -tt alice@127.0.0.1 id", "passwd: password updated successfully\nConnection to 127.0.0.1 closed.\n(<nil>)"},
		{"a forward", byMethod["key"] + " -N -o ExitOnForwardFailure=yes -R 0:127.0.0.1:22 alice@127.0.0.1", banner + "Error: remote port forwarding failed for listen port 0\n(exit status 255)"},
		{"another forward", byMethod["key"] + " -W 127.0.0.1:$port alice@127.0.0.1", "administratively prohibited"},
	} {
		t.Run(strings.ReplaceAll(c.name, " ", "-"), func(t *testing.T) {
			ours, theirs := w.both(t, old, c.script)
			// Which reason a client is given is not for scripts.
			ours = regexp.MustCompile(`administratively prohibited: .*`).ReplaceAllString(ours, "administratively prohibited: open failed")
			if ours != theirs || !strings.Contains(theirs, c.want) {
				t.Errorf("%q, sshd %q", ours, theirs)
			}
		})
	}
	// sftp ends: sshd runs passwd for it, too.
	ours, theirs := w.both(t, old, "echo ls | timeout 40 sftp -q -b - -P $port $options alice@127.0.0.1 2>&1 | tail -n 1")
	if ours != theirs || !strings.Contains(theirs, "Connection closed") {
		t.Errorf("sftp: %q, sshd %q", ours, theirs)
	}
	// By keyboard-interactive the change is asked for before the session.
	for name, port := range map[string]string{"sshfront": w.port, "sshd": w.theirs.Port} {
		w.Sh(t, old)
		term := w.Start(t, "sh", "-c", "exec ssh -p "+port+" "+w.options()+" -o PubkeyAuthentication=no -o PreferredAuthentications=keyboard-interactive alice@127.0.0.1 echo in:$((40+2))")
		for _, word := range []string{"open-sesame", "open-sesame", "entirely-other-words-17", "entirely-other-words-17"} {
			term.Expect("assword: ")
			term.Send(word + "\n")
		}
		term.Expect("in:42")
		t.Logf("%s asks before the session", name)
	}
}
