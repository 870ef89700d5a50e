package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"p9auth/test/testbed"
)

// aPut is a client in the middle of a put by sftp, which counts what the server has
// acknowledged: ssh, and the packets of draft-ietf-secsh-filexfer-02 on its pipes.
type aPut struct {
	*exec.Cmd
	in   io.WriteCloser
	out  io.ReadCloser
	told []bool // by number of the write: the server said that it was written
}

const (
	pieceSize = 32000
	pieces    = 1500
)

// piece is what the write i has.
func piece(i int) []byte { return bytes.Repeat([]byte{byte(i*7 + i/251)}, pieceSize) }

// send sends a packet: its type, and what follows.
func (p *aPut) send(typ byte, parts ...any) error {
	b := []byte{0, 0, 0, 0, typ}
	for _, x := range parts {
		switch v := x.(type) {
		case int:
			b = binary.BigEndian.AppendUint32(b, uint32(v))
		case int64:
			b = binary.BigEndian.AppendUint64(b, uint64(v))
		case []byte:
			b = append(binary.BigEndian.AppendUint32(b, uint32(len(v))), v...)
		}
	}
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	_, err := p.in.Write(b)
	return err
}

func (p *aPut) receive() ([]byte, error) {
	var n [4]byte
	if _, err := io.ReadFull(p.out, n[:]); err != nil {
		return nil, err
	}
	b := make([]byte, min(binary.BigEndian.Uint32(n[:]), 1<<18))
	_, err := io.ReadFull(p.out, b)
	return b, err
}

// put begins to write the file put of alice's, and calls fault when the server has
// acknowledged some of it. The result is what it had acknowledged in the end, by number.
func (p *aPut) put(t *testing.T, fault func()) {
	t.Helper()
	var stderr bytes.Buffer
	p.Stderr = &stderr
	p.in, _ = p.StdinPipe()
	p.out, _ = p.StdoutPipe()
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	const write, create, truncate = 2, 8, 16
	p.send(1, 3)
	_, err := p.receive()
	p.send(3, 0, []byte("put"), write|create|truncate, 0)
	opened, err2 := p.receive()
	if err != nil || err2 != nil || len(opened) < 9 || opened[0] != 102 {
		t.Fatalf("no file is opened: %v, %v, %q: %s", err, err2, opened, &stderr)
	}
	go func() {
		for i := range pieces {
			if p.send(6, i, opened[9:], int64(i)*pieceSize, piece(i)) != nil {
				return
			}
		}
	}()
	p.told = make([]bool, pieces)
	for n := 0; n < pieces; {
		r, err := p.receive()
		if err != nil {
			return
		}
		if len(r) < 9 || r[0] != 101 || binary.BigEndian.Uint32(r[5:]) != 0 {
			t.Fatalf("a write is answered by %q", r)
		}
		p.told[binary.BigEndian.Uint32(r[1:])] = true
		if n++; n == 100 {
			fault()
		}
	}
	t.Error("the put has ended; nothing broke")
}

// TestWhatWasAcknowledgedIsThereAfterAPutBreaksOff breaks off puts by sftp, each in
// another way, with sshfront and with sshd's internal-sftp: what the server had
// acknowledged is in the file, and no process of the session is left. The client is at the
// end of a line of its own, which can be cut.
func TestWhatWasAcknowledgedIsThereAfterAPutBreaksOff(t *testing.T) {
	need(t, "ssh", "ip")
	s := newSite(t)
	const conf = "Subsystem sftp internal-sftp\nClientAliveInterval 1\nClientAliveCountMax 2\n"
	s.Configure(t, conf)
	id := os.Getpid()
	ns, here, there := fmt.Sprintf("p9auth-%d", id), fmt.Sprintf("p9h%d", id), fmt.Sprintf("p9t%d", id)
	address, farEnd := fmt.Sprintf("198.18.%d.1", id%250), fmt.Sprintf("198.18.%d.2", id%250)
	sh := func(script string) {
		t.Helper()
		if out, err := exec.Command("sh", "-ec", script).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", script, err, out)
		}
	}
	t.Cleanup(func() { exec.Command("ip", "netns", "del", ns).Run(); exec.Command("ip", "link", "del", here).Run() })
	sh(fmt.Sprintf("ns=%s here=%s there=%s address=%s theirs=%s", ns, here, there, address, farEnd) + `
		ip netns add $ns; ip link add $here type veth peer name $there netns $ns
		ip addr add $address/30 dev $here; ip link set $here up; ip -n $ns addr add $theirs/30 dev $there; ip -n $ns link set $there up`)
	sshd, _ := s.sshd(t, "ListenAddress "+address+"\nHostKey /etc/ssh/ssh_host_ed25519_key\n"+conf)
	before := s.all()
	fresh := func() []int {
		return slices.DeleteFunc(s.all(), func(pid int) bool { return slices.Contains(before, pid) })
	}
	// kill kills the process of the session whose command line has the word.
	kill := func(word string) {
		n := 0
		for _, pid := range fresh() {
			if cmd, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); strings.Contains(strings.ReplaceAll(string(cmd), "\x00", " "), word) {
				n++
				syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		if n != 1 {
			t.Errorf("%d processes are killed for %q", n, word)
		}
	}
	killClient := func(p *aPut) { p.Process.Kill() }
	lose := func(p *aPut) {
		sh("ip link set " + here + " down")
		// ssh would wait for long; what was on its way to it is lost.
		if !testbed.Eventually(func() bool { return len(fresh()) == 0 }) {
			t.Error("the server waits for a client that is gone")
		}
		p.Process.Kill()
	}
	for _, c := range []struct {
		name, port string
		fault      func(p *aPut)
	}{
		{"the client is killed", s.port, killClient},
		{"the file server is killed", s.port, func(*aPut) { kill("sshfront sftp") }},
		{"the connection process is killed", s.port, func(*aPut) { kill(" connection") }},
		{"the user process is killed", s.port, func(*aPut) { kill("alice user") }},
		{"the line is lost", s.port, lose},
		{"the client of sshd is killed", sshd, killClient},
		{"the file server of sshd is killed", sshd, func(*aPut) { kill("alice@internal-sftp") }},
		{"the connection process of sshd is killed", sshd, func(*aPut) { kill("alice@notty") }},
		{"the line to sshd is lost", sshd, lose},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := &aPut{Cmd: exec.Command("ip", append([]string{"netns", "exec", ns, "ssh"}, append(strings.Fields(s.options()), "-p", c.port, "-s", "alice@"+address, "sftp")...)...)}
			p.put(t, func() { c.fault(p) })
			p.Process.Kill()
			p.Wait()
			if !testbed.Eventually(func() bool { return len(fresh()) == 0 }) {
				t.Errorf("there is still: %v", s.Processes())
			}
			data, err := os.ReadFile(fmt.Sprintf("/proc/%d/root/home/alice/put", s.Pids("factotum")[0]))
			if err != nil {
				t.Fatal(err)
			}
			acknowledged := 0
			for i, told := range p.told {
				if !told {
					continue
				}
				acknowledged++
				if at := i * pieceSize; len(data) < at+pieceSize || !bytes.Equal(data[at:at+pieceSize], piece(i)) {
					t.Fatalf("write %d was acknowledged, and is not in the file of %d bytes", i, len(data))
				}
			}
			t.Logf("%d writes were acknowledged, and are there; the file has %d of %d", acknowledged, len(data)/pieceSize, pieces)
			sh("ip link set " + here + " up")
		})
	}
}
