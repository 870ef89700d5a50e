package pamwire

import (
	"strconv"

	"p9auth/capproto"
)

// Hello is what each side says first.
type Hello struct{ Version int }

func (h Hello) Encode() capproto.Msg {
	return capproto.NewMsg("hello", "version", strconv.Itoa(h.Version))
}
func (Hello) request() {}
func (Hello) event()   {}

func decodeHello(r *reader) Hello { return Hello{r.positive("version")} }
