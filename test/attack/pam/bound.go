package pam

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"p9auth/capproto"
	"p9auth/internal/capuse"
)

// bound logs alice in and does with her capability what the owner of login's uid
// would like: it executes another program than her shell, with an environment,
// descriptors, a directory, a umask and ignored signals of its own.
func bound([]string) {
	t := to("open")
	capability := t.ask("authinfo").Get("cap")
	secret, err := unix.Open("/etc/passwd", unix.O_RDONLY, 0)
	must(err)
	must(unix.Dup3(secret, 77, 0))
	unix.Umask(0)
	fmt.Println("redeems")
	err = capuse.Exec(capuse.DefaultPath, capability, capuse.Target{
		Path: "/bin/sh", Argv: []string{"sh", "-c", "echo esca''ped as $(id -u)"}, Dir: "/tmp",
		Env: []string{"BASH_ENV=/tmp/evil", "ENV=/tmp/evil", "LD_PRELOAD=/tmp/evil.so", "PATH=/tmp", "EVIL=yes", "PS1=evil "},
	})
	fmt.Println(err)
	os.Exit(1)
}

// elsewhere logs alice in at its terminal, and has her shell read from a pipe that
// the attacker writes to.
func elsewhere([]string) {
	t := proves()
	if m := t.ask("read"); m.Verb != capproto.VerbDone {
		panic(m.Verb)
	}
	capability := t.ask("authinfo").Get("cap")
	r, w, err := os.Pipe()
	must(err)
	w.WriteString("echo escaped as $(id -u)\n")
	must(unix.Dup3(int(r.Fd()), 0, 0))
	fmt.Println("redeems")
	fmt.Println(capuse.Redeem(capuse.DefaultPath, capability))
	os.Exit(1)
}

// environment wants variables in the shell's environment that are root's to pass
// on, and root's connection does not help a login that has read something.
func environment([]string) {
	for _, kv := range []string{"LD_PRELOAD=/tmp/evil.so", "BASH_ENV=/tmp/evil", "PATH=/tmp", "TERM=../../tmp/evil", "LC_ALL=/tmp/evil"} {
		to("idle").violate(capproto.NewMsg(capproto.VerbEnviron, "env", kv))
	}
	to("idle").ask(capproto.VerbEnviron, "env", "TERM=linux", "env", "LC_ALL=C.UTF-8")
}
