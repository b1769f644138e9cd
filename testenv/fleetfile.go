package main

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"text/template"
	"time"

	"mayfly/testenv/netlab"
	"mayfly/testenv/pivcard"
)

// machine is one server of the environment's fleet.
type machine struct {
	Name, Rack, Region, Address, Tunnel, Tap, MAC string
}

// machines of the fleet: region se has two and a floor of one, region nl has one and no floor.
var machines = []machine{
	{"se-1", "se-rack-1", "se", "10.77.0.11/24", "10.64.1.0/24", "tap-se-1", "52:54:00:4d:46:11"},
	{"se-2", "se-rack-2", "se", "10.77.0.12/24", "10.64.2.0/24", "tap-se-2", "52:54:00:4d:46:12"},
	{"nl-1", "nl-rack-1", "nl", "10.77.0.13/24", "10.64.3.0/24", "tap-nl-1", "52:54:00:4d:46:13"},
}

// gate is the server of the fleet that is a bastion, where the environment has one.
var gate = machine{Name: "bastion-2", Rack: "se-rack-1", Region: "se", Address: "10.77.0.14/24", Tap: "tap-bastion-2", MAC: "52:54:00:4d:46:14"}

// envTestBastion makes tests' environments have it: the demo's fleet is three servers.
const envTestBastion = "MAYFLY_TEST_BASTION"

// gates of this environment.
func gates() []machine {
	if os.Getenv(envTestBastion) == "" {
		return nil
	}
	return []machine{gate}
}

// five machines of the test of a rotation with failures: three in region se, whose floor is one, and two in nl.
var five = []machine{
	machines[0], machines[1],
	{"se-3", "se-rack-3", "se", "10.77.0.15/24", "10.64.5.0/24", "tap-se-3", "52:54:00:4d:46:15"},
	machines[2],
	{"nl-2", "nl-rack-2", "nl", "10.77.0.16/24", "10.64.6.0/24", "tap-nl-2", "52:54:00:4d:46:16"},
}

// envTestFive makes a test's environment have the five, and rules under which a failure is seen at once: no second try, a bake longer than a
// server's silence is suffered.
const envTestFive = "MAYFLY_TEST_FIVE"

func init() {
	if os.Getenv(envTestFive) != "" {
		machines = five
	}
}

const (
	fleetName    = "lab"
	fleetDomain  = "lab.mayfly.internal"
	bastionName  = "bastion-1"
	bastionPort  = 2222
	bootPort     = 8080
	pagePort     = 8446
	witnessName  = "ida"
	witnessPort  = 8700
	capacity     = 1000
	floorOfSE    = 1000
	memoryMiB    = 512
	rootServer   = "a.root-lab."
	webName      = "web.target-lab"
	engineer     = "alice"
	colleague    = "bob" // granted nl-1 only
	stranger     = "mallory"
	testEvidence = "test:softkey+uv"
	webPort      = 80
)

// zoneRecords are the lab's whole public DNS.
func zoneRecords() []string {
	return []string{
		`root-lab. 300 IN TXT "the lab's own root"`,
		fmt.Sprintf("%s 300 IN A %s", rootServer, netlab.DNSRoot),
		`target-lab. 300 IN TXT "what lies behind the fleet"`,
		fmt.Sprintf("%s. 300 IN A %s", webName, netlab.WebTarget),
	}
}

var fleetTemplate = template.Must(template.New("fleet").Parse(`# Made by testenv: three servers on one machine. A test fleet: software keys count.
name = "{{.Name}}"
domain = "{{.Domain}}"
test = true
witnesses = ["{{.Witness}}"]

[network]
management = ["{{.Management}}"]
gateway = "{{.Gateway}}"

[controller]
address = "{{.Gateway}}"
boot_port = {{.BootPort}}
join_port = 8443
checkin_port = 8444
page_port = {{.PagePort}}

[dns]
trust_anchors = ["{{.Anchor}}"]

[[dns.root]]
name = "{{.RootServer}}"
address = "{{.DNSRoot}}"

[[bastion]]
name = "{{.Bastion}}"
address = "{{.BastionAddress}}"
port = {{.BastionPort}}

[[region]]
name = "se"
floor = {{.Floor}}

[[region]]
name = "nl"
floor = 0
{{range .Machines}}
[[rack]]
name = "{{.Rack}}"
region = "{{.Region}}"
{{end}}{{range .Machines}}
[[server]]
name = "{{.Name}}"
rack = "{{.Rack}}"
role = "vpn"
address = "{{.Address}}"
capacity = {{$.Capacity}}
tunnel = "{{.Tunnel}}"
{{if $.Engine}}power = { driver = "container", engine = "{{$.Engine}}", engine_dir = "{{$.EngineDir}}", bridge = "{{$.Bridge}}", tap = "{{.Tap}}", mac = "{{.MAC}}", memory_mib = {{$.Memory}} }
{{else if $.TPM}}endorsement_key = "{{index $.Endorsements .Name}}"
power = { driver = "qemu", firmware = "uefi", tap = "{{.Tap}}", mac = "{{.MAC}}", memory_mib = {{$.Memory}} }
{{else}}power = { driver = "qemu", tap = "{{.Tap}}", mac = "{{.MAC}}", memory_mib = {{$.Memory}} }
{{end}}{{end}}{{range .Gates}}
[[server]]
name = "{{.Name}}"
rack = "{{.Rack}}"
role = "bastion"
address = "{{.Address}}"
power = { driver = "qemu", tap = "{{.Tap}}", mac = "{{.MAC}}", memory_mib = {{$.Memory}} }
{{end}}`))

