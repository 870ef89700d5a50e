package config

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"p9auth/internal/sshdconf"
)

// DefaultFile is where the configuration is unless -f says otherwise.
const DefaultFile = "/etc/p9auth/factotum.conf"

// A Config is what factotum.conf(5) says. Its keywords are in the table below.
type Config struct {
	Socket     string // the rpc socket
	CapDir     string // where the capability files are mounted
	CapHash    string // the kernel's caphash, for the capdev backend
	PAMWorker  string
	PAMConfDir string // "" is libpam's own
	Become     string

	// UserProgram is what a login by ssh executes: sshfront, beside factotum.
	UserProgram string

	SSHDConfig    string // sshd_config, used if a front end is for ssh
	Syslog        string // syslog's socket, for the lines that sshd writes; "" is none
	StatusSocket  string // where "factotum status" asks; "" for none
	MetricsSocket string // where Prometheus asks; "" for none

	FrontEnds map[string]Binding // by user name
	Local     map[string]Binding // by protocol: for the programs of whoever is logged in

	NetworkNamespaces []string // files of namespaces whose addresses are believed, besides factotum's own

	MaxConversations       int
	MaxConversationsPerUID int
	MaxCapabilities        int
	MaxSessions            int
	MaxSessionsPerUser     int // 0: as many as there are
	MaxStartups            int // conversations of a uid with a worker and without a proof
	MaxStartupsPerSource   int
	MaxGuesses             int // wrong passwords of a source in a minute
	MaxAuthTries           int
	LoginGraceTime         time.Duration
	CapabilityLifetime     time.Duration
	LogLevel               slog.Level
	RequireBoundGrants     bool // refuse restricted logins where the backend binds nothing
	CapFallback            bool // FUSE for the capdev backend where there is no device
	UnknownAddresses       bool // a front end for ssh may leave out the client's socket
}

// A Binding is what a front end may do: which protocol it speaks, "pam" or
// "ssh" or one of LocalProtos, and the one PAM service that it is bound to.
type Binding struct{ Service, Proto string }

// Default has the defaults. Programs are looked for beside factotum itself.
func Default() Config {
	dir := "/usr/lib/p9auth"
	if exe, err := os.Executable(); err == nil {
		dir = filepath.Dir(exe)
	}
	return Config{
		Socket:                 "/run/factotum/rpc",
		CapDir:                 "/run/factotum/cap",
		CapHash:                "/dev/caphash",
		PAMWorker:              filepath.Join(dir, "factotum-pam"),
		Become:                 filepath.Join(dir, "become"),
		UserProgram:            filepath.Join(dir, "sshfront"),
		SSHDConfig:             sshdconf.File(),
		Syslog:                 "/dev/log",
		StatusSocket:           "/run/factotum/status",
		FrontEnds:              map[string]Binding{},
		Local:                  map[string]Binding{},
		MaxConversations:       1024,
		MaxConversationsPerUID: 512,
		MaxCapabilities:        1024,
		MaxSessions:            8192,
		MaxStartups:            256,
		MaxStartupsPerSource:   100,
		MaxGuesses:             60,
		MaxAuthTries:           6,
		LoginGraceTime:         2 * time.Minute,
		CapabilityLifetime:     2 * time.Minute,
		CapFallback:            true,
	}
}

