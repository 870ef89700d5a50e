package daemon

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"p9auth/capproto"
	"p9auth/factotum/internal/config"
	"p9auth/test/manual"
)

// TestTheManualHasEachVerb compares the requests of p9auth-rpc(7) with the table:
// verbs, the states they are allowed in, and their attributes.
func TestTheManualHasEachVerb(t *testing.T) {
	page, ssh := manual.Section(t, "p9auth-rpc.7", "Requests"), manual.Section(t, "p9auth-rpc.7", "Requests of SSH")
	both := map[bool]map[string]string{false: manual.Items(page, "Cm"), true: manual.Items(ssh, "Cm")}
	for verb, v := range verbs {
		text := both[v.onlySSH][verb]
		if text == "" {
			t.Errorf("p9auth-rpc(7) does not have %s", verb)
			continue
		}
		for _, a := range v.attrs {
			// What methods there are follows in a list of its own.
			if !strings.Contains(text, a+"=") && (verb != capproto.VerbAuth || !strings.Contains(ssh, a+"=")) {
				t.Errorf("p9auth-rpc(7), %s: does not have %s=", verb, a)
			}
		}
		for s, name := range stateNames {
			if v.states != anyState && v.states != anySSH && v.states&s != 0 && !strings.Contains(text, name) {
				t.Errorf("p9auth-rpc(7), %s: does not say that it is allowed in state %s", verb, name)
			}
		}
		if want := map[state]string{anyState: "(any state)", anySSH: ".Pq any state of SSH"}[v.states]; !strings.Contains(text, want) {
			t.Errorf("p9auth-rpc(7), %s: does not say %q", verb, want)
		}
	}
	for _, name := range stateNames {
		if !strings.Contains(page+ssh, ".Em "+name+"\n") && !strings.Contains(page+ssh, ".Em "+name+" ") {
			t.Errorf("p9auth-rpc(7) does not have the state %s", name)
		}
	}
	others := "ok done more error method=none method=password method=publickey method=keyboard-interactive " +
		"user uid home cap env umask nofile nproc nohome hush remote settings options method message"
	for only, items := range both {
		for word := range items {
			v, ok := verbs[word]
			if (!ok || v.onlySSH != only) && word != capproto.VerbStart && !slices.Contains(strings.Fields(others), word) {
				t.Errorf("p9auth-rpc(7) has the request %s, which factotum does not answer", word)
			}
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
