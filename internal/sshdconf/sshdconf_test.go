package sshdconf

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// memory is a source of files for tests; names are absolute.
type memory map[string]string

func (m memory) read(name string) ([]byte, error) {
	if s, ok := m[name]; ok {
		return []byte(s), nil
	}
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
}

func (m memory) glob(pattern string) (out []string, err error) {
	for name := range m {
		ok, err := filepath.Match(pattern, name)
		if err != nil {
			return nil, err
		}
		if ok {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out, nil
}

func mustParse(t *testing.T, text string, overrides ...string) *Config {
	t.Helper()
	c, err := parse("/etc/p9auth/sshd_config", overrides, memory{"/etc/p9auth/sshd_config": text})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func mustFor(t *testing.T, c *Config, ci ConnInfo) *Settings {
	t.Helper()
	s, err := c.For(ci)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestAnEmptyFileGivesTheDefaultsOfOpenSSH(t *testing.T) {
	s := mustParse(t, "").Global()
	want := defaults()
	want.Ports = []int{22}
	if !reflect.DeepEqual(s, want) {
		t.Errorf("got %+v", s)
	}
	if s.KexAlgorithms[0] != "mlkem768x25519-sha256" {
		t.Errorf("the first key exchange is %s, not a post-quantum one", s.KexAlgorithms[0])
	}
	for _, weak := range []string{"hmac-sha1-96", "hmac-md5", "ssh-rsa", "diffie-hellman-group14-sha1", "diffie-hellman-group1-sha1", "aes128-cbc"} {
		if slices.Contains(slices.Concat(s.KexAlgorithms, s.Ciphers, s.MACs, s.HostKeyAlgorithms, s.PubkeyAcceptedAlgorithms), weak) {
			t.Errorf("%s is offered by default", weak)
		}
	}
}

func TestTheFirstValueWins(t *testing.T) {
	s := mustParse(t, "MaxAuthTries 3\nmaxauthtries 4\nLogLevel=DEBUG\nloglevel quiet\n"+
		"RekeyLimit 1M\nRekeyLimit 2M 1h\nSetEnv A=1 A=2\nSetEnv B=1\n", "MaxSessions 2", "maxsessions=7").Global()
	if s.MaxAuthTries != 3 || s.LogLevel != LogDebug1 || s.RekeyLimit != (Rekey{1 << 20, 0}) || s.MaxSessions != 2 ||
		!reflect.DeepEqual(s.SetEnv, []string{"A=1"}) {
		t.Errorf("got %+v", s)
	}
}

func TestSomeKeywordsAddUp(t *testing.T) {
	s := mustParse(t, "Port 22\nPort 2222\nAllowUsers alice\nAllowUsers bob\nAcceptEnv LANG\nAcceptEnv LC_*\n"+
		"ListenAddress 127.0.0.1\nListenAddress [::1]:24\nSubsystem a x\nSubsystem a y\nSubsystem b z\n").Global()
	if got := fmt.Sprint(s.Listen().Addresses()); got != "[127.0.0.1:22 127.0.0.1:2222 [::1]:24]" {
		t.Errorf("listens on %s", got)
	}
	if len(s.AllowUsers) != 2 || !s.Session().AcceptsEnv("LC_ALL") || s.Session().AcceptsEnv("LD_PRELOAD") {
		t.Errorf("got %+v", s)
	}
	if x, _ := s.Session().Subsystem("a"); x != "x" || len(s.Subsystems) != 2 {
		t.Errorf("subsystems %v", s.Subsystems)
	}
}

func TestPortsOfTheCommandLineReplaceThoseOfTheFile(t *testing.T) {
	if s := mustParse(t, "Port 22\nPort 23\n", "Port 2222").Global(); !slices.Equal(s.Ports, []int{2222}) {
		t.Errorf("ports %v", s.Ports)
	}
}

func TestValuesArriveTyped(t *testing.T) {
	for _, c := range []struct {
		text string
		got  func(s *Settings) any
		want any
	}{
		{"LoginGraceTime 1h30m", func(s *Settings) any { return s.LoginGraceTime }, 90 * time.Minute},
		{"ClientAliveInterval 0", func(s *Settings) any { return s.ClientAliveInterval }, time.Duration(0)},
		{"UnusedConnectionTimeout none", func(s *Settings) any { return s.UnusedConnectionTimeout }, time.Duration(0)},
		{"UnusedConnectionTimeout 2w", func(s *Settings) any { return s.UnusedConnectionTimeout }, 14 * 24 * time.Hour},
		{"RekeyLimit 512K 10m", func(s *Settings) any { return s.RekeyLimit }, Rekey{512 << 10, 10 * time.Minute}},
		{"RekeyLimit default none", func(s *Settings) any { return s.RekeyLimit }, Rekey{}},
		{"MaxStartups 5", func(s *Settings) any { return s.MaxStartups }, Startups{5, 30, 5}},
		{"MaxStartups 10:30:60", func(s *Settings) any { return s.MaxStartups }, Startups{10, 30, 60}},
		{"PerSourceMaxStartups none", func(s *Settings) any { return s.PerSourceMaxStartups }, noLimit},
		{"PerSourceNetBlockSize 24:56", func(s *Settings) any { return s.PerSourceNetBlockSize }, NetBlock{24, 56}},
		{"PerSourceNetBlockSize 24", func(s *Settings) any { return s.PerSourceNetBlockSize }, NetBlock{24, 128}},
		{"PerSourcePenalties no", func(s *Settings) any { return s.PerSourcePenalties.Enabled }, false},
		{"PerSourcePenalties noauth:0.5 overflow:deny-all", func(s *Settings) any {
			return []any{s.PerSourcePenalties.NoAuth, s.PerSourcePenalties.DenyAll6}
		}, []any{500 * time.Millisecond, true}},
		{"PermitRootLogin without-password", func(s *Settings) any { return s.PermitRootLogin }, RootNoPassword},
		{"AllowTcpForwarding local", func(s *Settings) any { return s.AllowTcpForwarding }, ForwardLocal},
		{"GatewayPorts clientspecified", func(s *Settings) any { return s.GatewayPorts }, GatewayClientSpecified},
		{"StreamLocalBindMask 0117", func(s *Settings) any { return s.StreamLocalBindMask }, uint32(0o117)},
		{"IPQoS af21 cs1", func(s *Settings) any { return s.IPQoS }, QoS{0x48, 0x20}},
		{"IPQoS 0x10", func(s *Settings) any { return s.IPQoS }, QoS{0x10, 0x10}},
		{"SyslogFacility AUTHPRIV", func(s *Settings) any { return int(s.SyslogFacility) }, 10},
		{"ForceCommand echo \"a  b\" # c", func(s *Settings) any { return s.ForceCommand }, `echo "a  b" # c`},
		{"ForceCommand none", func(s *Settings) any { return s.ForceCommand }, ""},
		{"VersionAddendum  hello there # c", func(s *Settings) any { return s.VersionAddendum }, "hello there # c"},
		{"SetEnv A=\"b c\" 'D=e f' # x", func(s *Settings) any { return s.SetEnv }, []string{"A=b c", "D=e f"}},
		{"Subsystem sftp /x/s -l \"a b\"", func(s *Settings) any { return s.Subsystems[0].Command }, `/x/s -l "a b"`},
		{"ChannelTimeout session=5m x11*=1h", func(s *Settings) any { return s.Connection().ChannelTimeout("x11-connection") }, time.Hour},
		{"ChannelTimeout *=5m", func(s *Settings) any { return s.Connection().ChannelTimeout("global") }, time.Duration(0)},
		{"AuthenticationMethods publickey,password keyboard-interactive:pam", func(s *Settings) any { return s.AuthenticationMethods },
			[][]string{{"publickey", "password"}, {"keyboard-interactive"}}},
		{"PubkeyAuthOptions touch-required verify-required", func(s *Settings) any { return s.TouchRequired && s.VerifyRequired }, true},
		{"AuthorizedKeysFile none", func(s *Settings) any { f, err := s.Auth().KeysFiles("u", "/h", 1); return fmt.Sprint(f, err) }, "[] <nil>"},
		{"AuthorizedKeysFile none x", func(s *Settings) any { f, err := s.Auth().KeysFiles("u", "/h", 1); return fmt.Sprint(f, err) }, "[{/h/x false}] <nil>"},
		{"PermitUserEnvironment LANG,LC_*", func(s *Settings) any {
			return s.PermitUserEnvironment.Allows("LC_X") && !s.PermitUserEnvironment.Allows("PATH")
		}, true},
		{"ChallengeResponseAuthentication no", func(s *Settings) any { return s.KbdInteractiveAuthentication }, false},
		{"HostKey none", func(s *Settings) any { return len(s.HostKeys) }, 0},
		{"Ciphers ^chacha20*", func(s *Settings) any { return s.Ciphers[0] }, "chacha20-poly1305@openssh.com"},
		{"Ciphers -*gcm*,chacha*", func(s *Settings) any { return s.Ciphers }, []string{"aes128-ctr", "aes192-ctr", "aes256-ctr"}},
		{"MACs +hmac-sha1", func(s *Settings) any { return s.MACs[len(s.MACs)-1] }, "hmac-sha1"},
		{"PermitOpen a:1 [::1]:*", func(s *Settings) any {
			p := s.PermitOpen
			return p.AllowsOpen("a", 1) && !p.AllowsOpen("a", 2) && p.AllowsOpen("::1", 9) && !p.AllowsListen("b", 1)
		}, true},
		{"PermitListen 80 local*:*", func(s *Settings) any {
			p := s.PermitListen
			return p.AllowsListen("", 80) && p.AllowsListen("localhost", 9) && !p.AllowsListen("x", 81)
		}, true},
		{"PermitOpen none", func(s *Settings) any { return s.PermitOpen.AllowsOpen("a", 1) }, false},
	} {
		if got := c.got(mustParse(t, c.text).Global()); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: got %v, want %v", c.text, got, c.want)
		}
	}
}

func TestErrorsNameFileLineAndReason(t *testing.T) {
	for text, want := range map[string]string{
		"Nonsense yes":                       "bad configuration option: Nonsense",
		"Port":                               "Port: missing argument",
		"Port 0":                             `Port: bad port "0"`,
		"PermitRootLogin maybe":              `unsupported value "maybe"`,
		"PasswordAuthentication yes no":      `extra argument "no"`,
		"SetEnv A=\"b":                       "invalid quotes",
		"UsePAM no":                          "PAM decides about every login",
		"Compression maybe":                  `unsupported value "maybe"`,
		"ChrootDirectory /srv/%i":            "unknown token %i",
		"AuthorizedKeysCommand /bin/x %u":    "set without AuthorizedKeysCommandUser",
		"AuthorizedPrincipalsCommand /bin/x": "set without AuthorizedPrincipalsCommandUser",
		"AuthorizedKeysCommand x":            `"x" is not an absolute path`,
		"AuthorizedKeysCommand /x %i":        "unknown token %i",
		"AuthorizedPrincipalsCommand /x %q":  "unknown token %q",
		"AuthorizedKeysCommand /x \"a":       "invalid quotes",
		"AuthorizedKeysCommandUser root":     "no program is run as root",
		"AuthorizedKeysCommandUser %h":       "unknown token %h",
		"ModuliFile /etc/ssh/moduli":         "ModuliFile is not supported",
		"SshdSessionPath /x":                 "there is no sshd-session program",
		"HostbasedAuthentication yes":        "client host's word",
		"Ciphers aes128-gcm@openssh.com,rot": `"rot" is not among the algorithms offered`,
		"KexAlgorithms +sntrup9*":            "is not among the algorithms offered",
		"HostKeyAlgorithms ssh-dss,ssh-dss-cert-v01@openssh.com": "leaves no algorithm",
		"HostKeyAlgorithms ssh-dss":                              "leaves no algorithm",
		"Ciphers -*":                                             "leaves no algorithm",
		"LoginGraceTime 1x":                                      `invalid time "1x"`,
		"LoginGraceTime 1.5":                                     `invalid time "1.5"`,
		"RekeyLimit 1":                                           "1 bytes are too few",
		"RekeyLimit 99999999999999G":                             "invalid size",
		"MaxStartups 10:0:60":                                    "not a number",
		"MaxStartups 70:10:60":                                   "neither a number nor start:rate:full",
		"RequiredRSASize 512":                                    "not a number from 1024",
		"AuthenticationMethods publickey,any":                    "any must appear alone",
		"AuthenticationMethods hostbased":                        "hostbased is not supported",
		"AllowUsers a@192.0.2.1/24":                              "bits set beyond the mask",
		"AuthorizedKeysFile %f":                                  "unknown token %f",
		"AuthorizedKeysFile ~/.k":                                "root's home",
		"AcceptEnv A=b":                                          "not the name of an environment variable",
		"Match":                                                  "Match: missing argument",
		"Match User":                                             "user: missing argument",
		"Match All User a":                                       "all cannot be combined",
		"Match Address 192.0.2.0/33":                             "invalid mask length",
		"Match Colour red":                                       `unsupported criterion "Colour"`,
		"Match User a\nPort 22":                                  "Port is not allowed within a Match block",
		"Match User a\nPermitRootLogin maybe":                    `unsupported value "maybe"`,
		"Include":                                                "Include: missing argument",
		"\"Port\" 22":                                            "cannot read a keyword",
		"IPQoS lowdelays":                                        "bad DSCP",
		"ForceCommand \"a":                                       "invalid quotes",
		"LogVerbose none a":                                      "none must appear alone",
		"RDomain none":                                           "no routing domains",
		"PidFile ~/pid":                                          "root's home",
		"PermitOpen a":                                           "not host:port",
		"PerSourcePenalties no crash:1":                          "must appear alone",
		"PerSourcePenalties crush:1":                             "unsupported value",
		"Port 22\x00":                                            "NUL byte",
	} {
		_, err := parse("/c", nil, memory{"/c": "# a comment\n" + text + "\n"})
		if err == nil {
			t.Errorf("%q passed", text)
			continue
		}
		var e *Error
		if !errors.As(err, &e) || e.File != "/c" || e.Line < 2 || !strings.HasPrefix(err.Error(), fmt.Sprintf("/c:%d: ", e.Line)) ||
			!strings.Contains(err.Error(), want) {
			t.Errorf("%q: %q does not say %q with a place", text, err, want)
		}
	}
}

func TestAllMistakesAreReportedAtOnce(t *testing.T) {
	_, err := parse("/c", []string{"Bogus 1"}, memory{"/c": "Port x\nNope 1\nMatch User a\nLogLevel x\n"})
	if err == nil || strings.Count(err.Error(), "\n") != 3 || !strings.Contains(err.Error(), "command-line:1:") {
		t.Errorf("got %v", err)
	}
}

func TestMatchBlocksOverrideTheGlobalPartAndTheFirstThatHoldsWins(t *testing.T) {
	c := mustParse(t, `
PasswordAuthentication no
AllowUsers everyone
Subsystem sftp global
Match User alice,!bob Address 192.0.2.0/24
	PasswordAuthentication yes
	MaxAuthTries 2
	AllowUsers alice
	Subsystem sftp alices
Match Group wheel
	MaxAuthTries 9
	Banner /wheel
Match LocalPort 2222 LocalAddress 127.0.0.0/8
	X11Forwarding yes
Match Host *.example.org
	LogLevel DEBUG
Match invalid-user
	PubkeyAuthentication no
Match user=carol
	PermitTTY no
Match all
	MaxSessions 1
`)
	from := netip.MustParseAddr("192.0.2.5")
	wheel := func() ([]string, error) { return []string{"users", "wheel"}, nil }
	g := c.Global()
	if g.PasswordAuthentication || g.MaxAuthTries != 6 || g.MaxSessions != 1 {
		t.Errorf("global: %+v", g)
	}
	s := mustFor(t, c, ConnInfo{User: "alice", Addr: from, Groups: wheel})
	if x, _ := s.Session().Subsystem("sftp"); !s.PasswordAuthentication || s.MaxAuthTries != 2 || s.Banner != "/wheel" || s.MaxSessions != 1 ||
		!slices.Equal(s.AllowUsers, []string{"alice"}) || x != "alices" || len(s.Subsystems) != 1 || s.X11Forwarding {
		t.Errorf("alice: %+v", s)
	}
	for name, ci := range map[string]ConnInfo{
		"another address": {User: "alice", Addr: netip.MustParseAddr("198.51.100.1")},
		"no address":      {User: "alice"},
		"no user":         {Addr: from},
		"another user":    {User: "bob", Addr: from},
	} {
		if mustFor(t, c, ci).PasswordAuthentication {
			t.Errorf("%s: the block of alice held", name)
		}
	}
	if !mustFor(t, c, ConnInfo{LocalPort: 2222, LocalAddr: netip.MustParseAddr("::ffff:127.0.0.1")}).X11Forwarding {
		t.Error("LocalPort and LocalAddress did not match")
	}
	if mustFor(t, c, ConnInfo{Host: "A.Example.ORG"}).LogLevel != LogDebug1 {
		t.Error("Host did not match")
	}
	if mustFor(t, c, ConnInfo{User: "x", InvalidUser: true}).PubkeyAuthentication {
		t.Error("invalid-user did not match")
	}
	if mustFor(t, c, ConnInfo{User: "carol"}).PermitTTY {
		t.Error("user=carol did not match")
	}
	_, err := c.For(ConnInfo{User: "dave", Groups: func() ([]string, error) { return nil, errors.New("no directory") }})
	if err == nil {
		t.Error("groups that cannot be read were taken for none")
	}
}

func TestIncludesAreReadWhereTheyStand(t *testing.T) {
	m := memory{
		"/etc/p9auth/sshd_config": "Include d/*.conf\nMaxAuthTries 1\nMatch User alice\nInclude in-match\nPermitTTY no\n",
		"/etc/p9auth/d/1.conf":    "MaxAuthTries 2\nMatch User bob\nBanner /b\n",
		"/etc/p9auth/d/2.conf":    "MaxAuthTries 3\nLogLevel QUIET\n",
		"/etc/p9auth/in-match":    "MaxSessions 1\nMatch Address 192.0.2.0/24\nX11Forwarding yes\nMatch all\nPrintMotd no\n",
	}
	_, err := parse("/etc/p9auth/sshd_config", nil, m)
	if err == nil || !strings.Contains(err.Error(), "/etc/p9auth/in-match:5: PrintMotd is not allowed within a Match block") {
		t.Fatalf("a Match all in an included file ended the Match around it: %v", err)
	}
	m["/etc/p9auth/in-match"] = "MaxSessions 1\nMatch Address 192.0.2.0/24\nX11Forwarding yes\n"
	c, err := parse("/etc/p9auth/sshd_config", nil, m)
	if err != nil {
		t.Fatal(err)
	}
	if g := c.Global(); g.MaxAuthTries != 2 || g.LogLevel != LogQuiet || g.Banner != "" || g.MaxSessions != 10 {
		t.Errorf("global: %+v", g)
	}
	from := netip.MustParseAddr("192.0.2.1")
	if s := mustFor(t, c, ConnInfo{User: "alice", Addr: from}); s.MaxSessions != 1 || !s.X11Forwarding || s.PermitTTY {
		t.Errorf("alice: %+v", s)
	}
	if s := mustFor(t, c, ConnInfo{User: "bob", Addr: from}); s.X11Forwarding || s.MaxSessions != 10 || s.Banner != "/b" {
		t.Errorf("bob: %+v", s)
	}
	if s := mustFor(t, c, ConnInfo{User: "alice"}); s.X11Forwarding {
		t.Errorf("alice from elsewhere: %+v", s)
	}
}

func TestIncludesThatNeverEndAreAnError(t *testing.T) {
	_, err := parse("/c", nil, memory{"/c": "Include c\n"})
	if err == nil || !strings.Contains(err.Error(), "too many nested Includes") {
		t.Errorf("got %v", err)
	}
	_, err = parse("/c", nil, memory{"/c": "Include /c*\nInclude /c*\n", "/c1": "Include /c*\nInclude /c*\n"})
	if err == nil || len(err.Error()) > 100000 {
		t.Errorf("got %.1000v", err)
	}
}

func TestEveryKeywordStandsOnceInTheTable(t *testing.T) {
	seen := map[string]bool{}
	for _, k := range table() {
		l := strings.ToLower(k.name)
		if seen[l] || aliases[l] != "" {
			t.Errorf("%s stands twice", k.name)
		}
		seen[l] = true
		if (k.status == Implemented) != (k.why == "") {
			t.Errorf("%s is %v for the reason %q", k.name, k.status, k.why)
		}
		if k.status == Implemented && k.set != nil && k.show == nil {
			t.Errorf("%s is implemented but not printed", k.name)
		}
	}
	for _, name := range strings.Fields(openssh10) {
		if !seen[strings.ToLower(name)] && aliases[strings.ToLower(name)] == "" {
			t.Errorf("%s of OpenSSH 10 is missing", name)
		}
	}
}

// openssh10 lists the keywords in the man page and the parser of OpenSSH 10.5.
const openssh10 = `AcceptEnv AddressFamily AllowAgentForwarding AllowGroups AllowStreamLocalForwarding AllowTcpForwarding
AllowUsers AuthenticationMethods AuthorizedKeysCommand AuthorizedKeysCommandUser AuthorizedKeysFile
AuthorizedPrincipalsCommand AuthorizedPrincipalsCommandUser AuthorizedPrincipalsFile Banner CASignatureAlgorithms
ChannelTimeout ChrootDirectory Ciphers ClientAliveCountMax ClientAliveInterval Compression DenyGroups DenyUsers
DisableForwarding ExposeAuthInfo FingerprintHash ForceCommand GatewayPorts GSSAPIAuthentication
GSSAPICleanupCredentials GSSAPIDelegateCredentials GSSAPIStrictAcceptorCheck HostbasedAcceptedAlgorithms
HostbasedAuthentication HostbasedUsesNameFromPacketOnly HostCertificate HostKey HostKeyAgent HostKeyAlgorithms
IgnoreRhosts IgnoreUserKnownHosts Include IPQoS KbdInteractiveAuthentication KerberosAuthentication
KerberosGetAFSToken KerberosOrLocalPasswd KerberosTicketCleanup KexAlgorithms ListenAddress LoginGraceTime LogLevel
LogVerbose MACs Match MaxAuthTries MaxSessions MaxStartups ModuliFile PAMServiceName PasswordAuthentication
PermitEmptyPasswords PermitListen PermitOpen PermitRootLogin PermitTTY PermitTunnel PermitUserEnvironment
PermitUserRC PerSourceMaxStartups PerSourceNetBlockSize PerSourcePenalties PerSourcePenaltyExemptList PidFile Port
PrintLastLog PrintMotd PubkeyAcceptedAlgorithms PubkeyAuthentication PubkeyAuthOptions RDomain RefuseConnection
RekeyLimit RequiredRSASize RevokedKeys SecurityKeyProvider SetEnv SshdAuthPath SshdSessionPath StreamLocalBindMask
StreamLocalBindUnlink StrictModes Subsystem SyslogFacility TCPKeepAlive TrustedUserCAKeys UnusedConnectionTimeout
UseDNS UsePAM VersionAddendum X11DisplayOffset X11Forwarding X11UseLocalhost XAuthLocation
ServerKeyBits KeyRegenerationInterval RHostsAuthentication RhostsRSAAuthentication RSAAuthentication CheckMail
UseLogin VerifyReverseMapping ReverseMappingCheck AuthorizedKeysFile2 UsePrivilegeSeparation KerberosTgtPassing
AFSTokenPassing Protocol HostDSAKey HostBasedAcceptedKeyTypes PubkeyAcceptedKeyTypes DSAAuthentication
ChallengeResponseAuthentication SKeyAuthentication KeepAlive GSSAPICleanupCreds PermitBlacklistedKeys GSSUseSessionCCache GSSAPIUseSessionCredCache`

func TestAdmitsGivesTheReasonInTheWordsOfSshd(t *testing.T) {
	a := netip.MustParseAddr("192.0.2.1")
	for _, c := range []struct{ text, user, groups, want string }{
		{"", "alice", "", ""},
		{"DenyUsers al*\nAllowUsers alice", "alice", "", "listed in DenyUsers"},
		{"AllowUsers bob alice@192.0.2.0/24", "alice", "", ""},
		{"AllowUsers bob alice@198.51.100.0/24", "alice", "", "not listed in AllowUsers"},
		{"AllowGroups wheel", "alice", "users", "none of user's groups are listed in AllowGroups"},
		{"AllowGroups wheel", "alice", "users wheel", ""},
		{"AllowGroups wheel", "alice", "", "not in any group"},
		{"DenyGroups w*\nAllowGroups wheel", "alice", "wheel", "a group is listed in DenyGroups"},
	} {
		s := mustParse(t, c.text).Global()
		if got := s.Admits(c.user, "", a, strings.Fields(c.groups)); got != c.want {
			t.Errorf("%q: %q, want %q", c.text, got, c.want)
		}
	}
}

func TestTokensInUserFilesAreExpandedAndNeverBecomeWildcards(t *testing.T) {
	s := mustParse(t, "AuthorizedKeysFile .ssh/keys /etc/keys/%u %h/x%%%U /k/%u/*.pub\nAuthorizedPrincipalsFile /p/%u\n").Global()
	got, err := s.Auth().KeysFiles("a*b", "/home/a*b", 7)
	if err != nil {
		t.Fatal(err)
	}
	want := []UserFile{{"/home/a*b/.ssh/keys", false}, {"/etc/keys/a*b", false}, {"/home/a*b/x%7", false}, {`/k/a\*b/*.pub`, true}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v", got)
	}
	if p, ok, err := s.Auth().PrincipalsFile("alice", "/h", 1); err != nil || !ok || p.Path != "/p/alice" {
		t.Errorf("principals: %v %v %v", p, ok, err)
	}
	for _, user := range []string{"..", "a/b", ""} {
		if _, err := s.Auth().KeysFiles(user, "/home/x", 7); err == nil {
			t.Errorf("the user name %q became part of a path", user)
		}
	}
	if _, err := s.Auth().KeysFiles("alice", "home", 7); err == nil {
		t.Error("a relative home directory was taken")
	}
}

func TestCommandsAreSplitBeforeTokensAreReplaced(t *testing.T) {
	const user = "AuthorizedKeysCommandUser x\nAuthorizedPrincipalsCommandUser x\n"
	all := Tokens{}
	for _, c := range []byte(principalsTokens) {
		all[c] = "<" + string(c) + ">"
	}
	all['u'] = `a "b' \ %k #`
	for text, want := range map[string][]string{
		`/x`:                      {"/x"},
		`/x "a b"  c\ d 'e' #f`:   {"/x", "a b", "c d", "e", "#f"},
		`/x%u %u "%u" -u=%u%%`:    {"/x%u", all['u'], all['u'], "-u=" + all['u'] + "%"},
		`/x %C %D %U %f %h %k %t`: {"/x", "<C>", "<D>", "<U>", "<f>", "<h>", "<k>", "<t>"},
		`"/x y" %C`:               {"/x y", "<C>"},
		`/x %F %K %T %i %s`:       {"/x", "<F>", "<K>", "<T>", "<i>", "<s>"},
	} {
		s := mustParse(t, user+"AuthorizedPrincipalsCommand "+text+"\n").Global()
		if got, err := s.Auth().PrincipalsCommand(all); err != nil || !slices.Equal(got, want) {
			t.Errorf("AuthorizedPrincipalsCommand %s: %q, %v", text, got, err)
		}
		if strings.Contains(text, "%K") {
			continue // no token of the other
		}
		s = mustParse(t, user+"AuthorizedKeysCommand "+text+"\n").Global()
		if got, err := s.Auth().KeysCommand(all); err != nil || !slices.Equal(got, want) {
			t.Errorf("AuthorizedKeysCommand %s: %q, %v", text, got, err)
		}
	}
	// A key that is no certificate has none of a certificate's tokens.
	s := mustParse(t, user+"AuthorizedPrincipalsCommand /x %i\n").Global()
	if got, err := s.Auth().PrincipalsCommand(Tokens{'u': "a"}); err == nil {
		t.Errorf("a token without a value gave %q", got)
	}
}

func TestTheTestSpecificationIsThatOfSshd(t *testing.T) {
	ci, err := ParseTestSpec("user=alice,host=h,addr=192.0.2.1,laddr=::1,lport=22,rdomain=0,invalid-user")
	if err != nil || ci.User != "alice" || ci.Host != "h" || ci.LocalPort != 22 || !ci.InvalidUser || ci.LocalAddr.String() != "::1" {
		t.Errorf("got %+v, %v", ci, err)
	}
	if ci, err := ParseTestSpec("user=alice,,host=h"); err != nil || ci.User != "alice" || ci.Host != "" {
		t.Errorf("behind an empty attribute, where sshd stops: %+v, %v", ci, err)
	}
	for _, s := range []string{"user", "addr=x", "lport=x", "colour=red"} {
		if _, err := ParseTestSpec(s); err == nil {
			t.Errorf("%q passed", s)
		}
	}
}

func TestDumpIsReadBackToTheSameSettings(t *testing.T) {
	text := "Port 2222\nAllowUsers a b\nPermitOpen a:1 [::1]:*\nIPQoS 0x13\nMatch all\nAuthenticationMethods publickey,password\n" +
		"AuthorizedKeysFile x y\nPerSourcePenalties crash:1h noauth:0.5\nHostKey /k\nChannelTimeout session=5m\nRekeyLimit 1G 1h\nSubsystem s a b\n" +
		"AuthorizedKeysCommand /x \"a  b\" %u\nAuthorizedKeysCommandUser %u\n" +
		"SetEnv A=1\nForceCommand x  y\nPubkeyAuthOptions touch-required\nListenAddress 127.0.0.1\nFingerprintHash md5\nLogVerbose kex.c:*:1000\n"
	s := mustParse(t, text).Global()
	var b bytes.Buffer
	if err := s.Dump(&b); err != nil {
		t.Fatal(err)
	}
	again := mustParse(t, b.String()).Global()
	again.ListenAddresses = s.ListenAddresses // Dump combines them with the ports
	if !reflect.DeepEqual(s, again) {
		t.Errorf("got\n%+v\nwant\n%+v\nfrom\n%s", again, s, b.String())
	}
}

func TestDebiansOwnFileIsRefusedOnlyForWhatItAsks(t *testing.T) {
	b, err := os.ReadFile("/usr/share/openssh/sshd_config")
	if err != nil {
		t.Skip("openssh-server is not installed")
	}
	if _, err := parse("/c", nil, memory{"/c": string(b)}); err != nil {
		t.Errorf("got %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("Port 22\nMatch User a\nPermitTTY no\nInclude *\n", "MaxAuthTries=3")
	f.Add("SetEnv A=\"b c\" 'd=e'\nPerSourcePenalties crash:1.5 overflow:deny-all\nIPQoS ef 0x1\n", "")
	f.Fuzz(func(t *testing.T, text, override string) {
		c, err := parse("/c", []string{override}, memory{"/c": text, "/d": text})
		if err != nil {
			return
		}
		s := c.Global()
		if _, err := c.For(ConnInfo{User: "alice", Addr: netip.MustParseAddr("::1"), Host: "h", LocalPort: 22}); err != nil {
			t.Errorf("valid in Parse, not for a connection: %v", err)
		}
		s.Dump(&bytes.Buffer{})
		s.Auth().KeysFiles("alice", "/home/alice", 1000)
		s.Admits("alice", "h", netip.MustParseAddr("::1"), []string{"g"})
	})
}

func TestAPortMayBeTheNameOfAServiceOverTCP(t *testing.T) {
	old := servicesFile
	defer func() { servicesFile = old }()
	servicesFile = filepath.Join(t.TempDir(), "services")
	text := "# services\nntp 123/udp # time\nssh\t22/tcp\nhttp 80/tcp www # WorldWideWeb HTTP\nbad x/tcp\n"
	if err := os.WriteFile(servicesFile, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]int{"ssh": 22, "http": 80, "www": 80, "+22": 22, "ntp": 0, "WorldWideWeb": 0, "bad": 0, "none": 0, "": 0} {
		if got, err := parsePort(name); got != want || (err == nil) != (want > 0) {
			t.Errorf("%q: %d, %v", name, got, err)
		}
	}
	servicesFile += ".none"
	if _, err := parsePort("ssh"); err == nil {
		t.Error("a service without services(5)")
	}
}

func TestSshdsOwnFileIsReadWhereThereIsNoneOfOurs(t *testing.T) {
	dir := t.TempDir()
	ours, sshds := filepath.Join(dir, "ours"), filepath.Join(dir, "sshds")
	if got := filepath.Base(firstFile(ours, sshds)); got != "sshd_config" {
		t.Errorf("with neither: %s, want the one beside the program", got)
	}
	if err := os.WriteFile(sshds, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := firstFile(ours, sshds); got != sshds {
		t.Errorf("with sshd's alone: %s", got)
	}
	// A link to nothing is a mistake to complain about, not a file that is not there.
	if err := os.Symlink("nowhere", ours); err != nil {
		t.Fatal(err)
	}
	if got := firstFile(ours, sshds); got != ours {
		t.Errorf("with a dead link: %s", got)
	}
}
