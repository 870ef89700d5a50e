// Sshfront is the SSH server, without privileges and without keys.
//
// It is one program and six processes, told apart by the first argument:
//
//   - The listener (no such argument; package listener) runs as _sshfront. It
//     accepts connections, limits them, and starts the processes below.
//   - Its heir ("heir"), which there is only where the listener has ended while logins
//     were under way, goes on with these.
//   - The connection process ("connection"), one for each connection, runs as
//     _sshfront in a sandbox. It speaks the SSH protocol with the client, and
//     relays to factotum what is to be proven.
//   - The session process ("session"), one for each login, runs as _sshfront
//     outside of the sandbox. It redeems the capability, and by that becomes
//   - the user process ("user"), which runs as the user and does everything that
//     is done on the user's behalf.
//   - The sftp server ("sftp") is a child of the user process.
//
// All of them trust factotum and the kernel. None holds a right, a host key, or
// another user's data.
package main

import (
	"errors"
	"fmt"
	"os"

	"p9auth/internal/privs"
	"p9auth/internal/sshdconf"
	_ "p9auth/internal/undumpable" // passwords, and what people do
	"p9auth/internal/version"
	"p9auth/sshfront/internal/compare"
	"p9auth/sshfront/internal/connection"
	"p9auth/sshfront/internal/listener"
	"p9auth/sshfront/internal/session"
	"p9auth/sshfront/internal/sftp"
	"p9auth/sshfront/internal/user"
)

var errHelp = errors.New("--help")

func main() {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "connection":
			connection.Main()
			return
		case "session":
			session.Main()
			return
		case "heir":
			listener.Heir()
			return
		case "user":
			user.Main()
			return
		case "sftp":
			sftp.Main(os.Args[2:])
			return
		case "compare":
			if err := compare.Main(os.Args[2:], os.Stdout); err != nil {
				fmt.Fprintf(os.Stderr, "sshfront: %v\n", err)
				os.Exit(1)
			}
			return
		}
	}
	if err := run(os.Args[1:]); err != nil {
		if errors.Is(err, errHelp) {
			fmt.Print(usage)
			return
		}
		if errors.Is(err, listener.ErrNoLogin) {
			os.Exit(255) // the log has the reason
		}
		fmt.Fprintf(os.Stderr, "sshfront: %v\n", err)
		if errors.As(err, new(*sshdconf.Error)) {
			os.Exit(255) // as sshd, whose unit is not started again for that
		}
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
		// sshd prints its version there, too.
		_, err := fmt.Fprint(os.Stderr, version.Text("sshfront", version.Library))
		return err
	}
	conf, err := o.parse()
	if err != nil {
		return err
	}
	for _, n := range conf.Notes() {
		fmt.Fprintln(os.Stderr, n)
	}
	switch {
	case o.dump:
		return dump(conf, o.spec)
	case o.test:
		return testFile(o.listener().User)
	}
	return listener.Run(o.listener())
}

// testFile says for -t whether the processes of this program can be traced when
// they start. That does not make a configuration wrong.
func testFile(user string) error {
	program, err := os.Executable()
	if err != nil {
		return err
	}
	if why, err := privs.Traceable(program, user); err == nil && why != "" {
		fmt.Fprintf(os.Stderr, "sshfront: warning: %s\n", why)
	}
	return nil
}

// dump prints the configuration as "sshd -T" does, for the connection that spec
// describes. Nothing is known of a connection if it is empty.
func dump(conf *sshdconf.Config, spec string) error {
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
