package etcd

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"mayfly/inventory"
	"mayfly/inventory/store"
	"mayfly/inventory/store/etcd/etcdtest"
	"mayfly/inventory/store/storetest"
)

var fleetOfTwo = inventory.Fleet{Servers: []inventory.Server{{Name: "a"}, {Name: "b"}}}

var then = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

// TestNewer: a layout that this program does not know is refused, for reading and for writing.
func TestNewer(t *testing.T) {
	a := place(t)
	s := openAt(t, a)
	if _, err := s.client.Put(t.Context(), s.key(keyVersion), "2"); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), t.TempDir(), a); !errors.Is(err, store.ErrNewer) {
		t.Errorf("got %v, want %v", err, store.ErrNewer)
	}
	if _, err := OpenReadOnly(t.Context(), t.TempDir(), a); !errors.Is(err, store.ErrNewer) {
		t.Errorf("for reading: got %v, want %v", err, store.ErrNewer)
	}
}

// TestNotInTheClear: another machine is not spoken to without certificates.
func TestNotInTheClear(t *testing.T) {
	_, err := Open(t.Context(), t.TempDir(), inventory.StoreAddress{Endpoints: []string{"192.0.2.1:2379"}, Prefix: "mayfly"})
	if err == nil || !strings.Contains(err.Error(), "whoever is on the way") {
		t.Errorf("got %v", err)
	}
}

