package ssh

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"p9auth/capproto"
	"p9auth/test/testbed"
)

// A gssClient is testdata/gssclient.c, with alice's ticket.
type gssClient struct {
	t    *testing.T
	in   io.Writer
	out  *bufio.Reader
	init []byte // its first token
}

func (b *bed) gssClient(t *testing.T, host string) *gssClient {
	t.Helper()
	cmd := b.Command("env", "KRB5CCNAME=/run/cc", "/run/gssclient", "host@"+host)
	in, out := testbed.Pipes(t, cmd)
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	c := &gssClient{t: t, in: in, out: out}
	c.init = c.line()
	return c
}

func (c *gssClient) line() []byte {
	c.t.Helper()
	l, err := c.out.ReadString('\n')
	if err != nil {
		c.t.Fatal(err)
	}
	b, err := hex.DecodeString(strings.TrimSpace(l))
	if err != nil {
		c.t.Fatal(err)
	}
	return b
}

// accept takes the server's token.
func (c *gssClient) accept(token []byte) {
	fmt.Fprintf(c.in, "t %x\n", token)
	c.line()
}

func (c *gssClient) mic(message []byte) []byte {
	fmt.Fprintf(c.in, "m %x\n", message)
	return c.line()
}

// A micClaim is what RFC 4462, section 3.5, has the client make its MIC over.
type micClaim struct {
	Session []byte
	Type    byte
	User    string
	Service string
	Method  string
}

// maxToken is the most bytes that a token may have.
const maxToken = 64 << 10

// gss begins gssapi-with-mic in a conversation and sends a token.
func (k *talk) gss(user string, token []byte) capproto.Msg {
	k.t.Helper()
	k.want("ok", "auth", "user", user, "method", "gssapi-with-mic")
	return k.ask("token", "data", capproto.B64(token))
}

// establish establishes the context of a client, for a user.
func (k *talk) establish(user string, c *gssClient) {
	k.t.Helper()
	m := k.gss(user, c.init)
	token, err := capproto.UnB64(m.Get("data"))
	if m.Verb != capproto.VerbOK || m.Get("complete") != "yes" || err != nil || len(token) == 0 {
		k.t.Fatalf("the client's token: %s", show(m))
	}
	c.accept(token)
}

func (k *talk) sendMIC(mic []byte) capproto.Msg {
	k.t.Helper()
	return k.ask("mic", "data", capproto.B64(mic))
}

func (k *talk) micClaim(user string) micClaim {
	return micClaim{k.sid, 50, user, "ssh-connection", "gssapi-with-mic"}
}

// realm makes this machine a host of a realm, in which alice has a ticket.
func (b *bed) realm(t *testing.T) (host string) {
	t.Helper()
	client := filepath.Join(t.TempDir(), "gssclient")
	if out, err := exec.Command("gcc", "-Wall", "-Werror", "-o", client, "testdata/gssclient.c", "-lgssapi_krb5").CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v: %s", err, out)
	}
	b.Kerberos(t, password, "alice", "bob")
	host = b.HostKeytab(t)
	b.Sh(t, "cp "+client+" /run/gssclient; KRB5CCNAME=/run/cc kinit alice >/dev/null <<'END'\n"+password+"\nEND")
	b.configure(t, patient+"GSSAPIAuthentication yes\n")
	return host
}

// TestASecurityContextInTheHandsOfAnAttacker has one machine for both.
func TestASecurityContextInTheHandsOfAnAttacker(t *testing.T) {
	b := up(t)
	host := b.realm(t)
	t.Run("the MIC is good for one session only", func(t *testing.T) { b.contexts(t, host) })
	t.Run("an acceptor has no rights", func(t *testing.T) { b.acceptor(t, host) })
	t.Run("acceptors are not to be had without end", b.manyAcceptors)
}

