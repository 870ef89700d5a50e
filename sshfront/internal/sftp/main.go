package sftp

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"p9auth/internal/sshdconf"
)

// The account that the user process names in the environment.
const (
	userEnv = "P9AUTH_SFTP_USER"
	homeEnv = "P9AUTH_SFTP_HOME"
)

// Env is what the environment of the process should begin with: who the user
// is, whatever USER and HOME are set to, and settings of Go's runtime. Without
// them it holds two descriptors that the client is promised for its files
// (limits), has threads that nothing needs, and sends itself signals that cut
// reads of devices short.
func Env(user, home string) []string {
	return append([]string{userEnv + "=" + user, homeEnv + "=" + home}, runtimeEnv...)
}

var runtimeEnv = []string{"GODEBUG=containermaxprocs=0,asyncpreemptoff=1", "GOMAXPROCS=1"}

// NamesFD is the descriptor on which the user process answers lookups, where the
// environment has NamesEnv.
const (
	NamesFD  = 3
	NamesEnv = "P9AUTH_SFTP_NAMES=3"
)

// heapMax is when garbage is collected: a listing makes a little, which is not
// worth the time.
const heapMax = 32 << 20

func main(args []string) (int, error) {
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(heapMax)
	o, err := Parse(args)
	if err != nil {
		return 1, err
	}
	if o.query != "" {
		for _, name := range RequestNames() {
			fmt.Println(name)
		}
		return 0, nil
	}
	var n names
	account := self()
	if name, value, _ := strings.Cut(NamesEnv, "="); os.Getenv(name) == value {
		unix.CloseOnExec(NamesFD)
		n.ask, n.answers = descriptor(NamesFD), bufio.NewReader(descriptor(NamesFD))
	}
	if o.umask >= 0 {
		unix.Umask(o.umask)
	}
	log := newLogger(&o, os.Stderr)
	s := newServer(o, account, "", log, n)
	if o.chdir {
		if s.opt.dir, err = s.tilde(o.dir); err != nil {
			return exitProtocol, errors.New("-d: there is no such user")
		}
		if s.opt.dir, err = sshdconf.Expand(s.opt.dir, sshdconf.Tokens{'d': account.Home, 'u': account.Name, 'U': strconv.Itoa(int(account.UID))}); err != nil {
			return exitProtocol, fmt.Errorf("-d: %w", err)
		}
	}
	if err := confine(); err != nil {
		return exitProtocol, err
	}
	// A write beyond RLIMIT_FSIZE fails; it does not end the session.
	signal.Ignore(unix.SIGXFSZ)
	s.address = "UNKNOWN"
	if v, ok := os.LookupEnv("SSH_CONNECTION"); ok {
		if s.address, _, ok = strings.Cut(v, " "); !ok {
			log.printf(failed, "Malformed SSH_CONNECTION variable: \"%s\"", v)
			return exitProtocol, nil
		}
	}
	nonblocking(1)
	return s.run(0, 1), nil
}

// self is the account that the process runs as, as the user process says, or as
// /etc/passwd does.
func self() Account {
	a := Account{UID: uint32(os.Getuid()), Name: os.Getenv(userEnv), Home: os.Getenv(homeEnv)}
	if a.Name == "" {
		number := strconv.Itoa(os.Getuid())
		e := fileEntry("/etc/passwd", number, 2)
		if a.Name, a.Home = e[0], e[5]; a.Name == "" {
			a.Name = number
		}
	}
	return a
}
