package sshdconf

import (
	"reflect"
	"strings"
	"time"

	"p9auth/capproto"
	"p9auth/internal/match"
	"p9auth/internal/pack"
)

// The parts of the Settings: what each process is told, and nothing else. A
// field stands in each part whose process goes by it, under the name and with
// the type that it has in Settings; the keywords' table, Dump and Match know
// Settings alone.
//
// factotum reads the file, decides what holds for the address and then for the
// user, and encodes each part once. A process takes its part from factotum (or
// from a process that factotum's part has reached first), never from one that it
// polices:
//
//	Listen      the listener, from the file
//	Transport   the connection process, from factotum's reply to start
//	Connection  the connection process, from factotum's reply to user
//	Auth        factotum's PAM worker
//	Session     the user process, from factotum's reply to authinfo
//
// A change of a part must raise the version of its format.

// Listen is what the listener goes by, with what connection processes and
// redeemers need before factotum has spoken.
type Listen struct {
	Ports                      []int
	ListenAddresses            []HostPort // Port 0: each of Ports; Addresses combines them
	AddressFamily              Family
	LoginGraceTime             time.Duration
	MaxStartups                Startups
	PerSourceMaxStartups       int
	PerSourceNetBlockSize      NetBlock
	PerSourcePenalties         Penalties
	PerSourcePenaltyExemptList string
	PidFile                    string
	TCPKeepAlive               bool
	LogLevel                   LogLevel
	LogVerbose                 []string
}

// Transport is what the connection process goes by until the client has named
// its user. Keywords that Match changes have the values for the address.
type Transport struct {
	VersionAddendum   string
	HostKeyAlgorithms []string
	KexAlgorithms     []string
	Ciphers           []string
	MACs              []string
	RekeyLimit        Rekey

	// PubkeyAcceptedAlgorithms are SignatureAlgorithms alone, to be announced until the
	// user is known: those of any user.
	PubkeyAcceptedAlgorithms []string
}

// ServerVersion is the version string that the server announces (RFC 4253,
// section 4.2), without the end of the line. sshfront sends it, and factotum
// signs for no other.
func (t *Transport) ServerVersion() string {
	if t.VersionAddendum == "" {
		return capproto.SSHVersion
	}
	return capproto.SSHVersion + " " + t.VersionAddendum
}

// TransportFormat is Transport's encoding.
var TransportFormat = pack.Format[Transport]{Name: "transport settings", Version: 2}

// Connection is what the connection process goes by once the client has named
// its user: how a proof may be offered, and what it polices afterwards.
type Connection struct {
	MaxAuthTries             int
	PubkeyAcceptedAlgorithms []string
	RekeyLimit               Rekey
	ClientAliveInterval      time.Duration
	ClientAliveCountMax      int // 0: never disconnect
	UnusedConnectionTimeout  time.Duration
	ChannelTimeouts          []ChannelTimeout
	MaxSessions              int
	IPQoS                    QoS
	LogLevel                 LogLevel
	LogVerbose               []string
	AcceptEnv                []string // to answer the client; the user process filters
}

// ConnectionFormat is Connection's encoding.
var ConnectionFormat = pack.Format[Connection]{Name: "connection settings", Version: 1}

// Auth is what factotum's PAM worker goes by when it looks for keys.
type Auth struct {
	StrictModes                     bool
	AuthorizedKeysFiles             []string
	AuthorizedKeysCommand           string
	AuthorizedKeysCommandUser       string
	AuthorizedPrincipalsFile        string
	AuthorizedPrincipalsCommand     string
	AuthorizedPrincipalsCommandUser string
	TrustedUserCAKeys               string
	RevokedKeys                     []string
	CASignatureAlgorithms           []string
	FingerprintHash                 string
}

// AuthFormat is Auth's encoding.
var AuthFormat = pack.Format[Auth]{Name: "settings for keys", Version: 1}

