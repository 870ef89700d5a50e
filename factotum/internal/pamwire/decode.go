package pamwire

import (
	"fmt"
	"os"

	"p9auth/capproto"
)

// DecodeRequest reads a request that came with so many descriptors.
func DecodeRequest(m capproto.Msg, files int) (Request, error) {
	d, ok := requests[m.Verb]
	if !ok {
		return nil, fmt.Errorf("%w: unknown request %s", ErrWire, m.Verb)
	}
	if files < d.minFiles || files > d.maxFiles {
		return nil, fmt.Errorf("%w: %s with %d descriptors", ErrWire, m.Verb, files)
	}
	r := newReader(m)
	req := d.decode(r)
	if err := r.finish(); err != nil {
		return nil, err
	}
	return req, nil
}

// DecodeEvent reads an event that came with these descriptors, which only Begun
// and Opened may. On an error they stay the caller's.
func DecodeEvent(m capproto.Msg, files ...*os.File) (Event, error) {
	decode, ok := events[m.Verb]
	if !ok {
		return nil, fmt.Errorf("%w: unknown event %s", ErrWire, m.Verb)
	}
	r := newReader(m)
	ev := decode(r)
	if err := r.finish(); err != nil {
		return nil, err
	}
	if len(files) == 0 {
		if o, ok := ev.(Opened); ok && o.more > 0 {
			return nil, fmt.Errorf("%w: %s without its groups", ErrWire, m.Verb)
		}
		return ev, nil
	}
	if len(files) == 1 {
		switch ev := ev.(type) {
		case Begun:
			ev.TTY = files[0]
			return ev, nil
		case Opened:
			return ev.withGroups(files[0])
		}
	}
	return nil, fmt.Errorf("%w: %s with %d descriptors", ErrWire, m.Verb, len(files))
}
