// Login is the console login, without privileges.
//
// agetty starts it, as root or, better, as the user _login. Started as root
// it becomes _login, with no capabilities and no way back, before it reads a
// byte; only for -f and -h its connection to factotum was made by root, so that
// factotum knows it from the kernel. It asks for the name,
// relays what PAM says and what the person types, receives a capability, and
// redeems it: the login process becomes the user's shell, in the same process
// and session.
//
// It trusts factotum and the terminal. It may not decide anything: whoever
// takes it over gets what is typed at its terminal and nothing more.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"p9auth/capproto"
	"p9auth/internal/capuse"
	"p9auth/internal/logindefs"
	"p9auth/internal/privs"
	"p9auth/internal/sys"
	"p9auth/internal/version"
)

const usage = `usage: login [-Hp] [-h host] [-o key=value]... [--] [name]
       login [-Hp] [-h host] [-o key=value]... -f name
       login -V

  -p          keep the environment
  -h host     the person comes from host (believed only from root)
  -H          no host name in the prompt
  -V, --version
              print the version and exit
  -f name     name is already authenticated (believed only from root)
  -o socket=path, -o capuse=path, -o user=name, -o defs=path
              where factotum's socket and the capuse file are, which user
              to run as when started by root, where login.defs is
`

// options are the command line.
type options struct {
	keepEnv bool
	host    string
	preauth bool
	plain   bool // no host name in the prompt
	name    string
	socket  string
	capuse  string
	user    string
	defs    string
}

func main() {
	o, err := parseArgs(os.Args[1:])
	if err == nil {
		err = login(o)
	}
	if err != nil {
		if errors.Is(err, flag.ErrHelp) {
			fmt.Print(usage)
			return
		}
		if errors.Is(err, errVersion) {
			fmt.Print(version.Text("login"))
			return
		}
		fmt.Fprintf(os.Stderr, "login: %v\n", err)
		// Whoever started us starts us again at once; let a person read.
		if term.IsTerminal(0) {
			time.Sleep(time.Second)
		}
		os.Exit(1)
	}
}

// errVersion asks for the version, as flag.ErrHelp does for the usage.
var errVersion = errors.New("-V")

func parseArgs(args []string) (options, error) {
	o := options{
		socket: "/run/factotum/rpc", capuse: capuse.DefaultPath, user: "_login", defs: logindefs.Path,
	}
	fl := flag.NewFlagSet("login", flag.ContinueOnError)
	fl.SetOutput(io.Discard)
	fl.BoolVar(&o.keepEnv, "p", false, "")
	fl.StringVar(&o.host, "h", "", "")
	fl.BoolVar(&o.preauth, "f", false, "")
	fl.BoolVar(&o.plain, "H", false, "")
	fl.Func("o", "", func(s string) error {
		k, v, _ := strings.Cut(s, "=")
		p, ok := map[string]*string{"socket": &o.socket, "capuse": &o.capuse, "user": &o.user, "defs": &o.defs}[k]
		if !ok || v == "" {
			return fmt.Errorf("%q is none of socket=, capuse=, user=, defs=", s)
		}
		*p = v
		return nil
	})
	showVersion := fl.Bool("V", false, "")
	fl.BoolVar(showVersion, "version", false, "")
	if err := fl.Parse(args); err != nil {
		return o, fmt.Errorf("%w; see p9login(1)", err)
	}
	if *showVersion {
		return o, errVersion
	}
	o.name = fl.Arg(0)
	if fl.NArg() > 1 {
		return o, fmt.Errorf("%q is not expected; see p9login(1)", fl.Arg(1))
	}
	if o.preauth && o.name == "" {
		return o, errors.New("-f needs a name")
	}
	return o, nil
}

// login logs a person in. It returns only on failure.
func login(o options) error {
	// What whoever started us left open is not the user's business.
	if err := sys.CloseOnExec(); err != nil {
		return err
	}
	client, err := connect(o)
	if err != nil {
		return err
	}
	defer client.Close()
	if !term.IsTerminal(0) {
		return errors.New("standard input is not a terminal")
	}
	// Caught and dropped rather than ignored: what is ignored stays so in the
	// shell.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTSTP)
	// Who started us may ignore this one (nohup); neither we nor the shell do.
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	go func() {
		<-hup
		os.Exit(1)
	}()
	defs, err := logindefs.Read(o.defs)
	if err != nil {
		fmt.Fprintf(os.Stderr, "login: settings are left out: %v\n", err)
	}
	t := newTTY(os.Stdin, os.Stdout)
	if s := defs.Int("LOGIN_TIMEOUT", 60); s > 0 {
		stop := t.giveUpAfter(time.Duration(s) * time.Second)
		defer stop()
	}
	if err := authenticate(client, t, o, defs); err != nil {
		return err
	}
	if err := client.Session(); err != nil {
		return err
	}
	if err := client.Converse(t.say); err != nil {
		return err
	}
	a, err := client.AuthInfo()
	if err != nil {
		return err
	}
	t.done()
	return become(a, t, o, defs)
}

