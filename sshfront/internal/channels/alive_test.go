package channels_test

import (
	"errors"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"p9auth/sshfront/internal/channels"
)

// ended waits until the first connection has ended, and returns why.
func (h *host) ended() error {
	h.t.Helper()
	eventually(h.t, "a connection", func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return len(h.ends) > 0
	})
	select {
	case err := <-h.ends[0]:
		return err
	case <-time.After(patience):
		h.t.Fatal("the connection does not end")
		return nil
	}
}

func TestAClientThatDoesNotAnswerIsCutOff(t *testing.T) {
	t.Parallel()
	h := newHost(t, "ClientAliveInterval 1\nClientAliveCountMax 1\n")
	// One that answers is not.
	h.want("", "", wren, "sleep 3")
	<-h.ends[0]
	h.mu.Lock()
	h.ends = nil
	h.mu.Unlock()
	cmd := exec.Command("ssh", h.args("-p", wren, "echo started; sleep 600")...)
	out, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	out.Read(make([]byte, 1))
	cmd.Process.Signal(syscall.SIGSTOP)
	if err := h.ended(); !errors.Is(err, channels.ErrNotResponding) {
		t.Errorf("Serve: %v", err)
	}
	cmd.Process.Kill()
	cmd.Wait()
}

func TestAConnectionThatIsNotUsedIsCutOff(t *testing.T) {
	t.Parallel()
	h := newHost(t, "UnusedConnectionTimeout 1\n")
	h.want("", "", wren, "sleep 1.5")
	<-h.ends[0]
	h.mu.Lock()
	h.ends = nil
	h.mu.Unlock()
	if _, _, status := h.ssh("", "-N", wren); status != 255 {
		t.Errorf("ssh -N: status %d", status)
	}
	if err := h.ended(); !errors.Is(err, channels.ErrUnused) {
		t.Errorf("Serve: %v", err)
	}
}

func TestAChannelThatIsIdleIsClosed(t *testing.T) {
	t.Parallel()
	for _, conf := range []string{"ChannelTimeout session:command=2", "ChannelTimeout global=2"} {
		h := newHost(t, conf+"\n")
		h.want(strings.Repeat("x\n", 5), "", wren, "for i in 1 2 3 4 5; do sleep 0.5; echo x; done")
		if _, _, status := h.ssh("", wren, "sleep 600"); status == 0 {
			t.Errorf("%s: status %d", conf, status)
		}
		eventually(t, "the end of all connections", func() bool { return len(h.ends[1]) == 1 })
		for _, pid := range h.processes() {
			syscall.Kill(pid, syscall.SIGKILL) // without a terminal it goes on
		}
	}
}

func TestAClientIsToldWhyItsSessionFailed(t *testing.T) {
	h := newHost(t, "")
	h.broken = true
	if out, errs, status := h.ssh("", wren, "true"); out != "" || errs != "the account has expired\r\n" || status != 254 {
		t.Errorf("got %q, %q, %d", out, errs, status)
	}
	if err := h.ended(); err == nil || err.Error() != "the account has expired" {
		t.Errorf("Serve: %v", err)
	}
}
