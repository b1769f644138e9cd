package bench

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"
)

func TestPaired(t *testing.T) {
	for _, c := range []struct {
		name         string
		ours, theirs []float64
		cost         bool
		want         Result
	}{
		{"speed", []float64{4, 6, 5}, []float64{2, 2, 5}, false, Result{Name: "n", Unit: "u", Ours: 5, Peer: "p", Theirs: 2, Ratio: 2}},
		{"cost", []float64{1, 2, 4}, []float64{2, 2, 2}, true, Result{Name: "n", Unit: "u", Ours: 2, Peer: "p", Theirs: 2, Ratio: 1}},
		{"even", []float64{1, 3}, []float64{1, 1}, false, Result{Name: "n", Unit: "u", Ours: 2, Peer: "p", Theirs: 1, Ratio: 2}},
	} {
		if got := paired("n", "u", "p", c.ours, c.theirs, c.cost); got != c.want {
			t.Errorf("%s: got %+v, want %+v", c.name, got, c.want)
		}
	}
}

func TestReportJSON(t *testing.T) {
	r := Report{Bench: "tunnel", Results: []Result{{Name: "a", Unit: "Gb/s", Ours: 2, Peer: "p", Theirs: 1, Ratio: 2}, {Name: "b", Unit: "MB", Ours: 3}}}
	got, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"bench":"tunnel","results":[{"name":"a","unit":"Gb/s","ours":2,"peer":"p","theirs":1,"ratio":2},{"name":"b","unit":"MB","ours":3}]}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// TestTunnel runs the whole measurement, as short as it can be, and looks at its form: no figure is judged.
func TestTunnel(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: it measures for half a minute")
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root: it makes network namespaces")
	}
	for _, tool := range []string{"ip", "iperf3"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s", tool)
		}
	}
	var log bytes.Buffer
	r, err := Tunnel(t.Context(), TunnelOptions{Seconds: 1, Log: &log})
	if err != nil {
		t.Fatalf("%v\n%s", err, &log)
	}
	var table bytes.Buffer
	if err := r.WriteTable(&table); err != nil {
		t.Fatal(err)
	}
	t.Logf("\n%s%s", &log, &table)
	want := []string{"chacha_tcp1", "chacha_tcp8", "chacha_cpu", "rss_mb"}
	if r.Bench != "tunnel" || len(r.Results) != len(want) {
		t.Fatalf("got %+v", r)
	}
	for i, x := range r.Results {
		if x.Name != want[i] || x.Peer != "wireguard-go" || x.Ours <= 0 || x.Theirs <= 0 || x.Ratio <= 0 {
			t.Errorf("result %d: got %+v, want %s with every figure", i, x, want[i])
		}
		if !strings.Contains(table.String(), x.Name) {
			t.Errorf("the table lacks %s", x.Name)
		}
	}
}
