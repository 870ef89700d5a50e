package keys

import (
	"errors"
	"os"
	"slices"

	"golang.org/x/crypto/ssh"

	"p9auth/internal/authkeys"
)

// trustedCA checks a certificate against TrustedUserCAKeys, the user's
// AuthorizedPrincipalsFile and AuthorizedPrincipalsCommand.
func (c *check) trustedCA(cert *ssh.Certificate) (authkeys.Options, bool) {
	none := authkeys.Options{}
	if c.conf.TrustedUserCAKeys == "" {
		return none, false
	}
	f, err := os.Open(c.conf.TrustedUserCAKeys)
	if err != nil {
		c.note("Could not open TrustedUserCAKeys: %v", err)
		return none, false
	}
	defer f.Close()
	entries, _, err := authkeys.Read(f)
	if err != nil {
		c.note("TrustedUserCAKeys %s: %v", c.conf.TrustedUserCAKeys, err)
		return none, false
	}
	if !slices.ContainsFunc(entries, func(e authkeys.Entry) bool { return sameKey(e.Key, cert.SignatureKey) }) {
		return none, false
	}
	line, _, _ := authkeys.ParseOptions("")
	file, given, err := c.conf.PrincipalsFile(c.account.Name, c.account.Home, c.account.UID)
	if err != nil {
		c.note("AuthorizedPrincipalsFile: %v", err)
		return none, false
	}
	principal := c.account.Name
	line.NoTouchRequired = true // there is no line: the certificate alone decides
	if command := c.conf.AuthorizedPrincipalsCommand != ""; given || command {
		found := false
		if given {
			c.userFile(file.Path, func(f *os.File) {
				line, principal, found = c.principalsFile(file.Path, f, cert)
			})
		}
		if !found && command {
			line, principal, found = c.principalsCommand(cert)
		}
		if !found {
			c.note("Certificate does not contain an authorized principal")
			return none, false
		}
	}
	return c.certificate(cert, principal, line)
}

// certificate checks all of a certificate but who its authority is, and merges
// its options with those of the line that trusts it.
func (c *check) certificate(cert *ssh.Certificate, principal string, line authkeys.Options) (authkeys.Options, bool) {
	refuse := func(err error) (authkeys.Options, bool) {
		c.note("Refusing certificate ID %q serial=%d: %v", cert.KeyId, cert.Serial, err)
		return authkeys.Options{}, false
	}
	if len(cert.ValidPrincipals) == 0 {
		return refuse(errors.New("certificate lacks principal list"))
	}
	checker := ssh.CertChecker{SupportedCriticalOptions: []string{"force-command", "source-address", "verify-required"}}
	if err := checker.CheckCert(principal, cert); err != nil {
		return refuse(err)
	}
	own, err := authkeys.FromCertificate(cert)
	if err != nil {
		return refuse(err)
	}
	if err := own.Check(c.client, false); err != nil {
		return refuse(err)
	}
	merged, err := authkeys.Merge(line, own)
	if err != nil {
		return refuse(err)
	}
	c.note("Accepted certificate ID %q (serial %d) signed by %s CA %s", cert.KeyId, cert.Serial, cert.SignatureKey.Type(), c.fingerprint(cert.SignatureKey))
	return merged, true
}
