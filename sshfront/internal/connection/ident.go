package connection

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"golang.org/x/sys/unix"

	"p9auth/internal/sshdconf"
	"p9auth/sshfront/internal/sshlog"
)

// maxIdentification is the most that a client's first line may have, in bytes
// with its end: RFC 4253, section 4.2.
const maxIdentification = 255

// An identified connection looks at the line with which the client identifies
// itself (RFC 4253, section 4.2) before the SSH library does. The library takes
// the line of any version of the protocol, and waits for it behind a thousand
// other lines, as only a client may have to.
type identified struct {
	net.Conn
	line []byte // that the library has not read yet
	done bool
	err  error
}

// Read returns the client's line, and then what follows it. Where the line is
// wrong Read tells the client so, and returns an *identError for good.
func (c *identified) Read(p []byte) (int, error) {
	if !c.done {
		c.done = true
		c.line, c.err = readIdentification(c.Conn)
		if e := new(identError); errors.As(c.err, &e) && e.reply != "" {
			io.WriteString(c.Conn, e.reply+"\r\n") // where it fails, the client has gone
		}
	}
	if c.err != nil {
		return 0, c.err
	}
	if len(c.line) > 0 {
		n := copy(p, c.line)
		c.line = c.line[n:]
		return n, nil
	}
	return c.Conn.Read(p)
}

// An identError says why a client is turned away for its identification. The
// words are those of kex_exchange_identification in OpenSSH's kex.c and of
// sshpkt_vfatal in its packet.c.
type identError struct {
	reply string // to the client; may be empty
	what  string // the first line for the log
	level sshdconf.LogLevel
	end   string // the second, before and after the address
	why   string
}

func (e *identError) Error() string { return e.what }

// log writes the two lines that sshd writes; from is the client's address in its words.
func (e *identError) log(from string) {
	sshlog.Printf(e.level, "%s", strings.ReplaceAll(e.what, "%remote", from))
	sshlog.Printf(sshdconf.LogInfo, "%s %s%s", e.end, from, e.why)
}

// invalidFormat is the error for what is not an identification.
func invalidFormat(format string, a ...any) *identError {
	return &identError{"Invalid SSH identification string.", fmt.Sprintf(format, a...), sshdconf.LogError,
		"banner exchange: Connection from", ": invalid format"}
}

// versions takes an identification apart: "SSH-", the protocol's major version, ".", its
// minor one, "-", the software's version, with whatever is behind it (RFC 4253, section
// 4.2). sshd's scanf(3) takes a sign before the major version.
func versions(text string) (major, minor, software string, ok bool) {
	protocol, software, ok := strings.Cut(strings.TrimPrefix(text, "SSH-"), "-")
	if ok && protocol == "" { // before the sign
		protocol, software, ok = strings.Cut(software, "-")
		protocol = "-" + protocol
	}
	major, minor, dot := strings.Cut(protocol, ".")
	ok = ok && dot && isNumber(strings.TrimPrefix(major, "-")) && isNumber(minor) && software != ""
	return major, minor, software, ok
}

// isNumber says whether a word is a decimal number that fits an int.
func isNumber(s string) bool {
	return 0 < len(s) && len(s) < 10 && strings.Trim(s, "0123456789") == ""
}

// readIdentification reads the client's first line, to its end and no further.
func readIdentification(r io.Reader) ([]byte, error) {
	line := make([]byte, 0, maxIdentification)
	cr := false
	for b := make([]byte, 1); ; {
		if _, err := io.ReadFull(r, b); errors.Is(err, io.EOF) {
			return nil, &identError{"", "kex_exchange_identification: Connection closed by remote host", sshdconf.LogError, "Connection closed by", ""}
		} else if errors.Is(err, unix.ECONNRESET) {
			return nil, &identError{"", "kex_exchange_identification: read: Connection reset by peer", sshdconf.LogError, "Connection reset by", ""}
		} else if err != nil {
			return nil, err
		}
		line = append(line, b[0])
		if b[0] == '\n' {
			break
		}
		if b[0] == 0 || cr {
			return nil, invalidFormat("kex_exchange_identification: banner line contains invalid characters")
		}
		if len(line) == maxIdentification {
			return nil, invalidFormat("kex_exchange_identification: banner line too long")
		}
		cr = b[0] == '\r'
	}
	text := strings.TrimSuffix(string(line[:len(line)-1]), "\r")
	if !strings.HasPrefix(text, "SSH-") || text == "SSH-" {
		return nil, invalidFormat("kex_exchange_identification: client sent invalid protocol identifier \"%s\"", text)
	}
	major, minor, software, ok := versions(text)
	if !ok {
		return nil, invalidFormat("Bad remote protocol version identification: '%.100s'", text)
	}
	if major != "2" && (major != "1" || minor != "99") {
		return nil, &identError{"Protocol major versions differ.", "Protocol major versions differ: 2 vs. " + major, sshdconf.LogError,
			"banner exchange: Connection from", ": could not read protocol version"}
	}
	if strings.HasPrefix(software, "Probe-") {
		return nil, &identError{"", "probed from %remote with " + text + ".  Don't panic.", sshdconf.LogInfo, "Connection closed by", ""}
	}
	return line, nil
}
