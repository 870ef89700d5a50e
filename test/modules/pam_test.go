package modules

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"p9auth/test/testbed"
)

const password = "open-sesame"

// A row is a module, with what makes it do something and what shows that. The
// observation runs at the end of alice's .bash_profile. shows is what the
// transcript of the reference must match, or the row would compare nothing.
type row struct {
	module     string
	first      string                  // lines before the service's own
	last       string                  // lines after them
	start      func(*testing.T, *site) // before setup
	setup      string                  // as root
	observe    string
	before     string // as root, before each login
	answers    []string
	shows      string
	after      string // as root, after each login; what it prints is compared, too
	afterShows string
	lastlog    bool   // what is said about the last login is compared too
	needs      string // a capability that root needs and may lack in a container
	program    string // what is not everywhere
}

// ga makes a user's file of google-authenticator(1).
const ga = `printf 'JBSWY3DPEHPK3PXP\n" TOTP_AUTH\n12345678\n' >/run/ga.fresh`

var rows = []row{
	{module: "none", observe: `id; umask; pwd; cat /proc/self/limits; echo $SHELL $USER $LOGNAME $HOME; env | grep -vE '^(SSH_|_=|TERM|XDG|OLDPWD|PWD|SHLVL|MAIL|LANG)' | sort; echo $0; grep -E '^(Sig(Ign|Blk)|NoNewPrivs|Seccomp:|Cap(Inh|Prm|Eff|Bnd|Amb))' /proc/self/status`, shows: `uid=\d+\(alice\)[\s\S]*NoNewPrivs`},
	{module: "pam_umask", last: "session optional pam_umask.so umask=0027 nousergroups", observe: "umask", shows: `(?m)^0027`},
	{module: "pam_env", last: "session required pam_env.so conffile=/run/env.conf",
		setup: `echo 'FROM_PAM DEFAULT="value of @{HOME}"' >/run/env.conf`, observe: `echo "[$FROM_PAM]"`, shows: `\[value of /home/alice\]`},
	{module: "pam_group", last: "auth optional pam_group.so", setup: "echo '*;*;alice;Al0000-2400;games,video' >>/etc/security/group.conf", observe: "id -Gn", shows: `games`},
	{module: "pam_limits, lowering", last: "session required pam_limits.so conf=/run/limits", setup: `cat >/run/limits <<'END'
alice soft core 1000
alice hard core 2000
alice hard fsize 9000000
alice soft nofile 400
alice hard nofile 500
alice soft stack 9000
alice hard stack 10000
alice hard cpu 300
alice soft nproc 200
alice hard nproc 300
alice hard sigpending 333
alice - priority 4
END`,
		observe: "cat /proc/self/limits; nice; echo end", shows: `Max cpu time +18000 +18000[\s\S]*Max stack size +9216000 +10240000[\s\S]*Max core file size +1024000 +2048000[\s\S]*Max open files +400 +500[\s\S]*\n4\n`},
	{module: "pam_limits", needs: "cap_sys_resource", last: "session required pam_limits.so conf=/run/limits", setup: `cat >/run/limits <<'END'
alice soft core 1000
alice hard core 2000
alice hard data 8000000
alice hard fsize 9000000
alice hard memlock 70
alice soft nofile 400
alice hard nofile 500
alice hard rss 7000000
alice soft stack 9000
alice hard stack 10000
alice hard cpu 300
alice soft nproc 200
alice hard nproc 300
alice hard as 9000000
alice hard locks 99
alice hard sigpending 333
alice hard msgqueue 700000
alice hard nice 5
alice hard rtprio 0
alice - priority 4
alice - maxlogins 20
END`,
		observe: "cat /proc/self/limits; nice; cat /proc/self/oom_score_adj", shows: `Max stack size +9216000 +10240000[\s\S]*Max open files +400 +500[\s\S]*Max nice priority +15[\s\S]*\n4\n`},
	{module: "pam_loginuid", observe: `cat /proc/self/loginuid | sed "s/^$(id -u)$/hers/"; echo`, shows: `(?m)^hers$`},
	{module: "pam_lastlog, and what sshd does itself", lastlog: true, program: "lastlog",
		before:  `python3 -c "import struct,os,pwd; f=os.open('/var/log/lastlog',os.O_WRONLY|os.O_CREAT); os.pwrite(f,struct.pack('<i32s256s',1640995200,b'pts/77',b'there'),pwd.getpwnam('alice').pw_uid*292)"`,
		observe: "lastlog -u alice | tail -n 1 | grep -c 127.0.0.1; lastlog -u alice | grep -c there", shows: `Last login: DATE (on pts/N|from there)`},
	{module: "pam_mkhomedir", last: "session required pam_mkhomedir.so umask=0077", setup: "echo from-skel >/etc/skel/hello; mv /home/alice/.bash_profile /etc/skel/; sed -i 's,:/home/alice:,:/home/made:,' /etc/passwd",
		before: "rm -rf /home/made", observe: "pwd; stat -c '%a %U %G' .; cat hello", shows: `/home/made\n700 alice alice\nfrom-skel`},
	{module: "pam_motd", last: "session optional pam_motd.so motd=/run/the-motd", setup: "echo 'message of the day' >/run/the-motd", observe: "true", shows: `message of the day`},
	{module: "pam_mail", last: "session optional pam_mail.so dir=/run/mail standard", setup: "mkdir -p /run/mail; printf 'From x\n\nhi\n' >/run/mail/alice; chown alice /run/mail/alice", observe: `echo "[$MAIL]"`, shows: `You have (new )?mail[\s\S]*\[/run/mail/alice\]`},
	{module: "pam_keyinit", last: "session optional pam_keyinit.so force revoke", observe: `keyctl rdescribe @s | sed "s/;$(id -u);$(id -g);/;hers;/; s/;_ses\\..*/;_ses/"`, shows: `keyring;hers;\w+;_ses`},
	{module: "pam_keyinit and revoke", last: "session optional pam_keyinit.so force revoke", setup: "printf '#!/bin/sh\nsleep 1; keyctl rdescribe @s >/home/alice/after 2>&1\n' >/run/later; chmod 755 /run/later",
		before: "rm -f /home/alice/after", observe: `setsid /run/later >/dev/null 2>&1 </dev/null & sleep 0.2; echo started`, shows: "started",
		after: "for i in $(seq 60); do test -s /home/alice/after && break; sleep 0.1; done; cat /home/alice/after", afterShows: "(?i)revoked"},
	// Not of /tmp, where the programs may be that are tested: the session does not see them then.
	{module: "pam_namespace", last: "session required pam_namespace.so", setup: "mkdir -p -m 1777 /run/common; mkdir -p -m 0 /run/inst; touch /run/common/of-all; echo '/run/common /run/inst/ user root' >/etc/security/namespace.conf",
		observe: `cd /run/common; echo "[$(ls)]"; touch mine-$$; pwd; grep -c ' /run/common ' /proc/self/mountinfo`, before: "rm -rf /run/inst/*", shows: `\[\]\n/run/common\n[12]`,
		after: "ls /run/inst; ls /run/inst/* | sed s/mine-.*/mine/; ls /run/common | grep -c mine || true", afterShows: `alice\nmine\n0`},
	{module: "pam_cap", first: "auth required pam_cap.so", setup: "echo 'cap_kill,cap_chown alice' >/etc/security/capability.conf",
		observe: `grep Cap /proc/self/status | grep -v Bnd`, shows: `CapInh:\t0000000000000021\nCapPrm:\t0000000000000000`},
	{module: "pam_tty_audit", last: "session required pam_tty_audit.so enable=alice log_passwd", setup: "cp /usr/bin/python3 /run/ask && setcap cap_audit_control=ep /run/ask; chmod 755 /run/ask", needs: "cap_audit_control",
		observe: `/run/ask -c 'import socket,struct; s=socket.socket(16,3,9); s.send(struct.pack("IHHII",16,1016,1,1,0)); print(*struct.unpack("II",s.recv(99)[16:24]))'`, shows: `(?m)^1 1$`},
	{module: "pam_exec", last: "session optional pam_exec.so /run/hook", setup: "printf '#!/bin/sh\nenv | grep ^PAM_ | grep -v TTY | sort >/run/hook.$PAM_TYPE\nid -u >>/run/hook.$PAM_TYPE\n' >/run/hook; chmod 755 /run/hook",
		observe: "cat /run/hook.open_session", shows: `PAM_TYPE=open_session\nPAM_USER=alice\n0`},
	{module: "pam_nologin", setup: "echo 'closed until noon' >/etc/nologin", observe: "echo let in", shows: `closed until noon|denied`},
	{module: "pam_access", first: "account required pam_access.so accessfile=/run/access", setup: "echo '-:alice:ALL' >/run/access", observe: "echo let in", shows: `(?i)permission denied|closed|incorrect`},
	{module: "pam_time", first: "account required pam_time.so conffile=/run/time", setup: "echo '*;*;alice;!Al0000-2400' >/run/time", observe: "echo let in", shows: `(?i)permission denied|closed|incorrect`},
	{module: "pam_faillock", first: "auth required pam_faillock.so preauth dir=/run/faillock deny=3 unlock_time=600",
		setup:   `mkdir -p /run/faillock; python3 -c "import struct,time; open('/run/faillock/alice','wb').write(3*struct.pack('<52sHHQ',b'x',0,1,int(time.time())))"`,
		observe: "echo let in", shows: `(?i)locked|denied|incorrect`},
	{module: "pam_mount", start: unpacked, last: "auth optional pam_mount.so\nsession required pam_mount.so",
		setup: `cat >/etc/security/pam_mount.conf.xml <<'END'
<?xml version="1.0" encoding="utf-8" ?>
<pam_mount>
<debug enable="0" />
<volume user="alice" fstype="tmpfs" mountpoint="/home/alice/vault" options="size=1M,mode=755" />
<mkmountpoint enable="1" remove="true" />
</pam_mount>
END`,
		observe: `grep -o ' /home/alice/vault .* - tmpfs' /proc/self/mountinfo | cut -d' ' -f2`, shows: `/home/alice/vault`,
		after: `for i in $(seq 100); do grep -q alice/vault /proc/self/mountinfo || break; sleep 0.1; done; grep -c alice/vault /proc/self/mountinfo || true`, afterShows: "^0$"},
	{module: "pam_krb5", start: kerberos, setup: "usermod -p '*' alice",
		first:   "auth sufficient pam_krb5.so minimum_uid=1000 ccache_dir=/run/caches\nsession optional pam_krb5.so minimum_uid=1000 ccache_dir=/run/caches",
		observe: `klist | sed -nE 's/^.*(principal: |  )//p' | grep @; stat -c '%U %a' "${KRB5CCNAME#FILE:}"; dirname "${KRB5CCNAME#FILE:}"`,
		shows:   `alice@P9AUTH.TEST\nkrbtgt/P9AUTH.TEST@P9AUTH.TEST\nalice 600\n/run/caches`,
		after:   `for i in $(seq 100); do [ "$(ls -A /run/caches)" ] || break; sleep 0.1; done; ls -A /run/caches | wc -l`, afterShows: "^0$"},
	{module: "pam_oath", last: "auth required pam_oath.so usersfile=/run/users.oath window=20 digits=6", setup: "printf 'HOTP alice - 3132333435363738393031323334353637383930\n' >/run/users.oath; chmod 600 /run/users.oath; cp /run/users.oath /run/users.fresh",
		before: "cp /run/users.fresh /run/users.oath", answers: []string{"755224"}, observe: "echo let in", shows: `let in`},
	{module: "pam_google_authenticator", last: "auth required pam_google_authenticator.so secret=/run/ga user=root", setup: ga,
		before: "install -m 400 /run/ga.fresh /run/ga", answers: []string{"12345678"}, observe: "echo let in", shows: `let in`,
		after: "grep -c 12345678 /run/ga || true", afterShows: "^0$"}, // a code for emergencies is good once
	{module: "pam_google_authenticator, a wrong code", last: "auth required pam_google_authenticator.so secret=/run/ga user=root", setup: ga,
		before: "install -m 400 /run/ga.fresh /run/ga", answers: []string{"87654321"}, observe: "echo let in", shows: `(?i)incorrect|denied`},
	{module: "pam_oath, a wrong code", last: "auth required pam_oath.so usersfile=/run/users.oath window=20 digits=6", setup: "printf 'HOTP alice - 3132333435363738393031323334353637383930\n' >/run/users.oath; chmod 600 /run/users.oath",
		answers: []string{"000000"}, observe: "echo let in", shows: `(?i)incorrect|denied`},
}

