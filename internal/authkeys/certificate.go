package authkeys

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/crypto/ssh"

	"p9auth/internal/match"
)

// FromCertificate returns the options of a user certificate
// (PROTOCOL.certkeys): critical ones demand, extensions permit. An unknown
// critical option is an error, an unknown extension grants nothing.
func FromCertificate(c *ssh.Certificate) (Options, error) {
	o := Options{Tunnel: -1}
	if c.CertType != ssh.UserCert {
		return o, errors.New("not a user certificate")
	}
	for name, v := range c.CriticalOptions {
		switch name {
		case "force-command":
			o.HasCommand, o.Command = true, v
		case "source-address":
			if _, err := match.CIDR(netip.Addr{}, v); err != nil {
				return o, fmt.Errorf("source-address: %w", err)
			}
			o.FromCert = v
		case "verify-required":
			if v != "" {
				return o, errors.New("verify-required takes no value")
			}
			o.VerifyRequired = true
		default:
			return o, fmt.Errorf("certificate critical option %q is not supported", clip(name))
		}
	}
	for name, v := range c.Extensions {
		set := map[string]*bool{"permit-X11-forwarding": &o.X11Forwarding, "permit-agent-forwarding": &o.AgentForwarding,
			"permit-port-forwarding": &o.PortForwarding, "permit-pty": &o.PTY, "permit-user-rc": &o.UserRC,
			"no-touch-required": &o.NoTouchRequired}[name]
		if set == nil {
			continue
		}
		if v != "" {
			return o, fmt.Errorf("certificate option %q has a value", name)
		}
		*set = true
	}
	return o, nil
}

// Merge combines the options of the line that authorizes a certificate with
// those of the certificate: both must permit, either may demand. Two forced
// commands that differ are an error. CertAuthority and Principals have done their work
// and are left out.
func Merge(line, cert Options) (Options, error) {
	o := line
	o.CertAuthority, o.Principals = false, nil
	o.AgentForwarding = line.AgentForwarding && cert.AgentForwarding
	o.PortForwarding = line.PortForwarding && cert.PortForwarding
	o.X11Forwarding = line.X11Forwarding && cert.X11Forwarding
	o.PTY = line.PTY && cert.PTY
	o.UserRC = line.UserRC && cert.UserRC
	o.NoTouchRequired = line.NoTouchRequired && cert.NoTouchRequired
	o.VerifyRequired = line.VerifyRequired || cert.VerifyRequired
	o.FromCert = cert.FromCert
	if cert.HasCommand {
		if line.HasCommand && line.Command != cert.Command {
			return Options{}, errors.New("forced command options do not match")
		}
		o.HasCommand, o.Command = true, cert.Command
	}
	return o, nil
}

// HasPrincipal reports whether a certificate has one of the line's Principals,
// or, where the line names none, the user's name. A certificate without
// principals has none.
func (o *Options) HasPrincipal(c *ssh.Certificate, user string) bool {
	want := o.Principals
	if want == nil {
		want = []string{user}
	}
	return slices.ContainsFunc(c.ValidPrincipals, func(p string) bool { return slices.Contains(want, p) })
}
