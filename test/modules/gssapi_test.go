package modules

import (
	"flag"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"p9auth/test/testbed"
)

// A realm is a testbed in which people have Kerberos tickets, and both servers take them.
type realm struct {
	*site
	host string // the machine's name, whose key is in /etc/krb5.keytab
	sshd *testbed.SSHD
}

const gssConf = `
UsePAM yes
PrintMotd no
PrintLastLog no
PasswordAuthentication no
KbdInteractiveAuthentication yes
HostKey /etc/ssh/ssh_host_ed25519_key
GSSAPIAuthentication yes
ExposeAuthInfo yes
LogLevel VERBOSE
Subsystem sftp internal-sftp
`

func newRealm(t *testing.T, more string) *realm {
	t.Helper()
	s := newSite(t)
	kerberos(t, s)
	host := s.HostKeytab(t)
	s.Sh(t, `printf '#!/bin/sh\necho `+password+`\n' >/run/ask; chmod 755 /run/ask`)
	conf := gssConf + more
	s.Configure(t, "PerSourcePenalties no\n"+conf)
	sshd := s.SSHD(t, conf)
	return &realm{s, host, sshd}
}

// A visit is what somebody with tickets tries at both servers.
type visit struct {
	name    string
	tickets string // a script that makes the cache
	before  string
	options string // of ssh
	user    string // alice if it is empty
	command string
	shows   string // by both
	after   string // what it prints is compared, too
	log     string // lines of both servers
	ours    string // a line of factotum alone
	always  bool   // and not only with -all
}

var all = flag.Bool("all", false, "make each visit with a ticket")

const ticketOf = "echo " + password + " | kinit -f %s >/dev/null"

var (
	ticket  = fmt.Sprintf(ticketOf, "alice")
	ofBob   = fmt.Sprintf(ticketOf, "bob")
	byGSS   = "-o PreferredAuthentications=gssapi-with-mic"
	either  = "-o PreferredAuthentications=gssapi-with-mic,keyboard-interactive"
	denied  = `Permission denied`
	granted = `Accepted gssapi-with-mic for alice from 127.0.0.1 port \d+ ssh2: alice@P9AUTH.TEST`
)

var visits = []visit{
	{name: "a ticket is enough", tickets: ticket, options: byGSS, command: `id -un; cat $SSH_USER_AUTH; env | grep -c KRB5CCNAME`,
		shows: `alice\ngssapi-with-mic alice@P9AUTH.TEST\n0\n`, log: `Authorized to alice, krb5 principal alice@P9AUTH.TEST \(krb5_kuserok\)[\s\S]*` + granted},
	{name: "delegation", always: true, tickets: ticket, options: byGSS + " -K",
		command: `klist | sed -nE 's/^.*(principal: |  )//p' | grep @; stat -c '%U %G %a' "${KRB5CCNAME#FILE:}"; echo "$KRB5CCNAME" | sed "s/$(id -u)_.*/UID_X/"; kvno -q host/$(hostname) && echo usable`,
		shows:   `alice@P9AUTH.TEST\nkrbtgt/P9AUTH.TEST@P9AUTH.TEST\nalice alice 600\nFILE:/tmp/krb5cc_UID_X\nusable`,
		after:   `for i in $(seq 100); do ls /tmp/krb5cc_* >/dev/null 2>&1 || break; sleep 0.1; done; ls /tmp/krb5cc_* 2>/dev/null | wc -l`, log: granted},
	{name: "another's ticket", always: true, tickets: ofBob, options: byGSS, command: "id -un", shows: denied},
	{name: "another's ticket that .k5login lists", always: true, tickets: ofBob, before: "echo bob@P9AUTH.TEST >/home/alice/.k5login; chown alice /home/alice/.k5login", options: byGSS,
		command: "id -un; cat $SSH_USER_AUTH", shows: `alice\ngssapi-with-mic bob@P9AUTH.TEST`, log: `Accepted gssapi-with-mic for alice from 127.0.0.1 port \d+ ssh2: bob@P9AUTH.TEST`},
	{name: "the user's own ticket that .k5login does not list", tickets: ticket, before: "echo bob@P9AUTH.TEST >/home/alice/.k5login; chown alice /home/alice/.k5login", options: byGSS, command: "id -un", shows: denied},
	{name: "a .k5login of somebody else", tickets: ofBob, before: "echo bob@P9AUTH.TEST >/home/alice/.k5login; chown bob /home/alice/.k5login", options: byGSS, command: "id -un", shows: denied},
	{name: "no ticket", tickets: "true", options: either, command: "id -un; cat $SSH_USER_AUTH", shows: `alice\nkeyboard-interactive`},
	{name: "an expired ticket", tickets: strings.Replace(ticket, "-f", "-l 1s -f", 1) + "; sleep 2", options: either, command: "id -un; cat $SSH_USER_AUTH", shows: `alice\nkeyboard-interactive`},
	{name: "a user who does not exist", tickets: ticket, ours: `gssapi-with-mic refused.*alice@P9AUTH.TEST.*does not exist`, options: byGSS, user: "nobody-here", command: "id -un", shows: denied},
	{name: "root without leave", tickets: ticket, options: byGSS, user: "root", command: "id -un", shows: denied},
	{name: "root with leave", tickets: ticket, before: "echo alice@P9AUTH.TEST >/root/.k5login", options: byGSS, user: "root", command: "id -un", shows: `^root`,
		log: `Accepted gssapi-with-mic for root from 127.0.0.1 port \d+ ssh2: alice@P9AUTH.TEST`},
	{name: "no keytab", always: true, ours: `gssapi-with-mic refused.*keytab`, tickets: ticket, before: "mv /etc/krb5.keytab /etc/krb5.away", options: either, command: "id -un; cat $SSH_USER_AUTH", shows: `alice\nkeyboard-interactive`,
		after: "mv /etc/krb5.away /etc/krb5.keytab"},
}

