package sshdconf

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"p9auth/internal/match"
)

// Settings are the values of all implemented keywords for one connection or,
// from Config.Global, for the listener. Fields are named as their keywords, in
// the plural where a keyword may be repeated; the manual page says what they
// mean. Durations of zero mean no limit. A Settings is plain data and stays in
// the process that has read the file; other processes get parts of it: see
// Listen, Transport, Connection, Auth, Session.
type Settings struct {
	// Unused are values of keywords without effect, for Dump.
	Unused map[string]string

	// The listener.
	Ports                 []int
	ListenAddresses       []HostPort // Port 0: each of Ports; Listen combines them
	AddressFamily         Family
	LoginGraceTime        time.Duration
	MaxStartups           Startups
	PerSourceMaxStartups  int // math.MaxInt32: no limit
	PerSourceNetBlockSize NetBlock
	PerSourcePenalties    Penalties
	// PerSourcePenaltyExemptList is a list for match.Addr; empty: nobody.
	PerSourcePenaltyExemptList string
	PidFile                    string // empty: none
	TCPKeepAlive               bool
	UseDNS                     bool
	VersionAddendum            string

	// The protocol.
	HostKeys []string
	// HostKeysGiven: the configuration names them, so a missing one is an error.
	HostKeysGiven           bool
	HostKeyAgent            string // the socket, or SSH_AUTH_SOCK for what that variable says; empty: none
	SecurityKeyProvider     string // of host keys that are security keys: a library, or "internal"; empty: none
	HostCertificates        []string
	HostKeyAlgorithms       []string
	KexAlgorithms           []string
	Ciphers                 []string
	MACs                    []string
	RekeyLimit              Rekey
	ClientAliveInterval     time.Duration
	ClientAliveCountMax     int // 0: never disconnect
	UnusedConnectionTimeout time.Duration
	ChannelTimeouts         []ChannelTimeout
	ChannelTimeoutText      string // as it was given, for Dump; empty: none
	IPQoS                   QoS
	RefuseConnection        bool
	LogLevel                LogLevel
	LogVerbose              []string
	SyslogFacility          Facility
	FingerprintHash         string // "sha256" or "md5"

	// Authentication.
	PubkeyAuthentication         bool
	PasswordAuthentication       bool
	KbdInteractiveAuthentication bool
	GSSAPIAuthentication         bool
	GSSAPICleanupCredentials     bool
	GSSAPIDelegateCredentials    bool
	GSSAPIStrictAcceptorCheck    bool
	// AuthenticationMethods are alternatives of methods to complete in order;
	// nil means that any one method does.
	AuthenticationMethods     [][]string
	AuthenticationMethodsText string // as they were given, for Dump
	PermitEmptyPasswords      bool
	PermitRootLogin           RootLogin
	AllowUsers, DenyUsers     []string
	AllowGroups, DenyGroups   []string
	MaxAuthTries              int
	StrictModes               bool
	AuthorizedKeysFiles       []string // "none": look in no file
	AuthorizedPrincipalsFile  string   // empty: none
	TrustedUserCAKeys         string   // empty: none
	RevokedKeys               []string
	PubkeyAcceptedAlgorithms  []string
	CASignatureAlgorithms     []string
	TouchRequired             bool // PubkeyAuthOptions
	VerifyRequired            bool // PubkeyAuthOptions
	RequiredRSASize           int  // bits
	Banner                    string
	ExposeAuthInfo            bool

	// Programs, and the user that each runs as, which may be %u; empty: none.
	AuthorizedKeysCommand, AuthorizedKeysCommandUser             string
	AuthorizedPrincipalsCommand, AuthorizedPrincipalsCommandUser string

	// The session.
	MaxSessions                int
	AcceptEnv                  []string // patterns
	SetEnv                     []string // NAME=value, each name once
	PermitUserEnvironment      UserEnv
	PermitUserRC               bool
	ForceCommand               string // empty: none
	ChrootDirectory            string // with tokens; empty: none
	Subsystems                 []Subsystem
	PermitTTY                  bool
	PrintMotd                  bool
	PrintLastLog               bool
	X11Forwarding              bool
	X11DisplayOffset           int
	X11UseLocalhost            bool
	XAuthLocation              string // empty: none
	AllowAgentForwarding       bool
	AllowTcpForwarding         Forward
	AllowStreamLocalForwarding Forward
	StreamLocalBindMask        uint32
	StreamLocalBindUnlink      bool
	DisableForwarding          bool // overrides the five above
	GatewayPorts               Gateway
	PermitOpen                 Permits
	PermitListen               Permits
}

