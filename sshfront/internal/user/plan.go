package user

import (
	"fmt"
	"path/filepath"
	"strings"

	"p9auth/internal/sshdconf"
	"p9auth/sshfront/internal/sftp"
	"p9auth/sshfront/internal/userlink"
)

// A plan is what a session runs.
type plan struct {
	path string // empty: this program
	argv []string
	// login: the shell, interactive, which gets motd and PAM's messages.
	login bool
	// forced: by the settings or by the key; subsystem: one was asked for.
	// Signals are not passed on to either.
	forced, subsystem bool
	// original is what the client asked for where something else was forced.
	original    string
	hasOriginal bool
	userRC      bool   // ~/.ssh/rc may run
	refusal     string // shown in place of running anything
	change      bool   // of the password, which has expired: in place of the command
}

// name is what runs, for an error.
func (p *plan) name() string {
	if p.path == "" {
		return sshdconf.InternalSFTP
	}
	return p.path
}

// passwd is passwd(1), which changes a password that has expired.
const passwd = "/usr/bin/passwd"

// plan says what to run for a request, as session.c of sshd(8) does. It
// returns an error when there is no such subsystem.
func (i *Info) plan(command string, hasCommand bool, subsystem string) (plan, error) {
	p, err := i.asked(command, hasCommand, subsystem)
	if i.Expired {
		p.path, p.argv, p.userRC, p.refusal, p.change = passwd, []string{"passwd"}, false, "", true
	}
	return p, err
}

// asked is the plan where no password has expired.
func (i *Info) asked(command string, hasCommand bool, subsystem string) (plan, error) {
	var p plan
	opt := i.options()
	if subsystem != "" {
		var ok bool
		if command, ok = i.Settings.Subsystem(subsystem); !ok {
			return p, userlink.Failedf("there is no subsystem %.100q", subsystem)
		}
		hasCommand, p.subsystem = true, true
	}
	p.userRC = !p.subsystem && i.Settings.ForceCommand == "" && opt.UserRC && i.Settings.PermitUserRC
	sftp := p.subsystem && sshdconf.IsInternalSFTP(command)
	if forced, ok := opt.Forced(i.Settings.ForceCommand); ok {
		p.forced, p.original, p.hasOriginal = true, command, hasCommand
		command, hasCommand = forced, true
		if sftp = sshdconf.IsInternalSFTP(command); sftp && !p.subsystem {
			p.refusal = "This service allows sftp connections only."
			return p, nil
		}
	}
	if sftp {
		p.argv = append([]string{"sshfront", "sftp"}, strings.Fields(command)[1:]...)
		return p, nil
	}
	p.path = i.shell()
	name := filepath.Base(p.path)
	if p.login = !hasCommand; hasCommand {
		p.argv = []string{name, "-c", command}
	} else {
		p.argv = []string{"-" + name}
	}
	return p, nil
}

// CheckCommand reports what is wrong with a command of the configuration: only
// the arguments of internal-sftp can be told.
func CheckCommand(command string) error {
	if !sshdconf.IsInternalSFTP(command) {
		return nil
	}
	if err := sftp.Check(strings.Fields(command)[1:]); err != nil {
		return fmt.Errorf("%s: %w", sshdconf.InternalSFTP, err)
	}
	return nil
}
