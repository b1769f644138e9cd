package inventory

import (
	"strings"
	"testing"

	"mayfly/internal/hint"
)

const asking = `

[[server]]
name = "box-1"
role = "host"
address = "10.77.0.61/24"
rack = "se-a"
capacity = 500
updates = "omaha"
update_id = "4f1e0c9e9b5e4c0d8f0a7d1b2c3d4e5f"

[[update]]
app = "e96281a6-d1af-4bde-9a0a-97b76e56dc57"
track = "stable"
version = "4230.2.1"
url = "https://mirror.lab.test/flatcar/4230.2.1/"
package = "flatcar_production_update.gz"
size = 480000000
sha1 = "AAAAAAAAAAAAAAAAAAAAAAAAAAA="
sha256 = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
`

// TestUpdates: what is said of hosts that ask, of what they are given and of where numbers are published is refused by its line where it is wrong.
func TestUpdates(t *testing.T) {
	whole := strings.Replace(read(t), "checkin_port = 8444\n", "checkin_port = 8444\nupdates_port = 8446\nmetrics = \"10.77.0.1:9123\"\nmetrics_allow = [\"10.77.0.0/24\"]\n", 1) + asking
	f, err := Parse("fleet.toml", []byte(whole))
	if err != nil {
		t.Fatal(err)
	}
	if got := f.Asking(); len(got) != 1 || got[0].Name != "box-1" || f.RegionOf("box-1") != "se" {
		t.Errorf("got hosts that ask %+v", got)
	}
	if had := parsed(t); f.Capacity("se") != had.Capacity("se") {
		t.Errorf("region se has %d Mbit/s with a host in it, and %d without: floors are of what mayfly rebuilds", f.Capacity("se"), had.Capacity("se"))
	}
	for _, tt := range []struct{ old, now, want string }{
		{`updates = "omaha"`, `updates = "post"`, `asks by "post", which is unknown`},
		{"rack = \"se-a\"\ncapacity = 500\nupdates = \"omaha\"", ``, "has an update_id without updates"},
		{`update_id = "4f1e0c9e9b5e4c0d8f0a7d1b2c3d4e5f"`, `update_id = "a b"`, `has update_id "a b"`},
		{"rack = \"se-a\"\ncapacity = 500", "rack = \"no\"\ncapacity = 500", `is in rack "no", which does not exist`},
		{"capacity = 500", "capacity = 0", "has capacity 0"},
		{"updates_port = 8446", "", "has no updates_port"},
		{"updates_port = 8446", "updates_port = 8443", "which another service has"},
		{`role = "host"`, `role = "vpn"`, "is no host, and has updates"},
		{`app = "e9`, `app = " e9`, "app"},
		{`track = "stable"`, `track = "sta ble"`, "track"},
		{`version = "4230.2.1"`, `version = ""`, "version"},
		{`url = "https://`, `url = "ftp://`, "no http or https URL"},
		{`4230.2.1/"`, `4230.2.1"`, "ends in a slash"},
		{`package = "f`, `package = "../f`, "package"},
		{"size = 480000000", "size = 0", "size 0"},
		{`AAA="` + "\nsha256", `AA=="` + "\nsha256", "is not 20 bytes"},
		{`sha256 = "AAAA`, `sha256 = "AAA`, "is not 32 bytes"},
		{`metrics = "10.77.0.1:9123"`, `metrics = "0.0.0.0:9123"`, "one address, not all"},
		{`metrics = "10.77.0.1:9123"`, `metrics = "here"`, "neither address and port"},
		{`metrics = "10.77.0.1:9123"`, ``, "metrics_allow without metrics"},
		{`metrics_allow = ["10.77.0.0/24"]`, ``, "is not on loopback"},
		{`metrics_allow = ["10.77.0.0/24"]`, `metrics_allow = ["10.77.0.1/24"]`, "has host bits set"},
	} {
		if strings.Count(whole, tt.old) == 0 {
			t.Errorf("the example lacks %q", tt.old)
			continue
		}
		i := strings.LastIndex(whole, tt.old)
		text := whole[:i] + tt.now + whole[i+len(tt.old):]
		_, err := Parse("fleet.toml", []byte(text))
		if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), "fleet.toml:") || hint.Of(err) == "" {
			t.Errorf("%q for %q: got %v (hint %q), want a place, a hint and %q", tt.now, tt.old, err, hint.Of(err), tt.want)
		}
	}
	second := strings.Replace(asking[:strings.Index(asking, "[[update]]")], "box-1", "box-2", 1)
	if _, err := Parse("fleet.toml", []byte(whole+strings.Replace(second, "10.77.0.61", "10.77.0.62", 1))); err == nil || !strings.Contains(err.Error(), "has the update_id of") {
		t.Errorf("two hosts with one id: got %v", err)
	}
	twice := asking[strings.Index(asking, "[[update]]"):]
	if _, err := Parse("fleet.toml", []byte(whole+twice)); err == nil || !strings.Contains(err.Error(), "twice") {
		t.Errorf("a track twice: got %v", err)
	}
	for _, text := range []string{`"127.0.0.1:9123"`, `"[::1]:9123"`, `"/run/mayfly-serve/metrics.sock"`} {
		text = strings.Replace(whole, "metrics = \"10.77.0.1:9123\"\nmetrics_allow = [\"10.77.0.0/24\"]", "metrics = "+text, 1)
		if _, err := Parse("fleet.toml", []byte(text)); err != nil {
			t.Errorf("got %v", err)
		}
	}
}