func defaults() *Settings {
	return &Settings{
		AddressFamily:         FamilyAny,
		LoginGraceTime:        120 * time.Second,
		MaxStartups:           Startups{10, 30, 100},
		PerSourceMaxStartups:  noLimit,
		PerSourceNetBlockSize: NetBlock{32, 128},
		PerSourcePenalties: Penalties{Enabled: true, Crash: 90 * time.Second, AuthFail: 5 * time.Second,
			InvalidUser: 5 * time.Second, NoAuth: time.Second, Grace: 10 * time.Second, RefusedConn: 10 * time.Second,
			Max: 10 * time.Minute, Min: 15 * time.Second, MaxSources4: 65536, MaxSources6: 65536},
		TCPKeepAlive: true,

		SecurityKeyProvider: "internal",
		HostKeys: []string{"/etc/ssh/ssh_host_rsa_key", "/etc/ssh/ssh_host_ecdsa_key",
			"/etc/ssh/ssh_host_ed25519_key"},
		HostKeyAlgorithms:   hostKeyAlgos().defaults,
		KexAlgorithms:       kexAlgos().defaults,
		Ciphers:             cipherAlgos().defaults,
		MACs:                macAlgos().defaults,
		ClientAliveCountMax: 3,
		IPQoS:               QoS{Interactive: 0xb8, Bulk: 0x20},
		LogLevel:            LogInfo,
		SyslogFacility:      4,
		FingerprintHash:     "sha256",

		PubkeyAuthentication:         true,
		PasswordAuthentication:       true,
		KbdInteractiveAuthentication: true,
		GSSAPICleanupCredentials:     true,
		GSSAPIDelegateCredentials:    true,
		GSSAPIStrictAcceptorCheck:    true,
		PermitRootLogin:              RootNoPassword,
		MaxAuthTries:                 6,
		StrictModes:                  true,
		AuthorizedKeysFiles:          []string{".ssh/authorized_keys", ".ssh/authorized_keys2"},
		PubkeyAcceptedAlgorithms:     pubkeyAlgos().defaults,
		CASignatureAlgorithms:        caAlgos().defaults,
		RequiredRSASize:              1024,

		MaxSessions:                10,
		PermitUserRC:               true,
		PermitTTY:                  true,
		PrintMotd:                  true,
		PrintLastLog:               true,
		X11DisplayOffset:           10,
		X11UseLocalhost:            true,
		XAuthLocation:              "/usr/bin/xauth",
		AllowAgentForwarding:       true,
		AllowTcpForwarding:         ForwardAll,
		AllowStreamLocalForwarding: ForwardAll,
		StreamLocalBindMask:        0o177,
	}
}

// Admits says whether AllowUsers, DenyUsers, AllowGroups and DenyGroups let a
// user in: the empty string, or the reason in the words of sshd(8)'s log line
// "User NAME from HOST not allowed because ...". host is the client's name or
// empty; groups are the names of all of the user's groups.
func (s *Settings) Admits(user, host string, addr netip.Addr, groups []string) (refusal string) {
	listed := func(list []string) (bool, error) {
		for _, p := range list {
			if ok, err := match.User(user, host, addr, p); ok || err != nil {
				return ok, err
			}
		}
		return false, nil
	}
	member := func(list []string) bool {
		for _, p := range list {
			for _, g := range groups {
				if match.Pattern(g, p) {
					return true
				}
			}
		}
		return false
	}
	if ok, err := listed(s.DenyUsers); err != nil {
		return "DenyUsers is invalid: " + err.Error()
	} else if ok {
		return "listed in DenyUsers"
	}
	if len(s.AllowUsers) > 0 {
		if ok, err := listed(s.AllowUsers); err != nil {
			return "AllowUsers is invalid: " + err.Error()
		} else if !ok {
			return "not listed in AllowUsers"
		}
	}
	if len(s.AllowGroups)+len(s.DenyGroups) > 0 && len(groups) == 0 {
		return "not in any group"
	}
	if member(s.DenyGroups) {
		return "a group is listed in DenyGroups"
	}
	if len(s.AllowGroups) > 0 && !member(s.AllowGroups) {
		return "none of user's groups are listed in AllowGroups"
	}
	return ""
}

// Tokens are the values of the TOKENS of sshd_config(5), by letter; '%' need
// not be given.
type Tokens map[byte]string

// Expand replaces the tokens in s. A token without a value, or a '%' at the
// end, is an error.
func Expand(s string, values Tokens) (string, error) {
	var b strings.Builder
	for {
		lit, rest, found := strings.Cut(s, "%")
		b.WriteString(lit)
		if !found {
			return b.String(), nil
		}
		if rest == "" {
			return "", fmt.Errorf("lone %% at the end")
		}
		switch v, ok := values[rest[0]]; {
		case rest[0] == '%':
			b.WriteByte('%')
		case ok:
			b.WriteString(v)
		default:
			return "", fmt.Errorf("unknown token %%%c", rest[0])
		}
		s = rest[1:]
	}
}
