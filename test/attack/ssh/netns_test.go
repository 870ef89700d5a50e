package ssh

import (
	"net"
	"os"
	"os/exec"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"p9auth/capproto"
)

// inNetwork calls f in a network namespace of its own, in which the loopback device has
// these addresses too. It returns a file that stands for the namespace.
func inNetwork(t *testing.T, f func(), addresses ...string) *os.File {
	t.Helper()
	var ns *os.File
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine
		done <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return err
			}
			commands := [][]string{{"ip", "link", "set", "lo", "up"}}
			for _, a := range addresses {
				commands = append(commands, []string{"ip", "addr", "add", a + "/32", "dev", "lo"})
			}
			for _, c := range commands {
				if err := exec.Command(c[0], c[1:]...).Run(); err != nil {
					return err
				}
			}
			f()
			var err error
			ns, err = os.Open("/proc/thread-self/ns/net")
			return err
		}()
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return ns
}

// connectedFrom is the server's end of a connection from one address to itself, made by
// system calls of the calling thread.
func connectedFrom(t *testing.T, from string) *os.File {
	a := &unix.SockaddrInet4{Addr: [4]byte(net.ParseIP(from).To4())}
	ln, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(err)
	defer unix.Close(ln)
	must(unix.Bind(ln, a))
	must(unix.Listen(ln, 1))
	to, err := unix.Getsockname(ln)
	must(err)
	c, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(err)
	t.Cleanup(func() { unix.Close(c) })
	must(unix.Bind(c, a))
	must(unix.Connect(c, to))
	s, _, err := unix.Accept4(ln, unix.SOCK_CLOEXEC)
	must(err)
	return os.NewFile(uintptr(s), "connection")
}

// TestAnAddressOfAnotherNetworkNamespaceIsNotBelieved is a front end that chooses its
// client's address, by connecting in a network namespace of its own.
func TestAnAddressOfAnotherNetworkNamespaceIsNotBelieved(t *testing.T) {
	b := up(t)
	key := newKey(t, "ed25519", 0)
	b.Sh(t, "mkdir -pm 700 ~alice/.ssh && chown alice: ~alice/.ssh")
	b.Write(t, "/home/alice/.ssh/authorized_keys", key.line(`from="203.0.113.7"`))
	var trusted, banned *os.File
	ns := inNetwork(t, func() {
		trusted, banned = connectedFrom(t, "203.0.113.7"), connectedFrom(t, "8.8.8.8")
	}, "203.0.113.7", "8.8.8.8")
	start := func(conn *os.File) (*talk, capproto.Msg) {
		k := b.sshfront.dial(t)
		return k, k.say(capproto.NewMsg("start", "version", version, "proto", "ssh"), conn)
	}
	const logged = "of a network namespace that is neither factotum's nor one that NetworkNamespace names"
	b.wantLogged(t, logged, 2, func() {
		for _, conn := range []*os.File{trusted, banned} {
			k, m := start(conn)
			k.wantEnd("a connection of the attacker's own network", m, capproto.CodeProtocol)
		}
	})
	if b.Logged("203.0.113.7")+b.Logged("8.8.8.8") > 0 {
		t.Error("the log has an address of the attacker's choice")
	}
	// What is refused is the namespace: the administrator can name it.
	b.Sh(t, "mkdir -p /run/netns && touch /run/netns/named")
	if err := b.bind(ns, "/run/netns/named"); err != nil {
		t.Fatal(err)
	}
	conf := b.Sh(t, "cat /etc/p9auth/factotum.conf")
	b.Write(t, "/etc/p9auth/factotum.conf", conf+"\nNetworkNamespace /run/netns/named\n")
	b.configure(t, "")
	if _, m := start(trusted); m.Verb != capproto.VerbOK {
		t.Errorf("a connection of the namespace that is named: %s", show(m))
	}
}

// bind mounts a namespace on a file of the testbed, as ip-netns(8) does.
func (b *bed) bind(ns *os.File, path string) error {
	c := b.Command("mount", "--bind", "/proc/self/fd/3", path)
	c.ExtraFiles = []*os.File{ns}
	return c.Run()
}