// contexts lies about security contexts. In the end the true proof
// is given, so that each lie is known to differ in nothing else.
func (b *bed) contexts(t *testing.T, host string) {
	b.sshfront = b.relay(t, "_sshfront")
	given := b.Logged("capability given")

	// A login that was good, and what an attacker has seen of it.
	old, oldClient := b.sshfront.connect(t), b.gssClient(t, host)
	old.establish("alice", oldClient)
	oldMIC := oldClient.mic(ssh.Marshal(old.micClaim("alice")))
	if m := old.sendMIC(oldMIC); m.Verb != capproto.VerbDone {
		t.Fatalf("the true proof: %s", show(m))
	}
	b.WantLog(t, `Accepted gssapi-with-mic for alice from 127.0.0.1 port \d+ ssh2: alice@P9AUTH.TEST`)

	k := b.sshfront.connect(t)
	refused := func(what string, m capproto.Msg) {
		t.Helper()
		if m.Verb != capproto.VerbError || m.Get("code") != capproto.CodeDenied {
			t.Errorf("%s: %s", what, show(m))
		}
	}
	for what, change := range map[string]func(*micClaim){
		"another session":                     func(c *micClaim) { c.Session = random(32) },
		"the session of another conversation": func(c *micClaim) { c.Session = old.sid },
		"an empty session":                    func(c *micClaim) { c.Session = nil },
		"a longer session":                    func(c *micClaim) { c.Session = append(slices.Clone(c.Session), 0) },
		"another message":                     func(c *micClaim) { c.Type = 51 },
		"another user":                        func(c *micClaim) { c.User = "bob" },
		"another service":                     func(c *micClaim) { c.Service = "ssh-userauth" },
		"another method":                      func(c *micClaim) { c.Method = "gssapi-keyex" },
	} {
		c := b.gssClient(t, host)
		k.establish("alice", c)
		claim := k.micClaim("alice")
		change(&claim)
		refused("a MIC over "+what, k.sendMIC(c.mic(ssh.Marshal(claim))))
	}
	// What was seen of the login before: its token establishes a context, of which nobody
	// but alice has the key.
	k.gss("alice", oldClient.init)
	refused("a login of before, once more", k.sendMIC(oldMIC))
	k.gss("alice", oldClient.init)
	refused("its MIC over this session, by its own client", k.sendMIC(random(len(oldMIC))))

	mine := func() []byte { return ssh.Marshal(k.micClaim("alice")) }
	c, other := b.gssClient(t, host), b.gssClient(t, host)
	k.establish("alice", c)
	mic := c.mic(mine())
	k.establish("alice", other)
	refused("a MIC of another context", k.sendMIC(mic))
	k.establish("alice", b.gssClient(t, host))
	refused("no MIC", k.sendMIC(nil))
	c = b.gssClient(t, host)
	k.establish("alice", c)
	mic = c.mic(mine())
	mic[len(mic)-1] ^= 1
	refused("a MIC with another bit", k.sendMIC(mic))

	first := b.gssClient(t, host).init
	for what, token := range map[string][]byte{
		"nonsense": random(100), "nothing": nil, "half a token": first[:len(first)/2], "a token with a byte more": append(slices.Clone(first), 0),
		"a token of SPNEGO": append([]byte("\x60\x0a\x06\x06\x2b\x06\x01\x05\x05\x02"), random(2)...), "a changed token": append(slices.Clone(first[:len(first)-1]), first[len(first)-1]^1),
	} {
		refused("token: "+what, k.gss("alice", token))
	}
	// In pieces, and too much of them.
	k.want("ok", "auth", "user", "alice", "method", "gssapi-with-mic")
	for n := 0; n+8<<10 <= maxToken; n += 8 << 10 {
		k.want("ok", "token", "data", capproto.B64(random(8<<10)), "more", "yes")
	}
	refused("a token that is too long", k.ask("token", "data", capproto.B64(random(1))))
	// Another proof in its place, and no contexts without end.
	k.want("ok", "auth", "user", "alice", "method", "gssapi-with-mic")
	refused("a wrong password in its place", k.password("alice", "wrong"))
	if m := k.ask("attr"); m.Get("state") != "ssh" {
		t.Errorf("state %s", m.Get("state"))
	}

	// Out of turn.
	for what, f := range map[string]func(k *talk) capproto.Msg{
		"a token before the method": func(k *talk) capproto.Msg { return k.ask("token", "data", capproto.B64(first)) },
		"a MIC before the method":   func(k *talk) capproto.Msg { return k.ask("mic", "data", capproto.B64(oldMIC)) },
		"a MIC before a token": func(k *talk) capproto.Msg {
			k.want("ok", "auth", "user", "alice", "method", "gssapi-with-mic")
			return k.sendMIC(oldMIC)
		},
		"a token after the last": func(k *talk) capproto.Msg {
			k.gss("alice", b.gssClient(t, host).init)
			return k.ask("token", "data", capproto.B64(first))
		},
		"an empty piece": func(k *talk) capproto.Msg {
			k.want("ok", "auth", "user", "alice", "method", "gssapi-with-mic")
			return k.ask("token", "data", "", "more", "yes")
		},
		"a capability meanwhile": func(k *talk) capproto.Msg {
			k.gss("alice", b.gssClient(t, host).init)
			return k.ask("authinfo")
		},
		"a handover meanwhile": func(k *talk) capproto.Msg {
			k.gss("alice", b.gssClient(t, host).init)
			return k.ask("ticket")
		},
	} {
		x := b.sshfront.connect(t)
		x.t = t
		x.wantEnd(what, f(x), capproto.CodeProtocol)
	}

	// Others than alice, by alice's own context.
	for _, user := range []string{"bob", "root", "mallory"} {
		x, c := b.sshfront.connect(t), b.gssClient(t, host)
		x.establish(user, c)
		refused("alice as "+user, x.sendMIC(c.mic(ssh.Marshal(x.micClaim(user)))))
		x.wantNothing()
	}

	c = b.gssClient(t, host)
	k.establish("alice", c)
	if m := k.sendMIC(c.mic(mine())); m.Verb != capproto.VerbDone {
		t.Errorf("the true proof: %s", show(m))
	}
	if n := b.Logged("capability given") - given; n != 0 {
		t.Errorf("%d capabilities given", n)
	}
	k.close()
	old.close()
	if !testbed.Eventually(func() bool { return len(b.Pids("factotum-pam")) == 0 }) {
		t.Errorf("workers and acceptors are left: %v", b.Pids("factotum-pam"))
	}
}

