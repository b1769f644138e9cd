package inventory

import (
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"maps"
	"net"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strings"

	"mayfly/internal/tomlfile"
)

// Power names the driver that can switch a server and what the driver needs to know.
type Power struct {
	Driver string `toml:"driver" json:"driver"` // one of powerDrivers

	// A machine on the controller's own host.
	Tap            string `toml:"tap,omitempty" json:"tap,omitempty"`
	MAC            string `toml:"mac,omitempty" json:"mac,omitempty"`
	MemoryMiB      int    `toml:"memory_mib,omitempty" json:"memory_mib,omitempty"`
	Firmware       string `toml:"firmware,omitempty" json:"firmware,omitempty"`                 // "kernel" (also if left out) or "uefi"
	SecureBootVars string `toml:"secure_boot_vars,omitempty" json:"secure_boot_vars,omitempty"` // file with the firmware's variables, its keys enrolled

	// A container of a test fleet, on the controller's own host: with tap (the end of its network device), mac and memory_mib.
	Engine    string `toml:"engine,omitempty" json:"engine,omitempty"`         // "docker" or "podman"
	EngineDir string `toml:"engine_dir,omitempty" json:"engine_dir,omitempty"` // docker: where docker.sock is; podman: where its storage is
	Bridge    string `toml:"bridge,omitempty" json:"bridge,omitempty"`         // the network device that tap is put on

	// A BMC.
	Address     string `toml:"address,omitempty" json:"address,omitempty"` // "IP:PORT"
	User        string `toml:"user,omitempty" json:"user,omitempty"`
	Password    string `toml:"password,omitempty" json:"password,omitempty"`       // "sealed:NAME": fleetctl secret seal
	CA          string `toml:"ca,omitempty" json:"ca,omitempty"`                   // PEM; of redfish, this or the next
	Fingerprint string `toml:"fingerprint,omitempty" json:"fingerprint,omitempty"` // SHA-256 of its certificate, lower-case hex
	System      string `toml:"system,omitempty" json:"system,omitempty"`           // which of several behind one Redfish service
	Auth        string `toml:"auth,omitempty" json:"auth,omitempty"`               // "session" (also if left out) or "basic"
	Boot        string `toml:"boot,omitempty" json:"boot,omitempty"`               // what the next boot is set to

	// A site's own program.
	Program  string `toml:"program,omitempty" json:"program,omitempty"`   // exec: absolute path; plugin: file name in the plugins' directory
	SHA256   string `toml:"sha256,omitempty" json:"sha256,omitempty"`     // of that file, lower-case hex; no other runs
	RunAs    string `toml:"run_as,omitempty" json:"run_as,omitempty"`     // the user it runs as, where fleetctl rotate is root
	Settings string `toml:"settings,omitempty" json:"settings,omitempty"` // given to it as it is
}

// Power drivers.
const (
	DriverQEMU    = "qemu"
	DriverIPMI    = "ipmi"
	DriverRedfish = "redfish"
	DriverOrder   = "order"
	DriverExec    = "exec"
	DriverPlugin  = "plugin"

	DriverContainer = "container" // test fleets only
)

// Values of power.engine.
const (
	EngineDocker = "docker"
	EnginePodman = "podman"
)

// Values of power.firmware.
const (
	FirmwareKernel = "kernel"
	FirmwareUEFI   = "uefi"
)

// Values of power.boot.
const (
	BootMedia = "media" // virtual media of the BMC
	BootHTTP  = "http"  // UEFI HTTP boot
	BootPXE   = "pxe"
	BootCD    = "cd"   // the BMC's drive, whatever the site put there
	BootNone  = "none" // the firmware's own order
)

// Values of power.auth.
const (
	AuthSession = "session"
	AuthBasic   = "basic"
)

// Bounds of power.
const (
	maxPowerText = 255
	maxSettings  = 1 << 10
	maxPowerCA   = 16 << 10
	maxIPMIUser  = 16 // IPMI's own
	someBMC      = "a BMC"
)