// unlike are differences between one login and the next.
var unlike = strings.NewReplacer("\r", "")

var unlikely = []struct {
	re *regexp.Regexp
	by string
}{
	{regexp.MustCompile(`\x1b\[[0-9;?]*[A-Za-z]`), ""},
	{regexp.MustCompile(`pts/\d+`), "pts/N"},
	{regexp.MustCompile(`[A-Z][a-z]{2} [A-Z][a-z]{2} +\d+ \d\d:\d\d:\d\d( [A-Z]+)? \d{4}`), "DATE"},
	{regexp.MustCompile(`(?m)^(.*closed by remote host|Connection to .*|Connection closed.*|Connection reset.*|Received disconnect.*|Disconnected.*).*\n`), ""},
	{regexp.MustCompile(`Permission denied \([a-z,-]+\)`), "Permission denied (METHODS)"},
	// Debian's login sets them without a module, see p9auth(7).
	{regexp.MustCompile(`(?m)^(HUSHLOGIN=FALSE|PAM_RHOST=)\n`), ""},
	// The 32nd signal is the C library's own. sshd leaves it as the process has it
	// that started sshd; a grant that is bound gives the user none that is ignored.
	{regexp.MustCompile(`(?m)^SigIgn:\t0000000080000000$`), "SigIgn:\t0000000000000000"},
	// What p9login(1) says more.
	{regexp.MustCompile(`(?m)^login: the account may not log in now(\n|$)`), ""},
	{regexp.MustCompile(`(?m)^\s*\n`), ""},
}

