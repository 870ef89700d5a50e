package sshdconf

import (
	"os/exec"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

// A list loses what only OpenSSH has, and a note says so. What nobody knows is an
// error, and so is a list of which nothing is left.
func TestAListLosesWhatOnlyOpenSSHHasAndSaysSo(t *testing.T) {
	for text, want := range map[string]struct {
		list  string
		notes string
	}{
		"KexAlgorithms ecdh-sha2-nistp256":          {"ecdh-sha2-nistp256", ""},
		"MACs -umac*,hmac-sha1*":                    {"hmac-sha2-256-etm@openssh.com,hmac-sha2-512-etm@openssh.com,hmac-sha2-256,hmac-sha2-512", ""},
		"CASignatureAlgorithms +ssh-*":              {"ssh-ed25519,ecdsa-sha2-nistp256,ecdsa-sha2-nistp384,ecdsa-sha2-nistp521,sk-ssh-ed25519@openssh.com,sk-ecdsa-sha2-nistp256@openssh.com,rsa-sha2-512,rsa-sha2-256,ssh-rsa", ""},
		"HostKeyAlgorithms ssh-ed25519,ssh-dss":     {"ssh-ed25519", "ssh-dss"},
		"CASignatureAlgorithms ssh-ed25519,ssh-dss": {"ssh-ed25519", "ssh-dss"},
	} {
		c := mustParse(t, text)
		g := c.Global()
		keyword, _, _ := strings.Cut(text, " ")
		got := strings.Join(map[string][]string{
			"KexAlgorithms": g.KexAlgorithms, "Ciphers": g.Ciphers, "MACs": g.MACs, "HostKeyAlgorithms": g.HostKeyAlgorithms,
			"PubkeyAcceptedAlgorithms": g.PubkeyAcceptedAlgorithms, "CASignatureAlgorithms": g.CASignatureAlgorithms,
		}[keyword], ",")
		note := ""
		if want.notes != "" {
			note = ":1: " + keyword + ": left out, as p9auth does not have it: " + want.notes
		}
		if got != want.list || !strings.HasSuffix(strings.Join(c.Notes(), "; "), note) || (note == "") != (len(c.Notes()) == 0) {
			t.Errorf("%s: %s, notes %q", text, got, c.Notes())
		}
	}
}

// Each algorithm that the client here has is one that a list may name.
func TestEachAlgorithmOfOpenSSHIsKnown(t *testing.T) {
	for query, a := range map[string]algos{
		"kex": kexAlgos(), "cipher": cipherAlgos(), "mac": macAlgos(), "HostKeyAlgorithms": hostKeyAlgos(), "PubkeyAcceptedAlgorithms": pubkeyAlgos(),
	} {
		out, err := exec.Command("ssh", "-Q", query).Output()
		if err != nil {
			t.Skip("needs OpenSSH's client: ", err)
		}
		for _, name := range strings.Fields(string(out)) {
			if !slices.Contains(a.known, name) && !slices.Contains(a.missing, name) {
				t.Errorf("%s %s is unknown", query, name)
			}
		}
	}
}

// DSA is on for users' keys where somebody has named it, and the administrator is told.
func TestDSAIsOnForUsersKeysThatNameItOnly(t *testing.T) {
	for text, want := range map[string]string{
		"PubkeyAcceptedAlgorithms *":                   "",
		"PubkeyAcceptedAlgorithms +ssh-*":              "",
		"PubkeyAcceptedAlgorithms +ssh-dss":            "ssh-dss",
		"PubkeyAcceptedAlgorithms ssh-dss,ssh-ed25519": "ssh-dss",
		"PubkeyAcceptedAlgorithms ssh-dss*":            "ssh-dss,ssh-dss-cert-v01@openssh.com",
		"PubkeyAcceptedAlgorithms -ssh-dss*":           "",
		"HostKeyAlgorithms +ssh-dss":                   "",
		"CASignatureAlgorithms +ssh-dss":               "",
	} {
		c := mustParse(t, text)
		g := c.Global()
		other := func(a string) bool { return !isDSA(a) }
		if got := slices.DeleteFunc(slices.Concat(g.PubkeyAcceptedAlgorithms, g.HostKeyAlgorithms, g.CASignatureAlgorithms), other); strings.Join(got, ",") != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
		if said := strings.Contains(strings.Join(c.Notes(), "; "), ":1: PubkeyAcceptedAlgorithms: ssh-dss is on, which is weak"); said != (want != "") {
			t.Errorf("%s: %q", text, c.Notes())
		}
	}
}

// A client that asks before its user is known is told what a Match block accepts, too.
func TestWhatSomeUserMaySignInIsAnnounced(t *testing.T) {
	for text, want := range map[string]string{
		"PubkeyAcceptedAlgorithms ssh-ed25519": "ssh-ed25519",
		"PubkeyAcceptedAlgorithms ssh-ed25519\nMatch User bob\nPubkeyAcceptedAlgorithms rsa-sha2-512-cert*\nMatch User eve\nPubkeyAcceptedAlgorithms ssh-rsa": "ssh-ed25519,rsa-sha2-512,ssh-rsa",
		"Match User bob\nPubkeyAcceptedAlgorithms ssh-ed25519": strings.Join(plainKeys, ","),
	} {
		c := mustParse(t, text)
		if got := strings.Join(c.Transport(c.Global(), nil).PubkeyAcceptedAlgorithms, ","); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

// Signatures and key exchanges by SHA-1 are there for who names them.
func TestNothingBySHA1IsOfferedUnasked(t *testing.T) {
	for _, a := range []algos{kexAlgos(), hostKeyAlgos(), pubkeyAlgos(), caAlgos()} {
		for _, name := range a.defaults {
			if strings.HasSuffix(name, "-sha1") || name == "ssh-rsa" || strings.HasPrefix(name, "ssh-rsa-cert") || isDSA(name) {
				t.Errorf("%s is offered", name)
			}
		}
	}
}

func TestACertificatesAlgorithmSignsAsItsKey(t *testing.T) {
	accepted := "rsa-sha2-512-cert-v01@openssh.com,rsa-sha2-512,sk-ssh-ed25519-cert-v01@openssh.com,ecdsa-sha2-nistp256"
	if got := strings.Join(SignatureAlgorithms(strings.Split(accepted, ",")), ","); got != "ecdsa-sha2-nistp256,sk-ssh-ed25519@openssh.com,rsa-sha2-512" {
		t.Error(got)
	}
	if got := strings.Join(SignatureAlgorithms([]string{"ssh-rsa-cert-v01@openssh.com"}), ","); got != "ssh-rsa" {
		t.Error(got)
	}
	if got := SignatureAlgorithms(pubkeyAlgos().defaults); !slices.Equal(got, plainKeys) {
		t.Error(got)
	}
}

func TestTheAlgorithmsOfferedAreThoseOfTheLibrary(t *testing.T) {
	s, i := ssh.SupportedAlgorithms(), ssh.InsecureAlgorithms()
	for name, l := range map[string]struct{ ours, library []string }{
		"ciphers": {supported.Ciphers, s.Ciphers}, "MACs": {supported.MACs, s.MACs},
		"key exchanges":    {supported.KeyExchanges, s.KeyExchanges},
		"insecure ciphers": {insecure.Ciphers, i.Ciphers}, "insecure MACs": {insecure.MACs, i.MACs}, "insecure key exchanges": {insecure.KeyExchanges, i.KeyExchanges},
	} {
		if !slices.Equal(l.ours, l.library) {
			t.Errorf("%s: %q; the library has %q", name, l.ours, l.library)
		}
	}
}