var (
	sealedName  = regexp.MustCompile(`^sealed:[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	systemName  = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)
	userName    = regexp.MustCompile(`^[A-Za-z0-9._@-]{1,64}$`)
	programName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
)

// powerKeys are the keys of [server.power] that each driver has, beside driver.
var powerKeys = map[string][]string{
	DriverQEMU:    {"tap", "mac", "memory_mib", "firmware", "secure_boot_vars"},
	DriverIPMI:    {"address", "user", "password", "boot"},
	DriverRedfish: {"address", "user", "password", "ca", "fingerprint", "system", "auth", "boot"},
	DriverOrder:   {},
	DriverExec:    {"program", "sha256", "run_as", "settings", "password"},
	DriverPlugin:  {"program", "sha256", "run_as", "settings", "password"},

	DriverContainer: {"tap", "mac", "memory_mib", "engine", "engine_dir", "bridge"},
}

// powerDrivers in the order of their description.
var powerDrivers = []string{DriverQEMU, DriverIPMI, DriverRedfish, DriverOrder, DriverExec, DriverPlugin, DriverContainer}

// given are the keys that are set, by name.
func (p Power) given() map[string]bool {
	return map[string]bool{
		"tap": p.Tap != "", "mac": p.MAC != "", "memory_mib": p.MemoryMiB != 0, "firmware": p.Firmware != "", "secure_boot_vars": p.SecureBootVars != "",
		"engine": p.Engine != "", "engine_dir": p.EngineDir != "", "bridge": p.Bridge != "",
		"address": p.Address != "", "user": p.User != "", "password": p.Password != "", "ca": p.CA != "", "fingerprint": p.Fingerprint != "",
		"system": p.System != "", "auth": p.Auth != "", "boot": p.Boot != "",
		"program": p.Program != "", "sha256": p.SHA256 != "", "run_as": p.RunAs != "", "settings": p.Settings != "",
	}
}

func (c *checker) power(at string, s Server) error {
	p := s.Power
	keys, ok := powerKeys[p.Driver]
	if !ok {
		return tomlfile.At(at+".driver", "known drivers: "+strings.Join(powerDrivers, ", "), "server %q has unknown power driver %q", s.Name, p.Driver)
	}
	given := p.given()
	for _, key := range slices.Sorted(maps.Keys(given)) {
		if given[key] && !slices.Contains(keys, key) {
			return tomlfile.At(at+"."+key, "leave it out, or name another driver", "server %q has power driver %q, which has no %s", s.Name, p.Driver, key)
		}
	}
	switch p.Driver {
	case DriverQEMU:
		return c.machine(at, s)
	case DriverContainer:
		return c.container(at, s)
	case DriverIPMI, DriverRedfish:
		return c.bmc(at, s)
	case DriverExec, DriverPlugin:
		return powerProgram(at, s)
	}
	return nil
}

// machine checks a machine of the controller's own host.
func (c *checker) machine(at string, s Server) error {
	p := s.Power
	if !device.MatchString(p.Tap) {
		return tomlfile.At(at+".tap", "name the tap interface of the machine, at most 15 characters", "server %q has tap %q, which is no interface name", s.Name, p.Tap)
	}
	if other, ok := c.taps[p.Tap]; ok {
		return tomlfile.At(at+".tap", "each machine has a tap of its own", "servers %q and %q both have tap %q", other, s.Name, p.Tap)
	}
	c.taps[p.Tap] = s.Name
	mac, err := net.ParseMAC(p.MAC)
	if err != nil || len(mac) != 6 || mac[0]&1 != 0 || mac.String() != p.MAC {
		return tomlfile.At(at+".mac", "for example mac = \"52:54:00:00:00:11\"", "server %q has MAC %q, which is no unicast address in lower case with colons", s.Name, p.MAC)
	}
	if other, ok := c.macs[p.MAC]; ok {
		return tomlfile.At(at+".mac", "each machine has a MAC of its own", "servers %q and %q both have MAC %s", other, s.Name, p.MAC)
	}
	c.macs[p.MAC] = s.Name
	if p.MemoryMiB != 0 && (p.MemoryMiB < minMemory || p.MemoryMiB > maxMemory) {
		return tomlfile.At(at+".memory_mib", "leave it out for the driver's default", "server %q has %d MiB of memory: it must be %d to %d", s.Name, p.MemoryMiB, minMemory, maxMemory)
	}
	if p.Firmware != "" && p.Firmware != FirmwareKernel && p.Firmware != FirmwareUEFI {
		return tomlfile.At(at+".firmware", "firmware = \"kernel\" or firmware = \"uefi\"", "server %q has unknown firmware %q", s.Name, p.Firmware)
	}
	if v := p.SecureBootVars; v != "" && (p.Firmware != FirmwareUEFI || !absolute(v) || strings.Contains(v, ",")) {
		return tomlfile.At(at+".secure_boot_vars", "an absolute path, beside firmware = \"uefi\"", "server %q has secure_boot_vars %q", s.Name, v)
	}
	return nil
}

// container checks a container of the controller's own host. It proves nothing to anybody.
func (c *checker) container(at string, s Server) error {
	p := s.Power
	switch {
	case !c.fleet.Test:
		return tomlfile.At(at+".driver", "a fleet for tests says test = true", "server %q is a container, and test is false", s.Name)
	case p.Engine != EngineDocker && p.Engine != EnginePodman:
		return tomlfile.At(at+".engine", "engine = \"docker\" or engine = \"podman\"", "server %q has unknown engine %q", s.Name, p.Engine)
	case !absolute(p.EngineDir):
		return tomlfile.At(at+".engine_dir", "an absolute path: where docker.sock is, or podman's storage", "server %q has engine_dir %q", s.Name, p.EngineDir)
	case !device.MatchString(p.Bridge):
		return tomlfile.At(at+".bridge", "name the bridge of the servers' network", "server %q has bridge %q, which is no interface name", s.Name, p.Bridge)
	}
	return c.machine(at, s)
}

// bmc checks what is needed to speak to one. Its address is among the management networks, where no user comes.
func (c *checker) bmc(at string, s Server) error {
	p := s.Power
	a, err := netip.ParseAddrPort(p.Address)
	if err != nil || a.String() != p.Address || a.Port() == 0 || a.Addr().Zone() != "" {
		return tomlfile.At(at+".address", "for example address = \"192.0.2.111:443\"", "server %q has BMC address %q, which is not ADDRESS:PORT", s.Name, p.Address)
	}
	if !within(c.fleet.Network.Management, a.Addr()) {
		return tomlfile.At(at+".address", "add its network to network.management", "the BMC of server %q is at %s, which is in no management network, so users could reach it", s.Name, a.Addr())
	}
	if other, ok := c.addresses[a.Addr()]; ok && other != someBMC {
		return tomlfile.At(at+".address", "a BMC has an address of its own", "the BMC of server %q has address %s, which %s has too", s.Name, a.Addr(), other)
	}
	c.addresses[a.Addr()] = someBMC // several servers may be behind it
	place := p.Driver + " " + p.Address + " " + p.System
	if other, ok := c.bmcs[place]; ok {
		return tomlfile.At(at+".address", "each server has a BMC of its own, or a system of its own behind it", "servers %q and %q have the same BMC", other, s.Name)
	}
	c.bmcs[place] = s.Name
	boots := []string{BootMedia, BootHTTP, BootPXE}
	if p.Driver == DriverIPMI {
		boots = []string{BootPXE, BootCD, BootNone}
	}
	switch {
	case !userName.MatchString(p.User) || p.Driver == DriverIPMI && len(p.User) > maxIPMIUser:
		return tomlfile.At(at+".user", "the BMC's user, one that may do no more than power, boot and media", "server %q has BMC user %q", s.Name, p.User)
	case !sealedName.MatchString(p.Password):
		// The value is not shown: it may be the password itself.
		return tomlfile.At(at+".password", "seal it with `fleetctl secret seal NAME` and write password = \"sealed:NAME\"", "the password of the BMC of server %q is no reference to a sealed secret", s.Name)
	case !slices.Contains(boots, p.Boot):
		return tomlfile.At(at+".boot", "boot = \""+strings.Join(boots, "\", \"")+"\"", "server %q has boot %q, which %s has not", s.Name, p.Boot, p.Driver)
	case p.Driver == DriverIPMI:
		return nil
	case p.System != "" && !systemName.MatchString(p.System):
		return tomlfile.At(at+".system", "the Id of the system in the Redfish service", "server %q has system %q", s.Name, p.System)
	case p.Auth != "" && p.Auth != AuthSession && p.Auth != AuthBasic:
		return tomlfile.At(at+".auth", "auth = \"session\" or auth = \"basic\"", "server %q has auth %q", s.Name, p.Auth)
	case (p.CA == "") == (p.Fingerprint == ""):
		return tomlfile.At(at+".fingerprint", "one of ca (PEM) and fingerprint (SHA-256 of its certificate): nothing else says that it is your BMC", "server %q has not exactly one of ca and fingerprint", s.Name)
	case p.Fingerprint != "" && !hexSum(p.Fingerprint):
		return tomlfile.At(at+".fingerprint", "64 lower-case hex digits: openssl x509 -noout -fingerprint -sha256, without colons", "the fingerprint of the BMC of server %q is no SHA-256", s.Name)
	case p.CA != "" && !certificates(p.CA):
		return tomlfile.At(at+".ca", "one PEM certificate or more, of at most 16 KiB", "the ca of the BMC of server %q is no PEM certificate", s.Name)
	}
	return nil
}

// powerProgram checks a site's own program.
func powerProgram(at string, s Server) error {
	p := s.Power
	switch {
	case p.Driver == DriverExec && !absolute(p.Program):
		return tomlfile.At(at+".program", "its absolute path", "server %q has program %q, which is no plain absolute path", s.Name, p.Program)
	case p.Driver == DriverPlugin && !programName.MatchString(p.Program):
		return tomlfile.At(at+".program", "the file's name in DIR/power-plugins: lower-case letters, digits and -", "server %q has plugin %q, which is no such name", s.Name, p.Program)
	case !hexSum(p.SHA256):
		return tomlfile.At(at+".sha256", "`fleetctl policy plugin-hash FILE` prints it", "server %q has no SHA-256 of its program in lower-case hex", s.Name)
	case p.RunAs != "" && !userName.MatchString(p.RunAs):
		return tomlfile.At(at+".run_as", "a user of the controller's host", "server %q has run_as %q", s.Name, p.RunAs)
	case len(p.Settings) > maxSettings:
		return tomlfile.At(at+".settings", "at most 1024 bytes", "server %q has settings of %d bytes", s.Name, len(p.Settings))
	case p.Password != "" && !sealedName.MatchString(p.Password):
		return tomlfile.At(at+".password", "seal it with `fleetctl secret seal NAME` and write password = \"sealed:NAME\"", "the password for the program of server %q is no reference to a sealed secret", s.Name)
	}
	return nil
}

func absolute(name string) bool {
	return path.IsAbs(name) && path.Clean(name) == name && name != "/" && len(name) <= maxPowerText &&
		!strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r > '~' })
}

func hexSum(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == 32 && strings.ToLower(s) == s
}

func certificates(s string) bool {
	if len(s) > maxPowerCA {
		return false
	}
	n, rest := 0, []byte(s)
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil || block.Type != "CERTIFICATE" {
			return false
		}
		n++
	}
	return n > 0 && strings.TrimSpace(string(rest)) == ""
}

// BMCAddress is where the server's BMC is, if it has one.
func (p Power) BMCAddress() (netip.AddrPort, bool) {
	a, err := netip.ParseAddrPort(p.Address)
	return a, err == nil
}