// manyAcceptors gives one context up after the other.
func (b *bed) manyAcceptors(t *testing.T) {
	b.configure(t, "MaxAuthTries 2\nGSSAPIAuthentication yes\n")
	b.sshfront = b.relay(t, "_sshfront")
	k := b.sshfront.connect(t)
	k.t = t
	for range 4 {
		k.want("ok", "auth", "user", "alice", "method", "gssapi-with-mic")
	}
	k.wantEnd("the fifth", k.ask("auth", "user", "alice", "method", "gssapi-with-mic"), capproto.CodeLimit)
}

// acceptor looks at an acceptor, which holds the host's keys while it reads what strangers send.
func (b *bed) acceptor(t *testing.T, host string) {
	b.sshfront = b.relay(t, "_sshfront")
	k := b.sshfront.connect(t)
	before := b.Pids("factotum-pam")
	k.establish("alice", b.gssClient(t, host))
	pid := 0
	for _, p := range b.Pids("factotum-pam") {
		if !slices.Contains(before, p) && strings.Contains(b.Sh(t, fmt.Sprintf("tr '\\0' ' ' </proc/%d/cmdline", p)), " gss ") {
			pid = p
		}
	}
	if pid == 0 {
		t.Fatalf("there is no acceptor among %v", b.Pids("factotum-pam"))
	}
	status := b.Sh(t, fmt.Sprintf("for t in /proc/%d/task/*; do grep -E '^(Uid|Gid|Groups|Cap(Inh|Prm|Eff|Amb)|NoNewPrivs|Seccomp):' $t/status; done | sort | uniq -c | tr -s ' \\t' '  '", pid))
	n := ""
	for l := range strings.Lines(status) {
		f := strings.Fields(l)
		if n == "" {
			n = f[0]
		}
		good := f[0] == n // as many as threads
		switch f[1] {
		case "Uid:", "Gid:":
			good = good && f[2] >= "2100000000" && len(f[2]) == 10 && f[2] == f[3] && f[2] == f[4] && f[2] == f[5]
		case "Groups:":
			good = good && len(f) == 2
		case "NoNewPrivs:":
			good = good && f[2] == "1"
		case "Seccomp:":
			good = good && f[2] == "2"
		default:
			good = good && f[2] == "0000000000000000"
		}
		if !good {
			t.Errorf("the acceptor has %q", l)
		}
	}
	if strings.Count(status, "\n") != 8 { // and one without its end
		t.Errorf("its status: %s", status)
	}
	if fds := b.Sh(t, fmt.Sprintf("ls -l /proc/%d/fd | sed -n 's/.*-> //p' | grep -v -E '^(socket|anon_inode:|pipe|/dev/null)' || true", pid)); strings.Contains(fds, "keytab") {
		t.Errorf("its descriptors: %s", fds)
	}
	k.close()
}
