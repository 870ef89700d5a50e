package connection

import (
	"errors"
	"io"
	"net"
	"strconv"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"p9auth/internal/sockets"
	"p9auth/internal/sshdconf"
	"p9auth/sshfront/internal/channels"
	"p9auth/sshfront/internal/control"
	"p9auth/sshfront/internal/sshlog"
)

// from is the client's address in sshd's words.
func (c *connection) from() string { return sockets.HostPort(c.remote) }

// ended logs, as sshd's packet.c does, why the client is not let in.
func (c *connection) ended(err error) int {
	if ident := new(identError); errors.As(err, &ident) {
		ident.log(c.from())
		return control.ExitNoAuth
	}
	var no *ssh.AlgorithmNegotiationError
	if errors.As(err, &no) {
		sshlog.Printf(sshdconf.LogInfo, "Unable to negotiate with %s: no matching %s found. Their offer: %s [preauth]", c.from(), noMatch(no.What), strings.Join(no.RequestedAlgorithms, ","))
		return control.ExitNoAuth
	}
	who := c.from()
	switch {
	case c.named && c.invalid:
		who = "invalid user " + c.login + " " + who
	case c.named:
		who = "authenticating user " + c.login + " " + who
	}
	var auth *ssh.ServerAuthError // the client left while it authenticated, or was sent away
	reason, text, theirs := disconnected(err)
	switch broken := c.stream.writeError(); {
	case theirs:
		sshlog.Printf(disconnectLevel(reason), "Received disconnect from %s:%d: %.400s [preauth]", c.from(), reason, text)
		sshlog.Printf(sshdconf.LogInfo, "Disconnected from %s [preauth]", who)
	case errors.As(err, &auth) && len(auth.Errors) > 0 && sentAway(auth.Errors[len(auth.Errors)-1]):
		// factotum has logged that there were too many.
		sshlog.Printf(sshdconf.LogInfo, "Disconnecting %s: Too many authentication failures [preauth]", who)
	case c.over:
		// It is in the log why we have ended the connection.
	case broken != nil:
		sshlog.Printf(sshdconf.LogInfo, "ssh_packet_write_poll: Connection from %s: %v [preauth]", who, broken)
	case errors.Is(err, unix.ECONNRESET):
		sshlog.Printf(sshdconf.LogInfo, "Connection reset by %s [preauth]", who)
	case auth != nil, errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed):
		sshlog.Printf(sshdconf.LogInfo, "Connection closed by %s [preauth]", who)
	default:
		sshlog.Printf(sshdconf.LogInfo, "ssh_dispatch_run_fatal: Connection from %s: %v [preauth]", who, err)
	}
	switch {
	case c.tried:
		return control.ExitAuthFail
	case c.refused:
		return control.ExitRefused
	case c.invalid:
		return control.ExitInvalidUser
	}
	return control.ExitNoAuth
}

// noMatch is sshd's word for what the two sides have no algorithm of in common.
func noMatch(what string) string {
	switch what {
	case "key exchange":
		return "key exchange method"
	case "host key":
		return "host key type"
	}
	return what[strings.LastIndexByte(what, ' ')+1:] // cipher, MAC
}

// left logs, as sshd's serverloop.c and packet.c do, why the connection of a user
// has ended: err is what channels.Serve says of it.
func (c *connection) left(conn *ssh.ServerConn, err error) {
	who := "user " + c.login + " " + c.from()
	switch broken := c.stream.writeError(); {
	case broken != nil:
		sshlog.Printf(sshdconf.LogInfo, "ssh_packet_write_poll: Connection from %s: %v", who, broken)
		return
	case errors.Is(err, channels.ErrNotResponding):
		sshlog.Printf(sshdconf.LogInfo, "Timeout, client not responding from %s", who)
		return
	case errors.Is(err, channels.ErrUnused):
		sshlog.Printf(sshdconf.LogInfo, "terminating inactive connection from %s", who)
		return
	case err != nil:
		sshlog.Printf(sshdconf.LogInfo, "Disconnecting %s: %v", who, err)
		return
	}
	err = conn.Wait()
	reason, text, theirs := disconnected(err)
	switch {
	case theirs:
		sshlog.Printf(disconnectLevel(reason), "Received disconnect from %s:%d: %.400s", c.from(), reason, text)
		sshlog.Printf(sshdconf.LogInfo, "Disconnected from %s", who)
	case err == nil, errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed):
		sshlog.Printf(sshdconf.LogVerbose, "Connection closed by %s", c.from())
	case errors.As(err, new(*net.OpError)):
		sshlog.Printf(sshdconf.LogVerbose, "Read error from remote host %s: %v", c.from(), err)
	default:
		sshlog.Printf(sshdconf.LogInfo, "ssh_dispatch_run_fatal: Connection from %s: %v", who, err)
	}
}

// disconnected reports whether an error is the client's SSH_MSG_DISCONNECT, and
// what that says (RFC 4253, section 11.1). The SSH library does not export the type of
// the error that it makes of it, "ssh: disconnect, reason 11: \"text\"".
func disconnected(err error) (reason uint32, text string, ok bool) {
	if err == nil {
		return 0, "", false
	}
	rest, ok := strings.CutPrefix(err.Error(), "ssh: disconnect, reason ")
	number, quoted, colon := strings.Cut(rest, ": ")
	if !ok || !colon || !strings.HasPrefix(quoted, `"`) {
		return 0, "", false
	}
	n, err := strconv.ParseUint(number, 10, 32)
	if err != nil {
		return 0, "", false
	}
	text, err = strconv.Unquote(quoted)
	return uint32(n), text, err == nil
}

// sentAway reports whether the last error of an authentication is that the client
// tried too often: the library's own SSH_MSG_DISCONNECT.
func sentAway(err error) bool {
	_, _, ok := disconnected(err)
	return ok
}

// disconnectLevel is that of "Received disconnect": a client that leaves by
// itself is nothing to worry about.
func disconnectLevel(reason uint32) sshdconf.LogLevel {
	if reason == 11 { // SSH_DISCONNECT_BY_APPLICATION
		return sshdconf.LogInfo
	}
	return sshdconf.LogError
}
