// Package ssh attacks factotum's ssh verbs as a front end that an attacker owns
// completely: its uid, its memory, its code. It also checks that factotum gives a
// front end what it may have. It has tests only.
//
// The tests, which run as root, decide what to say to factotum. Relays carry it:
// processes that run in the testbed as the user of a front end, so that factotum
// takes them for the senders.
package ssh

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"p9auth/capproto"
	"p9auth/test/testbed"
)

const password = testbed.Password

// version is that of the rpc.
var version = strconv.Itoa(capproto.Version)

// TestMain lets the test's program be a relay.
func TestMain(m *testing.M) {
	testbed.Main(m, testbed.Programs{"relay": func([]string) { relayPackets() }, "redeem": redeem, "redeem-bare": redeemBare})
}

// maxPacket is more than factotum takes.
const maxPacket = 192 << 10

// relayPackets is what a relay does: for each socket that comes over descriptor 3 it
// makes a connection to factotum and carries packets between the two. Where a
// connection comes with the socket, it uses that one, and to "fetch" it gives
// one away.
func relayPackets() {
	ctl, err := unixSocket(os.NewFile(3, "control"))
	must(err)
	for {
		b, files, err := receive(ctl)
		if err != nil {
			return
		}
		if string(b) == "fetch" {
			must(send(ctl, []byte("here"), []*os.File{connFile(dialFactotum())}))
			continue
		}
		socket, err := unixSocket(files[0])
		must(err)
		var factotum *net.UnixConn
		if len(files) > 1 {
			factotum, err = unixSocket(files[1])
			must(err)
		} else {
			factotum = dialFactotum()
		}
		go carry(factotum, socket, false)
		go carry(socket, factotum, true)
	}
}

func dialFactotum() *net.UnixConn {
	c, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: testbed.RPC, Net: "unixpacket"})
	must(err)
	return c
}

// carry carries packets one way until the end of it.
func carry(to, from *net.UnixConn, closeTo bool) {
	defer to.Close()
	for {
		b, files, err := receive(from)
		if err != nil {
			return
		}
		if err := send(to, b, files); err != nil && !closeTo {
			// What factotum said before it closed is still to be carried.
			io.Copy(io.Discard, from)
			return
		}
	}
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func unixSocket(f *os.File) (*net.UnixConn, error) {
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	return c.(*net.UnixConn), nil
}

func connFile(c *net.UnixConn) *os.File {
	defer c.Close()
	f, err := c.File()
	must(err)
	return f
}

func receive(c *net.UnixConn) ([]byte, []*os.File, error) {
	b, oob := make([]byte, maxPacket), make([]byte, 256)
	n, oobn, _, _, err := c.ReadMsgUnix(b, oob)
	if err != nil || n == 0 {
		return nil, nil, errors.Join(err, io.EOF)
	}
	var files []*os.File
	cms, err := unix.ParseSocketControlMessage(oob[:oobn])
	must(err)
	for _, cm := range cms {
		if cm.Header.Type == unix.SCM_RIGHTS {
			fds, err := unix.ParseUnixRights(&cm)
			must(err)
			for _, fd := range fds {
				files = append(files, os.NewFile(uintptr(fd), "carried"))
			}
		}
	}
	return b[:n], files, nil
}

func send(c *net.UnixConn, b []byte, files []*os.File) error {
	var fds []int
	for _, f := range files {
		defer f.Close()
		fds = append(fds, int(f.Fd()))
	}
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	_, _, err := c.WriteMsgUnix(b, oob, nil)
	return err
}

// pair makes two connected SOCK_SEQPACKET sockets.
func pair(t *testing.T) (*net.UnixConn, *os.File) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	c, err := unixSocket(os.NewFile(uintptr(fds[0]), "socket"))
	if err != nil {
		t.Fatal(err)
	}
	return c, os.NewFile(uintptr(fds[1]), "socket")
}

// A relay is a process of a front end.
type relay struct {
	b   *bed
	ctl *net.UnixConn
}

// A bed is a testbed with an sshd_config of the test's own.
type bed struct {
	*testbed.Bed
	sshfront *relay
}

// A service as Debian has it, without the delays.
const service = `auth required pam_unix.so nodelay
account required pam_unix.so
password required pam_unix.so yescrypt
session required pam_loginuid.so
session required pam_unix.so
`

// up starts a testbed, in which _second is a front end for ssh too. Its
// sshd_config lets a conversation fail often.
func up(t *testing.T) *bed {
	t.Helper()
	b := &bed{Bed: testbed.Up(t)}
	b.Sh(t, "useradd --system --no-create-home _second; echo root:"+password+" | chpasswd -c SHA512 -s 1000; "+
		"[ -e /etc/ssh/ssh_host_rsa_key ] || ssh-keygen -q -t rsa -b 2048 -N '' -f /etc/ssh/ssh_host_rsa_key")
	b.Write(t, "/etc/pam.d/sshd", service)
	b.Write(t, "/etc/p9auth/factotum.conf", "LogLevel debug\nFrontEnd _login login\nFrontEnd _sshfront sshd ssh\nFrontEnd _second sshd ssh\n")
	b.configure(t, "")
	b.sshfront = b.relay(t, "_sshfront")
	return b
}