var lastLogin = regexp.MustCompile(`(?m)^Last login: .*\n`)

func (r row) normal(s string) string {
	s = unlike.Replace(s)
	if !r.lastlog {
		s = lastLogin.ReplaceAllString(s, "")
	}
	for _, u := range unlikely {
		s = u.re.ReplaceAllString(s, u.by)
	}
	return strings.TrimSpace(s)
}

func TestModulesAsWithLoginAndSSHD(t *testing.T) {
	for _, r := range rows {
		t.Run(r.module, func(t *testing.T) {
			if r.needs != "" && exec.Command("capsh", "--has-p="+r.needs).Run() != nil {
				t.Skipf("no %s here", r.needs)
			}
			if r.program != "" && exec.Command("sh", "-c", "command -v "+r.program).Run() != nil {
				t.Skipf("no %s here, as in Debian 13", r.program)
			}
			s := newSite(t)
			s.Sh(t, `printf '. /run/observe\nexit\n' >/home/alice/.bash_profile; chmod 644 /home/alice/.bash_profile; rm -f /etc/motd /run/motd.dynamic; : >/etc/motd`)
			s.Sh(t, "cat >/run/observe <<'END'\n"+r.observe+"\nEND")
			for _, service := range []string{"login", "sshd"} {
				s.Sh(t, fmt.Sprintf("{ cat <<'END'\n%s\nEND\ncat /etc/pam.d/%s; cat <<'END'\n%s\nEND\n} >/run/pam; cp /run/pam /etc/pam.d/%s", r.first, service, r.last, service))
			}
			if r.start != nil {
				r.start(t, s)
			}
			if r.setup != "" {
				s.Sh(t, r.setup)
			}
			ways := []struct {
				name string
				run  func(*testing.T, row) string
			}{{"login", s.console("login")}, {"p9auth's login", s.console(s.Bin("login"))}, {"sshd", s.ssh(s.sshd)}, {"sshfront", s.ssh(s.sshfront)}}
			got := make([]string, len(ways))
			for i, w := range ways {
				if r.before != "" {
					s.Sh(t, r.before)
				}
				got[i] = r.normal(w.run(t, r))
				if r.after != "" {
					after := r.normal(s.Sh(t, r.after))
					if !regexp.MustCompile(r.afterShows).MatchString(after) {
						t.Errorf("%s leaves %q, want %s", w.name, after, r.afterShows)
					}
					got[i] += "\n--- afterwards:\n" + after
				}
			}
			for i := 0; i < len(ways); i += 2 {
				if !regexp.MustCompile(r.shows).MatchString(got[i]) {
					t.Errorf("%s shows nothing of the module: %q, want %s", ways[i].name, got[i], r.shows)
				}
				if got[i] != got[i+1] {
					t.Errorf("%s:\n%s\n%s:\n%s", ways[i].name, got[i], ways[i+1].name, got[i+1])
				}
			}
		})
	}
}