// Session is what the user process goes by. All that guards against the
// connection process is here, whether that polices it too or not.
type Session struct {
	MaxSessions                int
	AcceptEnv                  []string
	SetEnv                     []string
	PermitUserEnvironment      UserEnv
	PermitUserRC               bool
	ForceCommand               string
	Subsystems                 []Subsystem
	PermitTTY                  bool
	PrintMotd                  bool
	ExposeAuthInfo             bool
	X11Forwarding              bool
	X11DisplayOffset           int
	X11UseLocalhost            bool
	XAuthLocation              string
	AllowAgentForwarding       bool
	AllowTcpForwarding         Forward
	AllowStreamLocalForwarding Forward
	StreamLocalBindMask        uint32
	StreamLocalBindUnlink      bool
	DisableForwarding          bool
	GatewayPorts               Gateway
	PermitOpen                 Permits
	PermitListen               Permits
	AddressFamily              Family
}

// SessionFormat is Session's encoding.
var SessionFormat = pack.Format[Session]{Name: "session settings", Version: 1}

// Listen is the listener's part.
func (s *Settings) Listen() *Listen { return part[Listen](s) }

// keyTypeOf is the type of the keys that sign in an algorithm, or of certificates for
// them, without its domain.
func keyTypeOf(alg string) string {
	plain, isCert := strings.CutSuffix(alg, "-cert-v01@openssh.com")
	if !isCert {
		plain = strings.TrimSuffix(alg, "@openssh.com")
	}
	if strings.HasPrefix(plain, "rsa-sha2-") {
		return "ssh-rsa"
	}
	return plain
}

// Connection is the connection process's part for a user.
func (s *Settings) Connection() *Connection { return part[Connection](s) }

// Auth is the PAM worker's part.
func (s *Settings) Auth() *Auth { return part[Auth](s) }

// Session is the user process's part.
func (s *Settings) Session() *Session { return part[Session](s) }

// part copies the fields that T has. It panics where Settings has no such field,
// which a test excludes.
func part[T any](s *Settings) *T {
	p := new(T)
	from, to := reflect.ValueOf(s).Elem(), reflect.ValueOf(p).Elem()
	for i := range to.NumField() {
		to.Field(i).Set(from.FieldByName(to.Type().Field(i).Name))
	}
	return p
}

// Addresses returns the addresses to listen on: each ListenAddress with its port
// or each Port, and without any the wildcard addresses of AddressFamily. Hosts
// may be names, to be resolved by the caller within AddressFamily.
func (s *Listen) Addresses() []HostPort {
	var out []HostPort
	if len(s.ListenAddresses) == 0 {
		for _, p := range s.Ports {
			if s.AddressFamily != FamilyInet {
				out = append(out, HostPort{"::", p})
			}
			if s.AddressFamily != FamilyInet6 {
				out = append(out, HostPort{"0.0.0.0", p})
			}
		}
	}
	for _, a := range s.ListenAddresses {
		if a.Port != 0 {
			out = append(out, a)
			continue
		}
		for _, p := range s.Ports {
			out = append(out, HostPort{a.Host, p})
		}
	}
	return out
}

// AcceptsEnv reports whether the client may set the environment variable.
func (s *Session) AcceptsEnv(name string) bool { return acceptsEnv(s.AcceptEnv, name) }

// AcceptsEnv reports whether the client may set the environment variable.
func (s *Connection) AcceptsEnv(name string) bool { return acceptsEnv(s.AcceptEnv, name) }

func acceptsEnv(patterns []string, name string) bool {
	for _, p := range patterns {
		if match.Pattern(name, p) {
			return true
		}
	}
	return false
}

// ChannelTimeout returns how long a channel of the type may be idle; 0: for
// ever. The type "global" is never matched by a wildcard.
func (s *Connection) ChannelTimeout(channel string) time.Duration {
	for _, t := range s.ChannelTimeouts {
		if t.Type == channel || t.Type != "global" && channel != "global" && match.Pattern(channel, t.Type) {
			return t.Timeout
		}
	}
	return 0
}

// Subsystem returns the command of a subsystem.
func (s *Session) Subsystem(name string) (string, bool) {
	for _, x := range s.Subsystems {
		if x.Name == name {
			return x.Command, true
		}
	}
	return "", false
}
