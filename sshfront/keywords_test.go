package main

import (
	"fmt"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"p9auth/test/testbed"
)

// reload has both daemons take an sshd_config.
func (s *site) reload(t *testing.T, conf string) {
	t.Helper()
	taken := func() int { return strings.Count(s.Sh(t, "cat "+s.Dir+"/log/sshfront"), "configuration read again") }
	before := taken()
	s.configure(t, conf)
	if err := syscall.Kill(s.Pids("sshfront")[0], syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if !testbed.Eventually(func() bool { return taken() > before }) {
		t.Fatal("sshfront does not take the configuration")
	}
}

// Keywords that show in the connection itself, as a client or the kernel sees
// it.
func TestKeywordsOfTheConnectionAreSeenFromOutside(t *testing.T) {
	need(t, "ssh", "ss", "socat")
	s := newSite(t)
	const verbose = "ssh -n -v -p $port ${options/-o LogLevel=ERROR/} alice@127.0.0.1 true 2>&1"
	// The server's end of the connection, from the session of it.
	const end = `$ssh alice@127.0.0.1 "set -- \$SSH_CLIENT; sleep 1; ss -Htno --tos sport = :$port and dport = :\$2"`
	const forward = `ssh -p $port $options -R %s alice@127.0.0.1 %s </dev/null`
	// The forward and the session that was asked for after it are served at once.
	const once = `'for i in $(seq 100); do x=$(%s 2>/dev/null) && [ "$x" ] && break; sleep 0.1; done; echo "$x"'`
	remote := func(listen, command string) string {
		return fmt.Sprintf(forward, listen, fmt.Sprintf(once, command))
	}
	for _, c := range []struct{ conf, script, want string }{
		{"VersionAddendum hello  world", "read x </dev/tcp/127.0.0.1/$port; echo \"$x\"", `^SSH-2\.0-OpenSSH_9\.9p9auth hello  world\r?\n$`},
		{"VersionAddendum none", "read x </dev/tcp/127.0.0.1/$port; echo \"$x\"", `^SSH-2\.0-OpenSSH_9\.9p9auth\r?\n$`},
		{"HostKeyAlgorithms ecdsa-sha2-nistp256", verbose, `Server host key: ecdsa-sha2-nistp256`},
		{"HostKeyAlgorithms rsa-sha2-256", verbose, `host key algorithm: rsa-sha2-256`},
		{"KexAlgorithms ecdh-sha2-nistp384", verbose, `kex: algorithm: ecdh-sha2-nistp384`},
		{"Ciphers aes192-ctr\nMACs hmac-sha2-512", verbose, `cipher: aes192-ctr MAC: hmac-sha2-512 `},
		{"Ciphers aes256-gcm@openssh.com\nMACs -*", verbose, `cipher: aes256-gcm@openssh\.com MAC: <implicit>`},
		{"MACs -*", "ssh -n -c aes128-ctr -p $port ${options/-o LogLevel=ERROR/} alice@127.0.0.1 true 2>&1 || true", `no matching MAC found`},
		{"Ciphers aes256-gcm@openssh.com", verbose, `cipher: aes256-gcm@openssh\.com`},
		{"TCPKeepAlive yes", end, `timer:\(keepalive,(119|120)min`}, // as tcp(7) has it
		{"TCPKeepAlive no", end, `!timer:\(keepalive`},
		{"IPQoS af21 cs1", end, `tos:0x20\b`},
		{"IPQoS af21 cs1", "ssh -tt -p $port $options alice@127.0.0.1 <<<'set -- $SSH_CLIENT; sleep 1; ss -Htno --tos sport = :$3 and dport = :$2; exit'", `tos:0x48\b`},
		{"Match User alice\nIPQoS cs2", end, `tos:0x40\b`},
		{"GatewayPorts no", remote("*:$((port+3)):127.0.0.1:1", "ss -Htln sport = :'$((port+3))'"), `127\.0\.0\.1:\d+`},
		{"GatewayPorts no", remote("*:$((port+3)):127.0.0.1:1", "ss -Htln sport = :'$((port+3))'"), `!(0\.0\.0\.0|\*):\d+ +\S+ *\n`},
		{"GatewayPorts yes", remote("$((port+3)):127.0.0.1:1", "ss -Htln sport = :'$((port+3))'"), `(0\.0\.0\.0|\*):\d+`},
		{"GatewayPorts clientspecified", remote("127.0.0.1:$((port+3)):127.0.0.1:1", "ss -Htln sport = :'$((port+3))'"), `127\.0\.0\.1:\d+`},
		{"StreamLocalBindMask 0117", remote("/home/alice/a.sock:127.0.0.1:1", "stat -c %a a.sock"), `^660\n`},
		{"", remote("/home/alice/b.sock:127.0.0.1:1", "stat -c %a b.sock"), `^600\n`},
		{"StreamLocalBindUnlink yes", "$ssh alice@127.0.0.1 'timeout 1 socat UNIX-LISTEN:c.sock,unlink-close=0 - 2>/dev/null; test -S c.sock'; ssh -v -p $port ${options/-o LogLevel=ERROR/} -o ExitOnForwardFailure=yes -R /home/alice/c.sock:127.0.0.1:1 alice@127.0.0.1 echo forwarded </dev/null 2>/dev/null", `^forwarded\n`},
		{"StreamLocalBindUnlink no", "$ssh alice@127.0.0.1 'timeout 1 socat UNIX-LISTEN:d.sock,unlink-close=0 - 2>/dev/null; test -S d.sock'; ssh -p $port $options -o ExitOnForwardFailure=yes -R /home/alice/d.sock:127.0.0.1:1 alice@127.0.0.1 echo forwarded </dev/null 2>&1 || echo refused", `refused\n$`},
		{"PrintLastLog yes", "for i in 1 2; do echo exit | ssh -tt -p $port $options alice@127.0.0.1; done", `Last login: `},
		{"PrintLastLog no", "echo exit | ssh -tt -p $port $options alice@127.0.0.1", `!Last login: `},
		{"UseDNS yes\nMatch Host localhost\nForceCommand echo by name", "$ssh alice@127.0.0.1", `^by name\n$`},
		{"UseDNS no\nMatch Host localhost\nForceCommand echo by name", "$ssh alice@127.0.0.1 echo not", `^not\n$`},
		{"X11Forwarding yes\nX11UseLocalhost no\nXAuthLocation none", "$ssh alice@127.0.0.1 true; echo $?", `^0\n$`},
	} {
		s.reload(t, c.conf)
		out, err := s.run(t, c.script)
		want, not := strings.CutPrefix(c.want, "!")
		if err != nil {
			t.Errorf("%q: %v: %.1000s", c.conf, err, out)
		} else if regexp.MustCompile(want).MatchString(out) == not || out == "" {
			t.Errorf("%q: printed %.2000q, want %s", c.conf, out, c.want)
		}
	}
	s.noneLeft(t)
}
