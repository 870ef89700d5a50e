package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A client that knows the host by one key learns the others with UpdateHostKeys, and
// forgets one that is gone, as with sshd: OpenSSH's PROTOCOL, section 2.5. RSA keys
// prove themselves in the algorithm that the key exchange had.
func TestAClientLearnsTheHostKeysAsWithSSHD(t *testing.T) {
	need(t, "ssh", "ssh-keygen")
	s := newSite(t)
	s.Sh(t, "cd /etc/ssh; for k in ed25519 ecdsa rsa; do [ -e ssh_host_${k}_key ] || ssh-keygen -q -t $k -N '' -f ssh_host_${k}_key; done; "+
		"ssh-keygen -q -t ed25519 -N '' -f next; ssh-keygen -q -t rsa -N '' -f nextrsa; "+
		"ssh-keygen -q -t ed25519 -N '' -f ca; ssh-keygen -q -h -s ca -I host -n 127.0.0.1 ssh_host_ed25519_key.pub")
	blob := func(file string) string { return strings.Fields(s.Sh(t, "cat /etc/ssh/"+file+".pub"))[1] }
	names := map[string]string{}
	for _, f := range []string{"ssh_host_ed25519_key", "ssh_host_ecdsa_key", "ssh_host_rsa_key", "next", "nextrsa"} {
		names[blob(f)] = strings.TrimSuffix(strings.TrimPrefix(f, "ssh_host_"), "_key")
	}
	key := func(f string) string { return "HostKey /etc/ssh/" + f + "\n" }
	const ed, ecdsa, rsa = "ssh_host_ed25519_key", "ssh_host_ecdsa_key", "ssh_host_rsa_key"
	for _, c := range []struct {
		what, conf, options string
		knows               []string
		want                string
	}{
		{"a second key of the same type", key(ed) + key("next"), "", []string{ed}, "ed25519 next"},
		{"a key that is gone", key("next"), "", []string{ed, "next"}, "next"},
		{"all types", key(ed) + key(ecdsa) + key(rsa) + key("nextrsa"), "", []string{ed}, "ecdsa ed25519 nextrsa rsa"},
		{"by RSA with SHA-512", key(ed) + key(rsa) + key("nextrsa"), "-o HostKeyAlgorithms=rsa-sha2-512", []string{rsa}, "nextrsa rsa"},
		{"by RSA with SHA-256", key(ed) + key(rsa) + key("nextrsa"), "-o HostKeyAlgorithms=rsa-sha2-256,ssh-ed25519", []string{rsa}, "ed25519 nextrsa rsa"},
		{"RSA with SHA-256 by another", key(ed) + key(rsa) + "HostKeyAlgorithms ssh-ed25519,rsa-sha2-256\n", "-o HostKeyAlgorithms=ssh-ed25519,rsa-sha2-256", []string{ed}, "ed25519 rsa"},
		{"new keys meanwhile", key(ed) + key("next") + "RekeyLimit 64K none\n", "", []string{ed}, "ed25519 next"},
		{"not wanted", key(ed) + key("next"), "-o UpdateHostKeys=no", []string{ed}, "ed25519"},
		{"nothing is known but the authority", key(ed) + key("next") + "HostCertificate /etc/ssh/" + ed + "-cert.pub\n", "", nil, "@cert-authority"},
	} {
		s.configure(t, c.conf)
		port, end := s.sshd(t, c.conf)
		for i, p := range []string{s.port, port} {
			known := filepath.Join(s.tmp, fmt.Sprintf("known%d", i))
			text := ""
			for _, f := range c.knows {
				text += "[127.0.0.1]:" + p + " " + s.Sh(t, "cut -d' ' -f1,2 /etc/ssh/"+f+".pub") + "\n"
			}
			if c.knows == nil {
				text = "@cert-authority * " + s.Sh(t, "cut -d' ' -f1,2 /etc/ssh/ca.pub") + "\n"
			}
			if err := os.WriteFile(known, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := s.run(t, "ssh -n -p "+p+" -F none -o BatchMode=yes -o ControlPath=none -o StrictHostKeyChecking=yes -o UserKnownHostsFile="+known+
				" "+c.options+" -o UpdateHostKeys=yes -i $keys/alice alice@127.0.0.1 'head -c 500000 /dev/zero; sleep 0.3' | wc -c")
			if err != nil || !strings.HasSuffix(out, "500000\n") {
				t.Errorf("%s, server %d: %v: %s", c.what, i, err, out)
				continue
			}
			b, err := os.ReadFile(known)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for line := range strings.Lines(string(b)) {
				if strings.HasPrefix(line, "@") {
					got = append(got, strings.Fields(line)[0])
					continue
				}
				got = append(got, names[strings.Fields(line)[2]])
			}
			slices.Sort(got)
			if strings.Join(got, " ") != c.want {
				t.Errorf("%s, server %d: the client knows %s, not %s: %s", c.what, i, got, c.want, out)
			}
		}
		end()
	}
	s.noneLeft(t)
}
