package main

import (
	"errors"
	"fmt"
	"os/user"
	"strconv"
	"strings"

	"p9auth/internal/capuse"
	"p9auth/internal/sshdconf"
	"p9auth/sshfront/internal/listener"
	sshuser "p9auth/sshfront/internal/user"
)

const usage = `usage: sshfront [-DdeGiqTtV] [-4 | -6] [-C connection_spec] [-E log_file]
                [-f config_file] [-g login_grace_time] [-o option] [-p port]
                [-u user] [--rpc path] [--capuse path]
`

// defaultRPC is factotum's socket.
const defaultRPC = "/run/factotum/rpc"

// options are the listener's command line.
type options struct {
	file      string   // empty: sshdconf.File()
	overrides []string // lines for sshdconf.Parse, from -o and the like
	user      string   // to become when started as root
	rpc       string
	capuse    string
	logFile   string
	spec      string // -C, all of them joined
	debug     int    // how many -d
	quiet     bool
	inetd     bool
	test      bool
	dump      bool
	version   bool
}

// refused are options of sshd that we know and do not have, and why.
var refused = map[byte]string{
	'h': "host keys are factotum's: name the file with HostKey in the configuration",
	'c': "host certificates are factotum's: name the file with HostCertificate in the configuration",
	'r': "a connection always has a process of its own",
	'R': "a connection always has a process of its own; there is no state to hand over",
	'b': "it belongs to protocol 1",
	'k': "it belongs to protocol 1",
	'Q': "it was retired by OpenSSH",
}

// withValue are the options that take a value.
const withValue = "CEbcfghkopu"

// parseArgs reads the command line as getopt(3) does: "-tf file", "-p22".
func parseArgs(args []string) (options, error) {
	o := options{user: "_sshfront", rpc: defaultRPC, capuse: capuse.DefaultPath}
	long := map[string]*string{"--rpc": &o.rpc, "--capuse": &o.capuse}
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		if arg == "--" {
			break
		}
		if strings.HasPrefix(arg, "--") {
			name, v, has := strings.Cut(arg, "=")
			if name == "--help" {
				return o, errHelp
			}
			p, ok := long[name]
			if !ok {
				return o, fmt.Errorf("%s is not an option; see sshfront(8)", name)
			}
			if !has && len(args) > 0 {
				v, args = args[0], args[1:]
			}
			if v == "" {
				return o, fmt.Errorf("%s needs a path; see sshfront(8)", name)
			}
			*p = v
			continue
		}
		if len(arg) < 2 || arg[0] != '-' {
			return o, fmt.Errorf("%q is not expected; see sshfront(8)", arg)
		}
		for i := 1; i < len(arg); i++ {
			v := ""
			if strings.IndexByte(withValue, arg[i]) >= 0 {
				if v = arg[i+1:]; v == "" && len(args) > 0 {
					v, args = args[0], args[1:]
				}
				if v == "" {
					return o, fmt.Errorf("-%c needs a value; see sshfront(8)", arg[i])
				}
			}
			if err := o.set(arg[i], v); err != nil {
				return o, err
			}
			if v != "" {
				break
			}
		}
	}
	if len(args) > 0 {
		return o, fmt.Errorf("%q is not expected; see sshfront(8)", args[0])
	}
	if o.spec != "" && !o.dump {
		return o, errors.New("-C says what to print with -T; see sshfront(8)")
	}
	return o, nil
}

// set takes one option.
func (o *options) set(c byte, v string) error {
	switch c {
	case '4':
		o.overrides = append(o.overrides, "AddressFamily inet")
	case '6':
		o.overrides = append(o.overrides, "AddressFamily inet6")
	case 'C':
		o.spec = strings.TrimPrefix(o.spec+","+v, ",")
	case 'D', 'e': // always in the foreground, always to standard error
	case 'd':
		o.debug = min(o.debug+1, 3)
	case 'E':
		o.logFile = v
	case 'f':
		o.file = v
	case 'G', 'T':
		o.dump = true
	case 'g':
		o.overrides = append(o.overrides, "LoginGraceTime "+v)
	case 'i':
		o.inetd = true
	case 'o':
		if err := sshdconf.CheckOverride(v); err != nil {
			return fmt.Errorf("-o %s: %w", v, err)
		}
		o.overrides = append(o.overrides, v)
	case 'p':
		if n, err := strconv.ParseUint(v, 10, 16); err != nil || n == 0 {
			return fmt.Errorf("-p: bad port %q", v)
		}
		o.overrides = append(o.overrides, "Port "+v)
	case 'q':
		o.quiet = true
	case 't':
		o.test = true
	case 'u':
		o.user = v
	case 'V':
		o.version = true
	default:
		if why, ok := refused[c]; ok {
			return fmt.Errorf("-%c is not supported: %s", c, why)
		}
		return fmt.Errorf("-%c is not an option; see sshfront(8)", c)
	}
	return nil
}

// parse reads the configuration that the options name.
func (o *options) parse() (*sshdconf.Config, error) {
	file := o.file
	if file == "" {
		file = sshdconf.File()
	}
	if strings.EqualFold(file, "none") {
		file = "/dev/null"
	}
	conf, err := sshdconf.Parse(file, o.overrides)
	if err != nil {
		return nil, err
	}
	for _, c := range conf.Commands() {
		if err := sshuser.CheckCommand(c.Text); err != nil {
			return nil, fmt.Errorf("%s line %d: %w", c.File, c.Line, err)
		}
	}
	return conf, nil
}

// listener is what the options say to the listener.
func (o *options) listener() listener.Options {
	return listener.Options{
		Conf: func() (*sshdconf.Listen, error) {
			c, err := o.parse()
			if err != nil {
				return nil, err
			}
			return c.Global().Listen(), nil
		},
		User: o.user, RPC: o.rpc, Capuse: o.capuse, LogFile: o.logFile, Debug: o.debug, Quiet: o.quiet, Inetd: o.inetd,
	}
}

// groupsOf returns the names of a user's groups, for Match Group with -C: none for a
// user who does not exist.
func groupsOf(name string) ([]string, error) {
	u, err := user.Lookup(name)
	if _, unknown := err.(user.UnknownUserError); unknown {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	ids, err := u.GroupIds()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, id := range ids {
		g, err := user.LookupGroupId(id)
		if err != nil {
			return nil, err
		}
		names = append(names, g.Name)
	}
	return names, nil
}
