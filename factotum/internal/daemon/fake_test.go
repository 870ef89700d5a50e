package daemon

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"p9auth/capproto"
	"p9auth/factotum/internal/config"
	"p9auth/factotum/internal/pamwire"
	"p9auth/factotum/internal/status"
	"p9auth/internal/authkeys"
	"p9auth/internal/proc"
	"p9auth/test/testbed"
)

// The conversation runs here without root, without FUSE and without libpam: a
// fake connection, a fake worker and a fake caphash stand where the kernel and
// PAM are.

// The uids of the tests. Nobody has to have them.
const (
	uidLogin, uidSSH, uidStranger = 1001, 1002, 4000
	uidAlice                      = 5000
)

// typed is what the person types. No reply may have it.
const typed = "open-sesame-which-no-reply-may-have"

// A fakeWire is a connection from a front end.
type fakeWire struct {
	in     chan capproto.Packet
	out    chan capproto.Msg
	closed chan struct{}
	once   sync.Once
	files  int // that went along with the replies
}

func newFakeWire() *fakeWire {
	return &fakeWire{in: make(chan capproto.Packet), out: make(chan capproto.Msg, 8), closed: make(chan struct{})}
}

func (w *fakeWire) Recv() (capproto.Packet, error) {
	select {
	case p, ok := <-w.in:
		if !ok {
			return p, io.EOF
		}
		return p, nil
	case <-w.closed:
		return capproto.Packet{}, net.ErrClosed
	}
}

func (w *fakeWire) Send(m capproto.Msg, files ...*os.File) error {
	w.files += len(files)
	if _, err := m.Encode(); err != nil {
		return err
	}
	select {
	case <-w.closed:
		return net.ErrClosed
	default:
	}
	w.out <- m
	return nil
}

func (w *fakeWire) SetWriteDeadline(time.Time) error { return nil }
func (w *fakeWire) Wait()                            {}
func (w *fakeWire) Close() error {
	w.once.Do(func() { close(w.closed) })
	return nil
}

// A fakeHash is caphash: it holds the hashes that are there.
type fakeHash struct {
	mu    sync.Mutex
	valid map[string]bool
	made  int
	err   error
}

func (h *fakeHash) Write(b []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.err != nil {
		return 0, h.err
	}
	if hash, ok := bytes.CutPrefix(b, []byte("-")); ok && len(b) == 33 {
		delete(h.valid, string(hash))
		return len(b), nil
	}
	h.valid[string(b)] = true
	h.made++
	return len(b), nil
}

func (h *fakeHash) has(hash capproto.Hash) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.valid[string(hash[:])]
}

func (h *fakeHash) count() (valid, made int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.valid), h.made
}

// A fakeWorker says what reply makes of what it is told. Where the conversation
// waits and there is nothing, it says what more makes up, or ends.
type fakeWorker struct {
	of    *bench
	tty   *tty
	reply func(w *fakeWorker, r pamwire.Request) []pamwire.Event
	more  func(w *fakeWorker) pamwire.Event

	mu        sync.Mutex
	events    chan pamwire.Event
	closed    bool
	abandoned bool
	told      []pamwire.Request
	session   *session
	user      string // of Begin or Lookup

	// What it has said, in the right order: the truth by which the test judges.
	asked, proven, accountAsked, accountValid, opened bool
}

func (w *fakeWorker) Tell(r pamwire.Request) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.told = append(w.told, r)
	switch r := r.(type) {
	case pamwire.Begin:
		w.user = r.User
	case pamwire.Authenticate:
		w.asked = true
	case pamwire.CheckAccount:
		w.accountAsked = true
	}
	for _, e := range w.reply(w, r) {
		w.say(e)
	}
	return nil
}

func (w *fakeWorker) say(e pamwire.Event) {
	if w.closed {
		return
	}
	// Over the wire and back: what cannot be said is not.
	var files []*os.File
	if b, ok := e.(pamwire.Begun); ok && b.TTY != nil {
		files = append(files, b.TTY)
	}
	d, err := pamwire.DecodeEvent(e.Encode(), files...)
	if err != nil {
		return
	}
	select {
	case w.events <- d:
	default:
	}
}

