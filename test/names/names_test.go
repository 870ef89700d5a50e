package names

import (
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"p9auth/test/testbed"
)

// typed are names and where the NSS module leads them: ALICE is alice's in a directory
// that minds no case; carol's account has the name of its domain before it.
const (
	account = "EX+carol"
	mapping = "ALICE alice\nAlice alice\ncarol " + account + "\n"
)

// base is what both servers have before the blocks of the configurations.
const base = `UsePAM yes
LogLevel INFO
PrintMotd no
PrintLastLog no
PasswordAuthentication yes
KbdInteractiveAuthentication yes
MaxStartups 100
AuthorizedKeysFile /etc/p9/keys/%u
`

// A config is a block that holds for the addresses of one network, 127.N.0.0/16.
type config struct {
	match string // a second condition
	lines string
}

var configs = []config{
	{"", ""},
	{"", "DenyUsers alice"},
	{"", "DenyUsers ALICE"},
	{"", "DenyUsers " + account},
	{"", "DenyUsers carol"},
	{"", "AllowUsers alice " + account},
	{"", "AllowUsers ALICE carol"},
	{"", "AllowUsers alice@127.*"},
	{"", "AllowGroups wizards"},
	{"", "DenyGroups wizards"},
	{"User alice", "ForceCommand echo matched"},
	{"User ALICE", "ForceCommand echo matched"},
	{"User carol", "ForceCommand echo matched"},
	{"User " + account, "ForceCommand echo matched"},
	{"User !ALICE,*", "ForceCommand echo matched"},
	{"Group wizards", "ForceCommand echo matched"},
	{"", "AuthorizedKeysFile /home/%u/.ssh/authorized_keys"},
	{"", "AuthorizedKeysFile none\nAuthorizedKeysCommand /etc/p9/command %u\nAuthorizedKeysCommandUser nobody"},
	{"", "AuthorizedPrincipalsFile /etc/p9/principals/%u"},
}

// names are what is typed.
var names = []string{"alice", "ALICE", "carol", account, "alice:style", "ALICE:style", "alice:", ":alice", "mallory", "MALLORY"}

// A way is a method and what it offers.
type way struct {
	name string
	auth []ssh.AuthMethod
}

// A pair is a testbed with our server and Debian's sshd, and the NSS module in both.
type pair struct {
	*testbed.Bed
	ports [2]string // ours, sshd's
	sshd  *testbed.Log
}

// build compiles a module of testdata into the testbed.
func build(t *testing.T, b *testbed.Bed, source, object string, flags ...string) string {
	t.Helper()
	to := filepath.Join(b.Dir, "modules", object)
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := exec.LookPath("gcc"); err != nil {
		t.Skip(err)
	}
	argv := append([]string{"-shared", "-fPIC", "-Wall", "-Werror", "-o", to, filepath.Join("testdata", source)}, flags...)
	if out, err := exec.Command("gcc", argv...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", source, err, out)
	}
	return to
}

// nss puts the NSS module and its names into the testbed.
func nss(t *testing.T, b *testbed.Bed) {
	t.Helper()
	build(t, b, "nss.c", "libnss_names.so.2")
	b.Write(t, "/etc/names.map", mapping)
	b.Sh(t, `useradd --badname -M -d /home/carol `+account+` 2>/dev/null || useradd -M -d /home/carol carol && sed -i 's/^carol:/`+account+`:/' /etc/passwd /etc/shadow /etc/group
grep -q '^`+account+`:' /etc/passwd
mkdir /home/carol; chown `+account+`: /home/carol
printf '%s\n' '`+account+`:open-sesame' | chpasswd -c SHA512 -s 1000
usermod -a -G wizards `+account+` || sed -i 's/^wizards:.*/&,`+account+`/' /etc/group
sed -i -E 's/^(passwd|shadow):.*/\1: files names/' /etc/nsswitch.conf
grep -q '^shadow:' /etc/nsswitch.conf || echo 'shadow: files names' >>/etc/nsswitch.conf
echo `+b.Dir+`/modules >/etc/ld.so.conf.d/names.conf; ldconfig -X
[ "$(getent passwd ALICE | cut -d: -f1)" = alice ]
[ "$(getent passwd carol | cut -d: -f1)" = `+account+` ]`)
}

