package daemon

import (
	"fmt"
	"log/slog"
	"os"
	"os/user"
	"strconv"

	"p9auth/factotum/internal/config"
)

// A generation is everything that the configuration says, as it was read at one
// moment, with the host keys. Nobody changes it. A conversation takes the one
// that holds when it is accepted, and a reload makes another.
type generation struct {
	conf   config.Config
	fronts map[uint32]config.Binding // the front ends by uid
	ssh    *sshServer                // nil: no front end is for ssh
	nets   networks                  // of the connections that a front end for ssh may have
	syslog *syslog                   // for su's lines; nil: nobody who is logged in has a program here
}

// newGeneration reads what a configuration refers to.
func newGeneration(c config.Config, log *slog.Logger) (*generation, error) {
	fronts, err := lookupFrontEnds(c)
	if err != nil {
		return nil, err
	}
	ssh, err := loadSSH(c, log)
	if err != nil {
		return nil, err
	}
	programs := []string{c.PAMWorker}
	if needsBecome {
		programs = append(programs, c.Become)
	}
	for _, p := range programs {
		st, err := os.Stat(p)
		if err != nil {
			return nil, err
		}
		if !st.Mode().IsRegular() || st.Mode()&0o111 == 0 {
			return nil, fmt.Errorf("%s is not a program", p)
		}
	}
	var nets networks
	if ssh != nil {
		if nets, err = loadNetworks(c, log); err != nil {
			return nil, err
		}
	}
	var lines *syslog
	if len(c.Local) > 0 {
		lines = newSyslog(c.Syslog, log)
	}
	return &generation{c, fronts, ssh, nets, lines}, nil
}

// lookupFrontEnds finds the uids of the configuration's front ends. They are
// system users, so /etc/passwd has them.
func lookupFrontEnds(c config.Config) (map[uint32]config.Binding, error) {
	m := map[uint32]config.Binding{}
	for name, binding := range c.FrontEnds {
		u, err := user.Lookup(name)
		if err != nil {
			return nil, fmt.Errorf("FrontEnd %s: there is no such user; create it (useradd --system), or take the line out", name)
		}
		uid, err := strconv.ParseUint(u.Uid, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("FrontEnd %s: uid %s: %w", name, u.Uid, err)
		}
		if uid == 0 {
			return nil, fmt.Errorf("FrontEnd %s: root must not be a front end", name)
		}
		if other, ok := m[uint32(uid)]; ok {
			return nil, fmt.Errorf("FrontEnd %s: uid %d is bound to service %s already", name, uid, other.Service)
		}
		m[uint32(uid)] = binding
	}
	return m, nil
}
