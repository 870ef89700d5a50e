package user

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// modeChars are the opcodes of control characters, RFC 4254 section 8, by
// their place in c_cc. VDSUSP, VFLUSH, VSWTCH (of System V) and VSTATUS are
// not Linux's.
var modeChars = map[byte]int{
	1: unix.VINTR, 2: unix.VQUIT, 3: unix.VERASE, 4: unix.VKILL, 5: unix.VEOF, 6: unix.VEOL, 7: unix.VEOL2,
	8: unix.VSTART, 9: unix.VSTOP, 10: unix.VSUSP, 12: unix.VREPRINT, 13: unix.VWERASE, 14: unix.VLNEXT,
	16: unix.VSWTC, 18: unix.VDISCARD,
}

// modeFlags are the opcodes of flags.
var modeFlags = map[byte]struct {
	field func(*unix.Termios) *uint32
	bit   uint32
}{
	30: {iflag, unix.IGNPAR}, 31: {iflag, unix.PARMRK}, 32: {iflag, unix.INPCK}, 33: {iflag, unix.ISTRIP},
	34: {iflag, unix.INLCR}, 35: {iflag, unix.IGNCR}, 36: {iflag, unix.ICRNL}, 37: {iflag, unix.IUCLC},
	38: {iflag, unix.IXON}, 39: {iflag, unix.IXANY}, 40: {iflag, unix.IXOFF}, 41: {iflag, unix.IMAXBEL},
	42: {iflag, unix.IUTF8}, // RFC 8160
	50: {lflag, unix.ISIG}, 51: {lflag, unix.ICANON}, 52: {lflag, unix.XCASE}, 53: {lflag, unix.ECHO},
	54: {lflag, unix.ECHOE}, 55: {lflag, unix.ECHOK}, 56: {lflag, unix.ECHONL}, 57: {lflag, unix.NOFLSH},
	58: {lflag, unix.TOSTOP}, 59: {lflag, unix.IEXTEN}, 60: {lflag, unix.ECHOCTL}, 61: {lflag, unix.ECHOKE},
	62: {lflag, unix.PENDIN},
	70: {oflag, unix.OPOST}, 71: {oflag, unix.OLCUC}, 72: {oflag, unix.ONLCR}, 73: {oflag, unix.OCRNL},
	74: {oflag, unix.ONOCR}, 75: {oflag, unix.ONLRET},
	92: {cflag, unix.PARENB}, 93: {cflag, unix.PARODD},
}

func iflag(t *unix.Termios) *uint32 { return &t.Iflag }
func oflag(t *unix.Termios) *uint32 { return &t.Oflag }
func cflag(t *unix.Termios) *uint32 { return &t.Cflag }
func lflag(t *unix.Termios) *uint32 { return &t.Lflag }

// Opcodes of modes that are neither.
const (
	modeEnd    = 0
	modeCS7    = 90
	modeCS8    = 91
	modeISpeed = 128
	modeOSpeed = 129
	modeNoArg  = 160 // and above: not defined, and parsing stops
)

var speeds = map[uint32]uint32{
	0: unix.B0, 50: unix.B50, 75: unix.B75, 110: unix.B110, 134: unix.B134, 150: unix.B150, 200: unix.B200,
	300: unix.B300, 600: unix.B600, 1200: unix.B1200, 1800: unix.B1800, 2400: unix.B2400, 4800: unix.B4800,
	9600: unix.B9600, 19200: unix.B19200, 38400: unix.B38400, 57600: unix.B57600, 115200: unix.B115200,
	230400: unix.B230400, 460800: unix.B460800, 921600: unix.B921600,
}

// setModes changes t as the encoded modes say, RFC 4254 section 8. Opcodes
// that are unknown or have no meaning here are passed over, as is what is cut
// off at the end.
func setModes(t *unix.Termios, modes []byte) {
	for len(modes) >= 5 {
		op, v := modes[0], binary.BigEndian.Uint32(modes[1:])
		modes = modes[5:]
		if op == modeEnd || op >= modeNoArg {
			return
		}
		if i, ok := modeChars[op]; ok {
			t.Cc[i] = byte(v) // 255, which means disabled, too: 0 is Linux's
			if v == 255 {
				t.Cc[i] = 0
			}
			continue
		}
		if f, ok := modeFlags[op]; ok {
			if v == 0 {
				*f.field(t) &^= f.bit
			} else {
				*f.field(t) |= f.bit
			}
			continue
		}
		switch op {
		case modeCS7, modeCS8:
			if v != 0 {
				bits := uint32(unix.CS7)
				if op == modeCS8 {
					bits = unix.CS8
				}
				t.Cflag = t.Cflag&^unix.CSIZE | bits
			}
		case modeISpeed, modeOSpeed:
			b, ok := speeds[v]
			if !ok {
				continue
			}
			if op == modeISpeed {
				t.Ispeed = b
			} else {
				t.Cflag = t.Cflag&^unix.CBAUD | b
				t.Ospeed = b
			}
		}
	}
}
