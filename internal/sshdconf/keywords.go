package sshdconf

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const noLimit = math.MaxInt32

// Status is what becomes of a keyword.
type Status int

const (
	Implemented Status = iota
	Accepted           // with the values that ask for what we do anyway
	Refused            // with every value
)

func (s Status) String() string { return [...]string{"implemented", "accepted", "refused"}[s] }

// A keyword is one row of the table.
type keyword struct {
	name   string
	global bool // not allowed within Match
	kind
}

// A kind is how a keyword's value is read and printed.
type kind struct {
	status Status
	why    string // for Accepted and Refused
	// set reads the arguments of one line into s.
	set func(s *Settings, a *args) error
	// show gives the value of each line of Dump; nil prints none.
	show func(s *Settings) []string
	each bool // every line counts, not just the first
	raw  bool // the value is the rest of the line as it stands
}

// table is every keyword of sshd_config(5) of OpenSSH 10, the obsolete ones
// that it still knows, and those of Debian's patches. It is made when it is first
// needed, and not linked where it is not: most processes only read settings.
func table() []keyword {
	keywords.Do(makeKeywords)
	return keywords.table
}

var keywords struct {
	sync.Once
	table  []keyword
	byName map[string]*keyword // and by their aliases, all in lower case
}

func newTable() []keyword {
	return []keyword{
		// Listening and admission, for sshfront's listener.
		{"Port", true, kind{set: setPort, each: true, show: func(s *Settings) (v []string) {
			for _, p := range s.Ports {
				v = append(v, strconv.Itoa(p))
			}
			return v
		}}},
		{"AddressFamily", true, enum(familyNames, func(s *Settings) *Family { return &s.AddressFamily })},
		{"ListenAddress", true, kind{set: setListen, each: true, show: func(s *Settings) (v []string) {
			for _, a := range s.Listen().Addresses() {
				v = append(v, a.String())
			}
			return v
		}}},
		{"LoginGraceTime", true, duration(func(s *Settings) *time.Duration { return &s.LoginGraceTime }, "")},
		{"MaxStartups", true, kind{set: setStartups, show: func(s *Settings) []string {
			return one(fmt.Sprintf("%d:%d:%d", s.MaxStartups.Begin, s.MaxStartups.Rate, s.MaxStartups.Full))
		}}},
		{"PerSourceMaxStartups", true, kind{set: setPerSourceMax, show: func(s *Settings) []string {
			if s.PerSourceMaxStartups == noLimit {
				return one("none")
			}
			return one(strconv.Itoa(s.PerSourceMaxStartups))
		}}},
		{"PerSourceNetBlockSize", true, kind{set: setNetBlock, show: func(s *Settings) []string {
			return one(fmt.Sprintf("%d:%d", s.PerSourceNetBlockSize.V4, s.PerSourceNetBlockSize.V6))
		}}},
		{"PerSourcePenalties", true, kind{set: setPenalties, show: showPenalties, each: true}},
		{"PerSourcePenaltyExemptList", true, kind{set: setExempt, show: text(func(s *Settings) *string { return &s.PerSourcePenaltyExemptList })}},
		{"PidFile", true, file(func(s *Settings) *string { return &s.PidFile })},
		{"TCPKeepAlive", true, flag(func(s *Settings) *bool { return &s.TCPKeepAlive })},
		{"UseDNS", true, flag(func(s *Settings) *bool { return &s.UseDNS })},
		{"VersionAddendum", true, kind{set: setAddendum, raw: true, show: text(func(s *Settings) *string { return &s.VersionAddendum })}},

		// The protocol.
		{"HostKey", true, kind{set: setHostKey, each: true, show: list(func(s *Settings) []string { return s.HostKeys })}},
		{"SecurityKeyProvider", true, fileOr("internal", func(s *Settings) *string { return &s.SecurityKeyProvider })},
		{"HostKeyAgent", true, fileOr("SSH_AUTH_SOCK", func(s *Settings) *string { return &s.HostKeyAgent })},
		{"HostCertificate", true, kind{set: setHostCert, each: true, show: list(func(s *Settings) []string { return s.HostCertificates })}},
		{"HostKeyAlgorithms", true, algorithms(hostKeyAlgos(), func(s *Settings) *[]string { return &s.HostKeyAlgorithms })},
		{"KexAlgorithms", true, algorithms(kexAlgos(), func(s *Settings) *[]string { return &s.KexAlgorithms })},
		{"Ciphers", true, algorithms(cipherAlgos(), func(s *Settings) *[]string { return &s.Ciphers })},
		{"MACs", true, algorithms(macAlgos(), func(s *Settings) *[]string { return &s.MACs })},
		{"RekeyLimit", false, kind{set: setRekey, show: func(s *Settings) []string {
			return one(fmt.Sprintf("%d %d", s.RekeyLimit.Bytes, s.RekeyLimit.Interval/time.Second))
		}}},
		{"ClientAliveInterval", false, duration(func(s *Settings) *time.Duration { return &s.ClientAliveInterval }, "")},
		{"ClientAliveCountMax", false, number(0, noLimit, func(s *Settings) *int { return &s.ClientAliveCountMax })},
		{"UnusedConnectionTimeout", false, duration(func(s *Settings) *time.Duration { return &s.UnusedConnectionTimeout }, "none")},
		{"ChannelTimeout", false, kind{set: setChannelTimeout, show: text(func(s *Settings) *string { return &s.ChannelTimeoutText })}},
		{"IPQoS", false, kind{set: setQoS, show: func(s *Settings) []string {
			return one(qosName(s.IPQoS.Interactive) + " " + qosName(s.IPQoS.Bulk))
		}}},
		{"RefuseConnection", false, flag(func(s *Settings) *bool { return &s.RefuseConnection })},
		{"LogLevel", false, enum(logNames, func(s *Settings) *LogLevel { return &s.LogLevel })},
		{"LogVerbose", false, kind{set: setLogVerbose, show: oneLine(func(s *Settings) []string { return s.LogVerbose })}},
		{"SyslogFacility", true, enum(facilityNames, func(s *Settings) *Facility { return &s.SyslogFacility })},
		{"FingerprintHash", true, kind{set: func(s *Settings, a *args) error {
			v, err := a.oneOf("sha256", "md5")
			s.FingerprintHash = v
			return err
		}, show: func(s *Settings) []string { return one(strings.ToUpper(s.FingerprintHash)) }}},

		// Authentication, for factotum.
		{"PubkeyAuthentication", false, flag(func(s *Settings) *bool { return &s.PubkeyAuthentication })},
		{"PasswordAuthentication", false, flag(func(s *Settings) *bool { return &s.PasswordAuthentication })},
		{"KbdInteractiveAuthentication", false, flag(func(s *Settings) *bool { return &s.KbdInteractiveAuthentication })},
		{"GSSAPIAuthentication", false, flag(func(s *Settings) *bool { return &s.GSSAPIAuthentication })},
		{"GSSAPICleanupCredentials", true, flag(func(s *Settings) *bool { return &s.GSSAPICleanupCredentials })},
		{"GSSAPIStrictAcceptorCheck", true, flag(func(s *Settings) *bool { return &s.GSSAPIStrictAcceptorCheck })},
		{"AuthenticationMethods", false, kind{set: setMethods, show: showMethods}},
		{"PermitEmptyPasswords", false, flag(func(s *Settings) *bool { return &s.PermitEmptyPasswords })},
		{"PermitRootLogin", false, enum(rootNames, func(s *Settings) *RootLogin { return &s.PermitRootLogin })},
		{"AllowUsers", false, patterns(true, func(s *Settings) *[]string { return &s.AllowUsers })},
		{"DenyUsers", false, patterns(true, func(s *Settings) *[]string { return &s.DenyUsers })},
		{"AllowGroups", false, patterns(false, func(s *Settings) *[]string { return &s.AllowGroups })},
		{"DenyGroups", false, patterns(false, func(s *Settings) *[]string { return &s.DenyGroups })},
		{"MaxAuthTries", false, number(0, noLimit, func(s *Settings) *int { return &s.MaxAuthTries })},
		{"StrictModes", true, flag(func(s *Settings) *bool { return &s.StrictModes })},
		{"AuthorizedKeysFile", false, kind{set: setKeysFile, show: oneLine(func(s *Settings) []string { return s.AuthorizedKeysFiles })}},
		{"AuthorizedKeysCommand", false, command(keysTokens, func(s *Settings) *string { return &s.AuthorizedKeysCommand })},
		{"AuthorizedKeysCommandUser", false, commandUser(func(s *Settings) *string { return &s.AuthorizedKeysCommandUser })},
		{"AuthorizedPrincipalsFile", false, kind{set: setPrincipalsFile, show: text(func(s *Settings) *string { return &s.AuthorizedPrincipalsFile })}},
		{"AuthorizedPrincipalsCommand", false, command(principalsTokens, func(s *Settings) *string { return &s.AuthorizedPrincipalsCommand })},
		{"AuthorizedPrincipalsCommandUser", false, commandUser(func(s *Settings) *string { return &s.AuthorizedPrincipalsCommandUser })},
		{"TrustedUserCAKeys", false, file(func(s *Settings) *string { return &s.TrustedUserCAKeys })},
		{"RevokedKeys", false, kind{set: setRevoked, show: showRevoked}},
		{"PubkeyAcceptedAlgorithms", false, algorithms(pubkeyAlgos(), func(s *Settings) *[]string { return &s.PubkeyAcceptedAlgorithms })},
		{"CASignatureAlgorithms", false, algorithms(caAlgos(), func(s *Settings) *[]string { return &s.CASignatureAlgorithms })},
		{"PubkeyAuthOptions", false, kind{set: setPubkeyOptions, show: showPubkeyOptions}},
		{"RequiredRSASize", false, number(1024, 16384, func(s *Settings) *int { return &s.RequiredRSASize })},
		{"Banner", false, file(func(s *Settings) *string { return &s.Banner })},
		{"ExposeAuthInfo", false, flag(func(s *Settings) *bool { return &s.ExposeAuthInfo })},

		// The session.
		{"MaxSessions", false, number(0, noLimit, func(s *Settings) *int { return &s.MaxSessions })},
		{"AcceptEnv", false, kind{set: setAcceptEnv, each: true, show: list(func(s *Settings) []string { return s.AcceptEnv })}},
		{"SetEnv", false, kind{set: setSetEnv, show: list(func(s *Settings) []string { return s.SetEnv })}},
		{"PermitUserEnvironment", true, kind{set: setUserEnv, show: showUserEnv}},
		{"PermitUserRC", false, flag(func(s *Settings) *bool { return &s.PermitUserRC })},
		{"ForceCommand", false, kind{set: setForceCommand, raw: true, show: text(func(s *Settings) *string { return &s.ForceCommand })}},
		{"ChrootDirectory", false, kind{set: setChroot, show: text(func(s *Settings) *string { return &s.ChrootDirectory })}},
		{"Subsystem", false, kind{set: setSubsystem, each: true, show: func(s *Settings) (v []string) {
			for _, x := range s.Subsystems {
				v = append(v, x.Name+" "+x.Command)
			}
			return v
		}}},
		{"PermitTTY", false, flag(func(s *Settings) *bool { return &s.PermitTTY })},
		{"PrintMotd", true, flag(func(s *Settings) *bool { return &s.PrintMotd })},
		{"PrintLastLog", true, flag(func(s *Settings) *bool { return &s.PrintLastLog })},
		{"X11Forwarding", false, flag(func(s *Settings) *bool { return &s.X11Forwarding })},
		{"X11DisplayOffset", false, number(0, 59535, func(s *Settings) *int { return &s.X11DisplayOffset })},
		{"X11UseLocalhost", false, flag(func(s *Settings) *bool { return &s.X11UseLocalhost })},
		{"XAuthLocation", true, file(func(s *Settings) *string { return &s.XAuthLocation })},
		{"AllowAgentForwarding", false, flag(func(s *Settings) *bool { return &s.AllowAgentForwarding })},
		{"AllowTcpForwarding", false, enum(forwardNames, func(s *Settings) *Forward { return &s.AllowTcpForwarding })},
		{"AllowStreamLocalForwarding", false, enum(forwardNames, func(s *Settings) *Forward { return &s.AllowStreamLocalForwarding })},
		{"StreamLocalBindMask", false, kind{set: setBindMask, show: func(s *Settings) []string {
			return one(fmt.Sprintf("0%o", s.StreamLocalBindMask))
		}}},
		{"StreamLocalBindUnlink", false, flag(func(s *Settings) *bool { return &s.StreamLocalBindUnlink })},
		{"DisableForwarding", false, flag(func(s *Settings) *bool { return &s.DisableForwarding })},
		{"GatewayPorts", false, enum(gatewayNames, func(s *Settings) *Gateway { return &s.GatewayPorts })},
		{"PermitOpen", false, permits(false, func(s *Settings) *Permits { return &s.PermitOpen })},
		{"PermitListen", false, permits(true, func(s *Settings) *Permits { return &s.PermitListen })},

		// Structure; the parser handles these two itself.
		{"Include", false, kind{}},
		{"Match", false, kind{}},

		// Accepted, as the named values ask for what is done anyway.
		{"UsePAM", true, accepted("PAM decides about every login", "yes")},
		{"PAMServiceName", false, accepted("factotum fixes the service of each front end", "sshd")},
		{"PermitTunnel", false, accepted("tun devices are not forwarded", "no")},
		{"HostbasedAuthentication", false, accepted("host-based authentication takes the client host's word", "no")},
		{"KerberosAuthentication", false, accepted("Kerberos passwords are PAM's business", "no")},
		{"GSSAPIKeyExchange", true, accepted("GSSAPI key exchange is not implemented", "no")},
		{"DebianBanner", true, accepted("the version string names no distribution", "no")},

		// Accepted with every value: they qualify a method that is never used,
		// and OpenSSH itself looks at them only when it is. The first value is the default.
		{"IgnoreRhosts", false, unused("IgnoreRhosts", "HostbasedAuthentication", "yes", "no", "shosts-only")},
		{"IgnoreUserKnownHosts", true, unused("IgnoreUserKnownHosts", "HostbasedAuthentication", "no", "yes")},
		{"HostbasedUsesNameFromPacketOnly", false, unused("HostbasedUsesNameFromPacketOnly", "HostbasedAuthentication", "no", "yes")},
		{"HostbasedAcceptedAlgorithms", false, unusedList("HostbasedAcceptedAlgorithms", "HostbasedAuthentication", hostbasedAlgos())},
		{"GSSAPIDelegateCredentials", true, silent(flag(func(s *Settings) *bool { return &s.GSSAPIDelegateCredentials }))},
		{"GSSAPIStoreCredentialsOnRekey", true, unused("GSSAPIStoreCredentialsOnRekey", "GSSAPIKeyExchange", "no", "yes")},
		{"GSSAPIKexAlgorithms", true, unusedList("GSSAPIKexAlgorithms", "GSSAPIKeyExchange", gssKexAlgos())},
		{"KerberosOrLocalPasswd", true, unused("KerberosOrLocalPasswd", "KerberosAuthentication", "yes", "no")},
		{"KerberosTicketCleanup", true, unused("KerberosTicketCleanup", "KerberosAuthentication", "yes", "no")},

		// The client takes of what the server offers, and each has to have "none" (RFC 4253,
		// section 6.2).
		{"Compression", true, compression()},

		// Taken with every value and a note, as sshd takes them: OpenSSH had them once.
		{"Protocol", true, obsolete("there is protocol 2 alone")},
		{"UsePrivilegeSeparation", true, obsolete("the daemons are always separate")},
		{"UseLogin", true, obsolete("login(1) is never run")},
		{"CheckMail", true, obsolete("mail is pam_mail's business")},
		{"RSAAuthentication", false, obsolete("it belongs to protocol 1")},
		{"RhostsRSAAuthentication", false, obsolete("it belongs to protocol 1")},
		{"RhostsAuthentication", true, obsolete("rhosts files prove nothing")},
		{"KerberosTgtPassing", true, obsolete("it belongs to protocol 1")},
		{"AFSTokenPassing", true, obsolete("it belongs to protocol 1")},
		{"ServerKeyBits", true, obsolete("it belongs to protocol 1")},
		{"KeyRegenerationInterval", true, obsolete("it belongs to protocol 1")},
		{"PAMAuthenticationViaKbdInt", true, obsolete("it is KbdInteractiveAuthentication now")},
		{"AuthorizedKeysFile2", false, obsolete("name the file in AuthorizedKeysFile")},
		{"PermitBlacklistedKeys", true, obsolete("name the keys in RevokedKeys")},
		{"KerberosGetAFSToken", true, obsolete("there is no AFS")},
		{"GSSUseSessionCCache", true, obsolete("it belongs to GSSAPI")},
		{"GSSAPIUseSessionCredCache", true, obsolete("it belongs to GSSAPI")},
		{"VerifyReverseMapping", true, obsolete("it is UseDNS now")},
		{"ReverseMappingCheck", true, obsolete("it is UseDNS now")},

		{"RDomain", false, refused("Linux has no routing domains")},
		{"ModuliFile", true, refused("the protocol library brings its own Diffie-Hellman groups")},
		{"SshdSessionPath", true, refused("there is no sshd-session program")},
		{"SshdAuthPath", true, refused("there is no sshd-auth program")},
	}
}