// TestImportCutOff: what an import left behind that did not end is not taken for a store, and the next one makes it whole.
func TestImportCutOff(t *testing.T) {
	ctx, a := t.Context(), place(t)
	from, s := openAt(t, place(t)), openAt(t, a)
	if err := from.Sync(ctx, fleetOfTwo, then); err != nil {
		t.Fatal(err)
	}
	storetest.Fill(t, from)
	data := storetest.Export(t, from)
	c, err := store.ReadContent(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.client.Txn(ctx).Then(clientv3.OpPut(s.key(keyImporting), "1"), clientv3.OpPut(s.key(keyServer, "a"), `{"name":"a","state":"serving"}`)).Commit(); err != nil {
		t.Fatal(err)
	}
	for name, open := range map[string]func() (*Store, error){
		"writing": func() (*Store, error) { return Open(ctx, t.TempDir(), a) }, "reading": func() (*Store, error) { return OpenReadOnly(ctx, t.TempDir(), a) },
	} {
		if _, err := open(); err == nil || !strings.Contains(err.Error(), "did not end") {
			t.Errorf("for %s: got %v", name, err)
		}
	}
	again, err := OpenToImport(ctx, t.TempDir(), a)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if err := again.Import(ctx, bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	if all, err := openAt(t, a).Servers(ctx); err != nil || len(all) != len(c.Servers) {
		t.Errorf("got %d servers, %v, want %d", len(all), err, len(c.Servers))
	}
}

// TestLeaseEnds: a claim that nobody renews is over by etcd's own clock. Its holder, who was paused meanwhile, writes nothing any more.
func TestLeaseEnds(t *testing.T) {
	ctx, a := t.Context(), place(t)
	paused, other := openAt(t, a), openAt(t, a)
	if err := paused.Sync(ctx, fleetOfTwo, then); err != nil {
		t.Fatal(err)
	}
	epoch, err := paused.BeginLife(ctx, "a", 0, inventory.New, "", then, nil)
	if err != nil {
		t.Fatal(err)
	}
	held, err := paused.Claim(ctx, "a", "one", time.Second, then)
	if err != nil {
		t.Fatal(err)
	}
	var next store.Claim
	for end := time.Now().Add(2 * time.Minute); ; <-time.After(50 * time.Millisecond) {
		if next, err = other.Claim(ctx, "a", "two", time.Minute, then); err == nil {
			break
		}
		if !errors.Is(err, store.ErrClaimed) || time.Now().After(end) {
			t.Fatalf("got %v", err)
		}
	}
	if err := paused.Fenced(held).Move(ctx, "a", epoch, inventory.Wiping, inventory.Booting, "", then); !errors.Is(err, store.ErrFenced) {
		t.Errorf("the one that was paused: got %v, want %v", err, store.ErrFenced)
	}
	if _, err := paused.Renew(ctx, held, time.Minute, then); !errors.Is(err, store.ErrFenced) {
		t.Errorf("its renewal: got %v, want %v", err, store.ErrFenced)
	}
	if err := other.Fenced(next).Move(ctx, "a", epoch, inventory.Wiping, inventory.Booting, "", then); err != nil {
		t.Errorf("the other: %v", err)
	}
}

// TestQuorumLost: with two of three members gone a write fails within its bound and changes nothing, and goes on once they are back.
func TestQuorumLost(t *testing.T) {
	c, err := etcdtest.Start(t.Context(), t.TempDir(), 3)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Stop()
	s := openAt(t, c.Address("quorum"))
	ctx := t.Context()
	if err := s.Sync(ctx, fleetOfTwo, then); err != nil {
		t.Fatal(err)
	}
	c.Members[1].Kill()
	c.Members[2].Kill()
	began := time.Now()
	_, err = s.BeginLife(ctx, "a", 0, inventory.New, "", then, nil)
	if err == nil || time.Since(began) > 3*callLimit+time.Minute {
		t.Errorf("without a majority: %v after %s", err, time.Since(began))
	}
	for _, m := range c.Members[1:] {
		if err := m.Run(); err != nil {
			t.Fatal(err)
		}
	}
	var got store.Server
	for end := time.Now().Add(2 * time.Minute); ; {
		if got, err = s.Server(ctx, "a"); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
	// The change that failed was made or was not: whoever made it looks, and goes on from there.
	if got.Epoch > 1 {
		t.Errorf("got %+v", got)
	}
	if got.Epoch == 0 {
		for end := time.Now().Add(2 * time.Minute); ; {
			if _, err = s.BeginLife(ctx, "a", 0, inventory.New, "", then, nil); err == nil || errors.Is(err, store.ErrStale) {
				break
			}
			if time.Now().After(end) {
				t.Fatal(err)
			}
		}
	}
	if got, err := s.Server(ctx, "a"); err != nil || got.Epoch != 1 || got.State != inventory.Wiping {
		t.Errorf("got %+v, %v", got, err)
	}
}

// authority makes certificates.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
	next int64
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t, next: 1}
	a.pem, a.key = a.make(&x509.Certificate{Subject: pkix.Name{CommonName: "ca"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	block, _ := pem.Decode(a.pem)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	a.cert = cert
	return a
}

func (a *authority) make(c *x509.Certificate) ([]byte, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	a.next++
	c.SerialNumber, c.NotBefore, c.NotAfter = big.NewInt(a.next), time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, by := a.cert, a.key
	if parent == nil {
		parent, by = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, by)
	if err != nil {
		a.t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), key
}

// write lays CA, certificate and key into a folder.
func (a *authority) write(folder string, ca []byte) {
	a.t.Helper()
	cert, key := a.make(&x509.Certificate{Subject: pkix.Name{CommonName: "x"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}})
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err == nil {
		err = errors.Join(os.MkdirAll(folder, 0o700), os.WriteFile(filepath.Join(folder, fileCA), ca, 0o600), os.WriteFile(filepath.Join(folder, fileClient), cert, 0o600),
			os.WriteFile(filepath.Join(folder, fileKey), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600))
	}
	if err != nil {
		a.t.Fatal(err)
	}
}

// TestMutualTLS: a cluster that asks for certificates gets them, and neither side believes another authority's.
func TestMutualTLS(t *testing.T) {
	ours, theirs, dir := newAuthority(t), newAuthority(t), t.TempDir()
	ours.write(dir, ours.pem)
	c, err := etcdtest.Start(t.Context(), t.TempDir(), 1, "--client-cert-auth", "--trusted-ca-file", filepath.Join(dir, fileCA),
		"--cert-file", filepath.Join(dir, fileClient), "--key-file", filepath.Join(dir, fileKey))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Stop()
	state := func(a *authority, ca []byte) string {
		d := t.TempDir()
		a.write(filepath.Join(d, Folder), ca)
		return d
	}
	s, err := Open(t.Context(), state(ours, ours.pem), c.Address("tls"))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Sync(t.Context(), fleetOfTwo, then), s.Close()); err != nil {
		t.Error(err)
	}
	for name, d := range map[string]string{"a client of another CA": state(theirs, ours.pem), "a cluster of another CA": state(ours, theirs.pem), "no certificates": t.TempDir()} {
		if s, err := Open(t.Context(), d, c.Address("tls")); err == nil {
			t.Errorf("%s: it was opened", name)
			s.Close()
		}
	}
}
