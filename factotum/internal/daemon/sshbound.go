package daemon

import (
	"fmt"

	"p9auth/capproto"
	"p9auth/factotum/internal/pamwire"
	"p9auth/internal/becomerecord"
	"p9auth/internal/sshdconf"
	"p9auth/internal/sys"
)

// maxLogin is how long the text of a login may be, in bytes: the kernel has a
// bound of 32 pages for each variable of an environment (execve(2)).
const maxLogin = 120 << 10

// bound binds the login to the user process of sshfront, with the settings, the
// key's options and the account sealed in its environment: whoever owns
// sshfront's uid can start nothing else, and the user process enforces what they
// permit. The descriptors are those of the link to the connection process, of
// what PAM had to say, and of this conversation, none of which the user process believes.
func (l *sshProto) bound(o *pamwire.Opened, ptys uint32, login string) (*becomerecord.Bound, error) {
	if len(login) > maxLogin {
		return nil, fmt.Errorf("what the user process is to know has %d bytes, at most %d", len(login), maxLogin)
	}
	b := bind(o, l.worker.PID())
	b.Dir, b.Path, b.Argv, b.FDs = "/", l.gen.conf.UserProgram, []string{"sshfront: " + o.User, "user"}, []uint32{0, 1, 2, 3, 4, 5}
	b.Env = append([]string{"PATH=/usr/local/bin:/usr/bin:/bin", capproto.LoginVariable + "=" + login}, sys.SmallRuntime...)
	if o.Root != nil {
		b.Root = &becomerecord.Root{Path: o.Root.Path, Dev: o.Root.Dev, Ino: o.Root.Ino, PTYs: ptys}
	}
	return b, nil
}

// environment is PAM's: the user process makes the rest.
func (l *sshProto) environment(o *pamwire.Opened) []string { return o.Env }

// maxTerminals is how many terminals a login into a root directory finds there:
// become opens them, as a root has no ptmx(4).
const maxTerminals = 4

// terminals is how many terminals the user of this login can make use of in a
// root directory. One who gets sftp by force needs one for the time it takes to say so to
// a client that asks for a terminal.
func (l *sshProto) terminals() uint32 {
	command, _ := l.keyOptions.Forced(l.conf.ForceCommand)
	switch {
	case l.conf.ChrootDirectory == "", !l.conf.PermitTTY, l.keyOptions != nil && !l.keyOptions.PTY:
		return 0
	case sshdconf.IsInternalSFTP(command):
		return 1
	}
	return uint32(min(l.conf.MaxSessions, maxTerminals))
}