// aliases are older names that OpenSSH still takes.
var aliases = map[string]string{
	"hostdsakey":                      "hostkey",
	"hostbasedacceptedkeytypes":       "hostbasedacceptedalgorithms",
	"pubkeyacceptedkeytypes":          "pubkeyacceptedalgorithms",
	"dsaauthentication":               "pubkeyauthentication",
	"challengeresponseauthentication": "kbdinteractiveauthentication",
	"skeyauthentication":              "kbdinteractiveauthentication",
	"keepalive":                       "tcpkeepalive",
	"gssapicleanupcreds":              "gssapicleanupcredentials",
}

func makeKeywords() {
	keywords.table = newTable()
	keywords.byName = make(map[string]*keyword, len(keywords.table)+len(aliases))
	for i, k := range keywords.table {
		keywords.byName[strings.ToLower(k.name)] = &keywords.table[i]
	}
	for old, name := range aliases {
		keywords.byName[old] = keywords.byName[name]
	}
}

func lookup(name string) *keyword {
	keywords.Do(makeKeywords)
	return keywords.byName[strings.ToLower(name)]
}

// Keyword describes one row of the table of keywords.
type Keyword struct {
	Name   string
	Status Status
	Reason string // for Accepted and Refused
	Match  bool   // allowed within a Match block
}

