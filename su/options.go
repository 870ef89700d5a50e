package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"p9auth/capproto"
	"p9auth/internal/getopt"
)

const usage = `
Usage:
 su [options] [-] [<user> [<argument>...]]

Change the effective user ID and group ID to that of <user>.
A mere - implies -l.  If <user> is not given, root is assumed.

Options:
 -m, -p, --preserve-environment      do not reset environment variables
 -w, --whitelist-environment <list>  don't reset specified variables

 -g, --group <group>             specify the primary group
 -G, --supp-group <group>        specify a supplemental group

 -, -l, --login                  make the shell a login shell
 -c, --command <command>         pass a single command to the shell with -c
 --session-command <command>     pass a single command to the shell with -c
                                   and do not create a new session
 -f, --fast                      pass -f to the shell (for csh or tcsh)
 -s, --shell <shell>             run <shell> if /etc/shells allows it
 -P, --pty                       create a new pseudo-terminal

 -h, --help                      display this help
 -V, --version                   display version

For more details see p9su(1).
`

var (
	errHelp    = errors.New("help")
	errVersion = errors.New("version")
)

// A usageError is a command line that means nothing.
type usageError string

func (e usageError) Error() string { return string(e) }

// options are the command line.
type options struct {
	user       string
	login      bool
	preserve   bool
	command    string
	hasCommand bool
	inSession  bool // --session-command: no session of its own
	fast       bool
	shell      string
	pty        bool
	keep       []string // -w
	group      string
	groups     []string
	args       []string
}

// known are the options of su(1), by their short names. -T is --no-pty.
var known = []getopt.Option{
	{Short: 'm'}, {Short: 'p', Long: "preserve-environment"}, {Short: 'w', Long: "whitelist-environment", Arg: true},
	{Short: 'g', Long: "group", Arg: true}, {Short: 'G', Long: "supp-group", Arg: true}, {Short: 'l', Long: "login"},
	{Short: 'c', Long: "command", Arg: true}, {Long: "session-command", Arg: true}, {Short: 'f', Long: "fast"},
	{Short: 's', Long: "shell", Arg: true}, {Short: 'P', Long: "pty"}, {Short: 'T', Long: "no-pty"}, {Short: 'h', Long: "help"}, {Short: 'V', Long: "version"},
}

// parseArgs reads the command line.
func parseArgs(args []string) (options, error) {
	o := options{user: "root"}
	given, rest, err := getopt.Parse(args, known, os.Getenv("POSIXLY_CORRECT") != "")
	if err != nil {
		return o, usageError(err.Error())
	}
	for _, g := range given {
		if err := o.set(g.Name, g.Value); err != nil {
			return o, err
		}
	}
	if len(rest) > 0 && rest[0] == "-" {
		o.login, rest = true, rest[1:]
	}
	if len(rest) > 0 {
		o.user, rest = rest[0], rest[1:]
	}
	o.args = rest
	if o.login && o.preserve {
		fmt.Fprintln(os.Stderr, "su: ignoring --preserve-environment, it's mutually exclusive with --login")
		o.preserve = false
	}
	return o, nil
}

// set sets one option.
func (o *options) set(name, value string) error {
	switch name {
	case "c", "session-command":
		o.command, o.hasCommand = value, true
		if name != "c" {
			o.inSession = true
		}
	case "f":
		o.fast = true
	case "l":
		o.login = true
	case "m", "p":
		o.preserve = true
	case "P":
		o.pty = true
	case "T":
		o.pty = false
	case "s":
		o.shell = value
	case "w":
		o.keep = append(o.keep, strings.Split(value, ",")...)
	case "g":
		o.group = value
	case "G":
		o.groups = append(o.groups, value)
	case "h":
		return errHelp
	case "V":
		return errVersion
	}
	return nil
}

// wantedShell is the shell that is asked for, or "".
func (o options) wantedShell() string {
	if o.shell == "" && o.preserve {
		return os.Getenv("SHELL")
	}
	return o.shell
}

// run is what factotum is asked to have executed.
func (o options) run(fds []int) capproto.Run {
	r := capproto.Run{Shell: o.wantedShell(), Preserve: o.preserve, FDs: fds}
	if o.fast {
		r.Args = append(r.Args, "-f")
	}
	if o.hasCommand {
		r.Args = append(r.Args, "-c", o.command)
	}
	r.Args = append(r.Args, o.args...)
	for _, kv := range os.Environ() {
		name, _, ok := strings.Cut(kv, "=")
		if ok && name != "" && (!o.login || name == "TERM" || slices.Contains(o.keep, name)) {
			r.Env = append(r.Env, kv)
		}
	}
	// The first group is the primary one, be it of -g or of -G.
	if o.group != "" {
		r.Groups = append(r.Groups, o.group)
	}
	r.Groups = append(r.Groups, o.groups...)
	r.Umask = unix.Umask(0o077)
	unix.Umask(r.Umask)
	return r
}
