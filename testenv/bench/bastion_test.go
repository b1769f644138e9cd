package bench

import (
	"bytes"
	"os"
	"os/exec"
	"testing"
	"time"
)

// TestBastion runs every part, as short as it can be, and looks at its form: no figure is judged.
func TestBastion(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: it measures for a minute")
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root: it makes network namespaces")
	}
	for _, tool := range []string{"ip", "ssh", sshdPath} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s", tool)
		}
	}
	var log bytes.Buffer
	r, err := Bastion(t.Context(), BastionOptions{Seconds: 1, Bytes: 128 << 20, Idle: 300, HalfOpen: 300, Settle: time.Second, Log: &log})
	if err != nil {
		t.Fatalf("%v\n%s", err, &log)
	}
	var got []string
	for _, x := range r.Results {
		got = append(got, x.Name+" "+x.Peer)
		if x.Name != "idle_kib" && (x.Ours <= 0 || x.Peer != "" && (x.Theirs <= 0 || x.Ratio <= 0)) { // so few connections hide in what the heap does by itself
			t.Errorf("%+v lacks a figure", x)
		}
	}
	want := []string{"handshakes openssh", "handshakes x/crypto", "forward openssh", "forward x/crypto", "forward_up openssh", "forward_up x/crypto",
		"forward_down openssh", "forward_down x/crypto", "idle_kib x/crypto", "halfopen_one ", "halfopen_many "}
	if len(got) != len(want) {
		t.Fatalf("got %q, want %q", got, want)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("result %d: got %q, want %q", i, got[i], want[i])
		}
	}
}

func TestBastionRefusesUnknownPart(t *testing.T) {
	if _, err := Bastion(t.Context(), BastionOptions{Only: []string{"speed"}}); err == nil {
		t.Error("measured a part that there is not")
	}
}