func up(t *testing.T, lines string) *pair {
	t.Helper()
	if _, err := exec.LookPath("/usr/sbin/sshd"); err != nil {
		t.Skip(err)
	}
	b := testbed.Up(t)
	nss(t, b)
	port, err := os.ReadFile(filepath.Join(b.Dir, "ssh_port"))
	if err != nil {
		t.Fatal(err)
	}
	p := &pair{Bed: b, ports: [2]string{strings.TrimSpace(string(port))}}
	b.Sh(t, "mkdir -p /etc/p9")
	b.Write(t, "/etc/pam.d/sshd", "auth required pam_unix.so nodelay\naccount required pam_unix.so\nsession required pam_unix.so\n")
	p.configure(t, lines)
	sshd := b.SSHD(t, base+lines)
	p.ports[1], p.sshd = sshd.Port, &sshd.Log
	return p
}

// configure has our servers read their configuration.
func (p *pair) configure(t *testing.T, lines string) {
	t.Helper()
	p.Configure(t, "PerSourcePenalties no\n"+base+lines)
}

func newSigner(t *testing.T) ssh.Signer {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func certificate(t *testing.T, ca ssh.Signer, principal string) ssh.Signer {
	t.Helper()
	key := newSigner(t)
	cert := &ssh.Certificate{Key: key.PublicKey(), CertType: ssh.UserCert, KeyId: principal, ValidPrincipals: []string{principal}, ValidBefore: ssh.CertTimeInfinity,
		Permissions: ssh.Permissions{Extensions: map[string]string{"permit-pty": ""}}}
	if err := cert.SignCert(rand.Reader, ca); err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewCertSigner(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// seen shows who somebody is after a login.
const seen = "echo $USER $LOGNAME $HOME $(id -un) $(id -Gn)"

// login is what a client sees that logs in from an address.
func login(port, from, user string, auth []ssh.AuthMethod) string {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: testbed.Patience}
	c, err := d.Dial("tcp", "127.0.0.1:"+port)
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(60 * time.Second))
	conn, channels, requests, err := ssh.NewClientConn(c, "", &ssh.ClientConfig{User: user, Auth: auth, HostKeyCallback: ssh.InsecureIgnoreHostKey()})
	if err != nil {
		if strings.Contains(err.Error(), "unable to authenticate") {
			return "permission denied"
		}
		return err.Error()
	}
	client := ssh.NewClient(conn, channels, requests)
	defer client.Close()
	s, err := client.NewSession()
	if err != nil {
		return err.Error()
	}
	out, err := s.Output(seen)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(out))
}

// told are the lines of a log that name users, from an address.
var told = regexp.MustCompile(`(?:Accepted \S+ for|Invalid user|User \S+ from|Failed password for|PAM: [^"]* for [^"]* from).*`)

var address = regexp.MustCompile(`127(\.\d+){3}`)

// details are what differs from one login to the next.
var details = regexp.MustCompile(`( port \d+)|( ssh2:.*)|(")|(^PAM: .*? for)`)

// lines are what a log tells of each address.
func lines(log string) map[string]string {
	all := map[string][]string{}
	for line := range strings.Lines(log) {
		m, _, _ := strings.Cut(told.FindString(strings.TrimSpace(line)), " conversation=")
		if from := address.FindString(m); from != "" {
			m = strings.TrimSpace(details.ReplaceAllString(m, ""))
			all[from] = append(all[from], m)
		}
	}
	joined := map[string]string{}
	for from, l := range all {
		slices.Sort(l)
		joined[from] = strings.Join(slices.Compact(l), "\n")
	}
	return joined
}

// A row is a login by both servers.
type row struct {
	name, what, from string
	got              [2]string
}

// endsSSHD reports whether sshd broke off. Its monitor and its other half do not agree
// on the name that a client signs where the style is empty: "wrong user name passed
// to monitor" (monitor.c, monitor_valid_userblob).
func (r *row) endsSSHD() bool {
	return strings.HasSuffix(r.name, ":") && strings.HasSuffix(r.got[1], "EOF")
}

