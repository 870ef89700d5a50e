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
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"p9auth/capproto"
	"p9auth/internal/capuse"
	"p9auth/internal/logindefs"
	"p9auth/internal/loginshell"
	"p9auth/internal/privs"
	"p9auth/internal/sys"
	_ "p9auth/internal/undumpable" // it holds passwords
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
		if isTerminal(0) {
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
	if !isTerminal(0) {
		return errors.New("standard input is not a terminal")
	}
	// Caught and dropped rather than ignored: what is ignored stays so in the
	// shell.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTSTP)
	signal.Notify(hangups, syscall.SIGHUP)
	go func() {
		<-hangups
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
	return become(a, t, o)
}

// connect gives the rights up that we may have been started with, connects to
// factotum and passes the environment on. What only root may say, -f, -h and -p,
// factotum believes over a connection that was made before. Nothing has been read
// yet, and whoever takes us over later can say -f and -p no more: they must come
// first.
func connect(o options) (*capproto.Client, error) {
	asRoot := os.Getuid() == 0 && (o.preauth || o.host != "" || o.keepEnv)
	var client *capproto.Client
	var err error
	if asRoot {
		client, err = capproto.Dial(o.socket)
	}
	if err := privs.DropTo(o.user); err != nil {
		return nil, err
	}
	if !asRoot {
		client, err = capproto.Dial(o.socket)
	}
	if err != nil {
		return nil, err
	}
	if err := client.Environ(passed(o.keepEnv, asRoot)); err != nil || o.preauth || !asRoot {
		return client, err
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
		err := start(client, capproto.Start{User: name, Host: o.host, Preauth: o.preauth, TTY: os.Stdin})
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

// start begins to authenticate. Factotum takes the terminal from all who have it
// open, us too, and gives us a fresh descriptor, which is our standard input, output
// and error from then on, and our controlling terminal.
func start(client *capproto.Client, s capproto.Start) error {
	// The hang-up is for the others. What is ignored stays so in the shell, so this
	// is for the moment.
	signal.Ignore(syscall.SIGHUP)
	defer signal.Notify(hangups, syscall.SIGHUP)
	fresh, err := client.Start(s)
	if err != nil || fresh == nil {
		return err
	}
	defer fresh.Close()
	for fd := range 3 {
		if err := unix.Dup3(int(fresh.Fd()), fd, 0); err != nil {
			return fmt.Errorf("the fresh terminal: %w", err)
		}
	}
	if err := sys.Again(func() error { return unix.IoctlSetInt(0, unix.TIOCSCTTY, 0) }); err != nil {
		return fmt.Errorf("the fresh terminal: TIOCSCTTY: %w", err)
	}
	return nil
}

// hangups has SIGHUP, which ends the process, also if whoever started us ignores it
// (nohup): neither we nor the shell do.
var hangups = make(chan os.Signal, 1)

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

// become redeems the capability: this process is the user's shell then. Factotum
// has bound the grant to the shell, with its environment, directory and limits;
// what is said here of them is for the kernel's capability device, which binds
// nothing.
func become(a *capproto.AuthInfo, t *tty, o options) error {
	dir := a.Home
	if a.NoHome != "" {
		t.print(fmt.Sprintf("No directory %s: %s!\nLogging in with home = \"/\".\n", a.Home, a.NoHome))
		dir = "/"
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
	shell, argv := loginshell.Command(a.Shell)
	return capuse.Exec(o.capuse, a.Cap, capuse.Target{Path: shell, Argv: argv, Env: a.Env, Dir: dir, NProc: a.NProc})
}

// passed is the environment that login passes on to the shell, as far as there is
// room for it. Without -p that is TERM alone. Factotum makes the rest.
func passed(keep, asRoot bool) (env []string) {
	size := 0
	for _, kv := range os.Environ() {
		name, value, _ := strings.Cut(kv, "=")
		if name == "" || name == "TERM" && value == "" {
			continue
		}
		if all := keep && asRoot; !all && (name != "TERM" && !keep || !loginshell.MayPass(name, value)) {
			continue
		}
		if size += len(kv) + strings.Count(kv, "'") + len(" env=''"); size > capproto.MaxEnvSize || len(env) == capproto.MaxEnv {
			fmt.Fprintf(os.Stderr, "login: %s and what follows it in the environment is left out\n", name)
			break
		}
		env = append(env, kv)
	}
	return env
}
