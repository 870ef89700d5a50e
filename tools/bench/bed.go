package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"p9auth/test/testbed"
)

// patience is how long a server may take to do what it is asked.
const patience = 30 * time.Second

// A bed is a testbed with the servers in it.
type bed struct {
	dir     string
	script  string
	servers []*server
}

// A server is one of those that are compared.
type server struct {
	name  string
	port  int
	group string // its control group
	start func(port int) []string
	cmd   *exec.Cmd
}

// up starts a testbed and all servers that this machine has.
func up() (*bed, error) {
	b := &bed{}
	top, err := os.Getwd()
	if err != nil {
		return b, err
	}
	b.script = filepath.Join(top, "scripts/testbed")
	if _, err := os.Stat(b.script); err != nil {
		return b, fmt.Errorf("run make bench, in the source tree: %w", err)
	}
	if b.dir, err = os.MkdirTemp("", "p9auth-bench"); err != nil {
		return b, err
	}
	if err := b.testbed("up"); err != nil {
		return b, err
	}
	// Nothing that bounds strangers may bound the benchmark.
	const bounds = "MaxStartups 2000\nMaxSessions 300\nPerSourcePenalties no\nLoginGraceTime 600\n"
	if err := b.run("sh", "-ec", `
		printf '`+bounds+`PrintMotd no\nSubsystem sftp internal-sftp\n' >/etc/p9auth/sshd_config
		printf 'FrontEnd * su su\nFrontEnd * doas doas\nMaxConversations 4096\nMaxConversationsPerUID 2048\n' >>/etc/p9auth/factotum.conf
		mkdir -p /run/sshd /etc/dropbear
		printf '`+strings.Replace(bounds, "PerSourcePenalties no\n", "", 1)+`UsePAM yes\nPrintMotd no\nHostKey /etc/ssh/ssh_host_ed25519_key\nPidFile none\nSubsystem sftp internal-sftp\n' >/etc/ssh/sshd_bench
		! command -v dropbearconvert >/dev/null || dropbearconvert openssh dropbear /etc/ssh/ssh_host_ed25519_key /etc/dropbear/bench`); err != nil {
		return b, err
	}
	ours, err := b.ours(filepath.Join(top, "bin"))
	if err != nil {
		return b, err
	}
	b.servers = append(b.servers, ours)
	newer, err := b.newer(filepath.Join(top, "build/openssh13/root"))
	if err != nil {
		return b, err
	}
	for _, s := range []*server{
		{name: "sshd", start: func(port int) []string {
			return []string{"/usr/sbin/sshd", "-D", "-f", "/etc/ssh/sshd_bench", "-p", strconv.Itoa(port)}
		}},
		{name: "sshd 10", start: func(port int) []string {
			return []string{"/usr/sbin/chroot", newer, "/usr/sbin/sshd", "-D", "-f", "/etc/ssh/sshd_bench", "-o", "PerSourcePenalties=no", "-p", strconv.Itoa(port)}
		}},
		{name: "dropbear", start: func(port int) []string {
			return []string{"/usr/sbin/dropbear", "-F", "-E", "-r", "/etc/dropbear/bench", "-p", strconv.Itoa(port)}
		}},
	} {
		if _, err := os.Stat(s.start(0)[0]); err != nil {
			fmt.Fprintf(os.Stderr, "bench: without %s: %v\n", s.name, err)
			continue
		}
		if s.name == "sshd 10" && newer == "" {
			fmt.Fprintln(os.Stderr, "bench: without Debian 13's sshd: scripts/openssh13 unpacks it")
			continue
		}
		if s.port, err = freePort(); err != nil {
			return b, err
		}
		if s.cmd, err = b.serve(s.start(s.port)); err != nil {
			return b, err
		}
		if err := s.enclose(s.cmd.Process.Pid); err != nil {
			return b, err
		}
		b.servers = append(b.servers, s)
		if _, err := firstByte(s.port); err != nil {
			return b, fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return b, nil
}

// ours is p9auth: factotum and sshfront of the testbed, which read their
// configuration again.
func (b *bed) ours(bin string) (*server, error) {
	text, err := os.ReadFile(filepath.Join(b.dir, "ssh_port"))
	if err != nil {
		return nil, err
	}
	s := &server{name: "p9auth", start: func(port int) []string {
		return []string{filepath.Join(bin, "sshfront"), "-D", "-e", "-p", strconv.Itoa(port)}
	}}
	if s.port, err = strconv.Atoi(strings.TrimSpace(string(text))); err != nil {
		return nil, err
	}
	processes := (&testbed.Bed{Dir: b.dir}).Processes()
	daemons := append(processes["factotum"], processes["sshfront"]...)
	if err := s.enclose(daemons...); err != nil {
		return nil, err
	}
	for _, pid := range daemons {
		if err := syscall.Kill(pid, syscall.SIGHUP); err != nil {
			return nil, err
		}
	}
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		read := 0
		for _, log := range []string{"factotum", "sshfront"} {
			text, _ := os.ReadFile(filepath.Join(b.dir, "log", log))
			read += min(strings.Count(string(text), "configuration read again"), 1)
		}
		if read == 2 {
			return s, nil
		}
		if time.Now().After(end) {
			return nil, errors.New("p9auth does not take the configuration: see " + b.dir + "/log")
		}
	}
}

// newer makes a root directory of the testbed with the programs and libraries of tree,
// which scripts/openssh13 has unpacked, before those of the machine. It returns "" if the
// tree is not there.
func (b *bed) newer(tree string) (root string, err error) {
	if _, err := os.Stat(filepath.Join(tree, "usr/sbin/sshd")); err != nil {
		return "", nil
	}
	root = filepath.Join(b.dir, "sshd10")
	return root, b.run("sh", "-ec", `
		mkdir "$1" "$1.tree"
		mount -t tmpfs tmpfs "$1.tree"
		cp -a "$0/." "$1.tree"
		mount -t overlay -o "lowerdir=$1.tree:/" overlay "$1"
		for d in proc dev run home etc; do mount --rbind /$d "$1/$d"; done`, tree, root)
}

func (b *bed) down() (err error) {
	for _, s := range b.servers {
		if s.cmd != nil {
			s.cmd.Process.Kill()
			s.cmd.Wait()
		}
	}
	if b.dir != "" {
		err = b.testbed("down")
	}
	for _, s := range b.servers {
		for end := time.Now().Add(patience); s.group != "" && os.Remove(s.group) != nil && time.Now().Before(end); {
			time.Sleep(20 * time.Millisecond) // until its last process is gone
		}
	}
	return err
}

func (b *bed) testbed(verb string) error {
	if out, err := exec.Command(b.script, verb, b.dir).CombinedOutput(); err != nil {
		return fmt.Errorf("testbed %s: %w: %s", verb, err, out)
	}
	return nil
}

// command is a command that runs as root inside the testbed.
func (b *bed) command(argv ...string) *exec.Cmd {
	pid, _ := os.ReadFile(filepath.Join(b.dir, "pid"))
	return exec.Command("nsenter", append([]string{"--mount=/proc/" + strings.TrimSpace(string(pid)) + "/ns/mnt", "--"}, argv...)...)
}

func (b *bed) run(argv ...string) error {
	if out, err := b.command(argv...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", argv[0], err, out)
	}
	return nil
}

// serve starts a daemon in the testbed.
func (b *bed) serve(argv []string) (*exec.Cmd, error) {
	cmd := b.command(argv...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd, cmd.Start()
}

// enclose puts processes, and what they will start, into the server's control group.
func (s *server) enclose(pids ...int) error {
	root := "/sys/fs/cgroup"
	if _, err := os.Stat(root + "/cpuacct"); err == nil {
		root += "/cpuacct" // version 1
	}
	s.group = fmt.Sprintf("%s/p9auth-bench-%s-%d", root, s.name, os.Getpid())
	if err := os.Mkdir(s.group, 0o755); err != nil {
		return err
	}
	for _, pid := range pids {
		if err := os.WriteFile(s.group+"/cgroup.procs", []byte(strconv.Itoa(pid)), 0); err != nil {
			return err
		}
	}
	return nil
}

// processor is the processor time that the server has used, in seconds.
func (s *server) processor() (float64, error) {
	if text, err := os.ReadFile(s.group + "/cpuacct.usage"); err == nil {
		ns, err := strconv.ParseFloat(strings.TrimSpace(string(text)), 64)
		return ns / 1e9, err
	}
	text, err := os.ReadFile(s.group + "/cpu.stat")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if us, ok := strings.CutPrefix(line, "usage_usec "); ok {
			n, err := strconv.ParseFloat(strings.TrimSpace(us), 64)
			return n / 1e6, err
		}
	}
	return 0, errors.New(s.group + "/cpu.stat has no usage_usec")
}

// pids are the server's processes.
func (s *server) pids() []int {
	text, _ := os.ReadFile(s.group + "/cgroup.procs")
	var pids []int
	for f := range strings.FieldsSeq(string(text)) {
		if n, err := strconv.Atoi(f); err == nil {
			pids = append(pids, n)
		}
	}
	return pids
}

// settle waits until the server has nothing left to do.
func (s *server) settle(processes int) {
	for end := time.Now().Add(patience); len(s.pids()) > processes && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	for last, same := -1.0, 0; same < 3; time.Sleep(50 * time.Millisecond) {
		used, err := s.processor()
		if err != nil {
			return
		}
		if same++; used-last > 0.001 {
			same = 0
		}
		last = used
	}
}

// program is the name of the program that a process runs.
func program(pid int) string {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	arg0, _, _ := strings.Cut(string(text), "\x00")
	return filepath.Base(arg0)
}

// freePort is a port that nobody listens on, below those that clients get.
func freePort() (int, error) {
	for port := 21000 + os.Getpid()%5000; port < 30000; port++ {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			return port, l.Close()
		}
	}
	return 0, errors.New("no port is free")
}

// firstByte is when the first byte of a server has come that may have to start first.
func firstByte(port int) (time.Time, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for ; ; time.Sleep(200 * time.Microsecond) {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if ctx.Err() != nil {
			return time.Time{}, fmt.Errorf("nothing comes from port %d", port)
		}
		if err != nil {
			continue
		}
		c.SetDeadline(time.Now().Add(patience))
		_, err = c.Read(make([]byte, 1))
		c.Close()
		return time.Now(), err
	}
}
