package sshdconf

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"p9auth/internal/words"
)

const maxTime = math.MaxInt32 * time.Second

// parseTime parses the TIME FORMATS of sshd_config(5), with fractions of a
// second where fractions are allowed (PerSourcePenalties).
func parseTime(s string, fractions bool) (time.Duration, error) {
	bad := fmt.Errorf("invalid time %q", clip(s))
	var total time.Duration
	if s == "" || len(s) > 64 {
		return 0, bad
	}
	for s != "" {
		n := 0
		for n < len(s) && (s[n] >= '0' && s[n] <= '9' || s[n] == '.') {
			n++
		}
		num, unit := s[:n], time.Second
		whole, frac, dot := strings.Cut(num, ".")
		v, err := strconv.ParseUint(whole, 10, 31)
		if err != nil || dot && !fractions {
			return 0, bad
		}
		if s = s[n:]; s != "" {
			switch s[0] {
			case 's', 'S':
			case 'm', 'M':
				unit = time.Minute
			case 'h', 'H':
				unit = time.Hour
			case 'd', 'D':
				unit = 24 * time.Hour
			case 'w', 'W':
				unit = 7 * 24 * time.Hour
			default:
				return 0, bad
			}
			s = s[1:]
		}
		if dot && unit != time.Second {
			return 0, bad
		}
		if v > uint64(maxTime/unit) {
			return 0, bad
		}
		d := time.Duration(v) * unit
		if dot {
			f, err := strconv.ParseFloat("0."+frac, 64)
			if err != nil || frac == "" {
				return 0, bad
			}
			d += time.Duration(f * float64(time.Second))
		}
		if total += d; total > maxTime {
			return 0, bad
		}
	}
	return total, nil
}

// parseSize parses a number of bytes with an optional suffix K, M, G, T, P or E, and
// with one a fraction (RekeyLimit; scan_scaled(3)).
func parseSize(s string) (uint64, error) {
	digits, shift := s, 0
	if n := len(s); n > 0 {
		if i := strings.IndexByte("BKMGTPE", s[n-1]&^0x20); i >= 0 && s[n-1] > '9' {
			digits, shift = s[:n-1], 10*i
		}
	}
	digits, fraction, _ := strings.Cut(digits, ".")
	v, err := strconv.ParseUint(digits, 10, 63)
	part, err2 := strconv.ParseFloat("0."+fraction+"0", 64)
	if err != nil || err2 != nil || v >= math.MaxInt64>>shift {
		return 0, fmt.Errorf("invalid size %q", clip(s))
	}
	return v<<shift + uint64(part*float64(uint64(1)<<shift)), nil
}

// qosNames are the DSCP names of sshd_config(5) as IP_TOS bytes (RFC 2474,
// RFC 2597, RFC 3246, RFC 8622).
var qosNames = names[int]{
	{"af11", 0x28}, {"af12", 0x30}, {"af13", 0x38}, {"af21", 0x48}, {"af22", 0x50}, {"af23", 0x58},
	{"af31", 0x68}, {"af32", 0x70}, {"af33", 0x78}, {"af41", 0x88}, {"af42", 0x90}, {"af43", 0x98},
	{"cs0", 0}, {"cs1", 0x20}, {"cs2", 0x40}, {"cs3", 0x60}, {"cs4", 0x80}, {"cs5", 0xa0}, {"cs6", 0xc0}, {"cs7", 0xe0},
	{"ef", 0xb8}, {"le", 0x04}, {"none", -1},
	{"lowdelay", -1}, {"throughput", -1}, {"reliability", -1},
}

// parseQoS takes a DSCP by its name or number. A type of service, which RFC 2474
// retired, is the system's default, as with OpenSSH 10.
func parseQoS(s string) (int, error) {
	if v, err := qosNames.parse(s); err == nil {
		return v, nil
	}
	v, err := strconv.ParseUint(s, 0, 8)
	if err != nil {
		return 0, fmt.Errorf("bad DSCP %q", clip(s))
	}
	return int(v), nil
}

func qosName(v int) string {
	if n := qosNames.of(v); n != "unknown" {
		return n
	}
	return fmt.Sprintf("0x%02x", v)
}

func clip(s string) string { return words.Clip(s, 100) }