// relay starts a process as a user.
func (b *bed) relay(t *testing.T, user string) *relay {
	t.Helper()
	ours, theirs := pair(t)
	defer theirs.Close()
	cmd := b.Command(testbed.As(user, b.Self(t), "relay")...)
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ours.Close()
		cmd.Wait()
	})
	return &relay{b, ours}
}

// configure gives factotum an sshd_config of those lines. A Match block among
// them must come last.
func (b *bed) configure(t *testing.T, lines string) {
	t.Helper()
	b.Write(t, "/etc/p9auth/sshd_config", lines+"\n")
	n := b.Logged("configuration read again")
	if pids := b.Pids("factotum"); len(pids) != 1 || syscall.Kill(pids[0], syscall.SIGHUP) != nil {
		t.Fatalf("processes of factotum: %v", pids)
	}
	if !testbed.Eventually(func() bool { return b.Logged("configuration read again")+b.Logged("stays as it was") > n }) || b.Logged("stays as it was") > 0 {
		t.Fatal("factotum does not take the configuration")
	}
}

// wantLogged checks that f has factotum log the text n times, or with -1 at
// least once. With no text there is nothing to check.
func (b *bed) wantLogged(t *testing.T, text string, n int, f func()) {
	t.Helper()
	before, got := b.Logged(text), 0
	f()
	if text == "" {
		return
	}
	enough := func() bool {
		got = b.Logged(text) - before
		return got >= max(n, 1)
	}
	if !testbed.Eventually(enough) || n >= 0 && b.Logged(text)-before != n {
		t.Errorf("%q logged %d times, not %d", text, b.Logged(text)-before, n)
	}
}

// A talk is a conversation with factotum.
type talk struct {
	t    *testing.T
	c    *capproto.Conn
	keys [][]byte // the host keys
	sid  []byte   // the session id

	nonce []byte   // the last that factotum gave
	done  exchange // the one whose hash is the session id
}

// dial begins a conversation.
func (p *relay) dial(t *testing.T) *talk {
	t.Helper()
	return p.talk(t)
}

// talk begins a conversation, over a connection that another process made
// where there is one.
func (p *relay) talk(t *testing.T, conn ...*os.File) *talk {
	t.Helper()
	ours, theirs := pair(t)
	if err := send(p.ctl, []byte("dial"), append([]*os.File{theirs}, conn...)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ours.Close() })
	ours.SetDeadline(time.Now().Add(60 * time.Second))
	return &talk{t: t, c: capproto.NewConn(ours, capproto.MaxReply)}
}

// fetch returns a connection that the relay has made.
func (p *relay) fetch(t *testing.T) *os.File {
	t.Helper()
	if err := send(p.ctl, []byte("fetch"), nil); err != nil {
		t.Fatal(err)
	}
	_, files, err := receive(p.ctl)
	if err != nil || len(files) != 1 {
		t.Fatalf("fetch: %v, %d descriptors", err, len(files))
	}
	return files[0]
}

// say sends a packet and returns the reply; its verb is "" where the
// conversation has ended.
func (k *talk) say(m capproto.Msg, files ...*os.File) capproto.Msg {
	k.t.Helper()
	if err := k.c.Send(m, files...); err != nil && !errors.Is(err, syscall.EPIPE) {
		k.t.Fatalf("%s: %v", m.Verb, err)
	}
	r := k.hear()
	if n, err := capproto.UnB64(r.Get("nonce")); err == nil && len(n) > 0 {
		k.nonce = n
	}
	return r
}

func (k *talk) hear() capproto.Msg {
	k.t.Helper()
	p, err := k.c.Recv()
	if errors.Is(err, io.EOF) {
		return capproto.Msg{}
	}
	if err != nil {
		k.t.Fatal(err)
	}
	if len(p.Files) > 0 {
		k.t.Fatal("factotum gives descriptors away")
	}
	return p.Msg
}

func (k *talk) ask(verb string, nameValue ...string) capproto.Msg {
	k.t.Helper()
	return k.say(capproto.NewMsg(verb, nameValue...))
}

// isError reports whether a reply is an error of that code, and says why.
func isError(m capproto.Msg, code string) bool {
	return m.Verb == capproto.VerbError && m.Get("code") == code && m.Get("text") != ""
}

// want asks, and fails the test unless the reply's verb is that one.
func (k *talk) want(reply, verb string, nameValue ...string) capproto.Msg {
	k.t.Helper()
	m := k.ask(verb, nameValue...)
	if m.Verb != reply {
		k.t.Fatalf("%s: %s, not %s", verb, show(m), reply)
	}
	return m
}

