package main

import (
	"testing"
)

// restricted gives an agent alice's key for certain servers alone, and logs in by it to
// $first; from there, by the forwarded agent, to $second. The agent signs only what
// names a server's host key. Then it has the key for other servers.
const restricted = `
export SSH_AUTH_SOCK=$tmp/agent.$first; eval $(ssh-agent -a $SSH_AUTH_SOCK) >/dev/null
trap 'kill $SSH_AGENT_PID' EXIT
ssh-keyscan -p $first 127.0.0.1 2>/dev/null >known; ssh-keyscan -p $second 127.0.0.1 2>/dev/null >>known
own="-F none -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -o BatchMode=yes -o PreferredAuthentications=publickey"
log_in() { ssh $own -A -p $first alice@127.0.0.1 "id -un; ssh $own -p $second alice@127.0.0.1 id -un" </dev/null; }
a="[127.0.0.1]:$first" b="[127.0.0.1]:$second"
for hops in "-h $a -h $a>$b" "-h $a" "-h $b"; do
	ssh-add -q -D 2>/dev/null
	ssh-add -q -H known $hops $keys/alice
	log_in 2>&1 | sed 's/^alice@.*: Permission denied.*/denied/'
	echo .
done`

func TestAnAgentsKeyForSomeServersLogsInThereAlone(t *testing.T) {
	need(t, "ssh", "ssh-agent", "ssh-add", "ssh-keyscan")
	s := newSite(t)
	s.Sh(t, "ssh-keygen -q -t ed25519 -N '' -f /run/other_host_key")
	theirs, _ := s.sshd(t, "HostKey /run/other_host_key\n")
	const want = "alice\nalice\n.\nalice\ndenied\n.\ndenied\n.\n"
	for what, ports := range map[string]string{
		"from ours to sshd": "first=$port second=" + theirs,
		"from sshd to ours": "first=" + theirs + " second=$port",
	} {
		out, _ := s.run(t, ports+"; "+restricted)
		if out != want {
			t.Errorf("%s: %s, want %s", what, out, want)
		}
	}
	s.WantLog(t, `Accepted publickey for alice from 127\.0\.0\.1 port \d+ ssh2: ED25519 SHA256:`)
	s.noneLeft(t)
}