// keywords are what a line may begin with, lower case, and how its value is
// read.
var keywords = map[string]func(*Config, string) error{
	"socket":                 absPath(func(c *Config) *string { return &c.Socket }),
	"capdir":                 absPath(func(c *Config) *string { return &c.CapDir }),
	"caphash":                absPath(func(c *Config) *string { return &c.CapHash }),
	"pamworker":              absPath(func(c *Config) *string { return &c.PAMWorker }),
	"pamconfdir":             absPath(func(c *Config) *string { return &c.PAMConfDir }),
	"become":                 absPath(func(c *Config) *string { return &c.Become }),
	"sshdconfig":             absPath(func(c *Config) *string { return &c.SSHDConfig }),
	"syslog":                 pathOrNone(func(c *Config) *string { return &c.Syslog }),
	"statussocket":           pathOrNone(func(c *Config) *string { return &c.StatusSocket }),
	"metricssocket":          pathOrNone(func(c *Config) *string { return &c.MetricsSocket }),
	"frontend":               parseFrontEnd,
	"networknamespace":       parseNetworkNamespace,
	"maxconversations":       number(1, 65536, func(c *Config) *int { return &c.MaxConversations }),
	"maxconversationsperuid": number(1, 65536, func(c *Config) *int { return &c.MaxConversationsPerUID }),
	"maxcapabilities":        number(1, 65536, func(c *Config) *int { return &c.MaxCapabilities }),
	"maxsessions":            number(1, 1<<20, func(c *Config) *int { return &c.MaxSessions }),
	"maxsessionsperuser":     numberOrNone(1<<20, func(c *Config) *int { return &c.MaxSessionsPerUser }),
	"maxstartups":            number(1, 65536, func(c *Config) *int { return &c.MaxStartups }),
	"maxstartupspersource":   number(1, 65536, func(c *Config) *int { return &c.MaxStartupsPerSource }),
	"maxguesses":             number(1, 65536, func(c *Config) *int { return &c.MaxGuesses }),
	"maxauthtries":           number(1, 100, func(c *Config) *int { return &c.MaxAuthTries }),
	"logingracetime":         seconds(1, 3600, func(c *Config) *time.Duration { return &c.LoginGraceTime }),
	"capabilitylifetime":     seconds(1, 120, func(c *Config) *time.Duration { return &c.CapabilityLifetime }),
	"requireboundgrants":     yesOrNo(func(c *Config) *bool { return &c.RequireBoundGrants }),
	"capfallback":            yesOrNo(func(c *Config) *bool { return &c.CapFallback }),
	"unknownaddresses":       yesOrNo(func(c *Config) *bool { return &c.UnknownAddresses }),
	"loglevel": func(c *Config, v string) error {
		if c.LogLevel.UnmarshalText([]byte(v)) != nil {
			return fmt.Errorf("%q: want debug, info, warn or error", v)
		}
		return nil
	},
}

func absPath(f func(*Config) *string) func(*Config, string) error {
	return func(c *Config, v string) error {
		if !filepath.IsAbs(v) {
			return fmt.Errorf("%q is not an absolute path", v)
		}
		*f(c) = filepath.Clean(v)
		return nil
	}
}

func number(lo, hi int, f func(*Config) *int) func(*Config, string) error {
	return func(c *Config, v string) error {
		n, err := strconv.Atoi(v)
		if err != nil || n < lo || n > hi {
			return fmt.Errorf("%q is not a number from %d to %d", v, lo, hi)
		}
		*f(c) = n
		return nil
	}
}

// numberOrNone is a number from 1 on, or "none", which is 0.
func numberOrNone(hi int, f func(*Config) *int) func(*Config, string) error {
	return func(c *Config, v string) error {
		if v == "none" {
			*f(c) = 0
			return nil
		}
		return number(1, hi, f)(c, v)
	}
}

func seconds(lo, hi int, f func(*Config) *time.Duration) func(*Config, string) error {
	return func(c *Config, v string) error {
		n, err := strconv.Atoi(v)
		if err != nil || n < lo || n > hi {
			return fmt.Errorf("%q is not a number of seconds from %d to %d", v, lo, hi)
		}
		*f(c) = time.Duration(n) * time.Second
		return nil
	}
}

func yesOrNo(field func(*Config) *bool) func(*Config, string) error {
	return func(c *Config, v string) error {
		if v != "yes" && v != "no" {
			return fmt.Errorf("%q: want yes or no", v)
		}
		*field(c) = v == "yes"
		return nil
	}
}

func pathOrNone(f func(*Config) *string) func(*Config, string) error {
	return func(c *Config, v string) error {
		if v == "none" {
			*f(c) = ""
			return nil
		}
		return absPath(f)(c, v)
	}
}

func parseNetworkNamespace(c *Config, v string) error {
	if !filepath.IsAbs(v) {
		return fmt.Errorf("%q is not an absolute path", v)
	}
	if len(c.NetworkNamespaces) == maxNetworkNamespaces {
		return fmt.Errorf("at most %d are possible", maxNetworkNamespaces)
	}
	c.NetworkNamespaces = append(c.NetworkNamespaces, filepath.Clean(v))
	return nil
}

