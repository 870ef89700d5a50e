package userlink

import (
	"fmt"
	"strconv"

	"p9auth/capproto"
)

// A Request is one of the types below. An object of an earlier request has that
// request's id.
type Request interface {
	encode(*capproto.Msg) // sets the verb and adds the attributes
}

// OpenPTY allocates a terminal.
type OpenPTY struct {
	Term  string
	Size  Size
	Modes []byte // RFC 4254 section 8
}

// Exec runs Subsystem if it is not empty, else the command if HasCommand, else
// the login shell.
type Exec struct {
	HasCommand bool
	Command    string
	Subsystem  string
	PTY        uint32   // 0: pipes
	X11        uint32   // 0: none
	Env        []string // NAME=VALUE, as the client asked
}

// Wait waits until a program has ended.
type Wait struct{ Program uint32 }

// Winch changes the size of a terminal's window.
type Winch struct {
	PTY  uint32
	Size Size
}

// Break sends a break to a terminal, RFC 4335.
type Break struct{ PTY uint32 }

// Signal sends a signal to a program, by its name in RFC 4254 section 6.10.
type Signal struct {
	Program uint32
	Name    string
}

// Drop lets go of a program or, if Program is 0, of a terminal.
type Drop struct{ Program, PTY uint32 }

// Dial connects to a TCP port.
type Dial struct {
	Host string
	Port uint32
}

// DialUnix connects to a unix socket.
type DialUnix struct{ Path string }

// Listen listens on a TCP port; 0 is any that is free.
type Listen struct {
	Host string
	Port uint32
}

// ListenUnix listens on a unix socket.
type ListenUnix struct{ Path string }

// ForwardAgent makes the socket of the agent.
type ForwardAgent struct{}

// ForwardX11 makes a display, RFC 4254 section 6.3.1.
type ForwardX11 struct {
	Single        bool
	Proto, Cookie string
	Screen        uint32
}

// Accept waits until somebody connects to a listener.
type Accept struct{ Listener uint32 }

// Cancel stops a listener.
type Cancel struct{ Listener uint32 }

// NoMoreSessions has OpenPTY, Exec, ForwardAgent and ForwardX11 refused from now
// on.
type NoMoreSessions struct{}

func (r OpenPTY) encode(m *capproto.Msg) {
	set(m, "pty", "term", r.Term)
	r.Size.add(m)
	m.Add("modes", capproto.B64(r.Modes))
}

func (r Exec) encode(m *capproto.Msg) {
	set(m, "exec")
	switch {
	case r.Subsystem != "":
		m.Add("subsystem", r.Subsystem)
	case r.HasCommand:
		m.Add("command", r.Command)
	}
	if r.PTY != 0 {
		m.Add("pty", utoa(r.PTY))
	}
	if r.X11 != 0 {
		m.Add("x11", utoa(r.X11))
	}
	for _, kv := range r.Env {
		m.Add("env", kv)
	}
}

func (r Wait) encode(m *capproto.Msg)   { set(m, "wait", "program", utoa(r.Program)) }
func (r Winch) encode(m *capproto.Msg)  { set(m, "winch", "pty", utoa(r.PTY)); r.Size.add(m) }
func (r Break) encode(m *capproto.Msg)  { set(m, "break", "pty", utoa(r.PTY)) }
func (r Signal) encode(m *capproto.Msg) { set(m, "signal", "program", utoa(r.Program), "name", r.Name) }

func (r Drop) encode(m *capproto.Msg) {
	if r.Program != 0 {
		set(m, "drop", "program", utoa(r.Program))
	} else {
		set(m, "drop", "pty", utoa(r.PTY))
	}
}

func (r Dial) encode(m *capproto.Msg)         { set(m, "dial", "host", r.Host, "port", utoa(r.Port)) }
func (r DialUnix) encode(m *capproto.Msg)     { set(m, "dial-unix", "path", r.Path) }
func (r Listen) encode(m *capproto.Msg)       { set(m, "listen", "host", r.Host, "port", utoa(r.Port)) }
func (r ListenUnix) encode(m *capproto.Msg)   { set(m, "listen-unix", "path", r.Path) }
func (r ForwardAgent) encode(m *capproto.Msg) { set(m, "agent") }

func (r ForwardX11) encode(m *capproto.Msg) {
	set(m, "x11", "single", yesNo(r.Single), "proto", r.Proto, "cookie", r.Cookie, "screen", utoa(r.Screen))
}

func (r Accept) encode(m *capproto.Msg)         { set(m, "accept", "listener", utoa(r.Listener)) }
func (r Cancel) encode(m *capproto.Msg)         { set(m, "cancel", "listener", utoa(r.Listener)) }
func (r NoMoreSessions) encode(m *capproto.Msg) { set(m, "no-more-sessions") }

