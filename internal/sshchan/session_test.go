package sshchan_test

import (
	"strings"
	"testing"
)

func TestACommandHasItsOutputsAndItsStatus(t *testing.T) {
	h := newHost(t, "")
	h.want("hello\n", "", "wren@127.0.0.1", "echo hello")
	h.want("to be echoed", "to be echoed", "wren@127.0.0.1", "cat")
	out, errs, status := h.ssh("", "wren@127.0.0.1", "echo out; echo err >&2; exit 42")
	if out != "out\n" || errs != "err\n" || status != 42 {
		t.Errorf("got %q, %q, %d", out, errs, status)
	}
	if _, _, status := h.ssh("", "wren@127.0.0.1", "kill -TERM $$"); status != 255 {
		t.Errorf("killed by a signal: status %d", status)
	}
}

func TestATerminalHasTheModesAndTheName(t *testing.T) {
	h := newHost(t, "")
	out, _, _ := h.ssh("", "-tt", "wren@127.0.0.1", "tty; echo $TERM; test $(tty) = $SSH_TTY && echo same; stty -a </dev/tty")
	if !strings.HasPrefix(out, "/dev/pts/") || !strings.Contains(out, "same\r\n") || !strings.Contains(out, "speed") {
		t.Errorf("got %q", out)
	}
}
