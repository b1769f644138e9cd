package offer

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mayfly/internal/canonical"
)

var (
	server = netip.MustParseAddr("192.0.2.11")
	bmc    = netip.MustParseAddr("192.0.2.111")
	now    = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
)

func lay(t *testing.T, d Dir, epoch uint64) Offer {
	t.Helper()
	o, err := d.Put(t.Context(), Offer{Server: "se-1", Epoch: epoch, Addresses: []netip.Addr{server, bmc}, NotAfter: now.Add(time.Hour)}, func(o Offer) []File {
		return []File{{MediumFile, func(w io.Writer) error { _, err := io.WriteString(w, "medium"); return err }}}
	})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestFind(t *testing.T) {
	d := Dir(filepath.Join(t.TempDir(), "offers"))
	if _, err := d.Find(server, "", now); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no offer: got %v", err)
	}
	first := lay(t, d, 1)
	o := lay(t, d, 2)
	if first.Token == o.Token {
		t.Fatal("two offers with one token")
	}
	for name, tt := range map[string]struct {
		from  netip.Addr
		token string
		at    time.Time
		ok    bool
	}{
		"server by its address":            {server, "", now, true},
		"server, mapped address":           {netip.AddrFrom16(server.As16()), "", now, true},
		"server by token":                  {server, o.Token, now, true},
		"bmc by token":                     {bmc, o.Token, now, true},
		"bmc by its address":               {bmc, "", now, false},
		"stranger by token":                {netip.MustParseAddr("192.0.2.12"), o.Token, now, false},
		"stranger":                         {netip.MustParseAddr("192.0.2.12"), "", now, false},
		"the life before":                  {bmc, first.Token, now, false},
		"when its ticket has ended":        {server, "", now.Add(time.Hour), false},
		"token of another form":            {bmc, "../se-1", now, false},
		"the second before its ticket has": {server, o.Token, now.Add(time.Hour - time.Second), true},
	} {
		got, err := d.Find(tt.from, tt.token, tt.at)
		if (err == nil) != tt.ok || tt.ok && got.Epoch != 2 {
			t.Errorf("%s: got %+v, %v; want ok %v", name, got, err, tt.ok)
		}
	}
	f, err := d.Open(o, MediumFile)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(f)
	if err != nil || string(data) != "medium" || f.Close() != nil {
		t.Errorf("got %q, %v", data, err)
	}
	for _, file := range []string{stateFile, "../offers/se-1/boot.img", "", KernelFile} {
		if f, err := d.Open(o, file); err == nil {
			f.Close()
			t.Errorf("%q was opened", file)
		}
	}
	if info, err := os.Stat(filepath.Join(string(d), "se-1")); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the offer's directory is %v (%v)", info.Mode(), err)
	}
	if err := errors.Join(d.Withdraw("se-1"), d.Withdraw("se-1")); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(string(d), "se-1")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("withdrawn, and there: %v", err)
	}
}

func TestPutFails(t *testing.T) {
	d := Dir(t.TempDir())
	good := Offer{Server: "se-1", Epoch: 1, Addresses: []netip.Addr{server}, NotAfter: now}
	none := func(Offer) []File { return nil }
	for name, change := range map[string]func(*Offer){
		"name":       func(o *Offer) { o.Server = "../x" },
		"epoch":      func(o *Offer) { o.Epoch = 0 },
		"nobody":     func(o *Offer) { o.Addresses = nil },
		"no address": func(o *Offer) { o.Addresses = []netip.Addr{{}} },
		"many":       func(o *Offer) { o.Addresses = make([]netip.Addr, maxAddresses+1) },
	} {
		o := good
		change(&o)
		if _, err := d.Put(t.Context(), o, none); err == nil {
			t.Errorf("%s: laid down", name)
		}
	}
	// A file that cannot be written leaves nothing.
	broken := errors.New("broken")
	_, err := d.Put(t.Context(), good, func(Offer) []File { return []File{{KernelFile, func(io.Writer) error { return broken }}} })
	if !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.Put(ended, good, func(Offer) []File { return []File{{KernelFile, func(io.Writer) error { return nil }}} }); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if left, err := os.ReadDir(string(d)); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestScript(t *testing.T) {
	got, err := Script("console=ttyS0 panic=-1")
	if err != nil || !strings.HasPrefix(got, "#!ipxe\n") || !strings.Contains(got, "kernel kernel initrd=initrd console=ttyS0 panic=-1 ||") {
		t.Errorf("got %q, %v", got, err)
	}
	for _, bad := range []string{"a\nshell", "a ${x}", "a\x00"} {
		if _, err := Script(bad); err == nil {
			t.Errorf("%q: accepted", bad)
		}
	}
}

func FuzzParse(f *testing.F) {
	good, err := canonical.Marshal(Offer{Kind: Kind, Server: "se-1", Epoch: 1, Token: strings.Repeat("ab", 32), Addresses: []netip.Addr{server}, NotAfter: now})
	if err != nil {
		f.Fatal(err)
	}
	if _, err := parse(good); err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Fuzz(func(t *testing.T, data []byte) {
		if o, err := parse(data); err == nil && (o.Server == "" || len(o.Addresses) == 0 || len(o.Token) != 64) {
			t.Errorf("accepted %+v", o)
		}
	})
}
