package faults

import (
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"p9auth/test/testbed"
)

// A bed is a testbed whose factotum and listener are run by a supervisor.
type bed struct {
	*testbed.Bed
	factotum, listener *testbed.Daemon
	port               string
	signers            map[string]ssh.Signer // of alice and bob
}

// config is the factotum.conf of a bed.
const config = "FrontEnd _login login\nFrontEnd _sshfront sshd ssh\n"

// up starts a testbed whose PAM services are quick and record their sessions.
func up(t *testing.T) *bed {
	t.Helper()
	l := testbed.UpLogins(t)
	b := &bed{Bed: l.Bed, signers: map[string]ssh.Signer{}}
	b.Write(t, "/etc/pam.d/sshd", testbed.Service)
	b.Write(t, "/etc/p9auth/factotum.conf", config)
	b.Write(t, "/etc/p9auth/sshd_config", "PerSourcePenalties no\nMaxStartups 1000\nPrintMotd no\nPrintLastLog no\nSubsystem sftp internal-sftp\n")
	b.Sh(t, "touch /home/alice/.hushlogin /home/bob/.hushlogin")
	port, err := os.ReadFile(filepath.Join(b.Dir, "ssh_port"))
	if err != nil {
		t.Fatal(err)
	}
	b.port = strings.TrimSpace(string(port))
	for _, user := range []string{"alice", "bob"} {
		text, err := os.ReadFile(filepath.Join(b.Dir, "keys", user))
		if err != nil {
			t.Fatal(err)
		}
		if b.signers[user], err = ssh.ParsePrivateKey(text); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

// An outcome is what became of a login.
type outcome struct {
	who  string // the user whose shell answered, or ""
	said string // what the person saw
	took time.Duration
}

// slow is how long a login may take, with a fault in it, on a loaded machine. That is less
// than login and sshfront would wait for somebody who says nothing.
var slow = flag.Duration("slow", 25*time.Second, "how long a login may take, with a fault in it")

// ssh logs in as alice or bob with somebody's key, on a terminal.
func (b *bed) ssh(user, key string) (o outcome) {
	began := time.Now()
	defer func() { o.took = time.Since(began) }()
	failed := func(err error) outcome { return outcome{said: err.Error()} }
	conn, err := net.DialTimeout("tcp", "127.0.0.1:"+b.port, *slow)
	if err != nil {
		return failed(err)
	}
	defer conn.Close()
	conn.SetDeadline(began.Add(*slow))
	c, chans, reqs, err := ssh.NewClientConn(conn, "127.0.0.1:"+b.port, &ssh.ClientConfig{
		User: user, Auth: []ssh.AuthMethod{ssh.PublicKeys(b.signers[key])}, HostKeyCallback: ssh.InsecureIgnoreHostKey(),
	})
	if err != nil {
		return failed(err)
	}
	client := ssh.NewClient(c, chans, reqs)
	defer client.Close()
	s, err := client.NewSession()
	if err != nil {
		return failed(err)
	}
	defer s.Close()
	if err := s.RequestPty("vt100", 24, 80, nil); err != nil {
		return failed(err)
	}
	out, err := s.CombinedOutput("id -un")
	o.said = string(out)
	if err != nil {
		o.said += err.Error()
	}
	var exit *ssh.ExitError
	said := strings.TrimSpace(string(out))
	if who := said[strings.LastIndexByte(said, '\n')+1:]; err == nil || errors.As(err, &exit) {
		if name.MatchString(who) {
			o.who = who
		}
	}
	return o
}

// name matches what id prints.
var name = regexp.MustCompile(`^[a-z_][a-z_0-9]*$`)

// in matches what a shell answers at the console.
var in = regexp.MustCompile(`IN-([a-z_0-9]+)\r`)

// console logs in at a terminal. started is called with login's process, if it is not nil.
func (b *bed) console(t *testing.T, user, password string, started func(pid int), prefix ...string) (o outcome) {
	began := time.Now()
	defer func() { o.took = time.Since(began) }()
	term := b.Start(t, append(prefix, b.Bin("login"), "--", user)...)
	if started != nil {
		started(term.PID())
	}
	ended := make(chan struct{})
	go func() { term.Cmd.Wait(); close(ended) }()
	const ask = "echo I''N-$(id -un); exit\n"
	typed, asked := false, false
	for end := began.Add(*slow); time.Now().Before(end); {
		s := term.Screen()
		o.said = s
		if m := in.FindStringSubmatch(s); m != nil {
			o.who = m[1]
		}
		switch {
		case !typed && strings.Contains(s, "Password: "):
			typed = true
			term.Type(password + "\n")
		case !asked && typed && strings.Contains(s, "$ "):
			asked = true
			term.Type(ask)
		case strings.Contains(s, "incorrect"):
			term.Hangup()
			<-ended
			return o
		}
		select {
		case <-ended:
			// What it said last may still be on its way.
			for quiet := 0; quiet < 20; quiet++ {
				if now := term.Screen(); now != o.said {
					o.said, quiet = now, 0
				}
				if m := in.FindStringSubmatch(o.said); m != nil {
					o.who = m[1]
					break
				}
				time.Sleep(10 * time.Millisecond)
			}
			term.Hangup()
			return o
		case <-time.After(5 * time.Millisecond):
		}
	}
	o.said += "\n(login does not end)"
	term.Cmd.Process.Kill()
	term.Hangup()
	<-ended
	return o
}

func (o outcome) String() string {
	return fmt.Sprintf("%q after %s: %q", o.who, o.took.Round(time.Millisecond), o.said)
}
