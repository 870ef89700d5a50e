package sftp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

// asServer is in the environment of the test program when it is to be the
// server.
const asServer = "P9AUTH_TEST_SFTP"

func TestMain(m *testing.M) {
	if os.Getenv(asServer) != "" {
		Main(os.Args[1:])
	}
	status := m.Run()
	if testing.Verbose() {
		for name, n := range table {
			fmt.Printf("%s beside ours: %d conversations, %d requests, %d differences, %d that are named\n", name, n[0], n[1], n[2], n[3])
		}
	}
	if copyDir != "" {
		os.RemoveAll(copyDir)
	}
	os.Exit(status)
}

// A program is an sftp server that can be run.
type program struct {
	name string
	argv []string
	env  []string
}

// ours is the test program, at a place where everybody may run it.
func ours(t testing.TB) program {
	t.Helper()
	copied.Do(func() {
		b, err := os.ReadFile("/proc/self/exe")
		if err == nil {
			copyDir, err = os.MkdirTemp("/tmp", "sftp-test")
		}
		if err == nil {
			err = errors.Join(os.Chmod(copyDir, 0o755), os.WriteFile(copyDir+"/server", b, 0o755))
		}
		if err != nil {
			t.Fatal(err)
		}
	})
	return program{"ours", []string{copyDir + "/server"}, append([]string{asServer + "=1"}, runtimeEnv...)}
}

var (
	copied  sync.Once
	copyDir string
)

// theirs are OpenSSH's servers that are here: the one that is installed, and
// what scripts/openssh13 has unpacked, the latter not with -short.
func theirs(t testing.TB) []program {
	var l []program
	if p := "/usr/lib/openssh/sftp-server"; exists(p) {
		l = append(l, program{name: "installed", argv: []string{p}})
	}
	root, err := filepath.Abs("../../../build/openssh13/root")
	if err != nil {
		t.Fatal(err)
	}
	if lib := filepath.Join(root, "usr/lib/x86_64-linux-gnu"); exists(lib) {
		l = append(l, program{name: "Debian 13's", argv: []string{lib + "/ld-linux-x86-64.so.2", "--library-path", lib, "--argv0", "sftp-server", root + "/usr/lib/openssh/sftp-server"}})
	}
	if len(l) == 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("OpenSSH's sftp-server is not installed")
		}
		t.Skip("OpenSSH's sftp-server is not installed")
	}
	if testing.Short() {
		return l[:1]
	}
	return l
}

func exists(path string) bool { _, err := os.Stat(path); return err == nil }

// testUID is an ordinary user, for tests that run as root.
const testUID = 65534

// A peer is a running server and the client's side of its pipes.
type peer struct {
	cmd    *exec.Cmd
	in     *os.File
	out    *os.File
	log    bytes.Buffer
	exited chan struct{}
}

// runPeer runs a server in a directory, as an ordinary user. limit is how many
// descriptors it may have, or 0.
func runPeer(t testing.TB, p program, dir string, limit int, args ...string) *peer {
	t.Helper()
	argv := append(append([]string{}, p.argv...), args...)
	if limit > 0 {
		argv = append([]string{"/usr/bin/prlimit", fmt.Sprintf("--nofile=%d:%d", limit, limit), "--"}, argv...)
	}
	r := &peer{exited: make(chan struct{})}
	var err error
	var stdin, stdout *os.File
	if stdin, r.in, err = os.Pipe(); err != nil {
		t.Fatal(err)
	}
	if r.out, stdout, err = os.Pipe(); err != nil {
		t.Fatal(err)
	}
	r.cmd = exec.Command(argv[0], argv[1:]...)
	r.cmd.Dir = dir
	r.cmd.Stdin, r.cmd.Stdout, r.cmd.Stderr = stdin, stdout, &r.log
	r.cmd.Env = append([]string{"PATH=/usr/bin:/bin", "TZ=Europe/Berlin", "USER=nobody", "HOME=/nonexistent", "SSH_CONNECTION=192.0.2.1 1 192.0.2.2 22"}, p.env...)
	r.cmd.SysProcAttr = &syscall.SysProcAttr{}
	if os.Getuid() == 0 {
		r.cmd.SysProcAttr.Credential = &syscall.Credential{Uid: testUID, Gid: testUID}
	}
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stdin.Close()
	stdout.Close()
	go func() { r.cmd.Wait(); close(r.exited) }()
	t.Cleanup(r.kill)
	return r
}

func (p *peer) kill() {
	p.in.Close()
	p.out.Close()
	select {
	case <-p.exited:
	case <-time.After(5 * time.Second):
		p.cmd.Process.Kill()
		<-p.exited
	}
}

// finish ends the input and returns the status, the last output and the log.
func (p *peer) finish() string {
	p.in.Close()
	p.out.SetReadDeadline(time.Now().Add(10 * time.Second))
	rest, err := io.ReadAll(p.out)
	if err != nil {
		p.cmd.Process.Kill()
		return "stuck: " + err.Error()
	}
	<-p.exited
	return fmt.Sprintf("%x, %v", rest, p.cmd.ProcessState)
}

var errEnded = errors.New("the server ended")

// receive reads one packet, without its length.
func (p *peer) receive() ([]byte, error) {
	p.out.SetReadDeadline(time.Now().Add(20 * time.Second))
	var n [4]byte
	if _, err := io.ReadFull(p.out, n[:]); err != nil {
		if err == io.EOF {
			err = errEnded
		}
		return nil, err
	}
	b := make([]byte, binary.BigEndian.Uint32(n[:]))
	_, err := io.ReadFull(p.out, b)
	return b, err
}

// send writes bytes as they are.
func (p *peer) send(b []byte) { p.in.Write(b) }

// packet makes a packet of a type and what follows.
func packet(typ byte, parts ...any) []byte {
	b := []byte{0, 0, 0, 0, typ}
	for _, x := range parts {
		b = put(b, x)
	}
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	return b
}

func put(b []byte, x any) []byte {
	switch v := x.(type) {
	case uint32:
		return binary.BigEndian.AppendUint32(b, v)
	case int:
		return binary.BigEndian.AppendUint32(b, uint32(v))
	case uint64:
		return binary.BigEndian.AppendUint64(b, v)
	case string:
		return append(binary.BigEndian.AppendUint32(b, uint32(len(v))), v...)
	case []byte: // as they are
		return append(b, v...)
	case attrs:
		b = binary.BigEndian.AppendUint32(b, v.flags)
		if v.flags&attrSize != 0 {
			b = put(b, v.size)
		}
		if v.flags&attrUIDGID != 0 {
			b = put(put(b, v.uid), v.gid)
		}
		if v.flags&attrPerm != 0 {
			b = put(b, v.perm)
		}
		if v.flags&attrTimes != 0 {
			b = put(put(b, v.atime), v.mtime)
		}
		if v.flags&attrExtended != 0 {
			b = put(put(put(b, 1), "name@example.com"), "value")
		}
		return b
	}
	panic(fmt.Sprintf("%T", x))
}

// h is a handle as a client sends it.
func h(i int) string {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], uint32(int32(i)))
	return string(b[:])
}

func hello() []byte { return packet(typeInit, 3) }
