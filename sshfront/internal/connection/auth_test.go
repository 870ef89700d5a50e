package connection

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"p9auth/capproto"
	"p9auth/internal/sockets"
	"p9auth/internal/sshdconf"
	"p9auth/sshfront/internal/control"
)

// A fakeFactotum answers one conversation.
type fakeFactotum struct {
	t      *testing.T
	path   string
	signer ssh.Signer
	auth   func(capproto.Msg) capproto.Msg

	mu    sync.Mutex
	user  func() capproto.Msg // the answer to user
	auths []string            // methods that were offered, with "?" for a key without signature
}

func newSigner(t *testing.T) ssh.Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromSigner(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// firstNonce is what the fake factotum says at the start.
var firstNonce = [16]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}

// granted is the answer to user, for a user with these methods.
func granted(methods string) capproto.Msg {
	c, err := sshdconf.Parse("/dev/null", nil)
	if err != nil {
		panic(err)
	}
	return capproto.NewMsg("ok", "settings", capproto.B64(sshdconf.ConnectionFormat.Encode(c.Global().Connection())), "methods", methods)
}

func newFactotum(t *testing.T, auth func(capproto.Msg) capproto.Msg) *fakeFactotum {
	t.Helper()
	f := &fakeFactotum{t: t, path: filepath.Join(t.TempDir(), "rpc"), signer: newSigner(t), auth: auth,
		user: func() capproto.Msg { return granted("publickey,password,keyboard-interactive") }}
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: f.path, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		nc, err := l.AcceptUnix()
		if err != nil {
			return
		}
		c := capproto.NewConn(nc, capproto.MaxReply)
		defer c.Close()
		for {
			p, err := c.Recv()
			if err != nil {
				return
			}
			if err := c.Send(f.answer(p.Msg)); err != nil {
				return
			}
		}
	}()
	return f
}

// names sets the answer to user.
func (f *fakeFactotum) names(user func() capproto.Msg) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.user = user
}

// offered are the methods that came.
func (f *fakeFactotum) offered() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Join(f.auths, " ")
}

func (f *fakeFactotum) answer(m capproto.Msg) capproto.Msg {
	switch m.Verb {
	case "sign":
		transcript, _ := capproto.UnB64(m.Get("transcript"))
		if m.Get("hash") != "sha256" || !bytes.Contains(transcript, append([]byte{20}, firstNonce[:]...)) {
			f.t.Errorf("the transcript, hash %q, does not have the nonce", m.Get("hash"))
		}
		hash := sha256.Sum256(transcript)
		sig, err := f.signer.Sign(rand.Reader, hash[:])
		if err != nil {
			f.t.Error(err)
		}
		return capproto.NewMsg("ok", "sig", capproto.B64(ssh.Marshal(sig)))
	case "user":
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.user()
	case "auth":
		what := m.Get("method")
		if _, signed := m.Lookup("sig"); what == "publickey" && !signed {
			what += "?"
		}
		f.mu.Lock()
		f.auths = append(f.auths, what)
		f.mu.Unlock()
		return f.auth(m)
	}
	return capproto.NewMsg("error", "code", "protocol", "text", m.Verb)
}

func denied() capproto.Msg {
	return capproto.NewMsg("error", "code", "denied", "text", "Permission denied", "methods", "publickey,password,keyboard-interactive")
}

func broken() capproto.Msg {
	return capproto.NewMsg("error", "code", "internal", "text", "authentication failed: the PAM worker crashed; try again")
}

// login has a client of the library log in. It returns what the client was shown,
// the server's error, and the client's.
func (f *fakeFactotum) login(methods ...ssh.AuthMethod) (banner string, server, client error) {
	f.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.t.Fatal(err)
	}
	defer l.Close()
	clientEnded := make(chan error, 1)
	go func() {
		nc, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			clientEnded <- err
			return
		}
		defer nc.Close()
		nc.SetDeadline(time.Now().Add(patience))
		_, _, _, err = ssh.NewClientConn(nc, "x", &ssh.ClientConfig{User: "alice", Auth: methods, HostKeyCallback: ssh.InsecureIgnoreHostKey(),
			BannerCallback: func(text string) error { banner += text; return nil }})
		clientEnded <- err
	}()
	nc, err := l.Accept()
	if err != nil {
		f.t.Fatal(err)
	}
	defer nc.Close()
	nc.SetDeadline(time.Now().Add(patience))
	conf, err := sshdconf.Parse("/dev/null", nil)
	if err != nil {
		f.t.Fatal(err)
	}
	c := &connection{conf: &control.Config{}, address: conf.Transport(conf.Global(), []string{"ssh-ed25519"}), client: nc.(*net.TCPConn)}
	c.remote = sockets.AddrPort(c.client.RemoteAddr())
	if c.factotum, err = capproto.Dial(f.path); err != nil {
		f.t.Fatal(err)
	}
	defer c.factotum.Close()
	sc, err := c.serverConfig(&capproto.SSHServer{HostKeys: [][]byte{f.signer.PublicKey().Marshal()}, Nonce: firstNonce})
	if err != nil {
		f.t.Fatal(err)
	}
	conn, chans, reqs, server := ssh.NewServerConn(nc, sc)
	if server == nil {
		go ssh.DiscardRequests(reqs)
		go func() {
			for range chans {
			}
		}()
		conn.Close()
	}
	nc.Close()
	client = <-clientEnded
	return banner, server, client
}

