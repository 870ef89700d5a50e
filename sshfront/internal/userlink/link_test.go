package userlink

import (
	"errors"
	"io"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"p9auth/capproto"
	"p9auth/internal/sys"
)

// ends are the two ends of a link.
func ends(t *testing.T) (near, far *capproto.Conn) {
	t.Helper()
	a, b, err := sys.Socketpair()
	if err != nil {
		t.Fatal(err)
	}
	if near, err = capproto.FileConn(a, MaxPacket); err != nil {
		t.Fatal(err)
	}
	if far, err = capproto.FileConn(b, MaxPacket); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close(); far.Close() })
	return near, far
}

// all has each kind of request.
var all = []Request{
	OpenPTY{"xterm", Size{80, 24, 1, 2}, []byte{53, 0, 0, 0, 1}}, OpenPTY{Modes: []byte{}},
	Exec{}, Exec{HasCommand: true}, Exec{HasCommand: true, Command: "a 'b'\n", PTY: 7, X11: 8, Env: []string{"A=b", "A=c"}}, Exec{Subsystem: "sftp"},
	Wait{1}, Winch{2, Size{1, 2, 3, 4}}, Break{3}, Signal{4, "HUP"}, Signal{4, ""}, Drop{Program: 5}, Drop{PTY: 6},
	Dial{"h", 65536}, Dial{"", 0}, DialUnix{"/x"}, Listen{"", 0}, ListenUnix{"@x"}, ForwardAgent{},
	ForwardX11{true, "MIT", "00", 1}, ForwardX11{}, Accept{1}, Cancel{1}, NoMoreSessions{},
}

func TestEachRequestComesThroughTheLink(t *testing.T) {
	near, far := ends(t)
	s := NewServer(far)
	for i, r := range all {
		if err := near.Send(encode(uint32(i+1), r)); err != nil {
			t.Fatal(err)
		}
		id, got, err := s.Next()
		if err != nil || id != uint32(i+1) || !reflect.DeepEqual(got, r) {
			t.Errorf("%d: got %#v, %v, want %#v", id, got, err, r)
		}
	}
	near.Close()
	if _, _, err := s.Next(); !IsClosed(err) {
		t.Errorf("a closed link: %v", err)
	}
}

