package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
)

// A measurement gives some figures of a server, in one round.
type measurement struct {
	name  string
	once  bool // one round is enough: it is a size, or takes long
	f     func(b *bed, s *server, n sizes) ([]figure, error)
	skips map[string]string // by the name of the server that cannot do it: why
}

type figure struct {
	name, unit string
	v          float64
}

const oneAddress = "Debian's dropbear lets five of one address be under way"

var measurements = []measurement{
	{name: "login by key", f: func(b *bed, s *server, n sizes) ([]figure, error) {
		return b.logins(s, n.Logins, "login by key", b.byKey)
	}},
	{name: "login by password", f: func(b *bed, s *server, n sizes) ([]figure, error) {
		return b.logins(s, n.Logins, "login by password", func() (ssh.AuthMethod, error) { return ssh.Password(password), nil })
	}},
	{name: "parallel logins", f: (*bed).parallel, skips: map[string]string{"dropbear": oneAddress}},
	{name: "bulk aes128-gcm", f: bulk("aes128-gcm@openssh.com")},
	{name: "bulk aes256-gcm", f: bulk("aes256-gcm@openssh.com")},
	{name: "bulk chacha20-poly1305", f: bulk("chacha20-poly1305@openssh.com")},
	{name: "sessions", once: true, f: (*bed).sessions, skips: map[string]string{"dropbear": oneAddress}},
	{name: "silent connections", once: true, f: (*bed).silent, skips: map[string]string{"dropbear": oneAddress}},
	{name: "cold start", f: (*bed).cold},
	{name: "su", f: (*bed).su, skips: suSkips},
	{name: "doas", f: (*bed).doas, skips: suSkips},
}

const (
	user     = "alice"
	password = "open-sesame"
	atOnce   = 16
)

// measure has all servers measured in turn, round by round.
func (b *bed) measure(m measurement, n sizes) ([]row, error) {
	rounds := n.Rounds
	if m.once {
		rounds = 1
	}
	var rows []row
	values := map[string]map[string][]float64{} // by figure and server
	for range rounds {
		for _, s := range b.servers {
			if why, ok := m.skips[s.name]; ok {
				leaveOut(m.name, s.name, why)
				continue
			}
			figures, err := m.f(b, s, n)
			if err != nil {
				if s.name == "dropbear" { // it may lack a cipher
					leaveOut(m.name, s.name, err.Error())
					continue
				}
				return nil, fmt.Errorf("%s: %w", s.name, err)
			}
			for _, f := range figures {
				if values[f.name] == nil {
					values[f.name] = map[string][]float64{}
					rows = append(rows, row{f.name, f.unit, map[string]value{}})
				}
				values[f.name][s.name] = append(values[f.name][s.name], f.v)
			}
		}
	}
	for _, r := range rows {
		for server, v := range values[r.Name] {
			r.Values[server] = summary(v)
		}
	}
	return rows, nil
}

var leftOut = map[string]bool{}

// leaveOut says once why the table will have no value.
func leaveOut(measurement, server, why string) {
	if key := measurement + server; !leftOut[key] {
		leftOut[key] = true
		fmt.Fprintf(os.Stderr, "bench: no %s of %s: %s\n", measurement, server, why)
	}
}

func (b *bed) byKey() (ssh.AuthMethod, error) {
	text, err := os.ReadFile(filepath.Join(b.dir, "keys", user))
	if err != nil {
		return nil, err
	}
	key, err := ssh.ParsePrivateKey(text)
	return ssh.PublicKeys(key), err
}

// dial logs in.
func (s *server) dial(auth ssh.AuthMethod) (*ssh.Client, error) {
	return ssh.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", s.port), &ssh.ClientConfig{
		Config: ssh.Config{KeyExchanges: []string{"curve25519-sha256"}, Ciphers: []string{"aes128-gcm@openssh.com", "aes128-ctr"}}, // dropbear has no GCM
		// dropbear ends at the proposal of another type than it has.
		HostKeyAlgorithms: []string{ssh.KeyAlgoED25519},
		User:              user, Auth: []ssh.AuthMethod{auth}, HostKeyCallback: ssh.InsecureIgnoreHostKey(), Timeout: patience,
	})
}

// login logs in, runs a program that does nothing, and leaves.
func (s *server) login(auth ssh.AuthMethod) error {
	c, err := s.dial(auth)
	if err != nil {
		return err
	}
	defer c.Close()
	session, err := c.NewSession()
	if err != nil {
		return err
	}
	return session.Run("true")
}

