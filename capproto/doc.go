// Package capproto has what the processes of p9auth say to each other: the
// capability (this file's neighbour cap.go), the rpc between front ends and
// factotum (rpc.go), and the client that front ends use (client.go).
//
// A capability has a text form and a hash:
//
//	text = from-uid "@" to-uid "@" gid *("," gid)      decimal; the first gid is the primary group
//	cap  = text "@" key                                key: 32 random bytes, base64url without padding
//	hash = HMAC-SHA256(key, text)                      32 bytes, written to caphash in one write
//
// factotum makes a capability, writes its hash to the caphash file, sends the
// capability to the process that asked, and forgets it. Who holds it writes
// it to the capuse file and is the target user from then on: see
// internal/capuse.
//
// The package is pure computation and messages on a socket: it needs no right
// and opens nothing but the rpc socket.
package capproto