const maxNetworkNamespaces = 64

func parseFrontEnd(c *Config, v string) error {
	f := strings.Fields(v)
	if len(f) > 0 && f[0] == everyone {
		return parseLocal(c, f)
	}
	if len(f) == 2 {
		f = append(f, "pam")
	}
	// A service is the name of a file in /etc/pam.d.
	if len(f) != 3 || strings.Contains(f[1], "/") || f[1][0] == '.' || f[2] != "pam" && f[2] != "ssh" {
		return fmt.Errorf("want a user, a PAM service and pam or ssh, as in FrontEnd _login login or FrontEnd _sshfront sshd ssh")
	}
	if _, ok := c.FrontEnds[f[0]]; ok {
		return fmt.Errorf("user %s has a PAM service already", f[0])
	}
	c.FrontEnds[f[0]] = Binding{f[1], f[2]}
	return nil
}

// ForSSH says whether a front end is for ssh.
func (c Config) ForSSH() bool {
	for _, f := range c.FrontEnds {
		if f.Proto == "ssh" {
			return true
		}
	}
	return false
}

// Read reads a configuration file. Errors name the file and line.
func Read(path string) (Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return Config{}, err
	}
	defer f.Close()
	return Parse(path, io.LimitReader(f, 1<<20))
}

func Parse(name string, r io.Reader) (Config, error) {
	c := Default()
	seen := map[string]bool{}
	s := bufio.NewScanner(r)
	n := 0
	for s.Scan() {
		n++
		line := strings.TrimSpace(s.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		word, value, _ := strings.Cut(strings.ReplaceAll(line, "\t", " "), " ")
		key := strings.ToLower(word)
		set, ok := keywords[key]
		if !ok {
			return Config{}, fmt.Errorf("%s:%d: unknown keyword %q", name, n, word)
		}
		if seen[key] && key != "frontend" && key != "networknamespace" {
			return Config{}, fmt.Errorf("%s:%d: %s is set twice", name, n, word)
		}
		seen[key] = true
		if err := set(&c, strings.TrimSpace(value)); err != nil {
			return Config{}, fmt.Errorf("%s:%d: %s: %w", name, n, word, err)
		}
	}
	if err := s.Err(); err != nil {
		return Config{}, fmt.Errorf("%s:%d: %w", name, n+1, err)
	}
	if len(c.FrontEnds) == 0 && len(c.Local) == 0 {
		return Config{}, fmt.Errorf("%s: no FrontEnd: nobody could log in; add FrontEnd _login login", name)
	}
	return c, nil
}

// MaxCapsPerConversation bounds the capabilities of one conversation: ten
// sessions that start at once over one ssh connection, and some more.
const MaxCapsPerConversation = 16

// MaxSessionsPerUID leaves room too: who has filled the machine through one
// front end, say ssh, does not keep the administrator from the console.
func (c Config) MaxSessionsPerUID() int { return c.MaxSessions - c.MaxSessions/8 }

// SessionsForRoot are those of a front end that only root may have, and
// SessionsForNewUsers those that only a user may have who has none.
func (c Config) SessionsForRoot() int     { return c.MaxSessionsPerUID() / 16 }
func (c Config) SessionsForNewUsers() int { return c.MaxSessionsPerUID() / 16 }

// MaxCapsPerUID leaves room for other front ends.
func (c Config) MaxCapsPerUID() int { return max(1, c.MaxCapabilities/2) }

// NeedRestart says what NeedsRestart is about.
const NeedRestart = "a change of Become, CapabilityLifetime, CapDir, CapFallback, CapHash, MaxCapabilities, MetricsSocket, Socket or StatusSocket needs a restart"

// NeedsRestart reports whether one configuration cannot follow another without a
// restart of factotum.
func NeedsRestart(now, next Config) bool {
	return now.Become != next.Become || now.CapabilityLifetime != next.CapabilityLifetime || now.CapDir != next.CapDir ||
		now.CapFallback != next.CapFallback || now.CapHash != next.CapHash || now.MaxCapabilities != next.MaxCapabilities || now.MetricsSocket != next.MetricsSocket ||
		now.Socket != next.Socket || now.StatusSocket != next.StatusSocket
}
