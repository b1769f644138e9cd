package power

import (
	"context"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mayfly/internal/sealed"
	"mayfly/inventory"
	"mayfly/rebuild/power/site"
)

// What a site's program says is told without the password, wherever it stands in it and however long the text is, and without the address of an
// offer, which is a secret as well.
func TestToldWithoutSecrets(t *testing.T) {
	dir := t.TempDir()
	store := sealed.Store{Dir: filepath.Join(dir, "secrets"), Identity: filepath.Join(dir, "secrets.key")}
	const password = "S3cret-\u00df-S3cret-Long-Password"
	if err := store.Seal("pdu", []byte(password)); err != nil {
		t.Fatal(err)
	}
	token := strings.Repeat("0123456789abcdef", 4)
	for name, text := range map[string]string{
		"odd letters": "login failed: " + password,
		"at the cut":  strings.Repeat("x", maxPrintable-10) + password,
		"an address":  "cannot fetch http://192.0.2.1:8080/offers/" + token + "/boot.ipxe",
		"upper case":  "HTTP://192.0.2.1/OFFERS/" + strings.ToUpper(token),
		"a part":      "offers/" + token[:40],
	} {
		p := &program{server: inventory.Server{Name: "se-1"}, ration: newRation(t.TempDir(), "x"),
			password: func() (sealed.Secret, error) { return store.Open(sealed.Prefix + "pdu") },
			ask: func(context.Context, []byte) ([]byte, error) {
				return json.Marshal(site.Answer{Reason: "failed", Text: text})
			}}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		_, err := p.do(ctx, site.Request{Do: site.DoStatus})
		cancel()
		if err == nil {
			t.Fatalf("%s: no error", name)
		}
		for _, part := range []string{"S3cret", token[:30], strings.ToUpper(token)[:30]} {
			if strings.Contains(err.Error(), part) {
				t.Errorf("%s: told %q", name, err)
			}
		}
	}
}
