package sftp

import (
	"errors"
	"fmt"
	"log/syslog"
	"slices"
	"strconv"
	"strings"

	"p9auth/internal/sshdconf"
)

// Options are the arguments of internal-sftp, which are those of
// sftp-server(8).
type Options struct {
	readOnly bool
	umask    int    // -1: leave it
	chdir    bool   // to dir
	dir      string // with tokens, until the process begins to serve
	deny     []string
	allow    []string // nil: everything
	stderr   bool     // log there, rather than to syslog
	level    level
	facility syslog.Priority
	query    string // -Q
}

// Parse reads arguments. It refuses what sftp-server(8) takes and ignores:
// names of requests, levels and facilities that do not exist, and operands. A
// request that -P misspells would otherwise be permitted.
func Parse(args []string) (Options, error) {
	o := Options{umask: -1, level: failed, facility: syslog.LOG_AUTH}
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		if arg == "--" {
			break
		}
		if len(arg) < 2 || arg[0] != '-' {
			return o, fmt.Errorf("argument %.100q is not expected", arg)
		}
		for arg = arg[1:]; arg != ""; {
			c := arg[0]
			arg = arg[1:]
			switch c {
			case 'c':
				// The rest is a command for a shell, see sftp-server(8).
				return o, nil
			case 'e':
				o.stderr = true
				continue
			case 'R':
				o.readOnly = true
				continue
			case 'h':
				return o, errors.New("usage: internal-sftp [-eR] [-d start_directory] [-f log_facility] [-l log_level] [-P denied_requests] [-p allowed_requests] [-u umask]")
			}
			if strings.IndexByte("dflPpQu", c) < 0 {
				return o, fmt.Errorf("there is no option -%c", c)
			}
			value := arg
			arg = ""
			if value == "" {
				if len(args) == 0 {
					return o, fmt.Errorf("option -%c needs an argument", c)
				}
				value, args = args[0], args[1:]
			}
			if err := o.set(c, value); err != nil {
				return o, fmt.Errorf("-%c: %w", c, err)
			}
		}
	}
	if len(args) > 0 {
		return o, fmt.Errorf("argument %.100q is not expected", args[0])
	}
	return o, nil
}

// set sets an option that takes a value.
func (o *Options) set(c byte, value string) (err error) {
	var ok bool
	switch c {
	case 'd':
		o.chdir, o.dir = true, value
		_, err = sshdconf.Expand(value, sshdconf.Tokens{'d': "", 'u': "", 'U': ""})
	case 'f':
		if o.facility, ok = facilities[strings.ToUpper(value)]; !ok {
			err = fmt.Errorf("there is no log facility %.100q", value)
		}
	case 'l':
		if o.level, ok = levels[strings.ToUpper(value)]; !ok {
			err = fmt.Errorf("there is no log level %.100q", value)
		}
	case 'P':
		err = requestList(&o.deny, value)
	case 'p':
		err = requestList(&o.allow, value)
	case 'u':
		var n uint64
		if n, err = strconv.ParseUint(value, 8, 32); err != nil || n > 0o777 {
			err = fmt.Errorf("%.100q is not a umask", value)
		}
		o.umask = int(n)
	case 'Q':
		if o.query = strings.ToLower(value); o.query != "requests" {
			err = errors.New("only requests can be asked for")
		}
	}
	return err
}

// requestList reads a list of names of requests into to.
func requestList(to *[]string, value string) error {
	if *to != nil {
		return errors.New("given twice")
	}
	for _, name := range strings.Split(value, ",") {
		if !slices.Contains(RequestNames(), name) {
			return fmt.Errorf("there is no request %.100q; there are %s", name, strings.Join(RequestNames(), ", "))
		}
		*to = append(*to, name)
	}
	return nil
}

// Check reports what is wrong with the arguments of internal-sftp in a
// configuration.
func Check(args []string) error {
	o, err := Parse(args)
	if err == nil && o.query != "" {
		err = errors.New("-Q only asks; it serves nothing")
	}
	return err
}

// RequestNames are the names that -P and -p take: sftp-server -Q requests.
func RequestNames() []string {
	var l []string
	for i := range requests {
		l = append(l, requests[i].name)
	}
	return l
}
