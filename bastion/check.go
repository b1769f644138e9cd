package bastion

import (
	"errors"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/inventory"
	"mayfly/policies"
)

// Report is what a configuration and its policy would serve.
type Report struct {
	Listen       string               `json:"listen"`
	Fleet        string               `json:"fleet"`
	Test         bool                 `json:"test"` // software authenticators can be enrolled
	Policy       uint64               `json:"policy"`
	Expires      time.Time            `json:"expires"`
	Level        policies.Level       `json:"level"`
	Algorithms   ReportAlgorithms     `json:"algorithms"`
	Offered      []ReportOffer        `json:"offered"`       // the same in one list, with what each is for
	LockedOut    []policies.LockedOut `json:"locked_out"`    // widely used clients that cannot connect
	Software     []string             `json:"software_keys"` // offered as well, and refused by name, unless it is a robot's
	HostNames    []string             `json:"host_names"`    // of the host certificate
	HostExpires  time.Time            `json:"host_certificate_expires"`
	HostCA       string               `json:"host_certificate_authority"` // fingerprint, to compare with the known_hosts of engineers
	Allow        []netip.Prefix       `json:"allow"`
	Proxies      []netip.Prefix       `json:"proxies"` // balancers, which connect for others
	Filter       int                  `json:"filter_instructions"`
	Engineers    []ReportEngineer     `json:"engineers"`
	Rejected     []policies.Rejected  `json:"rejected_keys"` // enrolled, and let nobody in
	Robots       []ReportRobot        `json:"robots"`
	Outside      []policies.Outside   `json:"outside"` // own addresses that the bastion's list does not have
	Certificates ReportCertificates   `json:"certificates"`
	Hosts        []ReportHost         `json:"hosts"`
	Witness      ReportWitness        `json:"witness"`
	Sandbox      ReportSandbox        `json:"sandbox"`
	Session      ReportSession        `json:"session"`
}

// ReportWitness is who confirmed, just now, that the policy is the newest.
type ReportWitness struct {
	Threshold int               `json:"threshold"` // witnesses that must; 0: nobody is asked, in a test fleet
	Confirmed []string          `json:"confirmed"`
	Grace     policies.Duration `json:"grace"` // how long sessions begin without another confirmation
}

// ReportAlgorithms is what the policy's level offers.
type ReportAlgorithms struct {
	KeyExchanges []string `json:"key_exchanges"`
	Ciphers      []string `json:"ciphers"`
	MACs         []string `json:"macs"`
	HostKeys     []string `json:"host_keys"`
	PublicKeys   []string `json:"public_keys"`
}

// ReportOffer is an algorithm and why it is offered.
type ReportOffer struct {
	Use  string `json:"use"` // "key_exchange", "cipher", "mac", "host_key", "user_key"
	Name string `json:"name"`
	Why  string `json:"why"`
}

// ReportRobot is one robot of the policy.
type ReportRobot struct {
	Name     string       `json:"name"`
	Source   netip.Prefix `json:"source"`
	Servers  []string     `json:"servers"`
	Commands int          `json:"commands"`
}

// ReportCertificates is which user certificates count, and what is revoked.
type ReportCertificates struct {
	Authorities []string          `json:"authorities"` // fingerprints; empty: certificates are refused
	MaxLife     policies.Duration `json:"max_life"`
	Revoked     uint64            `json:"krl_version"` // of the key revocation list; 0: none, or it has none
	Made        string            `json:"krl_made"`    // when the list was made; empty: there is none
	Verify      bool              `json:"verify_required"`
}

// ReportEngineer is one engineer of the policy.
type ReportEngineer struct {
	Name  string         `json:"name"`
	Keys  int            `json:"keys"`
	Allow []netip.Prefix `json:"allow"` // empty: from everywhere that the bastion's list has
}

// ReportHost is a server and who may open which of its ports.
type ReportHost struct {
	Name    string     `json:"name"`
	Address netip.Addr `json:"address"`
	Grants  []string   `json:"grants"` // "anna:22", "anna:22 (approval, drained, windows)", "glass:22 (break-glass)"
}

// CheckList is the part of Check that a firewall needs: the policy's addresses. It reads no host key, so that root can ask for it.
func CheckList(c Config, now time.Time) (Report, error) {
	seen, err := seenVersion(c)
	if err != nil {
		return Report{}, err
	}
	b, _, err := loadFresh(c, seen, nil, now)
	if err != nil {
		return Report{}, err
	}
	return Report{Policy: b.Version, Allow: b.Policy.SSH.Allow, Proxies: b.Policy.SSH.Proxies}, nil
}

