package capproto

import (
	"os"
	"strconv"
	"strings"
	"unicode"

	"golang.org/x/sys/unix"
)

// StartSu begins su: who the user is to be, with su - or without. tty is the person's
// terminal, or nil; its name goes to PAM.
func (c *Client) StartSu(user string, login bool, tty *os.File) error {
	m := NewMsg(VerbStart, "proto", "su", "version", strconv.Itoa(Version), "user", user)
	if login {
		m.Add("login", "yes")
	}
	var files []*os.File
	if tty != nil {
		files = append(files, tty)
	}
	reply, err := c.start(m, files...)
	reply.Close()
	return err
}

// A Run is what su is to execute.
type Run struct {
	Shell    string   // the wanted one, or "" for the user's
	Preserve bool     // the environment stays
	Args     []string // after argv[0]
	Env      []string // NAME=VALUE
	Umask    int
	FDs      []int    // that stay open besides 0, 1 and 2, ascending
	Groups   []string // in place of the user's own, the primary one first; only root may
	Path     string   // by doas: the program where Args[0] has been found, "" for nowhere
	Dir      string   // by doas: the caller's directory, for the log
}

// maxPiece is how much of a value goes into a packet: quoting may double it.
const maxPiece = MaxRequest/2 - 1024

// Run says what is to be executed. What does not fit into one packet goes into several.
func (c *Client) Run(r Run) error {
	m := NewMsg(VerbRun, "umask", strconv.FormatInt(int64(r.Umask), 8))
	if r.Shell != "" {
		m.Add("shell", r.Shell)
	}
	if r.Path != "" {
		m.Add("path", r.Path)
	}
	if r.Dir != "" {
		m.Add("dir", r.Dir)
	}
	if r.Preserve {
		m.Add("preserve", "yes")
	}
	for _, g := range r.Groups {
		m.Add("group", g)
	}
	for _, fd := range r.FDs {
		m.Add("fd", strconv.Itoa(fd))
	}
	size := 1024
	add := func(name, value string) error {
		if size += len(value) + 16; size > maxPiece || len(m.Attrs) == MaxAttrs {
			if _, err := c.rpc(m); err != nil {
				return err
			}
			m, size = NewMsg(VerbRun), len(value)+16
		}
		m.Add(name, value)
		return nil
	}
	for _, list := range []struct {
		name   string
		values []string
	}{{"arg", r.Args}, {"env", r.Env}} {
		for _, v := range list.values {
			for name := list.name; ; name = "more" {
				n := min(len(v), maxPiece-32)
				if err := add(name, v[:n]); err != nil {
					return err
				}
				if v = v[n:]; v == "" {
					break
				}
			}
		}
	}
	_, err := c.rpc(m)
	return err
}

// SessionAt opens the session, as Session does, and says which X11 display su is at, for
// pam_xauth(8): DISPLAY and XAUTHORITY, or "" for what is not set or not possible.
func (c *Client) SessionAt(display, authority string) error {
	m := NewMsg(VerbSession)
	if PossibleDisplay(display) {
		m.Add("display", display)
	}
	if PossibleAuthority(authority) {
		m.Add("authority", authority)
	}
	_, err := c.rpc(m)
	return err
}

// PossibleDisplay says whether a text can be DISPLAY, see X(7): 1 to 255 bytes of ASCII that
// are visible, and not an option of a command.
func PossibleDisplay(s string) bool {
	return s != "" && len(s) < 256 && s[0] != '-' && !strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c > '~' })
}

// PossibleAuthority says whether a text can be the path in XAUTHORITY: absolute, of less than
// PATH_MAX bytes, without control characters.
func PossibleAuthority(s string) bool {
	return strings.HasPrefix(s, "/") && len(s) < unix.PathMax && !strings.ContainsFunc(s, unicode.IsControl)
}

// Signal sends a signal, TERM, KILL or CONT, to a child of the caller that has redeemed
// a capability of this conversation.
func (c *Client) Signal(pid int, name string) error {
	_, err := c.rpc(NewMsg(VerbSignal, "pid", strconv.Itoa(pid), "signal", name))
	return err
}

// StartDoas begins doas: as whom a command is to be executed. tty is as in StartSu. It
// returns the caller's shell. Run says then what the command is, and Permit asks.
func (c *Client) StartDoas(user string, tty *os.File) (shell string, err error) {
	var files []*os.File
	if tty != nil {
		files = append(files, tty)
	}
	reply, err := c.start(NewMsg(VerbStart, "proto", "doas", "version", strconv.Itoa(Version), "user", user), files...)
	shell = reply.Get("shell")
	reply.Close()
	return shell, err
}

// Permit has factotum decide by doas.conf(5). It returns whether the caller has to prove
// who they are. Converse must follow.
func (c *Client) Permit() (proof bool, err error) {
	reply, err := c.rpc(NewMsg(VerbPermit))
	return reply.Get("proof") != "no", err
}

// ForgetDoas has factotum forget that the caller has proven who they are, in this session
// and at this terminal.
func (c *Client) ForgetDoas() error {
	reply, err := c.start(NewMsg(VerbStart, "proto", "doas", "version", strconv.Itoa(Version), "forget", "yes"))
	reply.Close()
	return err
}
