package daemon

import (
	"path/filepath"

	"p9auth/factotum/internal/config"
	"p9auth/internal/privs"
)

// traceable says of which front ends, as they are installed beside factotum, the
// files have a mode that lets their processes be traced when they start.
func traceable(c config.Config) (warnings []string) {
	for name, binding := range c.FrontEnds {
		program := c.UserProgram
		if binding.Proto == "pam" {
			program = filepath.Join(filepath.Dir(c.UserProgram), "login")
		}
		// Where there is none, the front end is another program.
		if why, err := privs.Traceable(program, name); err == nil && why != "" {
			warnings = append(warnings, why)
		}
	}
	return warnings
}
