package capproto

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A Client is a front end's side of a conversation. Its methods send one
// request and wait for the reply; an error reply is returned as *Error. After
// any other error the conversation is over. Sign, Nonce and Prove may be called while
// another method runs; the others must not.
type Client struct {
	c        *Conn
	mu       sync.Mutex // held from a request to its reply
	answered bool       // factotum is there, not only its socket
}

// patience is how long factotum may take for its first answer. The service
// manager may hold its socket, and factotum be unable to start.
var patience = 30 * time.Second

// Dial connects to factotum's socket. The kernel remembers the credentials
// that the process has now, see SO_PEERCRED in unix(7).
func Dial(path string) (*Client, error) {
	c, err := connect(path)
	again := func() bool { return errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EINTR) }
	for end := time.Now().Add(patience); again() && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond) // too many connect at once, see connect(2)
		c, err = connect(path)
	}
	switch {
	case err == nil:
		return &Client{c: NewConn(c, MaxReply)}, nil
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return nil, fmt.Errorf("factotum is not running (no answer at %s); the administrator must start it", path)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("no permission to talk to factotum at %s", path)
	}
	return nil, fmt.Errorf("connect to factotum: %w", err)
}

// connect connects to a unix socket of packets.
func connect(path string) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		unix.Close(fd)
		return nil, &os.PathError{Op: "connect", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// Close ends the conversation. Capabilities that it gave and that nobody has
// redeemed are dead from then on.
func (c *Client) Close() error { return c.c.Close() }

// rpc sends one request and returns the reply if it is ok or done.
func (c *Client) rpc(m Msg, files ...*os.File) (Msg, error) {
	p, err := c.rpcFiles(m, files...)
	p.Close()
	return p.Msg, err
}

// rpcFiles is rpc where the reply may carry descriptors, which are the caller's to
// close.
func (c *Client) rpcFiles(m Msg, files ...*os.File) (Packet, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	// factotum may have ended the conversation before the request came; then
	// its reason waits to be received.
	if err := c.c.Send(m, files...); err != nil && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
		return Packet{}, fmt.Errorf("%s: %w", m.Verb, err)
	}
	if !c.answered {
		c.c.c.SetReadDeadline(time.Now().Add(patience))
	}
	p, err := c.c.Recv()
	if err != nil {
		if errors.Is(err, io.EOF) {
			return Packet{}, errGone
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return Packet{}, errors.New("factotum does not answer; the administrator must see why it does not start")
		}
		return Packet{}, fmt.Errorf("%s: %w", m.Verb, err)
	}
	if !c.answered {
		c.answered = true
		c.c.c.SetReadDeadline(time.Time{})
	}
	if p.Verb == VerbOK || p.Verb == VerbDone {
		return p, nil
	}
	p.Close()
	switch p.Verb {
	case VerbMore:
		return Packet{}, &Partial{splitMethods(p.Msg)}
	case VerbError:
		return Packet{}, &Error{Code: p.Get("code"), Text: p.Get("text"), Methods: splitMethods(p.Msg)}
	}
	return Packet{}, fmt.Errorf("%w: reply %s to %s", ErrPacket, p.Verb, m.Verb)
}

func splitMethods(m Msg) []string {
	s := m.Get("methods")
	if s == "" {
		return nil
	}
	return strings.Split(s, ",")
}

var errGone = errors.New("factotum has gone away; try again")

// Start names what the front end wants to have proven.
type Start struct {
	User    string   // the name as typed; may be empty where PAM asks for it
	Host    string   // the remote host, as login -h has it
	Preauth bool     // login -f
	TTY     *os.File // the terminal, or nil
}

// Start begins to authenticate a user by PAM. If it passes a terminal, factotum may
// hang that up, so that nobody has it open who had it before, and returns a fresh
// descriptor; the caller ignores SIGHUP meanwhile, and makes this one its
// controlling terminal. It is nil where the terminal stays as it is.
func (c *Client) Start(s Start) (fresh *os.File, err error) {
	m := NewMsg(VerbStart, "proto", "pam", "version", strconv.Itoa(Version))
	if s.User != "" {
		m.Add("user", s.User)
	}
	if s.Host != "" {
		m.Add("host", s.Host)
	}
	if s.Preauth {
		m.Add("preauth", "yes")
	}
	var files []*os.File
	if s.TTY != nil {
		files = append(files, s.TTY)
	}
	reply, err := c.start(m, files...)
	if len(reply.Files) == 1 && s.TTY != nil {
		return reply.Files[0], nil
	}
	reply.Close()
	return nil, err
}

