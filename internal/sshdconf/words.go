package sshdconf

import (
	"errors"
	"fmt"
	"strings"
)

const blanks = " \t\r\n"

// splitKeyword takes the keyword off a line: "Keyword value" or
// "Keyword=value". It returns "" for a comment or an empty line.
func splitKeyword(text string) (name, rest string, err error) {
	text = strings.TrimRight(strings.TrimLeft(text, blanks), blanks+"\f")
	if text == "" || text[0] == '#' {
		return "", "", nil
	}
	i := strings.IndexAny(text, blanks+"=\"")
	if i < 0 {
		return text, "", nil
	}
	if i == 0 || text[i] == '"' {
		return "", "", fmt.Errorf("cannot read a keyword in %q", clip(text))
	}
	name, rest = text[:i], strings.TrimLeft(text[i:], blanks)
	if r, ok := strings.CutPrefix(rest, "="); ok {
		rest = strings.TrimLeft(r, blanks)
	}
	return name, rest, nil
}

// splitArgs splits arguments at blanks, with single and double quotes, the
// escapes \\ \" \' and "\ ", and a comment from an argument that begins with
// '#' (argv_split of OpenSSH).
func splitArgs(s string) ([]string, error) { return splitWords(s, true) }

// splitWords is splitArgs with comments, or without.
func splitWords(s string, comments bool) ([]string, error) {
	var args []string
	for i := 0; i < len(s); {
		if strings.IndexByte(blanks, s[i]) >= 0 {
			i++
			continue
		}
		if s[i] == '#' && comments {
			break
		}
		var arg []byte
		quote := byte(0)
		for ; i < len(s); i++ {
			c := s[i]
			switch {
			case c == '\\' && i+1 < len(s) && (strings.IndexByte(`'"\`, s[i+1]) >= 0 || quote == 0 && s[i+1] == ' '):
				i++
				arg = append(arg, s[i])
				continue
			case quote == 0 && strings.IndexByte(blanks, c) >= 0:
			case quote == 0 && (c == '"' || c == '\''):
				quote = c
				continue
			case quote != 0 && c == quote:
				quote = 0
				continue
			default:
				arg = append(arg, c)
				continue
			}
			break
		}
		if quote != 0 {
			return nil, errors.New("invalid quotes")
		}
		args = append(args, string(arg))
	}
	return args, nil
}
