package attest

import (
	"bytes"
	"encoding/hex"
	"os"
	"path/filepath"
	"testing"

	"mayfly/rebuild/uki"
)

// Logs of OVMF 2022.11 that started a unified kernel image (systemd-stub 252, Debian 12's kernel) with a ticket beside it, and what
// the kernel said that the registers held then. In the second boot Secure Boot was on, and the image signed.
var realBoots = []struct {
	file, db string
	secure   bool
	pcrs     map[int]string
}{
	{"secureboot-off.bin", "", false, map[int]string{
		4:  "954bfdc818c00a7dd057f362c82686e2ae3c0118514ee4098e3780a801588fcb",
		7:  "65caf8dd1e0ea7a6347b635d2b379c93b9a1351edc2afc3ecda700e534eb3068",
		9:  "b10efedb94d46082375c59bacd4da35f1174fc6b28523cc1652b65bdfb6779c3",
		11: "e554a8a130419e621c27311ef8964041894bec42093881c5637abcd23b529e04",
		12: "f95a1613712961843753bb036cff1ce529bc1f24a08a9599b0cb0d13e8cea3ed",
	}},
	{"secureboot-on.bin", "5b2acf8cb76f099d3e5a150174e1bf29b5c3d95155786ae9d3db0501ea478317", true, map[int]string{
		4:  "b57f5004c8edde7334b908175bb072f581a19b193350170f762cfc7ac6031aff",
		7:  "84490259acad9d040b6a6bd4345d6581b9614de7436eac510030eddf65d9d437",
		9:  "b10efedb94d46082375c59bacd4da35f1174fc6b28523cc1652b65bdfb6779c3",
		11: "e554a8a130419e621c27311ef8964041894bec42093881c5637abcd23b529e04",
		12: "f95a1613712961843753bb036cff1ce529bc1f24a08a9599b0cb0d13e8cea3ed",
	}},
}

// Authenticode hashes in both.
const (
	realUKI    = "cc2f309df40090a79221c8f7d850aaaa654c3a89def8e36c012b0d20c420f30f"
	realKernel = "5f21ff2c0d5d899842b28a8b19901ba72cf7a7ab93c02a77fadc6ff72be85b31"
)

