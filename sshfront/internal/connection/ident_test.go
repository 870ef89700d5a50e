package connection

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestOnlyASecondProtocolsIdentificationIsTaken(t *testing.T) {
	for line, want := range map[string]string{ // the reply and what is logged first
		"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n":           "",
		"SSH-2.0-x\n":                                  "",
		"SSH-1.99-x\r\n":                               "",
		"SSH-2.1-x\r\n":                                "",
		"SSH-2.0-\xc3\xa9\x01\n":                       "",
		"SSH-2.0-" + strings.Repeat("a", 245) + "\r\n": "",
		"SSH-2.0-" + strings.Repeat("a", 246) + "\r\n": "Invalid SSH identification string.|kex_exchange_identification: banner line too long",
		"GET / HTTP/1.0\r\n\r\n":                       `Invalid SSH identification string.|kex_exchange_identification: client sent invalid protocol identifier "GET / HTTP/1.0"`,
		"\r\n":                                         `Invalid SSH identification string.|kex_exchange_identification: client sent invalid protocol identifier ""`,
		"ssh-2.0-x\r\n":                                `Invalid SSH identification string.|kex_exchange_identification: client sent invalid protocol identifier "ssh-2.0-x"`,
		"SSH-\r\n":                                     `Invalid SSH identification string.|kex_exchange_identification: client sent invalid protocol identifier "SSH-"`,
		"SSH-2.0\r\n":                                  "Invalid SSH identification string.|Bad remote protocol version identification: 'SSH-2.0'",
		"SSH-2.0-\r\n":                                 "Invalid SSH identification string.|Bad remote protocol version identification: 'SSH-2.0-'",
		"SSH-2.0-x\ry\n":                               "Invalid SSH identification string.|kex_exchange_identification: banner line contains invalid characters",
		"SSH-2.0-x\x00\n":                              "Invalid SSH identification string.|kex_exchange_identification: banner line contains invalid characters",
		"SSH-1.5-x\r\n":                                "Protocol major versions differ.|Protocol major versions differ: 2 vs. 1",
		"SSH-3.0-x\r\n":                                "Protocol major versions differ.|Protocol major versions differ: 2 vs. 3",
		"SSH-2.0-Probe-1.0\r\n":                        "|probed from %remote with SSH-2.0-Probe-1.0.  Don't panic.",
		"":                                             "|kex_exchange_identification: Connection closed by remote host",
		"SSH-2.0-x":                                    "|kex_exchange_identification: Connection closed by remote host",
	} {
		r := strings.NewReader(line + "after")
		if !strings.HasSuffix(line, "\n") {
			r = strings.NewReader(line)
		}
		got, err := readIdentification(r)
		if want == "" {
			if rest, _ := io.ReadAll(r); err != nil || string(got) != line || string(rest) != "after" {
				t.Errorf("%q: %q, %v, then %q", line, got, err, rest)
			}
			continue
		}
		e := new(identError)
		if !errors.As(err, &e) || e.reply+"|"+e.what != want {
			t.Errorf("%q: %v, want %q", line, err, want)
		}
	}
}

// Whatever comes, what is taken is one whole line of protocol 2, nothing behind it
// is read, and the reply and the log have one line each.
func FuzzIdentification(f *testing.F) {
	for _, seed := range []string{"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\nafter", "SSH-1.99-x\n", "SSH-1.5-x\r\n", "SSH-2.0-Probe-\r\n", "SSH--2.0-x\n",
		"GET / HTTP/1.0\r\n\r\n", "SSH-2.0-x\x00\n", "SSH-2.0-\r\r\n", "\n", "", "SSH-2.0-" + strings.Repeat("a", 300)} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		r := bytes.NewReader(in)
		line, err := readIdentification(r)
		if err != nil {
			e := new(identError)
			if !errors.As(err, &e) || strings.ContainsAny(e.reply+e.what, "\r\n\x00") || len(in)-r.Len() > maxIdentification {
				t.Errorf("%q: %v", in, err)
			}
			return
		}
		if !bytes.HasPrefix(in, line) || len(in)-r.Len() != len(line) || bytes.IndexByte(line, '\n') != len(line)-1 ||
			!bytes.HasPrefix(line, []byte("SSH-2.")) && !bytes.HasPrefix(line, []byte("SSH-1.99-")) {
			t.Errorf("%q: took %q, with %d bytes left", in, line, r.Len())
		}
	})
}
