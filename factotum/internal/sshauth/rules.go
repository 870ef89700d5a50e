package sshauth

import (
	"p9auth/internal/authkeys"
	"p9auth/internal/sshdconf"
)

// RootMay reports whether PermitRootLogin lets root in by a method. options are
// those of the key that proved it, or nil.
func RootMay(permit sshdconf.RootLogin, method string, options *authkeys.Options) bool {
	switch permit {
	case sshdconf.RootYes:
		return true
	case sshdconf.RootNoPassword:
		return method == PublicKey || method == GSSAPI
	case sshdconf.RootForcedCommands:
		return method == PublicKey && options != nil && options.HasCommand
	}
	return false
}

// RequiredFlags is what a security key must attest, by PubkeyAuthOptions and by
// the options of the key's line: both may demand, only both together excuse from
// the touch.
func RequiredFlags(touchRequired, verifyRequired bool, o *authkeys.Options) Flags {
	return Flags{
		Touch:  touchRequired || !o.NoTouchRequired,
		Verify: verifyRequired || o.VerifyRequired,
	}
}

// Detail is a proof as sshd's log has it: the method comes before the client's address,
// and what Key has after it.
type Detail struct {
	Method string // as "publickey", "keyboard-interactive/pam"
	Key    string // as ": ED25519 SHA256:...", ": alice@EXAMPLE.ORG", or ""
}

// DetailOf is the Detail of a key.
func DetailOf(k Key, hash string) Detail {
	return Detail{PublicKey, ": " + k.Name() + " " + k.Fingerprint(hash)}
}
