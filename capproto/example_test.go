package capproto_test

import (
	"encoding/hex"
	"fmt"

	"p9auth/capproto"
)

// A capability for a process of uid 999 to become uid 1001 with the groups
// 1002 and 100: what a log may show of it, and what goes to caphash.
func ExampleCap() {
	c := capproto.Cap{Grant: capproto.Grant{From: 999, To: 1001, Groups: []uint32{1002, 100}}}
	copy(c.Key[:], "32 bytes that are not random one")
	fmt.Println(c)
	fmt.Println(c.Reveal())
	h := c.Hash()
	fmt.Println(hex.EncodeToString(h[:]))
	// Output:
	// 999@1001@1002,100@(secret)
	// 999@1001@1002,100@MzIgYnl0ZXMgdGhhdCBhcmUgbm90IHJhbmRvbSBvbmU
	// ed735d10a6e33efe205b265291fd97da9f0057980fb8488ae3ef1bba528d049b
}

// Parsing is strict: there is one text for each capability.
func ExampleParse() {
	for _, s := range []string{
		"999@1001@1002@MzIgYnl0ZXMgdGhhdCBhcmUgbm90IHJhbmRvbSBvbmU",
		"0999@1001@1002@MzIgYnl0ZXMgdGhhdCBhcmUgbm90IHJhbmRvbSBvbmU",
		"999@1001@1002@MzIgYnl0ZXMgdGhhdCBhcmUgbm90IHJhbmRvbSBvbmU=",
	} {
		c, err := capproto.Parse(s)
		fmt.Println(c.Grant.To, err)
	}
	// Output:
	// 1001 <nil>
	// 0 not a capability: source uid: leading zero
	// 0 not a capability: key of 44 characters, not 43
}

// A request of the rpc, as it is sent.
func ExampleMsg() {
	b, err := capproto.NewMsg(capproto.VerbWrite, "data", "it's a secret").Encode()
	fmt.Println(string(b), err)
	m, err := capproto.DecodeMsg(b)
	fmt.Println(m.Verb, m.Get("data"), err)
	// Output:
	// write data='it''s a secret' <nil>
	// write it's a secret <nil>
}
