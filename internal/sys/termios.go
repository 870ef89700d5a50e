package sys

import "golang.org/x/sys/unix"

// GetTermios reads the settings of a terminal, until no signal interrupts it. It fails
// for what is no terminal.
func GetTermios(fd int) (t *unix.Termios, err error) {
	err = Again(func() (err error) { t, err = unix.IoctlGetTermios(fd, unix.TCGETS); return err })
	return t, err
}

// SetTermios changes the settings of a terminal at once, until no signal interrupts it.
func SetTermios(fd int, t *unix.Termios) error {
	return Again(func() error { return unix.IoctlSetTermios(fd, unix.TCSETS, t) })
}