func (w *fakeWorker) Open(s *session) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.session = s
	for _, e := range w.reply(w, s.request()) {
		w.say(e)
	}
	return nil
}

func (w *fakeWorker) Signal(number int, _ *os.File) error {
	return w.Tell(pamwire.Signal{Number: number})
}

func (w *fakeWorker) Events() <-chan pamwire.Event {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.events) == 0 && !w.closed {
		var e pamwire.Event
		if !w.abandoned && w.more != nil {
			e = w.more(w)
		}
		if e != nil {
			w.say(e)
		}
		if len(w.events) == 0 {
			w.die()
		}
	}
	return w.events
}

func (w *fakeWorker) die() {
	if !w.closed {
		w.closed = true
		close(w.events)
	}
}

func (w *fakeWorker) Abandon() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.abandoned = true
	if w.session == nil {
		w.die()
	}
}

func (w *fakeWorker) PID() int { return 4711 }

// A bench is a core for conversations, with what they left behind.
type bench struct {
	core
	gen     *generation
	hash    fakeHash
	stats   status.Stats
	log     testbed.Log
	mu      sync.Mutex
	workers []*fakeWorker
	// What a worker says.
	reply func(w *fakeWorker, r pamwire.Request) []pamwire.Event
	more  func(w *fakeWorker) pamwire.Event
	// What an acceptor says; nil: there is none.
	accepts func(w *fakeWorker, r pamwire.Request) []pamwire.Event
}

func newBench(gen *generation) *bench {
	b := &bench{gen: gen, reply: obliging}
	b.hash.valid = map[string]bool{}
	b.core.log = status.NewLog(slog.New(slog.NewTextHandler(&b.log, &slog.HandlerOptions{Level: slog.LevelDebug})), &b.stats)
	b.caps = newCapabilities(gen.conf.MaxCapsPerUID(), func(error) {})
	b.caps.hash = &b.hash
	b.sleep = func(time.Duration) {}
	b.hire = func(_ config.Config, _ status.Log, t *tty, _ string) (Worker, error) {
		w := &fakeWorker{of: b, tty: t, reply: b.reply, more: b.more, events: make(chan pamwire.Event, maxQueue)}
		b.mu.Lock()
		b.workers = append(b.workers, w)
		b.mu.Unlock()
		return w, nil
	}
	b.acceptor = func(config.Config, status.Log, string, bool) (Worker, error) {
		if b.accepts == nil {
			return nil, errors.New("there is no acceptor")
		}
		w := &fakeWorker{of: b, reply: b.accepts, events: make(chan pamwire.Event, maxQueue)}
		b.mu.Lock()
		b.workers = append(b.workers, w)
		b.mu.Unlock()
		return w, nil
	}
	b.leader = func(int, uint32) (*proc.Handle, error) { return proc.Open(os.Getpid()) }
	return b
}

// obliging lets alice in, whatever is typed, and says that her key is allowed.
func obliging(_ *fakeWorker, r pamwire.Request) []pamwire.Event {
	switch r := r.(type) {
	case pamwire.Lookup:
		return []pamwire.Event{accountOf(r.User)}
	case pamwire.KeyQuery:
		return []pamwire.Event{pamwire.KeyAllowed{Options: optionsText(authkeys.Options{PTY: true, Tunnel: -1}), Notes: []string{"a note"}}}
	case pamwire.Begin:
		b := pamwire.Begun{LogName: r.User}
		if r.Take {
			b.TTY, _ = os.Open(os.DevNull)
		}
		return []pamwire.Event{b}
	case pamwire.Authenticate:
		return []pamwire.Event{pamwire.Prompt{Style: capproto.EchoOff, Text: "Password: "}}
	case pamwire.Answer:
		return []pamwire.Event{pamwire.Proven{User: "alice"}}
	case pamwire.CheckAccount:
		return []pamwire.Event{pamwire.AccountValid{User: "alice", UID: uidAlice}}
	case pamwire.OpenSession:
		return []pamwire.Event{opened("alice")}
	case pamwire.KerberosUser:
		return []pamwire.Event{pamwire.PrincipalJudged{Allowed: r.Principal == r.User+"@EXAMPLE.ORG"}}
	case pamwire.Delegate:
		return []pamwire.Event{pamwire.Delegated{}}
	case pamwire.BeginTerminal:
		return []pamwire.Event{pamwire.Recorded{Last: "Last login: yesterday"}}
	case pamwire.EndTerminal, pamwire.Signal:
		return []pamwire.Event{pamwire.Recorded{}}
	}
	return nil
}

