package user

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"p9auth/internal/sshdconf"
	"p9auth/sshfront/internal/userlink"
)

const (
	maxDisplays = 1000
	x11Port     = 6000
)

// A display is where X11 programs of a session connect.
type display struct {
	display  string // $DISPLAY
	authName string // the display in xauth's words
	proto    string // of authentication
	cookie   string
}

// x11 answers the request: RFC 4254 section 6.3.1; session.c,
// session_setup_x11fwd.
func (u *userProcess) x11(id uint32, r userlink.ForwardX11) error {
	set := &u.info.Settings
	opt := u.info.options()
	if set.MaxSessions == 0 || !set.X11Forwarding || set.DisableForwarding || !opt.X11Forwarding {
		return userlink.Prohibitedf("X11 forwarding is not permitted")
	}
	if _, err := os.Stat(set.XAuthLocation); err != nil {
		return userlink.Failedf("no xauth program; cannot forward X11")
	}
	if !xauthWord(r.Proto) || !xauthWord(r.Cookie) {
		return userlink.Failedf("the X11 authentication data is malformed")
	}
	g, host := sshdconf.GatewayNo, "localhost"
	if !set.X11UseLocalhost {
		var err error
		g = sshdconf.GatewayYes
		if host, err = os.Hostname(); err != nil {
			return err
		}
	}
	sockets, n, err := listenDisplay(bindHosts("", g, set.AddressFamily), set.X11DisplayOffset)
	if err != nil {
		return err
	}
	number := fmt.Sprintf("%d.%d", n, r.Screen)
	d := &display{display: host + ":" + number, authName: host + ":" + number, proto: r.Proto, cookie: r.Cookie}
	if set.X11UseLocalhost {
		d.authName = "unix:" + number
	}
	l := newListener(sockets...)
	l.single, l.x11 = r.Single, d
	return u.add(id, l)
}

// listenDisplay takes the first display from offset on that is free.
func listenDisplay(hosts []string, offset int) ([]net.Listener, int, error) {
	for n := offset; n < offset+maxDisplays && x11Port+n <= 65535; n++ {
		ls, _, err := listenTCP(hosts, x11Port+n)
		if err == nil {
			return ls, n, nil
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			return nil, 0, userlink.Failedf("%v", err)
		}
	}
	return nil, 0, userlink.Failedf("no X11 display is free")
}

// xauthWord reports whether s is safe to be a word of xauth's input.
func xauthWord(s string) bool {
	return s != "" && len(s) <= 1024 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.:/-_") == ""
}

func pause() <-chan time.Time { return time.After(100 * time.Millisecond) }