func set(m *capproto.Msg, verb string, nameValue ...string) { *m = capproto.NewMsg(verb, nameValue...) }

func encode(id uint32, r Request) capproto.Msg {
	var m capproto.Msg
	r.encode(&m)
	m.Add("id", utoa(id))
	return m
}

// decode reads a request: every attribute that it must have, once, and no other.
// The error wraps capproto.ErrPacket.
func decode(m capproto.Msg) (id uint32, r Request, err error) {
	a := reader{m: m}
	id = a.object("id")
	switch m.Verb {
	case "pty":
		r = OpenPTY{Term: a.text("term"), Size: a.size(), Modes: a.blob("modes")}
	case "exec":
		x := Exec{}
		if a.has("subsystem") {
			x.Subsystem = a.some("subsystem")
		} else if x.HasCommand = a.has("command"); x.HasCommand {
			x.Command = a.text("command")
		}
		if a.has("pty") {
			x.PTY = a.object("pty")
		}
		if a.has("x11") {
			x.X11 = a.object("x11")
		}
		x.Env = m.All("env")
		a.used += len(x.Env)
		r = x
	case "wait":
		r = Wait{a.object("program")}
	case "winch":
		r = Winch{PTY: a.object("pty"), Size: a.size()}
	case "break":
		r = Break{a.object("pty")}
	case "signal":
		r = Signal{a.object("program"), a.text("name")}
	case "drop":
		if a.has("pty") {
			r = Drop{PTY: a.object("pty")}
		} else {
			r = Drop{Program: a.object("program")}
		}
	case "dial":
		r = Dial{a.text("host"), a.number("port")}
	case "dial-unix":
		r = DialUnix{a.text("path")}
	case "listen":
		r = Listen{a.text("host"), a.number("port")}
	case "listen-unix":
		r = ListenUnix{a.text("path")}
	case "agent":
		r = ForwardAgent{}
	case "x11":
		r = ForwardX11{a.flag("single"), a.text("proto"), a.text("cookie"), a.number("screen")}
	case "accept":
		r = Accept{a.object("listener")}
	case "cancel":
		r = Cancel{a.object("listener")}
	case "no-more-sessions":
		r = NoMoreSessions{}
	default:
		return 0, nil, fmt.Errorf("%w: there is no request %s", capproto.ErrPacket, m.Verb)
	}
	return id, r, a.end()
}

// A reader takes attributes off a message. The first mistake stays in err.
type reader struct {
	m    capproto.Msg
	used int // attributes
	err  error
}

func (a *reader) fail(name, what string) {
	if a.err == nil {
		a.err = fmt.Errorf("%w: %s: %s= %s", capproto.ErrPacket, a.m.Verb, name, what)
	}
}

func (a *reader) has(name string) bool {
	_, ok := a.m.Lookup(name)
	return ok
}

func (a *reader) text(name string) string {
	v, ok := a.m.Lookup(name)
	if !ok {
		a.fail(name, "is missing")
	}
	a.used++
	return v
}

func (a *reader) some(name string) string {
	v := a.text(name)
	if v == "" {
		a.fail(name, "is empty")
	}
	return v
}

// number reads a decimal number, in its one spelling.
func (a *reader) number(name string) uint32 {
	s := a.text(name)
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || utoa(uint32(n)) != s {
		a.fail(name, "is not a number")
	}
	return uint32(n)
}

// object reads an id. There is no id 0.
func (a *reader) object(name string) uint32 {
	n := a.number(name)
	if n == 0 {
		a.fail(name, "is not an id")
	}
	return n
}

func (a *reader) flag(name string) bool {
	v := a.text(name)
	if v != "yes" && v != "no" {
		a.fail(name, "is neither yes nor no")
	}
	return v == "yes"
}

func (a *reader) blob(name string) []byte {
	b, err := capproto.UnB64(a.text(name))
	if err != nil {
		a.fail(name, "is not base64")
	}
	return b
}

func (a *reader) size() Size {
	return Size{Cols: a.number("cols"), Rows: a.number("rows"), Width: a.number("width"), Height: a.number("height")}
}

// end reports the first mistake, or attributes that were not read.
func (a *reader) end() error {
	if a.err == nil && a.used != len(a.m.Attrs) {
		a.err = fmt.Errorf("%w: %s: an attribute that it does not take, or one that comes twice", capproto.ErrPacket, a.m.Verb)
	}
	return a.err
}

func (s Size) add(m *capproto.Msg) {
	m.Add("cols", utoa(s.Cols))
	m.Add("rows", utoa(s.Rows))
	m.Add("width", utoa(s.Width))
	m.Add("height", utoa(s.Height))
}

func utoa(n uint32) string { return strconv.FormatUint(uint64(n), 10) }

func yesNo(v bool) string {
	if v {
		return "yes"
	}
	return "no"
}
