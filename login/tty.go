package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"p9auth/capproto"
	"p9auth/internal/sys"
)

// A tty is the terminal that the person sits at.
type tty struct {
	in    *os.File
	r     *bufio.Reader
	out   io.Writer
	saved *term.State // as it was when we came

	timer *time.Timer
}

// maxLine bounds what a person may type.
const maxLine = 4096

func newTTY(in *os.File, out io.Writer) *tty {
	t := &tty{in: in, out: out, r: bufio.NewReaderSize(in, maxLine)}
	sys.Again(func() (err error) { t.saved, err = term.GetState(int(in.Fd())); return err })
	return t
}

// isTerminal is isatty(3).
func isTerminal(fd int) bool {
	_, err := sys.GetTermios(fd)
	return err == nil
}

// giveUpAfter ends the process when the person takes too long.
func (t *tty) giveUpAfter(d time.Duration) (stop func()) {
	t.timer = time.AfterFunc(d, func() {
		t.restore()
		fmt.Fprintf(t.out, "\nLogin timed out after %d seconds.\n", int(d.Seconds()))
		os.Exit(0)
	})
	return t.done
}

// done says that the person is in.
func (t *tty) done() {
	if t.timer != nil {
		t.timer.Stop()
	}
}

func (t *tty) restore() {
	if t.saved != nil {
		term.Restore(int(t.in.Fd()), t.saved)
	}
}

func (t *tty) print(s string) { io.WriteString(t.out, s) }

// flush forgets what was typed ahead.
func (t *tty) flush() {
	unix.IoctlSetInt(int(t.in.Fd()), unix.TCFLSH, unix.TCIFLUSH)
}

// ask asks a question and reads the answer.
func (t *tty) ask(question string) (string, error) {
	t.print(question)
	line, err := t.r.ReadSlice('\n')
	defer clear(line)
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return "", errors.New("the line is too long")
	case err != nil:
		return "", errors.New("the line was hung up")
	}
	return strings.TrimRight(string(line), "\r\n"), nil
}

// askHidden asks with echo off, which it is before the question is seen: who is
// quick must not have the answer on the screen. What was typed ahead counts.
func (t *tty) askHidden(question string) (string, error) {
	fd := int(t.in.Fd())
	shown, err := sys.GetTermios(fd)
	if err != nil {
		return "", fmt.Errorf("the terminal: %w", err)
	}
	hidden := *shown
	hidden.Lflag &^= unix.ECHO
	hidden.Lflag |= unix.ICANON | unix.ISIG
	hidden.Iflag |= unix.ICRNL
	if err := sys.SetTermios(fd, &hidden); err != nil {
		return "", fmt.Errorf("the terminal: %w", err)
	}
	defer sys.SetTermios(fd, shown)
	answer, err := t.ask(question)
	if err == nil {
		t.print("\n")
	}
	return answer, err
}

// say is the person's side of the PAM conversation.
func (t *tty) say(p capproto.Prompt) (string, error) {
	switch p.Style {
	case capproto.EchoOn:
		return t.ask(p.Text)
	case capproto.EchoOff:
		return t.askHidden(p.Text)
	}
	text := p.Text
	if text != "" && !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	t.print(text)
	return "", nil
}