// TestANameMeansWhatItMeansToSSHD compares each name by each configuration and
// method: who gets in, as whom, and what the log says.
func TestANameMeansWhatItMeansToSSHD(t *testing.T) {
	var blocks strings.Builder
	for i, c := range configs {
		match := fmt.Sprintf("Match Address 127.%d.0.0/16", i+1)
		if c.match != "" {
			match += " " + c.match
		}
		fmt.Fprintf(&blocks, "%s\n%s\n", match, c.lines)
	}
	key, ca := newSigner(t), newSigner(t)
	p := up(t, "TrustedUserCAKeys /etc/p9/ca\n"+strings.ReplaceAll(blocks.String(), "\n\n", "\nMaxSessions 5\n"))
	line := func(s ssh.Signer) string { return string(ssh.MarshalAuthorizedKey(s.PublicKey())) }
	p.Write(t, "/etc/p9/ca", line(ca))
	p.Sh(t, "mkdir /etc/p9/keys /etc/p9/principals /home/carol/.ssh; chown "+account+": /home/carol/.ssh")
	for _, name := range []string{"alice", account} {
		p.Write(t, "/etc/p9/keys/"+name, line(key))
		p.Write(t, "/etc/p9/principals/"+name, name+"-principal\n")
	}
	p.Write(t, "/home/alice/.ssh/authorized_keys", line(key))
	p.Write(t, "/etc/p9/command", "#!/bin/sh\nexec cat \"/etc/p9/keys/$1\"\n")
	p.Sh(t, "chmod 755 /etc/p9/command")
	ways := []way{
		{"publickey", []ssh.AuthMethod{ssh.PublicKeys(key)}},
		{"password", []ssh.AuthMethod{ssh.Password(testbed.Password)}},
		{"keyboard-interactive", []ssh.AuthMethod{ssh.KeyboardInteractive(func(_, _ string, q []string, _ []bool) ([]string, error) {
			return slices.Repeat([]string{testbed.Password}, len(q)), nil
		})}},
	}
	for _, principal := range []string{"alice", "ALICE", account, "carol", "alice-principal"} {
		ways = append(ways, way{"a certificate of " + principal, []ssh.AuthMethod{ssh.PublicKeys(certificate(t, ca, principal))}})
	}

	// All by a key; the other ways where the configuration is about users or about them.
	var rows []*row
	var wait sync.WaitGroup
	slots := make(chan struct{}, 6)
	for i, c := range configs {
		for j, name := range names {
			for k, w := range ways {
				if w.name != "publickey" && i != 0 && i != 1 && i != 6 && i != len(configs)-1 {
					continue
				}
				r := &row{name: name, what: fmt.Sprintf("%s %q: %q by %s", c.match, c.lines, name, w.name), from: fmt.Sprintf("127.%d.%d.%d", i+1, j+1, k+1)}
				rows = append(rows, r)
				wait.Go(func() {
					slots <- struct{}{}
					defer func() { <-slots }()
					for s, port := range p.ports {
						r.got[s] = login(port, r.from, name, w.auth)
					}
				})
			}
		}
	}
	wait.Wait()
	in := map[string]int{}
	same := 0
	for _, r := range rows {
		if r.got[0] != r.got[1] && !r.endsSSHD() {
			t.Errorf("%s: %q, and by sshd %q", r.what, r.got[0], r.got[1])
		} else {
			same++
		}
		in[r.got[0]]++
	}
	// The last lines may be under way.
	var ours, theirs map[string]string
	for end := time.Now().Add(3 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		ours, theirs = lines(p.Log()), lines(p.sshd.String())
		if maps.Equal(ours, theirs) || time.Now().After(end) {
			break
		}
	}
	for _, r := range rows {
		if ours[r.from] != theirs[r.from] && !r.endsSSHD() {
			t.Errorf("%s: the log has\n%s\nand sshd's\n%s", r.what, ours[r.from], theirs[r.from])
		}
	}
	// What shows that the table compares something.
	for _, want := range []string{
		"alice alice /home/alice alice alice wizards", account + " " + account + " /home/carol " + account + " " + account + " wizards", "permission denied", "matched",
	} {
		if in[want] < 10 {
			t.Errorf("%q was seen %d times only: %v", want, in[want], in)
		}
	}
	t.Logf("%d logins by each server, %d equal", len(rows), same)
}
