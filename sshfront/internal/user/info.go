package user

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"p9auth/capproto"
	"p9auth/internal/authkeys"
	"p9auth/internal/pack"
	"p9auth/internal/sshdconf"
	"p9auth/internal/sys"
	"p9auth/sshfront/internal/userlink"
)

const maxInfo = 1 << 20 // bytes of its encoding

// Info is what the user process is told when it starts.
type Info struct {
	User     string
	UID, GID uint32
	Home     string
	Shell    string     // empty: /bin/sh
	Env      []string   // NAME=VALUE, as PAM's modules set them
	Umask    int        // or -1 to leave it
	NoFile   *[2]uint64 // soft and hard limit, or nil
	NoHome   string     // why the user cannot enter Home; empty if they can
	Hush     bool       // there is a .hushlogin
	Messages []string   // of PAM, for the terminal before an interactive shell
	Root     string     // the root directory that the process is in; empty: the machine's
	PTYs     int        // masters of terminals that are open in there, at most
	Settings sshdconf.Session
	// Options of the user's key or certificate; nil: neither was used, and
	// they forbid nothing.
	Options *authkeys.Options
	Methods []string // what the proof consisted of
	Expired bool     // so is the password: the session can only change it
	// Client and Server are the two ends of the connection.
	Client, Server netip.AddrPort
	// Link is userlink.Version of the program that the connection process runs.
	Link uint32
}

// infoFormat is Info's encoding, from the redeemer to the user process. These two
// are different programs where the file was replaced while the listener ran.
var infoFormat = pack.Format[Info]{Name: "what the user process is told", Version: 3}

// NewInfo makes the Info of what factotum said and the connection's ends.
func NewInfo(a *capproto.AuthInfo, client, server netip.AddrPort) (*Info, error) {
	i := &Info{
		User: a.User, UID: a.UID, GID: a.GID, Home: a.Home, Shell: a.Shell, Env: a.Env,
		Umask: a.Umask, NoFile: a.NoFile, NoHome: a.NoHome, Hush: a.Hush, Messages: a.Messages, Methods: a.Methods, Expired: a.Expired,
		Root: a.Root, PTYs: a.PTYs,
		Client: netip.AddrPortFrom(client.Addr().Unmap(), client.Port()),
		Server: netip.AddrPortFrom(server.Addr().Unmap(), server.Port()),
	}
	set, err := sshdconf.SessionFormat.Decode(a.Settings)
	if err != nil {
		return nil, pack.Between(err, "factotum", "sshfront")
	}
	i.Settings = *set
	if i.Root != "" {
		i.Hush = false // .hushlogin outside of the root does not count
	}
	if len(a.Options) > 0 {
		if i.Options, err = authkeys.OptionsFormat.Decode(a.Options); err != nil {
			return nil, pack.Between(err, "factotum", "sshfront")
		}
	}
	return i, nil
}

// sealed is the Info of what factotum has bound the login to: all of i but what
// PAM had to say, which the process that started us has heard last, and the link. Where the
// grant was not bound, as the kernel's capability device cannot bind one, i is
// all there is.
func (i *Info) sealed() (*Info, error) {
	text, ok := os.LookupEnv(capproto.LoginVariable)
	if !ok {
		return i, nil
	}
	a, err := capproto.ParseLogin(text)
	if err != nil {
		return nil, fmt.Errorf("the login from factotum: %w", err)
	}
	client, err1 := netip.ParseAddrPort(a.Remote)
	server, err2 := netip.ParseAddrPort(a.Local)
	if err := errors.Join(err1, err2); err != nil {
		return nil, fmt.Errorf("the login from factotum: %w", err)
	}
	s, err := NewInfo(a, client, server)
	if err != nil {
		return nil, err
	}
	s.Messages, s.Link = i.Messages, i.Link
	return s, nil
}

// Apply sets the calling process's umask and its limit of open files. Both
// survive execve(2). The session process calls it before it redeems, since Go
// would put back the limit that it found; the user process has no right to
// raise it again.
func (i *Info) Apply() error {
	if i.Umask >= 0 {
		unix.Umask(i.Umask)
	}
	if i.NoFile == nil {
		return nil
	}
	// Not that of x/sys: Go must be told, or it undoes it on exec.
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: i.NoFile[0], Max: i.NoFile[1]}); err != nil {
		return fmt.Errorf("setrlimit: %w", err)
	}
	return nil
}

// Memfd returns a sealed memory file with the Info, to be inherited by the
// user process as descriptor 4.
func (i *Info) Memfd() (*os.File, error) {
	out := *i
	out.Link = userlink.Version
	b := infoFormat.Encode(&out)
	if len(b) > maxInfo {
		return nil, fmt.Errorf("what the user process is to know has %d bytes, at most %d", len(b), maxInfo)
	}
	return sys.Memfd("sshfront-info", b)
}

// readInfo reads what Memfd wrote.
func readInfo(r io.Reader) (*Info, error) {
	b, err := sys.ReadAll(r, maxInfo)
	if err != nil {
		return nil, err
	}
	i, err := infoFormat.Decode(b)
	if err != nil {
		return nil, pack.Between(err, "sshfront's listener", "its program")
	}
	if i.Link != userlink.Version {
		return nil, fmt.Errorf("sshfront's listener has another version than its program; restart it (version %d and %d of the link)", i.Link, userlink.Version)
	}
	return i, nil
}

// options are those of the key; without a key, those that forbid nothing. As long as
// the password has expired there is no forwarding, as with sshd.
func (i *Info) options() authkeys.Options {
	o, _, _ := authkeys.ParseOptions("")
	if i.Options != nil {
		o = *i.Options
	}
	if i.Expired {
		o.PortForwarding, o.AgentForwarding, o.X11Forwarding = false, false, false
	}
	return o
}