// logins measures logins one after the other.
func (b *bed) logins(s *server, n int, name string, method func() (ssh.AuthMethod, error)) ([]figure, error) {
	auth, err := method()
	if err != nil {
		return nil, err
	}
	idle := len(s.pids())
	if err := s.login(auth); err != nil {
		return nil, err
	}
	s.settle(idle)
	used, err := s.processor()
	if err != nil {
		return nil, err
	}
	var times []float64
	for range n {
		start := time.Now()
		if err := s.login(auth); err != nil {
			return nil, err
		}
		times = append(times, ms(time.Since(start)))
	}
	s.settle(idle)
	after, err := s.processor()
	return []figure{
		{name, "ms", summary(times).Median},
		{name + ", processor", "ms", (after - used) * 1000 / float64(n)},
	}, err
}

// parallel measures how many logins are done in a second, sixteen at a time.
func (b *bed) parallel(s *server, n sizes) ([]figure, error) {
	auth, err := b.byKey()
	if err != nil {
		return nil, err
	}
	idle := len(s.pids())
	s.settle(idle)
	used, err := s.processor()
	if err != nil {
		return nil, err
	}
	own, start := clientProcessor(), time.Now()
	var all sync.WaitGroup
	errs := make(chan error, atOnce)
	work := make(chan struct{}, n.Parallel)
	for range n.Parallel {
		work <- struct{}{}
	}
	close(work)
	for range atOnce {
		all.Go(func() {
			for range work {
				if err := s.login(auth); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	all.Wait()
	took := time.Since(start).Seconds()
	own = clientProcessor() - own
	select {
	case err := <-errs:
		return nil, err
	default:
	}
	s.settle(idle)
	after, err := s.processor()
	return []figure{
		{"16 logins at a time", "1/s", float64(n.Parallel) / took},
		{"16 logins at a time, processor", "ms each", (after - used) * 1000 / float64(n.Parallel)},
		{"16 logins at a time, the client's processor", "ms each", own * 1000 / float64(n.Parallel)},
	}, err
}

// clientProcessor is the processor time of this process, in seconds.
func clientProcessor() float64 {
	var u unix.Rusage
	unix.Getrusage(unix.RUSAGE_SELF, &u)
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}

// bulk measures OpenSSH's client sending and receiving.
func bulk(cipher string) func(b *bed, s *server, n sizes) ([]figure, error) {
	return func(b *bed, s *server, n sizes) (figures []figure, err error) {
		name, _, _ := strings.Cut(cipher, "@")
		for _, way := range []struct{ name, command string }{
			{"to the server", "exec cat >/dev/null"},
			{"from the server", fmt.Sprintf("exec head -c %d /dev/zero", n.MiB<<20)},
		} {
			idle := len(s.pids())
			s.settle(idle)
			used, err := s.processor()
			if err != nil {
				return nil, err
			}
			ctx, cancel := context.WithTimeout(context.Background(), 10*patience)
			defer cancel()
			cmd := exec.CommandContext(ctx, "ssh", "-F", "none", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR",
				"-o", "ControlPath=none", "-o", "IdentitiesOnly=yes", "-o", "KexAlgorithms=curve25519-sha256", "-o", "HostKeyAlgorithms=ssh-ed25519", "-i", filepath.Join(b.dir, "keys", user),
				"-c", cipher, "-p", strconv.Itoa(s.port), user+"@127.0.0.1", way.command)
			if way.name == "to the server" {
				zero, err := os.Open("/dev/zero")
				if err != nil {
					return nil, err
				}
				defer zero.Close()
				cmd.Stdin = io.LimitReader(zero, int64(n.MiB)<<20)
			}
			start := time.Now()
			if out, err := cmd.StderrPipe(); err != nil {
				return nil, err
			} else if err := cmd.Start(); err != nil {
				return nil, err
			} else {
				text, _ := io.ReadAll(out)
				if err := cmd.Wait(); err != nil {
					return nil, fmt.Errorf("ssh: %w: %s", err, text)
				}
			}
			took := time.Since(start).Seconds()
			s.settle(idle)
			after, err := s.processor()
			if err != nil {
				return nil, err
			}
			figures = append(figures,
				figure{name + " " + way.name, "MB/s", float64(n.MiB<<20) / 1e6 / took},
				figure{name + " " + way.name + ", processor", "s/GB", (after - used) / (float64(n.MiB<<20) / 1e9)})
		}
		return figures, nil
	}
}

// sessions measures what idle sessions take: the first, and each further one.
func (b *bed) sessions(s *server, n sizes) (figures []figure, err error) {
	auth, err := b.byKey()
	if err != nil {
		return nil, err
	}
	none, err := b.memory(s)
	if err != nil {
		return nil, err
	}
	idle := len(s.pids())
	var clients []*ssh.Client
	defer func() {
		for _, c := range clients {
			c.Close()
		}
		s.settle(idle)
	}()
	last, at := none, 0
	for _, many := range []int{1, 20, n.Sessions} {
		for len(clients) < many {
			c, err := s.dial(auth)
			if err != nil {
				return nil, err
			}
			clients = append(clients, c)
			session, err := c.NewSession()
			if err != nil {
				return nil, err
			}
			if err := session.Start("exec sleep 100000"); err != nil {
				return nil, err
			}
		}
		time.Sleep(4 * time.Second) // they give back what an idle session does not need
		now, err := b.memory(s)
		if err != nil {
			return nil, err
		}
		what := fmt.Sprintf("session, of %d to %d", at+1, many)
		if at+1 == many {
			what = "first session"
		}
		per := float64(many - at)
		figures = append(figures,
			figure{what, "KiB Pss", (now.pss - last.pss) / per},
			figure{what + ", private dirty", "KiB", (now.dirty - last.dirty) / per},
			figure{what + ", page tables", "KiB", (now.tables - last.tables) / per},
			figure{what + ", threads", "", (now.threads - last.threads) / per})
		last, at = now, many
	}
	return figures, nil
}

// silent measures what connections take whose clients say nothing.
func (b *bed) silent(s *server, n sizes) ([]figure, error) {
	none, err := b.memory(s)
	if err != nil {
		return nil, err
	}
	idle := len(s.pids())
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			c.Close()
		}
		s.settle(idle)
	}()
	for range n.Silent {
		c, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", s.port), patience)
		if err != nil {
			return nil, err
		}
		conns = append(conns, c)
		c.SetDeadline(time.Now().Add(patience))
		if _, err := c.Read(make([]byte, 1)); err != nil {
			return nil, fmt.Errorf("connection %d: %w", len(conns), err)
		}
	}
	time.Sleep(2 * time.Second)
	now, err := b.memory(s)
	return []figure{
		{"silent connection", "KiB Pss", (now.pss - none.pss) / float64(n.Silent)},
		{"silent connection, private dirty", "KiB", (now.dirty - none.dirty) / float64(n.Silent)},
		{"silent connection, page tables", "KiB", (now.tables - none.tables) / float64(n.Silent)},
	}, err
}

// cold measures a listener's start up to the first byte to a client. Of p9auth it
// is sshfront's: factotum is running, as it is for the console.
func (b *bed) cold(s *server, n sizes) ([]figure, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	start := time.Now()
	cmd, err := b.serve(s.start(port))
	if err != nil {
		return nil, err
	}
	defer func() {
		cmd.Process.Kill()
		cmd.Wait()
	}()
	first, err := firstByte(port)
	return []figure{{"cold start to the first byte", "ms", ms(first.Sub(start))}}, err
}

// memory is what all processes of a server take, in KiB, but those that users run.
type memory struct{ pss, dirty, tables, threads float64 }

func (b *bed) memory(s *server) (m memory, err error) {
	for _, pid := range s.pids() {
		switch program(pid) {
		case "sleep", "sh", "bash", "-bash", "":
			continue
		}
		dir := fmt.Sprintf("/proc/%d/", pid)
		text, err1 := os.ReadFile(dir + "smaps_rollup")
		status, err2 := os.ReadFile(dir + "status")
		if errors.Join(err1, err2) != nil {
			continue // it has ended
		}
		for line := range strings.Lines(string(text) + string(status)) {
			f := strings.Fields(line)
			if len(f) < 2 {
				continue
			}
			v, _ := strconv.ParseFloat(f[1], 64)
			switch f[0] {
			case "Pss:":
				m.pss += v
			case "Private_Dirty:":
				m.dirty += v
			case "VmPTE:":
				m.tables += v
			case "Threads:":
				m.threads += v
			}
		}
	}
	if m.pss == 0 {
		return m, errors.New("the kernel does not say what processes take (smaps_rollup in proc(5))")
	}
	return m, nil
}

func ms(d time.Duration) float64 { return float64(d) / 1e6 }