func realLog(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func hash(t testing.TB, s string) (d Digest) {
	t.Helper()
	if s == "" {
		return d
	}
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(d) {
		t.Fatalf("%q: %v", s, err)
	}
	return Digest(b)
}

func TestRealLogs(t *testing.T) {
	for _, tt := range realBoots {
		t.Run(tt.file, func(t *testing.T) {
			data := realLog(t, tt.file)
			events, err := parseLog(data)
			if err != nil {
				t.Fatal(err)
			}
			again := replay(events)
			for pcr, want := range tt.pcrs {
				if again[pcr] != hash(t, want) {
					t.Errorf("PCR %d: got %x, want %s", pcr, again[pcr], want)
				}
			}
			want := Expected{
				UKI: hash(t, realUKI), Kernel: hash(t, realKernel),
				Extras: uki.Measured([]uki.Credential{{Name: "ticket.json", Data: []byte("ticket")}, {Name: "ticket.json.sig", Data: []byte("sig")}}),
				// What the image gives is compared in medium.TestSecureBoot, which has the image.
				Sections: hash(t, tt.pcrs[pcrImage]), Loaded: hash(t, tt.pcrs[pcrKernel]), LoadedAlone: Digest{1},
			}
			if err := checkDrivers(events, want); err != nil {
				t.Error(err)
			}
			if tt.db != "" {
				want.SecureBoot = []Digest{{1}, hash(t, tt.db)}
			}
			measured, secure, err := checkBoot(events, want)
			if err != nil || !measured || secure != tt.secure {
				t.Errorf("got %v, %v, %v", measured, secure, err)
			}
			beside, err := checkExtras(events, want)
			if err != nil || !beside {
				t.Errorf("got %v, %v", beside, err)
			}
			if err := checkImage(again, beside, want); err != nil {
				t.Error(err)
			}
			if err := checkImage(again, false, want); err == nil {
				t.Error("believed an initramfs that was handed over without the ticket")
			}
			want.Extras[0] ^= 1
			if _, err := checkExtras(events, want); err == nil {
				t.Error("believed the files of another ticket")
			}
			for n := range data { // cut anywhere but between two events
				if _, err := parseLog(data[:n]); err == nil && len(replayed(t, data[:n])) >= len(events) {
					t.Fatalf("cut to %d bytes it has all events", n)
				}
			}
		})
	}
}

func replayed(t *testing.T, data []byte) []event {
	t.Helper()
	events, err := parseLog(data)
	if err != nil {
		t.Fatal(err)
	}
	return events
}

// What Secure Boot says counts only when everything that it let start was let by the fleet's certificate, and then something may have been
// started before.
func TestSecureBoot(t *testing.T) {
	boot := realBoots[1]
	all, err := parseLog(realLog(t, boot.file))
	if err != nil {
		t.Fatal(err)
	}
	find := func(kind uint32) int {
		for i, e := range all {
			if e.kind == kind && (kind != evVariable || bytes.Contains(e.data, []byte("S\x00e\x00c\x00u\x00r\x00e\x00B"))) {
				return i
			}
		}
		t.Fatalf("no event of type %#x", kind)
		return 0
	}
	// Two events may change places with what is in others: the type and the data of an event are not proved.
	with := func(i int, change func(*event)) []event {
		events := append([]event{}, all...)
		change(&events[i])
		return events
	}
	authority, state, application := find(evAuthority), find(evVariable), find(evBootApplication)
	shell := event{pcr: pcrBoot, kind: evBootApplication, digest: Digest{7}}
	before := append(append(append([]event{}, all[:application]...), shell), all[application:]...)
	redo := func(e *event) { e.digest = digestOf(e.data) }
	for _, tt := range []struct {
		name     string
		events   []event
		db       string
		measured bool
		secure   bool
		refused  bool
	}{
		{"good", all, boot.db, true, true, false},
		{"other certificate", all, realUKI, true, false, false},
		{"no certificate known", all, "", true, false, false},
		{"another application before, under the certificate", before, boot.db, false, true, false},
		{"another application before, under another", before, realUKI, false, false, true},
		{"state that its data does not explain", with(state, func(e *event) { e.digest[0] ^= 1 }), boot.db, false, false, true},
		{"off", with(state, func(e *event) { e.data = append(append([]byte{}, e.data[:len(e.data)-1]...), 0); redo(e) }), boot.db, false, false, true},
		{"authority that its data does not explain", with(authority, func(e *event) { e.digest[0] ^= 1 }), boot.db, false, false, true},
		{"authority by hash", with(authority, func(e *event) { e.data = e.data[:len(e.data)-1]; redo(e) }), boot.db, false, false, true},
		{"authority of another list", with(authority, func(e *event) { e.data = append([]byte{1}, e.data[1:]...); redo(e) }), boot.db, false, false, true},
		{"no authority", append(append([]event{}, all[:authority]...), all[authority+1:]...), boot.db, true, false, false},
		{"unknown event", with(authority, func(e *event) { e.kind = 0xd }), boot.db, false, false, true},
		{"no state", append(append([]event{}, all[:state]...), all[state+1:]...), boot.db, false, false, true},
		{"state told twice", append(append(append([]event{}, all[:state]...), all[state]), all[state:]...), boot.db, false, false, true},
		{"error of the firmware", with(find(evSeparator), func(e *event) { e.data = []byte{1, 0, 0, 0}; redo(e) }), boot.db, false, false, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			want := Expected{UKI: hash(t, realUKI), Kernel: hash(t, realKernel), Sections: Digest{1}, Loaded: Digest{1}, LoadedAlone: Digest{1}}
			if tt.db != "" {
				want.SecureBoot = []Digest{hash(t, tt.db)}
			}
			measured, secure, err := checkBoot(tt.events, want)
			if measured != tt.measured || secure != tt.secure || (err != nil) != tt.refused {
				t.Errorf("got %v, %v, %v", measured, secure, err)
			}
		})
	}
}

// Every byte that the header can have wrong, and what logs must not have.
func TestParseLogRefuses(t *testing.T) {
	good := realLog(t, "secureboot-off.bin")
	header := 32 + int(good[28])
	for i := range header {
		switch {
		case i >= 48 && i < 48+8: // class and version say nothing
			continue
		}
		b := bytes.Clone(good)
		b[i] ^= 0xff
		if _, err := parseLog(b); err == nil {
			t.Errorf("byte %d of the header: believed %x", i, b[i])
		}
	}
	for name, b := range map[string][]byte{
		"nothing":         nil,
		"long":            make([]byte, MaxEventLog+1),
		"data after":      append(bytes.Clone(good), 0),
		"many events":     append(bytes.Clone(good[:header]), bytes.Repeat(good[header:header+4+4+4+(2+20)+(2+32)+(2+48)+(2+64)+4+2], maxEvents+1)[:MaxEventLog-header]...),
		"other algorithm": func() []byte { b := bytes.Clone(good); b[header+12] ^= 1; return b }(),
		"count":           func() []byte { b := bytes.Clone(good); b[header+8]--; return b }(),
		"register 24":     func() []byte { b := bytes.Clone(good); b[header] = 24; return b }(),
		"size":            func() []byte { b := bytes.Clone(good); b[header+4+4+4+(2+20)+(2+32)+(2+48)+(2+64)+3] = 0xff; return b }(),
	} {
		if events, err := parseLog(b); err == nil {
			t.Errorf("%s: believed %d events", name, len(events))
		}
	}
}
