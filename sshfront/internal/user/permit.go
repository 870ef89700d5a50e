package user

import (
	"p9auth/internal/sshdconf"
	"p9auth/sshfront/internal/userlink"
)

// reserved is the first port that every user may listen on, whatever the
// kernel says.
const reserved = 1024

// mayForward says whether a kind of forwarding is permitted at all.
func (i *Info) mayForward(permitted bool) error {
	opt := i.options()
	if !permitted || i.Settings.DisableForwarding || !opt.PortForwarding {
		return userlink.Prohibitedf("forwarding is not permitted")
	}
	return nil
}

// mayDial says whether the user may have us connect to a TCP port.
func (i *Info) mayDial(host string, port int) error {
	if err := i.mayForward(i.Settings.AllowTcpForwarding.Local()); err != nil {
		return err
	}
	opt := i.options()
	key := sshdconf.Permits{List: opt.PermitOpen}
	if !i.Settings.PermitOpen.AllowsOpen(host, port) || !key.AllowsOpen(host, port) {
		return userlink.Prohibitedf("connecting to %.255s port %d is not permitted", host, port)
	}
	return nil
}

// mayListen says whether the user may have us listen on a TCP port.
func (i *Info) mayListen(host string, port int) error {
	if err := i.mayForward(i.Settings.AllowTcpForwarding.Remote()); err != nil {
		return err
	}
	opt := i.options()
	key := sshdconf.Permits{List: opt.PermitListen}
	if !i.Settings.PermitListen.AllowsListen(host, port) || !key.AllowsListen(host, port) {
		return userlink.Prohibitedf("listening on %.255s port %d is not permitted", host, port)
	}
	if port != 0 && port < reserved && i.UID != 0 {
		return userlink.Prohibitedf("port %d is reserved", port)
	}
	return nil
}

// streamLocal stands for a unix socket's port where one is compared with a list of
// hosts and ports: PORT_STREAMLOCAL of OpenSSH's channels.c.
const streamLocal = -2

// mayDialUnix says whether the user may have us connect to a unix socket. A list of
// TCP ports to connect to means only those, unless it has any port of any host.
func (i *Info) mayDialUnix(path string) error {
	s := i.Settings
	if err := i.mayForward(s.AllowStreamLocalForwarding.Local() && s.AllowTcpForwarding.Local()); err != nil {
		return err
	}
	opt := i.options()
	key := sshdconf.Permits{List: opt.PermitOpen}
	if !s.PermitOpen.AllowsOpen(path, streamLocal) || !key.AllowsOpen(path, streamLocal) {
		return userlink.Prohibitedf("connecting to %.255s is not permitted", path)
	}
	return nil
}

// mayListenUnix says whether the user may have us listen on a unix socket. A list of
// ports to listen on says nothing about sockets, as with sshd (channels.c,
// remote_open_match); "PermitListen none" means them too.
func (i *Info) mayListenUnix() error {
	if err := i.mayForward(i.Settings.AllowStreamLocalForwarding.Remote() && i.Settings.AllowTcpForwarding.Remote()); err != nil {
		return err
	}
	if i.Settings.PermitListen.None {
		return userlink.Prohibitedf("listening is not permitted")
	}
	return nil
}

// bindHosts says where to listen for a forward of the host that the client
// named: channels.c, channel_fwd_bind_addr.
func bindHosts(host string, g sshdconf.Gateway, f sshdconf.Family) []string {
	loopback, wildcard := []string{"127.0.0.1", "::1"}, []string{"0.0.0.0", "::"}
	switch f {
	case sshdconf.FamilyInet:
		loopback, wildcard = loopback[:1], wildcard[:1]
	case sshdconf.FamilyInet6:
		loopback, wildcard = loopback[1:], wildcard[1:]
	}
	switch {
	case g == sshdconf.GatewayYes:
		return wildcard
	case g == sshdconf.GatewayClientSpecified && (host == "" || host == "*"):
		return wildcard
	case g == sshdconf.GatewayClientSpecified && host != "localhost":
		return []string{host}
	case host == "127.0.0.1" || host == "::1":
		return []string{host}
	}
	return loopback
}
