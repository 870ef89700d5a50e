package capproto

import (
	"errors"
	"fmt"
	"strconv"
)

// ErrNoAnswer is what the person's side of Converse returns where nobody answers: PAM
// hears that there is no answer, and may go on.
var ErrNoAnswer = errors.New("nobody answers")

// A Change is what passwd asks for.
type Change struct {
	User    string // "" for the caller
	Expired bool   // only if the password has expired
	Quiet   bool
}

// StartPasswd begins to change a password. Converse must follow.
func (c *Client) StartPasswd(ch Change) error {
	m := NewMsg(VerbStart, "proto", "passwd", "version", strconv.Itoa(Version))
	if ch.User != "" {
		m.Add("user", ch.User)
	}
	if ch.Expired {
		m.Add("expired", "yes")
	}
	if ch.Quiet {
		m.Add("quiet", "yes")
	}
	reply, err := c.start(m)
	reply.Close()
	return err
}

// PasswordStatus asks for the line that passwd -S prints about a user, "" for the
// caller.
func (c *Client) PasswordStatus(user string) (line string, err error) {
	m := NewMsg(VerbStart, "proto", "passwd", "version", strconv.Itoa(Version), "status", "yes")
	if user != "" {
		m.Add("user", user)
	}
	reply, err := c.start(m)
	reply.Close()
	return reply.Get("line"), err
}

// CheckPassword asks what unix_chkpwd(8) says, with its two arguments: its exit status,
// and what it prints.
func (c *Client) CheckPassword(user, option, password string) (status int, output string, err error) {
	reply, err := c.start(NewMsg(VerbStart, "proto", "chkpwd", "version", strconv.Itoa(Version), "user", user, "option", option, "password", password))
	reply.Close()
	if err != nil {
		return 0, "", err
	}
	n, err := strconv.ParseUint(reply.Get("status"), 10, 8)
	if err != nil {
		return 0, "", fmt.Errorf("%w: status", ErrPacket)
	}
	return int(n), reply.Get("output"), nil
}
