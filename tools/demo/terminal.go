package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/creack/pty"
	"golang.org/x/term"
)

// patience is how long the demo waits for what must come.
const patience = 30 * time.Second

// A terminal is a pty, with a program on it that leads a session of its own.
type terminal struct {
	cmd  *exec.Cmd
	pty  *os.File
	name string      // of the program's side
	out  chan []byte // what the program writes; closed when the line is hung up
	echo io.Writer   // gets what was expected, for the transcript
	seen string      // came, but was not expected yet
}

// start starts a command on a terminal.
func start(cmd *exec.Cmd) (*terminal, error) {
	p, tty, err := pty.Open()
	if err != nil {
		return nil, err
	}
	defer tty.Close()
	pty.Setsize(p, &pty.Winsize{Rows: 24, Cols: 80})
	t := &terminal{cmd: cmd, pty: p, name: tty.Name(), out: make(chan []byte), echo: io.Discard}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		p.Close()
		return nil, err
	}
	go t.read()
	return t, nil
}

func (t *terminal) read() {
	defer close(t.out)
	for {
		b := make([]byte, 4096)
		n, err := t.pty.Read(b)
		if err != nil {
			return
		}
		t.out <- b[:n]
	}
}

// close hangs up and waits for the program.
func (t *terminal) close() {
	t.pty.Close()
	t.cmd.Process.Kill()
	for range t.out {
	}
	t.cmd.Wait()
}

// pid is the process that was started, whatever it has executed since.
func (t *terminal) pid() int { return t.cmd.Process.Pid }

// send types something.
func (t *terminal) send(s string) { io.WriteString(t.pty, s) }

// expect waits until what the program writes ends with suffix, and returns
// it, with lines that end as in a file.
func (t *terminal) expect(ctx context.Context, suffix string) (string, error) {
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for !strings.HasSuffix(t.seen, suffix) {
		select {
		case b, ok := <-t.out:
			if !ok {
				return "", fmt.Errorf("the line was hung up before %q came; there was %q", suffix, t.seen)
			}
			t.seen += string(b)
		case <-timeout.C:
			return "", fmt.Errorf("%q did not come; there was %q", suffix, t.seen)
		case <-ctx.Done():
			return "", errors.New("interrupted")
		}
	}
	return t.flush(), nil
}

// flush passes on what has come.
func (t *terminal) flush() string {
	s := strings.ReplaceAll(t.seen, "\r", "")
	t.seen = ""
	io.WriteString(t.echo, s)
	return s
}

// drain shows what the program still writes, until it ends.
func (t *terminal) drain(ctx context.Context) error {
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	defer t.flush()
	for {
		select {
		case b, ok := <-t.out:
			if !ok {
				return nil
			}
			t.seen += string(b)
		case <-timeout.C:
			return errors.New("the shell does not end")
		case <-ctx.Done():
			return errors.New("interrupted")
		}
	}
}

// typed is what the person types. One goroutine reads it until the demo ends,
// as a read of a terminal cannot be taken back.
var typed = sync.OnceValue(func() <-chan []byte {
	c := make(chan []byte)
	go func() {
		defer close(c)
		for {
			b := make([]byte, 1024)
			n, err := os.Stdin.Read(b)
			if err != nil {
				return
			}
			c <- b[:n]
		}
	}()
	return c
})

// attach connects our own terminal until the program has ended, or the person
// has typed Ctrl-].
func (t *terminal) attach(ctx context.Context) error {
	const escape = 0x1d
	old, err := term.MakeRaw(0)
	if err != nil {
		return err
	}
	defer term.Restore(0, old)

	resized := make(chan os.Signal, 1)
	resized <- syscall.SIGWINCH
	signal.Notify(resized, syscall.SIGWINCH)
	defer signal.Stop(resized)

	for {
		select {
		case b, ok := <-typed():
			if !ok || bytes.IndexByte(b, escape) >= 0 {
				return nil
			}
			t.pty.Write(b)
		case b, ok := <-t.out:
			if !ok {
				return nil
			}
			os.Stdout.Write(b)
		case <-resized:
			pty.InheritSize(os.Stdin, t.pty)
		case <-ctx.Done():
			return errors.New("interrupted")
		}
	}
}
