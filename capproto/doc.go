// Package capproto lets a front end log a person in through factotum, and has
// the capability by which a process becomes that person.
//
// A front end that asks PAM calls
//
//	c, err := capproto.Dial("/run/factotum/rpc")
//	tty, err := c.Start(capproto.Start{User: name, TTY: os.Stdin}) // a fresh one
//	err = c.Converse(ask)       // until factotum is convinced, or not
//	err = c.Session()           // opens the PAM session for this process
//	err = c.Converse(ask)
//	info, err := c.AuthInfo()   // the capability, for internal/capuse
//
// and one that speaks SSH calls StartSSH, Sign, User, Auth and Ticket in the
// process that talks to the client, then Attach, Session, Converse and AuthInfo
// in the process that becomes the user. Every refusal is an *Error, whose Code
// says what kind it is and whose Text is for the person.
//
// # The rpc
//
// It runs over a unix socket of type SOCK_SEQPACKET, in the manner of Plan 9's
// factotum(4). A connection is one conversation; the front end sends a request,
// factotum answers it with one reply, and nothing comes unasked. Each packet is a
// [Msg]. The manual page p9auth-rpc(7) is the protocol: the requests, their
// attributes, the states and the errors.
//
// factotum learns who made the connection from SO_PEERCRED and who sent each
// packet from SCM_CREDENTIALS (unix(7)). Packets that do not all come from one
// process end the conversation.
//
// # The capability
//
// A capability names a source uid, a target uid and its groups. It has a text
// form and a hash:
//
//	text = from-uid "@" to-uid "@" gid *("," gid)      decimal; the first gid is the primary group
//	cap  = text "@" key                                key: 32 random bytes, base64url without padding
//	hash = HMAC-SHA256(key, text)                      32 bytes, written to caphash in one write
//
// factotum makes a capability, writes its hash to the caphash file, sends the
// capability to the process that asked, and forgets it. The process that holds
// it writes it to the capuse file and is the target user from then on: see
// internal/capuse.
//
// The package computes, and moves messages over a socket: it needs no right and
// opens nothing but the rpc socket.
package capproto
