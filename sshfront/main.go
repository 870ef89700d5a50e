// Sshfront is the SSH server, without privileges and without keys.
//
// It is one program and several processes, told apart by the first argument:
//
//   - The listener (no such argument) runs as _sshfront. Started as root, it
//     binds its sockets and becomes _sshfront, with no capabilities and no
//     way back, before it reads from any socket. It accepts connections, limits
//     them, and starts the processes below. It never reads from the network,
//     and believes a connection process nothing that could hurt another one:
//     control.go has all that they say to each other.
//   - The connection process, one for each connection, runs as _sshfront in a
//     sandbox (sandbox.go): it can neither open nor execute anything. It speaks
//     the SSH protocol with a client that nobody knows yet, and relays what is
//     to be proven to factotum. Whoever takes it over has this connection.
//   - The session process, one for each login, runs as _sshfront outside the
//     sandbox, since it redeems the capability. It is started by the listener
//     and reads nothing but a ticket before it becomes
//   - the user process (sshfront/internal/user), which runs as the user and does
//     everything that is done on the user's behalf.
//
// All of them trust factotum and the kernel. None holds a right, a host key,
// or another user's data.
package main

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"p9auth/internal/sshdconf"
	sshuser "p9auth/sshfront/internal/user"
)

var errHelp = errors.New("--help")

func main() {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "connection":
			connectionMain()
			return
		case "session":
			sessionMain()
			return
		case "user":
			userMain()
			return
		case "sftp":
			sshuser.SFTP(os.Args[2:])
			return
		}
	}
	if err := run(os.Args[1:]); err != nil {
		if errors.Is(err, errHelp) {
			fmt.Print(usage)
			return
		}
		fmt.Fprintf(os.Stderr, "sshfront: %v\n", err)
		os.Exit(1)
	}
}

// run is the listener, or one of the options that only ask something.
func run(args []string) error {
	o, err := parseArgs(args)
	if err != nil {
		return err
	}
	if o.version {
		fmt.Fprintln(os.Stderr, version())
		return nil
	}
	conf, err := o.parse()
	if err != nil {
		return err
	}
	switch {
	case o.dump:
		return dump(conf, o.spec)
	case o.test:
		return nil
	}
	return listen(o, conf)
}

// dump prints the configuration as "sshd -T" does, for one connection if spec
// describes one.
func dump(conf *sshdconf.Config, spec string) error {
	if spec == "" {
		return conf.Global().Dump(os.Stdout)
	}
	ci, err := sshdconf.ParseTestSpec(spec)
	if err != nil {
		return fmt.Errorf("-C: %w", err)
	}
	ci.Groups = func() ([]string, error) { return groupsOf(ci.User) }
	s, err := conf.For(ci)
	if err != nil {
		return err
	}
	return s.Dump(os.Stdout)
}

// version names the program and the library that speaks SSH.
func version() string {
	b, ok := debug.ReadBuildInfo()
	if !ok {
		return "sshfront (p9auth)"
	}
	for _, m := range b.Deps {
		if m.Path == "golang.org/x/crypto" {
			return fmt.Sprintf("sshfront (p9auth), %s %s, %s", m.Path, m.Version, b.GoVersion)
		}
	}
	return "sshfront (p9auth), " + b.GoVersion
}

// seconds prints a duration as sshd's log does: in whole seconds, minutes and
// so on, the largest first.
func seconds(d time.Duration) string {
	n := int(d / time.Second)
	var b strings.Builder
	for _, u := range []struct {
		n    int
		name string
	}{{604800, "w"}, {86400, "d"}, {3600, "h"}, {60, "m"}} {
		if n >= u.n {
			fmt.Fprintf(&b, "%02d%s", n/u.n, u.name)
			n %= u.n
		}
	}
	fmt.Fprintf(&b, "%02ds", n)
	return b.String()
}
