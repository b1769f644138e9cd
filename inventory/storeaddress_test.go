package inventory

import (
	"slices"
	"strings"
	"testing"
)

func TestParseStoreAddress(t *testing.T) {
	for _, tt := range []struct {
		in       string
		hosts    []string
		prefix   string
		loopback bool
	}{
		{"", nil, "", true},
		{"etcd://127.0.0.1:2379/mayfly", []string{"127.0.0.1:2379"}, "mayfly", true},
		{"etcd://[::1]:2379/a/b-1", []string{"[::1]:2379"}, "a/b-1", true},
		{"etcd://10.0.0.1:2379,10.0.0.2:2379,127.0.0.1:1/m", []string{"10.0.0.1:2379", "10.0.0.2:2379", "127.0.0.1:1"}, "m", false},
		{"etcd://localhost:2379/m", []string{"localhost:2379"}, "m", false},
		{"etcd://etcd-1.example.net:2379/m", []string{"etcd-1.example.net:2379"}, "m", false},
	} {
		a, err := ParseStoreAddress(tt.in)
		if err != nil || !slices.Equal(a.Endpoints, tt.hosts) || a.Prefix != tt.prefix || a.String() != tt.in || a.Loopback() != tt.loopback {
			t.Errorf("%q: got %+v, loopback %v, %v", tt.in, a, a.Loopback(), err)
		}
	}
	for _, in := range []string{
		"store.db", "sqlite://x", "http://127.0.0.1:1/m", "etcd://", "etcd://127.0.0.1:2379", "etcd://127.0.0.1:2379/", "etcd://127.0.0.1:2379//m", "etcd://127.0.0.1:2379/m/",
		"etcd://127.0.0.1/m", "etcd://127.0.0.1:0/m", "etcd://127.0.0.1:02379/m", "etcd://127.0.0.1:65536/m", "etcd://127.0.0.1:2379,/m", "etcd://127.0.0.1:2379,127.0.0.1:2379/m",
		"etcd://user@127.0.0.1:2379/m", "etcd://127.0.0.1:2379/m?x=1", "etcd://127.0.0.1:2379/M", "etcd://127.0.0.1:2379/../m", "etcd://[::1%lo]:2379/m", "etcd://[::0001]:2379/m",
		"etcd://::1:2379/m", "etcd://127.1:2379/m", "etcd://EXAMPLE:2379/m", "etcd://-a:2379/m", "etcd://a..b:2379/m", "etcd://127.0.0.1:2379/" + strings.Repeat("m", maxStorePrefix+1),
		"etcd://a:1,a:2,a:3,a:4,a:5,a:6,a:7,a:8,a:9,a:10/m",
	} {
		if a, err := ParseStoreAddress(in); err == nil {
			t.Errorf("%q: got %+v, want a refusal", in, a)
		}
	}
}

// What is accepted has one form, and reads back as itself.
func FuzzStoreAddress(f *testing.F) {
	f.Add("etcd://127.0.0.1:2379,[::1]:1/mayfly/a")
	f.Add("etcd://etcd-1.example.net:2379/m")
	f.Fuzz(func(t *testing.T, in string) {
		a, err := ParseStoreAddress(in)
		if err != nil {
			return
		}
		if a.String() != in {
			t.Errorf("%q reads as %q", in, a.String())
		}
		if a.Loopback() && strings.ContainsAny(in, "@?#") {
			t.Errorf("%q is of this machine", in)
		}
	})
}