// start sends a start request, and makes sure that factotum is of our version.
func (c *Client) start(m Msg, files ...*os.File) (Packet, error) {
	reply, err := c.rpcFiles(m, files...)
	theirs := 0
	switch {
	case CodeOf(err) == CodeProtocol && strings.Contains(err.Error(), "version="):
		// A factotum from before there were versions does not know the attribute.
	case err != nil:
		return Packet{}, err
	default:
		theirs, _ = strconv.Atoi(reply.Get("version"))
	}
	if theirs != Version {
		reply.Close()
		return Packet{}, &VersionError{Proto: m.Get("proto"), FrontEnd: Version, Factotum: theirs}
	}
	return reply, nil
}

// Environ passes on variables, as NAME=VALUE, for the user's program. factotum takes
// all of them in the first request over a connection that root has made,
// otherwise those alone that describe the terminal and the language.
func (c *Client) Environ(vars []string) error {
	m := NewMsg(VerbEnviron)
	for _, kv := range vars {
		m.Add("env", kv)
	}
	_, err := c.rpc(m)
	if CodeOf(err) == CodeProtocol && strings.Contains(err.Error(), "unknown request") {
		// A factotum from before there were versions does not know it.
		return &VersionError{Proto: "pam", FrontEnd: Version}
	}
	return err
}

// Renounce gives up Preauth, which only the first request of a conversation can
// ask for, or the one after Environ.
func (c *Client) Renounce() error {
	_, err := c.rpc(NewMsg(VerbAttr))
	return err
}

// A Style says what to do with a Prompt: see pam_conv(3).
type Style string

// Styles of a Prompt.
const (
	EchoOn  Style = "echo-on"  // ask, and show what is typed
	EchoOff Style = "echo-off" // ask, and hide what is typed
	Info    Style = "info"     // show
	Failure Style = "error"    // show as an error
)

// Question says whether the prompt wants an answer.
func (s Style) Question() bool { return s == EchoOn || s == EchoOff }

// A Prompt is what PAM says to the person.
type Prompt struct {
	Style Style
	Text  string
}