func accountOf(user string) pamwire.Event {
	switch user {
	case "alice":
		return pamwire.Account{Name: "alice", UID: uidAlice, GID: uidAlice, Home: "/home/alice", Shell: "/bin/sh", Groups: []string{"alice", "wizards"}}
	case "root":
		return pamwire.Account{Name: "root", Home: "/root", Shell: "/bin/sh", Groups: []string{"root"}}
	}
	return pamwire.NoUser{}
}

// accountValid is what a worker says once PAM has admitted that account.
func accountValid(name string) pamwire.AccountValid {
	return pamwire.AccountValid{User: name, UID: uidOf(name)}
}

func uidOf(name string) uint32 {
	switch name {
	case "alice":
		return uidAlice
	case "root":
		return 0
	}
	return uidStranger
}

func opened(user string) pamwire.Opened {
	umask := uint32(0o22)
	return pamwire.Opened{User: user, PAMUser: user, UID: uidOf(user), GID: uidAlice, Home: "/home/alice", Shell: "/bin/sh", Groups: []uint32{uidAlice, 27},
		Env: []string{"A=b"}, Umask: &umask, NoFile: &pamwire.Limit{Soft: 1, Hard: 2}, NoHome: "gone", Hush: true}
}

// A front is a front end's side of a conversation.
type front struct {
	t      testing.TB
	b      *bench
	c      *conversation
	w      *fakeWire
	cred   *unix.Ucred
	ended  chan struct{} // the conversation is over, and its workers are gone
	asked  int
	closed bool
	nonce  []byte // the last one that was given
	sid    []byte // the session id
}

// dial begins a conversation of a process of that uid, over a connection that
// peer has made.
func (b *bench) dial(t testing.TB, uid, peer uint32, pid int32) *front {
	f := &front{t: t, b: b, w: newFakeWire(), cred: &unix.Ucred{Pid: pid, Uid: uid, Gid: uid}, ended: make(chan struct{})}
	f.c = newConversation(&b.core, b.gen, f.w, &unix.Ucred{Pid: pid, Uid: peer, Gid: peer})
	go func() {
		f.c.run()
		f.c.leave()
		close(f.ended)
	}()
	return f
}

// ask sends a request. It returns false if the conversation is over and there was
// no reply to it.
func (f *front) ask(m capproto.Msg, files ...*os.File) (capproto.Msg, bool) {
	r, ok := f.say(m, files...)
	if n, err := capproto.UnB64(r.Get("nonce")); err == nil && len(n) > 0 {
		f.nonce = n
	}
	if ok && r.Verb == capproto.VerbOK && m.Verb == capproto.VerbSign && f.sid == nil {
		b, _ := capproto.UnB64(m.Get("transcript"))
		h := sha256.Sum256(b)
		f.sid = h[:]
	}
	return r, ok
}

func (f *front) say(m capproto.Msg, files ...*os.File) (capproto.Msg, bool) {
	f.asked++
	p := capproto.Packet{Msg: m, FDs: detach(files), Cred: f.cred}
	select {
	case f.w.in <- p:
	case <-f.ended:
		p.Close()
		return capproto.Msg{}, false
	}
	select {
	case r := <-f.w.out:
		return r, true
	case <-f.ended:
		select {
		case r := <-f.w.out:
			return r, true
		default:
		}
		return capproto.Msg{}, false
	case <-time.After(20 * time.Second):
		f.t.Fatalf("no reply to %s", m.Verb)
		return capproto.Msg{}, false
	}
}