// A site is a testbed with Debian's sshd beside ours.
type site struct {
	*testbed.Bed
	sshfront, sshd string // ports
}

func newSite(t *testing.T) *site {
	t.Helper()
	b := testbed.Up(t)
	port, err := os.ReadFile(filepath.Join(b.Dir, "ssh_port"))
	if err != nil {
		t.Fatal(err)
	}
	sshd := b.SSHD(t, "UsePAM yes\nPrintMotd no\nPasswordAuthentication no\nKbdInteractiveAuthentication yes\nHostKey /etc/ssh/ssh_host_ed25519_key\n")
	return &site{b, strings.TrimSpace(string(port)), sshd.Port}
}

// console logs alice in on a terminal and returns what she sees after the
// password.
func (s *site) console(program string) func(*testing.T, row) string {
	return func(t *testing.T, r row) string {
		t.Helper()
		term := s.Start(t, program, "--", "alice")
		term.Expect(`Password: $|login: $`) // the latter: refused before
		if strings.HasSuffix(term.Screen(), "login: ") {
			term.Hangup()
			term.Wait()
			return refusal(term.Screen())
		}
		term.Send(password + "\n")
		for _, a := range r.answers {
			term.Expect(`: $`)
			term.Send(a + "\n")
		}
		done := make(chan struct{})
		go func() { term.Wait(); close(done) }()
		for {
			select {
			case <-done:
				last := ""
				for last != term.Screen() { // the last of it may be under way
					last = term.Screen()
					time.Sleep(100 * time.Millisecond)
				}
				return last
			case <-time.After(50 * time.Millisecond):
				if strings.HasSuffix(term.Screen(), "login: ") { // refused, and asks again
					term.Hangup()
					<-done
					return refusal(term.Screen())
				}
			}
		}
	}
}

// refusal is a screen without the prompt that asks for another name, which
// begins with the machine's.
func refusal(screen string) string {
	if i := strings.LastIndexByte(strings.TrimRight(screen, "\r\n"), '\n'); i >= 0 {
		screen = screen[:i]
	}
	return screen
}

// ssh logs alice in by keyboard-interactive.
func (s *site) ssh(port string) func(*testing.T, row) string {
	return func(t *testing.T, r row) string {
		t.Helper()
		ask := filepath.Join(t.TempDir(), "ask")
		script := "#!/bin/sh\ncase $1 in *OATH*|*erification*) echo " + strings.Join(r.answers, " ") + " ;; *assword*) echo " + password + " ;; esac\n"
		if err := os.WriteFile(ask, []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
		c := exec.Command("timeout", "60", "ssh", "-tt", "-F", "none", "-p", port, "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR",
			"-o", "PreferredAuthentications=keyboard-interactive", "-o", "NumberOfPasswordPrompts=1", "alice@127.0.0.1")
		c.Env = append(os.Environ(), "SSH_ASKPASS="+ask, "SSH_ASKPASS_REQUIRE=force")
		out, _ := c.CombinedOutput()
		return string(out)
	}
}
