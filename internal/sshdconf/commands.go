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
