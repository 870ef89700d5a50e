//go:build !sshsig

package connection

import (
	"errors"

	"golang.org/x/crypto/ssh"
)

// errNoSignatures is why a build without tools/sshpatch takes no key.
var errNoSignatures = errors.New("this build of sshfront cannot take public keys, as its SSH library does not hand out signatures: build it with make")

// setVerifySignature would have f decide on signatures, but without the build
// step of tools/sshpatch there is no way: it returns false, and every key
// is refused with errNoSignatures from then on.
func setVerifySignature(c *ssh.ServerConfig, _ func(conn ssh.ConnMetadata, alg string, key ssh.PublicKey, signed []byte, sig *ssh.Signature) error) bool {
	c.PublicKeyCallback = func(ssh.ConnMetadata, ssh.PublicKey) (*ssh.Permissions, error) {
		return nil, errNoSignatures
	}
	return false
}

// setUserCallback cannot do anything: the methods that are offered are those for
// the address. factotum still decides by the user's.
func setUserCallback(*ssh.ServerConfig, func(ssh.ConnMetadata, *ssh.ServerConfig)) {}
