package user

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"
)

// busPatience bounds what a bus or a systemd-logind that hangs costs a login.
const busPatience = time.Second

// tellLogind tells systemd-logind which terminal its session has, so that w(1),
// loginctl(1) and who(1) show it. Where there is utmp, logind has read it there, by the
// worker's process id. Without utmp they would look among the children of the process that
// leads the session, which is the PAM worker here and has none. Only the user may do
// this, and root: org.freedesktop.login1(5), TakeControl and SetTTY (systemd 254). The end
// of the connection ends the control.
func tellLogind(tty *os.File) error {
	ctx, cancel := context.WithTimeout(context.Background(), busPatience)
	defer cancel()
	bus, err := dbus.ConnectSystemBus(dbus.WithContext(ctx))
	if err != nil {
		return err
	}
	defer bus.Close()
	session := bus.Object("org.freedesktop.login1", "/org/freedesktop/login1/session/self")
	if err := session.CallWithContext(ctx, "org.freedesktop.login1.Session.TakeControl", 0, false).Err; err != nil {
		return err
	}
	return session.CallWithContext(ctx, "org.freedesktop.login1.Session.SetTTY", 0, dbus.UnixFD(tty.Fd())).Err
}

// showTTY has a terminal shown as the session's, unless another one is that is still there.
// Whether that succeeds decides about no session.
func (u *userProcess) showTTY(p *ptyPair) {
	if !slices.ContainsFunc(u.info.Env, func(kv string) bool { return strings.HasPrefix(kv, "XDG_SESSION_ID=") }) {
		return // nobody has told logind of the session
	}
	if _, err := os.Stat("/run/utmp"); errors.Is(err, os.ErrNotExist) && u.shown.CompareAndSwap(nil, p) {
		_ = tellLogind(p.slave)
	}
}