// Converse carries the conversation on until it is done: it calls say with
// each prompt and sends the answer back if the prompt is a question. It
// returns nil when factotum is convinced, an *Error when it is not.
func (c *Client) Converse(say func(Prompt) (answer string, err error)) error {
	for {
		m, err := c.rpc(NewMsg(VerbRead))
		if err != nil || m.Verb == VerbDone {
			return err
		}
		p := Prompt{Style(m.Get("style")), m.Get("text")}
		answer, err := say(p)
		if errors.Is(err, ErrNoAnswer) && p.Style.Question() {
			if _, err := c.rpc(NewMsg(VerbWrite, "fail", "yes")); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		if p.Style.Question() {
			if _, err := c.rpc(NewMsg(VerbWrite, "data", answer)); err != nil {
				return err
			}
		}
	}
}

// Session opens the session for the calling process. Converse must follow.
func (c *Client) Session() error {
	_, err := c.rpc(NewMsg(VerbSession))
	return err
}

// AuthInfo is who the user is and the capability to become that user.
type AuthInfo struct {
	User     string
	UID, GID uint32
	Home     string
	Shell    string
	Runs     string     // of su and doas: the program, if it is another one than Shell
	Cap      string     // the capability's text, for capuse: a secret
	Env      []string   // NAME=VALUE: for ssh as the PAM modules set them, otherwise all of the shell's
	Umask    int        // file mode creation mask, or -1 to leave it
	NoFile   *[2]uint64 // soft and hard limit of open files, or nil
	NProc    *[2]uint64 // and of processes, for capuse.Target
	NoHome   string     // why the user cannot enter Home; "" if they can
	Hush     bool       // the user has a .hushlogin

	// The root directory that the process of a bound grant is in, "" for none, and
	// how many terminals' masters it may find open there: see becomerecord.Root.
	Root string
	PTYs int

	// Of ssh: the addresses of both ends of the TCP connection, as host:port;
	// sshdconf.SessionFormat, and authkeys.OptionsFormat where a key was used;
	// what the proof consisted of, in the form of the file of ExposeAuthInfo in
	// sshd_config(5); what PAM had to say.
	Remote   string
	Local    string
	Settings []byte
	Options  []byte
	Methods  []string
	Messages []string
	Expired  bool // the password has expired: the session can do nothing but change it
}

// AuthInfo asks for the user's particulars and a fresh capability.
func (c *Client) AuthInfo() (*AuthInfo, error) {
	m, err := c.rpc(NewMsg(VerbAuthInfo))
	if err != nil {
		return nil, err
	}
	return parseAuthInfo(m)
}

// LoginVariable is the environment variable in which a user process started by
// a grant of ssh finds what the login is: the text of factotum's answer to
// authinfo, without the capability. Where the grant is bound, only factotum can
// have set it.
const LoginVariable = "P9AUTH_LOGIN"

// ParseLogin reads the value of LoginVariable. Cap is empty.
func ParseLogin(s string) (*AuthInfo, error) {
	m, err := DecodeMsg([]byte(s))
	if err != nil {
		return nil, err
	}
	return parseLogin(m)
}

func parseAuthInfo(m Msg) (*AuthInfo, error) {
	a, err := parseLogin(m)
	if err == nil && a.Cap == "" {
		return nil, fmt.Errorf("%w: authinfo without cap", ErrPacket)
	}
	return a, err
}

func parseLogin(m Msg) (*AuthInfo, error) {
	a := &AuthInfo{
		User: m.Get("user"), Home: m.Get("home"), Shell: m.Get("shell"), Runs: m.Get("runs"), Cap: m.Get("cap"),
		Env: m.All("env"), Umask: -1, NoHome: m.Get("nohome"), Hush: m.Get("hush") == "yes",
		Remote: m.Get("remote"), Local: m.Get("local"),
		Methods: m.All("method"), Messages: m.All("message"), Root: m.Get("root"), Expired: m.Get("expired") == "yes",
	}
	var err error
	if a.UID, err = parseID(m.Get("uid")); err != nil {
		return nil, fmt.Errorf("%w: uid: %v", ErrPacket, err)
	}
	if a.GID, err = parseID(m.Get("gid")); err != nil {
		return nil, fmt.Errorf("%w: gid: %v", ErrPacket, err)
	}
	if s, ok := m.Lookup("umask"); ok {
		n, err := strconv.ParseUint(s, 8, 12)
		if err != nil || n > 0o777 {
			return nil, fmt.Errorf("%w: umask", ErrPacket)
		}
		a.Umask = int(n)
	}
	if a.NoFile, err = parseLimit(m, "nofile"); err != nil {
		return nil, err
	}
	if a.NProc, err = parseLimit(m, "nproc"); err != nil {
		return nil, err
	}
	if s, ok := m.Lookup("ptys"); ok {
		n, err := strconv.ParseUint(s, 10, 8)
		if err != nil {
			return nil, fmt.Errorf("%w: ptys", ErrPacket)
		}
		a.PTYs = int(n)
	}
	for name, to := range map[string]*[]byte{"settings": &a.Settings, "options": &a.Options} {
		if s, ok := m.Lookup(name); ok {
			if *to, err = UnB64(s); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	if a.User == "" {
		return nil, fmt.Errorf("%w: authinfo without user", ErrPacket)
	}
	return a, nil
}

// parseLimit reads SOFT:HARD, nil if there is none.
func parseLimit(m Msg, name string) (*[2]uint64, error) {
	s, ok := m.Lookup(name)
	if !ok {
		return nil, nil
	}
	soft, hard, _ := strings.Cut(s, ":")
	var lim [2]uint64
	for i, s := range []string{soft, hard} {
		var err error
		if lim[i], err = strconv.ParseUint(s, 10, 64); err != nil {
			return nil, fmt.Errorf("%w: %s", ErrPacket, name)
		}
	}
	return &lim, nil
}
