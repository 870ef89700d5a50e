package connection

import (
	"crypto"

	"golang.org/x/crypto/ssh"

	"p9auth/internal/sntrup761"
	"p9auth/internal/umac"
)

// What OpenSSH prefers and the library does not have.
func init() {
	ssh.RegisterMAC("umac-64@openssh.com", umac.KeySize, false, umac.New64)
	ssh.RegisterMAC("umac-128@openssh.com", umac.KeySize, false, umac.New128)
	ssh.RegisterMAC("umac-64-etm@openssh.com", umac.KeySize, true, umac.New64)
	ssh.RegisterMAC("umac-128-etm@openssh.com", umac.KeySize, true, umac.New128)
	sntrup := ssh.KEM{PublicKeySize: sntrup761.PublicKeySize, CiphertextSize: sntrup761.CiphertextSize, Encapsulate: sntrup761.Encapsulate}
	ssh.RegisterHybridKeyExchange("sntrup761x25519-sha512", sntrup, crypto.SHA512)
	ssh.RegisterHybridKeyExchange("sntrup761x25519-sha512@openssh.com", sntrup, crypto.SHA512)
}
