package sshdconf

import (
	"fmt"
	"math"
	"net"
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
	{"prohibit-password", RootNoPassword}, {"without-password", RootNoPassword}, {"yes", RootYes},
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
	{"QUIET", LogQuiet}, {"FATAL", LogFatal}, {"ERROR", LogError}, {"INFO", LogInfo}, {"VERBOSE", LogVerbose},
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
		return net.JoinHostPort(h.Host, port)
	}
	return h.Host + ":" + port
}

// AllowsOpen reports whether the client may have the server connect to host and
// port. Only a host of "*" is a wildcard (PermitOpen).
func (p Permits) AllowsOpen(host string, port int) bool {
	return p.allows(port, func(h string) bool { return h == "*" || h == host })
}

// AllowsListen reports whether the client may have the server listen; host is
// what the client asked for and entries are patterns (PermitListen).
func (p Permits) AllowsListen(host string, port int) bool {
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

func parsePort(s string) (int, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("bad port %q", clip(s))
	}
	return int(n), nil
}

const maxTime = math.MaxInt32 * time.Second

// parseTime parses the TIME FORMATS of sshd_config(5), with fractions of a
// second where fractions are allowed (PerSourcePenalties).
func parseTime(s string, fractions bool) (time.Duration, error) {
	bad := fmt.Errorf("invalid time %q", clip(s))
	var total time.Duration
	seconds := false
	if s == "" || len(s) > 64 {
		return 0, bad
	}
	for s != "" {
		n := 0
		for n < len(s) && (s[n] >= '0' && s[n] <= '9' || s[n] == '.') {
			n++
		}
		num, unit := s[:n], time.Second
		whole, frac, dot := strings.Cut(num, ".")
		v, err := strconv.ParseUint(whole, 10, 31)
		if err != nil || dot && !fractions {
			return 0, bad
		}
		if s = s[n:]; s != "" {
			switch s[0] {
			case 's', 'S':
			case 'm', 'M':
				unit = time.Minute
			case 'h', 'H':
				unit = time.Hour
			case 'd', 'D':
				unit = 24 * time.Hour
			case 'w', 'W':
				unit = 7 * 24 * time.Hour
			default:
				return 0, bad
			}
			s = s[1:]
		}
		if unit == time.Second {
			if seconds {
				return 0, bad
			}
			seconds = true
		} else if dot {
			return 0, bad
		}
		if v > uint64(maxTime/unit) {
			return 0, bad
		}
		d := time.Duration(v) * unit
		if dot {
			f, err := strconv.ParseFloat("0."+frac, 64)
			if err != nil || frac == "" {
				return 0, bad
			}
			d += time.Duration(f * float64(time.Second))
		}
		if total += d; total > maxTime {
			return 0, bad
		}
	}
	return total, nil
}

// parseSize parses a byte count with an optional suffix K, M, G or T
// (RekeyLimit).
func parseSize(s string) (uint64, error) {
	digits, shift := s, 0
	if n := len(s); n > 0 {
		if i := strings.IndexByte("BKMGT", s[n-1]&^0x20); i >= 0 && s[n-1] > '9' {
			digits, shift = s[:n-1], 10*i
		}
	}
	v, err := strconv.ParseUint(digits, 10, 63)
	if err != nil || v > math.MaxInt64>>shift {
		return 0, fmt.Errorf("invalid size %q", clip(s))
	}
	return v << shift, nil
}

// qosNames are the DSCP names of sshd_config(5) as IP_TOS bytes (RFC 2474,
// RFC 2597, RFC 3246, RFC 8622).
var qosNames = names[int]{
	{"af11", 0x28}, {"af12", 0x30}, {"af13", 0x38}, {"af21", 0x48}, {"af22", 0x50}, {"af23", 0x58},
	{"af31", 0x68}, {"af32", 0x70}, {"af33", 0x78}, {"af41", 0x88}, {"af42", 0x90}, {"af43", 0x98},
	{"cs0", 0}, {"cs1", 0x20}, {"cs2", 0x40}, {"cs3", 0x60}, {"cs4", 0x80}, {"cs5", 0xa0}, {"cs6", 0xc0}, {"cs7", 0xe0},
	{"ef", 0xb8}, {"le", 0x04}, {"none", -1},
}

func parseQoS(s string) (int, error) {
	switch strings.ToLower(s) {
	case "lowdelay", "throughput", "reliability":
		return 0, fmt.Errorf("%q is a type of service, which RFC 2474 retired: name a DSCP", s)
	}
	if v, err := qosNames.parse(s); err == nil {
		return v, nil
	}
	v, err := strconv.ParseUint(s, 0, 8)
	if err != nil {
		return 0, fmt.Errorf("bad DSCP %q", clip(s))
	}
	return int(v), nil
}

func qosName(v int) string {
	if n := qosNames.of(v); n != "unknown" {
		return n
	}
	return fmt.Sprintf("0x%02x", v)
}

func clip(s string) string { return s[:min(len(s), 100)] }
