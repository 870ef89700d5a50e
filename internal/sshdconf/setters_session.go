package sshdconf

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// The keywords of the session whose values have a grammar of their own, in the
// order of the table.

func setAcceptEnv(s *Settings, a *args) error {
	vs, err := a.all()
	if err != nil {
		return err
	}
	if a.first {
		s.AcceptEnv = nil
	}
	for _, v := range vs {
		if strings.Contains(v, "=") {
			return fmt.Errorf("%q is not the name of an environment variable", clip(v))
		}
		s.AcceptEnv = append(s.AcceptEnv, v)
	}
	return nil
}

func setSetEnv(s *Settings, a *args) error {
	vs, err := a.all()
	if err != nil {
		return err
	}
	s.SetEnv = nil
	seen := map[string]bool{}
	for _, v := range vs {
		name, _, ok := strings.Cut(v, "=")
		if !ok || name == "" {
			return fmt.Errorf("%q is not NAME=value", clip(v))
		}
		if !seen[name] {
			s.SetEnv = append(s.SetEnv, v)
		}
		seen[name] = true
	}
	return nil
}

func setUserEnv(s *Settings, a *args) error {
	v, err := a.next()
	switch v {
	case "yes", "no":
		s.PermitUserEnvironment = UserEnv{Permit: v == "yes"}
	default:
		s.PermitUserEnvironment = UserEnv{Permit: true, Patterns: v}
	}
	return err
}

func showUserEnv(s *Settings) []string {
	switch e := s.PermitUserEnvironment; {
	case !e.Permit:
		return one("no")
	case e.Patterns == "":
		return one("yes")
	default:
		return one(e.Patterns)
	}
}

func setForceCommand(s *Settings, a *args) error {
	if s.ForceCommand = a.raw; strings.EqualFold(a.raw, "none") {
		s.ForceCommand = ""
	}
	return nil
}

// setChroot takes ChrootDirectory. Whether it is a path that can be used is known
// once it is of a user.
func setChroot(s *Settings, a *args) error {
	v, err := a.next()
	if err != nil {
		return err
	}
	if _, err := Expand(v, Tokens{'h': "", 'u': "", 'U': ""}); err != nil {
		return err
	}
	if s.ChrootDirectory = v; strings.EqualFold(v, "none") {
		s.ChrootDirectory = ""
	}
	return nil
}

// inQuotes quotes what means something between double quotes of a configuration.
var inQuotes = strings.NewReplacer(`\`, `\\`, `"`, `\"`, `'`, `\'`)

// setSubsystem takes the first line for each name. The command goes to a
// shell, so its words are quoted again as OpenSSH does.
func setSubsystem(s *Settings, a *args) error {
	name, err := a.next()
	if err != nil {
		return err
	}
	words, err := a.all()
	if err != nil {
		return err
	}
	if !a.once("subsystem:" + name) {
		return nil
	}
	quoted := make([]string, len(words))
	for i, w := range words {
		w = inQuotes.Replace(w)
		if strings.ContainsAny(w, " \t") {
			w = `"` + w + `"`
		}
		quoted[i] = w
	}
	sub := Subsystem{name, strings.Join(quoted, " ")}
	if i := slices.IndexFunc(s.Subsystems, func(x Subsystem) bool { return x.Name == name }); i >= 0 {
		s.Subsystems[i] = sub
		return nil
	}
	s.Subsystems = append(s.Subsystems, sub)
	return nil
}

func setBindMask(s *Settings, a *args) error {
	v, err := a.next()
	if err != nil {
		return err
	}
	n, err := strconv.ParseUint(v, 8, 32)
	if err != nil || n > 0o777 {
		return fmt.Errorf("%q is not an octal mask", clip(v))
	}
	s.StreamLocalBindMask = uint32(n)
	return nil
}

func permits(bare bool, at func(*Settings) *Permits) kind {
	return kind{
		set: func(s *Settings, a *args) error {
			vs, err := a.all()
			if err != nil {
				return err
			}
			*at(s) = Permits{}
			if len(vs) == 1 && (vs[0] == "any" || vs[0] == "none") {
				at(s).None = vs[0] == "none"
				return nil
			}
			for _, v := range vs {
				if v == "any" || v == "none" {
					return fmt.Errorf("%s must appear alone", v)
				}
				h, err := ParsePermit(v, bare)
				if err != nil {
					return err
				}
				at(s).List = append(at(s).List, h)
			}
			return nil
		},
		show: func(s *Settings) []string {
			p := *at(s)
			if p.None {
				return one("none")
			}
			if len(p.List) == 0 {
				return one("any")
			}
			var v []string
			for _, h := range p.List {
				v = append(v, h.String())
			}
			return one(strings.Join(v, " "))
		},
	}
}
