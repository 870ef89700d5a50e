package channels_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"p9auth/capproto"
	"p9auth/internal/sshdconf"
	"p9auth/sshfront/internal/channels"
	"p9auth/sshfront/internal/sftp"
	sshuser "p9auth/sshfront/internal/user"
	"p9auth/sshfront/internal/userlink"
)

// patience is how long a test waits for what must come.
const patience = 60 * time.Second

// nobodyUID is the user nobody: programs like scp want an account.
const nobodyUID = 65534

// TestMain is the user process and the sftp server too, as sshfront is.
func TestMain(m *testing.M) {
	if os.Args[0] == "sshfront" && len(os.Args) > 1 {
		switch os.Args[1] {
		case "user":
			sshuser.Main()
		case "sftp":
			sftp.Main(os.Args[2:])
		}
	}
	os.Exit(m.Run())
}

// A host is an SSH server that asks for no proof.
type host struct {
	t    *testing.T
	dir  string // a directory that belongs to the user
	home string
	port string
	uid  uint32

	info sshuser.Info         // does not change
	set  *sshdconf.Connection // nor does this
	// broken: the session process fails before there is a user process.
	broken bool

	mu    sync.Mutex
	users []*exec.Cmd  // user processes
	ends  []chan error // what Serve returned
	logs  bytes.Buffer
	wg    sync.WaitGroup
}

// newHost starts a host with the settings of a configuration, and with an Info
// that change may change.
func newHost(t *testing.T, config string, change ...func(*sshuser.Info)) *host {
	t.Helper()
	if _, err := exec.LookPath("ssh"); err != nil {
		t.Skip("needs OpenSSH's client")
	}
	dir, err := os.MkdirTemp("", "sshchan")
	if err != nil {
		t.Fatal(err)
	}
	h := &host{t: t, dir: dir, home: filepath.Join(dir, "home"), uid: uint32(os.Getuid())}
	if h.uid == 0 {
		h.uid = nobodyUID
	}
	if err := os.Mkdir(h.home, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{dir, h.home} {
		if err := os.Chown(d, int(h.uid), -1); err != nil {
			t.Fatal(err)
		}
	}
	conf := filepath.Join(dir, "config")
	if err := os.WriteFile(conf, []byte(config+"Subsystem sftp internal-sftp\nPrintMotd no\nX11DisplayOffset 500\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := sshdconf.Parse(conf, nil)
	if err != nil {
		t.Fatal(err)
	}
	h.info = sshuser.Info{
		User: "wren", UID: h.uid, GID: h.uid, Home: h.home, Shell: "/bin/bash", Umask: 0o022,
		Env: []string{"FROM_PAM=yes"}, Settings: *c.Global().Session(),
	}
	h.set = c.Global().Connection()
	for _, f := range change {
		f(&h.info)
	}
	conf2 := &ssh.ServerConfig{NoClientAuth: true, ServerVersion: capproto.SSHVersion}
	conf2.AddHostKey(newSigner(t))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, h.port, _ = net.SplitHostPort(l.Addr().String())
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			h.wg.Add(1)
			go func() {
				defer h.wg.Done()
				h.serve(c, conf2)
			}()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		h.mu.Lock()
		users := slices.Clone(h.users)
		h.mu.Unlock()
		for _, u := range users {
			u.Process.Kill()
		}
		h.wg.Wait()
		if t.Failed() {
			t.Logf("log:\n%s", h.logged())
		}
		os.RemoveAll(dir)
	})
	return h
}

// newSigner makes a host key.
func newSigner(t testing.TB) ssh.Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

// link makes the two ends of a link.
func link(t testing.TB) (conn *capproto.Conn, far *os.File) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	conn, err = capproto.FileConn(os.NewFile(uintptr(fds[0]), "link"), userlink.MaxPacket)
	if err != nil {
		t.Fatal(err)
	}
	return conn, os.NewFile(uintptr(fds[1]), "link")
}

// Write is for the log.
func (h *host) Write(b []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.logs.Write(b)
}

func (h *host) logged() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.logs.String()
}

func (h *host) log(format string, a ...any) {
	h.t.Helper()
	fmt.Fprintf(h, format+"\n", a...)
}

func (h *host) serve(c net.Conn, conf *ssh.ServerConfig) {
	m := channels.NewMeter(c)
	sc, chans, reqs, err := ssh.NewServerConn(m, conf)
	if err != nil {
		c.Close()
		return
	}
	info := h.info
	info.Client = netip.MustParseAddrPort(c.RemoteAddr().String())
	info.Server = netip.MustParseAddrPort(c.LocalAddr().String())
	conn, far := link(h.t)
	mem, err := info.Memfd()
	if err != nil {
		h.t.Error(err)
		return
	}
	user := exec.Command("/proc/self/exe")
	user.Args = []string{"sshfront", "user"}
	user.Env = []string{}
	user.Dir = "/"
	user.Stderr = h
	user.ExtraFiles = []*os.File{far, mem}
	if os.Getuid() == 0 {
		user.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: h.uid, Gid: h.uid}}
	}
	if h.broken {
		unix.Write(int(far.Fd()), []byte("error text='the account has expired'"))
		user = exec.Command("true")
	}
	if err := user.Start(); err != nil {
		h.t.Error(err)
		return
	}
	far.Close()
	mem.Close()
	end := make(chan error, 1)
	h.mu.Lock()
	h.users = append(h.users, user)
	h.ends = append(h.ends, end)
	h.mu.Unlock()
	err = channels.Serve(sc, chans, reqs, userlink.NewClient(conn), channels.Options{Settings: h.set, Log: h.log, Meter: m})
	user.Wait()
	end <- err
}

// args are the arguments of a client program.
func (h *host) args(portFlag string, more ...string) []string {
	return append([]string{"-F", "none", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR",
		"-o", "IdentityAgent=none", "-o", "BatchMode=yes", portFlag, h.port}, more...)
}

// ssh runs ssh with options and a command, and returns its output and status.
func (h *host) ssh(stdin string, more ...string) (stdout, stderr string, status int) {
	h.t.Helper()
	cmd := exec.Command("ssh", h.args("-p", more...)...)
	cmd.Stdin = bytes.NewReader([]byte(stdin))
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	h.run(cmd)
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// run runs a command to its end, and kills it when patience is over.
func (h *host) run(cmd *exec.Cmd) {
	h.t.Helper()
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	kill := time.AfterFunc(patience, func() { cmd.Process.Kill() })
	cmd.Wait()
	if !kill.Stop() {
		h.t.Errorf("%v did not end", cmd.Args)
	}
}

// want fails the test unless ssh prints just that and succeeds.
func (h *host) want(want, stdin string, more ...string) {
	h.t.Helper()
	out, errs, status := h.ssh(stdin, more...)
	if out != want || errs != "" || status != 0 {
		h.t.Errorf("ssh %q: got %q, %q, status %d; want %q", more, out, errs, status, want)
	}
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !f(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// freePort is a TCP port that was free just now.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}
