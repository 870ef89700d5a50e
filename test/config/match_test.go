package config

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// criteria are what stands after Match.
var criteria = words(`all | ALL | All # why | user alice | user=alice | User "alice" | user al*,!alice | user *,!alice | user !alice | ` +
	`user alice,bob | user ali?e | user * | user ALICE | user root | user "a b" | user nosuch | ` +
	`group wizards | group=wizards,staff | group !wizards,* | group staff,!wizards | group * | group alice | group !staff | group WIZARDS | ` +
	`host h.example.org | host *.example.org | host H.EXAMPLE.ORG | host *.example.org,!h.* | host !other | host 192.0.2.9 | host 192.0.2.* | host * | ` +
	`address 192.0.2.9 | address 192.0.2.0/24 | address 192.0.2.* | address 192.0.2.0/24,!192.0.2.9 | address !192.0.2.1,192.0.2.0/24 | ` +
	`address 2001:db8::/32 | address 2001:db8::9 | address 2001:DB8:0::9 | address * | address 0.0.0.0/0 | address ::/0 | address ::ffff:192.0.2.9 | address 192.0.2.9/32 | ` +
	`localaddress 127.0.0.1 | localaddress 127.0.0.0/8 | localaddress ::1 | localaddress * | localaddress 10.0.0.0/8,127.* | ` +
	`rdomain * | rdomain x | rdomain x,y | rdomain !x | rdomain ? | ` +
	`user alice group wizards | user alice group !wizards | user=alice host=*.example.org address=192.0.2.0/24 | ` +
	`user alice user bob | user * localaddress 127.0.0.1 | address 192.0.2.0/24 user alice,bob group staff | host * address * user *`)

// ports are those about the port, for which sshd -T wants one.
var ports = words(`localport 22 | localport=22 | localport 2222 | localport 0 | localport ssh | user bob localport 22 | user * localaddress 127.0.0.1 localport 22`)

// of13 are those that OpenSSH 9.2 does not know.
var of13 = words(`invalid-user | Invalid-User | invalid-user user alice | user alice invalid-user | version OpenSSH_10.* | version * | ` +
	`version !OpenSSH_9.*,* | version OpenSSH_9.* | version=OpenSSH_10.0* user alice`)

// specs are the connections that -C describes.
var specs = words(`user=alice | user=alice,host=h.example.org,addr=192.0.2.9,laddr=127.0.0.1,lport=22 | user=bob,host=h.example.org,addr=192.0.2.9 | ` +
	`user=nosuch,host=h.example.org,addr=192.0.2.9,laddr=127.0.0.1,lport=22 | user=root,host=192.0.2.9,addr=192.0.2.9 | ` +
	`addr=2001:db8::9,laddr=::1,lport=2222,host=H.Example.ORG | host=other | lport=22 | laddr=10.1.2.3 | ` +
	`rdomain=x | rdomain= | rdomain=xy,user=alice | user=alice, | ` +
	`user=alice,,user=bob | user=a b | ,user=alice | user=alice,user=bob | lport=0 | lport=65535 | user=ALICE | user=alice@h | host=192.0.2.9`)

// specs13 are those that OpenSSH 9.2 does not know, and bad are what none knows.
var (
	specs13 = words(`invalid-user | invalid-user,user=nosuch,addr=192.0.2.9`)
	bad     = words(`user | a=b, | nonsense | users=alice | lport=x | lport=65536 | lport=-1 | lport= | User=alice | user=alice,nonsense=1 | invalid-user=yes | port=22`)
)

// otherSpecs are those that stand for something else here, as the table of differences
// says.
var otherSpecs = words(`addr=::ffff:192.0.2.9 | user= | host= | addr= | laddr= | addr=nonsense | addr=192.0.2.300 | laddr=nonsense`)

// badCriteria are what follows Match and is an error, or not.
var badCriteria = words(`"" | user | user= | user "" | user=alice all | all user alice | all all | nonsense x | nonsense | user alice nonsense | ` +
	`address 192.0.2.1/24 | address 192.0.2.0/33 | address nonsense | address 192.0.2.0/x | address ,192.0.2.1 | localaddress 10.0.0.1/8 | ` +
	`localport x | localport 65536 | localport -1 | localport 22,23 | localport | user # | # user alice | invalid-user= | invalid-user x | ` +
	`user alice # | user "alice | user=alice,bob group | address | group | host | rdomain | version | user alice,, | = | user =alice`)

// neverMatches is refused here alone, as the table of differences says.
const neverMatches = "address 192.0.2.0/x"

// blocks is a configuration with a Match block for each of the criteria, which sets a
// variable of its own.
func blocks(criteria []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\nAcceptEnv OUTSIDE\nMaxAuthTries 4\nBanner /outside\n", pam)
	for i, c := range criteria {
		fmt.Fprintf(&b, "Match %s\n\tAcceptEnv V%d\n\tMaxAuthTries %d\n\tSetEnv A=%d\n\tForceCommand echo %d\n", c, i, i+10, i, i)
	}
	return b.String()
}

