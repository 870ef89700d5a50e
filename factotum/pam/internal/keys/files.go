package keys

import (
	"io"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/crypto/ssh"

	"p9auth/internal/authkeys"
	"p9auth/internal/sshdconf"
)

// maxKeyFiles bounds what the patterns of AuthorizedKeysFile may match.
const maxKeyFiles = 64

// userFiles looks into the files of AuthorizedKeysFile.
func (c *check) userFiles(cert *ssh.Certificate) (authkeys.Options, bool) {
	files, err := c.conf.KeysFiles(c.account.Name, c.account.Home, c.account.UID)
	if err != nil {
		c.note("AuthorizedKeysFile: %v", err)
		return authkeys.Options{}, false
	}
	var options authkeys.Options
	found := false
	for _, path := range c.paths(files) {
		c.userFile(path, func(f *os.File) {
			options, found = c.keysFile(path, f, cert)
		})
		if found {
			break
		}
	}
	return options, found
}

// paths expands the patterns of AuthorizedKeysFile, as the user.
func (c *check) paths(files []sshdconf.UserFile) []string {
	var paths []string
	for _, f := range files {
		if !f.Glob {
			paths = append(paths, f.Path)
			continue
		}
		c.asUser(c.account, func() error {
			found, err := filepath.Glob(f.Path)
			paths = append(paths, found...)
			return err
		})
	}
	if len(paths) > maxKeyFiles {
		c.note("AuthorizedKeysFile: %d files, only %d are read", len(paths), maxKeyFiles)
		paths = paths[:maxKeyFiles]
	}
	return paths
}

// userFile opens a file with the user's rights and reads it so.
func (c *check) userFile(path string, read func(*os.File)) {
	err := c.asUser(c.account, func() error {
		f, err := authkeys.Open(path, c.account.Home, c.account.UID, c.conf.StrictModes)
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

// keysFile looks for the key, or the certificate's authority, in
// authorized_keys.
func (c *check) keysFile(path string, r io.Reader, cert *ssh.Certificate) (authkeys.Options, bool) {
	entries, _, err := authkeys.Read(r)
	if err != nil {
		c.note("%s: %v", path, err)
		return authkeys.Options{}, false
	}
	for _, e := range entries {
		want := c.key
		if cert != nil {
			want = cert.SignatureKey
		}
		if e.Options.CertAuthority != (cert != nil) || !sameKey(e.Key, want) {
			continue
		}
		if err := e.Options.Check(c.client, cert != nil); err != nil {
			c.note("%s:%d: %v", path, e.Line, err)
			continue
		}
		if cert == nil {
			return e.Options, true
		}
		if !e.Options.HasPrincipal(cert, c.account.Name) {
			c.note("%s:%d: Certificate does not contain an authorized principal", path, e.Line)
			continue
		}
		principal := c.account.Name
		for _, p := range e.Options.Principals {
			if slices.Contains(cert.ValidPrincipals, p) {
				principal = p
			}
		}
		if o, ok := c.certificate(cert, principal, e.Options); ok {
			return o, true
		}
	}
	return authkeys.Options{}, false
}

// principalsFile finds a line of authorized_principals that names one of the
// certificate's principals.
func (c *check) principalsFile(path string, r io.Reader, cert *ssh.Certificate) (authkeys.Options, string, bool) {
	lines, _, err := authkeys.ReadPrincipals(r)
	if err != nil {
		c.note("%s: %v", path, err)
		return authkeys.Options{}, "", false
	}
	for _, l := range lines {
		if !slices.Contains(cert.ValidPrincipals, l.Name) {
			continue
		}
		if err := l.Options.Check(c.client, false); err != nil {
			c.note("%s:%d: %v", path, l.Line, err)
			continue
		}
		return l.Options, l.Name, true
	}
	return authkeys.Options{}, "", false
}
