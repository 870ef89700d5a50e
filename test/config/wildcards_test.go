package config

import (
	"crypto/ed25519"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/crypto/ssh"

	"p9auth/internal/sshdconf"
	"p9auth/test/testbed"
)

// keyFiles are values of AuthorizedKeysFile, and whether one of the files has the key:
// all but those called "other" have it.
var keyFiles = map[string]bool{
	".ssh/keys.d/*": true, ".ssh/keys.d/?": true, ".ssh/keys.d/o*": false, ".ssh/*/a": true, ".ssh/hidden.d/*": false, ".ssh/hidden.d/.*": true,
	".ssh/hidden.d/.[k]ey": true, ".ssh/keys.d/[!o]*": true, ".ssh/keys.d/[!a]*": false, ".ssh/keys.d/[^o]*": false, `.ssh/keys.d/\a`: true,
	"/etc/keys/%u/*": true, "/etc/keys/%U*/*": false, "none .ssh/keys.d/a": true, "none": false, ".ssh/none* .ssh/keys.d/*": true, "%h/.ssh/keys.d/a": true,
	"/etc/keys/*/k": true, ".ssh/keys.d/[^a]*": true,
}

// sshd runs sshd in the world until the test ends.
func (w *world) sshd(t *testing.T, conf, port string) {
	t.Helper()
	cmd := exec.Command("/usr/sbin/sshd", "-D", "-e", "-f", w.write(t, conf))
	cmd.Dir, cmd.Env = "/", []string{"PATH=/usr/bin"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: w.root}
	var log testbed.Log
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Log(log.String())
		}
	})
	if !testbed.Eventually(func() bool {
		c, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err == nil {
			c.Close()
		}
		return err == nil
	}) {
		t.Fatalf("sshd does not listen: %s", log.String())
	}
}

func TestWildcardsStandForTheFilesOfKeysThatSshdReads(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		if w.release < 13 {
			return // OpenSSH has wildcards there since 10.0
		}
		key, err := ssh.NewSignerFromKey(ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)))
		if err != nil {
			t.Fatal(err)
		}
		home := "/home/alice/.ssh/"
		for _, f := range []string{home + "keys.d/a", home + "keys.d/other", home + "hidden.d/.key", "/etc/keys/alice/k", "/bin/sh"} {
			if err := os.MkdirAll(filepath.Dir(w.root+f), 0o755); err != nil {
				t.Fatal(err)
			}
			text := string(ssh.MarshalAuthorizedKey(key.PublicKey()))
			if strings.HasSuffix(f, "other") {
				text = "# nothing\n"
			}
			if err := os.WriteFile(w.root+f, []byte(text), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if out, err := exec.Command("chown", "-R", "1000:1000", w.root+"/home/alice").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		patterns := slices.Sorted(maps.Keys(keyFiles))
		port := testbed.FreePort(t)
		conf := "Port " + port + "\nUsePAM no\nStrictModes no\nListenAddress 127.0.0.1\nPidFile none\nPerSourcePenalties no\n"
		from := func(i int) net.IP { return net.IPv4(127, 0, 1, byte(i)) }
		for i, p := range patterns {
			conf += fmt.Sprintf("Match Address %s\n\tAuthorizedKeysFile %s\n", from(i), p)
		}
		w.sshd(t, conf, port)
		for i, p := range patterns {
			d := net.Dialer{LocalAddr: &net.TCPAddr{IP: from(i)}}
			conn, err := d.Dial("tcp", "127.0.0.1:"+port)
			if err != nil {
				t.Fatal(err)
			}
			_, _, _, err = ssh.NewClientConn(conn, "", &ssh.ClientConfig{
				User: "alice", Auth: []ssh.AuthMethod{ssh.PublicKeys(key)}, HostKeyCallback: ssh.InsecureIgnoreHostKey(),
			})
			conn.Close()
			if (err == nil) != keyFiles[p] {
				t.Errorf("AuthorizedKeysFile %s: sshd: %v", p, err)
			}
			if ours := w.ours(t, p); ours != keyFiles[p] {
				t.Errorf("AuthorizedKeysFile %s: found here: %v", p, ours)
			}
		}
	})
}

// ours says whether one of the files that our worker would read has the key.
func (w *world) ours(t *testing.T, pattern string) bool {
	t.Helper()
	file := filepath.Join(t.TempDir(), "conf")
	pattern = strings.ReplaceAll(pattern, "/etc/keys", w.root+"/etc/keys")
	if err := os.WriteFile(file, []byte("AuthorizedKeysFile "+pattern+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	conf, err := sshdconf.Parse(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	files, err := conf.Global().Auth().KeysFiles("alice", w.root+"/home/alice", 1000)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		names := []string{f.Path}
		if f.Glob {
			if names, err = sshdconf.Glob(f.Path); err != nil {
				t.Fatal(err)
			}
		}
		for _, n := range names {
			if b, err := os.ReadFile(n); err == nil && strings.HasPrefix(string(b), "ssh-ed25519 ") {
				return true
			}
		}
	}
	return false
}
