package daemon

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"p9auth/capproto"
	"p9auth/factotum/internal/config"
	"p9auth/factotum/internal/sshauth"
	"p9auth/test/manual"
)

// TestTheManualHasEachVerb compares the requests of p9auth-rpc(7) with the table:
// verbs, the states they are allowed in, and their attributes.
func TestTheManualHasEachVerb(t *testing.T) {
	page, ssh := manual.Section(t, "p9auth-rpc.7", "Requests"), manual.Section(t, "p9auth-rpc.7", "Requests of SSH")
	// By whether a verb is of SSH alone.
	want := map[bool]map[string][]string{false: {}, true: {}}
	for verb, v := range verbs {
		var phrases []string
		for _, a := range v.attrs {
			// What methods there are follows in a list of its own.
			if verb != capproto.VerbAuth || !strings.Contains(ssh, a+"=") {
				phrases = append(phrases, strings.TrimSuffix(a, "...")+"=")
			}
		}
		switch v.states {
		case anyState:
			phrases = append(phrases, "(any state)")
		case anySSH:
			phrases = append(phrases, "any state of SSH")
		default:
			for s, name := range stateNames {
				if v.states&s != 0 {
					phrases = append(phrases, name)
				}
			}
		}
		want[v.onlySSH][verb] = phrases
	}
	const replies = "ok done more error " + // and what they have, and the methods of auth
		"method=none method=password method=publickey method=keyboard-interactive method=gssapi-with-mic complete " +
		"user uid home cap env umask nofile nproc nohome hush root ptys remote settings options method message expired runs"
	manual.WantItems(t, "p9auth-rpc(7), Requests", manual.Items(page, "Cm"), want[false], strings.Fields(replies)...)
	// The verb start is in both, once for each protocol.
	manual.WantItems(t, "p9auth-rpc(7), Requests of SSH", manual.Items(ssh, "Cm"), want[true], append(strings.Fields(replies), capproto.VerbStart)...)
	for _, name := range stateNames {
		if !strings.Contains(page+ssh, ".Em "+name+"\n") && !strings.Contains(page+ssh, ".Em "+name+" ") {
			t.Errorf("p9auth-rpc(7) does not have the state %s", name)
		}
	}
}

// TestTheManualHasTheBoundsOfThePackets and of a conversation.
func TestTheManualHasTheBoundsOfThePackets(t *testing.T) {
	page := manual.Words(manual.Source(t, "p9auth-rpc.7"))
	for _, want := range []string{
		fmt.Sprintf("at most %d attributes", capproto.MaxAttrs),
		fmt.Sprintf("a request has at most %d bytes, a reply at most %d.", capproto.MaxRequest, capproto.MaxReply),
		fmt.Sprintf("A conversation gets at most %d.", config.MaxCapsPerConversation),
		fmt.Sprintf("It has at most %d bytes.", sshauth.MaxTranscript),
		fmt.Sprintf("while there are at most %d beyond %d a second", sshauth.ExchangesAtOnce, time.Second/sshauth.ExchangeEvery),
		fmt.Sprintf("this protocol, which is %d;", capproto.Version),
	} {
		if !strings.Contains(page, want) {
			t.Errorf("p9auth-rpc(7) does not say %q", want)
		}
	}
	for _, code := range []string{
		capproto.CodeDenied, capproto.CodeAccount, capproto.CodeLimit, capproto.CodeTimeout, capproto.CodeProtocol, capproto.CodeVersion, capproto.CodeInternal,
	} {
		if _, ok := manual.Items(manual.Section(t, "p9auth-rpc.7", "Errors"), "Cm")[code]; !ok {
			t.Errorf("p9auth-rpc(7) does not have the code %s", code)
		}
	}
}
