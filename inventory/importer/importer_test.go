package importer

import (
	"strings"
	"testing"

	"mayfly/internal/hint"
	"mayfly/inventory"
)

const base = `name = "lab"
domain = "lab.internal"

[network]
management = ["10.77.0.0/24"]
gateway = "10.77.0.1"

[controller]
address = "10.77.0.1"
boot_port = 8080
join_port = 8443
checkin_port = 8444

[[bastion]]
name = "gate"
address = "10.77.0.2"
port = 22

[[region]]
name = "se"

[[rack]]
name = "se-a"
region = "se"

[[server]]
name = "se-1"
rack = "se-a"
role = "vpn"
address = "10.77.0.11/24"
capacity = 1000
tunnel = "10.64.1.0/24"
power = { driver = "qemu", tap = "mf-se-1", mac = "52:54:00:00:00:11" }
`

// Every format brings the same two machines: one that is known (with another capacity) and one that is new, in a region of its own.
var sources = map[string]string{
	CSV: "name,rack,region,role,address,capacity,tunnel,power.driver,power.tap,power.mac\n" +
		"se-1,se-a,se,vpn,10.77.0.11/24,2000,10.64.1.0/24,qemu,mf-se-1,52:54:00:00:00:11\n" +
		"nl-1,nl-a,nl,vpn,10.77.0.13/24,1000,10.64.3.0/24,qemu,mf-nl-1,52:54:00:00:00:13\n",
	JSON: `[{"name": "se-1", "rack": "se-a", "region": "se", "role": "vpn", "address": "10.77.0.11/24", "capacity": 2000, "tunnel": "10.64.1.0/24", "power": {"driver": "qemu", "tap": "mf-se-1", "mac": "52:54:00:00:00:11"}},
		{"name": "nl-1", "rack": "nl-a", "region": "nl", "role": "vpn", "address": "10.77.0.13/24", "capacity": 1000, "tunnel": "10.64.3.0/24", "power": {"driver": "qemu", "tap": "mf-nl-1", "mac": "52:54:00:00:00:13"}}]`,
	Ansible: `# an INI inventory
[vpn:vars]
role=vpn
power.driver="qemu"

[se]
se-1 ansible_host=10.77.0.11/24 rack=se-a capacity=2000 tunnel=10.64.1.0/24 power.tap=mf-se-1 power.mac='52:54:00:00:00:11'

[nl]
nl-[1:1] ansible_host=10.77.0.13/24 rack=nl-a tunnel=10.64.3.0/24 power.tap=mf-nl-1 power.mac=52:54:00:00:00:13 # the new one

[nl:vars]
region = nl
capacity = 1000

[vpn:children]
se
nl

[web]
www.example.org
`,
	Terraform: `{"version": 4, "resources": [
		{"mode": "data", "type": "image", "name": "x", "instances": [{"attributes": {"name": "not-a-server"}}]},
		{"mode": "managed", "type": "machine", "name": "vpn", "module": "module.fleet", "instances": [
			{"index_key": 0, "attributes": {"name": "se-1", "rack": "se-a", "region": "se", "role": "vpn", "address": "10.77.0.11/24", "capacity": 2000, "tunnel": "10.64.1.0/24", "power": {"driver": "qemu", "tap": "mf-se-1", "mac": "52:54:00:00:00:11"}}},
			{"index_key": "b", "attributes": {"name": "nl-1", "rack": "nl-a", "region": "nl", "role": "vpn", "address": "10.77.0.13/24", "capacity": 1000, "tunnel": "10.64.3.0/24", "power": {"driver": "qemu", "tap": "mf-nl-1", "mac": "52:54:00:00:00:13"}}}]}]}`,
}

const wantTOML = `
[[region]]
name = "nl"

[[rack]]
name = "nl-a"
region = "nl"

[[server]]
name = "nl-1"
rack = "nl-a"
role = "vpn"
address = "10.77.0.13/24"
capacity = 1000
tunnel = "10.64.3.0/24"
power = { driver = "qemu", mac = "52:54:00:00:00:13", tap = "mf-nl-1" }
`

