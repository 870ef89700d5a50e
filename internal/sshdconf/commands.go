package sshdconf

import "strings"

// A Command is what a Subsystem or a ForceCommand line runs.
type Command struct {
	File string
	Line int // from 1
	Text string
}

// Commands returns the commands of all Subsystem and ForceCommand lines, within
// Match blocks and outside of them.
func (c *Config) Commands() []Command {
	var l []Command
	for _, line := range c.lines {
		switch {
		case strings.EqualFold(line.kw.name, "ForceCommand"):
			l = append(l, Command{line.file, line.n, line.raw})
		case strings.EqualFold(line.kw.name, "Subsystem") && len(line.args) > 1:
			l = append(l, Command{line.file, line.n, strings.Join(line.args[1:], " ")})
		}
	}
	return l
}

// InternalSFTP is the command of Subsystem, ForceCommand and command= that names
// the server's own sftp server.
const InternalSFTP = "internal-sftp"

// IsInternalSFTP reports whether a command is InternalSFTP, with any arguments.
func IsInternalSFTP(command string) bool {
	f := strings.Fields(command)
	return len(f) > 0 && f[0] == InternalSFTP
}
