package sshdconf

import (
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"p9auth/internal/match"
)

// Settings are the values of all implemented keywords for one connection or,
// from Config.Global, for the listener. Fields are named as their keywords, in
// the plural where a keyword may be repeated; the manual page says what they
// mean. Durations of zero mean no limit. A Settings is plain data: it can be
// copied and marshalled.
type Settings struct {
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
	// AuthenticationMethods are alternatives of methods to complete in order;
	// nil means that any one method does.
	AuthenticationMethods    [][]string
	PermitEmptyPasswords     bool
	PermitRootLogin          RootLogin
	AllowUsers, DenyUsers    []string
	AllowGroups, DenyGroups  []string
	MaxAuthTries             int
	StrictModes              bool
	AuthorizedKeysFiles      []string // none: look in no file
	AuthorizedPrincipalsFile string   // empty: none
	TrustedUserCAKeys        string   // empty: none
	RevokedKeys              []string
	PubkeyAcceptedAlgorithms []string
	CASignatureAlgorithms    []string
	TouchRequired            bool // PubkeyAuthOptions
	VerifyRequired           bool // PubkeyAuthOptions
	RequiredRSASize          int  // bits
	Banner                   string
	ExposeAuthInfo           bool

	// Programs, with the user as whom each runs, who may be %u; empty: none.
	AuthorizedKeysCommand, AuthorizedKeysCommandUser             string
	AuthorizedPrincipalsCommand, AuthorizedPrincipalsCommandUser string

	// The session.
	MaxSessions                int
	AcceptEnv                  []string // patterns
	SetEnv                     []string // NAME=value, each name once
	PermitUserEnvironment      UserEnv
	PermitUserRC               bool
	ForceCommand               string // empty: none
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

		HostKeys: []string{"/etc/ssh/ssh_host_rsa_key", "/etc/ssh/ssh_host_ecdsa_key",
			"/etc/ssh/ssh_host_ed25519_key"},
		HostKeyAlgorithms:   slices.Clone(hostKeyAlgos.defaults),
		KexAlgorithms:       slices.Clone(kexAlgos.defaults),
		Ciphers:             slices.Clone(cipherAlgos.defaults),
		MACs:                slices.Clone(macAlgos.defaults),
		ClientAliveCountMax: 3,
		IPQoS:               QoS{Interactive: 0xb8, Bulk: -1},
		LogLevel:            LogInfo,
		SyslogFacility:      4,
		FingerprintHash:     "sha256",

		PubkeyAuthentication:         true,
		PasswordAuthentication:       true,
		KbdInteractiveAuthentication: true,
		PermitRootLogin:              RootNoPassword,
		MaxAuthTries:                 6,
		StrictModes:                  true,
		AuthorizedKeysFiles:          []string{".ssh/authorized_keys", ".ssh/authorized_keys2"},
		PubkeyAcceptedAlgorithms:     slices.Clone(pubkeyAlgos.defaults),
		CASignatureAlgorithms:        slices.Clone(caAlgos.defaults),
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

// Listen returns the addresses to listen on: each ListenAddress with its port
// or each Port, and without any the wildcard addresses of AddressFamily. Hosts
// may be names, to be resolved by the caller within AddressFamily.
func (s *Settings) Listen() []HostPort {
	addrs := s.ListenAddresses
	if len(addrs) == 0 {
		if s.AddressFamily != FamilyInet {
			addrs = append(addrs, HostPort{Host: "::"})
		}
		if s.AddressFamily != FamilyInet6 {
			addrs = append(addrs, HostPort{Host: "0.0.0.0"})
		}
	}
	var out []HostPort
	for _, a := range addrs {
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
func (s *Settings) AcceptsEnv(name string) bool {
	for _, p := range s.AcceptEnv {
		if match.Pattern(name, p) {
			return true
		}
	}
	return false
}

// ChannelTimeout returns how long a channel of the type may be idle; 0: for
// ever. The type "global" is never matched by a wildcard.
func (s *Settings) ChannelTimeout(channel string) time.Duration {
	for _, t := range s.ChannelTimeouts {
		if t.Type == channel || t.Type != "global" && channel != "global" && match.Pattern(channel, t.Type) {
			return t.Timeout
		}
	}
	return 0
}

// Subsystem returns the command of a subsystem.
func (s *Settings) Subsystem(name string) (string, bool) {
	for _, x := range s.Subsystems {
		if x.Name == name {
			return x.Command, true
		}
	}
	return "", false
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

// userFileTokens are those that AuthorizedKeysFile and
// AuthorizedPrincipalsFile take.
func userFileTokens(user, home string, uid uint32) Tokens {
	return Tokens{'h': home, 'u': user, 'U': strconv.FormatUint(uint64(uid), 10)}
}

// UserFile is one file to look for keys or principals in.
type UserFile struct {
	Path string // absolute and clean
	// Glob: Path is a pattern for filepath.Glob, since the configuration has
	// wildcards there; what came from a token is escaped.
	Glob bool
}

// KeysFiles returns the files of AuthorizedKeysFile for an account. A relative
// one is below home.
func (s *Settings) KeysFiles(user, home string, uid uint32) ([]UserFile, error) {
	var out []UserFile
	for _, f := range s.AuthorizedKeysFiles {
		u, err := userFile(f, user, home, uid)
		if err != nil {
			return nil, fmt.Errorf("AuthorizedKeysFile: %w", err)
		}
		out = append(out, u)
	}
	return out, nil
}

// PrincipalsFile returns the file of AuthorizedPrincipalsFile for an account,
// and false for none.
func (s *Settings) PrincipalsFile(user, home string, uid uint32) (UserFile, bool, error) {
	if s.AuthorizedPrincipalsFile == "" {
		return UserFile{}, false, nil
	}
	u, err := userFile(s.AuthorizedPrincipalsFile, user, home, uid)
	if err != nil {
		return UserFile{}, false, fmt.Errorf("AuthorizedPrincipalsFile: %w", err)
	}
	return u, true, nil
}

func userFile(template, user, home string, uid uint32) (UserFile, error) {
	if !path.IsAbs(home) {
		return UserFile{}, fmt.Errorf("home directory %q is not absolute", clip(home))
	}
	if user == "" || user == "." || user == ".." || strings.Contains(user, "/") {
		return UserFile{}, fmt.Errorf("user name %q cannot be part of a path", clip(user))
	}
	glob := strings.ContainsAny(template, `*?[\`)
	t := userFileTokens(user, home, uid)
	if glob {
		esc := strings.NewReplacer("*", `\*`, "?", `\?`, "[", `\[`, `\`, `\\`)
		for k, v := range t {
			t[k] = esc.Replace(v)
		}
	}
	p, err := Expand(template, t)
	if err != nil {
		return UserFile{}, err
	}
	if !path.IsAbs(p) {
		p = t['h'] + "/" + p
	}
	return UserFile{path.Clean(p), glob}, nil
}

// keysTokens are those that AuthorizedKeysCommand takes, and principalsTokens
// those of AuthorizedPrincipalsCommand.
const (
	keysTokens       = "CDUfhktu"
	principalsTokens = keysTokens + "FKTis"
)

// KeysCommand returns the program of AuthorizedKeysCommand and its arguments.
func (s *Settings) KeysCommand(t Tokens) ([]string, error) {
	return commandLine(s.AuthorizedKeysCommand, keysTokens, t)
}

// PrincipalsCommand returns the program of AuthorizedPrincipalsCommand and its
// arguments.
func (s *Settings) PrincipalsCommand(t Tokens) ([]string, error) {
	return commandLine(s.AuthorizedPrincipalsCommand, principalsTokens, t)
}

// commandLine splits a command, and then replaces the tokens in its arguments:
// what comes from a token is never split.
func commandLine(command, tokens string, t Tokens) ([]string, error) {
	argv, err := splitWords(command, false)
	if err != nil {
		return nil, err
	}
	if len(argv) == 0 || !path.IsAbs(argv[0]) {
		return nil, fmt.Errorf("%q is not an absolute path", clip(command))
	}
	take := Tokens{}
	for _, c := range []byte(tokens) {
		if v, ok := t[c]; ok {
			take[c] = v
		}
	}
	for i := range argv[1:] {
		if argv[i+1], err = Expand(argv[i+1], take); err != nil {
			return nil, err
		}
	}
	return argv, nil
}
