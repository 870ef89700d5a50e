// Doas executes a command as another user, without privileges: it is OpenBSD's doas(1),
// as opendoas has it, on a machine that has no setuid program.
//
// Whoever runs it is the caller, whom factotum knows from the kernel. It says what is to
// be executed, relays what PAM says and what the person types, receives a capability
// that is bound to the command, and redeems it: the process becomes the command.
//
// It has no right of any kind, and decides nothing: factotum does, by doas.conf(5).
package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"p9auth/capproto"
	"p9auth/internal/capuse"
	"p9auth/internal/converse"
	"p9auth/internal/getopt"
	_ "p9auth/internal/undumpable" // it holds passwords
	"p9auth/internal/version"
)

const (
	socket = "/run/factotum/rpc"
	usage  = "usage: doas [-Lns] [-C config] [-u user] command [args]"
)

// options are the command line.
type options struct {
	check   string // -C
	forget  bool
	quiet   bool // -n: nobody answers
	shell   bool
	user    string
	command []string
}

// errUsage is a command line that means nothing.
var errUsage = errors.New(usage)

func main() {
	o, err := parseArgs(os.Args[1:])
	switch {
	case err != nil:
	case o.check != "":
		err = check(o)
	case o.forget:
		err = forget()
	default:
		err = doas(o)
	}
	switch {
	case err == nil:
		return
	case errors.Is(err, errUsage):
		fmt.Fprintln(os.Stderr, err)
	case !errors.Is(err, errDenied):
		fmt.Fprintf(os.Stderr, "doas: %v\n", err)
	}
	os.Exit(1)
}

// parseArgs reads the command line.
func parseArgs(args []string) (o options, err error) {
	if len(args) == 1 && (args[0] == "-V" || args[0] == "--version") {
		fmt.Print(version.Text("doas"))
		os.Exit(0)
	}
	known := []getopt.Option{{Short: 'C', Arg: true}, {Short: 'L'}, {Short: 'n'}, {Short: 's'}, {Short: 'u', Arg: true}, {Short: 'a', Arg: true}}
	given, rest, err := getopt.Parse(args, known, true)
	if err != nil {
		return o, fmt.Errorf("%s: %w\n%w", os.Args[0], err, errUsage)
	}
	o.user, o.command = "root", rest
	for _, g := range given {
		switch g.Name {
		case "C":
			o.check = g.Value
		case "L":
			o.forget = true
			return o, nil
		case "n":
			o.quiet = true
		case "s":
			o.shell = true
		case "u":
			o.user = g.Value
		case "a":
			return o, errors.New("-a: there are no authentication styles here; PAM decides")
		}
	}
	switch {
	case o.check != "" && o.shell, o.check == "" && o.shell == (len(rest) > 0):
		return o, errUsage
	}
	return o, nil
}

// forget is doas -L.
func forget() error {
	client, err := capproto.Dial(socket)
	if err != nil {
		return err
	}
	defer client.Close()
	return client.ForgetDoas()
}

// doas becomes the command. It returns only on failure.
func doas(o options) error {
	if err := capuse.Possible(); err != nil {
		return err
	}
	client, err := capproto.Dial(socket)
	if err != nil {
		return err
	}
	defer client.Close()
	shell, err := client.StartDoas(o.user, terminal())
	if err != nil {
		return err
	}
	if o.shell {
		if s := os.Getenv("SHELL"); s != "" {
			shell = s
		}
		o.command = []string{shell}
	}
	path, notFound := find(o.command[0])
	dir, err := os.Getwd()
	if err != nil {
		dir = "(failed)"
	}
	r := capproto.Run{Path: path, Dir: dir, Args: o.command, Env: environment(), Umask: unix.Umask(0o077)}
	unix.Umask(r.Umask)
	if err := client.Run(r); err != nil {
		return err
	}
	proof, err := client.Permit()
	if err != nil {
		return err
	}
	if proof && o.quiet {
		//lint:ignore ST1005 opendoas says it so
		return errors.New("Authentication required")
	}
	if err := client.Converse(o.say); err != nil {
		return failed(err)
	}
	if err := client.Session(); err != nil {
		return err
	}
	if err := client.Converse(o.say); err != nil {
		return err
	}
	a, err := client.AuthInfo()
	if err != nil {
		if notFound != nil && strings.HasSuffix(err.Error(), ": command not found") {
			return notFound
		}
		return err
	}
	if err := executable(o.command[0], a.Runs); err != nil {
		return err
	}
	return capuse.Redeem(capuse.DefaultPath, a.Cap)
}

// failed is what opendoas says where PAM says no to the proof or to the account.
func failed(err error) error {
	var e *capproto.Error
	if errors.As(err, &e) && (e.Code == capproto.CodeDenied || e.Code == capproto.CodeAccount) && e.Text != "no passwd entry for target" {
		//lint:ignore ST1005 opendoas says it so
		return errors.New("Authentication failed")
	}
	return err
}

// environment is the caller's, as far as it is one.
func environment() (env []string) {
	for _, kv := range os.Environ() {
		if strings.IndexByte(kv, '=') > 0 {
			env = append(env, kv)
		}
	}
	return env
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

// say shows what PAM says, and asks what it asks: at the terminal, whatever the standard
// descriptors are.
func (o options) say(p capproto.Prompt) (string, error) {
	switch {
	case !p.Style.Question():
		return converse.Say(p)
	case o.quiet:
		//lint:ignore ST1005 opendoas says it so
		return "", errors.New("Authentication required")
	}
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return "", errors.New("a tty is required")
	}
	defer tty.Close()
	text := p.Text
	if text == "Password:" || text == "Password: " {
		host, err := os.Hostname()
		if err != nil {
			host = "?"
		}
		text = fmt.Sprintf("\rdoas (%.32s@%.32s) password: ", caller(), host)
	}
	return converse.Ask(tty, tty, text, p.Style == capproto.EchoOff)
}
