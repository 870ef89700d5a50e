package keys

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"p9auth/capproto"
	"p9auth/factotum/internal/pamwire"
	"p9auth/factotum/pam/internal/nss"
	"p9auth/internal/authkeys"
	"p9auth/internal/sshdconf"
)

func newKey(t *testing.T) ssh.Signer {
	_, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(priv)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func line(k ssh.Signer) string { return string(ssh.MarshalAuthorizedKey(k.PublicKey())) }

// A setup is a user with a home directory, of this process's uid, and the
// configuration.
type setup struct {
	t       *testing.T
	account *nss.Account
	conf    *sshdconf.Settings
	asked   int // how often something was done as the user
}

func newSetup(t *testing.T) *setup {
	u, err := user.Current()
	if err != nil {
		t.Skip(err)
	}
	a, err := nss.Lookup(u.Username)
	if err != nil {
		t.Skip(err)
	}
	a.Home = t.TempDir()
	file := filepath.Join(t.TempDir(), "sshd_config")
	if err := os.WriteFile(file, []byte("AuthorizedKeysFile .ssh/authorized_keys\nCASignatureAlgorithms ssh-ed25519\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	conf, err := sshdconf.Parse(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := conf.For(sshdconf.ConnInfo{User: a.Name, Addr: netip.MustParseAddr("192.0.2.1")})
	if err != nil {
		t.Fatal(err)
	}
	return &setup{t: t, account: a, conf: s}
}

// file writes a file of the user's, in the home directory.
func (s *setup) file(name, text string) string {
	path := filepath.Join(s.account.Home, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return path
}

func (s *setup) authorize(lines ...string) {
	s.file(".ssh/authorized_keys", strings.Join(lines, ""))
}

// settings are the worker's part of the configuration, as factotum sends it.
func (s *setup) settings() string { return capproto.B64(sshdconf.AuthFormat.Encode(s.conf.Auth())) }

// ask asks about a key. It returns the options, or nil if the key is denied, and
// the notes.
func (s *setup) ask(k ssh.PublicKey) (*authkeys.Options, string) {
	s.t.Helper()
	c, err := newCheck(s.account, pamwire.KeyQuery{
		Key: k.Marshal(), Settings: s.settings(), Host: "client.example", Addr: netip.MustParseAddr("192.0.2.1"), Ends: "a 1 b 2",
	})
	if err != nil {
		s.t.Fatal(err)
	}
	c.asUser = func(_ *nss.Account, f func() error) error { s.asked++; return f() }
	e, err := c.answer()
	if err != nil {
		s.t.Fatal(err)
	}
	if _, err := pamwire.DecodeEvent(e.Encode()); err != nil {
		s.t.Error(err)
	}
	switch e := e.(type) {
	case pamwire.KeyAllowed:
		b, err := capproto.UnB64(e.Options)
		if err != nil {
			s.t.Fatal(err)
		}
		o, err := authkeys.OptionsFormat.Decode(b)
		if err != nil {
			s.t.Fatal(err)
		}
		return o, strings.Join(e.Notes, "\n")
	case pamwire.KeyDenied:
		return nil, strings.Join(e.Notes, "\n")
	}
	s.t.Fatalf("%#v", e)
	return nil, ""
}

func (s *setup) want(what string, k ssh.PublicKey, allowed bool, note string) {
	s.t.Helper()
	o, notes := s.ask(k)
	if (o != nil) != allowed || !strings.Contains(notes, note) || note == "" && notes != "" {
		s.t.Errorf("%s: allowed %v, notes %q; want %v, %q", what, o != nil, notes, allowed, note)
	}
}

func TestAKeyIsAllowedByItsLineOnly(t *testing.T) {
	s := newSetup(t)
	mine, other := newKey(t), newKey(t)
	s.want("no file", mine.PublicKey(), false, "")
	s.authorize("# comment\n", `restrict,command="backup" `+line(mine), "nonsense\n")
	s.want("another's key", other.PublicKey(), false, "")
	o, notes := s.ask(mine.PublicKey())
	if o == nil || o.Command != "backup" || o.PTY || notes != "" {
		t.Errorf("%+v, %q", o, notes)
	}
	s.authorize(`from="198.51.100.0/24" ` + line(mine))
	s.want("from elsewhere", mine.PublicKey(), false, "correct key but not from a permitted host")
	s.authorize(`from="client.example" ` + line(mine))
	s.want("from the host", mine.PublicKey(), true, "")
	s.authorize(`expiry-time="20200101" ` + line(mine))
	s.want("expired", mine.PublicKey(), false, "entry expired")
	s.authorize("cert-authority " + line(mine))
	s.want("an authority's key", mine.PublicKey(), false, "")
	if s.asked < 6 {
		t.Errorf("the user's file was read as the user %d times", s.asked)
	}
}

func TestAFileThatOthersCanWriteGrantsNothing(t *testing.T) {
	s := newSetup(t)
	mine := newKey(t)
	s.authorize(line(mine))
	path := filepath.Join(s.account.Home, ".ssh/authorized_keys")
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	s.want("StrictModes yes", mine.PublicKey(), false, "Authentication refused: bad ownership or modes for file")
	s.conf.StrictModes = false
	s.want("StrictModes no", mine.PublicKey(), true, "")
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	s.authorize(strings.Repeat("#\n", 1<<20) + line(mine))
	s.want("a long file", mine.PublicKey(), true, "")
}

func TestTheUsersRightsAreNeeded(t *testing.T) {
	s := newSetup(t)
	mine := newKey(t)
	s.authorize(line(mine))
	c, err := newCheck(s.account, pamwire.KeyQuery{Key: mine.PublicKey().Marshal(), Settings: s.settings(), Addr: netip.MustParseAddr("::1"), Ends: "x"})
	if err != nil {
		t.Fatal(err)
	}
	c.asUser = func(*nss.Account, func() error) error { return errors.New("setfsuid did not work") }
	if e, err := c.answer(); err != nil {
		t.Error(err)
	} else if d, ok := e.(pamwire.KeyDenied); !ok || len(d.Notes) != 1 || !strings.Contains(d.Notes[0], "setfsuid") {
		t.Errorf("%#v", e)
	}
}

func TestRevokedKeys(t *testing.T) {
	s := newSetup(t)
	mine, other := newKey(t), newKey(t)
	s.authorize(line(mine))
	list := s.file("revoked", line(other))
	s.conf.RevokedKeys = []string{list}
	s.want("another key is revoked", mine.PublicKey(), true, "")
	s.file("revoked", line(mine))
	s.want("this key is revoked", mine.PublicKey(), false, "revoked by file")
	s.file("revoked", "nonsense\n")
	s.want("the list cannot be read", mine.PublicKey(), false, "error checking authentication key")
	s.conf.RevokedKeys = []string{filepath.Join(s.account.Home, "none")}
	s.want("there is no list", mine.PublicKey(), false, "error checking authentication key")
}

// certify makes a certificate of a key.
func certify(t *testing.T, ca, k ssh.Signer, change func(*ssh.Certificate)) *ssh.Certificate {
	c := &ssh.Certificate{
		Key: k.PublicKey(), CertType: ssh.UserCert, KeyId: "id\x00\n", Serial: 7, ValidAfter: 0, ValidBefore: ssh.CertTimeInfinity,
		ValidPrincipals: []string{"staff"}, Permissions: ssh.Permissions{Extensions: map[string]string{"permit-pty": ""}},
	}
	if change != nil {
		change(c)
	}
	if err := c.SignCert(rand.Reader, ca); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestCertificates(t *testing.T) {
	ca, rogue, mine := newKey(t), newKey(t), newKey(t)
	const accepted, unauthorized, unlisted = "Accepted certificate ID", "Certificate does not contain an authorized principal", "not a listed principal"
	nobody := func(c *ssh.Certificate) { c.ValidPrincipals = nil }
	for name, c := range map[string]struct {
		ca      ssh.Signer
		change  func(*ssh.Certificate)
		lines   string // authorized_keys
		trusted bool   // the authority is in TrustedUserCAKeys
		names   string // authorized_principals
		allowed bool
		note    string
	}{
		"no authority":                       {ca, nil, "", false, "", false, ""},
		"a line with its principal":          {ca, nil, `cert-authority,principals="staff,x" ` + line(ca), false, "", true, accepted},
		"a line with another principal":      {ca, nil, `cert-authority,principals="x" ` + line(ca), false, "", false, unauthorized},
		"a line without principals":          {ca, nil, "cert-authority " + line(ca), false, "", false, unlisted},
		"for nobody, a line with principals": {ca, nobody, `cert-authority,principals="staff" ` + line(ca), false, "", false, unauthorized},
		"for nobody, a line without":         {ca, nobody, "cert-authority " + line(ca), false, "", true, accepted},
		"for nobody, trusted":                {ca, nobody, "", true, "", false, "lacks principal list"},
		"a line that is not of an authority": {ca, nil, line(ca), false, "", false, ""},
		"another authority's line":           {rogue, nil, `cert-authority,principals="staff" ` + line(ca), false, "", false, ""},
		"trusted, for the user's name":       {ca, nil, "", true, "", false, unlisted},
		"trusted, a principal of the file":   {ca, nil, "", true, "staff\n", true, accepted},
		"trusted, none of the file":          {ca, nil, "", true, "others # staff\n", false, unauthorized},
		"trusted, from elsewhere":            {ca, nil, "", true, "from=\"198.51.100.1\" staff\n", false, "not from a permitted host"},
		"not trusted, a principal":           {rogue, nil, "", true, "staff\n", false, ""},
		"a host's certificate":               {ca, func(c *ssh.Certificate) { c.CertType = ssh.HostCert }, "", true, "staff\n", false, "not for users"},
		"expired":                            {ca, func(c *ssh.Certificate) { c.ValidBefore = uint64(time.Now().Unix() - 10) }, "", true, "staff\n", false, "certificate has expired"},
		"not yet valid":                      {ca, func(c *ssh.Certificate) { c.ValidAfter = uint64(time.Now().Unix() + 1000) }, "", true, "staff\n", false, "not yet valid"},
		"for nobody":                         {ca, nobody, "", true, "staff\n", false, unauthorized},
		"an unknown critical option":         {ca, func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{"x@y": ""} }, "", true, "staff\n", false, "is not supported"},
		"from a source address":              {ca, func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{"source-address": "192.0.2.0/24"} }, "", true, "staff\n", true, accepted},
		"from another source address":        {ca, func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{"source-address": "198.51.100.0/24"} }, "", true, "staff\n", false, "not from a permitted source address"},
		"two commands":                       {ca, func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{"force-command": "a"} }, "", true, "command=\"b\" staff\n", false, "do not match"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSetup(t)
			s.authorize(c.lines)
			if c.trusted {
				s.conf.TrustedUserCAKeys = s.file("ca.pub", line(ca))
			}
			if c.names != "" {
				s.file("principals", c.names)
				s.conf.AuthorizedPrincipalsFile = "principals"
			}
			s.want(name, certify(t, c.ca, mine, c.change), c.allowed, c.note)
			s.conf.CASignatureAlgorithms = []string{"rsa-sha2-512"}
			s.want("an algorithm that is not listed", certify(t, c.ca, mine, c.change), false, "efusing")
		})
	}
	s := newSetup(t)
	s.conf.TrustedUserCAKeys = filepath.Join(s.account.Home, "none")
	s.want("no file of authorities", certify(t, ca, mine, nil), false, "Could not open TrustedUserCAKeys")
	s.conf.TrustedUserCAKeys = s.file("ca.pub", line(ca))
	o, _ := s.ask(certify(t, ca, mine, func(c *ssh.Certificate) { c.ValidPrincipals = []string{s.account.Name} }))
	if o == nil || !o.PTY || o.AgentForwarding || o.NoTouchRequired {
		t.Errorf("the certificate alone decides: %+v", o)
	}
}

