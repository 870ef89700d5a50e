package status

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"p9auth/internal/sys"
)

// Bounds of a socket.
const (
	maxViewers = 8 // at a time
	viewerTime = 5 * time.Second
	maxRequest = 4 << 10 // bytes of an HTTP request
	maxStatus  = 1 << 20 // bytes of the status
)

// Listen makes a unix socket of mode 0600 at path, and has serve answer whoever
// connects as the user that this process is: root. The folder is made if it is
// missing: where systemd holds the rpc socket and the kernel has the capability
// files, nobody else makes /run/factotum.
func Listen(path string, log *slog.Logger, serve func(net.Conn)) (io.Closer, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		ln.Close()
		return nil, err
	}
	go accept(ln, log, serve)
	return ln, nil
}

func accept(ln *net.UnixListener, log *slog.Logger, serve func(net.Conn)) {
	free := make(chan struct{}, maxViewers)
	for {
		c, err := ln.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			log.Error("accept", "socket", ln.Addr().String(), "error", err.Error())
			time.Sleep(time.Second)
			continue
		}
		// Anyone who connected before the chmod is turned away here.
		if peer, err := sys.PeerCred(c); err != nil || int(peer.Uid) != os.Geteuid() {
			c.Close()
			continue
		}
		c.SetDeadline(time.Now().Add(viewerTime))
		free <- struct{}{}
		go func() {
			defer func() { c.Close(); <-free }()
			serve(c)
		}()
	}
}

// AnswerHTTP answers a request of HTTP/1.0 or 1.1 (RFC 9112) with text, whatever
// it asks for.
func AnswerHTTP(c net.Conn, text func() string) {
	r := bufio.NewReader(io.LimitReader(c, maxRequest))
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		if strings.TrimRight(line, "\r\n") == "" {
			break
		}
	}
	body := text()
	fmt.Fprintf(c, "HTTP/1.0 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len(body), body)
}

// Show copies to w what the factotum says that answers at the socket.
func Show(w io.Writer, socket string) error {
	c, err := net.DialTimeout("unix", socket, viewerTime)
	switch {
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("only root may ask for the status: %w", err)
	case err != nil:
		return fmt.Errorf("factotum is not running (no answer at %s); start it", socket)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(viewerTime))
	_, err = io.Copy(w, io.LimitReader(c, maxStatus))
	return err
}