// Check loads all that Serve would load, refuses what Serve would refuse, and changes nothing.
func Check(c Config, now time.Time) (Report, error) {
	if err := errors.Join(c.checkSandbox(), c.checkPlaces()); err != nil {
		return Report{}, err
	}
	seen, err := seenVersion(c)
	if err != nil {
		return Report{}, err
	}
	r, err := load(c, seen, now)
	if err != nil {
		return Report{}, err
	}
	session, err := loadSessions(c)
	if err != nil {
		return Report{}, err
	}
	algorithms, err := r.bundle.Policy.Algorithms()
	if err != nil {
		return Report{}, err
	}
	report := Report{
		Listen: c.Listen.String(), Fleet: r.bundle.Fleet, Test: r.bundle.Inventory.Test,
		Policy: r.bundle.Version, Expires: r.bundle.Expires.UTC(), Level: r.bundle.Policy.SSH.Level,
		Algorithms: ReportAlgorithms{KeyExchanges: listed(algorithms.KeyExchanges), Ciphers: listed(algorithms.Ciphers), MACs: listed(algorithms.MACs),
			HostKeys: listed(algorithms.HostKeys), PublicKeys: listed(algorithms.PublicKeys)},
		Software:  listed(softwareOnly(algorithms)),
		HostNames: listed(r.keys.certificate.ValidPrincipals), HostExpires: r.keys.validBefore().UTC(),
		HostCA: ssh.FingerprintSHA256(r.keys.certificate.SignatureKey),
		Allow:  listed(r.bundle.Policy.SSH.Allow), Proxies: listed(r.bundle.Policy.SSH.Proxies), Filter: len(r.filter), Engineers: []ReportEngineer{}, Robots: []ReportRobot{}, Hosts: listed(r.hosts()),
		Rejected: listed(r.rejected), Sandbox: c.reportSandbox(r), Outside: listed(r.bundle.Policy.Outside()),
		Session: session.report(r),
	}
	last, _ := r.fresh.state()
	report.Witness = ReportWitness{Threshold: r.fresh.trust.WitnessThreshold, Confirmed: listed(last.Witnesses), Grace: policies.Duration(r.fresh.grace)}
	for _, e := range r.bundle.Policy.Engineers {
		report.Engineers = append(report.Engineers, ReportEngineer{Name: e.Name, Keys: len(e.Keys), Allow: listed(e.Allow)})
	}
	for _, r := range r.bundle.Policy.Robots {
		report.Robots = append(report.Robots, ReportRobot{Name: r.Name, Source: r.Source, Servers: listed(r.Servers), Commands: len(r.Commands)})
	}
	report.Offered, report.LockedOut = offered(algorithms), algorithms.LockedOut()
	report.Certificates = certificatesOf(r.bundle.Policy)
	return report, nil
}

// offered says what is offered and why, in the order of preference.
func offered(a policies.Algorithms) []ReportOffer {
	list := []ReportOffer{}
	for _, l := range []struct {
		use   string
		names []string
	}{{"key_exchange", a.KeyExchanges}, {"cipher", a.Ciphers}, {"mac", a.MACs}, {"host_key", a.HostKeys}, {"user_key", a.PublicKeys}} {
		for _, name := range l.names {
			list = append(list, ReportOffer{Use: l.use, Name: name, Why: policies.Why(name)})
		}
	}
	return list
}

func certificatesOf(p policies.Policy) ReportCertificates {
	c := ReportCertificates{Authorities: []string{}, MaxLife: p.Certificates.Life(), Verify: p.SSH.VerifyRequired}
	for _, text := range p.Certificates.Authorities {
		if key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(text)); err == nil {
			c.Authorities = append(c.Authorities, ssh.FingerprintSHA256(key))
		}
	}
	if list := p.Certificates.KRL.List(); list != nil {
		c.Revoked, c.Made = list.Version, list.Generated().Format(time.RFC3339)
	}
	return c
}

// listed is the list, and not nil, which JSON would write as null.
func listed[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// softwareOnly is what the bastion offers beside a level's algorithms of user keys, to refuse it by name.
func softwareOnly(a policies.Algorithms) []string {
	return slices.DeleteFunc(slices.Clone(softwareKeyTypes), func(name string) bool { return slices.Contains(a.PublicKeys, name) })
}

// hosts lists every server with its grants, as the policy writes them; addresses and keys are decided at login.
func (r *ruling) hosts() []ReportHost {
	fleet := &r.bundle.Inventory
	var hosts []ReportHost
	for _, server := range fleet.Servers {
		host := ReportHost{Name: server.Name, Address: server.Address.Addr(), Grants: []string{}}
		for _, grant := range r.bundle.Policy.Grants {
			if !grant.Covers(server.Name, fleet.RegionOf(server.Name)) {
				continue
			}
			for _, engineer := range grant.Engineers {
				host.Grants = append(host.Grants, grantText(engineer, grant.Ports)+conditions(grant, server.Role))
			}
		}
		for _, b := range r.bundle.Policy.BreakGlass {
			if (policies.Grant{Servers: b.Servers}).Covers(server.Name, fleet.RegionOf(server.Name)) {
				host.Grants = append(host.Grants, grantText(b.Name, b.Ports)+" (break-glass)")
			}
		}
		hosts = append(hosts, host)
	}
	return hosts
}

// conditions names what a grant asks for besides.
func conditions(g policies.Grant, role string) string {
	var list []string
	if g.Session {
		list = append(list, "recorded")
	}
	if g.Approval {
		list = append(list, "approval")
	}
	if g.Drained && role == inventory.RoleVPN {
		list = append(list, "drained")
	}
	if len(g.Windows) > 0 {
		list = append(list, "windows")
	}
	if len(list) == 0 {
		return ""
	}
	return " (" + strings.Join(list, ", ") + ")"
}

func grantText(engineer string, ports []uint16) string {
	text := engineer + ":"
	for i, port := range ports {
		if i > 0 {
			text += ","
		}
		text += strconv.Itoa(int(port))
	}
	return text
}
