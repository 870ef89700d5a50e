// Package loginshell has what login(1) promises of the user's shell: how it is
// executed and which variables it gets. The PAM worker, factotum and login each
// need a part of it. The package computes only, and trusts nobody: its input
// comes from NSS, from login.defs(5) and, for MayPass, from a front end.
package loginshell

import (
	"path/filepath"
	"slices"
	"strings"

	"p9auth/internal/logindefs"
)

// Command is the program and the arguments of a login shell, by the field of
// passwd(5). An empty one is /bin/sh, and one with a blank is a command for it.
func Command(shell string) (path string, argv []string) {
	switch {
	case shell == "":
		shell = "/bin/sh"
	case strings.Contains(shell, " "):
		return "/bin/sh", []string{"-sh", "-c", "exec " + shell}
	}
	return shell, []string{"-" + filepath.Base(shell)}
}

// Environment is what login(1) sets by login.defs(5): HOME, SHELL, USER, LOGNAME,
// PATH and MAIL, as NAME=VALUE. home is the directory that the shell starts in.
func Environment(d logindefs.Defs, user string, uid uint32, home, shell string) []string {
	path := d.String("ENV_PATH", "PATH=/usr/local/bin:/bin:/usr/bin")
	if uid == 0 {
		path = d.String("ENV_SUPATH", d.String("ENV_ROOTPATH", "PATH=/usr/local/sbin:/usr/local/bin:/sbin:/bin:/usr/sbin:/usr/bin"))
	}
	mail := "/var/mail/" + user
	if dir := d.String("MAIL_DIR", ""); dir != "" {
		mail = filepath.Join(dir, user)
	} else if file := d.String("MAIL_FILE", ""); file != "" {
		mail = filepath.Join(home, file)
	}
	program, _ := Command(shell)
	return []string{
		"HOME=" + home, "SHELL=" + program, "USER=" + user, "LOGNAME=" + user, "PATH=" + strings.TrimPrefix(path, "PATH="), "MAIL=" + mail,
	}
}

// Merge is one environment of several: of a variable that more than one has, the
// last one counts. It is sorted, and leaves out what is not NAME=VALUE.
func Merge(lists ...[]string) []string {
	m := map[string]string{}
	for _, kv := range slices.Concat(lists...) {
		if name, _, ok := strings.Cut(kv, "="); ok && name != "" {
			m[name] = kv
		}
	}
	var env []string
	for _, kv := range m {
		env = append(env, kv)
	}
	slices.Sort(env)
	return env
}

// maxValue bounds what a front end may say of the terminal or the language.
const maxValue = 256

// MayPass says whether a front end may pass on a variable by itself: TERM, LANG or
// one of LC_*, with a value that names a terminal or a locale and cannot be a path.
func MayPass(name, value string) bool {
	if name != "TERM" && name != "LANG" && !strings.HasPrefix(name, "LC_") {
		return false
	}
	return len(name) <= maxValue && len(value) <= maxValue && strings.IndexFunc(name+value, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || r == '/'
	}) < 0
}