// visit makes a visit to the server at a port.
func (r *realm) visit(t *testing.T, v visit, port string) string {
	t.Helper()
	user := v.user
	if user == "" {
		user = "alice"
	}
	r.Sh(t, "rm -f /root/.k5login /home/alice/.k5login /run/cc; "+v.before)
	c := r.Command("sh", "-c", "export KRB5CCNAME=/run/cc SSH_ASKPASS=/run/ask SSH_ASKPASS_REQUIRE=force; "+v.tickets+"\n"+
		"exec timeout 60 ssh -F none -p "+port+" -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -o GSSAPIAuthentication=yes "+
		v.options+" "+user+"@"+r.host+` "$0"`, v.command)
	out, _ := c.CombinedOutput()
	s := regexp.MustCompile(`\([a-z,-]*\)`).ReplaceAllString(string(out), "(METHODS)")
	s = strings.ReplaceAll(s, " port "+port, " port PORT")
	if v.after != "" {
		s += "--- afterwards:\n" + r.Sh(t, v.after)
	}
	return s
}

func TestATicketLogsInAsWithSSHD(t *testing.T) {
	r := newRealm(t, "")
	r.compare(t, visits)
	t.Run("files", r.files)
	t.Run("a worker that dies", r.workerDies)
	if *all {
		t.Run("settings of a user", settingsOfAUser)
		t.Run("one try", oneTry)
	}
}

// compare makes visits to both servers.
func (r *realm) compare(t *testing.T, visits []visit) {
	for _, v := range visits {
		if !v.always && !*all {
			continue
		}
		t.Run(v.name, func(t *testing.T) {
			before, sshdBefore := len(r.Log()), len(r.sshd.Log.String())
			want, got := r.visit(t, v, r.sshd.Port), r.visit(t, v, r.sshfront)
			if want != got {
				t.Errorf("sshd: %s\nsshfront: %s", want, got)
			}
			if !regexp.MustCompile(v.shows).MatchString(want) {
				t.Errorf("sshd shows %q, want %s", want, v.shows)
			}
			if v.ours != "" && !testbed.Eventually(func() bool { return regexp.MustCompile(v.ours).MatchString(r.Log()[before:]) }) {
				t.Errorf("our log has no %s: %s", v.ours, r.Log()[before:])
			}
			if v.log == "" {
				return
			}
			re := regexp.MustCompile(v.log)
			if log := r.sshd.Log.String()[sshdBefore:]; !re.MatchString(log) {
				t.Errorf("sshd's log has no %s: %s", v.log, log)
			}
			if !testbed.Eventually(func() bool { return re.MatchString(r.Log()[before:]) }) {
				t.Errorf("our log has no %s: %s", v.log, r.Log()[before:])
			}
		})
	}
}