func TestFactotumsConsentLetsIn(t *testing.T) {
	f := newFactotum(t, func(m capproto.Msg) capproto.Msg { return capproto.NewMsg("done") })
	if _, server, _ := f.login(ssh.Password("x")); server != nil {
		t.Error(server)
	}
}

func TestFactotumsRefusalKeepsOut(t *testing.T) {
	f := newFactotum(t, func(m capproto.Msg) capproto.Msg { return denied() })
	banner, server, client := f.login(ssh.PublicKeys(newSigner(t)), ssh.Password("x"))
	if server == nil || client == nil || banner != "" {
		t.Errorf("server: %v, client: %v, banner %q", server, client, banner)
	}
	if got := f.offered(); got != "publickey? password" {
		t.Errorf("offered %s", got)
	}
}

// Where there is nothing that the client could still do, it is told why, and the
// connection ends at once, whatever was offered: the client must not try on.
func TestAConversationThatIsOverEndsTheConnection(t *testing.T) {
	const text = "authentication failed: the PAM worker crashed; try again\n"
	ask := ssh.KeyboardInteractive(func(string, string, []string, []bool) ([]string, error) { return nil, nil })
	for what, c := range map[string]struct {
		auth    func(capproto.Msg) capproto.Msg
		user    func() capproto.Msg
		methods []ssh.AuthMethod
		offered string
	}{
		"a password": {func(capproto.Msg) capproto.Msg { return broken() }, nil,
			[]ssh.AuthMethod{ssh.RetryableAuthMethod(ssh.Password("x"), 3)}, "password"},
		"keyboard-interactive": {func(capproto.Msg) capproto.Msg { return broken() }, nil,
			[]ssh.AuthMethod{ssh.RetryableAuthMethod(ask, 3)}, "keyboard-interactive"},
		"a key": {func(capproto.Msg) capproto.Msg { return broken() }, nil,
			[]ssh.AuthMethod{ssh.PublicKeys(newSigner(t), newSigner(t)), ssh.Password("x")}, "publickey?"},
		"a signature": {func(m capproto.Msg) capproto.Msg {
			if _, signed := m.Lookup("sig"); signed {
				return broken()
			}
			return capproto.NewMsg("ok")
		}, nil, []ssh.AuthMethod{ssh.PublicKeys(newSigner(t), newSigner(t)), ssh.Password("x")}, "publickey? publickey"},
		"a name": {nil, broken, []ssh.AuthMethod{ssh.Password("x")}, ""},
	} {
		t.Run(what, func(t *testing.T) {
			f := newFactotum(t, c.auth)
			if c.user != nil {
				f.names(c.user)
			}
			began := time.Now()
			banner, server, client := f.login(c.methods...)
			if server == nil || client == nil {
				t.Errorf("server: %v, client: %v", server, client)
			}
			if banner != text {
				t.Errorf("the client is told %q", banner)
			}
			if got := f.offered(); got != c.offered {
				t.Errorf("offered %q, want %q", got, c.offered)
			}
			if d := time.Since(began); d > patience/2 {
				t.Errorf("it took %v", d)
			}
		})
	}
}

func TestSettingsOfAnotherVersionKeepOutAndSayWhy(t *testing.T) {
	f := newFactotum(t, func(capproto.Msg) capproto.Msg { return capproto.NewMsg("done") })
	newer := sshdconf.ConnectionFormat
	newer.Version++
	f.names(func() capproto.Msg {
		return capproto.NewMsg("ok", "settings", capproto.B64(newer.Encode(&sshdconf.Connection{})), "methods", "password")
	})
	banner, server, _ := f.login(ssh.Password("x"))
	if server == nil || banner == "" || f.offered() != "" {
		t.Errorf("server: %v, banner %q, offered %q", server, banner, f.offered())
	}
}

// The library lets in whom the callback for signatures does not refuse: the key's
// own Verify is not asked.
func TestTheVerdictOnTheSignatureDecides(t *testing.T) {
	for _, good := range []bool{true, false} {
		f := newFactotum(t, func(m capproto.Msg) capproto.Msg {
			if _, signed := m.Lookup("sig"); signed && !good {
				return denied()
			} else if signed {
				return capproto.NewMsg("done")
			}
			return capproto.NewMsg("ok")
		})
		_, server, _ := f.login(ssh.PublicKeys(newSigner(t)))
		if (server == nil) != good {
			t.Errorf("verdict %v: %v", good, server)
		}
	}
}
