package doasconf

import (
	"slices"
	"strings"
)

// SafePath is where a command is looked for that a rule names, and PATH of each command
// unless setenv has another.
const SafePath = "/bin:/sbin:/usr/bin:/usr/sbin:/usr/local/bin:/usr/local/sbin"

// maxName is the longest name of a variable, in bytes. Longer ones are ignored.
const maxName = 1023

// kept are the variables that stay in any case.
var kept = []string{"DISPLAY", "TERM"}

// A Person has what the environment tells of the target.
type Person struct{ Name, Home, Shell string }

// Environment is that of a command: NAME=VALUE, sorted by name. It is made of the
// caller's, of which the first value of a name counts.
func (r *Rule) Environment(caller string, target Person, theirs []string) []string {
	old := map[string]string{}
	for _, kv := range theirs {
		name, value, ok := strings.Cut(kv, "=")
		if _, again := old[name]; ok && name != "" && len(name) <= maxName && !again {
			old[name] = value
		}
	}
	env := map[string]string{
		"DOAS_USER": caller, "HOME": target.Home, "LOGNAME": target.Name, "PATH": SafePath, "SHELL": target.Shell, "USER": target.Name,
	}
	apply(env, kept, old)
	if r.KeepEnv {
		for name, value := range old {
			if _, set := env[name]; !set {
				env[name] = value
			}
		}
	}
	apply(env, r.SetEnv, old)
	list := make([]string, 0, len(env))
	for name, value := range env {
		list = append(list, name+"="+value)
	}
	slices.Sort(list)
	return list
}

// apply does what a setenv list says: see Rule.
func apply(env map[string]string, list []string, old map[string]string) {
	for _, e := range list {
		name, value, assigned := strings.Cut(e, "=")
		if len(name) > maxName {
			continue
		}
		if gone, ok := strings.CutPrefix(name, "-"); ok {
			delete(env, gone)
			continue
		}
		from, inherited := name, !assigned
		if v, ok := strings.CutPrefix(value, "$"); assigned && ok {
			from, inherited = v, true
		}
		ok := true
		if inherited {
			if value, ok = old[from]; !ok && from == "PATH" {
				ok = true // the empty one
			}
		}
		if delete(env, name); ok {
			env[name] = value
		}
	}
}