// want asks, and wants a reply of that verb.
func (f *front) want(verb string, m capproto.Msg, files ...*os.File) capproto.Msg {
	f.t.Helper()
	r, ok := f.ask(m, files...)
	if !ok || r.Verb != verb {
		f.t.Fatalf("%s is answered by %v (%v), not by %s; the log: %s", m.Verb, r, ok, verb, f.b.log.String())
	}
	return r
}

// wantEnd wants that the conversation is over, with an error of that code.
func (f *front) wantEnd(code string, m capproto.Msg, files ...*os.File) capproto.Msg {
	f.t.Helper()
	r := f.want(capproto.VerbError, m, files...)
	if r.Get("code") != code {
		f.t.Errorf("%s ends with %v, not with code %s", m.Verb, r, code)
	}
	select {
	case <-f.ended:
	case <-time.After(20 * time.Second):
		f.t.Fatalf("after %v the conversation goes on", r)
	}
	return r
}

// hangUp ends the conversation from the front end's side, and waits for that.
func (f *front) hangUp() {
	if !f.closed {
		f.closed = true
		close(f.w.in)
	}
	select {
	case <-f.ended:
	case <-time.After(20 * time.Second):
		f.t.Fatal("a conversation without a front end goes on")
	}
}

func msg(verb string, nameValue ...string) capproto.Msg { return capproto.NewMsg(verb, nameValue...) }

func startMsg(proto string, nameValue ...string) capproto.Msg {
	return msg(capproto.VerbStart, append([]string{"proto", proto, "version", fmt.Sprint(capproto.Version)}, nameValue...)...)
}

// newGen is a generation with that sshd_config, beside a host key.
func newGen(sshdConfig string) *generation {
	dir, err := os.MkdirTemp("", "factotum")
	must(err)
	defer os.RemoveAll(dir)
	hostKey := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, 32))
	block, err := ssh.MarshalPrivateKey(hostKey, "")
	must(err)
	must(os.WriteFile(filepath.Join(dir, "key"), pem.EncodeToMemory(block), 0o600))
	must(os.WriteFile(filepath.Join(dir, "sshd_config"), []byte("HostKey "+filepath.Join(dir, "key")+"\n"+sshdConfig), 0o600))
	conf, err := config.Parse("test", strings.NewReader("FrontEnd _login login\nFrontEnd _sshfront sshd ssh\nSyslog none\nSSHDConfig "+filepath.Join(dir, "sshd_config")+"\n"))
	must(err)
	server, err := loadSSH(conf, slog.New(slog.DiscardHandler))
	must(err)
	nets, err := loadNetworks(conf, slog.New(slog.DiscardHandler))
	must(err)
	return &generation{conf, map[uint32]config.Binding{uidLogin: {Service: "login", Proto: "pam"}, uidSSH: {Service: "sshd", Proto: "ssh"}}, server, nets, nil}
}

