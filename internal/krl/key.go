package krl

import (
	"errors"

	"p9auth/internal/sshkey"
)

// canonical returns a key's plain form: that of the key in it for a certificate, and
// encoded as an offered key will be. A key of a type that nobody can offer is left as
// it is; a damaged one is an error.
func canonical(blob []byte) ([]byte, error) {
	k, err := sshkey.Parse(blob)
	if errors.Is(err, sshkey.ErrUnknownType) {
		return blob, nil
	}
	return k.Plain().Blob, err
}
