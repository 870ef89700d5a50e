package main

import (
	"strconv"
	"strings"

	"p9auth/internal/getopt"
)

const usage = `Usage: passwd [options] [LOGIN]

Options:
  -a, --all                     report password status on all accounts
  -d, --delete                  delete the password for the named account
  -e, --expire                  force expire the password for the named account
  -h, --help                    display this help message and exit
  -k, --keep-tokens             change password only if expired
  -i, --inactive INACTIVE       set password inactive after expiration
                                to INACTIVE
  -l, --lock                    lock the password of the named account
  -n, --mindays MIN_DAYS        set minimum number of days before password
                                change to MIN_DAYS
  -q, --quiet                   quiet mode
  -r, --repository REPOSITORY   change password in REPOSITORY repository
  -R, --root CHROOT_DIR         directory to chroot into
  -S, --status                  report password status on the named account
  -u, --unlock                  unlock the password of the named account
  -w, --warndays WARN_DAYS      set expiration warning days to WARN_DAYS
  -x, --maxdays MAX_DAYS        set maximum number of days before password
                                change to MAX_DAYS

`

// known are the options of passwd(1), and one that prints our version.
var known = []getopt.Option{
	{Short: 'a', Long: "all"}, {Short: 'd', Long: "delete"}, {Short: 'e', Long: "expire"}, {Short: 'h', Long: "help"},
	{Short: 'i', Long: "inactive", Arg: true}, {Short: 'k', Long: "keep-tokens"}, {Short: 'l', Long: "lock"},
	{Short: 'n', Long: "mindays", Arg: true}, {Short: 'q', Long: "quiet"}, {Short: 'r', Long: "repository", Arg: true},
	{Short: 'R', Long: "root", Arg: true}, {Short: 'S', Long: "status"}, {Short: 'u', Long: "unlock"},
	{Short: 'w', Long: "warndays", Arg: true}, {Short: 'x', Long: "maxdays", Arg: true}, {Long: "version"},
}

// options are the command line, as far as it is not root's.
type options struct {
	user                                  string // "" for the caller
	status, expired, quiet, help, version bool
}

// errRoot is the answer to what only root may do: in the first line that of passwd(1).
var errRoot = &exit{exitPermission, "passwd: Permission denied.\npasswd: -a, -d, -e, -i, -l, -n, -R, -u, -w and -x are root's: run passwd as root, with su or doas", false}

// parse reads the command line in the order in which passwd(1) finds its faults.
func parse(argv []string) (o options, err error) {
	given, operands, err := getopt.Parse(argv[1:], known, false)
	if err != nil {
		return o, &exit{exitArgument, argv[0] + ": " + err.Error(), true}
	}
	all, change, chroot := false, false, false
	for _, g := range given {
		switch g.Name {
		case "a":
			all = true
		case "d", "e", "l", "u":
			change = true
		case "i", "n", "w", "x":
			if n, err := strconv.ParseInt(strings.TrimSpace(g.Value), 0, 64); err != nil || n < -1 {
				return o, &exit{exitArgument, "passwd: invalid numeric argument '" + g.Value + "'", true}
			}
			change = true
		case "h":
			o.help = true
			return o, nil
		case "k":
			o.expired = true
		case "q":
			o.quiet = true
		case "r":
			if g.Value != "files" {
				return o, &exit{exitArgument, "passwd: repository " + g.Value + " not supported", false}
			}
		case "R":
			chroot = true
		case "S":
			o.status = true
		case "version":
			o.version = true
			return o, nil
		}
	}
	if len(operands) > 0 {
		o.user = operands[0]
	}
	switch {
	case chroot:
		return o, errRoot
	case len(operands) > 1,
		all && (change || !o.status || len(operands) > 0),
		o.status && (change || o.expired),
		change && len(operands) == 0:
		return o, &exit{exitUsage, "", true}
	case all, change:
		return o, errRoot
	}
	return o, nil
}