// host is a generation, the keys of a host and a user, and a TCP connection.
var host = sync.OnceValue(func() (h struct {
	gen    *generation
	gss    *generation   // which permits gssapi-with-mic, too
	key    ssh.PublicKey // of the host
	user   ed25519.PrivateKey
	blob   []byte // the user's public key
	socket *os.File
	ends   []any // of the connection: what is forgotten is closed
}) {
	const match = "Match User carol\nAuthenticationMethods publickey,password\n"
	h.gen, h.gss = newGen(match), newGen("GSSAPIAuthentication yes\n"+match)
	h.key = h.gen.ssh.keys[0].PublicKey()
	h.user = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{2}, 32))
	signer, err := ssh.NewSignerFromKey(h.user)
	must(err)
	h.blob = signer.PublicKey().Marshal()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	conn, err := net.Dial("tcp", ln.Addr().String())
	must(err)
	h.ends = []any{ln, conn}
	h.socket, err = conn.(*net.TCPConn).File()
	must(err)
	return h
})

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// socket is a descriptor of the TCP connection.
func socket() *os.File {
	fd, err := unix.FcntlInt(host().socket.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	must(err)
	return os.NewFile(uintptr(fd), "socket")
}

// detach is the descriptors of files, which it closes.
func detach(files []*os.File) (fds []int) {
	for _, f := range files {
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		must(err)
		f.Close()
		fds = append(fds, fd)
	}
	return fds
}

// exchangeHash is one of many.
func exchangeHash(n byte) []byte {
	h := sha256.Sum256([]byte{n})
	return h[:]
}

// A transcript is the input of an exchange hash, with the names of RFC 4253
// section 8.
type transcript struct {
	VC, VS         string
	IC, IS, KS     []byte
	Theirs, Ours   []byte
	SharedMaterial []byte
}

// kexInit is a SSH_MSG_KEXINIT.
func kexInit(cookie []byte) []byte {
	return ssh.Marshal(struct {
		Type                         byte
		Cookie                       [16]byte
		A, B, C, D, E, F, G, H, I, J []string
		Follows                      bool
		Reserved                     uint32
	}{Type: 20, Cookie: [16]byte(cookie), A: []string{"curve25519-sha256", "kex-strict-s-v00@openssh.com"}, B: []string{"ssh-ed25519"}})
}

// exchange is a key exchange of this host with that nonce.
func exchange(nonce []byte) transcript {
	if nonce == nil {
		nonce = make([]byte, 16)
	}
	return transcript{"SSH-2.0-OpenSSH_10.0", capproto.SSHVersion, kexInit(bytes.Repeat([]byte{7}, 16)), kexInit(nonce), host().key.Marshal(),
		bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32), bytes.Repeat([]byte{3}, 32)}
}

// signMsg asks for the signature of a key exchange.
func (x transcript) signMsg() capproto.Msg {
	return msg(capproto.VerbSign, "key", capproto.B64(host().key.Marshal()), "alg", "ssh-ed25519", "hash", "sha256", "transcript", capproto.B64(ssh.Marshal(x)))
}

// signMsg asks for the signature of a key exchange with the last nonce.
func (f *front) signMsg() capproto.Msg { return exchange(f.nonce).signMsg() }

// keyMsg is a proof by the user's key, with a signature over that session id.
func keyMsg(user string, sid []byte) capproto.Msg { return keyMsgOf(host().user, user, sid) }

func keyMsgOf(key ed25519.PrivateKey, user string, sid []byte) capproto.Msg {
	return signedMsg(key, user, sid, "publickey", nil)
}

// signedMsg is a proof by a key, with a signature for that method. It is over the bytes
// of RFC 4252, section 7, and then more.
func signedMsg(key ed25519.PrivateKey, user string, sid []byte, method string, more []byte) capproto.Msg {
	pub, err := ssh.NewPublicKey(key.Public())
	must(err)
	blob := pub.Marshal()
	signed := append(ssh.Marshal(struct {
		SessionID []byte
		Type      byte
		User      string
		Service   string
		Method    string
		Signed    bool
		Algorithm string
		Key       []byte
	}{sid, 50, user, "ssh-connection", method, true, "ssh-ed25519", blob}), more...)
	sig := ssh.Marshal(&ssh.Signature{Format: "ssh-ed25519", Blob: ed25519.Sign(key, signed)})
	return msg(capproto.VerbAuth, "user", user, "method", "publickey", "alg", "ssh-ed25519", "key", capproto.B64(blob), "sig", capproto.B64(sig))
}

// modelFile is the descriptor that a request takes with it.
func modelFile(verb, proto string) []*os.File {
	if verb == capproto.VerbStart && proto == "ssh" {
		return []*os.File{socket()}
	}
	return nil
}

// optionsText are options of a key as the worker sends them.
func optionsText(o authkeys.Options) string {
	return capproto.B64(authkeys.OptionsFormat.Encode(&o))
}
