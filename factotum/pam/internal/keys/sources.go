package keys

import (
	"bytes"
	"encoding/base64"
	"os"
	"strconv"

	"p9auth/factotum/pam/internal/nss"
	"p9auth/internal/authkeys"
	"p9auth/internal/sshdconf"
	"p9auth/internal/sshkey"
)

// maxKeyFiles bounds what the patterns of AuthorizedKeysFile may match.
const maxKeyFiles = 64

// userFiles looks for the key in the files of AuthorizedKeysFile.
func (c *check) userFiles(cert *sshkey.Certificate) (authkeys.Options, bool) {
	files, err := c.conf.KeysFiles(c.account.Name, c.account.Home, c.account.UID)
	if err != nil {
		c.note("AuthorizedKeysFile: %v", err)
		return authkeys.Options{}, false
	}
	var options authkeys.Options
	found := false
	for _, path := range c.paths("AuthorizedKeysFile", files...) {
		c.userFile(path, func(f *os.File) {
			options, found = c.keysFile(path, f, cert)
		})
		if found {
			break
		}
	}
	return options, found
}

// trustedCA checks a certificate against TrustedUserCAKeys, the user's
// AuthorizedPrincipalsFile and AuthorizedPrincipalsCommand.
func (c *check) trustedCA(cert *sshkey.Certificate) (authkeys.Options, bool) {
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
	trusted := false
	for e, err := range authkeys.Entries(f) {
		if err != nil {
			c.unread("TrustedUserCAKeys "+c.conf.TrustedUserCAKeys, err)
		} else if trusted = sameKey(e.Key, cert.Authority); trusted {
			break
		}
	}
	if !trusted {
		return none, false
	}
	options, _, _ := authkeys.ParseOptions("")
	line := match{options: options, principal: c.account.Name}
	file, given, err := c.conf.PrincipalsFile(c.account.Name, c.account.Home, c.account.UID)
	if err != nil {
		c.note("AuthorizedPrincipalsFile: %v", err)
		return none, false
	}
	line.options.NoTouchRequired = true // there is no line: the certificate alone decides
	if command := c.conf.AuthorizedPrincipalsCommand != ""; given || command {
		found := false
		if given {
			for _, path := range c.paths("AuthorizedPrincipalsFile", file) {
				c.userFile(path, func(f *os.File) {
					line, found = c.principalsFile(path, f, cert)
				})
				if found {
					break
				}
			}
		}
		if !found && command {
			line, found = c.principalsCommand(cert)
		}
		if !found {
			c.note("Certificate does not contain an authorized principal")
			return none, false
		}
		if err := line.options.Check(c.client, false); err != nil {
			c.note("%s: %v", line.where, err)
			return none, false
		}
	}
	return c.certificate(cert, line.principal, line.options)
}

// paths expands the patterns of a keyword, as the user.
func (c *check) paths(keyword string, files ...sshdconf.UserFile) []string {
	var paths []string
	for _, f := range files {
		if !f.Glob {
			paths = append(paths, f.Path)
			continue
		}
		c.asUser(c.account, func() error {
			found, err := sshdconf.Glob(f.Path)
			paths = append(paths, found...)
			return err
		})
	}
	if len(paths) > maxKeyFiles {
		c.note("%s: %d files, only %d are read", keyword, len(paths), maxKeyFiles)
		paths = paths[:maxKeyFiles]
	}
	return paths
}

// userFile opens and reads a file with the user's rights.
func (c *check) userFile(path string, read func(*os.File)) {
	var strict authkeys.Private
	if c.conf.StrictModes {
		strict = func(gid, owner uint32) bool { return nss.OnlyMember(gid, c.account.UID, owner) }
	}
	err := c.asUser(c.account, func() error {
		f, err := authkeys.Open(path, c.account.Home, c.account.UID, strict)
		if err != nil {
			return err
		}
		defer f.Close()
		read(f)
		return nil
	})
	if err != nil && !authkeys.IsMissing(err) {
		c.note("Authentication refused: %v", err)
	}
}

// keysCommand looks for the key in what AuthorizedKeysCommand prints.
func (c *check) keysCommand(cert *sshkey.Certificate) (authkeys.Options, bool) {
	const keyword = "AuthorizedKeysCommand"
	if c.conf.AuthorizedKeysCommand == "" {
		return authkeys.Options{}, false
	}
	argv, err := c.conf.KeysCommand(c.tokens())
	if err != nil {
		c.note("%s: %v", keyword, err)
		return authkeys.Options{}, false
	}
	if len(argv) == 1 {
		argv = append(argv, c.account.Name)
	}
	out := c.output(keyword, argv, c.conf.AuthorizedKeysCommandUser)
	return c.keysFile(keyword, bytes.NewReader(out), cert)
}

// principalsCommand looks for a principal in what AuthorizedPrincipalsCommand prints.
func (c *check) principalsCommand(cert *sshkey.Certificate) (match, bool) {
	const keyword = "AuthorizedPrincipalsCommand"
	argv, err := c.conf.PrincipalsCommand(c.tokens())
	if err != nil {
		c.note("%s: %v", keyword, err)
		return match{}, false
	}
	out := c.output(keyword, argv, c.conf.AuthorizedPrincipalsCommandUser)
	return c.principalsFile(keyword, bytes.NewReader(out), cert)
}

// tokens returns the values of the tokens that the commands take. A plain key has
// none of a certificate's.
func (c *check) tokens() sshdconf.Tokens {
	t := sshdconf.Tokens{
		'C': c.ends, 'D': "", 'U': strconv.FormatUint(uint64(c.account.UID), 10), 'u': c.account.Name, 'h': c.account.Home,
		't': c.key.Type, 'f': c.fingerprint(c.key.Plain()), 'k': base64.StdEncoding.EncodeToString(c.key.Blob),
	}
	if cert := c.key.Cert; cert != nil {
		t['T'], t['F'] = cert.Authority.Type, c.fingerprint(cert.Authority)
		t['K'] = base64.StdEncoding.EncodeToString(cert.Authority.Blob)
		t['i'], t['s'] = cert.ID, strconv.FormatUint(cert.Serial, 10)
	}
	return t
}
