package openssh

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// binDir leads, in the testbed, to our programs.
const binDir = "/run/openssh-tests/bin"

// A standin does what the suite asks sshd for, by sshd's command line, with a factotum
// and a sshfront.
type standin struct {
	file    string
	first   []string // lines of -o and the like, which come before the file
	pass    []string // options that sshfront has too
	logFile string
	mode    byte // 't', 'T', 'i', 'V', 'D' (foreground), or 0: a daemon
	pidFile string
	dir     string // private to this instance
	log     *os.File
	notify  *net.UnixConn
}

// standinMain is the program when it is called sshd.
func standinMain(args []string) int {
	s := &standin{file: "/etc/ssh/sshd_config"}
	if err := s.options(args); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 255
	}
	if os.Getuid() != 0 && strings.IndexByte("tTGV", s.mode) < 0 {
		// As any user, sshd serves that user. factotum runs as root.
		sudo := append([]string{"sudo", "-n", os.Args[0]}, args...)
		fmt.Fprintln(os.Stderr, syscall.Exec("/usr/bin/sudo", sudo, os.Environ()))
		return 255
	}
	if s.mode == 0 && os.Getenv("STANDIN_DAEMON") == "" {
		return daemonize(args)
	}
	status, err := s.run()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 255
	}
	return status
}

// options reads sshd's command line, as getopt(3) does.
func (s *standin) options(args []string) error {
	for ; len(args) > 0; args = args[1:] {
		arg := args[0]
		if len(arg) < 2 || arg[0] != '-' {
			return fmt.Errorf("stand-in for sshd: %q is not expected", arg)
		}
		for i := 1; i < len(arg); i++ {
			v := ""
			if strings.IndexByte("CEbcfghkopu", arg[i]) >= 0 {
				if v = arg[i+1:]; v == "" && len(args) > 1 {
					v, args = args[1], args[1:]
				}
			}
			switch c := arg[i]; c {
			case 'f':
				s.file = v
			case 'E':
				s.logFile = v
			case 'o':
				s.first = append(s.first, v)
			case 'g':
				s.first = append(s.first, "LoginGraceTime "+v)
			case 'h':
				s.first = append(s.first, "HostKey "+v)
			case 'c':
				s.first = append(s.first, "HostCertificate "+v)
			case 'C', 'p':
				s.pass = append(s.pass, "-"+string(c)+v)
			case '4', '6', 'd', 'q':
				s.pass = append(s.pass, "-"+string(c))
			case 't', 'T', 'G', 'i', 'V', 'D':
				s.mode = c
			case 'e', 'r', 'R':
			default:
				return fmt.Errorf("stand-in for sshd: option -%c", c)
			}
			if v != "" {
				break
			}
		}
	}
	return nil
}

// daemonize starts the program again in the background, and waits until it serves.
func daemonize(args []string) int {
	r, w, err := os.Pipe()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 255
	}
	c := exec.Command("/proc/self/exe", args...)
	c.Args[0] = "sshd"
	c.Env = append(os.Environ(), "STANDIN_DAEMON=1")
	c.Stderr = w
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := c.Start(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 255
	}
	w.Close()
	said, _ := io.ReadAll(r)
	if string(said) != "serves\n" {
		os.Stderr.Write(said)
		return 255
	}
	return 0
}

func (s *standin) run() (int, error) {
	if err := s.configure(); err != nil {
		return 0, err
	}
	defer os.RemoveAll(s.dir)
	sshfront := filepath.Join(binDir, "sshfront")
	switch s.mode {
	case 'V':
		return status(exec.Command(sshfront, "-V"))
	case 't':
		if n, err := status(exec.Command(filepath.Join(binDir, "factotum"), "-t", "-f", s.path("factotum.conf"))); n != 0 || err != nil {
			return n, err
		}
		return status(exec.Command(sshfront, s.sshfront("-t")...))
	case 'T', 'G':
		return status(exec.Command(sshfront, s.sshfront("-T")...))
	}
	return s.serve()
}

// status runs a program with our standard output and error, and returns its status.
func status(c *exec.Cmd) (int, error) {
	c.Stdout, c.Stderr = os.Stdout, os.Stderr
	if err := c.Run(); err != nil && c.ProcessState == nil {
		return 0, err
	}
	return c.ProcessState.ExitCode(), nil
}

func (s *standin) path(name string) string { return filepath.Join(s.dir, name) }

// sshfront is the command line of sshfront.
func (s *standin) sshfront(mode string) []string {
	return append([]string{mode, "-f", s.path("sshd_config"), "--rpc", s.path("rpc"), "--capuse", s.path("cap/capuse")}, s.pass...)
}

// configure writes the files of this instance.
func (s *standin) configure() error {
	var err error
	if s.dir, err = os.MkdirTemp("/run/openssh-tests", "sshd"); err != nil {
		return err
	}
	if err := os.Chmod(s.dir, 0o755); err != nil {
		return err
	}
	conf := fmt.Sprintf("FrontEnd _sshfront sshd ssh\nSocket %[1]s/rpc\nCapDir %[1]s/cap\nSSHDConfig %[1]s/sshd_config\n"+
		"StatusSocket none\nMetricsSocket none\nSyslog none\nUnknownAddresses yes\n", s.dir)
	if err := os.WriteFile(s.path("factotum.conf"), []byte(conf), 0o644); err != nil {
		return err
	}
	return s.translate()
}