func TestFormats(t *testing.T) {
	for format, source := range sources {
		t.Run(format, func(t *testing.T) {
			records, err := Parse(format, "source", []byte(source))
			if err != nil {
				t.Fatal(err)
			}
			m := Mapping{}
			if format == Ansible {
				m.Where = map[string]string{"groups": "vpn"}
			}
			got, err := Merge("fleet.toml", []byte(base), records, m)
			if err != nil {
				t.Fatal(err)
			}
			if got.TOML != wantTOML {
				t.Errorf("got\n%s\nwant\n%s", got.TOML, wantTOML)
			}
			if len(got.New) != 1 || got.New[0] != "nl-1" || len(got.Known) != 1 || got.Known[0] != "se-1" {
				t.Errorf("new %v, known %v", got.New, got.Known)
			}
			if len(got.Differs) != 1 || got.Differs[0].Key != "capacity" || got.Differs[0].Fleet != "1000" || got.Differs[0].Source != "2000" {
				t.Errorf("differs: %+v", got.Differs)
			}
			f, err := inventory.Parse("fleet.toml", []byte(base+got.TOML))
			if err != nil || f.RegionOf("nl-1") != "nl" {
				t.Errorf("the sum: %v", err)
			}
			// A second import adds nothing.
			again, err := Merge("fleet.toml", []byte(base+got.TOML), records, m)
			if err != nil || again.TOML != "" || len(again.New) != 0 {
				t.Errorf("again: %+v, %v", again, err)
			}
		})
	}
}

func TestMapping(t *testing.T) {
	records, err := Parse(JSON, "hosts.json", []byte(`{"SE-2.example.org": {"ip": "10.77.0.12", "kind": "vpn", "tags": {"rack": "se-a"}, "net": ["10.64.2.0/24"], "bmc": {"mac": "52:54:00:00:00:12"}}}`))
	if err != nil {
		t.Fatal(err)
	}
	m := Mapping{
		Fields: map[string]string{"address": "ip", "rack": "tags.rack", "tunnel": "net.0", "power.mac": "bmc.mac"},
		Set:    map[string]string{"role": "vpn", "capacity": "500", "power.driver": "qemu", "power.tap": "mf-se-2"},
		Prefix: 24, Label: true,
	}
	got, err := Merge("fleet.toml", []byte(base), records, m)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`name = "se-2"`, `address = "10.77.0.12/24"`, `capacity = 500`, `tunnel = "10.64.2.0/24"`} {
		if !strings.Contains(got.TOML, want) {
			t.Errorf("no %s in\n%s", want, got.TOML)
		}
	}
}