// connect gives the rights up that we may have been started with, and connects
// to factotum. What only root may say, -f and -h, factotum believes over a
// connection that was made before. Nothing has been read yet, and whoever
// takes us over later can say -f no more: it must be the first request.
func connect(o options) (*capproto.Client, error) {
	if !o.preauth && o.host == "" {
		if err := privs.DropTo(o.user); err != nil {
			return nil, err
		}
		return capproto.Dial(o.socket)
	}
	client, dialErr := capproto.Dial(o.socket)
	if err := privs.DropTo(o.user); err != nil {
		return nil, err
	}
	if dialErr != nil || o.preauth {
		return client, dialErr
	}
	return client, client.Renounce()
}

// authenticate asks for names and passwords until factotum is convinced.
func authenticate(client *capproto.Client, t *tty, o options, defs logindefs.Defs) error {
	name := o.name
	for tries := max(1, defs.Int("LOGIN_RETRIES", 3)); ; {
		for name == "" {
			var err error
			if name, err = t.ask(prompt(o.plain || defs.Bool("LOGIN_PLAIN_PROMPT", false))); err != nil {
				return err
			}
			name = strings.TrimSpace(name)
		}
		err := client.Start(capproto.Start{User: name, Host: o.host, Preauth: o.preauth, TTY: os.Stdin})
		if err == nil {
			err = client.Converse(t.say)
		}
		if err == nil {
			return nil
		}
		switch capproto.CodeOf(err) {
		case capproto.CodeDenied:
			t.print("\n" + err.Error() + "\n")
		case capproto.CodeAccount:
			// Right password, but no: as login does, there is no second try.
			t.print("\n" + err.Error() + "\n")
			return errors.New("the account may not log in now")
		default:
			return err
		}
		if o.preauth {
			return err
		}
		if tries--; tries == 0 {
			return errors.New("maximum number of tries exceeded")
		}
		if !defs.Bool("LOGIN_KEEP_USERNAME", false) {
			name = ""
		}
		t.flush()
	}
}

func prompt(plain bool) string {
	if plain {
		return "login: "
	}
	host, err := os.Hostname()
	if err != nil || host == "" {
		return "login: "
	}
	return host + " login: "
}

// become redeems the capability: this process is the user's shell then.
func become(a *capproto.AuthInfo, t *tty, o options, defs logindefs.Defs) error {
	home := a.Home
	if a.NoHome != "" {
		if !defs.Bool("DEFAULT_HOME", true) {
			return fmt.Errorf("no home directory %s: %s", home, a.NoHome)
		}
		t.print(fmt.Sprintf("No directory %s: %s!\nLogging in with home = \"/\".\n", home, a.NoHome))
		home = "/"
	}
	shell := a.Shell
	if shell == "" {
		shell = "/bin/sh"
	}
	argv := []string{"-" + filepath.Base(shell)}
	if strings.Contains(shell, " ") {
		argv = []string{"-sh", "-c", "exec " + shell}
		shell = "/bin/sh"
	}
	if a.Umask >= 0 {
		unix.Umask(a.Umask)
	}
	if a.NoFile != nil {
		lim := syscall.Rlimit{Cur: a.NoFile[0], Max: a.NoFile[1]}
		// Go would undo it on exec if it were not told.
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &lim); err != nil {
			return fmt.Errorf("setrlimit: %w", err)
		}
	}
	return capuse.Exec(o.capuse, a.Cap, capuse.Target{
		Path: shell, Argv: argv, Env: environment(a, home, shell, o, defs), Dir: home, NProc: a.NProc,
	})
}

// environment is what login(1) promises, with PAM's on top.
func environment(a *capproto.AuthInfo, home, shell string, o options, defs logindefs.Defs) []string {
	env := map[string]string{}
	if o.keepEnv {
		for _, kv := range os.Environ() {
			k, v, _ := strings.Cut(kv, "=")
			env[k] = v
		}
	}
	if v := os.Getenv("TERM"); v != "" {
		env["TERM"] = v
	} else {
		env["TERM"] = "dumb"
	}
	path := defs.String("ENV_PATH", "PATH=/usr/local/bin:/bin:/usr/bin")
	if a.UID == 0 {
		path = defs.String("ENV_SUPATH", defs.String("ENV_ROOTPATH", "PATH=/usr/local/sbin:/usr/local/bin:/sbin:/bin:/usr/sbin:/usr/bin"))
	}
	env["PATH"] = strings.TrimPrefix(path, "PATH=")
	env["HOME"], env["SHELL"], env["USER"], env["LOGNAME"] = home, shell, a.User, a.User
	switch {
	case defs.String("MAIL_DIR", "") != "":
		env["MAIL"] = filepath.Join(defs["MAIL_DIR"], a.User)
	case defs.String("MAIL_FILE", "") != "":
		env["MAIL"] = filepath.Join(home, defs["MAIL_FILE"])
	default:
		env["MAIL"] = "/var/mail/" + a.User
	}
	for _, kv := range a.Env {
		k, v, _ := strings.Cut(kv, "=")
		env[k] = v
	}
	var list []string
	for k, v := range env {
		list = append(list, k+"="+v)
	}
	return list
}
