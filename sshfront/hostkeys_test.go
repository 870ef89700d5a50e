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

// Host keys whose private halves an ssh-agent or a security key has, of each type and
// certified, and what becomes of those that they have not.
func TestAnAgentAndASecurityKeySignAsHostAsWithSSHD(t *testing.T) {
	need(t, "ssh", "ssh-agent", "ssh-add", "ssh-keygen")
	s := newSite(t)
	dummy := filepath.Join(s.Top, "build/openssh-tests/usr/lib/openssh/regress/misc/sk-dummy/sk-dummy.so")
	types := "ed25519 ecdsa rsa"
	if _, err := os.Stat(dummy); err == nil {
		types += " ed25519-sk ecdsa-sk"
	} else {
		t.Log("no security keys: scripts/deps has not unpacked openssh-tests, which has one in software")
	}
	agent := s.Command("ssh-agent", "-D", "-a", "/etc/ssh/agent", "-P", dummy)
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { agent.Process.Kill(); agent.Wait() })
	s.Sh(t, `cd /etc/ssh; export SSH_SK_PROVIDER=`+dummy+` SSH_AUTH_SOCK=/etc/ssh/agent
		until [ -S agent ]; do sleep 0.02; done
		ssh-keygen -q -t ed25519 -N '' -f ca; ssh-keygen -q -t ed25519 -N '' -f unknown; rm unknown
		for k in `+types+`; do
			ssh-keygen -q -t $k -N '' -f a_$k; ssh-keygen -q -h -s ca -I host -n 127.0.0.1 a_$k.pub; ssh-add -q a_$k; rm a_$k
		done`)
	key := func(k string) string { return "HostKey /etc/ssh/a_" + k + "\n" }
	const file = "HostKey /etc/ssh/ssh_host_ed25519_key\n"
	every := ""
	for k := range strings.FieldsSeq(types) {
		every += key(k)
	}
	type trial struct{ what, conf, algorithm, want string }
	trials := []trial{
		{"RSA with SHA-256", key("rsa"), "rsa-sha2-256", "in"},
		{"a certificate", key("rsa") + "HostCertificate /etc/ssh/a_rsa-cert.pub\n", "rsa-sha2-512-cert-v01@openssh.com", "in"},
		{"the file of a public key", "HostKey /etc/ssh/a_rsa.pub\n", "rsa-sha2-512", "in"},
		{"a file and the agent", file + key("rsa"), "rsa-sha2-512", "in"},
		{"a key that the agent has not", "HostKey /etc/ssh/unknown\n" + key("rsa"), "ssh-ed25519", "out"},
		{"nobody listens at the socket", file + key("rsa") + "HostKeyAgent /etc/ssh/nobody\n", "rsa-sha2-512", "out"},
		{"nobody listens, by the file", file + key("rsa") + "HostKeyAgent /etc/ssh/nobody\n", "ssh-ed25519", "in"},
	}
	for k, algorithm := range map[string]string{
		"ed25519": "ssh-ed25519", "ecdsa": "ecdsa-sha2-nistp256",
		"ed25519-sk": "sk-ssh-ed25519@openssh.com", "ecdsa-sk": "sk-ecdsa-sha2-nistp256@openssh.com",
	} {
		if slices.Contains(strings.Fields(types), k) {
			trials = append(trials, trial{"all, by " + k, every, algorithm, "in"})
		}
	}
	if strings.Contains(types, "-sk") {
		trials = append(trials, trial{"a security key's certificate", key("ed25519-sk") + "HostCertificate /etc/ssh/a_ed25519-sk-cert.pub\n", "sk-ssh-ed25519-cert-v01@openssh.com", "in"})
	}
	if strings.Contains(types, "-sk") {
		s.Sh(t, "cd /etc/ssh; export SSH_SK_PROVIDER="+dummy+`
			for k in ed25519 ecdsa; do ssh-keygen -q -t $k-sk -N '' -f a_file_$k; done`)
		ed, ecdsa := "HostKey /etc/ssh/a_file_ed25519\nSecurityKeyProvider "+dummy+"\nHostKeyAgent none\n", "HostKey /etc/ssh/a_file_ecdsa\nSecurityKeyProvider "+dummy+"\nHostKeyAgent none\n"
		trials = append(trials,
			trial{"a security key without an agent", ed, "sk-ssh-ed25519@openssh.com", "in"},
			trial{"one by ECDSA", ecdsa, "sk-ecdsa-sha2-nistp256@openssh.com", "in"},
			trial{"a provider that is not there", file + strings.Replace(ed, "sk-dummy.so", "none.so", 1), "sk-ssh-ed25519@openssh.com", "out"},
			trial{"a provider that is not there, by the file", file + strings.Replace(ed, "sk-dummy.so", "none.so", 1), "ssh-ed25519", "in"})
	}
	known := filepath.Join(s.tmp, "known")
	hosts := "@cert-authority * " + s.Sh(t, "cat /etc/ssh/ca.pub") + "\n"
	for k := range strings.FieldsSeq(s.Sh(t, "ls /etc/ssh/a_*.pub /etc/ssh/unknown.pub /etc/ssh/ssh_host_ed25519_key.pub | grep -v cert")) {
		hosts += "* " + s.Sh(t, "cat "+k) + "\n"
	}
	if err := os.WriteFile(known, []byte(hosts), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range trials {
		conf := c.conf
		if !strings.Contains(conf, "HostKeyAgent") {
			conf += "HostKeyAgent /etc/ssh/agent\n"
		}
		s.configure(t, conf)
		port, end := s.sshd(t, conf)
		for i, p := range []string{s.port, port} {
			out, err := s.run(t, "ssh -n -p "+p+" -F none -o BatchMode=yes -o ControlPath=none -o StrictHostKeyChecking=yes -o GlobalKnownHostsFile=none -o UserKnownHostsFile="+known+
				" -o HostKeyAlgorithms="+c.algorithm+" -i $keys/alice alice@127.0.0.1 true")
			if (err == nil) != (c.want == "in") {
				t.Errorf("%s, server %d: %v: %s", c.what, i, err, out)
			}
		}
		end()
	}
	if log := s.Log(); !strings.Contains(log, "HostKeyAgent /etc/ssh/agent: it does not sign with this key") || !strings.Contains(log, "HostKeyAgent /etc/ssh/nobody: dial unix") {
		t.Errorf("the log does not say what agents did not do: %s", log)
	}
	s.noneLeft(t)
}