// Every mistake is one line with its place.
func TestRefuses(t *testing.T) {
	good := "name,rack,region,role,address,capacity,tunnel,power.driver,power.tap,power.mac\n"
	for name, tt := range map[string]struct {
		format, source string
		m              Mapping
		want           string
	}{
		"no such key":                      {CSV, good + "nl-1,nl-a,nl,vpn,10.77.0.13/24,1,10.64.3.0/24,qemu,t,52:54:00:00:00:13\n", Mapping{Set: map[string]string{"colour": "red"}}, `[[server]] has no key "colour"`},
		"no such field":                    {CSV, good + "nl-1,nl-a,nl,vpn,10.77.0.13/24,1,10.64.3.0/24,qemu,t,52:54:00:00:00:13\n", Mapping{Fields: map[string]string{"capacity": "speed"}}, `hosts:2: it has no field "speed"`},
		"capacity is no number":            {CSV, good + "nl-1,nl-a,nl,vpn,10.77.0.13/24,fast,10.64.3.0/24,qemu,t,52:54:00:00:00:13\n", Mapping{}, `hosts:2: capacity is "fast", which is no integer`},
		"no prefix":                        {CSV, good + "nl-1,nl-a,nl,vpn,10.77.0.13,1000,10.64.3.0/24,qemu,t,52:54:00:00:00:13\n", Mapping{}, "hosts:2: address 10.77.0.13 has no prefix length"},
		"an address that is taken":         {CSV, good + "nl-1,nl-a,nl,vpn,10.77.0.13/24,1000,10.64.3.0/24,qemu,t,52:54:00:00:00:13\nnl-2,nl-a,nl,vpn,10.77.0.11/24,1000,10.64.4.0/24,qemu,u,52:54:00:00:00:14\n", Mapping{}, "hosts:3: "},
		"a rack of no region":              {CSV, good + "nl-1,nl-a,,vpn,10.77.0.13/24,1000,10.64.3.0/24,qemu,t,52:54:00:00:00:13\n", Mapping{}, "hosts:2: "},
		"a role that is none":              {CSV, good + "nl-1,nl-a,nl,web,10.77.0.13/24,1000,10.64.3.0/24,qemu,t,52:54:00:00:00:13\n", Mapping{}, "hosts:2: "},
		"another region than the rack's":   {CSV, good + "se-9,se-a,nl,vpn,10.77.0.13/24,1,10.64.3.0/24,qemu,t,52:54:00:00:00:13\n", Mapping{}, `hosts:2: rack "se-a" is in region "se", not in "nl"`},
		"a known server of another region": {CSV, good + "se-1,se-a,nl,vpn,10.77.0.11/24,1000,10.64.1.0/24,qemu,mf-se-1,52:54:00:00:00:11\n", Mapping{}, `hosts:2: rack "se-a" is in region "se", not in "nl"`},
		"two regions of a new rack":        {CSV, good + "nl-1,nl-a,nl,vpn,10.77.0.13/24,1,10.64.3.0/24,qemu,t,52:54:00:00:00:13\nno-1,nl-a,no,vpn,10.77.0.14/24,1,10.64.4.0/24,qemu,u,52:54:00:00:00:14\n", Mapping{}, `hosts:3: rack "nl-a" is in region "nl", not in "no"`},
		"a password of a known server":     {JSON, `[{"name": "se-1", "power": {"password": "hunter2"}}]`, Mapping{}, "hosts: element 1: power.password is a password itself"},
		"one machine twice":                {CSV, good + "nl-1,nl-a,nl,vpn,10.77.0.13/24,1,10.64.3.0/24,qemu,t,52:54:00:00:00:13\nnl-1,nl-a,nl,vpn,10.77.0.13/24,1,10.64.3.0/24,qemu,t,52:54:00:00:00:13\n", Mapping{}, `hosts:3: server "nl-1" is at hosts:2 as well`},
		"no name":                          {JSON, `[{"rack": "x"}]`, Mapping{}, "hosts: element 1: the machine has no name"},
		"nothing asked for":                {JSON, `[{"name": "x"}]`, Mapping{Where: map[string]string{"role": "vpn"}}, "none of 1 machines is asked for"},
		"a name that quotes":               {JSON, `[{"name": "a\" ] evil"}]`, Mapping{}, "hosts: element 1: "},
	} {
		t.Run(name, func(t *testing.T) {
			records, err := Parse(tt.format, "hosts", []byte(tt.source))
			if err != nil {
				t.Fatal(err)
			}
			_, err = Merge("fleet.toml", []byte(base), records, tt.m)
			if err == nil || !strings.HasPrefix(err.Error(), tt.want) || strings.Contains(err.Error()+hint.Of(err), "\n") || strings.Contains(err.Error()+hint.Of(err), "hunter2") {
				t.Errorf("got %v, want %s…", err, tt.want)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	for name, tt := range map[string]struct{ format, source, want string }{
		"no format":                  {"xml", "<x/>", `there is no format "xml"`},
		"empty CSV":                  {CSV, "", "hosts: empty"},
		"CSV header only":            {CSV, "name\n", "hosts: no machine in it"},
		"a column twice":             {CSV, "name,name\na,b\n", `hosts:1: column 2 is called "name"`},
		"ragged CSV":                 {CSV, "name,rack\na\n", "hosts:2: "},
		"open quotation":             {CSV, "name\n\"a\n", "hosts:2: "},
		"broken JSON":                {JSON, "[\n{]", "hosts:2: "},
		"two JSON values":            {JSON, "[] []", "hosts:1: there is more"},
		"a JSON number":              {JSON, "7", "hosts: neither a list nor an object"},
		"elements that are none":     {JSON, "[7]", "hosts: element 1 is no object"},
		"INI: open section":          {Ansible, "[vpn\n", "hosts:1: a section is"},
		"INI: kind of section":       {Ansible, "[vpn:hosts]\n", "hosts:1: a section is"},
		"INI: variable":              {Ansible, "[vpn:vars]\nx\n", "hosts:2: a variable is KEY=VALUE"},
		"INI: word after a host":     {Ansible, "a b\n", `hosts:1: "b" after a host is no KEY=VALUE`},
		"INI: quotation":             {Ansible, "a x='b\n", "hosts:1: a quotation mark"},
		"INI: open range":            {Ansible, "a[1:2\n", `hosts:1: "a[1:2": a range is not closed`},
		"INI: huge range":            {Ansible, "a[1:99999999]\n", `hosts:1: "a[1:99999999]": the range`},
		"INI: group inside itself":   {Ansible, "h\n[a:children]\nb\n[b:children]\na\n", `hosts: group "a" is inside itself (a > b > a)`},
		"YAML":                       {Ansible, "all:\n  hosts:\n    a: [\n", "hosts: "},
		"YAML: hosts are a list":     {Ansible, "all:\n  hosts: [a]\n", "hosts:2: hosts of group \"all\" are no mapping"},
		"list: group":                {Ansible, `{"vpn": 3}`, `hosts: group "vpn" is no object`},
		"Terraform: old state":       {Terraform, `{"version": 3}`, "hosts: state version 3: 4 is read"},
		"Terraform: another format":  {Terraform, `{"format_version": "2.0"}`, `hosts: format_version "2.0": 1.x is read`},
		"Terraform: plan, no values": {Terraform, `{"format_version": "1.0"}`, "hosts: there are no values"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse(tt.format, "hosts", []byte(tt.source))
			if err == nil || !strings.HasPrefix(err.Error(), tt.want) {
				t.Errorf("got %v, want %s…", err, tt.want)
			}
		})
	}
	if _, err := Parse(CSV, "hosts", make([]byte, MaxSize+1)); err == nil || hint.Of(err) == "" {
		t.Errorf("a source that is too long: %v", err)
	}
}

// The three forms of an Ansible inventory say the same.
func TestAnsibleForms(t *testing.T) {
	yaml := `all:
  vars:
    role: vpn
  children:
    se:
      hosts:
        se-[01:02]:
          rack: se-a
    nl:
      vars: {capacity: 700}
      hosts:
        nl-1:
          capacity: 900
          power: {driver: qemu}
`
	ini := "[all:vars]\nrole=vpn\n[se]\nse-[01:02] rack=se-a\n[nl]\nnl-1 capacity=900 power.driver=qemu\n[nl:vars]\ncapacity=700\n"
	list := `{"_meta": {"hostvars": {"se-01": {"rack": "se-a", "role": "vpn"}, "se-02": {"rack": "se-a", "role": "vpn"}, "nl-1": {"capacity": 900, "role": "vpn", "power": {"driver": "qemu"}}}},
		"all": {"children": ["se", "nl", "ungrouped"]}, "se": {"hosts": ["se-01", "se-02"]}, "nl": {"hosts": ["nl-1"]}}`
	want := map[string]map[string]string{
		"se-01": {"inventory_hostname": "se-01", "groups": "se", "role": "vpn", "rack": "se-a"},
		"se-02": {"inventory_hostname": "se-02", "groups": "se", "role": "vpn", "rack": "se-a"},
		"nl-1":  {"inventory_hostname": "nl-1", "groups": "nl", "role": "vpn", "capacity": "900", "power.driver": "qemu"},
	}
	for name, source := range map[string]string{"YAML": yaml, "INI": ini, "list": list} {
		records, err := Parse(Ansible, "hosts", []byte(source))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if len(records) != len(want) {
			t.Errorf("%s: %d hosts, want %d", name, len(records), len(want))
		}
		for _, r := range records {
			w := want[r.Fields[hostField]]
			for k, v := range w {
				if r.Fields[k] != v {
					t.Errorf("%s: %s: %s is %q, want %q", name, r.Fields[hostField], k, r.Fields[k], v)
				}
			}
			if len(r.Fields) != len(w) {
				t.Errorf("%s: %s: fields %v, want %v", name, r.Fields[hostField], r.Fields, w)
			}
		}
	}
}

func TestExpand(t *testing.T) {
	for pattern, want := range map[string]string{
		"a":              "a",
		"a[1:3]":         "a1 a2 a3",
		"a[08:10].x":     "a08.x a09.x a10.x",
		"a[1:5:2]":       "a1 a3 a5",
		"db-[a:c]":       "db-a db-b db-c",
		"r[1:2]h[01:02]": "r1h01 r1h02 r2h01 r2h02",
	} {
		got, err := expand(pattern)
		if err != nil || strings.Join(got, " ") != want {
			t.Errorf("%s: got %v, %v, want %s", pattern, got, err, want)
		}
	}
	for _, pattern := range []string{"a[3:1]", "a[1]", "a[1:2:0]", "a[x:1]", "a[1:1000][1:1000]"} {
		if got, err := expand(pattern); err == nil {
			t.Errorf("%s: got %d names", pattern, len(got))
		}
	}
}

// What Terraform's own programs wrote: a state file and `terraform show -json` of it.
func TestTerraformForms(t *testing.T) {
	show := `{"format_version": "1.0", "terraform_version": "1.9.0", "values": {"root_module": {"resources": [
		{"address": "machine.a", "mode": "managed", "type": "machine", "name": "a", "values": {"name": "a-1", "tags": {"role": "vpn"}}}],
		"child_modules": [{"address": "module.m", "resources": [{"address": "module.m.machine.b[0]", "mode": "managed", "type": "machine", "name": "b", "index": 0, "values": {"name": "b-1"}}]}]}}}`
	records, err := Parse(Terraform, "show.json", []byte(show))
	if err != nil {
		t.Fatal(err)
	}
	if len(records) != 2 || records[0].Fields["tags.role"] != "vpn" || records[1].Place != "show.json: module.m.machine.b[0]" || records[1].Fields[typeField] != "machine" {
		t.Errorf("got %+v", records)
	}
}

func FuzzParse(f *testing.F) {
	for format, source := range sources {
		f.Add(format, []byte(source))
	}
	f.Add(Ansible, []byte("all:\n  hosts:\n    a: {x: 1}\n"))
	f.Add(Ansible, []byte(`{"_meta": {"hostvars": {"a": {"b": [1, {"c": 2}]}}}}`))
	f.Fuzz(func(t *testing.T, format string, source []byte) {
		records, err := Parse(format, "hosts", source)
		if err != nil {
			return
		}
		got, err := Merge("fleet.toml", []byte(base), records, Mapping{Prefix: 24, Label: true})
		if err != nil || got.TOML == "" {
			return
		}
		if _, err := inventory.Parse("fleet.toml", []byte(base+got.TOML)); err != nil {
			t.Errorf("what was merged is no fleet.toml: %v\n%s", err, got.TOML)
		}
	})
}
