package sshuser

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"strconv"
	"strings"

	"github.com/pkg/sftp"
	"golang.org/x/sys/unix"

	"p9auth/internal/sshdconf"
)

// sftpOptions are the arguments of internal-sftp, as of sftp-server(8).
type sftpOptions struct {
	readOnly bool
	umask    int // -1: leave it
	dir      string
}

// parseSFTP reads the arguments of internal-sftp. Of those of sftp-server(8) it
// takes -R, -u, -d, and -e, -f and -l as far as they ask for errors only.
func parseSFTP(args []string) (sftpOptions, error) {
	o := sftpOptions{umask: -1}
	fl := flag.NewFlagSet("internal-sftp", flag.ContinueOnError)
	fl.SetOutput(io.Discard)
	fl.BoolVar(&o.readOnly, "R", false, "")
	fl.StringVar(&o.dir, "d", "", "")
	fl.Bool("e", false, "")
	fl.Func("f", "", func(string) error { return nil })
	fl.Func("l", "", func(s string) error {
		switch strings.ToUpper(s) {
		case "QUIET", "FATAL", "ERROR":
			return nil
		}
		return errors.New("logging of what is done is not implemented")
	})
	fl.Func("u", "", func(s string) error {
		n, err := strconv.ParseUint(s, 8, 9)
		o.umask = int(n)
		return err
	})
	refuse := func(string) error { return errors.New("limiting requests is not implemented") }
	fl.Func("P", "", refuse)
	fl.Func("p", "", refuse)
	if err := fl.Parse(args); err != nil {
		return o, err
	}
	if fl.NArg() > 0 {
		return o, fmt.Errorf("argument %.100q is not expected", fl.Arg(0))
	}
	return o, nil
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
	srv, err := sftp.NewServer(stdio{}, opts...)
	if err != nil {
		return err
	}
	if err := srv.Serve(); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// stdio is standard input and output as one.
type stdio struct{}

func (stdio) Read(b []byte) (int, error)  { return os.Stdin.Read(b) }
func (stdio) Write(b []byte) (int, error) { return os.Stdout.Write(b) }
func (stdio) Close() error                { return os.Stdout.Close() }
