//go:build pcsc

package cardpeers

import (
	"fmt"
	"testing"

	"golang.org/x/crypto/ssh"

	"mayfly/testenv/pivcard"
)

// useYubicoPIVTool uses Yubico's own command. Debian 12's is 2.2.0: it speaks 3DES to a management key and nothing else, so that it
// administrates no card as one comes from the factory with firmware 5.7; and it makes no certificates, since that fails with
// Debian's OpenSSL before the card is asked.
func useYubicoPIVTool(t *testing.T, do doer) {
	const newPIN, newPUK = "654321", "87654321"
	d := sit(t, older)
	tool := func(args ...string) said {
		d.t.Helper()
		return d.run("yubico-piv-tool", args...)
	}
	do(seen, d, func() {
		d.must(tool("-a", "list-readers"), d.Reader(0))
		d.must(tool("-a", "status"), fmt.Sprintf("Serial Number:\t%d", d.card.Serial()), d.card.Firmware().String(), "PIN tries left:\t3")
	})
	do(generate, d, func() {
		d.must(tool("-a", "generate", "-s", "9a", "-A", "ECCP256", "--pin-policy=once", "--touch-policy=always", "-o", "pub.pem"))
		d.must(tool("-a", "generate", "-s", "9c", "-A", "ECCP384", "--touch-policy=always", "-o", "pub-9c.pem"))
		d.must(tool("-a", "generate", "-s", "9d", "-A", "RSA2048", "-o", "pub-9d.pem"))
		factory := sit(d.t, newest)
		factory.mustNot(factory.run("yubico-piv-tool", "-a", "generate", "-s", "9a", "-A", "ECCP256"), "Failed authentication with the application")
	})
	do(attest, d, func() {
		slot := d.parse([]byte(d.must(tool("-a", "attest", "-s", "9a"))))
		device := d.parse([]byte(d.must(tool("-a", "read-certificate", "-s", "f9"))))
		d.openssl(slot, device)
		public, err := ssh.NewPublicKey(d.publicKey(d.read("pub.pem")))
		if err != nil {
			d.t.Fatal(err)
		}
		if attested, err := ssh.NewPublicKey(slot.PublicKey); err != nil || string(attested.Marshal()) != string(public.Marshal()) {
			d.t.Errorf("got %v, %v, want the key that was made", attested, err)
		}
		d.mustNot(tool("-a", "attest", "-s", "82"), "Failed to attest")
	})
	do(certificate, d, func() {
		for _, slot := range []struct{ name, public string }{{"9a", "pub.pem"}, {"9c", "pub-9c.pem"}, {"9d", "pub-9d.pem"}} {
			cert := d.certify(d.publicKey(d.read(slot.public)))
			file := d.write("cert-"+slot.name+".pem", pemOf("CERTIFICATE", cert.Raw))
			d.must(tool("-a", "import-certificate", "-s", slot.name, "-i", file))
			if got := d.parse([]byte(d.must(tool("-a", "read-certificate", "-s", slot.name)))); !got.Equal(cert) {
				d.t.Errorf("slot %s: got another certificate back", slot.name)
			}
		}
	})
	signs := func(slot, pin string) said {
		d.t.Helper()
		return tool("-a", "verify-pin", "-P", pin, "-a", "test-signature", "-s", slot, "-i", d.path("cert-"+slot+".pem"))
	}
	do(sign, d, func() {
		if err := d.card.Touch.SetMode(pivcard.TouchAuto); err != nil {
			d.t.Fatal(err)
		}
		d.must(signs("9a", pivcard.DefaultPIN), "Successful ECDSA verification")
		d.must(tool("-a", "verify-pin", "-P", pivcard.DefaultPIN, "-a", "test-signature", "-s", "9c", "-H", "SHA384", "-i", "cert-9c.pem"), "Successful ECDSA verification")
		d.must(signs("9d", pivcard.DefaultPIN), "Successful RSA verification")
		d.must(tool("-a", "verify-pin", "-P", pivcard.DefaultPIN, "-a", "test-decipher", "-s", "9d", "-i", "cert-9d.pem"), "Successfully performed RSA decryption")
		d.mustNot(tool("-a", "test-signature", "-s", "9a", "-i", "cert-9a.pem")) // without a PIN
		if got := d.card.Touch.State(); got.Asked != 2 || got.Given != 2 {
			d.t.Errorf("got touches %+v, want one for each of the two signatures with touch", got.Touches)
		}
	})
	d.touches(do, func() said { return signs("9a", pivcard.DefaultPIN) }, "Successful ECDSA verification")

	do(changePIN, d, func() {
		d.must(tool("-a", "change-pin", "-P", pivcard.DefaultPIN, "-N", newPIN))
		d.must(tool("-a", "verify-pin", "-P", newPIN))
		d.mustNot(tool("-a", "verify-pin", "-P", pivcard.DefaultPIN), "2 tries left")
	})
	do(changePUK, d, func() {
		d.must(tool("-a", "change-puk", "-P", pivcard.DefaultPUK, "-N", newPUK))
		d.mustNot(tool("-a", "change-puk", "-P", pivcard.DefaultPUK, "-N", newPUK), "2 tries left")
	})
	do(pinBlocks, d, func() {
		d.mustNot(tool("-a", "verify-pin", "-P", "000000"), "1 tries left")
		d.mustNot(tool("-a", "verify-pin", "-P", "000000"), "Pin code blocked")
		d.mustNot(tool("-a", "verify-pin", "-P", newPIN), "Pin code blocked")
		d.must(tool("-a", "status"), "PIN tries left:\t0")
	})
	do(unblock, d, func() {
		d.must(tool("-a", "unblock-pin", "-P", newPUK, "-N", pivcard.DefaultPIN))
		d.must(tool("-a", "verify-pin", "-P", pivcard.DefaultPIN))
	})
	do(retries, d, func() {
		d.must(tool("-a", "verify-pin", "-P", pivcard.DefaultPIN, "-a", "pin-retries", "--pin-retries=5", "--puk-retries=4"))
		d.mustNot(tool("-a", "verify-pin", "-P", "000000"), "4 tries left")
		d.mustNot(tool("-a", "unblock-pin", "-P", "00000000", "-N", newPIN), "3 tries left")
	})
	do(management, d, func() {
		const key = "0102030405060708aabbccddeeff00112233445566778899"
		d.must(tool("-a", "set-mgm-key", "-n", key))
		d.mustNot(tool("-a", "set-chuid"), "Failed authentication")
		d.must(tool("--key="+key, "-a", "set-chuid"))
	})
	do(pukBlocks, d, func() {
		d.mustNot(tool("-a", "reset"), "are pincodes blocked")
		for _, left := range []string{"2 tries left", "1 tries left", "0 tries left"} {
			d.mustNot(tool("-a", "change-puk", "-P", "00000000", "-N", newPUK), left)
		}
		d.mustNot(tool("-a", "change-puk", "-P", pivcard.DefaultPUK, "-N", newPUK), "The puk code is blocked")
		d.must(tool("-a", "verify-pin", "-P", pivcard.DefaultPIN))
	})
	do(reset, d, func() {
		for range 5 {
			d.mustNot(tool("-a", "verify-pin", "-P", "000000"))
		}
		d.must(tool("-a", "reset"))
		d.mustNot(tool("-a", "attest", "-s", "9a"))
		d.must(tool("-a", "verify-pin", "-P", pivcard.DefaultPIN))
	})
}
