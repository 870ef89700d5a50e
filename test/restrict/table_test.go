package restrict

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"p9auth/test/testbed"
)

// A request is something that a client asks for.
type request struct {
	name string
	ask  func(*ssh.Client) string
}

// An env is what the requests and the restrictions are about.
type env struct {
	open, other  string // TCP ports that something listens on
	listen, also string // and that nothing listens on
}

func open(kind string, payload any) func(*ssh.Client) string {
	return func(c *ssh.Client) string {
		ch, in, err := c.OpenChannel(kind, ssh.Marshal(payload))
		if err == nil {
			go ssh.DiscardRequests(in)
			ch.Close()
		}
		return yes(err == nil)
	}
}

func global(kind string, payload any) func(*ssh.Client) string {
	return func(c *ssh.Client) string {
		ok, _, err := c.SendRequest(kind, true, ssh.Marshal(payload))
		if err != nil {
			return err.Error()
		}
		if ok {
			c.SendRequest("cancel-"+kind, true, ssh.Marshal(payload))
		}
		return yes(ok)
	}
}

func inSession(kind string, payload any) func(*ssh.Client) string {
	return func(c *ssh.Client) string {
		s, err := session(c)
		if err != nil {
			return "no session"
		}
		defer s.Close()
		var b []byte
		if payload != nil {
			b = ssh.Marshal(payload)
		}
		ok, err := s.SendRequest(kind, true, b)
		return yes(ok && err == nil)
	}
}

type (
	tcp struct {
		Host string
		Port uint32
		From string
		Orig uint32
	}
	stream struct {
		Path, Reserved string
		Zero           uint32
	}
	addr struct {
		Host string
		Port uint32
	}
)

func number(port string) (n uint32) {
	fmt.Sscan(port, &n)
	return n
}

// requests are the channel types and requests of RFC 4254 and of PROTOCOL that ask
// the server for something that can be restricted.
func requests(e env) []request {
	var rs []request
	add := func(name string, ask func(*ssh.Client) string) { rs = append(rs, request{name, ask}) }
	for _, a := range []tcp{{Host: "127.0.0.1", Port: number(e.open)}, {Host: "localhost", Port: number(e.open)}, {Host: "LocalHost", Port: number(e.open)}, {Host: "127.0.0.1", Port: number(e.other)}} {
		a.From = "127.0.0.1"
		add(fmt.Sprintf("direct-tcpip %s:%d", a.Host, a.Port), open("direct-tcpip", a))
	}
	add("direct-streamlocal", open("direct-streamlocal@openssh.com", stream{Path: "/run/echo.sock"}))
	for _, a := range []addr{{"127.0.0.1", 0}, {"localhost", number(e.listen)}, {"LOCALHOST", number(e.listen)}, {"127.0.0.1", number(e.also)}, {"localhost", 81}} {
		add(fmt.Sprintf("tcpip-forward %s:%d", a.Host, a.Port), global("tcpip-forward", a))
	}
	add("streamlocal-forward", func(c *ssh.Client) string {
		path := "/home/alice/s" + c.LocalAddr().String()
		return global("streamlocal-forward@openssh.com", struct{ Path string }{path})(c)
	})
	add("tun", open("tun@openssh.com", struct{ Mode, Unit uint32 }{1, 0x7fffffff}))
	add("pty-req", inSession("pty-req", struct {
		Term             string
		Cols, Rows, W, H uint32
		Modes            string
	}{"vt100", 80, 24, 0, 0, "\x00"}))
	add("x11-req", inSession("x11-req", struct {
		Single           bool
		Protocol, Cookie string
		Screen           uint32
	}{false, "MIT-MAGIC-COOKIE-1", strings.Repeat("5a", 16), 0}))
	add("auth-agent-req", inSession("auth-agent-req@openssh.com", nil))
	add("exec", func(c *ssh.Client) string {
		return ran(c, "", func(s *ssh.Session) error { return s.Start("echo ran; [ -t 0 ] || echo no tty") })
	})
	add("shell", func(c *ssh.Client) string {
		return ran(c, "echo shell ran; exit\n", func(s *ssh.Session) error { return s.Shell() })
	})
	add("subsystem sftp", sftp)
	add("subsystem none", inSession("subsystem", struct{ Name string }{"none"}))
	add("three sessions", func(c *ssh.Client) string {
		n := 0
		for range 3 {
			s, err := session(c) // the last request's may have to be gone first
			if err != nil {
				break
			}
			n++
			defer s.Close()
		}
		return fmt.Sprint(n)
	})
	add("after no-more-sessions", func(c *ssh.Client) string {
		if _, _, err := c.SendRequest("no-more-sessions@openssh.com", true, nil); err != nil {
			return err.Error()
		}
		_, err := c.NewSession()
		return yes(err == nil)
	})
	return rs
}

