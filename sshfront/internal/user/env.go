package user

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"p9auth/internal/match"
	"p9auth/internal/sockets"
	"p9auth/sshfront/internal/userlink"
)

// Search paths of Debian's sshd(8).
const (
	stdPath  = "/usr/local/bin:/usr/bin:/bin:/usr/games"
	rootPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)

// maxEnvFile bounds ~/.ssh/environment, in bytes; sshd(8) has its lines at
// 1000.
const maxEnvFile = 64 << 10

// An environ is an environment: a name comes once, the last value counts.
type environ struct {
	names  []string
	values map[string]string
}

func (e *environ) set(name, value string) {
	if name == "" || strings.ContainsAny(name, "=\x00") || strings.ContainsRune(value, 0) {
		return
	}
	if e.values == nil {
		e.values = map[string]string{}
	}
	if _, ok := e.values[name]; !ok {
		e.names = append(e.names, name)
	}
	e.values[name] = value
}

// add sets NAME=VALUE.
func (e *environ) add(kv string) {
	if name, value, ok := strings.Cut(kv, "="); ok {
		e.set(name, value)
	}
}

func (e *environ) list() []string {
	var l []string
	for _, n := range e.names {
		l = append(l, n+"="+e.values[n])
	}
	return l
}

// envInput is what an environment depends on besides the Info.
type envInput struct {
	client    []string // as asked for, not yet filtered
	term      string
	tty       string
	display   string
	agent     string // path
	authInfo  string // path
	original  string // command
	hasOrigin bool
}

// environment is what a program of the session gets, in the order of sshd(8),
// session.c, do_setup_env: the later one counts. Complaints about
// ~/.ssh/environment are for standard error.
func (i *Info) environment(in envInput) (env, complaints []string) {
	var e environ
	for n, kv := range in.client {
		if name, _, _ := strings.Cut(kv, "="); n < userlink.MaxEnv && i.Settings.AcceptsEnv(name) {
			e.add(kv)
		}
	}
	e.set("USER", i.User)
	e.set("LOGNAME", i.User)
	e.set("HOME", i.Home)
	if i.UID == 0 {
		e.set("PATH", rootPath)
	} else {
		e.set("PATH", stdPath)
	}
	e.set("SHELL", i.shell())
	if in.term != "" {
		e.set("TERM", in.term)
	}
	if in.display != "" {
		e.set("DISPLAY", in.display)
	}
	for _, kv := range i.Env {
		if name, _, _ := strings.Cut(kv, "="); match.List(name, "SSH_AUTH_INFO*,SSH_CONNECTION*") != match.Matched {
			e.add(kv)
		}
	}
	if in.agent != "" {
		e.set("SSH_AUTH_SOCK", in.agent)
	}
	allows := i.Settings.PermitUserEnvironment.Allows
	if i.Settings.PermitUserEnvironment.Permit {
		opt := i.options()
		var file []string
		file, complaints = readEnvFile(filepath.Join(i.Home, ".ssh/environment"))
		for _, kv := range append(opt.Environment, file...) {
			if name, _, _ := strings.Cut(kv, "="); allows(name) {
				e.add(kv)
			}
		}
	}
	for _, kv := range i.Settings.SetEnv {
		e.add(kv)
	}
	c, s := i.Client, i.Server
	e.set("SSH_CLIENT", fmt.Sprintf("%s %d %d", sockets.Host(c.Addr()), c.Port(), s.Port()))
	e.set("SSH_CONNECTION", fmt.Sprintf("%s %d %s %d", sockets.Host(c.Addr()), c.Port(), sockets.Host(s.Addr()), s.Port()))
	if in.tty != "" {
		e.set("SSH_TTY", in.tty)
	}
	if in.authInfo != "" {
		e.set("SSH_USER_AUTH", in.authInfo)
	}
	if in.hasOrigin {
		e.set("SSH_ORIGINAL_COMMAND", in.original)
	}
	return e.list(), complaints
}

// readEnvFile reads NAME=VALUE lines. A file that is not there has none.
func readEnvFile(path string) (kvs, complaints []string) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() || st.Size() > maxEnvFile {
		return nil, []string{path + " is not a file, or is too long"}
	}
	b := make([]byte, maxEnvFile)
	n, _ := f.Read(b)
	for i, line := range strings.Split(string(b[:n]), "\n") {
		line = strings.TrimLeft(line, " \t")
		if line == "" || line[0] == '#' {
			continue
		}
		if !strings.Contains(line, "=") {
			complaints = append(complaints, fmt.Sprintf("Bad line %d in %s", i+1, path))
			continue
		}
		kvs = append(kvs, line)
	}
	return kvs, complaints
}

// shell is the user's login shell.
func (i *Info) shell() string {
	if i.Shell == "" {
		return "/bin/sh"
	}
	return i.Shell
}
