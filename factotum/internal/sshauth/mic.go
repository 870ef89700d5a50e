package sshauth

import "golang.org/x/crypto/ssh"

// MICMessage is what a client of gssapi-with-mic makes its MIC over, to bind the security
// context to this connection and to this user (RFC 4462, section 3.5). It is put together
// here, from the session id and the user's name: the front end has no say in it.
func MICMessage(sessionID []byte, user string) []byte {
	return ssh.Marshal(struct {
		SessionID []byte
		Type      byte
		User      string
		Service   string
		Method    string
	}{sessionID, 50, user, "ssh-connection", GSSAPI})
}
