package channels_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// echo serves connections by sending back what comes, in capitals.
func echo(t *testing.T, l net.Listener) {
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				b, _ := io.ReadAll(c)
				io.WriteString(c, strings.ToUpper(string(b)))
			}()
		}
	}()
}

func listen(t *testing.T, network, addr string) net.Listener {
	t.Helper()
	l, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	echo(t, l)
	return l
}

// ask sends text, and the end of it, and returns what comes back.
func ask(network, addr, text string) string {
	c, err := net.Dial(network, addr)
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	io.WriteString(c, text)
	c.(interface{ CloseWrite() error }).CloseWrite()
	b, err := io.ReadAll(c)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// background starts ssh -N with options and waits until it has done what they
// ask for; the end of the test ends it. It returns the control socket.
func (h *host) background(more ...string) (control string) {
	h.t.Helper()
	control = filepath.Join(h.t.TempDir(), "ctl")
	cmd := exec.Command("ssh", h.args("-p", append([]string{"-N", "-M", "-S", control, "-o", "ExitOnForwardFailure=yes"}, more...)...)...)
	cmd.Stderr = h
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { cmd.Wait(); close(done) }()
	h.t.Cleanup(func() { cmd.Process.Kill(); <-done })
	eventually(h.t, "the control socket of ssh", func() bool {
		_, err := os.Stat(control)
		return err == nil
	})
	return control
}

func TestForwardsGoBothWays(t *testing.T) {
	h := newHost(t, "")
	tcp := listen(t, "tcp", "127.0.0.1:0").Addr().String()
	sock := filepath.Join(h.dir, "echo")
	listen(t, "unix", sock)
	if err := os.Chmod(sock, 0o777); err != nil {
		t.Fatal(err)
	}
	l, r, d := freePort(t), freePort(t), freePort(t)
	lu, ru, rt := filepath.Join(h.t.TempDir(), "l"), filepath.Join(h.dir, "r"), freePort(t)
	h.background("-L", l+":"+tcp, "-R", r+":"+tcp, "-D", d, "-L", lu+":"+sock, "-R", ru+":"+sock, "-R", rt+":"+sock, "wren@127.0.0.1")
	for what, at := range map[string][2]string{
		"-L": {"tcp", "127.0.0.1:" + l}, "-R": {"tcp", "127.0.0.1:" + r}, "-R to a unix socket": {"tcp", "127.0.0.1:" + rt},
		"-L unix": {"unix", lu}, "-R unix": {"unix", ru},
	} {
		eventually(t, what, func() bool { c, err := net.Dial(at[0], at[1]); return err == nil && c.Close() == nil })
		if got := ask(at[0], at[1], "a question"); got != "A QUESTION" {
			t.Errorf("%s: %q", what, got)
		}
	}
	if st, err := os.Stat(ru); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("-R unix: %v, %v", st, err)
	}
	if got := socks(t, d, tcp, "by socks"); got != "BY SOCKS" {
		t.Errorf("-D: %q", got)
	}
}

// socks asks through a SOCKS 4 proxy.
func socks(t *testing.T, proxy, addr, text string) string {
	t.Helper()
	a, err := net.ResolveTCPAddr("tcp4", addr)
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", "127.0.0.1:"+proxy)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.Write(append([]byte{4, 1, byte(a.Port >> 8), byte(a.Port)}, append(a.IP.To4(), 0)...))
	r := bufio.NewReader(c)
	if _, err := io.ReadFull(r, make([]byte, 8)); err != nil {
		t.Fatal(err)
	}
	io.WriteString(c, text)
	c.(*net.TCPConn).CloseWrite()
	b, _ := io.ReadAll(r)
	return string(b)
}

