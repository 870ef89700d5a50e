package config

import (
	"regexp"
	"strings"
	"testing"

	"p9auth/internal/match"
	"p9auth/test/manual"
)

// A difference is one that the table of p9auth_sshd_config(5) names.
type difference struct {
	row  string // the first column, as the page has it
	what string // refused, taken, line, or keywords that are printed in another way
	text string // an expression that the configuration matches
	// lose is a pattern list: what of sshd's list is not in ours. Empty: any value.
	lose string
}

const dsa = "ssh-dss,ssh-dss-cert-*"

var differences = []difference{
	{"UsePAM", "refused", `(?i)^UsePAM no$`, ""},
	{"UsePAM", "usepam", `^$`, ""},
	{"PAMServiceName", "refused", `^PAMServiceName other$`, ""},
	{"PermitTunnel", "refused", `^PermitTunnel `, ""},
	{"HostbasedAuthentication", "refused", `^HostbasedAuthentication yes$`, ""},
	{"KerberosAuthentication", "refused", `^KerberosAuthentication yes$`, ""},
	{"GSSAPIKeyExchange", "refused", `^GSSAPIKeyExchange yes$`, ""},
	{"GSSAPIDelegateCredentials", "taken", `^GSSAPIDelegateCredentials `, ""},
	{"DebianBanner", "refused", `^DebianBanner yes$`, ""},
	{"DebianBanner", "debianbanner", ``, ""},
	{"AuthenticationMethods", "refused", `^AuthenticationMethods .*(hostbased|gssapi-keyex|:)`, ""},
	{"AuthenticationMethods", "taken", `^AuthenticationMethods .*gssapi-with-mic`, ""},
	{"Authorized*CommandUser", "refused", `^Authorized(Keys|Principals)CommandUser root$`, ""},
	{"Banner , PidFile , ...", "refused", `(?m)^\w+ (\.ssh/x )?~/`, ""},
	{"TOKENS", "refused", `^(Authorized|ChrootDirectory).*%(z|$)`, ""},
	{"Ciphers , MACs , ...", "refused", `^(Ciphers|MACs|KexAlgorithms|HostKeyAlgorithms|PubkeyAccepted\w+|CASignatureAlgorithms) [^,]+$`, ""},
	{"Ciphers , MACs , ...", "taken", `(?m)^(Ciphers|MACs|KexAlgorithms|GSSAPIKexAlgorithms) .*\*`, ""},
	{"Ciphers , MACs , ...", "taken", `^(HostKeyAlgorithms|PubkeyAccepted\w+|CASignatureAlgorithms) .*ssh-dss`, ""},
	{"HostKeyAlgorithms", "hostkeyalgorithms", ``, "webauthn-*," + dsa},
	{"PubkeyAcceptedAlgorithms", "pubkeyacceptedalgorithms casignaturealgorithms", ``, "webauthn-*," + dsa},
	{"MACs", "macs", `^MACs -\*$`, ""},
	{"IPQoS", "taken", `^IPQoS .*0x`, ""},
	{"PidFile", "pidfile", ``, "/run/sshd.pid"},
	{"ListenAddress", "taken", `^ListenAddress 1\.2\.3\.4\.5$`, ""},
	{"ListenAddress", "listenaddress", `(?m)^ListenAddress (localhost|127\.1)`, ""},
	{"MaxStartups , StreamLocalBindMask , ...", "refused", `^(MaxStartups 10:30:60:90|PerSourceNetBlockSize 24:|StreamLocalBindMask (0778|07x|0x1))$`, ""},
	{"PerSourceNetBlockSize", "persourcenetblocksize", `^PerSourceNetBlockSize 24$`, ""},
	{"PerSourcePenalties", "persourcepenalties", ``, "invaliduser:*"},
	{"PerSourcePenalties", "taken", `^PerSourcePenalties (invaliduser:5|authfail:0\.5)$`, ""},
	{"PerSourcePenalties", "refused", `^PerSourcePenalties authfail:5 no$`, ""},
	{"RevokedKeys", "taken", `^RevokedKeys /a /b$`, ""},
	{"FingerprintHash", "refused", `^FingerprintHash sha`, ""},
	{"X11DisplayOffset", "refused", `^X11DisplayOffset (59536|2147483647)$`, ""},
	{"RequiredRSASize", "refused", `^RequiredRSASize (0|512|1023|16385)$`, ""},
	{"internal-sftp", "refused", `internal-sftp -Z$`, ""},
	{"PermitOpen , PermitListen", "refused", `^Permit(Open|Listen) (:22|any \S+|none a:1)$`, ""},
	{"PermitOpen , PermitListen", "permitopen permitlisten", `(?m)^Permit(Open host:|Listen )http$`, ""},
	{"Subsystem", "subsystem", `(?m)^Subsystem \w+ .*"`, ""},
	{"ModuliFile", "refused", `^ModuliFile `, ""},
	{"ModuliFile", "modulifile", ``, ""},
	{"SshdSessionPath , SshdAuthPath", "refused", `^Sshd(Session|Auth)Path `, ""},
	{"SshdSessionPath , SshdAuthPath", "sshdsessionpath sshdauthpath", ``, ""},
}

// ofOlder is the row of what only differs from a release before Debian 13.
const ofOlder = "Subsystem"

// explains reports whether the difference is what was found.
func (d difference) explains(f found) bool {
	if !regexp.MustCompile(d.text).MatchString(strings.TrimSuffix(strings.TrimSuffix(f.text, "\n"), "\n"+pam)) {
		return false
	}
	for what := range strings.FieldsSeq(d.what) {
		if what == f.what {
			return d.lose == "" || without(f.theirs, d.lose) == without(f.ours, d.lose)
		}
	}
	return false
}

// without drops the words of a value that a pattern list has.
func without(value, lose string) string {
	sep := ","
	if strings.Contains(value, " ") {
		sep = " "
	}
	var kept []string
	for _, w := range strings.Split(value, sep) {
		if w != "none" && match.List(w, lose) != match.Matched {
			kept = append(kept, w)
		}
	}
	return strings.Join(kept, sep)
}

// rows are the first columns of the table of differences.
func rows(t *testing.T) map[string]bool {
	m := map[string]bool{}
	for _, r := range regexp.MustCompile(`(?m)^\.It Li (.*) Ta `).FindAllStringSubmatch(manual.Section(t, "p9auth_sshd_config.5", "Differences from sshd"), -1) {
		m[r[1]] = true
	}
	return m
}
