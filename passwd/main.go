// Passwd changes the password of whoever calls it, without privileges: it is shadow's
// passwd(1) on a machine that has no setuid program.
//
// It relays what PAM says and what the person types; factotum, which knows the caller
// from the kernel, has PAM change the password. Root needs nobody's help for that, so
// for root the system's own passwd runs in its place, with all of its options.
//
// It has no right of any kind, and decides nothing.
package main

import (
	"errors"
	"fmt"
	"os"

	"p9auth/capproto"
	"p9auth/internal/converse"
	"p9auth/internal/sys"
	_ "p9auth/internal/undumpable" // it holds passwords
	"p9auth/internal/version"
)

const socket = "/run/factotum/rpc"

// Exit statuses: see passwd(1).
const (
	exitPermission = 1
	exitUsage      = 2
	exitFailure    = 3
	exitArgument   = 6
	exitPAM        = 10
)

// An exit is an error with a status. Usage says that the usage is shown, too.
type exit struct {
	status int
	text   string // without the program's name; "" for none
	usage  bool
}

func (e *exit) Error() string { return e.text }

func main() {
	if len(os.Args) == 2 && os.Args[1] == "-V" { // which the system's own does not know
		fmt.Print(version.Text("passwd"))
		return
	}
	if os.Getuid() == 0 {
		if err := sys.ExecAnother(diverted, systems); !errors.Is(err, os.ErrNotExist) {
			fail(&exit{exitFailure, "passwd: " + err.Error(), false})
		}
	}
	o, err := parse(os.Args)
	if err == nil {
		err = run(o)
	}
	if err != nil {
		fail(err)
	}
}

func fail(err error) {
	e := &exit{exitFailure, err.Error(), false}
	errors.As(err, &e)
	if e.text != "" {
		fmt.Fprintln(os.Stderr, e.text)
	}
	if e.usage {
		fmt.Fprint(os.Stderr, usage)
	}
	os.Exit(e.status)
}

// The places of the system's own passwd: the first is where p9auth-switch(8) puts it to
// have this one in its place.
const diverted, systems = "/usr/bin/passwd.distrib", "/usr/bin/passwd"

// run does what the command line asks for.
func run(o options) error {
	switch {
	case o.help:
		fmt.Print(usage)
		return nil
	case o.version:
		fmt.Print(version.Text("passwd"))
		return nil
	}
	if err := sys.CloseOnExec(); err != nil {
		return err
	}
	client, err := capproto.Dial(socket)
	if err != nil {
		return &exit{exitFailure, "passwd: " + err.Error() + "\npasswd: password unchanged", false}
	}
	defer client.Close()
	if o.status {
		line, err := client.PasswordStatus(o.user)
		if err != nil {
			return refused(err)
		}
		_, err = fmt.Println(line)
		return err
	}
	if err := client.StartPasswd(capproto.Change{User: o.user, Expired: o.expired, Quiet: o.quiet}); err != nil {
		return refused(err)
	}
	if err := client.Converse(converse.Say); err != nil {
		status := exitFailure
		if capproto.CodeOf(err) == capproto.CodeDenied {
			status = exitPAM
		}
		return &exit{status, "passwd: " + err.Error() + "\npasswd: password unchanged", false}
	}
	fmt.Fprintln(os.Stderr, "passwd: password updated successfully")
	return nil
}

// refused is the error of a request that factotum does not begin with.
func refused(err error) error {
	if capproto.CodeOf(err) == capproto.CodeDenied {
		return &exit{exitPermission, "passwd: " + err.Error(), false}
	}
	return &exit{exitFailure, "passwd: " + err.Error() + "\npasswd: password unchanged", false}
}
