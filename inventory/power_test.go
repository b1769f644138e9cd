package inventory

import (
	"os"
	"slices"
	"strings"
	"testing"

	"mayfly/internal/hint"
)

const (
	testSum = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	testCA  = "-----BEGIN CERTIFICATE-----\\nMIIB\\n-----END CERTIFICATE-----\\n"
)

// with is the test fleet with another [server.power] of se-2.
func with(t *testing.T, power string) error {
	t.Helper()
	const old = `power = { driver = "qemu", tap = "mf-se-2", mac = "52:54:00:00:00:12", memory_mib = 512 }`
	text := read(t)
	if !strings.Contains(text, old) {
		t.Fatal("the test fleet has changed")
	}
	_, err := Parse("fleet.toml", []byte(strings.Replace(text, old, "power = { "+power+" }", 1)))
	return err
}

func TestPower(t *testing.T) {
	for _, good := range []string{
		`driver = "qemu", tap = "mf-se-2", mac = "52:54:00:00:00:12", firmware = "kernel"`,
		`driver = "qemu", tap = "mf-se-2", mac = "52:54:00:00:00:12", firmware = "uefi", secure_boot_vars = "/srv/vars.fd"`,
		`driver = "ipmi", address = "10.77.0.111:623", user = "mayfly", password = "sealed:se-2-bmc", boot = "pxe"`,
		`driver = "redfish", address = "10.77.0.111:443", user = "mayfly", password = "sealed:se-2-bmc", fingerprint = "` + testSum + `", boot = "media"`,
		`driver = "redfish", address = "10.77.0.111:443", user = "mayfly", password = "sealed:b", fingerprint = "` + testSum + `", boot = "http", system = "Self", auth = "basic"`,
		`driver = "order"`,
		`driver = "container", engine = "podman", engine_dir = "/var/lib/x", bridge = "mf0", tap = "mf-se-2", mac = "52:54:00:00:00:12"`,
		`driver = "exec", program = "/usr/local/bin/pdu", sha256 = "` + testSum + `", run_as = "pdu", settings = "outlet 7"`,
		`driver = "plugin", program = "pdu", sha256 = "` + testSum + `", password = "sealed:pdu"`,
	} {
		if err := with(t, good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
}

func TestPowerRefuses(t *testing.T) {
	redfish := `driver = "redfish", address = "10.77.0.111:443", user = "mayfly", password = "sealed:b", fingerprint = "` + testSum + `", boot = "media"`
	ipmi := `driver = "ipmi", address = "10.77.0.111:623", user = "mayfly", password = "sealed:b", boot = "pxe"`
	program := `driver = "exec", program = "/usr/local/bin/pdu", sha256 = "` + testSum + `"`
	qemu := `driver = "qemu", tap = "mf-se-2", mac = "52:54:00:00:00:12"`
	container := `driver = "container", engine = "docker", engine_dir = "/var/lib/x", bridge = "mf0", tap = "mf-se-2", mac = "52:54:00:00:00:12"`
	for _, tt := range []struct{ base, from, to, want string }{
		{qemu, `driver = "qemu"`, `driver = "virsh"`, "unknown power driver"},
		{container, `"docker"`, `"lxc"`, "unknown engine"},
		{container, `"/var/lib/x"`, `"x"`, "engine_dir"},
		{container, `"mf0"`, `"a bridge"`, "no interface name"},
		{container, `, mac = "52:54:00:00:00:12"`, ``, "MAC"},
		{qemu, `driver`, `user = "x", driver`, "which has no user"},
		{qemu, `driver`, `firmware = "bios", driver`, "unknown firmware"},
		{qemu, `driver`, `secure_boot_vars = "/x", driver`, "secure_boot_vars"},
		{qemu, `driver`, `firmware = "uefi", secure_boot_vars = "x", driver`, "secure_boot_vars"},
		{qemu, `driver`, `firmware = "uefi", secure_boot_vars = "/a,b", driver`, "secure_boot_vars"},
		{ipmi, `10.77.0.111:623`, `10.77.0.111`, "not ADDRESS:PORT"},
		{ipmi, `10.77.0.111:623`, `bmc.example:623`, "not ADDRESS:PORT"},
		{ipmi, `10.77.0.111:623`, `198.51.100.1:623`, "no management network, so users could reach it"},
		{ipmi, `10.77.0.111:623`, `10.77.0.11:623`, "which server se-1 has too"},
		{ipmi, `"mayfly"`, `"a user of seventeen"`, "BMC user"},
		{ipmi, `"mayfly"`, `"seventeen-letters"`, "BMC user"},
		{ipmi, `"sealed:b"`, `"hunter2"`, "no reference to a sealed secret"},
		{ipmi, `"pxe"`, `"media"`, "which ipmi has not"},
		{ipmi, `boot`, `system = "1", boot`, "which has no system"},
		{redfish, `"media"`, `"cd"`, "which redfish has not"},
		{redfish, `boot`, `auth = "none", boot`, "auth"},
		{redfish, `boot`, `system = "../x", boot`, "system"},
		{redfish, `boot`, `ca = "x", boot`, "not exactly one of ca and fingerprint"},
		{redfish, `fingerprint = "` + testSum + `", `, ``, "not exactly one of ca and fingerprint"},
		{redfish, `fingerprint = "` + testSum + `"`, `ca = "` + testCA + `"`, "no PEM certificate"},
		{redfish, testSum, strings.ToUpper(testSum), "no SHA-256"},
		{program, `/usr/local/bin/pdu`, `pdu`, "no plain absolute path"},
		{program, `/usr/local/bin/pdu`, `/usr/../bin/pdu`, "no plain absolute path"},
		{program, testSum, "00", "no SHA-256"},
		{program, `driver`, `run_as = "a b", driver`, "run_as"},
		{program, `driver`, `settings = "` + strings.Repeat("x", maxSettings+1) + `", driver`, "settings of"},
		{program, `driver`, `password = "hunter2", driver`, "no reference to a sealed secret"},
		{program, `"exec", program = "/usr/local/bin/pdu"`, `"plugin", program = "/usr/local/bin/pdu"`, "no such name"},
		{`driver = "order"`, `driver`, `mac = "52:54:00:00:00:12", driver`, "which has no mac"},
	} {
		text := strings.Replace(tt.base, tt.from, tt.to, 1)
		if text == tt.base {
			t.Fatalf("%s: nothing was replaced", tt.from)
		}
		err := with(t, text)
		if err == nil || !strings.Contains(err.Error(), tt.want) || hint.Of(err) == "" || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: got %v (hint %q), want %q", text, err, hint.Of(err), tt.want)
		}
	}
}

// TestSharedBMC: a BMC with several systems is named by each of their servers; the same system is not.
func TestSharedBMC(t *testing.T) {
	power := func(system string) string {
		return `power = { driver = "redfish", address = "10.77.0.111:443", user = "mayfly", password = "sealed:b", fingerprint = "` + testSum + `", boot = "media", system = "` + system + `" }`
	}
	both := func(a, b string) error {
		text := read(t)
		for i, old := range []string{`power = { driver = "qemu", tap = "mf-se-1", mac = "52:54:00:00:00:11", memory_mib = 512 }`, `power = { driver = "qemu", tap = "mf-se-2", mac = "52:54:00:00:00:12", memory_mib = 512 }`} {
			if !strings.Contains(text, old) {
				t.Fatal("the test fleet has changed")
			}
			text = strings.Replace(text, old, power([]string{a, b}[i]), 1)
		}
		_, err := Parse("fleet.toml", []byte(text))
		return err
	}
	if err := both("1", "2"); err != nil {
		t.Error(err)
	}
	if err := both("1", "1"); err == nil || !strings.Contains(err.Error(), "have the same BMC") {
		t.Errorf("got %v", err)
	}
}

// TestPowerDocs: docs/formats/fleet.md names every key, with every driver that has it.
func TestPowerDocs(t *testing.T) {
	data, err := os.ReadFile("../docs/formats/fleet.md")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(data), "\n")
	for driver, keys := range powerKeys {
		for _, key := range keys {
			if !slices.ContainsFunc(lines, func(l string) bool {
				first, rest, _ := strings.Cut(strings.TrimPrefix(l, "| "), " | ")
				return strings.Contains(first, "`"+key+"`") && strings.Contains(rest, "`"+driver+"`")
			}) {
				t.Errorf("docs/formats/fleet.md lacks %s of driver %s", key, driver)
			}
		}
	}
}