// show is a reply without what may be secret in it.
func show(m capproto.Msg) string {
	if m.Verb == "" {
		return "the end"
	}
	return fmt.Sprintf("%s code=%s methods=%s text=%q", m.Verb, m.Get("code"), m.Get("methods"), m.Get("text"))
}

// close ends the conversation.
func (k *talk) close() { k.c.Close() }

// wantEnd checks that a reply is an error of that code, and the last one.
func (k *talk) wantEnd(what string, m capproto.Msg, code string) {
	k.t.Helper()
	if !isError(m, code) {
		k.t.Errorf("%s: %s, not an error of code %s", what, show(m), code)
	}
	if m := k.ask("attr"); m.Verb != "" {
		k.t.Errorf("%s: the conversation goes on: %s", what, show(m))
	}
	k.close()
}

// tcp is a TCP connection from an address of 127.0.0.0/8, as its server has
// it.
func tcp(t *testing.T, from string) *os.File {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	c, err := d.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	f, err := s.(*net.TCPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// start begins an SSH conversation with a client at an address.
func (p *relay) start(t *testing.T, from string) *talk {
	t.Helper()
	k := p.dial(t)
	conn := tcp(t, from)
	defer conn.Close()
	m := k.say(capproto.NewMsg("start", "version", version, "proto", "ssh"), conn)
	if m.Verb != capproto.VerbOK {
		t.Fatalf("start: %s", show(m))
	}
	for _, s := range m.All("hostkey") {
		b, err := capproto.UnB64(s)
		if err != nil {
			t.Fatal(err)
		}
		k.keys = append(k.keys, b)
	}
	return k
}

// hostKey is the host key of a type.
func (k *talk) hostKey(keyType string) []byte {
	k.t.Helper()
	i := slices.IndexFunc(k.keys, func(b []byte) bool {
		return len(b) > 4 && bytes.HasPrefix(b[4:], []byte(keyType)) && int(binary.BigEndian.Uint32(b)) == len(keyType)
	})
	if i < 0 {
		k.t.Fatalf("no host key of type %s", keyType)
	}
	return k.keys[i]
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

// An exchange is the input of an exchange hash (RFC 4253, section 8; RFC 8731).
type exchange struct {
	VC, VS               string
	IC, IS, KS           []byte
	Theirs, Ours, Secret []byte
}

// kexInit is a SSH_MSG_KEXINIT (RFC 4253, section 7.1), of curve25519-sha256 unless
// a method is named.
func kexInit(cookie []byte, methods ...string) []byte {
	if methods == nil {
		methods = []string{"curve25519-sha256"}
	}
	return ssh.Marshal(struct {
		Type                         byte
		Cookie                       [16]byte
		A, B, C, D, E, F, G, H, I, J []string
		Follows                      bool
		Reserved                     uint32
	}{Type: 20, Cookie: [16]byte(cookie), A: methods, B: []string{ssh.KeyAlgoED25519}})
}

// exchange is a true one, with that host key and the last nonce.
func (k *talk) exchange(key []byte) exchange {
	nonce := k.nonce
	if nonce == nil {
		nonce = make([]byte, 16)
	}
	return exchange{"SSH-2.0-client", capproto.SSHVersion, kexInit(random(16)), kexInit(nonce), key, random(32), random(32), random(32)}
}

func (x exchange) hash() []byte {
	h := sha256.Sum256(ssh.Marshal(x))
	return h[:]
}

// sign asks for a signature with a host key.
func (k *talk) sign(key []byte, alg string, x exchange) capproto.Msg {
	k.t.Helper()
	return k.ask("sign", "key", capproto.B64(key), "alg", alg, "hash", "sha256", "transcript", capproto.B64(ssh.Marshal(x)))
}

// connect begins an SSH conversation and has the session id signed.
func (p *relay) connect(t *testing.T) *talk { t.Helper(); return p.connectFrom(t, "127.0.0.1") }

func (p *relay) connectFrom(t *testing.T, from string) *talk {
	t.Helper()
	k := p.start(t, from)
	host := k.hostKey(ssh.KeyAlgoED25519)
	k.done = k.exchange(host)
	k.sid = k.done.hash()
	m := k.sign(host, ssh.KeyAlgoED25519, k.done)
	b, err := capproto.UnB64(m.Get("sig"))
	if m.Verb != capproto.VerbOK || err != nil {
		t.Fatalf("sign: %s, %v", show(m), err)
	}
	pub, err := ssh.ParsePublicKey(host)
	if err != nil {
		t.Fatal(err)
	}
	sig := new(ssh.Signature)
	if err := ssh.Unmarshal(b, sig); err != nil {
		t.Fatal(err)
	}
	if err := pub.Verify(k.sid, sig); err != nil {
		t.Fatalf("the host key's signature: %v", err)
	}
	return k
}
