// Su becomes another user, without privileges: it is util-linux's su(1) on a machine
// that has no setuid program.
//
// Whoever runs it is the caller, whom factotum knows from the kernel. It relays what
// PAM says and what the person types, says what is to be executed, and receives a
// capability that is bound to that. A child of it redeems the capability, and is the
// user's shell then; su waits for it, stops and goes on with it, and has its status.
//
// It has no right of any kind, and decides nothing: factotum does.
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"p9auth/capproto"
	"p9auth/internal/capuse"
	"p9auth/internal/converse"
	_ "p9auth/internal/undumpable" // it holds passwords
	"p9auth/internal/version"
)

const socket = "/run/factotum/rpc"

func main() {
	o, err := parseArgs(os.Args[1:])
	switch {
	case errors.Is(err, errHelp):
		fmt.Print(usage)
		return
	case errors.Is(err, errVersion):
		fmt.Print(version.Text("su"))
		return
	case err == nil:
		err = su(o)
	}
	if errors.As(err, new(usageError)) {
		fmt.Fprintf(os.Stderr, "%s: %v\nTry 'su --help' for more information.\n", os.Args[0], err)
	} else {
		fmt.Fprintf(os.Stderr, "su: %v\n", err)
	}
	os.Exit(1)
}

// su becomes the user, and ends with the shell's status. It returns only on failure.
func su(o options) error {
	if err := capuse.Possible(); err != nil {
		return err
	}
	if (o.group != "" || len(o.groups) > 0) && unix.Getuid() != 0 {
		return errors.New("only root can specify alternative groups")
	}
	fds, err := openDescriptors()
	if err != nil {
		return err
	}
	client, err := capproto.Dial(socket)
	if err != nil {
		return err
	}
	defer client.Close()
	if err := client.StartSu(o.user, o.login, terminal()); err != nil {
		return err
	}
	if err := client.Converse(converse.Say); err != nil {
		return err
	}
	if err := client.Run(o.run(fds)); err != nil {
		return err
	}
	if err := client.SessionAt(display()); err != nil {
		return err
	}
	say := converse.Say
	if !o.login || o.hasCommand {
		say = sayNoNews
	}
	if err := client.Converse(say); err != nil {
		return err
	}
	a, err := client.AuthInfo()
	if err != nil {
		return err
	}
	if shell := o.wantedShell(); shell != "" && shell != a.Runs {
		fmt.Fprintf(os.Stderr, "su: using restricted shell %s\n", a.Runs)
	}
	if o.login && a.NoHome != "" {
		fmt.Fprintf(os.Stderr, "su: warning: cannot change directory to %s: %s\n", a.Home, a.NoHome)
	}
	return watch(client, a, o, fds)
}

// display is DISPLAY and XAUTHORITY. A path is told in full, as it is opened elsewhere.
func display() (name, authority string) {
	if authority = os.Getenv("XAUTHORITY"); authority != "" {
		authority, _ = filepath.Abs(authority)
	}
	return os.Getenv("DISPLAY"), authority
}

// sayNoNews leaves out what the session's modules tell a person who logs in, such as the
// time of the last login.
func sayNoNews(p capproto.Prompt) (string, error) {
	if p.Style == capproto.Info {
		return "", nil
	}
	return converse.Say(p)
}

// terminal is the first of the standard descriptors that is a terminal, or nil.
func terminal() *os.File {
	for _, f := range []*os.File{os.Stdin, os.Stdout, os.Stderr} {
		if _, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS); err == nil {
			return f
		}
	}
	return nil
}
