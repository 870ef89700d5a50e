package sshdconf

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"p9auth/internal/match"
)

// The keywords of authentication whose values have a grammar of their own, in the
// order of the table.

// setMethods reads lists such as "publickey,password publickey,keyboard-interactive:pam".
func setMethods(s *Settings, a *args) error {
	vs, err := a.all()
	if err != nil {
		return err
	}
	s.AuthenticationMethods, s.AuthenticationMethodsText = nil, strings.Join(vs, " ")
	if len(vs) == 1 && vs[0] == "any" {
		return nil
	}
	var absent []string
	for _, v := range vs {
		chain, missing, err := methodList(v)
		if err != nil {
			return err
		}
		if missing != "" {
			absent = append(absent, missing)
			continue
		}
		if slices.Contains(chain, "none") {
			a.note = "nobody logs in by none: no empty password is tried unasked"
		}
		s.AuthenticationMethods = append(s.AuthenticationMethods, chain)
	}
	if len(s.AuthenticationMethods) == 0 {
		return fmt.Errorf("%s is not supported, which leaves no list", clip(strings.Join(absent, ", ")))
	}
	if absent != nil {
		a.note = "a list is left out, as p9auth does not have " + clip(strings.Join(absent, ", "))
	}
	return nil
}

// methodList reads one list. missing is a method that OpenSSH has and we have not: no
// login can complete such a list, and sshd skips it where the method is off.
func methodList(v string) (chain []string, missing string, err error) {
	for m := range strings.SplitSeq(v, ",") {
		name, device, submethod := strings.Cut(m, ":")
		switch name {
		case "publickey", "password", "keyboard-interactive", "gssapi-with-mic":
			// There is one device, PAM, of one method.
			if submethod && (name != "keyboard-interactive" || device != "pam") {
				missing = m
			}
		case "none":
			// Another line may take its place. Nothing ever completes it.
		case "any":
			return nil, "", errors.New("any must appear alone")
		case "hostbased", "gssapi-keyex":
			missing = m
		default:
			return nil, "", fmt.Errorf("unknown method %q", clip(m))
		}
		if chain = append(chain, name); len(chain) > 32 {
			return nil, "", errors.New("too many methods")
		}
	}
	return chain, missing, nil
}

func showMethods(s *Settings) []string {
	if s.AuthenticationMethodsText == "" {
		return one("any")
	}
	return one(s.AuthenticationMethodsText)
}

// patterns reads AllowUsers and its kin, whose lines add up.
func patterns(users bool, at func(*Settings) *[]string) kind {
	return kind{each: true,
		set: func(s *Settings, a *args) error {
			vs, err := a.all()
			if err != nil {
				return err
			}
			if a.first {
				*at(s) = nil
			}
			for _, v := range vs {
				if users {
					if err := match.CheckUser(v); err != nil {
						return err
					}
				}
				if strings.HasPrefix(v, "!") {
					a.note = fmt.Sprintf("%q stands for nobody: only a pattern of a list can be negated", clip(v))
				}
				*at(s) = append(*at(s), v)
			}
			return nil
		},
		show: func(s *Settings) []string { return *at(s) },
	}
}

func setKeysFile(s *Settings, a *args) error {
	vs, err := a.all()
	if err != nil {
		return err
	}
	s.AuthorizedKeysFiles = nil
	for _, v := range vs {
		if strings.EqualFold(v, "none") {
			s.AuthorizedKeysFiles = append(s.AuthorizedKeysFiles, v)
			continue
		}
		if err := checkUserFile(v); err != nil {
			return err
		}
		s.AuthorizedKeysFiles = append(s.AuthorizedKeysFiles, v)
	}
	return nil
}

func setPrincipalsFile(s *Settings, a *args) error {
	v, err := a.next()
	if err != nil {
		return err
	}
	s.AuthorizedPrincipalsFile = ""
	if strings.EqualFold(v, "none") {
		return nil
	}
	s.AuthorizedPrincipalsFile = v
	return checkUserFile(v)
}

func checkUserFile(v string) error {
	if v[0] == '~' {
		return fmt.Errorf("%q: ~ would be root's home directory; write %%h for the user's", clip(v))
	}
	_, err := userFile(v, "user", "/home/user", 1000)
	return err
}

// command reads a program and its arguments, from the rest of the line as it
// stands.
func command(tokens string, at func(*Settings) *string) kind {
	return kind{raw: true, show: text(at), set: func(s *Settings, a *args) error {
		if *at(s) = ""; strings.EqualFold(a.raw, "none") {
			return nil
		}
		*at(s) = a.raw
		try := Tokens{}
		for _, c := range []byte(tokens) {
			try[c] = ""
		}
		_, err := commandLine(a.raw, tokens, try)
		return err
	}}
}

// commandUser reads the user that the program runs as.
func commandUser(at func(*Settings) *string) kind {
	return kind{show: text(at), set: func(s *Settings, a *args) error {
		v, err := a.next()
		if err != nil {
			return err
		}
		if *at(s) = ""; strings.EqualFold(v, "none") {
			return nil
		}
		if *at(s) = v; v == "root" {
			return errors.New("no program is run as root; name a user who exists for this alone")
		}
		_, err = Expand(v, Tokens{'u': "user"})
		return err
	}}
}

func setRevoked(s *Settings, a *args) error {
	vs, err := a.all()
	if err != nil {
		return err
	}
	s.RevokedKeys = nil
	if len(vs) == 1 && strings.EqualFold(vs[0], "none") {
		return nil
	}
	for _, v := range vs {
		if v, err = absolute(v); err != nil || v == "" {
			return errors.Join(err, errors.New("none must appear alone"))
		}
		s.RevokedKeys = append(s.RevokedKeys, v)
	}
	return nil
}

func showRevoked(s *Settings) []string {
	if len(s.RevokedKeys) == 0 {
		return one("none")
	}
	return one(strings.Join(s.RevokedKeys, " "))
}

func setPubkeyOptions(s *Settings, a *args) error {
	vs, err := a.all()
	if err != nil {
		return err
	}
	s.TouchRequired, s.VerifyRequired = false, false
	for _, v := range vs {
		switch strings.ToLower(v) {
		case "none":
		case "touch-required":
			s.TouchRequired = true
		case "verify-required":
			s.VerifyRequired = true
		default:
			return fmt.Errorf("unsupported value %q", clip(v))
		}
	}
	return nil
}

func showPubkeyOptions(s *Settings) []string {
	var v []string
	if s.TouchRequired {
		v = append(v, "touch-required")
	}
	if s.VerifyRequired {
		v = append(v, "verify-required")
	}
	if v == nil {
		return one("none")
	}
	return one(strings.Join(v, " "))
}