// Keywords lists every keyword that is known, aliases left out.
func Keywords() []Keyword {
	rows := table()
	out := make([]Keyword, 0, len(rows))
	for _, k := range rows {
		out = append(out, Keyword{k.name, k.status, k.why, !k.global})
	}
	return out
}

// listener are the implemented keywords that only sshfront's listener goes by,
// or all processes of sshfront before factotum's settings arrive.
var listener = []string{
	"Port", "AddressFamily", "ListenAddress", "LoginGraceTime", "MaxStartups", "PerSourceMaxStartups",
	"PerSourceNetBlockSize", "PerSourcePenalties", "PerSourcePenaltyExemptList", "PidFile", "TCPKeepAlive",
	"LogLevel", "LogVerbose", "SyslogFacility",
}

// CheckOverride reports whether a line may be given to sshfront with -o. What
// factotum goes by may not: factotum reads the file and knows of no command
// line. A line that is wrong in another way is left for Parse.
func CheckOverride(text string) error {
	name, _, err := splitKeyword(text)
	if err != nil || name == "" {
		return nil
	}
	kw := lookup(name)
	if kw == nil || kw.status != Implemented || slices.Contains(listener, kw.name) || kw.set == nil {
		return nil
	}
	return fmt.Errorf("factotum decides about %s and reads the configuration file only: put it there", kw.name)
}
