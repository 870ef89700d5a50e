package main

import (
	"os"
	"testing"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
)

// echoes tells whether a terminal shows what is typed.
func echoes(t *testing.T, f *os.File) bool {
	t.Helper()
	s, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return s.Lflag&unix.ECHO != 0
}

// A screen looks at the terminal when something is written.
type screen func(string)

func (s screen) Write(b []byte) (int, error) { s(string(b)); return len(b), nil }

func TestEchoIsOffBeforeThePasswordIsAskedFor(t *testing.T) {
	person, line, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer person.Close()
	defer line.Close()
	asked := 0
	tt := newTTY(line, screen(func(s string) {
		if s != "Password: " {
			return
		}
		asked++
		if echoes(t, line) {
			t.Error("what somebody quick types would be shown")
		}
		if _, err := person.WriteString("open-sesame\n"); err != nil {
			t.Error(err)
		}
	}))
	for range 2 {
		if !echoes(t, line) {
			t.Fatal("at first nothing is shown")
		}
		if got, err := tt.askHidden("Password: "); got != "open-sesame" || err != nil {
			t.Fatalf("%q, %v", got, err)
		}
	}
	if !echoes(t, line) || asked != 2 {
		t.Errorf("asked %d times, and then echo is %v", asked, echoes(t, line))
	}
}
