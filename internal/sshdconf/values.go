package sshdconf

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"p9auth/internal/match"
)

// RootLogin is the value of PermitRootLogin.
type RootLogin int

const (
	RootNo             RootLogin = iota
	RootForcedCommands           // public key only, and only with a forced command
	RootNoPassword               // prohibit-password: neither password nor keyboard-interactive
	RootYes
)

var rootNames = names[RootLogin]{
	{"no", RootNo}, {"forced-commands-only", RootForcedCommands},
	{"without-password", RootNoPassword}, {"prohibit-password", RootNoPassword}, {"yes", RootYes},
}

func (r RootLogin) String() string { return rootNames.of(r) }

// Forward says in which directions a kind of forwarding is permitted, seen from
// the client as ssh(1) does.
type Forward int

const (
	ForwardNone   Forward = 0
	ForwardLocal  Forward = 1 // ssh -L: the server connects
	ForwardRemote Forward = 2 // ssh -R: the server listens
	ForwardAll    Forward = 3
)

var forwardNames = names[Forward]{
	{"yes", ForwardAll}, {"all", ForwardAll}, {"no", ForwardNone}, {"local", ForwardLocal}, {"remote", ForwardRemote},
}

func (f Forward) String() string { return forwardNames.of(f) }

// Local reports whether the server may connect for the client.
func (f Forward) Local() bool { return f&ForwardLocal != 0 }

// Remote reports whether the server may listen for the client.
func (f Forward) Remote() bool { return f&ForwardRemote != 0 }

// Gateway is the value of GatewayPorts.
type Gateway int

const (
	GatewayNo              Gateway = iota // remote forwards listen on loopback
	GatewayYes                            // remote forwards listen on the wildcard address
	GatewayClientSpecified                // the client chooses
)

var gatewayNames = names[Gateway]{
	{"no", GatewayNo}, {"yes", GatewayYes}, {"clientspecified", GatewayClientSpecified},
}

func (g Gateway) String() string { return gatewayNames.of(g) }

// Family is the value of AddressFamily.
type Family int

const (
	FamilyAny Family = iota
	FamilyInet
	FamilyInet6
)

var familyNames = names[Family]{{"any", FamilyAny}, {"inet", FamilyInet}, {"inet6", FamilyInet6}}

func (f Family) String() string { return familyNames.of(f) }

// LogLevel is the value of LogLevel; a higher one says more.
type LogLevel int

const (
	LogQuiet LogLevel = iota
	LogFatal
	LogError
	LogInfo
	LogVerbose
	LogDebug1
	LogDebug2
	LogDebug3
)

var logNames = names[LogLevel]{
	{"SILENT", LogQuiet}, {"QUIET", LogQuiet}, {"FATAL", LogFatal}, {"ERROR", LogError}, {"INFO", LogInfo}, {"VERBOSE", LogVerbose},
	{"DEBUG", LogDebug1}, {"DEBUG1", LogDebug1}, {"DEBUG2", LogDebug2}, {"DEBUG3", LogDebug3},
}

func (l LogLevel) String() string { return logNames.of(l) }

// Facility is a syslog facility code (RFC 5424, section 6.2.1).
type Facility int

var facilityNames = names[Facility]{
	{"DAEMON", 3}, {"USER", 1}, {"AUTH", 4}, {"AUTHPRIV", 10}, {"LOCAL0", 16}, {"LOCAL1", 17}, {"LOCAL2", 18},
	{"LOCAL3", 19}, {"LOCAL4", 20}, {"LOCAL5", 21}, {"LOCAL6", 22}, {"LOCAL7", 23},
}

func (f Facility) String() string { return facilityNames.of(f) }

// names is a keyword's values by name; the first name of a value is the one
// printed.
type names[T comparable] []struct {
	name string
	v    T
}

func (n names[T]) of(v T) string {
	for _, e := range n {
		if e.v == v {
			return e.name
		}
	}
	return "unknown"
}

func (n names[T]) parse(s string) (T, error) {
	for _, e := range n {
		if strings.EqualFold(e.name, s) {
			return e.v, nil
		}
	}
	var zero T
	return zero, fmt.Errorf("unsupported value %q", clip(s))
}

var flagNames = names[bool]{{"yes", true}, {"no", false}}

// Rekey is the value of RekeyLimit.
type Rekey struct {
	Bytes    uint64        // 0: what the cipher wants
	Interval time.Duration // 0: never for time alone
}

// Startups is the value of MaxStartups: below Begin unauthenticated connections
// all are let in, from there Rate percent are dropped, rising to all of them at
// Full.
type Startups struct{ Begin, Rate, Full int }

// NetBlock is the value of PerSourceNetBlockSize: how many leading bits of an
// address are one source.
type NetBlock struct{ V4, V6 int }

