package openssh

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"p9auth/test/manual"
)

// sample is what runs without -all: protocol, configuration and options of keys,
// forced commands, the end of output, a root directory.
var sample = []string{"connect", "proto-mismatch", "key-options", "cfgmatch", "forcecommand", "yes-head", "sftp-chroot"}

const (
	agentAlone  = "runs ssh-agent, and no server"
	keygenAlone = "runs ssh-keygen, and no server"
	sftpAlone   = "runs sftp or scp with sftp-server itself, and no server"
	clientAlone = "prints the configuration of the client (ssh -G), and runs no server"
)

// notOfServers are the scripts that run no server.
var notOfServers = map[string]string{
	"agent-getpeereid":  agentAlone,
	"agent-pkcs11-cert": agentAlone,
	"agent-ptrace":      agentAlone,
	"agent-subprocess":  agentAlone,
	"agent-timeout":     agentAlone,
	"cfginclude":        clientAlone,
	"keygen-change":     keygenAlone,
	"keygen-comment":    keygenAlone,
	"keygen-convert":    keygenAlone,
	"keygen-knownhosts": keygenAlone,
	"keygen-moduli":     keygenAlone,
	"keygen-sshfp":      keygenAlone,
	"krl":               keygenAlone,
	"scp":               sftpAlone,
	"sftp":              sftpAlone,
	"sftp-badcmds":      sftpAlone,
	"sftp-batch":        sftpAlone,
	"sftp-cmds":         sftpAlone,
	"sftp-glob":         sftpAlone,
	"sftp-perm":         sftpAlone,
	"sftp-resume":       sftpAlone,
	"sshcfgparse":       clientAlone,
	"sshsig":            keygenAlone,
}

// unavailable are scripts that skip themselves, whatever the server, and why.
var unavailable = map[string]string{
	"hostbased":     "needs the machine's ssh_known_hosts and shosts.equiv; skips itself",
	"sshfp-connect": "needs a domain with SSHFP records; skips itself",
}

// cutShort are scripts whose client may lose output on a busy machine, with each server:
// they have three tries.
var cutShort = map[string]string{
	"conch-ciphers": "conch ends 0.1 s after the channel, even if it has not written all that it has received (stopConnection)",
}

// A part of a script is what it does without some algorithms.
type part struct {
	without string // patterns of names that "ssh -Q" does not tell the script, blanks between
	why     string
}

const (
	noDSA      = "ssh-dss*"
	withoutDSA = "without DSA keys"
)

// inPart are the scripts that try each algorithm that their client has, and that pass
// without those that p9auth has not: the table of differences of p9auth_sshd_config(5)
// has these. With the suite of Debian 13, whose OpenSSH has no DSA and asks for algorithms
// again when the user is known, they pass as they are.
var inPart = map[string]part{
	"cert-hostkey":   {noDSA, withoutDSA},
	"hostkey-rotate": {noDSA, withoutDSA},
	"keyscan":        {noDSA, withoutDSA},
	"keytype":        {noDSA, withoutDSA},
}

// differences are the scripts that do not pass with sshfront, and why. Each has its row
// in the table of differences of p9auth_sshd_config(5).
var differences = map[string]string{
	"hostkey-agent": "its agent is another user's, to whose socket factotum has no right",
	"integrity":     "with Debian 13's offsets it changes the length of a packet, and its client waits for the rest",
}

// offsets are the scripts of differences that find other things at fixed places of what
// the server of another Debian sends, and the Debian with which they do not pass.
var offsets = map[string]string{"integrity": "13"}

// difference is why a script does not pass with sshfront here, "" where it does.
func difference(name string) string {
	here, err := os.ReadFile("/etc/debian_version")
	if err == nil && !strings.HasPrefix(string(here), offsets[name]) {
		return ""
	}
	return differences[name]
}

// TestTheManualNamesTheScriptsThatDoNotPass holds p9auth_sshd_config(5) to the tables
// of this file.
func TestTheManualNamesTheScriptsThatDoNotPass(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(manual.Top(), "man", "p9auth_sshd_config.5"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), ".Ss Differences from sshd\n")
	section, _, _ = strings.Cut(section, ".Ss ")
	if len(differences) > 6 {
		t.Errorf("%d scripts do not pass", len(differences))
	}
	named := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^\.Sy ([a-z-]+)`).FindAllStringSubmatch(section, -1) {
		named[m[1]] = true
	}
	for name := range differences {
		if !named[name] {
			t.Errorf("%s does not pass, and the manual does not say so", name)
		}
		delete(named, name)
	}
	for name := range inPart {
		if !named[name] {
			t.Errorf("%s passes in part, and the manual does not say so", name)
		}
		delete(named, name)
	}
	for name := range named {
		t.Errorf("the manual says that %s does not pass", name)
	}
}