func TestAForwardThatIsNotPermittedIsRefused(t *testing.T) {
	open := listen(t, "tcp", "127.0.0.1:0").Addr().String()
	shut := listen(t, "tcp", "127.0.0.1:0").Addr().String()
	h := newHost(t, "PermitOpen "+open+"\nPermitListen 127.0.0.1:1\nAllowStreamLocalForwarding no\n")
	h.want("YES", "yes", "-W", open, "wren@127.0.0.1")
	if out, errs, status := h.ssh("no", "-W", shut, "wren@127.0.0.1"); out != "" || status == 0 || !strings.Contains(h.logged(), "denied") {
		t.Errorf("PermitOpen: %q, %q, %d", out, errs, status)
	}
	for _, what := range []string{"-R" + freePort(t) + ":" + open, "-R" + h.dir + "/r:" + open} {
		_, errs, status := h.ssh("", "-o", "ExitOnForwardFailure=yes", what, "wren@127.0.0.1", "true")
		if status != 255 || !strings.Contains(errs, "failed") {
			t.Errorf("%s: %q, %d", what, errs, status)
		}
	}
}

func TestTheAgentIsForwarded(t *testing.T) {
	h := newHost(t, "")
	sock := filepath.Join(t.TempDir(), "agent")
	agent := exec.Command("ssh-agent", "-D", "-a", sock)
	if err := agent.Start(); err != nil {
		t.Skip(err)
	}
	defer agent.Wait()
	defer agent.Process.Kill()
	eventually(t, "ssh-agent", func() bool { _, err := os.Stat(sock); return err == nil })
	cmd := exec.Command("ssh", append([]string{"-A", "-o", "IdentityAgent=" + sock}, h.args("-p", "wren@127.0.0.1", "ssh-add -l; stat -c %a $SSH_AUTH_SOCK; echo $SSH_AUTH_SOCK")...)...)
	out, err := cmd.CombinedOutput()
	lines := strings.Split(string(out), "\n")
	if err != nil || len(lines) < 3 || lines[0] != "The agent has no identities." || lines[1] != "600" {
		t.Fatalf("%v: %q", err, out)
	}
	eventually(t, "the end of the agent's directory", func() bool {
		_, err := os.Stat(filepath.Dir(lines[2]))
		return os.IsNotExist(err)
	})
	h2 := newHost(t, "AllowAgentForwarding no\n")
	cmd = exec.Command("ssh", append([]string{"-A", "-o", "IdentityAgent=" + sock}, h2.args("-p", "wren@127.0.0.1", "echo ${SSH_AUTH_SOCK-none}")...)...)
	if out, err := cmd.CombinedOutput(); err != nil || string(out) != "none\n" {
		t.Errorf("AllowAgentForwarding no: %v: %q", err, out)
	}
}

func TestX11IsForwarded(t *testing.T) {
	if _, err := exec.LookPath("xauth"); err != nil {
		t.Skip("needs xauth")
	}
	h := newHost(t, "X11Forwarding yes\n")
	// What stands for the X server answers with what it hears, less the cookie.
	display := filepath.Join("/tmp/.X11-unix", fmt.Sprintf("X%d", 700+os.Getpid()%200))
	if err := os.MkdirAll("/tmp/.X11-unix", 0o1777); err != nil {
		t.Skip(err)
	}
	l, err := net.Listen("unix", display)
	if err != nil {
		t.Skip(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			b := make([]byte, 1)
			io.ReadFull(c, b)
			fmt.Fprintf(c, "X server heard %q\n", b)
			c.Close()
		}
	}()
	cmd := exec.Command("ssh", h.args("-p", "-Y", "wren@127.0.0.1",
		// A client's greeting, with the cookie that xauth was given.
		`set -e; echo $DISPLAY; c=$(xauth list | awk '{print $3}'); n=${DISPLAY#*:}; n=${n%.*}
		exec 3<>/dev/tcp/127.0.0.1/$((6000+n)); { printf 'l\0\13\0\0\0\22\0\20\0\0\0MIT-MAGIC-COOKIE-1\0\0'; echo $c | xxd -r -p 2>/dev/null || perl -e 'print pack("H*",shift)' $c; } >&3; cat <&3`)...)
	cmd.Env = append(os.Environ(), "DISPLAY=:"+strings.TrimPrefix(filepath.Base(display), "X"), "HOME="+t.TempDir())
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "localhost:5") || !strings.Contains(string(out), `X server heard "l"`) {
		t.Errorf("%v: %q", err, out)
	}
}