// Penalties is the value of PerSourcePenalties.
type Penalties struct {
	Enabled                                                  bool
	Crash, AuthFail, InvalidUser, NoAuth, Grace, RefusedConn time.Duration
	Max, Min                                                 time.Duration
	MaxSources4, MaxSources6                                 int
	DenyAll4, DenyAll6                                       bool // overflow:deny-all, overflow6:deny-all
}

// QoS is the value of IPQoS: the IP_TOS byte of interactive and of bulk
// connections, or -1 to leave the system's.
type QoS struct{ Interactive, Bulk int }

// UserEnv is the value of PermitUserEnvironment.
type UserEnv struct {
	Permit   bool
	Patterns string // pattern list of names; empty: all
}

// Allows reports whether a user may set the environment variable.
func (u UserEnv) Allows(name string) bool {
	return u.Permit && (u.Patterns == "" || match.List(name, u.Patterns) == match.Matched)
}

// Permits is the value of PermitOpen or PermitListen. The zero value permits
// everything.
type Permits struct {
	None bool
	List []HostPort // nothing else, when not empty
}

// HostPort is a host (or pattern) and a port; port 0 is any.
type HostPort struct {
	Host string
	Port int
}

func (h HostPort) String() string {
	port := "*"
	if h.Port != 0 {
		port = strconv.Itoa(h.Port)
	}
	if strings.Contains(h.Host, ":") {
		return "[" + h.Host + "]:" + port
	}
	return h.Host + ":" + port
}

// AllowsOpen reports whether the client may have the server connect to host and
// port. Only a host of "*" is a wildcard (PermitOpen).
func (p Permits) AllowsOpen(host string, port int) bool {
	return p.allows(port, func(h string) bool { return h == "*" || h == host })
}

// AllowsListen reports whether the client may have the server listen; host is
// what the client asked for, in any case, and entries are patterns (PermitListen).
func (p Permits) AllowsListen(host string, port int) bool {
	host = strings.ToLower(host)
	return p.allows(port, func(h string) bool { return match.Pattern(host, h) })
}

func (p Permits) allows(port int, host func(string) bool) bool {
	if p.None {
		return false
	}
	for _, e := range p.List {
		if (e.Port == 0 || e.Port == port) && host(e.Host) {
			return true
		}
	}
	return len(p.List) == 0
}

// ParsePermit parses one entry of PermitOpen or of permitopen= in
// authorized_keys: host:port, [v6]:port, port "*" for any. With bare, a port
// alone means any host, as PermitListen has it.
func ParsePermit(s string, bare bool) (HostPort, error) {
	if bare && !strings.Contains(s, ":") {
		s = "*:" + s
	}
	i := strings.LastIndexByte(s, ':')
	if i < 1 {
		return HostPort{}, fmt.Errorf("%q is not host:port", clip(s))
	}
	host, port := s[:i], s[i+1:]
	if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		host = host[1 : len(host)-1]
	} else if strings.Contains(host, ":") {
		return HostPort{}, fmt.Errorf("%q: an IPv6 address needs brackets", clip(s))
	}
	if host == "" || len(host) > 1024 || strings.ContainsAny(host, " \t[]/") {
		return HostPort{}, fmt.Errorf("bad host in %q", clip(s))
	}
	if port == "*" {
		return HostPort{host, 0}, nil
	}
	n, err := parsePort(port)
	return HostPort{host, n}, err
}

// Subsystem is one Subsystem line: Command is for the user's shell, except
// "internal-sftp" with its arguments.
type Subsystem struct{ Name, Command string }

// ChannelTimeout is one pair of ChannelTimeout; Type is a pattern or the word
// "global".
type ChannelTimeout struct {
	Type    string
	Timeout time.Duration
}

// parsePort takes a number, as strtonum(3) reads it, or a service of services(5).
func parsePort(s string) (int, error) {
	n, err := strconv.ParseUint(strings.TrimPrefix(s, "+"), 10, 16)
	if s != "" && !strings.ContainsAny(s, "+-0123456789") {
		n, err = servicePort(s)
	}
	if err != nil || n == 0 {
		return 0, fmt.Errorf("bad port %q", clip(s))
	}
	return int(n), nil
}

// servicesFile is services(5).
var servicesFile = "/etc/services"

// servicePort is the port of a service over TCP, by its name or an alias.
func servicePort(name string) (uint64, error) {
	f, err := os.Open(servicesFile)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for s := bufio.NewScanner(io.LimitReader(f, 1<<20)); s.Scan(); {
		text, _, _ := strings.Cut(s.Text(), "#")
		words := strings.Fields(text)
		if len(words) < 2 || words[0] != name && !slices.Contains(words[2:], name) {
			continue
		}
		if port, tcp := strings.CutSuffix(words[1], "/tcp"); tcp {
			return strconv.ParseUint(port, 10, 16)
		}
	}
	return 0, fmt.Errorf("%s has no service %q over TCP", servicesFile, clip(name))
}
