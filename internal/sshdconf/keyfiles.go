package sshdconf

import (
	"fmt"
	"path"
	"strconv"
	"strings"
)

// userFileTokens are those that AuthorizedKeysFile and
// AuthorizedPrincipalsFile take.
func userFileTokens(user, home string, uid uint32) Tokens {
	return Tokens{'h': home, 'u': user, 'U': strconv.FormatUint(uint64(uid), 10)}
}

// UserFile is one file to look for keys or principals in.
type UserFile struct {
	Path string // absolute and clean
	// Glob: Path is a pattern for [Glob], since the configuration has
	// wildcards there; what came from a token is escaped.
	Glob bool
}

// KeysFiles returns the files of AuthorizedKeysFile for an account. A relative
// one is below home.
func (s *Auth) KeysFiles(user, home string, uid uint32) ([]UserFile, error) {
	var out []UserFile
	for _, f := range s.AuthorizedKeysFiles {
		if strings.EqualFold(f, "none") {
			continue
		}
		u, err := userFile(f, user, home, uid)
		if err != nil {
			return nil, fmt.Errorf("AuthorizedKeysFile: %w", err)
		}
		out = append(out, u)
	}
	return out, nil
}

// PrincipalsFile returns the file of AuthorizedPrincipalsFile for an account,
// and false for none.
func (s *Auth) PrincipalsFile(user, home string, uid uint32) (UserFile, bool, error) {
	if s.AuthorizedPrincipalsFile == "" {
		return UserFile{}, false, nil
	}
	u, err := userFile(s.AuthorizedPrincipalsFile, user, home, uid)
	if err != nil {
		return UserFile{}, false, fmt.Errorf("AuthorizedPrincipalsFile: %w", err)
	}
	return u, true, nil
}

func userFile(template, user, home string, uid uint32) (UserFile, error) {
	if !path.IsAbs(home) {
		return UserFile{}, fmt.Errorf("home directory %q is not absolute", clip(home))
	}
	if user == "" || user == "." || user == ".." || strings.Contains(user, "/") {
		return UserFile{}, fmt.Errorf("user name %q cannot be part of a path", clip(user))
	}
	glob := strings.ContainsAny(template, `*?[\`)
	t := userFileTokens(user, home, uid)
	if glob {
		esc := strings.NewReplacer("*", `\*`, "?", `\?`, "[", `\[`, `\`, `\\`)
		for k, v := range t {
			t[k] = esc.Replace(v)
		}
	}
	p, err := Expand(template, t)
	if err != nil {
		return UserFile{}, err
	}
	if !path.IsAbs(p) {
		p = t['h'] + "/" + p
	}
	return UserFile{path.Clean(p), glob}, nil
}

// keysTokens are those that AuthorizedKeysCommand takes, and principalsTokens
// those of AuthorizedPrincipalsCommand.
const (
	keysTokens       = "CDUfhktu"
	principalsTokens = keysTokens + "FKTis"
)

// KeysCommand returns the program of AuthorizedKeysCommand and its arguments.
func (s *Auth) KeysCommand(t Tokens) ([]string, error) {
	return commandLine(s.AuthorizedKeysCommand, keysTokens, t)
}

// PrincipalsCommand returns the program of AuthorizedPrincipalsCommand and its
// arguments.
func (s *Auth) PrincipalsCommand(t Tokens) ([]string, error) {
	return commandLine(s.AuthorizedPrincipalsCommand, principalsTokens, t)
}

// commandLine splits a command, and then replaces the tokens in its arguments:
// what comes from a token is never split.
func commandLine(command, tokens string, t Tokens) ([]string, error) {
	argv, err := splitWords(command, false)
	if err != nil {
		return nil, err
	}
	if len(argv) == 0 || !path.IsAbs(argv[0]) {
		return nil, fmt.Errorf("%q is not an absolute path", clip(command))
	}
	take := Tokens{}
	for _, c := range []byte(tokens) {
		if v, ok := t[c]; ok {
			take[c] = v
		}
	}
	for i := range argv[1:] {
		if argv[i+1], err = Expand(argv[i+1], take); err != nil {
			return nil, err
		}
	}
	return argv, nil
}
