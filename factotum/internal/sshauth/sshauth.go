// Package sshauth decides about key exchanges and about proofs of RFC 4252:
// whether what a host key is to sign is a key exchange of this server, whether a
// key is of a kind that the settings accept, whether a signature verifies, which
// methods come next, what a proof allows root to do, how long a refusal takes.
//
// It runs in factotum, as root, on bytes that strangers send, so it only
// computes: it imports neither os nor net (net/netip has the addresses), it
// opens nothing, waits for nothing, logs nothing. Who calls it acts on its
// answers.
package sshauth