func TestPatternsOfFilesAreBounded(t *testing.T) {
	s := newSetup(t)
	mine := newKey(t)
	for i := range maxKeyFiles + 6 {
		s.file(fmt.Sprintf("keys/%03d", i), "")
	}
	s.file("keys/000", line(mine))
	s.conf.AuthorizedKeysFiles = []string{"keys/*"}
	s.want("among many files", mine.PublicKey(), true, "70 files, only 64 are read")
	s.file("keys/000", "")
	s.file("keys/069", line(mine))
	s.want("beyond the bound", mine.PublicKey(), false, "70 files, only 64 are read")
}

// Editors and packages leave such files behind, and glob(3), which sshd uses, passes over them.
func TestWildcardsPassOverHiddenFiles(t *testing.T) {
	s := newSetup(t)
	mine := newKey(t)
	s.conf.AuthorizedKeysFiles = []string{"keys/*"}
	s.file("keys/.old", line(mine))
	s.want("hidden", mine.PublicKey(), false, "")
	s.file("keys/new", line(mine))
	s.want("not hidden", mine.PublicKey(), true, "")

	ca := newKey(t)
	s.conf.TrustedUserCAKeys, s.conf.AuthorizedPrincipalsFile = s.file("ca.pub", line(ca)), "principals/[!b]*"
	cert := certify(t, ca, mine, func(c *ssh.Certificate) { c.ValidPrincipals = []string{"ops"} })
	s.conf.AuthorizedKeysFiles = nil
	s.file("principals/.a", "ops\n")
	s.file("principals/b", "ops\n")
	s.file("principals/c", "others\n")
	s.want("principals of a hidden file", cert, false, "authorized principal")
	s.file("principals/d", "ops\n")
	s.want("principals of the second file", cert, true, "Accepted certificate")
}

func TestNotesAreBounded(t *testing.T) {
	s := newSetup(t)
	mine := newKey(t)
	s.authorize(strings.Repeat(`from="198.51.100.1" `+line(mine), pamwire.MaxNotes+10))
	_, notes := s.ask(mine.PublicKey())
	if n := strings.Count(notes, "\n") + 1; n != pamwire.MaxNotes {
		t.Errorf("%d notes", n)
	}
}

func TestAQuestionThatIsNotUnderstoodIsAnError(t *testing.T) {
	s := newSetup(t)
	key := newKey(t).PublicKey().Marshal()
	for _, q := range []pamwire.KeyQuery{{Key: []byte("x"), Settings: "{}"}, {Key: key, Settings: "{"}, {Key: append(key, 0), Settings: "{}"}} {
		if e, err := Ask(s.account, q); err == nil {
			t.Errorf("%#v", e)
		}
	}
}