func settingsOfAUser(t *testing.T) {
	newRealm(t, `GSSAPICleanupCredentials no
GSSAPIStrictAcceptorCheck no
Match User alice
	AuthenticationMethods gssapi-with-mic,keyboard-interactive
Match User bob
	GSSAPIAuthentication no
`).compare(t, []visit{
		{name: "a ticket and a password", always: true, tickets: ticket, options: either, command: "id -un; cat $SSH_USER_AUTH", shows: `alice\ngssapi-with-mic alice@P9AUTH.TEST\nkeyboard-interactive/pam`,
			log: `Partial gssapi-with-mic for alice from 127.0.0.1 port \d+ ssh2: alice@P9AUTH.TEST`},
		{name: "a ticket alone", always: true, tickets: ticket, options: byGSS, command: "id -un", shows: denied},
		{name: "another's ticket and a password", always: true, tickets: ofBob, options: either, command: "id -un", shows: denied},
		{name: "credentials that stay", always: true, tickets: ticket, options: either + " -K", command: "true", shows: `^--- afterwards:\n1`,
			after: "sleep 1; ls /tmp/krb5cc_* | wc -l; rm -f /tmp/krb5cc_*"},
		{name: "a user whom it is off for", always: true, user: "bob", tickets: ofBob, options: byGSS, command: "id -un", shows: denied},
	})
}

// giveUp gives a context of GSSAPI up, and then takes a password.
const giveUp = `
import paramiko, socket, sys, threading
t = paramiko.Transport(socket.create_connection(("127.0.0.1", int(sys.argv[1]))))
t.start_client(timeout=30)
try: t.auth_none("alice")
except paramiko.BadAuthenticationType: pass
m = paramiko.message.Message()
m.add_byte(b"\x32")
for s in "alice", "ssh-connection", "gssapi-with-mic": m.add_string(s)
m.add_int(1)
m.add_string(b"\x06\x09\x2a\x86\x48\x86\xf7\x12\x01\x02\x02")
answered = threading.Event()
t._handler_table[60] = lambda *a: answered.set()
t._send_message(m)
print(answered.wait(30))
del t._handler_table[60]
print(t.auth_interactive("alice", lambda *a: ["` + password + `"] * len(a[2])))
`

// oneTry: a context that the client gives up is no failed attempt.
func oneTry(t *testing.T) {
	r := newRealm(t, "MaxAuthTries 1\n")
	for name, port := range map[string]string{"sshd": r.sshd.Port, "sshfront": r.sshfront} {
		out, err := r.Command("timeout", "60", "/usr/bin/python3", "-c", giveUp, port).CombinedOutput()
		if err != nil || string(out) != "True\n[]\n" {
			t.Errorf("%s: %v: %s", name, err, out)
		}
	}
	r.compare(t, []visit{{name: "another's ticket", always: true, tickets: ofBob, options: either, command: "id -un", shows: `Too many authentication failures`}})
}

// workerDies: it leaves the session to another one, which removes the credentials.
func (r *realm) workerDies(t *testing.T) {
	done := make(chan string)
	go func() {
		done <- r.visit(t, visit{tickets: ticket, options: byGSS + " -K", command: "touch /tmp/in; while [ -e /tmp/in ]; do sleep 0.1; done; klist -s && echo still there"}, r.sshfront)
	}()
	r.Sh(t, "for i in $(seq 300); do [ -e /tmp/in ] && break; sleep 0.1; done; ls /tmp/krb5cc_*")
	for _, pid := range r.Pids("factotum-pam") {
		testbed.Kill(t, pid)
	}
	r.Sh(t, "rm /tmp/in")
	if out := <-done; out != "still there\n" {
		t.Errorf("the session: %s", out)
	}
	r.WantLog(t, "another takes over")
	if out := r.Sh(t, "for i in $(seq 300); do ls /tmp/krb5cc_* >/dev/null 2>&1 || break; sleep 0.1; done; ls /tmp | grep krb5cc_ || true"); out != "" {
		t.Errorf("left: %s", out)
	}
}

// files go by sftp.
func (r *realm) files(t *testing.T) {
	for _, port := range []string{r.sshd.Port, r.sshfront} {
		out := r.Sh(t, "export KRB5CCNAME=/run/cc; "+ticket+"; cd /run; echo hello >up; printf 'put up\\nget up down\\npwd\\n' | timeout 60 sftp -F none -b - -P "+port+
			" -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -o GSSAPIAuthentication=yes "+byGSS+" alice@"+r.host+" 2>&1; cat down; stat -c %U /home/alice/up; rm -f down /home/alice/up")
		if !strings.HasSuffix(out, "/home/alice\nhello\nalice") {
			t.Errorf("port %s: %s", port, out)
		}
	}
}
