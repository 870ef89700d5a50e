package session

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"p9auth/factotum/pam/internal/asuser"
	"p9auth/factotum/pam/internal/log"
)

// Credentials are what a client of GSSAPI has delegated: a cache as MIT Kerberos has it
// in a file, or nothing. With Keep the file stays when the session ends
// (GSSAPICleanupCredentials of sshd_config(5)).
type Credentials struct {
	Cache []byte
	Keep  bool
}

// storeCredentials writes the credentials to a file of the user's, as the user, and has
// KRB5CCNAME name it: before PAM's session, as sshd(8) does, and in its place. A session
// without them is better than none.
func (s *Session) storeCredentials() {
	if len(s.Credentials.Cache) == 0 {
		return
	}
	path := ""
	err := s.asAccount(func() error {
		f, err := os.CreateTemp("/tmp", fmt.Sprintf("krb5cc_%d_*", s.Account.UID))
		if err != nil {
			return err
		}
		path = f.Name()
		_, err = f.Write(s.Credentials.Cache)
		return errors.Join(err, f.Close())
	})
	if err == nil {
		err = s.Transaction.PutEnv("KRB5CCNAME=FILE:" + path)
	}
	if path != "" && (err != nil || !s.Credentials.Keep) {
		s.cache = path
	}
	if err != nil {
		log.Warn("the credentials that the client has delegated are not stored", "user", s.Account.Name, "error", err.Error())
		s.removeCredentials()
	}
	clear(s.Credentials.Cache)
}

// removeCredentials removes the file, as the user, who may have done so.
func (s *Session) removeCredentials() {
	if s.cache == "" {
		return
	}
	err := s.asAccount(func() error { return os.Remove(s.cache) })
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Warn("the delegated credentials are not removed", "user", s.Account.Name, "error", err.Error())
	}
	s.cache = ""
}

// asAccount calls f with the account's rights over files.
func (s *Session) asAccount(f func() error) error {
	groups, err := readGroups()
	if err != nil {
		return err
	}
	return asuser.Do(s.Account.UID, s.Account.GID, groups, f)
}