// Containers prove nothing: only a fleet for tests has them.
func TestContainersInTestFleets(t *testing.T) {
	const old = `power = { driver = "qemu", tap = "mf-se-2", mac = "52:54:00:00:00:12", memory_mib = 512 }`
	text := strings.Replace(read(t), old, `power = { driver = "container", engine = "docker", engine_dir = "/var/lib/x", bridge = "mf0", tap = "mf-se-2", mac = "52:54:00:00:00:12" }`, 1)
	if _, err := Parse("fleet.toml", []byte(text)); err != nil {
		t.Fatal(err)
	}
	earnest := strings.Replace(text, "test = true", "test = false", 1)
	if earnest == text {
		t.Fatal("the test fleet has changed")
	}
	if _, err := Parse("fleet.toml", []byte(earnest)); err == nil || !strings.Contains(err.Error(), "is a container, and test is false") {
		t.Errorf("got %v, want a refusal", err)
	}
}

// One TPM is one server's.
func TestEndorsementKeys(t *testing.T) {
	text := read(t)
	for i, name := range []string{"se-1", "se-2"} {
		at := "name = \"" + name + "\"\n"
		if !strings.Contains(text, at) {
			t.Fatal("the test fleet has changed")
		}
		text = strings.Replace(text, at, at+"endorsement_key = \""+testSum+"\"\n", 1)
		if _, err := Parse("fleet.toml", []byte(text)); (err != nil) != (i == 1) || i == 1 && !strings.Contains(err.Error(), "the same endorsement_key") {
			t.Errorf("with %d servers: got %v", i+1, err)
		}
	}
}
