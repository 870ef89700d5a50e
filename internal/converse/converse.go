// Package converse is the person's side of a PAM conversation in a program that is
// called at a terminal or in a script: misc_conv(3) of Linux-PAM, which su(1) and
// passwd(1) have elsewhere.
//
// It runs as whoever calls the program, trusts the terminal, and holds what the
// person types no longer than it takes to pass it on.
package converse

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"

	"p9auth/capproto"
)

// maxLine bounds what a person may type, in bytes: PAM_MAX_RESP_SIZE.
const maxLine = 512

// Say shows what PAM says, and reads the answer if it is a question: from standard
// input, which need not be a terminal. Questions and errors go to standard error. The error is
// capproto.ErrNoAnswer at the end of the input.
func Say(p capproto.Prompt) (string, error) {
	switch p.Style {
	case capproto.EchoOn, capproto.EchoOff:
		return Ask(os.Stdin, os.Stderr, p.Text, p.Style == capproto.EchoOff)
	case capproto.Failure:
		fmt.Fprintln(os.Stderr, p.Text)
	default:
		fmt.Println(p.Text)
	}
	return "", nil
}

// Ask asks a question, in or out being the terminal or what is in its place. What was
// typed before the question counts for nothing. A signal that ends the program does so
// when the terminal shows again what is typed; it does not stop the program meanwhile.
func Ask(in *os.File, out io.Writer, question string, hide bool) (string, error) {
	fd := int(in.Fd())
	shown, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil { // not a terminal
		fmt.Fprint(out, question)
		return readLine(in)
	}
	during := *shown
	if hide {
		during.Lflag &^= unix.ECHO
	}
	restore := func() {
		unix.IoctlSetTermios(fd, unix.TCSETSW, shown)
		if hide {
			fmt.Fprintln(out)
		}
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGTSTP)
	done := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case s := <-signals:
				if s == syscall.SIGTSTP {
					continue
				}
				restore()
				signal.Reset(s)
				syscall.Kill(os.Getpid(), s.(syscall.Signal))
			case <-done:
				return
			}
		}
	}()
	defer func() {
		signal.Stop(signals)
		close(done)
		<-ended
	}()
	if err := unix.IoctlSetTermios(fd, unix.TCSETSF, &during); err != nil {
		return "", fmt.Errorf("the terminal: %w", err)
	}
	defer restore()
	fmt.Fprint(out, question)
	return readLine(in)
}

// readLine reads one line and not a byte more: the next one may be for another
// program.
func readLine(r io.Reader) (string, error) {
	line := make([]byte, 0, maxLine)
	defer func() { clear(line) }()
	b := []byte{0}
	for {
		n, err := r.Read(b)
		switch {
		case n == 1 && b[0] == '\n', n == 0 && err == io.EOF && len(line) > 0:
			return string(line), nil
		case n == 1 && len(line) == maxLine:
			return "", errors.New("the line is too long")
		case n == 1:
			line = append(line, b[0])
		case err == io.EOF:
			return "", capproto.ErrNoAnswer
		case err != nil:
			return "", err
		}
	}
}
