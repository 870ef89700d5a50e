package pamwire

import (
	"strconv"

	"p9auth/capproto"
)

// ChangePassword has PAM change the password of the transaction's user: see
// pam_chauthtok(3).
type ChangePassword struct {
	Expired bool // only if it has expired (PAM_CHANGE_EXPIRED_AUTHTOK)
	Quiet   bool // modules say no more than they must (PAM_SILENT)
}

func (c ChangePassword) Encode() capproto.Msg {
	m := capproto.NewMsg("password")
	addFlag(&m, "expired", "yes", c.Expired)
	addFlag(&m, "quiet", "yes", c.Quiet)
	return m
}

// PasswordStatus asks what passwd -S prints of a user.
type PasswordStatus struct{ User string }

func (s PasswordStatus) Encode() capproto.Msg { return capproto.NewMsg("status", "user", s.User) }

// CheckPassword has the system's unix_chkpwd(8) run as root, with its two arguments.
type CheckPassword struct {
	User     string
	Option   string // nullok, nonull or chkexpiry
	Password string // "" for chkexpiry
}

func (c CheckPassword) Encode() capproto.Msg {
	m := capproto.NewMsg("check", "user", c.User, "option", c.Option)
	add(&m, "password", c.Password)
	return m
}

// String hides the password.
func (c CheckPassword) String() string { return "CheckPassword{" + c.User + " secret}" }

// GoString is String: %#v hides the password too.
func (c CheckPassword) GoString() string { return c.String() }

func decodeCheckPassword(r *reader) Request {
	c := CheckPassword{User: r.some("user", maxName), Option: r.some("option", maxName), Password: r.optional("password", maxData)}
	switch c.Option {
	case "nullok", "nonull":
	case "chkexpiry":
		if c.Password != "" {
			r.fail("password= without a use")
		}
	default:
		r.fail("option= is unknown")
	}
	return c
}

// Changed says that PAM has changed the password.
type Changed struct{}

func (Changed) Encode() capproto.Msg { return capproto.NewMsg("changed") }

// Status is the line that passwd -S prints, without its end.
type Status struct{ Line string }

func (s Status) Encode() capproto.Msg { return capproto.NewMsg("status", "line", s.Line) }

// Checked is what the system's unix_chkpwd(8) has answered.
type Checked struct {
	Status int    // its exit status, 0 to 255
	Output string // what it has printed
}

// MaxOutput bounds Checked.Output, in bytes: a number of days.
const MaxOutput = 256

func (c Checked) Encode() capproto.Msg {
	m := capproto.NewMsg("checked", "status", strconv.Itoa(c.Status))
	add(&m, "output", c.Output)
	return m
}

func decodeChecked(r *reader) Event {
	return Checked{Status: int(r.uint("status", r.some("status", 3), 8)), Output: r.optional("output", MaxOutput)}
}

func (ChangePassword) request() {}
func (PasswordStatus) request() {}
func (CheckPassword) request()  {}
func (Changed) event()          {}
func (Status) event()           {}
func (Checked) event()          {}
