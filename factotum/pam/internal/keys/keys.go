// Package keys decides whether a public key or a certificate may log an account in:
// authorized_keys, authorized_principals, RevokedKeys, TrustedUserCAKeys and the two
// commands of sshd_config(5) that look keys up. It answers before factotum has
// checked a signature; a key that it allows proves nothing.
//
// It runs in the PAM worker, as root. Files that belong to a user are read with the
// user's fsuid and groups, the commands run as the account that the configuration
// names (command.go). Every file is bounded, and whatever cannot be read grants
// nothing; a list of revoked keys that cannot be read revokes all.
package keys

import (
	"fmt"
	"os"
	"slices"
	"time"

	"p9auth/capproto"
	"p9auth/factotum/internal/pamwire"
	"p9auth/factotum/pam/internal/nss"
	"p9auth/internal/authkeys"
	"p9auth/internal/krl"
	"p9auth/internal/pack"
	"p9auth/internal/sshdconf"
	"p9auth/internal/sshkey"
)

// Ask answers whether a key may log the account in, were a signature by it
// presented. An error says that the question is not understood.
func Ask(a *nss.Account, q pamwire.KeyQuery) (pamwire.Event, error) {
	c, err := newCheck(a, q)
	if err != nil {
		return nil, err
	}
	return c.answer()
}

func newCheck(a *nss.Account, q pamwire.KeyQuery) (*check, error) {
	c := &check{account: a, ends: q.Ends, asUser: as}
	var err error
	if c.key, err = sshkey.Parse(q.Key); err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	settings, err := capproto.UnB64(q.Settings)
	if err == nil {
		c.conf, err = sshdconf.AuthFormat.Decode(settings)
	}
	if err != nil {
		return nil, pack.Between(err, "factotum", "factotum-pam")
	}
	c.client = authkeys.Client{Host: q.Host, Addr: q.Addr, Now: time.Now()}
	return c, nil
}

func (c *check) answer() (pamwire.Event, error) {
	options, ok := c.allowed()
	if !ok {
		return pamwire.KeyDenied{Notes: c.notes}, nil
	}
	return pamwire.KeyAllowed{Options: capproto.B64(authkeys.OptionsFormat.Encode(&options)), Notes: c.notes}, nil
}

// allowed looks where sshd(8) looks, in the same order: the revoked keys, the
// user's own files, the certificate authorities, and AuthorizedKeysCommand.
func (c *check) allowed() (authkeys.Options, bool) {
	if c.revoked() {
		return authkeys.Options{}, false
	}
	cert := c.key.Cert
	if cert != nil {
		if cert.Type != sshkey.UserCert {
			c.note("Refusing a certificate that is not for users")
			return authkeys.Options{}, false
		}
		if !slices.Contains(c.conf.CASignatureAlgorithms, cert.SignatureFormat) {
			c.note("Refusing certificate ID %q: signed with %s, which CASignatureAlgorithms does not list", cert.ID, cert.SignatureFormat)
			return authkeys.Options{}, false
		}
	}
	if o, ok := c.userFiles(cert); ok {
		return o, true
	}
	if cert != nil {
		if o, ok := c.trustedCA(cert); ok {
			return o, true
		}
	}
	return c.keysCommand(cert)
}

// revoked looks for the key in RevokedKeys. A list that cannot be read revokes all keys.
func (c *check) revoked() bool {
	for _, path := range c.conf.RevokedKeys {
		f, err := os.Open(path)
		if err == nil {
			var list *krl.List
			list, err = krl.Read(f)
			f.Close()
			if err == nil {
				if list.IsRevoked(c.key) {
					c.note("Authentication key %s %s revoked by file %s", c.key.Type, c.fingerprint(c.key.Plain()), path)
					return true
				}
				continue
			}
		}
		c.note("error checking authentication key %s in revoked keys file %s: %v", c.fingerprint(c.key.Plain()), path, err)
		return true
	}
	return false
}
