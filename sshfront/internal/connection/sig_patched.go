//go:build sshsig

package connection

import "golang.org/x/crypto/ssh"

// setVerifySignature has f decide on the signatures of public key
// authentication, after c.PublicKeyCallback has accepted the key. It tells
// whether this build can do that.
//
// f gets the algorithm as the client named it, the key or certificate, the
// bytes that must be signed (RFC 4252 section 7) and the signature, of which
// nothing is verified. An error from f fails the attempt;
// *ssh.PartialSuccessError asks for another method.
func setVerifySignature(c *ssh.ServerConfig, f func(conn ssh.ConnMetadata, alg string, key ssh.PublicKey, signed []byte, sig *ssh.Signature) error) bool {
	c.VerifySignatureCallback = f
	return true
}

// setUserCallback has f change the library's configuration for the user, at the
// client's first request.
func setUserCallback(c *ssh.ServerConfig, f func(ssh.ConnMetadata, *ssh.ServerConfig)) {
	c.UserCallback = f
}
