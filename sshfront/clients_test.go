package main

import (
	"bytes"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
)

// paramiko is a client: its arguments are how to prove the user and what to do.
const paramiko = `
import os, sys, paramiko
how, what = sys.argv[1:]
proof = {"password": {"password": "open-sesame"}, "key": {"key_filename": os.environ["keys"] + "/alice"}}[how]
c = paramiko.SSHClient()
c.set_missing_host_key_policy(paramiko.AutoAddPolicy())
c.connect("127.0.0.1", int(os.environ["port"]), "alice", look_for_keys=False, allow_agent=False, **proof)
if what == "exec":
    i, o, e = c.exec_command("id -un")
    print(o.read().decode().strip())
elif what == "shell":
    s = c.invoke_shell()
    s.sendall(b"echo $((6*7)) $(id -un); exit\n")
    out = b""
    while b := s.recv(4096): out += b
    print("\n".join("42 alice" for l in out.decode().replace("\r", "").split("\n") if l.endswith("42 alice")))
else:
    f = c.open_sftp()
    f.put("data", "copy")
    f.get("copy", "back")
c.close()
`

// Each client in each way of logging in has a shell, a command and files.
func TestEachClientLogsInEachWay(t *testing.T) {
	need(t, "ssh", "sftp", "sshpass", "plink", "psftp", "puttygen", "dbclient", "dropbearconvert", "python3")
	s := newSite(t)
	data := bytes.Repeat([]byte("p9auth is an SSH server without rights\n"), 1<<14)
	for name, b := range map[string][]byte{
		"data":  data,
		"type":  []byte("echo $((6*7)) $(id -un)\nexit\n"),
		"batch": []byte("put data copy\nget copy back\n"),
		"p.py":  []byte(paramiko),
	} {
		if err := os.WriteFile(filepath.Join(s.tmp, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := s.run(t, `puttygen $keys/alice -O private -o alice.ppk && dropbearconvert openssh dropbear $keys/alice alice.db 2>&1
		printf '#!/bin/sh\nexec dbclient -y -y -p %s $how -s alice@127.0.0.1 sftp 2>/dev/null\n' $port >dbsftp; chmod 755 dbsftp
		echo y | plink -P $port -pw open-sesame alice@127.0.0.1 true # it asks whether the host's key is right`); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	const openssh = "$options -o PreferredAuthentications=publickey alice@127.0.0.1"
	const opensshPassword = "$options -o PubkeyAuthentication=no -o PreferredAuthentications=password alice@127.0.0.1"
	for name, script := range map[string]string{
		"ssh, key, shell":           "ssh -p $port " + openssh + " <type",
		"ssh, key, exec":            "ssh -n -p $port " + openssh + " id -un",
		"ssh, key, sftp":            "sftp -q -b batch -P $port " + openssh,
		"ssh, password, shell":      "sshpass -p open-sesame ssh -p $port " + opensshPassword + " <type",
		"ssh, password, exec":       "sshpass -p open-sesame ssh -n -p $port " + opensshPassword + " id -un",
		"ssh, password, sftp":       "sshpass -p open-sesame sftp -q -o BatchMode=no -b batch -P $port " + opensshPassword,
		"plink, key, shell":         "plink -batch -P $port -i alice.ppk alice@127.0.0.1 <type",
		"plink, key, exec":          "plink -batch -P $port -i alice.ppk alice@127.0.0.1 id -un",
		"psftp, key, sftp":          "psftp -batch -b batch -P $port -i alice.ppk alice@127.0.0.1",
		"plink, password, shell":    "plink -batch -P $port -pw open-sesame alice@127.0.0.1 <type",
		"plink, password, exec":     "plink -batch -P $port -pw open-sesame alice@127.0.0.1 id -un",
		"psftp, password, sftp":     "psftp -batch -b batch -P $port -pw open-sesame alice@127.0.0.1",
		"dbclient, key, shell":      "dbclient -y -y -p $port -i alice.db -T alice@127.0.0.1 <type",
		"dbclient, key, exec":       "dbclient -y -y -p $port -i alice.db alice@127.0.0.1 id -un </dev/null",
		"dbclient, key, sftp":       "how='-i alice.db' sftp -q -b batch -S $tmp/dbsftp alice@127.0.0.1",
		"dbclient, password, shell": "DROPBEAR_PASSWORD=open-sesame dbclient -T -y -y -p $port alice@127.0.0.1 <type",
		"dbclient, password, exec":  "DROPBEAR_PASSWORD=open-sesame dbclient -y -y -p $port alice@127.0.0.1 id -un </dev/null",
		"dbclient, password, sftp":  "DROPBEAR_PASSWORD=open-sesame sftp -q -b batch -S $tmp/dbsftp alice@127.0.0.1",
		"paramiko, key, shell":      "/usr/bin/python3 p.py key shell",
		"paramiko, key, exec":       "/usr/bin/python3 p.py key exec",
		"paramiko, key, sftp":       "/usr/bin/python3 p.py key sftp",
		"paramiko, password, shell": "/usr/bin/python3 p.py password shell",
		"paramiko, password, exec":  "/usr/bin/python3 p.py password exec",
		"paramiko, password, sftp":  "/usr/bin/python3 p.py password sftp",
	} {
		t.Run(name, func(t *testing.T) {
			os.Remove(filepath.Join(s.tmp, "back"))
			s.Sh(t, "rm -f /home/alice/copy")
			out, err := s.run(t, script+" 2>errors")
			if err != nil {
				why, _ := os.ReadFile(filepath.Join(s.tmp, "errors"))
				t.Fatalf("%v: %s%s", err, out, why)
			}
			s.wantOf(t, name, out, data)
		})
	}

	// golang.org/x/crypto/ssh.
	pem, err := os.ReadFile(filepath.Join(s.Dir, "keys", "alice"))
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.ParsePrivateKey(pem)
	if err != nil {
		t.Fatal(err)
	}
	for how, auth := range map[string]ssh.AuthMethod{"key": ssh.PublicKeys(signer), "password": ssh.Password("open-sesame")} {
		for _, what := range []string{"shell", "exec", "sftp"} {
			name := "x/crypto, " + how + ", " + what
			t.Run(name, func(t *testing.T) {
				c, err := ssh.Dial("tcp", net.JoinHostPort("127.0.0.1", s.port), &ssh.ClientConfig{
					User: "alice", Auth: []ssh.AuthMethod{auth}, HostKeyCallback: ssh.InsecureIgnoreHostKey(), Timeout: 30 * time.Second,
				})
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				if what == "sftp" {
					f, err := sftp.NewClient(c)
					if err != nil {
						t.Fatal(err)
					}
					w, err := f.Create("copy")
					if err != nil {
						t.Fatal(err)
					}
					if _, err := w.Write(data); err != nil {
						t.Fatal(err)
					}
					w.Close()
					r, err := f.Open("copy")
					if err != nil {
						t.Fatal(err)
					}
					if b, err := io.ReadAll(r); err != nil || !bytes.Equal(b, data) {
						t.Errorf("%d bytes came back: %v", len(b), err)
					}
					return
				}
				x, err := c.NewSession()
				if err != nil {
					t.Fatal(err)
				}
				var out bytes.Buffer
				x.Stdout = &out
				if what == "exec" {
					err = x.Run("id -un")
				} else {
					x.Stdin = strings.NewReader("echo $((6*7)) $(id -un)\nexit\n")
					if err = x.Shell(); err == nil {
						err = x.Wait()
					}
				}
				if err != nil {
					t.Fatal(err)
				}
				s.wantOf(t, name, out.String(), nil)
			})
		}
	}
	s.noneLeft(t)
}

// wantOf checks what a client of that name printed, or copied.
func (s *site) wantOf(t *testing.T, name, out string, data []byte) {
	t.Helper()
	switch {
	case strings.HasSuffix(name, "exec") && out != "alice\n", strings.HasSuffix(name, "shell") && !strings.Contains(out, "42 alice\n"):
		t.Errorf("printed %q", out)
	case strings.HasSuffix(name, "sftp"):
		if b, err := os.ReadFile(filepath.Join(s.tmp, "back")); err != nil || !bytes.Equal(b, data) {
			t.Errorf("%d bytes came back: %v", len(b), err)
		}
	}
}

// A GiB goes each way through several key exchanges, and arrives as it was.
func TestAGiBEachWayWithNewKeys(t *testing.T) {
	need(t, "ssh")
	if testing.Short() {
		t.Skip("it takes a while")
	}
	s := newSite(t)
	s.configure(t, "RekeyLimit 256M") // the server's; the client has its own
	const gib = `yes 'all work and no play' | head -c 1073741824`
	out, err := s.run(t, "set +o pipefail; "+gib+" | sha256sum; "+
		gib+" | ssh -v -o RekeyLimit=384M -p $port ${options/-o LogLevel=ERROR/} alice@127.0.0.1 sha256sum 2>up; "+
		"ssh -n -v -o RekeyLimit=384M -p $port ${options/-o LogLevel=ERROR/} alice@127.0.0.1 \""+gib+"\" 2>down | sha256sum; grep -c KEXINIT.received up down")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if err != nil || len(lines) != 5 || lines[0] != lines[1] || lines[0] != lines[2] || len(lines[0]) < 64 {
		t.Fatalf("%v: %s", err, out)
	}
	for _, l := range lines[3:] {
		if way, n, _ := strings.Cut(l, ":"); n == "0" || n == "1" {
			t.Errorf("%s: %s key exchanges", way, n)
		}
	}
}