// translate writes the sshd_config of this instance: the suite's, but for keywords that
// name sshd's own parts, and for PidFile: who reads that one wants the pid of all of the
// server, which is the stand-in's. Where the suite says nothing of PerSourcePenalties there
// are none: 9.2's sshd has them not, and the suites of those that have them turn them off.
func (s *standin) translate() error {
	text := []byte{}
	if s.file != "none" {
		var err error
		if text, err = os.ReadFile(s.file); err != nil {
			return err
		}
	}
	var b bytes.Buffer
	for _, l := range s.first {
		fmt.Fprintln(&b, l)
	}
	if !strings.Contains(strings.ToLower(string(text)), "persourcepenalties") {
		fmt.Fprintln(&b, "PerSourcePenalties no")
	}
	for line := range strings.Lines(string(text)) {
		word, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		word, more, _ := strings.Cut(word, "\t")
		switch strings.ToLower(word) {
		case "pidfile":
			s.pidFile = strings.TrimSpace(more + value)
		case "sshdsessionpath", "sshdauthpath":
		default:
			b.WriteString(line)
		}
	}
	return os.WriteFile(s.path("sshd_config"), b.Bytes(), 0o644)
}

// A serving is a program that tells us, as it tells systemd, when it is ready.
type serving struct {
	name  string
	cmd   *exec.Cmd
	ended chan struct{}
}

func (s *standin) start(cmd *exec.Cmd) (*serving, error) {
	p := &serving{name: filepath.Base(cmd.Path), cmd: cmd, ended: make(chan struct{})}
	cmd.Stderr = s.log
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "NOTIFY_SOCKET=" + s.notify.LocalAddr().String()}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() { cmd.Wait(); close(p.ended) }()
	return p, nil
}

func (p *serving) stop() {
	p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(5 * time.Second):
		p.cmd.Process.Kill()
		<-p.ended
	}
}

// ready waits until a program says that it is ready.
func (s *standin) ready(p *serving) error {
	buf := make([]byte, 4096)
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); {
		s.notify.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		n, err := s.notify.Read(buf)
		if err == nil && strings.HasPrefix(string(buf[:n]), "READY=1") {
			return nil
		}
		select {
		case <-p.ended:
			return fmt.Errorf("%s does not serve; see %s", p.name, s.log.Name())
		default:
		}
	}
	return fmt.Errorf("%s is not ready; see %s", p.name, s.log.Name())
}

func (s *standin) serve() (int, error) {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGPIPE)
	s.log = os.Stderr
	var err error
	switch {
	case s.logFile != "":
		s.log, err = os.OpenFile(s.logFile, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	case s.mode == 0:
		s.log, err = os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	}
	if err != nil {
		return 0, err
	}
	s.notify, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: "@" + s.dir, Net: "unixgram"})
	if err != nil {
		return 0, err
	}
	factotum, err := s.start(exec.Command(filepath.Join(binDir, "factotum"), "-f", s.path("factotum.conf")))
	if err != nil {
		return 0, err
	}
	defer func() {
		factotum.stop()
		unix.Unmount(s.path("cap"), unix.MNT_DETACH)
	}()
	if err := s.ready(factotum); err != nil {
		return 0, err
	}
	if s.mode == 'i' {
		return s.proxied(signals)
	}
	return s.listen(factotum, signals)
}

// listen serves at the ports of the configuration, until a signal ends it.
func (s *standin) listen(factotum *serving, signals <-chan os.Signal) (int, error) {
	sshfront, err := s.start(exec.Command(filepath.Join(binDir, "sshfront"), s.sshfront("-D")...))
	if err != nil {
		return 0, err
	}
	defer sshfront.stop()
	if err := s.ready(sshfront); err != nil {
		return 0, err
	}
	for {
		if s.pidFile != "" {
			if err := os.WriteFile(s.pidFile, fmt.Appendln(nil, os.Getpid()), 0o644); err != nil {
				return 0, err
			}
		}
		if s.mode == 0 {
			s.mode = 'D'
			fmt.Fprintln(os.Stderr, "serves")
			null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
			if err != nil {
				return 0, err
			}
			unix.Dup3(int(null.Fd()), 2, 0) // who started us waits for the end of it
		}
		var sig os.Signal
		select {
		case sig = <-signals:
		case <-sshfront.ended:
			sig = syscall.SIGTERM
		}
		if sig == syscall.SIGPIPE {
			continue
		}
		if s.pidFile != "" {
			os.Remove(s.pidFile)
		}
		if sig != syscall.SIGHUP {
			return 0, nil
		}
		if err := s.translate(); err != nil {
			return 0, err
		}
		for _, p := range []*serving{factotum, sshfront} {
			p.cmd.Process.Signal(syscall.SIGHUP)
			if err := s.ready(p); err != nil {
				return 0, err
			}
		}
	}
}

// proxied serves one connection on standard input and output.
func (s *standin) proxied(signals <-chan os.Signal) (int, error) {
	cmd := exec.Command(filepath.Join(binDir, "sshfront"), s.sshfront("-i")...)
	cmd.Stdin, cmd.Stdout = os.Stdin, os.Stdout
	sshfront, err := s.start(cmd)
	if err != nil {
		return 0, err
	}
	defer sshfront.stop()
	os.Stdin.Close()
	os.Stdout.Close()
	for {
		select {
		case sig := <-signals:
			if sig != syscall.SIGPIPE {
				return 255, nil
			}
		case <-sshfront.ended:
			return cmd.ProcessState.ExitCode(), nil
		}
	}
}
