package user

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"log/syslog"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/landlock-lsm/go-landlock/landlock"
	landlocksys "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"github.com/pkg/sftp"
	"golang.org/x/sys/unix"

	"p9auth/internal/sshdconf"
)

// sftpOptions are the arguments of internal-sftp, as of sftp-server(8).
type sftpOptions struct {
	readOnly bool
	umask    int // -1: leave it
	dir      string
	deny     []string // names of requests
	allow    []string // nil: all
	verbose  bool     // write lines about what is done
	stderr   bool     // there, rather than to syslog
	facility syslog.Priority
}

var facilities = map[string]syslog.Priority{
	"DAEMON": syslog.LOG_DAEMON, "USER": syslog.LOG_USER, "AUTH": syslog.LOG_AUTH, "AUTHPRIV": syslog.LOG_AUTHPRIV,
	"LOCAL0": syslog.LOG_LOCAL0, "LOCAL1": syslog.LOG_LOCAL1, "LOCAL2": syslog.LOG_LOCAL2, "LOCAL3": syslog.LOG_LOCAL3,
	"LOCAL4": syslog.LOG_LOCAL4, "LOCAL5": syslog.LOG_LOCAL5, "LOCAL6": syslog.LOG_LOCAL6, "LOCAL7": syslog.LOG_LOCAL7,
}

// parseSFTP reads the arguments of internal-sftp: all of sftp-server(8)'s but
// -h and -Q.
func parseSFTP(args []string) (sftpOptions, error) {
	o := sftpOptions{umask: -1, facility: syslog.LOG_AUTH}
	fl := flag.NewFlagSet("internal-sftp", flag.ContinueOnError)
	fl.SetOutput(io.Discard)
	fl.BoolVar(&o.readOnly, "R", false, "")
	fl.BoolVar(&o.stderr, "e", false, "")
	fl.StringVar(&o.dir, "d", "", "")
	fl.Func("f", "", func(s string) (err error) {
		var ok bool
		if o.facility, ok = facilities[strings.ToUpper(s)]; !ok {
			err = errors.New("there is no such facility")
		}
		return err
	})
	fl.Func("l", "", func(s string) error {
		switch strings.ToUpper(s) {
		case "QUIET", "FATAL", "ERROR":
			o.verbose = false
		case "INFO", "VERBOSE", "DEBUG", "DEBUG1", "DEBUG2", "DEBUG3":
			o.verbose = true
		default:
			return errors.New("there is no such level")
		}
		return nil
	})
	fl.Func("u", "", func(s string) error {
		n, err := strconv.ParseUint(s, 8, 9)
		o.umask = int(n)
		return err
	})
	requests := func(to *[]string) func(string) error {
		return func(s string) error {
			known := requestNames()
			for _, name := range strings.Split(s, ",") {
				if !slices.Contains(known, name) {
					return fmt.Errorf("there is no request %.100q; there are %s", name, strings.Join(known, ", "))
				}
				*to = append(*to, name)
			}
			return nil
		}
	}
	fl.Func("P", "", requests(&o.deny))
	fl.Func("p", "", requests(&o.allow))
	if err := fl.Parse(args); err != nil {
		return o, err
	}
	if fl.NArg() > 0 {
		return o, fmt.Errorf("argument %.100q is not expected", fl.Arg(0))
	}
	return o, nil
}

// permits says whether the arguments let a request pass.
func (o *sftpOptions) permits(name string) bool {
	return !slices.Contains(o.deny, name) && (o.allow == nil || slices.Contains(o.allow, name))
}

// logger returns what writes a line, or nil.
func (o *sftpOptions) logger() func(string) {
	if !o.verbose {
		return nil
	}
	if o.stderr {
		return func(line string) { log.Print(line) }
	}
	w, err := syslog.New(o.facility|syslog.LOG_INFO, internalSFTP)
	if err != nil {
		log.Printf("no syslog: %v", err)
		return nil
	}
	return func(line string) { w.Info(line) }
}

// SFTP is the sftp server: "sshfront sftp", which the user process starts with
// the arguments that internal-sftp has in the configuration. It serves standard
// input and output and never returns.
func SFTP(args []string) {
	log.SetFlags(0)
	log.SetPrefix("internal-sftp: ")
	if err := serveSFTP(args); err != nil {
		log.Fatal(err)
	}
	os.Exit(0)
}

func serveSFTP(args []string) error {
	o, err := parseSFTP(args)
	if err != nil {
		return err
	}
	if err := keepFromMemory(); err != nil {
		return err
	}
	if o.umask >= 0 {
		unix.Umask(o.umask)
	}
	if o.dir != "" {
		dir, err := sshdconf.Expand(o.dir, sshdconf.Tokens{'d': os.Getenv("HOME"), 'u': os.Getenv("USER")})
		if err != nil {
			return fmt.Errorf("-d: %w", err)
		}
		// As sftp-server(8): where it cannot go it stays.
		if err := os.Chdir(dir); err != nil {
			log.Print(err)
		}
	}
	opts := []sftp.ServerOption{sftp.WithAllocator(), sftp.WithMaxTxPacket(255 << 10)}
	if o.readOnly {
		opts = append(opts, sftp.ReadOnly())
	}
	var rw io.ReadWriteCloser = stdio{}
	if say := o.logger(); say != nil || o.deny != nil || o.allow != nil {
		rw = newSFTPFilter(os.Stdin, os.Stdout, o.permits, say)
		if say != nil {
			from, _, _ := strings.Cut(os.Getenv("SSH_CONNECTION"), " ")
			say(fmt.Sprintf("session opened for local user %s from [%s]", os.Getenv("USER"), from))
			defer say(fmt.Sprintf("session closed for local user %s from [%s]", os.Getenv("USER"), from))
		}
	}
	srv, err := sftp.NewServer(rw, opts...)
	if err != nil {
		return err
	}
	if err := srv.Serve(); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// keepFromMemory makes files all that the client reaches. By /proc/PID/mem it
// could have a process run anything, where the user may have sftp only. Our own
// memory is not to be opened (proc(5)), and under landlock no other process's
// is, see landlock(7). That forbids us to execute, too, which we never do; to
// move files from one directory to another must be allowed by name. A kernel
// may lack landlock.
func keepFromMemory() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("prctl(PR_SET_DUMPABLE): %w", err)
	}
	refer := landlock.AccessFSSet(landlocksys.AccessFSRefer)
	// 2 is the first version with which files can be moved.
	if v, err := landlocksys.LandlockGetABIVersion(); err != nil || v < 2 {
		return nil
	}
	err := landlock.MustConfig(refer | landlocksys.AccessFSExecute).RestrictPaths(landlock.PathAccess(refer, "/"))
	if err != nil {
		return fmt.Errorf("landlock: %w", err)
	}
	return nil
}

// stdio is standard input and output as one.
type stdio struct{}

func (stdio) Read(b []byte) (int, error)  { return os.Stdin.Read(b) }
func (stdio) Write(b []byte) (int, error) { return os.Stdout.Write(b) }
func (stdio) Close() error                { return os.Stdout.Close() }
