package capproto

import "fmt"

// Version is the version of the rpc. It grows with every change after which a
// front end and a factotum from before and after it would not understand each
// other. A front end says it in its start request, factotum in the reply.
// Programs from before there was one count as version 0.
const Version = 6

// programs are the front ends of each protocol, and how a person gets one of
// another version.
var programs = map[string]struct{ name, restart string }{
	"pam": {"login", "log in again; if that does not help, restart the console's getty"},
	"su":  {"su", "try again"},

	"doas":   {"doas", "try again"},
	"passwd": {"passwd", "try again"},
	"chkpwd": {"unix_chkpwd", "try again"},
	"ssh":    {"sshfront", "restart it"},
}

// A VersionError says that a front end and factotum are of different versions,
// which of them is older, and what to do.
type VersionError struct {
	Proto    string // of the front end: pam or ssh
	FrontEnd int    // its version
	Factotum int
}

func (e *VersionError) Error() string {
	p, ok := programs[e.Proto]
	if !ok {
		p.name, p.restart = "the front end", "restart it"
	}
	if e.FrontEnd < e.Factotum {
		return fmt.Sprintf("%s is older than factotum; %s", p.name, p.restart)
	}
	return fmt.Sprintf("factotum is older than %s; restart factotum", p.name)
}

// Reply is the error reply by which factotum refuses such a front end.
func (e *VersionError) Reply() *Error { return &Error{Code: CodeVersion, Text: e.Error()} }