func TestALyingConnectionProcessIsCutOff(t *testing.T) {
	for what, packets := range map[string][]string{
		"an unknown verb":          {"frobnicate id=1"},
		"no id":                    {"agent"},
		"an id that is none":       {"agent id=01"},
		"the id 0":                 {"agent id=0"},
		"an id twice":              {"agent id=1", "agent id=1"},
		"an id that goes back":     {"agent id=2", "agent id=1"},
		"an attribute twice":       {"dial id=1 host=a host=b port=1"},
		"an attribute is missing":  {"dial id=1 host=a"},
		"an unknown attribute":     {"wait id=1 program=1 x=y"},
		"a number that is none":    {"x11 id=1 single=no proto=a cookie=0 screen=x"},
		"a flag that is none":      {"x11 id=1 single=maybe proto=a cookie=0 screen=0"},
		"modes that are no base64": {"pty id=1 term=x cols=1 rows=1 width=0 height=0 modes=*"},
		"two things to run":        {"exec id=1 command=a subsystem=b"},
		"two things to drop":       {"drop id=1 program=1 pty=2"},
		"no packet":                {"Agent"},
		"a packet that is long":    {"exec id=1 command=" + strings.Repeat("x", MaxPacket)},
	} {
		near, far := ends(t)
		s := NewServer(far)
		var err error
		for _, p := range packets {
			near.Socket().Write([]byte(p))
			_, _, err = s.Next()
		}
		if !errors.Is(err, capproto.ErrPacket) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestEachAnswerComesThroughTheLink(t *testing.T) {
	near, far := ends(t)
	c, s := NewClient(near), NewServer(far)
	null := func() *os.File {
		f, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	go func() {
		for {
			id, r, err := s.Next()
			if err != nil {
				return
			}
			var a Answer
			switch r := r.(type) {
			case OpenPTY:
				a.Files = []*os.File{null()}
			case Exec:
				if r.PTY == 0 {
					a.Files = []*os.File{null(), null(), null()}
				}
			case Wait:
				a.Exit = &Exit{Signal: "KILL", Core: true}
				if r.Program%2 == 1 {
					a.Exit = &Exit{Status: 3}
				}
			case Listen:
				a.Port = 4711
			case Accept:
				a.Files, a.Host, a.Port = []*os.File{null()}, "::1", 5
			case Dial:
				err = Prohibitedf("no")
			case DialUnix:
				err = errors.New("not tried")
			}
			s.Answer(id, a, err)
		}
	}()
	pty, err := c.PTY("x", Size{}, nil)
	if err != nil || pty.Master() == nil {
		t.Fatalf("%v, %v", pty, err)
	}
	one, err := c.Exec(Exec{PTY: pty.ID()}) // id 2
	if err != nil {
		t.Fatal(err)
	}
	if in, _, _ := one.Stdio(); in != nil {
		t.Error("pipes beside a terminal")
	}
	if e, err := one.Wait(); err != nil || e != (Exit{Signal: "KILL", Core: true}) {
		t.Errorf("%+v, %v", e, err)
	}
	c.NoMoreSessions()
	two, err := c.Exec(Exec{}) // id 5
	if err != nil {
		t.Fatal(err)
	}
	if in, out, errs := two.Stdio(); in == nil || out == nil || errs == nil {
		t.Error("no pipes")
	}
	if e, err := two.Wait(); err != nil || e != (Exit{Status: 3}) {
		t.Errorf("%+v, %v", e, err)
	}
	l, err := c.Listen("", 0)
	if err != nil || l.Port() != 4711 {
		t.Fatalf("%v, %v", l, err)
	}
	if _, host, port, err := l.Accept(); err != nil || host != "::1" || port != 5 {
		t.Errorf("%s %d, %v", host, port, err)
	}
	if _, err := c.Dial("h", 1); !Prohibited(err) {
		t.Error(err)
	}
	var e *Error
	if _, err := c.DialUnix("/"); !errors.As(err, &e) || e.Code != CodeFailed || e.Text != "not tried" {
		t.Error(err)
	}
}

func TestALyingUserProcessIsCutOff(t *testing.T) {
	for what, answer := range map[string]string{
		"an answer to nothing": "ok id=2",
		"no id":                "ok",
		"no port":              "ok id=1",
		"a port that is none":  "ok id=1 port=x",
		"another verb":         "done id=1",
		"no packet":            "OK",
	} {
		near, far := ends(t)
		c := NewClient(near)
		go func() {
			far.Recv()
			far.Socket().Write([]byte(answer))
		}()
		if l, err := c.Listen("", 0); err == nil || l != nil {
			t.Errorf("%s: %v, %v", what, l, err)
		}
	}
}

func TestTheTicketSaysWhichVersionTheWordsHave(t *testing.T) {
	near, far := ends(t)
	SendTicket(near, "secret")
	if ticket, err := ReceiveTicket(far); err != nil || ticket != "secret" {
		t.Errorf("%s, %v", ticket, err)
	}
	for packet, want := range map[string]string{
		"ticket version=9 ticket=secret":      "restart sshfront",
		"ticket ticket=secret":                "restart sshfront",
		"exec id=1":                           "in place of the ticket",
		"ticket version=1 ticket=secret x=y":  "does not take x=",
		"ticket version=1 ticket=a ticket=b ": "",
	} {
		near.Socket().Write([]byte(packet))
		if _, err := ReceiveTicket(far); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", packet, err)
		}
	}
}

func TestAnErrorBeforeTheUserProcessReachesEveryCall(t *testing.T) {
	near, far := ends(t)
	c := NewClient(near)
	defer c.Close()
	waiting := make(chan error, 1)
	go func() {
		_, err := c.Exec(Exec{})
		waiting <- err
	}()
	if _, err := far.Recv(); err != nil {
		t.Fatal(err)
	}
	Refuse(far, "the account has expired")
	far.Close()
	if err := <-waiting; err == nil || err.Error() != "the account has expired" {
		t.Errorf("a call that waits: %v", err)
	}
	if err := c.NoMoreSessions(); err == nil || err.Error() != "the account has expired" {
		t.Errorf("a later call: %v", err)
	}
}

func TestARequestThatCannotBeSentEndsTheLinkAtOnce(t *testing.T) {
	near, _ := ends(t)
	c := NewClient(near)
	near.SetWriteDeadline(time.Unix(1, 0)) // each write fails from here on
	for range 2 {
		if err := c.NoMoreSessions(); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the request ends with %v", err)
		}
	}
	select {
	case <-c.Done():
	default:
		t.Error("the link is still of use")
	}
}

func TestTheEndOfTheUserProcessIsSeen(t *testing.T) {
	near, far := ends(t)
	c := NewClient(near)
	go func() {
		server := NewServer(far)
		id, _, _ := server.Next()
		server.Answer(id, Answer{}, nil)
		far.Close()
	}()
	if err := c.NoMoreSessions(); err != nil {
		t.Fatal(err)
	}
	<-c.Done()
	if err := c.Err(); !errors.Is(err, io.EOF) && !errors.Is(err, unix.ECONNRESET) {
		t.Error(err)
	}
}

func TestAUserProcessThatNeverAnsweredCouldNotBegin(t *testing.T) {
	near, far := ends(t)
	c := NewClient(near)
	far.Close()
	<-c.Done()
	if e := new(Error); !errors.As(c.Err(), &e) || e.Text != NotOpened {
		t.Error(c.Err())
	}
}

// FuzzDecode has a packet of the connection process read.
func FuzzDecode(f *testing.F) {
	for i, r := range all {
		b, err := encode(uint32(i+1), r).Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := capproto.DecodeMsg(b)
		if err != nil {
			return
		}
		id, r, err := decode(m)
		if err != nil {
			if !errors.Is(err, capproto.ErrPacket) {
				t.Error(err)
			}
			return
		}
		again, r2, err := decode(encode(id, r))
		if err != nil || again != id || !reflect.DeepEqual(r, r2) {
			t.Errorf("%#v becomes %#v: %v", r, r2, err)
		}
	})
}
