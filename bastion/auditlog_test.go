package bastion

import (
	"bytes"
	"encoding/binary"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mayfly/internal/audit"
	"mayfly/policies"
	"mayfly/testenv/softkey"
)

// TestRefusedFlood has 100,000 networks refused within some minutes: what is written stays within its bounds, nothing of it
// goes into the log, and no refusal is lost from the counts.
func TestRefusedFlood(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "audit")
	log, err := audit.Open(audit.Options{Dir: dir, Name: "lab/test"})
	if err != nil {
		t.Fatal(err)
	}
	var r refusals
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	records, counted, named := 0, 0, map[string]bool{}
	last := map[refusalRecord]int{}
	write := func(c refusalRecord) {
		records++
		if c.Network != "" {
			named[c.Network] = true
		}
		count := c.Count
		c.Count = 0
		last[c] = count
		if err := log.AppendRefused(eventRefused, c); err != nil {
			t.Fatal(err)
		}
	}
	const networks, minutes = 100_000, 20
	for i := range networks {
		var a [4]byte
		binary.BigEndian.PutUint32(a[:], 0x0b000000+uint32(i))
		for range 2 {
			r.add(netip.PrefixFrom(netip.AddrFrom4(a), 32), policies.AddressNotListed, 1, now)
		}
		if i%(networks/minutes/60) == 0 { // a second is over
			now = now.Add(time.Second)
			r.flush(now, write)
		}
	}
	r.flush(now.Add(time.Minute), write)
	for _, n := range last {
		counted += n
	}
	if counted != 2*networks {
		t.Errorf("%d refusals were counted, want %d", counted, 2*networks)
	}
	if len(named) > maxCountedHour || len(named) < maxCountedHour/2 || records > 2*(maxCountedHour+minutes+2) {
		t.Errorf("%d networks by themselves in %d records; the bound is %d an hour", len(named), records, maxCountedHour)
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	key, err := audit.ReadVerifier(filepath.Join(dir, audit.KeyName+".pub"))
	if err != nil {
		t.Fatal(err)
	}
	if report, err := audit.Verify(dir, audit.Trusted{Log: key}); err != nil || report.Size != 0 {
		t.Errorf("strangers are in the log: %+v, %v", report, err)
	}
	var size int64
	files, err := filepath.Glob(filepath.Join(dir, "refused", "*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%q, %v", files, err)
	}
	for _, file := range files {
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		size += info.Size()
	}
	if size > audit.RefusedQuota {
		t.Errorf("%d bytes of refusals; the quota is %d", size, audit.RefusedQuota)
	}
	t.Logf("%d refusals of %d networks: %d records, %d bytes", 2*networks, networks, records, size)
}

// full is a log on a disk that is nearly full.
type full struct {
	log, refused []string
	better       bool
}

func (f *full) Healthy() error {
	if f.better {
		return nil
	}
	return audit.ErrReserve
}

func (f *full) Append(event string, _ any) error {
	f.log = append(f.log, event)
	return nil
}
func (f *full) AppendOpening(string, any) error { return audit.ErrReserve }
func (f *full) AppendRefused(event string, _ any) error {
	f.refused = append(f.refused, event)
	return nil
}

// TestClosingsOfStrangers sees closing records of refused connections keep to their share of the log, and out of the reserve.
func TestClosingsOfStrangers(t *testing.T) {
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	disk := &full{}
	s := &Server{audit: disk}
	for _, outcome := range []string{"refused", "accepted"} {
		if err := s.writeClosing(closingRecord{Outcome: outcome}, now); err != nil {
			t.Fatal(err)
		}
	}
	if len(disk.log) != 1 || len(disk.refused) != 1 {
		t.Errorf("on a disk that is nearly full: got %+v, want the accepted one in the log alone", disk)
	}
	q := &quietLog{}
	s = &Server{audit: q}
	inLog := 0
	for range 3 * maxRefusedClosings {
		if s.closings.take(now) {
			inLog++
		}
	}
	if inLog != maxRefusedClosings || !s.closings.take(now.Add(time.Hour)) {
		t.Errorf("got %d in one hour, want %d, and more in the next", inLog, maxRefusedClosings)
	}
}

// TestAuditIsWatched sees trouble with the log said once, and its end.
func TestAuditIsWatched(t *testing.T) {
	disk, said := &full{}, &bytes.Buffer{}
	s := &Server{audit: disk, log: slog.New(slog.NewTextHandler(said, nil))}
	for range 3 {
		s.watchAudit()
	}
	disk.better = true
	for range 3 {
		s.watchAudit()
	}
	if got := said.String(); strings.Count(got, "\n") != 2 || !strings.Contains(got, "level=ERROR") || !strings.Contains(got, audit.ErrReserve.Error()) || !strings.Contains(got, "recovered") {
		t.Errorf("said %q", got)
	}
}

// TestReserve has the disk run nearly full under a live session: nobody new gets in, and the session's end is written.
func TestReserve(t *testing.T) {
	f := newFixture(t)
	f.start()
	client := f.login("anna", f.anna.Signer(softkey.Always))
	f.spy.failOpening(audit.ErrReserve)
	if other, err := f.client("bert", f.bert.Signer(softkey.Always)); err == nil {
		other.Close()
		t.Fatal("logged in though the end of the session might not be written")
	}
	if r := f.closing(); r.Reason != auditUnavailable || !strings.Contains(r.Detail, audit.ErrReserve.Error()) {
		t.Errorf("record: %+v", r)
	}
	if conn, err := client.Dial("tcp", "se-1:22"); err == nil {
		conn.Close()
		t.Error("a target was opened in the space that closing records need")
	}
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}
	if r := f.closing(); r.Outcome != "accepted" || r.User != "anna" || len(r.Targets) != 1 || r.Targets[0].Reason != auditUnavailable {
		t.Errorf("record: %+v", r)
	}
	f.spy.failOpening(nil)
	f.login("bert", f.bert.Signer(softkey.Always))
}

// TestWitnessRejected sees a rejection in the log and with whoever listens.
func TestWitnessRejected(t *testing.T) {
	f := newFixture(t)
	f.start()
	var heard []any
	f.server.events = func(kind string, fields any) {
		if kind == noticeWitness {
			heard = append(heard, fields)
		}
	}
	f.server.witnessRejected(audit.Rejection{Witness: "w\n", Size: 3, Seen: 9, Detail: "cut off"})
	if got := string(f.next(eventWitness).Record); len(heard) != 1 || !strings.Contains(got, `"witness":"w\\n","size":3,"seen":9`) {
		t.Errorf("record %s, heard %v", got, heard)
	}
}