// keywords are lines of sshd_config(5), each of which restricts. Those of the second
// group are combined with all the key options of keyOptions' second group, too.
func keywords(e env) (alone, combined []string) {
	alone = []string{
		"AllowTcpForwarding yes", "AllowTcpForwarding all", "AllowStreamLocalForwarding yes", "AllowStreamLocalForwarding all",
		"AllowAgentForwarding no", "AllowAgentForwarding yes", "X11Forwarding no", "PermitTTY no", "PermitTTY yes", "PermitUserRC no", "PermitTunnel no",
		"MaxSessions 0", "MaxSessions 1", "MaxSessions 2", "PermitOpen any", "PermitListen any", "DisableForwarding no", "GatewayPorts no",
		"ForceCommand none", "ForceCommand internal-sftp", "ForceCommand false",
		"PermitOpen 127.0.0.1:*", "PermitOpen *:" + e.other, "PermitOpen localhost:" + e.open + " 127.0.0.1:" + e.other,
		"PermitOpen LOCALHOST:" + e.open, "PermitListen LocalHost:" + e.listen,
		"PermitListen 127.0.0.1:*", "PermitListen localhost:*", "PermitListen 127.0.0.1:" + e.also, "PermitListen *:" + e.also,
		"AllowTcpForwarding no\nAllowStreamLocalForwarding yes", "AllowTcpForwarding yes\nAllowStreamLocalForwarding no",
		"AllowTcpForwarding local\nAllowStreamLocalForwarding remote", "AllowTcpForwarding remote\nAllowStreamLocalForwarding local",
		"AllowTcpForwarding no\nPermitOpen *:*", "DisableForwarding yes\nAllowTcpForwarding yes", "MaxSessions 1\nForceCommand echo CONF",
		"ForceCommand internal-sftp\nAllowTcpForwarding no\nX11Forwarding no\nPermitTTY no",
	}
	combined = []string{
		"AllowTcpForwarding no", "AllowTcpForwarding local", "AllowTcpForwarding remote",
		"AllowStreamLocalForwarding no", "AllowStreamLocalForwarding local", "AllowStreamLocalForwarding remote",
		"PermitOpen none", "PermitOpen *:*", "PermitOpen 127.0.0.1:" + e.open,
		"PermitListen none", "PermitListen *:*", "PermitListen " + e.listen,
		"DisableForwarding yes", "ForceCommand echo CONF $SSH_ORIGINAL_COMMAND",
	}
	return alone, combined
}

// keyOptions are options of a key, as keywords.
func keyOptions(e env) (alone, combined []string) {
	alone = []string{
		"no-agent-forwarding", "no-x11-forwarding", "no-X11-forwarding", "no-pty", "no-user-rc", "no-touch-required", "cert-authority",
		"restrict,pty", "restrict,agent-forwarding", "restrict,x11-forwarding", "restrict,user-rc", "pty,restrict", "port-forwarding,no-port-forwarding",
		`from="10.0.0.1"`, `from="127.0.0.0/8"`, `from="!127.0.0.0/8,*"`, `expiry-time="20200101"`, `expiry-time="20990101"`, `environment="A=b"`, `tunnel="0"`,
		`command="internal-sftp"`, `command=""`, `command="false"`, `principals="alice"`, `unknown-option`,
		`permitopen="127.0.0.1:*"`, `permitopen="*:` + e.other + `"`, `permitopen="localhost:` + e.open + `",permitopen="127.0.0.1:` + e.other + `"`,
		`permitopen="LOCALHOST:` + e.open + `"`, `permitlisten="LocalHost:` + e.listen + `"`,
		`permitlisten="localhost:*"`, `permitlisten="127.0.0.1:*"`, `permitlisten="` + e.also + `"`,
		`restrict,command="echo KEY",pty,port-forwarding,permitopen="127.0.0.1:` + e.open + `"`,
	}
	combined = []string{
		"", "restrict", "no-port-forwarding", "restrict,port-forwarding",
		`permitopen="*:*"`, `permitopen="127.0.0.1:` + e.open + `"`, `permitlisten="*:*"`, `permitlisten="localhost:` + e.listen + `"`,
		`command="echo KEY $SSH_ORIGINAL_COMMAND"`,
	}
	return alone, combined
}

