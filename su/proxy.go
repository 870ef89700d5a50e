package main

import (
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// A proxy is the terminal of su -P, which lies between ours and the child's: the child
// can neither type into ours (TIOCSTI) nor keep it when su has ended. The nil proxy is
// none.
type proxy struct {
	master, slave *os.File
	saved         *term.State // of our terminal, nil if standard input is none
	output        chan struct{}
}

// newProxy makes the terminal and gives it to the command.
func newProxy(cmd *exec.Cmd) (*proxy, error) {
	master, slave, err := pty.Open()
	if err != nil {
		return nil, err
	}
	p := &proxy{master: master, slave: slave, output: make(chan struct{})}
	settings, err := unix.IoctlGetTermios(0, unix.TCGETS)
	if err == nil {
		pty.InheritSize(os.Stdin, master)
	} else if settings, err = unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS); err == nil {
		settings.Lflag &^= unix.ECHO
	}
	if err == nil {
		err = unix.IoctlSetTermios(int(slave.Fd()), unix.TCSETS, settings)
	}
	if err != nil {
		return nil, err
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	return p, nil
}

// start passes on what is typed and shown, and the size of the window.
func (p *proxy) start() {
	if p == nil {
		return
	}
	p.slave.Close()
	p.resume()
	sizes := make(chan os.Signal, 1)
	signal.Notify(sizes, syscall.SIGWINCH)
	go func() {
		for range sizes {
			pty.InheritSize(os.Stdin, p.master)
		}
	}()
	go func() {
		io.Copy(p.master, os.Stdin)
		p.master.Write([]byte{4}) // the end of the input, as it is typed
	}()
	go func() {
		io.Copy(os.Stdout, p.master)
		close(p.output)
	}()
}

// pause gives our terminal its settings back, while su is stopped.
func (p *proxy) pause() {
	if p != nil && p.saved != nil {
		term.Restore(0, p.saved)
	}
}

// resume passes each key on as it is typed.
func (p *proxy) resume() {
	if p != nil {
		p.saved, _ = term.MakeRaw(0)
	}
}

// end shows what is left to show and gives our terminal back.
func (p *proxy) end() {
	if p == nil {
		return
	}
	select {
	case <-p.output:
	case <-time.After(200 * time.Millisecond): // somebody else has the terminal still
	}
	p.pause()
}
