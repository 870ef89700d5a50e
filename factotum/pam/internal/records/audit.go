package records

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// auditUserLogin is AUDIT_USER_LOGIN of linux/audit.h.
const auditUserLogin = 1112

// sendAudit sends a record to the kernel's audit: netlink(7), linux/audit.h. libpam
// sends the others of a login (USER_AUTH, USER_ACCT, USER_START, USER_END). The
// error is EPROTONOSUPPORT for a kernel without audit.
func sendAudit(typ uint16, text string) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_AUDIT)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	patience := unix.NsecToTimeval(int64(time.Second))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &patience); err != nil {
		return err
	}
	b := make([]byte, unix.NLMSG_HDRLEN, unix.NLMSG_HDRLEN+len(text)+4)
	b = append(b, text...)
	b = append(b, 0)
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	binary.NativeEndian.PutUint16(b[4:], typ)
	binary.NativeEndian.PutUint16(b[6:], unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	binary.NativeEndian.PutUint32(b[8:], 1)
	for len(b)%unix.NLMSG_ALIGNTO != 0 {
		b = append(b, 0)
	}
	if err := unix.Sendto(fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	answer := make([]byte, 1024)
	n, _, err := unix.Recvfrom(fd, answer, 0)
	if err != nil {
		return err
	}
	if n < unix.NLMSG_HDRLEN+4 || binary.NativeEndian.Uint16(answer[4:]) != unix.NLMSG_ERROR {
		return fmt.Errorf("the kernel's answer of %d bytes is not an acknowledgement", n)
	}
	if e := int32(binary.NativeEndian.Uint32(answer[unix.NLMSG_HDRLEN:])); e != 0 {
		return unix.Errno(-e)
	}
	return nil
}

// auditText is a record in the form of audit_log_acct_message(3).
func auditText(who, exe, tty, rhost, res string) string {
	or := func(s string) string {
		if s == "" {
			return "?"
		}
		return s
	}
	addr := rhost
	if !strings.ContainsAny(addr, ".:") || auditString(addr)[0] != '"' {
		addr = ""
	}
	return fmt.Sprintf("op=login %s exe=%q hostname=? addr=%s terminal=%s res=%s", who, exe, or(addr), or(strings.TrimPrefix(tty, "/dev/")), res)
}

// auditString writes a value that a stranger chose as audit_encode_nv_string(3)
// does: quoted, or in hexadecimal if it could be taken for something else.
func auditString(s string) string {
	for _, c := range []byte(s) {
		if c == '"' || c <= ' ' || c >= 0x7f {
			return hex.EncodeToString([]byte(s))
		}
	}
	return `"` + s + `"`
}