// TestWhatIsRestrictedIsWhatSSHDRestricts has each combination of a keyword and a
// key's options, and sends each request to both servers.
func TestWhatIsRestrictedIsWhatSSHDRestricts(t *testing.T) {
	echo := func() string {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ln.Close() })
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				c.Close()
			}
		}()
		_, port, _ := net.SplitHostPort(ln.Addr().String())
		return port
	}
	e := env{open: echo(), other: echo(), listen: testbed.FreePort(t), also: testbed.FreePort(t)}

	type combination struct {
		keyword, options string
		from             string
		key              ssh.Signer
	}
	var all []combination
	words, crossed := keywords(e)
	options, crossedOptions := keyOptions(e)
	var conf, keys strings.Builder
	from := map[string]string{"": "127.0.1.1"}
	for i, w := range append(append([]string(nil), words...), crossed...) {
		from[w] = fmt.Sprintf("127.0.2.%d", i+1)
		fmt.Fprintf(&conf, "Match Address %s\n%s\n", from[w], w)
	}
	signers := map[string]ssh.Signer{}
	for _, o := range append(append([]string(nil), options...), crossedOptions...) {
		signer, line := newKey(o)
		signers[o] = signer
		fmt.Fprintln(&keys, line)
	}
	add := func(w, o string) { all = append(all, combination{w, o, from[w], signers[o]}) }
	for _, o := range append(options, crossedOptions...) {
		add("", o)
	}
	for _, w := range words {
		add(w, "")
	}
	for _, w := range crossed {
		for _, o := range crossedOptions {
			add(w, o)
		}
	}

	p := up(t, conf.String(), keys.String())
	socat := p.Command("socat", "UNIX-LISTEN:/run/echo.sock,mode=666,fork", "EXEC:cat")
	if err := socat.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { socat.Process.Kill(); socat.Wait() })

	rs := requests(e)
	answers := func(port string, c combination) []string {
		client, err := login(port, c.from, "alice", ssh.PublicKeys(c.key))
		got := make([]string, len(rs))
		if err != nil {
			for i := range got {
				got[i] = "no login"
			}
			return got
		}
		defer client.Close()
		for i, r := range rs {
			got[i] = r.ask(client)
		}
		return got
	}
	cases, granted, differences := 0, 0, map[string]int{}
	for _, c := range all {
		// One after the other: they listen on the same ports.
		want, got := answers(p.theirs, c), answers(p.ours, c)
		for i, r := range rs {
			cases++
			if want[i] != "refused" && want[i] != "no login" {
				granted++
			}
			if want[i] == got[i] {
				continue
			}
			if why := known(c.keyword, c.options, r.name, want[i], got[i]); why != "" {
				differences[why]++
				continue
			}
			t.Errorf("%q with a key of %q: %s: sshd %q, ours %q", c.keyword, c.options, r.name, want[i], got[i])
		}
	}
	t.Logf("%d combinations, %d cases, of which sshd grants %d; differences with a name: %v", len(all), cases, granted, differences)
	if granted == 0 || granted == cases {
		t.Error("sshd grants all or nothing")
	}
}

// known names a difference that is meant, which p9auth_sshd_config(5) has too, or
// returns "".
func known(keyword, options, request, sshd, ours string) string {
	if request == "streamlocal-forward" && strings.HasPrefix(keyword, "PermitListen none") && sshd == "granted" && ours == "refused" {
		return "PermitListen none permits no unix socket either"
	}
	// A session without a program, so that the client learns why.
	if strings.HasPrefix(keyword, "MaxSessions 0") && (sshd == "no session" && ours == "refused" || request == "three sessions" && ours == "1") {
		return "MaxSessions 0 permits an empty session"
	}
	return ""
}