// floor of region se: one of its two servers always serves.
func floor() int {
	if !slices.ContainsFunc(machines, func(m machine) bool { return m.Region == "se" }) {
		return 0
	}
	return floorOfSE
}

// fleetText is fleet.toml with the anchor of the lab's DNS root.
func (e *environment) fleetText(anchor string) ([]byte, error) {
	return render(fleetTemplate, map[string]any{
		"Name": fleetName, "Domain": fleetDomain, "Management": netlab.Management, "Gateway": netlab.Controller, "Anchor": anchor,
		"RootServer": rootServer, "DNSRoot": netlab.DNSRoot, "Bastion": bastionName, "BastionAddress": netlab.Bastion,
		"BastionPort": bastionPort, "BootPort": bootPort, "PagePort": pagePort, "Floor": floor(), "Machines": machines, "Gates": gates(), "Witness": witnessURL, "Capacity": capacity, "Memory": memoryMiB,
		"Engine": e.engine, "EngineDir": e.engineDir(), "Bridge": netlab.Bridge, "TPM": e.tpm, "Endorsements": e.endorsements,
	})
}

var policyTemplate = template.Must(template.New("policy").Parse(`# Made by testenv.
version = 1
expires = {{.Expires}}

[ssh]
level = "pq-preferred"
allow = ["{{.Allowed}}/32"]
verify_required = true

[hardware]
test_roots = ["softkey"]
{{range .Issuers}}
[[hardware.test_issuer]]
name = "{{.Name}}"
applet = "{{.Applet}}"
certificate = "{{.Certificate}}"
{{end}}{{range .Engineers}}
[[engineer]]
name = "{{.Name}}"
{{if .Key}}
[[engineer.key]]
public = "{{.Key}}"
evidence = "{{$.Evidence}}"
{{end}}{{end}}
[[grant]]
engineers = ["{{.Engineer}}"]
servers = ["*"]
ports = [22]

[[grant]]
engineers = ["{{.Colleague}}"]
servers = ["region:nl"]
ports = [22]

[rotation]
max_age = "24h"
{{if .Five}}max_parallel = 3
drain_limit = "20s"
boot_limit = "90s"
bake = "18s"
retries = 0
{{else}}max_parallel = 2
drain_limit = "20s"
boot_limit = "3m"
bake = "2s"
retries = 1
{{end}}
[image]
min_version = 1
tpm = "{{if .TPM}}required{{else}}off{{end}}"
`))

// person is an engineer; Key is a software key of the test root "softkey", if that is what they hold.
type person struct{ Name, Key string }

// policyText is policy.toml, before the keys of cards are added.
func (e *environment) policyText(people []person, issuers []pivcard.DeviceIssuer, now time.Time) ([]byte, error) {
	return render(policyTemplate, map[string]any{
		"Expires": now.Add(7 * 24 * time.Hour).UTC().Format(time.RFC3339), "Allowed": netlab.Engineer,
		"Engineers": people, "Issuers": issuers, "Evidence": testEvidence, "Engineer": engineer, "Colleague": colleague,
		"TPM": e.tpm, "Five": len(machines) == len(five),
	})
}

func render(t *template.Template, data any) ([]byte, error) {
	var out bytes.Buffer
	if err := t.Execute(&out, data); err != nil {
		return nil, fmt.Errorf("writing the %s file: %w", t.Name(), err)
	}
	return out.Bytes(), nil
}
