package keys

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"p9auth/internal/authkeys"
	"p9auth/internal/sshkey"
)

// keysFile looks for the key, or the certificate's authority, in
// authorized_keys.
func (c *check) keysFile(path string, r io.Reader, cert *sshkey.Certificate) (authkeys.Options, bool) {
	for e, err := range authkeys.Entries(r) {
		if err != nil {
			c.unread(path, err)
			continue
		}
		want := c.key
		if cert != nil {
			want = cert.Authority
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
		// Either the line names principals, or the certificate the user, unless it has
		// no principals: OpenSSH 10.0 takes that for everybody.
		name := ""
		switch want := e.Options.Principals; {
		case want == nil && len(cert.Principals) > 0:
			name = c.account.Name
		case want != nil && !slices.ContainsFunc(cert.Principals, func(p string) bool { return slices.Contains(want, p) }):
			c.note("%s:%d: Certificate does not contain an authorized principal", path, e.Line)
			continue
		}
		if o, ok := c.certificate(cert, name, e.Options); ok {
			return o, true
		}
	}
	return authkeys.Options{}, false
}

// unread notes that a file was not read to its end. A line that grants nothing is not
// worth a note.
func (c *check) unread(path string, err error) {
	if !errors.As(err, new(*authkeys.LineError)) {
		c.note("%s: %v", path, err)
	}
}

// A match is a line of authorized_principals that names a certificate's principal.
type match struct {
	options   authkeys.Options
	principal string
	where     string // file and line, for the log
}

// principalsFile finds the first line of authorized_principals that names one of the
// certificate's principals. Lines after it do not count, even if its options refuse
// the client: sshd(8) stops there too.
func (c *check) principalsFile(path string, r io.Reader, cert *sshkey.Certificate) (m match, found bool) {
	for l, err := range authkeys.Principals(r) {
		if err != nil {
			c.unread(path, err)
			continue
		}
		if slices.Contains(cert.Principals, l.Name) {
			return match{l.Options, l.Name, fmt.Sprintf("%s:%d", path, l.Line)}, true
		}
	}
	return match{}, false
}

// certificate checks all of a certificate but who its authority is and the signature,
// which factotum has verified, and merges its options with those of the line that
// trusts it. name is the user that it must name; "" is none.
func (c *check) certificate(cert *sshkey.Certificate, name string, line authkeys.Options) (authkeys.Options, bool) {
	refuse := func(err error) (authkeys.Options, bool) {
		c.note("Refusing certificate ID %q serial=%d: %v", cert.ID, cert.Serial, err)
		return authkeys.Options{}, false
	}
	switch now := uint64(time.Now().Unix()); {
	case name != "" && len(cert.Principals) == 0:
		return refuse(errors.New("certificate lacks principal list"))
	case name != "" && !slices.Contains(cert.Principals, name):
		return refuse(errors.New("certificate invalid: name is not a listed principal"))
	case now < cert.ValidAfter:
		return refuse(errors.New("certificate is not yet valid"))
	case now >= cert.ValidBefore:
		return refuse(errors.New("certificate has expired"))
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
	c.note("Accepted certificate ID %q (serial %d) signed by %s CA %s", cert.ID, cert.Serial, cert.Authority.Type, c.fingerprint(cert.Authority))
	return merged, true
}

func sameKey(a, b sshkey.Key) bool { return bytes.Equal(a.Blob, b.Blob) }