func TestMatchHoldsForTheSameConnectionsAsWithSshd(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		t.Parallel()
		lines, connections := criteria, append(words("none"), specs...)
		if w.release >= 13 {
			lines, connections = append(lines, of13...), append(connections, specs13...)
		}
		for _, spec := range connections {
			text := blocks(lines)
			if strings.Contains(spec, "lport=") && !strings.Contains(spec, "lport=0") {
				text = blocks(append(ports, lines...))
			}
			args := []string{"-T", "-C", spec}
			if spec == "none" {
				args = args[:1]
			}
			theirs, ours := w.both(t, text, args...)
			for _, v := range []verdict{theirs, ours} { // what the other test compares
				for k := range v.values {
					switch k {
					case "acceptenv", "maxauthtries", "setenv", "forcecommand", "banner":
					default:
						delete(v.values, k)
					}
				}
			}
			w.verdicts(spec, theirs, ours, func(f found) {
				t.Errorf("-C %s: %s: sshd %s, sshfront %s", spec, f.what, f.theirs, f.ours)
			})
		}
		for _, spec := range otherSpecs {
			theirs, ours := w.both(t, blocks(criteria), "-T", "-C", spec)
			if theirs.taken == ours.taken && slices.Equal(theirs.values["acceptenv"], ours.values["acceptenv"]) || !rows(t)["-C"] {
				t.Errorf("-C %s is no difference", spec)
			}
		}
		for _, spec := range bad {
			if theirs, ours := w.both(t, pam+"\n", "-T", "-C", spec); theirs.status != ours.status {
				t.Errorf("-C %q: sshd takes it: %v; sshfront: %s", spec, theirs.taken, ours.said)
			}
		}
		theirs, ours := w.both(t, "Match localport 22\n", "-T")
		if theirs.taken || !ours.taken || !rows(t)["Match localport"] {
			t.Errorf("Match localport without a port is no difference: sshd says %q, sshfront %q", theirs.said, ours.said)
		}
		for _, c := range badCriteria {
			theirs, ours := w.both(t, "# why\nMatch "+c+"\nMaxAuthTries 1\n", "-T")
			if c == neverMatches {
				if !theirs.taken || ours.taken || !rows(t)["Match address"] {
					t.Errorf("Match %q is no difference", c)
				}
				continue
			}
			if theirs.status != ours.status || theirs.line != 0 && theirs.line != ours.line {
				t.Errorf("Match %q: sshd says %q; sshfront: %s", c, theirs.said, ours.said)
			}
		}
	})
}

// What Include brings into a Match block, and what a Match does in a file that is included.
func TestIncludedFilesStandWhereSshdHasThem(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		for name, text := range map[string]string{
			"plain": "MaxAuthTries 3\nAcceptEnv PLAIN\n", "match": "AcceptEnv BEFORE\nMatch user alice\nAcceptEnv ALICE\nMaxAuthTries 2\n",
			"all": "Match all\nAcceptEnv ALL\n", "nested": "Include /x/match /x/plain\nAcceptEnv NESTED\n", "bad": "MaxAuthTries x\n", "global": "Port 23\n",
			"loop": "Include /x/loop\n", ".hidden": "MaxAuthTries 8\n",
		} {
			if err := os.WriteFile(w.root+"/x/"+name, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		for _, text := range []string{
			"Include /x/plain\nAcceptEnv OUT\nMaxAuthTries 5", "Include /x/match\nAcceptEnv OUT", "Include /x/nested\nAcceptEnv OUT",
			"Match user alice\nInclude /x/plain\nAcceptEnv OUT", "Match user bob\nInclude /x/match\nAcceptEnv OUT", "Match user alice\nInclude /x/match\nAcceptEnv OUT",
			"Match user bob\nInclude /x/all\nAcceptEnv OUT", "Include /x/all\nAcceptEnv OUT", "Include /x/[mp]*\nAcceptEnv OUT", "Include /x/*hidden", "Include /x/.h*", "Include /x/[!abglnm]*", "Include /x/?lain", "Include /x/plain /x/all\nMaxAuthTries 9",
			"Include /x/bad", "Match user bob\nInclude /x/bad", "Match user alice\nInclude /x/global", "Include /x/global\nPort 24", "Include /x/loop",
			"Match all\nMaxAuthTries 3\nMatch user alice\nMaxAuthTries 4", "Match user alice\nPort 22", "Match user alice\nMaxAuthTries x", "match user alice\nmaxauthtries=3\n",
			"Match user alice\nMatch user bob\nAcceptEnv BOB", "Match user alice\n\n# x\n\tAcceptEnv A\nMatch all\nAcceptEnv B", "Match=user alice\nAcceptEnv C",
		} {
			for _, args := range [][]string{{"-T"}, {"-T", "-C", "user=alice"}, {"-T", "-C", "user=bob"}} {
				theirs, ours := w.both(t, text+"\n"+pam+"\n", args...)
				if strings.HasPrefix(text, "Match") || strings.HasPrefix(text, "match") {
					theirs, ours = w.both(t, pam+"\n"+text+"\n", args...)
				}
				for _, k := range []string{"port", "acceptenv", "maxauthtries"} {
					if theirs.taken != ours.taken || strings.Join(theirs.values[k], " ") != strings.Join(ours.values[k], " ") {
						t.Errorf("%q, %q: %s: sshd %q %s, sshfront %q %s", text, args, k, theirs.values[k], theirs.said, ours.values[k], ours.said)
					}
				}
			}
		}
	})
}
