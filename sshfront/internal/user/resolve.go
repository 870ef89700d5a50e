package user

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"time"
)

const (
	// getent asks the C library, and so what nsswitch.conf(5) names under hosts: mDNS,
	// LDAP, systemd's modules. Go knows /etc/hosts and DNS.
	getent = "/usr/bin/getent"
	// resolveTime bounds how long it may take; resolver(5) has 10 seconds for a server
	// that does not answer.
	resolveTime = 20 * time.Second
	// maxAddresses bounds the addresses that are tried.
	maxAddresses = 32
)

// errNoName has the words of EAI_NONAME, see gai_strerror(3).
var errNoName = errors.New("Name or service not known") //lint:ignore ST1005 the C library's words

// dialHost connects to a host by its name or address. A name that Go does not find is
// looked up by getent(1) too.
func (u *userProcess) dialHost(d *net.Dialer, network, host, port string) (net.Conn, error) {
	if host == "" {
		return nil, errNoName // Go takes it for this host
	}
	c, err := d.Dial(network, net.JoinHostPort(host, port))
	dns := new(net.DNSError)
	if !errors.As(err, &dns) {
		return c, err
	}
	if dns.IsNotFound {
		err = errNoName
	}
	for _, a := range u.lookupNSS(network, host) {
		var e error
		if c, e = d.Dial(network, net.JoinHostPort(a, port)); e == nil {
			return c, nil
		}
		err = e
	}
	return nil, err
}

// lookupNSS returns what getent finds, of the network's family.
func (u *userProcess) lookupNSS(network, host string) (addresses []string) {
	database := map[string]string{"tcp": "ahosts", "tcp4": "ahostsv4", "tcp6": "ahostsv6"}[network]
	ctx, cancel := context.WithTimeout(context.Background(), resolveTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, getent, database, "--", host)
	var out bytes.Buffer
	cmd.Dir, cmd.Env, cmd.Stdout = "/", []string{"PATH=/usr/bin:/bin"}, &out
	u.forks.RLock()
	err := cmd.Start()
	u.forks.RUnlock()
	if err != nil || cmd.Wait() != nil {
		return nil
	}
	for lines := bufio.NewScanner(&out); lines.Scan() && len(addresses) < maxAddresses; {
		// ADDRESS STREAM NAME, and the same with DGRAM and RAW.
		f := strings.Fields(lines.Text())
		if len(f) < 2 || f[1] != "STREAM" {
			continue
		}
		if _, err := netip.ParseAddr(f[0]); err == nil {
			addresses = append(addresses, f[0])
		}
	}
	return addresses
}
