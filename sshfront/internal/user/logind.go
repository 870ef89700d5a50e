package user

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	busAddress = "/run/dbus/system_bus_socket" // D-Bus specification, "Well-known Message Bus Instances"
	logind     = "org.freedesktop.login1"
	ownSession = "/org/freedesktop/login1/session/self"
	// busPatience bounds what a bus or a systemd-logind that hangs costs a login.
	busPatience = time.Second
	maxReply    = 64 << 10 // bytes of a message
)

// tellLogind tells systemd-logind which terminal its session has, so that w(1),
// loginctl(1) and who(1) show it. Where there is utmp, logind has read it there, by the
// worker's process id. Without utmp they would look among the children of the process that
// leads the session, which is the PAM worker here and has none. Only the user may do
// this, and root: org.freedesktop.login1(5), TakeControl and SetTTY (systemd 254). The end
// of the connection ends the control.
func tellLogind(tty *os.File) error {
	c, err := net.DialTimeout("unix", busAddress, busPatience)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(busPatience)); err != nil {
		return err
	}
	uid := hex.EncodeToString([]byte(strconv.Itoa(os.Getuid())))
	if _, err := io.WriteString(c, "\x00AUTH EXTERNAL "+uid+"\r\nNEGOTIATE_UNIX_FD\r\nBEGIN\r\n"); err != nil {
		return err
	}
	r := bufio.NewReader(c)
	for _, want := range []string{"OK ", "AGREE_UNIX_FD"} {
		l, err := r.ReadSlice('\n')
		if err != nil {
			return err
		}
		if len(l) < len(want) || string(l[:len(want)]) != want {
			return fmt.Errorf("%s: %q", busAddress, l)
		}
	}
	const bus = "org.freedesktop.DBus"
	calls := busCall(1, "/org/freedesktop/DBus", bus, bus, "Hello", "", nil)
	calls = append(calls, busCall(2, ownSession, logind, logind+".Session", "TakeControl", "b", []byte{0, 0, 0, 0})...)
	// The last one's body is the index of the descriptor.
	calls = append(calls, busCall(3, ownSession, logind, logind+".Session", "SetTTY", "h", []byte{0, 0, 0, 0})...)
	if _, _, err := c.(*net.UnixConn).WriteMsgUnix(calls, unix.UnixRights(int(tty.Fd())), nil); err != nil {
		return err
	}
	for answers := 0; answers < 3; {
		kind, err := skipMessage(r)
		if err != nil {
			return err
		}
		switch kind {
		case methodReturn:
			answers++
		case methodError:
			return fmt.Errorf("%s: refused", logind)
		}
	}
	return nil
}

// showTTY has the session's first terminal shown as its terminal. Whether that succeeds
// decides about no session.
func (u *userProcess) showTTY(tty *os.File) {
	u.shown.Do(func() {
		if !slices.ContainsFunc(u.info.Env, func(kv string) bool { return strings.HasPrefix(kv, "XDG_SESSION_ID=") }) {
			return // nobody has told logind of the session
		}
		if _, err := os.Stat("/run/utmp"); errors.Is(err, os.ErrNotExist) {
			_ = tellLogind(tty)
		}
	})
}

// Types of messages and header fields, D-Bus specification, "Message Format".
const (
	methodCall, methodReturn, methodError                                              = 1, 2, 3
	fieldPath, fieldInterface, fieldMember, fieldDestination, fieldSignature, fieldFDs = 1, 2, 3, 6, 8, 9
)

// busCall is the message of a method call. Its body is marshalled already, and has one
// descriptor with it if there is an "h" in the signature.
func busCall(serial uint32, path, destination, iface, member, signature string, body []byte) []byte {
	var fields []byte // they begin at a multiple of 8 bytes
	field := func(code byte, kind byte, value ...byte) {
		for len(fields)%8 != 0 {
			fields = append(fields, 0)
		}
		fields = append(fields, code, 1, kind, 0)
		fields = append(fields, value...)
	}
	text := func(s string) []byte {
		b := binary.LittleEndian.AppendUint32(nil, uint32(len(s)))
		return append(append(b, s...), 0)
	}
	field(fieldPath, 'o', text(path)...)
	field(fieldDestination, 's', text(destination)...)
	field(fieldInterface, 's', text(iface)...)
	field(fieldMember, 's', text(member)...)
	if signature != "" {
		field(fieldSignature, 'g', append([]byte{byte(len(signature))}, signature+"\x00"...)...)
	}
	if signature == "h" {
		field(fieldFDs, 'u', 1, 0, 0, 0)
	}
	m := []byte{'l', methodCall, 0, 1}
	m = binary.LittleEndian.AppendUint32(m, uint32(len(body)))
	m = binary.LittleEndian.AppendUint32(m, serial)
	m = binary.LittleEndian.AppendUint32(m, uint32(len(fields)))
	m = append(m, fields...)
	for len(m)%8 != 0 {
		m = append(m, 0)
	}
	return append(m, body...)
}

// skipMessage reads a message and says of what type it was.
func skipMessage(r *bufio.Reader) (kind byte, err error) {
	var h [16]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return 0, err
	}
	var order binary.ByteOrder = binary.LittleEndian
	if h[0] == 'B' {
		order = binary.BigEndian
	}
	body, fields := uint64(order.Uint32(h[4:])), uint64(order.Uint32(h[12:]))
	rest := (fields+7)/8*8 + body
	if rest > maxReply {
		return 0, fmt.Errorf("%s: a message of %d bytes", busAddress, rest)
	}
	_, err = r.Discard(int(rest))
	return h[1], err
}
