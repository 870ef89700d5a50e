package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"
)

// patience is how long anything in the guest may take, its boot included.
var patience = 5 * time.Minute

// A machine is the guest, with a person at its serial console.
type machine struct {
	qemu   *exec.Cmd
	serial net.Conn
	ssh    string // the address of its port 22, here

	mu   sync.Mutex
	seen bytes.Buffer
	new  chan struct{}
	n    int // commands that sh has run
}

// start boots the guest with some words more on its kernel's command line.
func start(dir string, verbose bool, words string) (*machine, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	m := &machine{ssh: l.Addr().String(), new: make(chan struct{}, 1)}
	l.Close()
	sock := filepath.Join(dir, "ttyS0")
	os.Remove(sock)
	m.qemu = exec.Command("qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max,cx16=off", "-smp", "2", "-m", "1024",
		"-nodefaults", "-display", "none",
		"-chardev", "socket,id=s0,server=on,wait=on,path="+sock, "-serial", "chardev:s0",
		"-drive", "file="+filepath.Join(dir, "disk")+",if=virtio,format=raw,cache=unsafe",
		"-netdev", "user,id=n0,restrict=on,hostfwd=tcp:"+m.ssh+"-10.0.2.15:22", "-device", "virtio-net-pci,netdev=n0",
		"-device", "virtio-rng-pci",
		"-kernel", filepath.Join(dir, "vmlinuz"), "-initrd", filepath.Join(dir, "initrd"),
		"-append", "root=/dev/vda rw console=ttyS0 net.ifnames=0 panic=-1 no_timer_check loglevel=3 audit=1 systemd.show_status=false "+words)
	m.qemu.Stderr = os.Stderr
	if err := m.qemu.Start(); err != nil {
		return nil, err
	}
	for range 100 {
		if m.serial, err = net.Dial("unix", sock); err == nil {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if err != nil {
		m.qemu.Process.Kill()
		m.qemu.Wait()
		return nil, err
	}
	log, err := os.OpenFile(filepath.Join(dir, "console"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	go func() {
		b := make([]byte, 4096)
		for {
			n, err := m.serial.Read(b)
			log.Write(b[:n])
			if verbose {
				os.Stdout.Write(b[:n])
			}
			m.mu.Lock()
			m.seen.Write(bytes.ReplaceAll(b[:n], []byte("\r"), nil))
			m.mu.Unlock()
			select {
			case m.new <- struct{}{}:
			default:
			}
			if err != nil {
				return
			}
		}
	}()
	return m, nil
}

func (m *machine) stop() {
	m.qemu.Process.Kill()
	m.qemu.Wait()
}

func (m *machine) send(s string) { io.WriteString(m.serial, s) }

// escapes are what a terminal would not show.
var escapes = regexp.MustCompile(`\x1b(\[[0-9;?]*[A-Za-z]|\][^\a]*\a)`)

// expect waits until the console shows what the regular expression matches,
// and takes all up to there. Where it does not come, nothing goes on.
func (m *machine) expect(re string) string {
	x := regexp.MustCompile(re)
	for limit := time.After(patience); ; {
		m.mu.Lock()
		text := escapes.ReplaceAllString(m.seen.String(), "")
		if loc := x.FindStringIndex(text); loc != nil {
			m.seen.Reset()
			m.seen.WriteString(text[loc[1]:])
			m.mu.Unlock()
			return text[:loc[0]]
		}
		m.mu.Unlock()
		select {
		case <-m.new:
		case <-limit:
			failed++
			fmt.Printf("  FAIL the console does not show %s; the last of it:\n%s\n", re, tail(text))
			summary()
		}
	}
}

func tail(s string) string {
	if len(s) > 1500 {
		s = s[len(s)-1500:]
	}
	return s
}

// login waits for the prompt for a name, and logs in there.
func (m *machine) login(user, prompt string) error {
	m.expect(`p9vm login: $`)
	m.send(user + "\n")
	m.expect(`Password: $`)
	m.send(password + "\n")
	m.expect(prompt)
	m.plain()
	return nil
}

// plain makes a shell one that sh can use: with a plain prompt, no echo, and nothing of
// the terminal's width.
func (m *machine) plain() {
	m.send("stty -echo; export SYSTEMD_PAGER=cat; PS1=; PROMPT_COMMAND=; bind 'set enable-bracketed-paste off' 2>/dev/null\n")
	m.sh("true")
}

// sh runs a command line at the console and returns what it prints.
func (m *machine) sh(command string) string {
	m.n++
	m.send(fmt.Sprintf("%s\necho \"<<\"%d\">>\"\n", command, m.n))
	return strings.TrimSpace(m.expect(fmt.Sprintf("<<%d>>\n", m.n)))
}

func (m *machine) logout() { m.send("exit\n") }
